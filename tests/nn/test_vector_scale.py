"""Scalings of vectors; what "auto" takes is tested with `ConsensusClustering` too."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch.utils._python_dispatch import TorchDispatchMode

from graphclust.nn.vector_scale import (
    WIDEST,
    RankScale,
    VectorScale,
    scale_from_state,
    suited_scaling,
    vector_scales,
)


def columns(n=200, seed=0):
    """One column of each kind: normal, long-tailed, counts, two values, constant."""
    rng = np.random.default_rng(seed)
    x = np.stack(
        [
            rng.normal(size=n),
            np.exp(3 * rng.normal(size=n)),
            rng.poisson(2, n),
            rng.integers(0, 2, n),
            np.full(n, 0.1),
        ],
        axis=1,
    )
    return torch.from_numpy(x.astype(np.float32))


def test_kinds():
    x = columns()
    common, units, ranks, whitened = vector_scales(x)
    assert [s.taken for s in (common, units, ranks, whitened)] == ["common", "units", "ranks", "whitened"]
    assert torch.unique(common.factor).numel() == 1
    assert torch.allclose(units(x)[:, :4].std(dim=0, correction=0), torch.ones(4), atol=1e-4)
    z = whitened(x)[:, :4].double()
    correlation = np.corrcoef(x[:, :4].double().numpy().T)
    values, vectors = np.linalg.eigh(correlation)
    # The constant column takes part in the mean of the eigenvalues, as one of 0.
    expected = units(x)[:, :4].double().numpy() @ vectors / np.sqrt(values + values.sum() / 5) @ vectors.T
    np.testing.assert_allclose(z.numpy(), expected, atol=1e-4)
    assert not whitened.unit_length


def test_ranks():
    x = columns()
    z = RankScale(5).fit(x)(x).numpy()
    for column in range(4):
        ranks = rankdata(x[:, column])
        np.testing.assert_allclose(z[:, column], (ranks - ranks.mean()) / ranks.std(), atol=1e-4)
    assert (z[:, 4] == 0).all()
    # No monotone change of the columns changes them.
    changed = torch.stack([x[:, 0].exp(), x[:, 1].log(), x[:, 2] ** 3, 5 * x[:, 3], x[:, 4]], dim=1)
    np.testing.assert_array_equal(RankScale(5).fit(changed)(changed).numpy(), z)


def test_ranks_of_many_samples_are_read_off_order_statistics():
    x = columns(5000)
    scale = RankScale(5).fit(x)
    ranks = rankdata(x[:, 1].numpy())
    assert scale.table.shape == (5, 1024)
    np.testing.assert_allclose(scale(x)[:, 1], (ranks - ranks.mean()) / ranks.std(), atol=0.01)
    outside = scale(torch.tensor([[-1e9] * 5, [1e9] * 5]))
    assert (outside[0, :4] <= scale(x)[:, :4].min(dim=0).values).all() and outside.isfinite().all()


@pytest.mark.parametrize(
    ("n", "d", "whitens"), [(20, 30, False), (30, 30, True), (499, 300, False), (500, 300, True)]
)
def test_whitening_needs_samples(n, d, whitens):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    assert ("whitened" in [scale.taken for scale in vector_scales(x)]) == whitens


def test_very_wide_vectors_are_not_whitened():
    x = torch.randn(500, WIDEST + 1, generator=torch.Generator().manual_seed(0))
    assert [scale.taken for scale in vector_scales(x)] == ["common", "units", "ranks"]
    assert VectorScale(WIDEST + 1).fit(x).taken == "common"


def test_one_unit():
    x = columns()
    assert not VectorScale(5).fit(x).one_unit and VectorScale(5).fit(x).taken == "units"
    assert VectorScale(2, "units").fit(x[:, [0, 2]]).one_unit
    assert (
        suited_scaling(vector_scales(x)) is None and suited_scaling(vector_scales(x[:, [0, 2]])) == "common"
    )
    wide = torch.randn(600, 300, generator=torch.Generator().manual_seed(0))
    assert suited_scaling(vector_scales(wide)) == "common"
    wide *= torch.linspace(1, 9, 300)
    assert (
        suited_scaling(vector_scales(wide)) == "whitened"
        and suited_scaling(vector_scales(wide[:400])) is None
    )


def test_state():
    x = columns()
    for scale in vector_scales(x):
        torch.testing.assert_close(scale_from_state(scale.state_dict())(x), scale(x))
    with pytest.raises(ValueError, match="kind='rank' is not known; choose one of 'auto'"):
        VectorScale(3, "rank")


class WideTables(TorchDispatchMode):
    """Counts the tables of a size that are made in float64."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64 and found.shape == self.shape:
            self.count += 1
        return found


@pytest.mark.parametrize("kind", ["whitened", "common"])
def test_samples_are_held_once_in_float64(kind):
    x = torch.randn(600, 20, generator=torch.Generator().manual_seed(0)) + 3
    scale = VectorScale(20, kind)
    with WideTables(x.shape) as tables:
        scale.fit(x)
    # The centred samples; those of one column each are squared for their variance.
    assert tables.count == (1 if kind == "whitened" else 2)
    assert torch.equal(scale.shift, x.double().mean(dim=0).float())
