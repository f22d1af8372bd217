import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from graphclust import _checks


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_kept_types_share_memory(dtype, tmp_path):
    x = np.arange(12).reshape(4, 3).astype(dtype)
    assert _checks.check_features(x).data_ptr() == x.ctypes.data
    tensor = torch.from_numpy(x)
    assert (
        _checks.check_features(tensor.requires_grad_() if dtype == np.float32 else tensor).data_ptr()
        == x.ctypes.data
    )
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    shared = _checks.check_features(mapped)
    assert shared.data_ptr() == mapped.ctypes.data and torch.equal(shared, tensor)


@pytest.mark.parametrize(
    "x",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]], dtype=">f8"),
        np.array([[1, 2], [3, 4]], dtype=object),
        np.array([[1, 2], [3, 4]], dtype=np.uint16),
        torch.tensor([[1, 2], [3, 4]]),
        torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16),
    ],
)
def test_other_types_become_float32(x):
    found = _checks.check_features(x)
    assert found.dtype == torch.float32 and found.tolist() == [[1, 2], [3, 4]]


def test_double_is_kept_on_request():
    x = np.random.default_rng(0).random((3, 2))
    assert _checks.check_features(x, keep_double=True).data_ptr() == x.ctypes.data
    assert _checks.check_features(x[::-1], keep_double=True).tolist() == x[::-1].tolist()


def test_nan_is_counted_and_located(monkeypatch):
    x = np.zeros((50, 3), dtype=np.float32)
    x[[17, 40]] = np.nan
    x[30, 1] = -np.inf
    monkeypatch.setattr(_checks, "_BLOCK_VALUES", 21)  # several blocks
    with pytest.raises(ValueError, match="3 rows with NaN or infinity, the first is row 17; .*SimpleImputer"):
        _checks.check_features(x)
    assert _checks.check_features(np.full((2, 2), 1e308), keep_double=True).shape == (
        2,
        2,
    )  # its sum overflows
    with pytest.raises(ValueError, match="beyond the range of float32"):
        _checks.check_features(np.full((2, 2), 1e308))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros(4), ValueError, r"shape \[4\].*reshape\(-1, 1\)"),
        (np.zeros((4, 2, 2)), ValueError, r"flatten images: x.reshape\(len\(x\), -1\)"),
        (np.zeros((0, 3)), ValueError, "empty"),
        (np.zeros((3, 0)), ValueError, "empty"),
        ([[1, 2], [3]], ValueError, "rows differ in length"),
        (np.array([["a", "b"]]), TypeError, "not numeric"),
        (np.array([["a", 1]], dtype=object), TypeError, "not numeric"),
        (np.ones((2, 2), dtype=complex), TypeError, "not numeric"),
        (torch.ones((2, 2), dtype=torch.complex64), TypeError, "complex"),
        (csr_matrix(np.eye(3)), TypeError, r"sparse matrix.*toarray"),
        (torch.eye(3).to_sparse(), TypeError, r"sparse tensor.*to_dense"),
    ],
)
def test_bad_features(x, error, message):
    with pytest.raises(error, match=message):
        _checks.check_features(x)


def test_size_requirements():
    with pytest.raises(ValueError, match="x has 2 samples, but at least 5"):
        _checks.check_features(np.eye(2), min_samples=5)
    with pytest.raises(ValueError, match="new has 2 features, but 3"):
        _checks.check_features(np.eye(2), "new", n_features=3)


def test_numbers():
    assert _checks.check_count(np.int64(3), "n") == 3 and isinstance(
        _checks.check_count(np.int64(3), "n"), int
    )
    assert _checks.check_number(np.float32(0.5), "p", 0, 1) == 0.5
    assert _checks.check_choice("a", "kind", ("a", "b")) == "a"
    for call, error, message in (
        (lambda: _checks.check_count(True, "n"), TypeError, "n=True has type bool"),
        (
            lambda: _checks.check_count(0, "n", remedy="raise it"),
            ValueError,
            "n=0 must be at least 1; raise it",
        ),
        (lambda: _checks.check_count(9, "n", 1, 5), ValueError, "between 1 and 5"),
        (lambda: _checks.check_number("1", "p"), TypeError, "p='1' has type str"),
        (lambda: _checks.check_number(float("nan"), "p"), ValueError, "p=nan must be a number"),
        (lambda: _checks.check_number(0, "p", 0, open_low=True), ValueError, "p=0 must be above 0"),
        (lambda: _checks.check_number(2, "p", 0, 1), ValueError, "at least 0 and at most 1"),
        (lambda: _checks.check_choice("c", "kind", ("a", "b")), ValueError, "kind='c'.*'a', 'b'"),
        (lambda: _checks.check_choice(["a"], "kind", ("a", "b")), ValueError, "'a', 'b'"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_generators_leave_the_global_state_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    draws = [_checks.check_generator(seed).random() for seed in (3, np.int64(3))]
    assert draws[0] == draws[1]
    old = [_checks.check_generator(np.random.RandomState(1)).random() for _ in range(2)]
    assert old[0] == old[1]
    generator = np.random.default_rng(0)
    assert _checks.check_generator(generator) is generator
    _checks.check_generator(None).random()
    assert (state == np.random.get_state()[1]).all()  # noqa: NPY002
    with pytest.raises(ValueError, match="random_state=-1"):
        _checks.check_generator(-1)


def test_devices():
    assert _checks.check_device(None) is None and _checks.check_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device='gpu' is not a torch device"):
        _checks.check_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            _checks.check_device("cuda")
