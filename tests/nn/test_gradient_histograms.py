"""Histograms of oriented gradients, against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from graphclust.nn import GradientHistograms


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def plain(image: np.ndarray, n_cells: int, n_bins: int) -> np.ndarray:
    """One picture [H, W, C], whose sides are multiples of n_cells."""
    height, width, _ = image.shape
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    votes = np.zeros((height, width, n_bins))
    for i in range(height):
        for j in range(width):
            right = padded[i + 1, j + 2] - padded[i + 1, j]
            down = padded[i + 2, j + 1] - padded[i, j + 1]
            c = int(np.argmax(np.hypot(right, down)))
            place = math.atan2(down[c], right[c]) % math.pi / math.pi * n_bins
            length = math.hypot(right[c], down[c])
            low = int(place)
            votes[i, j, low % n_bins] += length * (1 - (place - low))
            votes[i, j, (low + 1) % n_bins] += length * (place - low)
    around = np.pad(votes, ((1, 1), (1, 1), (0, 0)))
    blurred = sum(around[a : a + height, b : b + width] for a in range(3) for b in range(3)) / 9
    h, w = height // n_cells, width // n_cells
    cells = blurred.reshape(n_cells, h, n_cells, w, n_bins).mean(axis=(1, 3))
    energy = (cells**2).sum(axis=2)
    edge = np.pad(energy, 1, mode="edge")
    near = sum(edge[a : a + n_cells, b : b + n_cells] for a in range(3) for b in range(3)) / 9
    found = cells / np.sqrt(near + 0.05 * energy.mean())[:, :, None]
    return found.transpose(2, 0, 1).reshape(-1)


class TestGradientHistograms:
    def test_against_loops(self, rng: np.random.Generator) -> None:
        x = rng.random((3, 8, 8, 3)).astype(np.float32)
        histograms = GradientHistograms((8, 8, 3), n_cells=4, n_bins=5)
        found = histograms(torch.from_numpy(x.reshape(3, -1))).numpy()
        assert found.shape == (3, histograms.n_features)
        for image, row in zip(x, found, strict=True):
            np.testing.assert_allclose(row, plain(image.astype(float), 4, 5), rtol=1e-3, atol=1e-4)

    def test_brightness_and_contrast_do_not_matter(self, rng: np.random.Generator) -> None:
        x = torch.from_numpy(rng.random((5, 144)).astype(np.float32))
        histograms = GradientHistograms((12, 12))
        expected = histograms(x)
        for changed in (x + 3, x * 100, 1 - x, 0.01 * x):
            torch.testing.assert_close(histograms(changed), expected, rtol=1e-2, atol=1e-3)

    def test_a_line_is_found_where_it_is(self) -> None:
        image = torch.zeros(14, 14)
        image[:, 3] = 1.0  # upright: the gradient points to the sides, direction 0
        found = GradientHistograms((14, 14))(image.reshape(1, -1)).reshape(9, 7, 7)
        assert found.sum(dim=(1, 2)).argmax() == 0
        assert found[0].sum(dim=0).argmax() == 1 and found[0, :, 4:].sum() == 0

    def test_plain_pictures_are_zero(self) -> None:
        found = GradientHistograms((6, 9, 3))(torch.full((2, 162), 0.7))
        assert found.shape == (2, 3 * 4 * 9) and not found.any()
