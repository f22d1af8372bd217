"""What error messages share: how they show a value, and which name was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

#: Characters of a value that a message shows; beyond, what it is says more.
_LONGEST = 80


def shown(value: Any) -> str:
    """A value as Python writes it, where that is short; else its type and shape, or its beginning."""
    shape = getattr(value, "shape", None)
    if shape is not None and len(shape):
        return f"<{type(value).__name__} of shape {list(shape)}>"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def nearest(name: Any, known: Iterable[str]) -> str | None:
    """The name that was probably meant, whatever its case; None where no other is near."""
    by_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def meant(name: Any, known: Iterable[str]) -> str:
    """``"did you mean that? "``, or nothing."""
    near = nearest(name, known)
    return f"did you mean {near}? " if near else ""


def unknown_parameters(method: str, unknown: Iterable[str], known: Iterable[str]) -> str:
    """A message that names the parameters that a method lacks, those that were probably meant, and all it has."""
    known, unknown = list(known), list(unknown)
    near = [nearest(name, known) for name in unknown]
    hints = ", ".join(repr(name) for name in near if name)
    return (
        f"{method} has no parameter {', '.join(map(repr, unknown))}"
        + (f" (did you mean {hints}?)" if hints else "")
        + f"; it has {', '.join(known)}"
    )
