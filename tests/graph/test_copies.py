"""Equal samples are found, and only these."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphclust.graph import copies
from graphclust.graph.copies import first_equal


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_first_of_each(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_BLOCK", 50)  # blocks of ten rows
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (400, 5))
    _, first, group = np.unique(x, axis=0, return_index=True, return_inverse=True)
    found = first_equal(torch.from_numpy(x).to(dtype))
    assert found is not None
    np.testing.assert_array_equal(found, first[group.reshape(-1)])


def test_nothing_where_all_differ() -> None:
    assert first_equal(torch.arange(60.0).view(20, 3)) is None


def test_zeros_of_both_signs_are_equal() -> None:
    found = first_equal(torch.tensor([[0.0, 1.0], [2.0, 1.0], [-0.0, 1.0]]))
    assert found is not None and found.tolist() == [0, 1, 0]


def test_rows_that_float32_cannot_tell_apart_differ() -> None:
    x = torch.tensor([[1.0], [1.0 + 1e-12], [1.0 + 1e-12], [1.0]], dtype=torch.float64)
    found = first_equal(x)
    assert found is not None and found.tolist() == [0, 1, 1, 0]
