"""Components are joined at their nearest samples: blocks and bounds against all distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from graphclust.graph import SampleGraph, links
from graphclust.graph.links import _Outside, linked_pairs
from graphclust.graph.metric import Metric

SCIPY = {1.0: "cityblock", 2.0: "euclidean", 3.0: "minkowski"}


def scattered(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Components of 1 to 700 samples, their numbers in no order: far apart, or within each other."""
    rng = np.random.default_rng(0)
    sizes = [700, 300, 90, 40, 31, *[1] * 20, *[3] * 10, 600]
    component = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centers = rng.normal(size=(len(sizes), 4)) * spread
    return (centers[component] + rng.normal(size=(len(component), 4))).astype(np.float32), component


@pytest.mark.parametrize("spread", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("order", SCIPY)
def test_nearest_outside(spread: float, order: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_BLOCK_VALUES", 256 * 100)  # a hundred candidates at a time
    x, component = scattered(spread)
    found = _Outside(torch.from_numpy(x), component, order).pairs(component)
    assert sorted(component[found[:, 0]]) == list(range(1, component.max() + 1))  # but the largest
    full = cdist(x, x, SCIPY[order], **({"p": order} if order == 3 else {}))
    full[component[:, None] == component] = np.inf
    for a, b in found:
        assert component[a] != component[b]
        assert full[a, b] == pytest.approx(full[component == component[a]].min(), rel=1e-4, abs=1e-5)


def test_separated_components_are_not_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = (np.repeat(rng.normal(size=(100, 4)) * 1000, 60, axis=0) + rng.normal(size=(6000, 4))).astype(
        np.float32
    )
    graph = SampleGraph.from_features(x, 8, random_state=0)
    compared = []
    cdist_ = torch.cdist

    def counting(a: torch.Tensor, b: torch.Tensor, p: float) -> torch.Tensor:
        compared.append(len(a) * len(b))
        return cdist_(a, b, p=p)

    monkeypatch.setattr(torch, "cdist", counting)
    linked_pairs(graph, Metric.make("euclidean"))
    assert sum(compared) < 0.2 * 6000**2
