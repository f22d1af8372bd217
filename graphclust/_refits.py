"""A fit that fails leaves the estimator as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Take back what a fit has set on the estimator, when it is refused or interrupted.

    Attributes are set all along a fit (names of the features, the graph, K, labels). Left half new, a model that was
    fitted before would label by the graph of one fit and the labels of another.
    """
    before = dict(estimator.__dict__)
    try:
        yield
    except BaseException:  # Ctrl-C too
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise
