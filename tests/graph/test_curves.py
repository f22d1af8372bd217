"""Samples along a curve: which are, and what is drawn along the same one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from sklearn.datasets import load_digits, load_wine, make_blobs, make_circles, make_moons
from sklearn.metrics import adjusted_rand_score

import graphclust
from graphclust.graph.curves import Curve, _along_graph, _nearest
from graphclust.graph.null_samples import NullSamples


def ring(n: int, seed: int = 0, noise: float = 0.05) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * rng.random(n)
    return np.c_[np.cos(angle), np.sin(angle)] + noise * rng.normal(size=(n, 2))


def arc(n: int, seed: int = 0) -> NDArray[np.float64]:
    x, y = make_moons(2 * n, noise=0.05, random_state=seed)
    return np.asarray(x[y == 0])


def drawn_along(rows: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """What is drawn along the curve: the last two ways."""
    return list(NullSamples(rows, np.zeros(len(rows), dtype=np.int64)).draw(np.random.default_rng(0)))[-2:]


class TestThrough:
    def test_ring(self) -> None:
        curve = Curve.through(ring(400))
        assert curve is not None and curve.period > 0
        # Columns are standardised, radius sqrt 2; the first coordinates of distances along a circle, t² with the
        # Fourier coefficient 4, are another sqrt 2 as far from the centre. Paths zigzag a little.
        assert curve.length == pytest.approx(4 * np.pi, rel=0.1)
        angle = np.unwrap(np.arctan2(curve.rows[:, 1], curve.rows[:, 0]))
        assert abs(np.corrcoef(angle, curve.position)[0, 1]) > 0.99

    def test_arc(self) -> None:
        curve = Curve.through(arc(200))
        assert curve is not None and curve.period == 0
        angle = np.arctan2(curve.rows[:, 1], curve.rows[:, 0])
        assert abs(np.corrcoef(angle, curve.position)[0, 1]) > 0.99
        assert (np.diff(curve.position) >= 0).all()

    @pytest.mark.parametrize("kind", ["cloud", "long", "square", "blobs", "wine", "digits", "few"])
    def test_no_curve(self, kind: str) -> None:
        rng = np.random.default_rng(0)
        x = {
            "cloud": rng.normal(size=(300, 3)),
            "long": rng.normal(size=(300, 3)) * [10, 1, 1] @ rng.normal(size=(3, 3)),
            "square": rng.random((300, 2)),
            "blobs": make_blobs(300, centers=4, random_state=0)[0],
            "wine": load_wine().data,
            "digits": load_digits().data[:500, load_digits().data[:500].std(axis=0) > 0],
            "few": ring(29),
        }[kind]
        assert Curve.through(x) is None

    def test_duplicates(self) -> None:
        assert Curve.through(np.repeat(ring(60), 5, axis=0)) is not None
        assert Curve.through(np.ones((40, 2))) is None


class TestDraw:
    def test_no_gaps_and_not_beside(self) -> None:
        """A part of the arc is missing; what is drawn along the rest of it has none and lies on the arc."""
        rows = arc(600)
        rows = rows[np.abs(np.arctan2(rows[:, 1], rows[:, 0]) - np.pi / 2) > 0.3]
        for drawn in drawn_along(rows):
            assert np.quantile(np.abs(np.linalg.norm(drawn, axis=1) - 1), 0.95) < 0.2
            angle = np.sort(np.arctan2(drawn[:, 1], drawn[:, 0]))
            assert np.diff(angle[(angle > 0.3) & (angle < 2.8)]).max() < 0.3  # it was 0.6

    def test_all_around(self) -> None:
        rows = ring(600)
        for drawn in drawn_along(rows):
            radius = np.linalg.norm(drawn, axis=1)
            assert radius.std() == pytest.approx(np.linalg.norm(rows, axis=1).std(), rel=0.3)
            angle = np.sort(np.arctan2(drawn[:, 1], drawn[:, 0]))
            assert np.diff(angle).max() < 0.3 and angle[0] < -3 and angle[-1] > 3

    def test_as_many_beside_the_others(self) -> None:
        """A group along a curve and one that is none are drawn in as many ways."""
        rows = np.concatenate([ring(200), make_blobs(100, centers=1, random_state=0)[0] + 20])
        groups = np.repeat([0, 1], [200, 100])
        drawn = list(NullSamples(rows, groups).draw(np.random.default_rng(0)))
        assert len(drawn) == 6 and all(one.shape == rows.shape for one in drawn)
        assert all((one[groups == 1].mean(axis=0) > 10).any() for one in drawn)


def test_along_graph() -> None:
    """Neighbours are as far as they are; ends of an arc are as far as the arc is long."""
    x = arc(150)
    apart = squareform(pdist(x))
    along = _along_graph(apart)
    np.testing.assert_allclose(along, along.T)
    assert (along >= apart - 1e-6).all()
    nearest = np.argsort(apart, axis=1)[:, 1]
    rows = np.arange(150)
    np.testing.assert_allclose(along[rows, nearest], apart[rows, nearest], rtol=1e-6)
    assert np.pi - 0.1 < along.max() < 1.2 * np.pi
    apart_groups = squareform(pdist(np.concatenate([x, x + 100])))
    assert np.isfinite(_along_graph(apart_groups)).all()  # the spanning tree joins them


@pytest.mark.parametrize("m", [1, 4, 19, 20, 25])
def test_nearest(m: int) -> None:
    rng = np.random.default_rng(0)
    known, position = np.sort(rng.random(20)), 1.4 * rng.random(50) - 0.2
    found = _nearest(known, position, m)
    far = np.abs(known[None] - position[:, None])
    expected = np.sort(far, axis=1)[:, : min(m, 20)]
    np.testing.assert_allclose(np.sort(np.take_along_axis(far, found, axis=1), axis=1), expected)


class TestCount:
    """What `cluster` says of curves without being told how many clusters there are."""

    @pytest.mark.parametrize("n", [150, 500, 1500])
    def test_ring_is_one(self, n: int) -> None:
        assert graphclust.cluster(ring(n, seed=1)).n_clusters_ == 1

    @pytest.mark.parametrize("seed", [0, 3])
    def test_moons_and_circles_of_few_samples(self, seed: int) -> None:
        for x, y in (
            make_moons(500, noise=0.05, random_state=seed),
            make_circles(300, factor=0.5, noise=0.05, random_state=seed),
        ):
            labels = graphclust.cluster(x, random_state=seed).labels_
            assert adjusted_rand_score(y, labels) > 0.95
