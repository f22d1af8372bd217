"""Exact top-c scans by FAISS (processor or GPU) or torch, and the blockwise merge over them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from graphclust.graph.metric import Metric, Rows

#: Queries handed over at once: large enough for full speed, small enough for a progress bar.
QUERY_BLOCK = 8192
#: Without FAISS, torch searches up to this many samples on the processor.
TORCH_LIMIT = 20_000
#: What FAISS selects on a GPU at most.
_MOST_ON_GPU = 2048
#: Scores in one table, by the kind of device: 256 MiB, and 1 GiB where a table of few rows would leave it idle.
_TABLE = {"cpu": 1 << 26, "cuda": 1 << 28}
_CPU = torch.device("cpu")

Top = Callable[[Tensor, int], tuple[Tensor, Tensor]]
Engine = Callable[[Tensor], Top]


def load_faiss() -> Any | None:
    """The faiss module, or None where neither faiss-cpu nor faiss-gpu is installed (imported on first use)."""
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None


def without_faiss(device: torch.device, n_samples: int) -> torch.device:
    """CUDA for samples on the processor that could not be searched there; else the samples' own device."""
    needs_cuda = device.type == "cpu" and n_samples > TORCH_LIMIT and load_faiss() is None
    return torch.device("cuda") if needs_cuda and torch.cuda.is_available() else device


def exact_engine(metric: Metric, device: torch.device, n_samples: int) -> tuple[Engine, str]:
    """Choose the engine, and its name.

    It is a function of base [n, d], which it takes to the device once, to a function (queries [b, d], c) -> scores and
    indices [b, c]. Scores grow with the distance; they rank candidates and are not distances.
    """
    faiss = load_faiss()
    if device.type != "cpu":
        if faiss is not None and hasattr(faiss, "StandardGpuResources") and metric.name != "minkowski":
            return _faiss_gpu_engine(faiss, metric, device), "exact (faiss-gpu)"
        return _torch_engine(metric, device), f"exact (torch, {device.type})"
    if faiss is not None:
        return _faiss_engine(faiss, metric), "exact"
    if n_samples <= TORCH_LIMIT:
        return _torch_engine(metric, device), "exact (torch)"
    raise ImportError(
        f"searching {n_samples:,} samples needs FAISS (without it the limit is {TORCH_LIMIT:,} on the processor): "
        "pip install graphclust[cpu], or graphclust[gpu] on a machine with CUDA"
    )


def faiss_metric(faiss: Any, metric: Metric) -> int:
    """The FAISS constant of a metric (cosine is the inner product of unit vectors)."""
    if metric.name == "minkowski":
        return faiss.METRIC_Linf if metric.p == float("inf") else faiss.METRIC_Lp
    names = {"euclidean": "METRIC_L2", "manhattan": "METRIC_L1"}
    return getattr(faiss, names.get(metric.name, "METRIC_INNER_PRODUCT"))


def scan(
    queries: Rows,
    base: Rows,
    c: int,
    engine: Engine,
    track: Callable[[Iterable], Iterable],
    *,
    device: torch.device = _CPU,
) -> Tensor:
    """Indices [n_queries, c] of the best candidates, in memory that does not grow with the base.

    The base passes once, block by block (on the processor in one where it can be used as it is, on CUDA in blocks of a
    quarter of the free memory: all queries are sent for each); each query keeps the
    best c so far. The merge is exact, and a stable sort over blocks in order of index keeps the smaller index first
    among equal scores.
    """
    n, c = len(queries), min(c, len(base))
    best = torch.full((n, 0), torch.inf), torch.empty((n, 0), dtype=torch.long)
    on_cpu = device.type == "cpu"
    size = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else None
    for start, block in base.blocks(whole=on_cpu, block_bytes=size):
        found = _scan_block(queries, block, min(c, block.size(0)), engine, track)
        score = torch.cat([best[0], found[0]], dim=1)
        index = torch.cat([best[1], found[1] + start], dim=1)
        if index.size(1) > c or best[1].size(1):
            score, order = torch.sort(score, dim=1, stable=True)
            score, index = score[:, :c], index.gather(1, order[:, :c])
        best = score, index
    return best[1]


def _scan_block(
    queries: Rows, block: Tensor, c: int, engine: Engine, track: Callable[[Iterable], Iterable]
) -> tuple[Tensor, Tensor]:
    score, index = torch.empty((len(queries), c)), torch.empty((len(queries), c), dtype=torch.long)
    top = engine(block)
    for start in track(range(0, len(queries), QUERY_BLOCK)):
        stop = min(start + QUERY_BLOCK, len(queries))
        found = top(queries.prepare(queries.x[start:stop]), c)
        score[start:stop], index[start:stop] = found[0].cpu(), found[1].cpu()
    return score, index


def _faiss_engine(faiss: Any, metric: Metric) -> Engine:
    kind, argument = faiss_metric(faiss, metric), float(metric.p)
    sign = -1.0 if kind == faiss.METRIC_INNER_PRODUCT else 1.0

    def engine(base: Tensor) -> Top:
        samples = base.cpu().numpy()

        def top(queries: Tensor, c: int) -> tuple[Tensor, Tensor]:
            score, index = faiss.knn(queries.cpu().numpy(), samples, c, kind, argument)
            return torch.from_numpy(score).mul_(sign), torch.from_numpy(index)

        return top

    return engine


def _faiss_gpu_engine(faiss: Any, metric: Metric, device: torch.device) -> Engine:
    kind = faiss_metric(faiss, metric)
    sign = -1.0 if kind == faiss.METRIC_INNER_PRODUCT else 1.0
    resources = faiss.StandardGpuResources()
    options = faiss.GpuIndexFlatConfig()
    options.device = torch.cuda.current_device() if device.index is None else device.index

    def engine(base: Tensor) -> Top:
        samples = faiss.GpuIndexFlat(resources, base.size(1), kind, options)
        samples.add(base.cpu().numpy())

        def top(queries: Tensor, c: int) -> tuple[Tensor, Tensor]:
            if c > _MOST_ON_GPU:
                return _torch_engine(metric, device)(base)(queries, c)
            score, index = samples.search(queries.cpu().numpy(), c)
            return torch.from_numpy(score).mul_(sign), torch.from_numpy(index)

        return top

    return engine


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products in float32, whatever `torch.set_float32_matmul_precision` says: the search is held to be exact."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _torch_engine(metric: Metric, device: torch.device) -> Engine:
    def engine(base: Tensor) -> Top:
        base = base.to(device)
        squares = base.square().sum(dim=1).unsqueeze(0) if metric.name == "euclidean" else None
        rows = max(1, _TABLE.get(device.type, 1 << 26) // base.size(0))

        def scores(queries: Tensor) -> Tensor:
            if squares is not None:  # |x|^2 is the same for all candidates of a query
                return torch.addmm(squares, queries, base.T, alpha=-2)
            if metric.name in ("cosine", "inner_product"):
                return -(queries @ base.T)
            return torch.cdist(queries, base, p=1.0 if metric.name == "manhattan" else metric.p)

        def top(queries: Tensor, c: int) -> tuple[Tensor, Tensor]:
            with _full_precision():
                parts = [
                    scores(block.to(device)).topk(c, dim=1, largest=False) for block in queries.split(rows)
                ]
            return torch.cat([part[0] for part in parts]).cpu(), torch.cat([part[1] for part in parts]).cpu()

        return top

    return engine
