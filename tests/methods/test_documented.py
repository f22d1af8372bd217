"""Docstrings: every parameter and fitted attribute of every method is described, with the defaults that it has."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import pytest

from graphclust.methods import METHODS
from graphclust.methods.documented import Documented


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_every_parameter_is_described_with_its_default(method: Any) -> None:
    text = method.__doc__
    for section in ("Parameters", "Attributes"):
        assert text.count(f"{section}\n{'-' * len(section)}\n") == 1
    block = text.split("Parameters\n----------\n")[1].split("\n\n")[0]
    described: dict[str, str] = {}
    for head in re.findall(r"^(\S.*)$", block, re.MULTILINE):
        names, _, rest = head.partition(" : ")
        defaults = rest.partition(", default=")[2]
        described |= dict.fromkeys(names.split(", "), defaults)
    signature = inspect.signature(method).parameters
    assert described.keys() == signature.keys()
    for name, parameter in signature.items():
        value = parameter.default
        assert (f'"{value}"' if isinstance(value, str) else repr(value)) in described[name], name
    for name in ("labels_", "n_clusters_", "n_features_in_"):
        assert re.search(rf"^{name} : ", text, re.MULTILINE)


def test_a_subclass_describes_what_it_adds_or_changes() -> None:
    @dataclass
    class Base(Documented):
        """Base.

        Parameters
        ----------
        a, b : int
            Two numbers.

        Attributes
        ----------
        labels_ : ndarray
            Labels.
        """

        a: int = 1
        b: int = 2

    @dataclass
    class Child(Base):
        """Child.

        Parameters
        ----------
        c : str
            A word.
        b : float
            Another number.

        Notes
        -----
        Kept.
        """

        b: int = 3
        c: str = "x"

    assert Child.__doc__ == (
        "Child.\n\nParameters\n----------\nb : float, default=3\n    Another number.\n"
        'c : str, default="x"\n    A word.\na : int, default=1\n    Two numbers.\n\n'
        "Attributes\n----------\nlabels_ : ndarray\n    Labels.\n\nNotes\n-----\nKept.\n"
    )
    assert "a, b : int, default=1, 2" in (Base.__doc__ or "")

    class Silent(Child):
        pass

    assert Silent.__dict__.get("__doc__") is None
