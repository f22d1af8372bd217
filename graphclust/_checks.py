"""Checks of what users pass in: each failure is one error that names the value, the bound and the remedy."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust._messages import nearest, shown

#: Feature types that are kept as they are. Everything else is converted to float32.
KEPT_DTYPES = (torch.float32, torch.float16, torch.uint8)

_BLOCK_VALUES = 1 << 22


#: What to do with nodes that have no features.
WITHOUT_FEATURES = (
    "or to torch.ones(N, 1) where there are none: graphclust.cluster then reads the edges alone"
)


def check_features(
    x: Any, name: str = "x", *, min_samples: int = 1, n_features: int | None = None, keep_double: bool = False
) -> Tensor:
    """Turn a feature matrix into a tensor, without a copy where its type allows it.

    Parameters
    ----------
    x : array, tensor, memory map, data frame or nested list, shape [N, d]
        Numeric, finite, dense.
    name : str
        How the error messages call it.
    min_samples : int
        The smallest N that is accepted.
    n_features : int, optional
        The d that is required.
    keep_double : bool
        Keep float64 instead of converting it to float32.

    Returns
    -------
    Tensor, shape [N, d]
        float32, float16 and uint8 share memory with ``x``; other types become float32.

    Raises
    ------
    TypeError
        When ``x`` is sparse or not numeric.
    ValueError
        When the shape is wrong, ``x`` is too short, or a row holds NaN or infinity.
    """
    tensor = _as_tensor(x, name)
    if tensor.ndim != 2:
        raise ValueError(_shape_message(name, tensor))
    n, d = tensor.shape
    if n == 0 or d == 0:
        raise ValueError(
            f"{name} is empty: its shape is [{n}, {d}]; pass at least one sample and one feature"
        )
    if n < min_samples:
        raise ValueError(f"{name} has {n} samples, but at least {min_samples} are needed; pass more samples")
    if n_features is not None and d != n_features:
        raise ValueError(f"{name} has {d} features, but {n_features} were fitted; pass the same features")
    check_finite(tensor, name)
    if tensor.dtype in KEPT_DTYPES or (keep_double and tensor.dtype == torch.float64):
        return tensor
    converted = tensor.to(torch.float32)
    if tensor.dtype == torch.float64 and not torch.isfinite(converted).all():
        raise ValueError(f"{name} holds values beyond the range of float32 (3.4e38); scale it down first")
    _warn_of_lost_digits(tensor, converted, name)
    return converted


def _warn_of_lost_digits(given: Tensor, converted: Tensor, name: str) -> None:
    """Warn where float32, which keeps seven digits, blurs what a column varies by (1e8 and 1e8 + 1 are the same)."""
    rows = torch.linspace(0, len(given) - 1, min(len(given), 500)).long().to(given.device)
    exact = given[rows].double()
    kept = converted[rows].double()
    error = ((exact - exact[0]) - (kept - kept[0])).abs().mean(dim=0)
    blurred = (error > 0.01 * exact.std(dim=0, correction=0)).nonzero().flatten().tolist()
    if blurred:
        column = blurred[0]
        warnings.warn(
            f"{name}: column {column} lies near {float(exact[:, column].mean()):.6g} and varies by "
            f"{float(exact[:, column].std(correction=0)):.3g}, which float32 does not keep ({len(blurred)} of "
            f"{exact.size(1)} columns); "
            + (
                "multiply it first"
                if float(exact.abs().max()) < 1e-30
                else "subtract each column's mean first"
            ),
            stacklevel=3,
        )


def check_finite(x: Tensor, name: str = "x") -> None:
    """Raise a ValueError that counts the rows of ``x`` [N, d] with NaN or infinity and names the first one."""
    if not x.is_floating_point():
        return
    rows_per_block = max(1, _BLOCK_VALUES // x.size(1))
    bad: list[Tensor] = []
    for start in range(0, x.size(0), rows_per_block):
        block = x[start : start + rows_per_block]
        # One sum is much cheaper than a mask; it is finite whenever all values are (apart from overflow).
        if not math.isfinite(float(block.sum(dtype=torch.float64))):
            bad.append((~torch.isfinite(block)).any(dim=1).nonzero().flatten() + start)
    rows = torch.cat(bad) if bad else torch.empty(0)
    if rows.numel():
        plural = "row" if rows.numel() == 1 else "rows"
        raise ValueError(
            f"{name} has {rows.numel()} {plural} with NaN or infinity, the first is row {int(rows[0])}; drop them "
            f"({name}[np.isfinite({name}).all(axis=1)]) or fill them in (sklearn.impute.SimpleImputer)"
        )


def check_edges(edge_index: Any, edge_weight: Any, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return edges (int64 [2, E], within the n samples) and their weights (float32 [E], finite, >= 0; 1 if None).

    A sparse matrix [N, N] is an adjacency: its entries are the weights of the edges from row to column.
    """
    if hasattr(edge_index, "tocoo"):
        edge_index, edge_weight = _edges_of_adjacency(edge_index, edge_weight, n)
    elif not isinstance(edge_index, Tensor):
        edge_index = np.asarray(edge_index)
        if edge_index.size == 0:  # an empty list has no type of its own
            edge_index = edge_index.astype(np.int64)
    edges = torch.as_tensor(edge_index, device=device)
    if edges.ndim != 2 or edges.size(0) != 2:
        remedy = ""
        if edges.ndim == 2 and edges.size(1) == 2:
            remedy = "; of a list of pairs [E, 2] pass numpy.transpose(pairs)"
        elif edges.shape == (n, n):
            remedy = "; of an adjacency matrix [N, N] pass scipy.sparse.csr_array(adjacency)"
        raise ValueError(
            f"edge_index has shape {list(edges.shape)}, but [2, E] is needed: sources, then targets{remedy}"
        )
    if edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool:
        raise TypeError(f"edge_index has type {edges.dtype}; pass whole numbers")
    edges = edges.long()
    if edges.numel() and (int(edges.min()) < 0 or int(edges.max()) >= n):
        raise ValueError(
            f"edge_index names samples from {int(edges.min())} to {int(edges.max())}, but x has the samples "
            f"0 to {n - 1}; pass the features of every sample"
        )
    if edge_weight is None:
        return edges, torch.ones(edges.size(1), device=device)
    if not isinstance(edge_weight, Tensor):
        edge_weight = np.asarray(edge_weight)
    weight = torch.as_tensor(edge_weight, device=device).detach().float()
    if weight.shape != (edges.size(1),):
        raise ValueError(
            f"edge_weight has shape {list(weight.shape)}, but one number an edge is needed: [{edges.size(1)}]"
        )
    wrong = (~torch.isfinite(weight) | (weight < 0)).nonzero().flatten()
    if len(wrong):
        source, target = edges[:, wrong[0]].tolist()
        raise ValueError(
            f"edge_weight must be finite and at least 0, but that of edge {int(wrong[0])} ({source} to {target}) is "
            f"{float(weight[wrong[0]]):g} ({len(wrong)} of {len(weight)} are such); drop or rescale these edges"
        )
    return edges, weight


