"""Augmentations against scipy and against shifts by hand; nothing happens in evaluation mode."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from graphclust.nn import RandomAffine, RandomNoise
from graphclust.nn.augmentation import affine_matrices, warp_rows


def move(
    rows: torch.Tensor,
    shape: tuple[int, ...],
    angle: float = 0.0,
    zoom: float = 1.0,
    shear: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    padding: str = "zeros",
) -> np.ndarray:
    n = len(rows)
    matrices = affine_matrices(
        torch.full((n,), math.radians(angle)),
        torch.full((n,), zoom),
        torch.full((n,), math.radians(shear)),
        torch.tensor([shift] * n),
    )
    return warp_rows(rows, shape, matrices, padding).reshape(n, *shape).numpy()


def test_shift_by_hand() -> None:
    images = torch.arange(1.0, 13.0).reshape(1, 3, 4)
    right = move(images.reshape(1, -1), (3, 4), shift=(1.0, 0.0))
    np.testing.assert_allclose(right[0], [[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11]], atol=1e-5)
    down = move(images.reshape(1, -1), (3, 4), shift=(0.0, 1.0))
    np.testing.assert_allclose(down[0], [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]], atol=1e-5)
    half = move(images.reshape(1, -1), (3, 4), shift=(-0.5, 0.0))
    np.testing.assert_allclose(half[0, 0], [1.5, 2.5, 3.5, 2.0], atol=1e-5)
    border = move(images.reshape(1, -1), (3, 4), shift=(1.0, 0.0), padding="border")
    np.testing.assert_allclose(border[0, 0], [1, 1, 2, 3], atol=1e-5)


def test_quarter_turn_and_zoom_by_hand() -> None:
    image = torch.arange(1.0, 10.0).reshape(1, 9)
    turned = move(image, (3, 3), angle=90.0)
    np.testing.assert_allclose(turned[0], [[7, 4, 1], [8, 5, 2], [9, 6, 3]], atol=1e-4)  # clockwise
    larger = move(torch.eye(3).reshape(1, 9), (3, 3), zoom=2.0)
    np.testing.assert_allclose(larger[0], [[0.5, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.5]], atol=1e-5)


@pytest.mark.parametrize(
    ("angle", "zoom", "shear", "shift"),
    [
        (10.0, 1.0, 0.0, (0.0, 0.0)),
        (0.0, 1.1, 0.0, (0.0, 0.0)),
        (0.0, 1.0, 15.0, (0.0, 0.0)),
        (0.0, 1.0, 0.0, (1.3, -0.7)),
        (-8.0, 0.9, 5.0, (0.8, 1.6)),
    ],
)
@pytest.mark.parametrize("shape", [(8, 8), (11, 6)])
def test_against_scipy(
    angle: float, zoom: float, shear: float, shift: tuple[float, float], shape: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).random(shape)
    a, s = math.radians(angle), math.tan(math.radians(shear))
    turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    forward = turn @ np.array([[1.0, s], [0.0, 1.0]]) * zoom  # of (x, y)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])  # scipy's order is (row, column)
    inverse = swap @ np.linalg.inv(forward) @ swap
    centre = (np.array(shape) - 1) / 2
    offset = centre - inverse @ (centre + np.array(shift[::-1]))
    # "grid-constant" interpolates between the last pixel and the zeros outside, as torch does.
    wanted = affine_transform(image, inverse, offset, order=1, mode="grid-constant", cval=0.0)
    rows = torch.from_numpy(image.astype(np.float32)).reshape(1, -1)
    found = move(rows, shape, angle, zoom, shear, shift)[0]
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    wanted = affine_transform(image, inverse, offset, order=1, mode="nearest")
    found = move(rows, shape, angle, zoom, shear, shift, padding="border")[0]
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_each_channel_of_a_colour_image_moves_alike() -> None:
    images = np.random.default_rng(0).random((4, 6, 5, 3), dtype=np.float32)
    rows = torch.from_numpy(images.reshape(4, -1))
    whole = move(rows, (6, 5, 3), 7.0, 1.1, 3.0, (0.5, -1.0))
    for channel in range(3):
        grey = torch.from_numpy(images[..., channel].reshape(4, -1).copy())
        np.testing.assert_allclose(
            whole[..., channel], move(grey, (6, 5), 7.0, 1.1, 3.0, (0.5, -1.0)), atol=1e-5
        )


def test_identity_where_nothing_is_asked_for(digits: Any) -> None:
    x = torch.from_numpy(digits[0][:50].copy())
    still = RandomAffine((8, 8), degrees=0, translate=0, scale=(1, 1), shear=0)
    torch.testing.assert_close(still(x), x, atol=1e-5, rtol=0)
    moving = RandomAffine((8, 8))
    assert moving.eval()(x) is x
    assert RandomNoise().eval()(x) is x
    assert float((moving.train()(x) - x).abs().max()) > 0.1


def test_draws_stay_in_their_range_and_differ_between_samples() -> None:
    """A single bright pixel tells by its place how far its picture was moved."""
    n, side = 2000, 21
    images = torch.zeros(n, side, side)
    images[:, 10, 10] = 1.0
    moved = RandomAffine((side, side), degrees=0, translate=0.1, scale=(1, 1))(images.reshape(n, -1))
    weight = moved.reshape(n, side, side)
    torch.testing.assert_close(weight.sum((1, 2)), torch.ones(n), atol=1e-4, rtol=0)
    place = torch.arange(side, dtype=torch.float32) - 10
    for shift in (weight.sum(1) @ place, weight.sum(2) @ place):
        assert -2.1 - 1e-3 <= float(shift.min()) < -2.0 and 2.0 < float(shift.max()) <= 2.1 + 1e-3
        assert abs(float(shift.mean())) < 0.15 and float(shift.std()) == pytest.approx(4.2 / 12**0.5, rel=0.1)
    # A bright square tells by its sum how far its picture was zoomed: areas grow by the square of it.
    block = torch.zeros(n, side, side)
    block[:, 6:15, 6:15] = 1.0
    zoomed = RandomAffine((side, side), degrees=0, translate=0, scale=(0.8, 1.2))(block.reshape(n, -1))
    size = (zoomed.sum(1) / 81).sqrt()
    assert 0.76 < float(size.min()) < 0.83 and 1.17 < float(size.max()) < 1.24
    bar = torch.zeros(n, side, side)
    bar[:, 10, 3:18] = 1.0
    turned = RandomAffine((side, side), degrees=20, translate=0, scale=(1, 1))(bar.reshape(n, -1)).reshape(
        n, side, side
    )
    right = turned[:, :, 17] / turned[:, :, 17].sum(1, keepdim=True)
    angle = torch.atan2(right @ place, torch.tensor(7.0)) * 180 / math.pi
    assert -21 < float(angle.min()) < -17 and 17 < float(angle.max()) < 21


def test_randomness_comes_from_the_generator() -> None:
    x = torch.rand(6, 30)
    for make in (lambda g: RandomAffine((6, 5), generator=g), lambda g: RandomNoise(generator=g)):
        first = make(torch.Generator().manual_seed(3))(x)
        assert torch.equal(first, make(torch.Generator().manual_seed(3))(x))
        assert not torch.equal(first, make(torch.Generator().manual_seed(4))(x))
        state = torch.get_rng_state()
        make(torch.Generator().manual_seed(3))(x)
        assert torch.equal(torch.get_rng_state(), state)
        default = make(None)(x)
        torch.set_rng_state(state)
        assert torch.equal(default, make(None)(x))


def test_types_and_precision() -> None:
    x = torch.rand(5, 784)
    module = RandomAffine((28, 28), generator=torch.Generator().manual_seed(0))
    plain = module(x)
    module.generator = torch.Generator().manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(x)
    torch.testing.assert_close(mixed, plain)
    assert module(x.to(torch.bfloat16)).dtype == torch.bfloat16
    assert float(plain.min()) >= 0 and float(plain.max()) <= 1 + 1e-5


def test_noise_has_the_share_and_the_deviation_that_were_asked_for() -> None:
    x = torch.full((400, 100), 3.0)
    masked = RandomNoise(dropout=0.3, noise=0.0, generator=torch.Generator().manual_seed(0))(x)
    assert set(masked.unique().tolist()) == {0.0, 3.0}
    assert float((masked == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    noisy = RandomNoise(dropout=0.0, noise=0.5, generator=torch.Generator().manual_seed(0))(x)
    assert float((noisy - x).std()) == pytest.approx(0.5, rel=0.02)
    assert abs(float((noisy - x).mean())) < 0.01


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"degrees": -1}, "degrees"),
        ({"translate": -0.1}, "translate"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (1.1, 0.9)}, "scale"),
        ({"shear": 90}, "shear"),
        ({"padding": "mirror"}, "padding"),
    ],
)
def test_bad_settings(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        RandomAffine((8, 8), **settings)


def test_bad_noise() -> None:
    with pytest.raises(ValueError, match="dropout"):
        RandomNoise(dropout=1.5)
    with pytest.raises(ValueError, match="noise"):
        RandomNoise(noise=-1)
