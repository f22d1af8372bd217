"""New images that lie apart from all that a result knows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from graphclust.graph import SampleGraph
from graphclust.graph.retrieval import outlier_scores

#: Share of the known samples that lie apart by definition.
_APART = 0.01
#: Share of the new samples that has to lie apart, and the chance with which as many of known kinds would; how far a
#: single one has to lie.
_MANY, _CHANCE, _FAR = 0.1, 1e-3, 1.5


def warn_of_strangers(
    graph: SampleGraph, known: NDArray[np.float32], x: NDArray[np.float32], names: Sequence[str]
) -> None:
    """Warn where more new samples lie apart than would of kinds that are known: each gets a cluster all the same.

    Parameters
    ----------
    graph : SampleGraph
        Of the known samples.
    known : ndarray [N]
        Their outlier scores.
    x : ndarray [M, d]
        Features of the new samples.
    names : sequence of str
        Of the new samples; the farthest is named.
    """
    if not len(x) or not np.isfinite(known).all():
        return
    scores = outlier_scores(graph, x).cpu().numpy()
    limit = float(np.quantile(known, 1 - _APART))
    apart = int((scores > limit).sum())
    many = apart >= _MANY * len(x) and binom.sf(apart - 1, len(x), _APART) < _CHANCE
    if many or scores.max() > max(_FAR * limit, float(known.max())):
        warnings.warn(
            f"{apart:,} of {len(x):,} lie farther apart than {1 - _APART:.0%} of the samples before, most of all "
            f"{names[int(scores.argmax())]}: they may be of a kind that no cluster holds, and have the nearest one; to "
            "find new clusters, cluster all of them together",
            stacklevel=3,
        )