def _edges_of_adjacency(adjacency: Any, edge_weight: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    if tuple(adjacency.shape) != (n, n):
        raise ValueError(
            f"the adjacency matrix has shape {list(adjacency.shape)}, but x has {n} samples: [{n}, {n}] is needed"
        )
    if edge_weight is not None:
        raise ValueError("edge_weight is given, and so are the weights in the adjacency matrix: leave it out")
    entries = adjacency.tocoo()
    return np.stack([entries.row, entries.col]).astype(np.int64), entries.data


def check_edges_are_read(data: Any) -> None:
    """Raise ValueError for a PyG Data whose edges are an ``adj_t``: it would be taken for one without edges."""
    if data.get("edge_index") is None and data.get("adj_t") is not None:
        raise ValueError(
            "the edges are kept as adj_t, which is not read: give them as edge_index, without the transform "
            "ToSparseTensor or by edge_index, edge_weight = torch_geometric.utils.to_edge_index(data.adj_t.t())"
        )


def check_choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """Return ``value`` when it is one of ``choices``, else raise a ValueError that lists them."""
    if not isinstance(value, str) or value not in choices:
        near = nearest(value, choices) if isinstance(value, str) else None
        raise ValueError(
            f"{name}={shown(value)} is not known; choose one of {', '.join(map(repr, choices))}"
            + (f" (did you mean {near!r}?)" if near else "")
        )
    return value


def check_count(value: Any, name: str, minimum: int = 1, maximum: int | None = None, remedy: str = "") -> int:
    """Return ``value`` as an int when it is a whole number in [minimum, maximum], else raise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
        raise TypeError(
            f"{name}={shown(value)} has type {type(value).__name__}; pass "
            + (f"{int(value)}" if whole else "a whole number")
        )
    count = int(value)
    if count < minimum or (maximum is not None and count > maximum):
        bound = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        raise ValueError(f"{name}={value} must be {bound}" + (f"; {remedy}" if remedy else ""))
    return count


def check_number(
    value: Any,
    name: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    remedy: str = "",
) -> float:
    """Return ``value`` as a float when it is a real number in [low, high] (``open_low``: above low), else raise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={shown(value)} has type {type(value).__name__}; pass a number")
    number = float(value)
    if math.isnan(number) or number > high or number < low or (open_low and number == low):
        bounds = [f"{'above' if open_low else 'at least'} {low:g}"] if low > -math.inf else []
        bounds += [f"at most {high:g}"] if high < math.inf else []
        raise ValueError(
            f"{name}={value} must be {' and '.join(bounds) or 'a number'}" + (f"; {remedy}" if remedy else "")
        )
    return number


def check_generator(random_state: Any) -> np.random.Generator:
    """Make a NumPy generator from None, an int >= 0, a Generator or a RandomState; the global state is left alone."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1))
    if random_state is not None:
        random_state = check_count(random_state, "random_state", minimum=0)
    return np.random.default_rng(random_state)


def check_device(device: Any) -> torch.device | None:
    """Return a torch device (None stays None); a CUDA device that is not there is an error."""
    if device is None:
        return None
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={shown(device)} is not a torch device; use 'cpu', 'cuda' or 'cuda:0'"
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}, but torch finds no CUDA device; use device='cpu' or None")
    return found


def sample_rows(x: Any, n_rows: int = 500) -> Tensor | None:
    """Up to `n_rows` samples of an array, evenly spread, to look at; None for what is no dense array of numbers."""
    if isinstance(x, (list, tuple)):
        try:
            x = np.asarray(x)
        except ValueError:
            return None
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) == 0 or hasattr(x, "tocsr"):
        return None
    rows = np.linspace(0, max(0, shape[0] - 1), min(shape[0], n_rows)).astype(np.int64)
    try:
        if isinstance(x, Tensor):
            return _as_tensor(x if x.layout != torch.strided else x[torch.from_numpy(rows).to(x.device)], "x")
        return _as_tensor(x.iloc[rows] if hasattr(x, "iloc") else np.asarray(x)[rows], "x")
    except (TypeError, ValueError):
        return None


def share_tensor(array: np.ndarray) -> Tensor:
    """View a NumPy array or memory map as a tensor; only byte order and negative strides force a copy."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        # A memory map opened for reading is not writable; nothing in this package writes into features.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)


def _as_tensor(x: Any, name: str) -> Tensor:
    if isinstance(x, Tensor):
        if x.layout != torch.strided:
            raise TypeError(f"{name} is a sparse tensor; pass a dense one ({name}.to_dense())")
        if x.is_complex():
            raise TypeError(f"{name} is complex; pass real numbers")
        return x.detach()
    if hasattr(x, "tocsr"):
        raise TypeError(
            f"{name} is a sparse matrix; pass a dense one ({name}.toarray()) or reduce it first (TruncatedSVD)"
        )
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"{name} is no matrix: its rows differ in length; pass one row of numbers a sample"
        ) from error
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name} is not numeric; encode its columns first (sklearn.preprocessing)"
            ) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} has type {array.dtype}, which is not numeric; encode its columns first (sklearn.preprocessing)"
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    elif array.dtype.kind in "iub" and array.dtype != np.uint8:
        array = array.astype(np.float32)
    return share_tensor(array)


def _shape_message(name: str, x: Tensor) -> str:
    shape = list(x.shape)
    if x.ndim > 2:
        wanted, code = "one row a sample", f"flatten images: {name}.reshape(len({name}), -1)"
    else:
        wanted, code = "[N, d]", f"one feature: {name}.reshape(-1, 1), one sample: {name}.reshape(1, -1)"
    return f"{name} has shape {shape}, but {wanted} is needed; {code}"
