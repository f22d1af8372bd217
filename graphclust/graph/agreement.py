"""Agreement of several clusterings of the same samples: the partition that most of them would accept."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from graphclust.graph.over_segmentation import least_sizes
from graphclust.graph.partition import MergeTree, check_distinct, merge_weights

_BLOCK = 4096


def agreed_partition(
    runs: Tensor,
    n_clusters: int,
    *,
    weights: ArrayLike | None = None,
    min_share: float = 0.3,
    most_parts: int = 1500,
    positions: Tensor | None = None,
) -> MergeTree:
    """K clusters on which clusterings of the same samples agree, whatever graphs or scalings they come from.

    The similarity of two samples is the (weighed) share of runs that put them together, and average linkage merges
    the samples by it (evidence accumulation; Fred & Jain 2005). Samples that all runs treat alike are one part from
    the start. Where there are more than `most_parts` of these, the largest are kept, and the samples of each other
    one join the part that agrees with it in most runs; so nothing of size N x N is stored.

    Parameters
    ----------
    runs : Tensor [R, N], int64
        Labels of each run; runs may have different numbers of clusters.
    n_clusters : int
        K.
    weights : array-like [R], optional
        What each run counts, at least 0, not all 0; all the same by default.
    min_share : float, default=0.3
        Groups smaller than this share of N / K do not count as clusters (`over_segmentation.least_sizes`).
    most_parts : int, default=1500
        At least K.
    positions : Tensor [N, d], optional
        Where the samples lie: groups that no run puts together are merged by the distance of their means.

    Returns
    -------
    MergeTree
        Its heights are ``-log`` of the mean share of runs that put two samples of both groups together.

    Raises
    ------
    ValueError
        When the runs tell fewer than K kinds of samples apart.
    """
    kinds, parts, size = np.unique(runs.cpu().numpy(), axis=1, return_inverse=True, return_counts=True)
    parts = parts.reshape(-1)
    check_distinct(len(size), n_clusters)
    weight = np.ones(len(kinds)) if weights is None else np.asarray(weights, dtype=float)
    if weight.shape != (len(kinds),) or not (weight >= 0).all() or not weight.sum() > 0:
        raise ValueError(
            f"weights must be {len(kinds)} numbers of at least 0, one a run, that are not all 0; got {weights!r}"
        )
    # A column for each cluster of each run, and the root of the run's weight where a part is in it.
    entry = np.tile(np.sqrt(weight / weight.sum()), len(size))
    offset = np.concatenate([[0], (kinds.max(axis=1) + 1).cumsum()])
    columns = (kinds + offset[:-1, None]).T
    pointer = np.arange(len(size) + 1) * len(kinds)
    member = sp.csr_matrix((entry, columns.reshape(-1), pointer), (len(size), offset[-1]))
    if len(size) > max(most_parts, n_clusters):
        kept = np.argsort(-size, kind="stable")[: max(most_parts, n_clusters)]
        largest = member[kept].T.tocsr()
        nearest = np.empty(len(size), dtype=np.int64)
        for start in range(0, len(size), _BLOCK):
            rows = slice(start, start + _BLOCK)
            nearest[rows] = (member[rows] @ largest).toarray().argmax(axis=1)
        nearest[kept] = np.arange(len(kept))
        joins = sp.csr_matrix((size.astype(float), (nearest, np.arange(len(size)))))
        member, parts = (joins @ member).tocsr(), nearest[parts]
    else:
        member = sp.diags(size.astype(float)) @ member
    # Summed over the samples of both parts: what average linkage divides by the number of pairs.
    between = (member @ member.T).toarray()
    labels = torch.from_numpy(parts).long()
    sizes = least_sizes([min_share], len(parts), n_clusters)
    return merge_weights(between, labels, n_clusters, positions, sizes)[0]
