"""A bar on standard error while steps go by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def tracked(steps: Iterable[T], what: str, shown: bool = True) -> Iterable[T]:
    """The same steps; with a bar, called `what`, on standard error while they go by, where that is a terminal."""
    if not shown:
        return steps
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:  # rich would leave an empty line in the log
        return steps
    steps = steps if hasattr(steps, "__len__") else list(steps)
    return track(steps, description=what, transient=True, console=console)
