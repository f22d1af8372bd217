"""What is known about each sample, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from graphclust.graph import SampleGraph
from graphclust.graph.retrieval import duplicate_groups, outlier_scores

if TYPE_CHECKING:
    from pandas import DataFrame

#: Of ``labels.parquet``.
COLUMNS = ("path", "cluster", "probability", "second_cluster", "distance", "duplicate_group", "outlier_score")

_BLOCK_ROWS = 4096


class Centers(NamedTuple):
    """Mean of each cluster's samples [K, d], and the clusters' labels [K]; noise (-1) has none."""

    labels: NDArray[np.int64]
    means: NDArray[np.float32]


def centers_of(embedding: NDArray[Any], labels: NDArray[np.int64]) -> Centers:
    """Centres of the clusters of an embedding [N, d]."""
    found = np.unique(labels[labels >= 0])
    means = [np.asarray(embedding)[labels == label].mean(axis=0, dtype=np.float64) for label in found]
    return Centers(found, np.asarray(means, np.float32).reshape(len(found), embedding.shape[1]))


def assignments(
    paths: list[str],
    labels: NDArray[np.int64],
    probabilities: Any,
    embedding: NDArray[Any],
    centers: Centers,
) -> DataFrame:
    """The first five of `COLUMNS`.

    The second choice is the second most probable cluster, none where all others have probability 0; without
    probabilities, whose column is then empty, that with the nearest centre besides the own. The distance is that to the
    centre of the own cluster (for noise: the nearest), where the model measures: in its embedding, or its features.
    """
    import pandas as pd

    distance, second = _to_centers(embedding, labels, centers)
    probability = np.full(len(labels), np.nan, np.float32)
    if probabilities is not None:
        for start in range(0, len(labels), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            block, own = _dense(probabilities[part]), labels[part]
            known = np.flatnonzero(own >= 0)  # noise has no column
            probability[part][known] = block[known, own[known]]
            if block.shape[1] > 1:
                block[known, own[known]] = -1
                second[part] = np.where(block.max(axis=1) > 0, block.argmax(axis=1), -1)
    return pd.DataFrame(
        {
            "path": paths,
            "cluster": labels,
            "probability": probability,
            "second_cluster": pd.array(np.where(second < 0, 0, second), "Int64"),
            "distance": distance,
        }
    ).assign(second_cluster=lambda table: table["second_cluster"].mask(second < 0))


def _dense(rows: Any) -> NDArray[np.float32]:
    """A copy of some rows of a table that is sparse where many samples have many clusters."""
    return np.array(rows.toarray() if hasattr(rows, "toarray") else rows)


def with_graph_columns(table: DataFrame, graph: SampleGraph) -> DataFrame:
    """The table with duplicate groups (-1: none) and outlier scores, which the graph tells."""
    return table.assign(
        duplicate_group=duplicate_groups(graph).numpy(), outlier_score=outlier_scores(graph).cpu().numpy()
    )


def _to_centers(
    embedding: NDArray[Any], labels: NDArray[np.int64], centers: Centers
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distance to the own centre [N], and the label of the nearest other centre [N] (-1 without one)."""
    n = len(labels)
    distance, second = np.full(n, np.nan, np.float32), np.full(n, -1, np.int64)
    if not len(centers.labels):
        return distance, second
    means = torch.from_numpy(centers.means)
    for start in range(0, n, _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block = torch.from_numpy(np.asarray(embedding[rows], np.float32))
        away = torch.cdist(block, means, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        own = labels[rows, None] == centers.labels[None]
        has_own = own.any(axis=1)
        distance[rows] = np.where(has_own, np.where(own, away, np.inf).min(axis=1), away.min(axis=1))
        others = np.where(own, np.inf, away)
        nearest = others.argmin(axis=1)
        second[rows] = np.where(np.isfinite(others.min(axis=1)), centers.labels[nearest], -1)
    return distance, second
