"""First centres of k-means with many clusters: as good as scikit-learn's, from any samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import kmeans_plusplus

from graphclust.graph.seeding import spread_centers


def _inertia(x: np.ndarray, centers: np.ndarray) -> float:
    return float(cdist(x, centers, "sqeuclidean").min(axis=1).sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_as_good_as_scikit_learn(digits: tuple[np.ndarray, np.ndarray], dtype: type) -> None:
    x = (digits[0] - digits[0].mean(axis=0)).astype(dtype)
    ours, theirs, drawn = [], [], []
    for seed in range(20):
        centers = spread_centers(x, 100, np.random.RandomState(seed))
        assert centers.dtype == dtype
        assert len(np.unique(centers, axis=0)) == 100
        ours.append(_inertia(x, centers))
        theirs.append(_inertia(x, kmeans_plusplus(x.astype(np.float64), 100, random_state=seed)[0]))
        drawn.append(_inertia(x, x[np.random.default_rng(seed).permutation(len(x))[:100]]))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.01)
    assert np.mean(ours) < 0.97 * np.mean(drawn)


def test_every_sample_once() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    centers = spread_centers(x, 30, np.random.RandomState(0))
    assert sorted(map(tuple, centers)) == sorted(map(tuple, x))


def test_far_groups_get_a_centre_each() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(0, 1000, (20, 4)), 50, axis=0) + rng.normal(size=(1000, 4))
    x = (x - x.mean(axis=0)).astype(np.float32)
    for seed in range(10):
        centers = spread_centers(x, 20, np.random.RandomState(seed))
        assert set(cdist(centers, x).argmin(axis=1) // 50) == set(range(20))


def test_fewer_different_samples_than_centres() -> None:
    x = np.repeat(np.array([[-1.0, 0.0], [1.0, 0.0]], np.float32), 5, axis=0)
    centers = spread_centers(x, 4, np.random.RandomState(0))
    assert centers.shape == (4, 2)
    assert len(np.unique(centers, axis=0)) == 2
    assert np.isfinite(spread_centers(np.zeros((6, 2), np.float32), 3, np.random.RandomState(0))).all()
