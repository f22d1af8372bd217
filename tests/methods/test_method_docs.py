"""What a method's docstring owes its reader: where it comes from, what was reported, what is different here."""

from __future__ import annotations

import re
from typing import Any

import pytest

from graphclust.methods import METHODS


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_formula_paper_result_and_departures(method: Any) -> None:
    text = method.__doc__.split("Parameters\n----------\n")[0]
    assert re.search(r":math:|\.\. math::", text), "no formula"
    assert re.search(r"\b(19|20)\d\d\b", text), (
        "no paper with its year, nor the year of a method of one's own"
    )
    assert re.search(r"\breport(s|ed)?\b", text), "neither a reported result nor that there is none"
    assert re.search(r"[Dd]epart(s|ure|ures)?\b|different here|has no paper", text), "no departures"
    assert not re.search(r"\b(RESULTS|TODO|FIXME|XXX)\b", text), "a place that was to be filled in"
