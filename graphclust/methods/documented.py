"""Docstrings that are inherited as parameters are: each parameter is described once, in the class that has it."""

from __future__ import annotations

import inspect
import re
from dataclasses import Field
from typing import Any

_SECTION = re.compile(r"^(\w[\w ]*)\n(-{3,})\n", re.MULTILINE)
_INHERITED = ("Parameters", "Attributes")
#: Described in this order, whichever class has them; all others stand before, those of the method itself first.
_FIRST, _LAST = ("n_clusters",), ("scale", "device", "precision", "checkpoint", "random_state", "verbose")


class Documented:
    """Completes the docstring of every subclass with the parameters and attributes that it inherits.

    A class describes what it adds, or means in another way, in NumPy's style and without defaults:

    ``name : type`` and an indented text. The complete docstring has all parameters with the defaults of that class.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("__doc__")
        if own:  # python -OO has none
            text, cls._described = _split(inspect.cleandoc(own))
            cls.__doc__ = _complete(cls, text)

    #: What the class itself describes: section -> name -> entry.
    _described: Any = {}


def _split(text: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The sections of a docstring by their titles ("" for what stands before), and the entries of the inherited."""
    sections = {"": text}
    titles = list(_SECTION.finditer(text))
    if titles:
        sections[""] = text[: titles[0].start()].rstrip()
    for title, end in zip(titles, [*(t.start() for t in titles[1:]), len(text)], strict=False):
        sections[title[1]] = text[title.end() : end].rstrip()
    return sections, {name: _entries(sections.get(name, "")) for name in _INHERITED}


def _entries(section: str) -> dict[str, str]:
    """Entries of a section by name; "a, b : type" describes two."""
    entries: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", section):
        head = entry.partition("\n")[0]
        for name in head.partition(" : ")[0].split(", "):
            if name:
                entries[name] = entry
    return entries


def _complete(cls: type, sections: dict[str, str]) -> str:
    described = {section: _nearest(cls, section) for section in _INHERITED}
    parameters = {name: described["Parameters"].get(name, name) for name in _parameter_order(cls)}
    blocks = {
        "Parameters": _block(parameters, cls),
        "Attributes": _block(described["Attributes"]),
    }
    parts = [sections[""]]
    for title in ("Parameters", "Attributes", *(t for t in sections if t and t not in _INHERITED)):
        body = blocks.get(title, sections.get(title, ""))
        if body:
            parts.append(f"{title}\n{'-' * len(title)}\n{body}")
    return "\n\n".join(parts) + "\n"


def _nearest(cls: type, section: str) -> dict[str, str]:
    """Entries of a class and its bases; the nearest class's words count, in the order of the farthest."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found.update(base.__dict__.get("_described", {}).get(section, {}))
    return found


def _parameter_order(cls: type) -> list[str]:
    names: list[str] = []
    for base in cls.__mro__:
        own = [
            name
            for name, kind in inspect.get_annotations(base).items()
            if not str(kind).startswith("ClassVar") and not name.startswith("_")
        ]
        names += own if issubclass(base, Documented) else []
    unique = list(dict.fromkeys(names))
    ends = {*_FIRST, *_LAST}
    return [
        *(n for n in _FIRST if n in unique),
        *(n for n in unique if n not in ends),
        *(n for n in _LAST if n in unique),
    ]


def _block(entries: dict[str, str], cls: type | None = None) -> str:
    """Entries as text; those described together stay together, with the defaults of `cls` where it is given."""
    together: dict[str, list[str]] = {}
    for name, entry in entries.items():
        together.setdefault(entry, []).append(name)
    lines = []
    for entry, names in together.items():
        head, newline, text = entry.partition("\n")
        kind = head.partition(" : ")[2]
        head = ", ".join(names) + (f" : {kind}" if kind else "")
        if cls is not None and kind:
            defaults = ", ".join(_default(cls, name) for name in names)
            head += f", default={defaults}"
        lines.append(head + newline + text)
    return "\n".join(lines)


def _default(cls: type, name: str) -> str:
    value = getattr(cls, name, None)
    value = value.default if isinstance(value, Field) else value
    return f'"{value}"' if isinstance(value, str) else repr(value)
