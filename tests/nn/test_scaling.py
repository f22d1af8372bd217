import numpy as np
import pytest
import torch

from graphclust.nn import FeatureScale


def data(low, high, seed=0, n=200, d=5):
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, (n, d))).float()


def test_minmax_takes_one_factor_for_all_features():
    x = data(-3, 7) * torch.tensor([1.0, 0.5, 0.1, 1.0, 1.0])
    scale = FeatureScale(5).fit(x, "minmax")
    expected = (x - x.min()) / (x.max() - x.min())
    torch.testing.assert_close(scale(x), expected)
    assert scale.unit_range
    ratio = torch.pdist(scale(x)) / torch.pdist(x)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=1e-5)


def test_standard_centres_features_and_sets_their_mean_variance():
    x = data(-3, 7) * torch.tensor([1.0, 0.5, 0.1, 1.0, 3.0]) + 5
    scale = FeatureScale(5).fit(x, "standard")
    y = scale(x)
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(5), atol=1e-5, rtol=0)
    assert float(y.var(dim=0, unbiased=False).mean()) == pytest.approx(1.0, rel=1e-4)
    assert not scale.unit_range
    assert float(y[:, 4].var() / y[:, 2].var()) == pytest.approx(
        float(x[:, 4].var() / x[:, 2].var()), rel=1e-3
    )


def test_none_leaves_the_data_alone():
    x = data(0.2, 0.9)
    scale = FeatureScale(5).fit(x, "none")
    assert torch.equal(scale(x), x) and scale.unit_range
    assert not FeatureScale(5).fit(x + 1, "none").unit_range
    assert not FeatureScale(5).fit(x - 1, "none").unit_range


@pytest.mark.parametrize(
    ("low", "high", "like", "unit"),
    [
        (0.1, 0.9, "none", True),
        (0.0, 0.1, "minmax", True),
        (0.85, 0.95, "minmax", True),
        (3.0, 255.0, "minmax", True),
        (280.0, 310.0, "minmax", True),
        (-1.0, 1.0, "standard", False),
    ],
)
def test_auto(low, high, like, unit):
    x = data(low, high)
    scale = FeatureScale(5).fit(x)
    torch.testing.assert_close(scale(x), FeatureScale(5).fit(x, like)(x))
    if like == "minmax":
        assert scale(x).min() == 0 and scale(x).max() == pytest.approx(1)
    assert scale.unit_range is unit


@pytest.mark.parametrize("kind", ["auto", "minmax", "standard", "none"])
def test_blocks_and_inverse(kind):
    x = data(-2, 9)
    scale = FeatureScale(5).fit(x, kind)
    pieces = FeatureScale(5).fit(x, kind, block_size=7)
    torch.testing.assert_close(pieces(x), scale(x))
    torch.testing.assert_close(scale.inverse(scale(x)), x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["auto", "minmax", "standard", "none"])
def test_constant_data_stay_finite(kind):
    x = torch.full((10, 3), 4.0)
    scale = FeatureScale(3).fit(x, kind)
    assert torch.isfinite(scale(x)).all()
    torch.testing.assert_close(scale.inverse(scale(x)), x)


def test_bytes_from_a_memory_map(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 4), dtype=np.uint8)
    images[0, 0], images[1, 0] = 0, 255
    np.save(tmp_path / "x.npy", images)
    x = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c"))
    scale = FeatureScale(4).fit(x)
    y = scale(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, torch.from_numpy(images / 255).float())


def test_scale_is_kept_with_the_model():
    x = data(-2, 9)
    scale = FeatureScale(5).fit(x)
    other = FeatureScale(5)
    other.load_state_dict(scale.state_dict())
    assert torch.equal(other(x), scale(x))


def test_unknown_scale_is_named():
    with pytest.raises(ValueError, match="'max'.*'auto', 'minmax', 'standard', 'none'"):
        FeatureScale(5).fit(data(0, 1), "max")


def test_a_shift_of_all_values_changes_nothing_by_itself(digits):
    x = torch.from_numpy(digits[0]).float()
    scaled = FeatureScale(64).fit(x)(x)
    torch.testing.assert_close(FeatureScale(64).fit(x + 64)(x + 64), scaled)
    torch.testing.assert_close(FeatureScale(64).fit(x / 160)(x / 160), scaled)
