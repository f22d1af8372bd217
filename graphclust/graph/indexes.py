"""Approximate FAISS indexes: when to use which, how to build one, and how to tune it to a wanted recall."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust.graph.engines import QUERY_BLOCK, faiss_metric, load_faiss
from graphclust.graph.metric import Metric, Rows

#: Multiply-adds that exact search may cost: some ten to thirty seconds on two cores.
EXACT_BUDGET = 2e11
#: Up to this many samples an index is never worth its training.
EXACT_SAMPLES = 5_000
#: How much slower FAISS scans by these metrics, measured at 100,000 x 64 (no matrix product helps there).
_SLOWNESS = {"manhattan": 4, "minkowski": 64}
_NAMES = ("auto", "exact", "ivf", "hnsw", "self-join")
#: Metrics of the self-join: its directions and codes are made for squared Euclidean distances.
_JOINED = ("euclidean", "cosine")
_PARAMETERS = ("nprobe", "efSearch")


def is_exact_affordable(n_queries: int, n_samples: int, n_features: int, metric: Metric) -> bool:
    """The cost model: n_queries * n_samples * n_features multiply-adds, more for metrics without matrix products."""
    cost = float(n_queries) * n_samples * n_features * _SLOWNESS.get(metric.name, 1)
    return n_samples <= EXACT_SAMPLES or cost <= EXACT_BUDGET


def is_self_join(index: str, n: int, d: int, metric: Metric, device: torch.device, has_faiss: bool) -> bool:
    """Whether all samples' neighbours are searched by a self-join: where "auto" would not be exact, or by name.

    Raises
    ------
    ValueError, ImportError
        When it is asked for by name and cannot be done.
    """
    if index == "auto":
        affordable = is_exact_affordable(n, n, d, metric)
        return metric.name in _JOINED and device.type == "cpu" and has_faiss and not affordable
    if index != "self-join":
        return False
    if metric.name not in _JOINED:
        raise ValueError(
            f"index='self-join' does not know metric={metric.name!r}, but {' and '.join(map(repr, _JOINED))}; "
            "use index='auto'"
        )
    if device.type != "cpu":
        raise ValueError("index='self-join' searches on the processor; on a GPU use index='exact'")
    if not has_faiss:
        raise ImportError("index='self-join' needs FAISS: pip install graphclust[cpu]")
    return True


def choose_index(
    index: str, n: int, d: int, metric: Metric, device: torch.device, has_faiss: bool = True
) -> str | None:
    """Return the FAISS factory string to build, or None for exact search.

    The number of lists of "ivf" balances the two costs of a query, finding lists (``lists``) and reading ``nprobe``
    of them (``nprobe * n / lists``): lists = sqrt(nprobe n), with nprobe about 4 below half a million samples and
    16 above. Measured at 100,000 x 64 with 200 Gaussian clusters on two busy cores: 632 lists built in 6 s and 100,000
    searches in 5 s at recall 0.99; HNSW16 31 s and 20 s at 0.97; exact search 190 s.
    """
    if not isinstance(index, str) or not index:
        raise ValueError(f"index={index!r} is not known; choose one of {_listed()}")
    if index == "exact":
        return None
    if index == "auto":
        # A GPU scans fast enough; without FAISS the engine says whether torch can do it.
        if device.type != "cpu" or not has_faiss or is_exact_affordable(n, n, d, metric):
            return None
        index = "hnsw" if metric.name in _SLOWNESS else "ivf"
    if not has_faiss:
        raise ImportError(
            f"index={index!r} needs FAISS: pip install graphclust[cpu], or graphclust[gpu] with CUDA"
        )
    if index in ("ivf", "self-join"):  # a self-join searches new samples in an inverted file
        if metric.name in _SLOWNESS:
            raise ValueError(f"index='ivf' does not know metric={metric.name!r}; use index='hnsw' or 'exact'")
        lists = int((4 if n >= 500_000 else 2) * n**0.5)
        return f"IVF{max(1, min(lists, n // 39))},Flat"
    return "HNSW16,Flat" if index == "hnsw" else index


class ApproximateIndex:
    """A trained FAISS index that holds all rows, and the parameter by which its recall is raised."""

    def __init__(self, recipe: str, index: Any, limit: int):
        self.recipe, self._index, self._limit = recipe, index, limit
        self.parameter: str | None = self._find_parameter()
        self.value: int | None = None

    @classmethod
    def build(
        cls, recipe: str, rows: Rows, generator: np.random.Generator, centroids: np.ndarray | None = None
    ) -> ApproximateIndex:
        """Train on a random sample of the rows, then add all rows, block by block.

        ``centroids`` [L, d] spares an inverted file of L lists its k-means.
        """
        faiss = load_faiss()
        assert faiss is not None
        n, d = rows.x.shape
        try:
            index = faiss.index_factory(d, recipe, faiss_metric(faiss, rows.metric))
            _set_power(faiss, index, float(rows.metric.p))
        except RuntimeError as error:
            raise ValueError(
                f"index={recipe!r} with metric={rows.metric.name!r} is not known to FAISS; choose one of {_listed()}"
            ) from error
        inverted = faiss.try_extract_index_ivf(index)
        limit = n
        if inverted is not None:
            limit = inverted.nlist
            inverted.cp.seed = int(generator.integers(2**31 - 1))
            inverted.cp.niter = 10
            inverted.cp.max_points_per_centroid = 64
            if centroids is not None:
                inverted.quantizer.add(np.ascontiguousarray(centroids, dtype=np.float32))
        if not index.is_trained:
            wanted = min(n, max(64 * limit if inverted is not None else 0, 65_536))
            sample = torch.from_numpy(np.sort(generator.choice(n, wanted, replace=False)))
            try:
                index.train(rows.prepare(rows.x[sample.to(rows.x.device)]).cpu().numpy())
            except RuntimeError as error:
                raise ValueError(
                    f"index={recipe!r} cannot be trained on {n} samples; use fewer lists or codes, or index='auto'"
                ) from error
        for _, block in rows.blocks(whole=True):
            index.add(block.cpu().numpy())
        return cls(recipe, index, limit)

    def search(self, queries: Rows, c: int, track: Callable[[Iterable], Iterable]) -> Tensor:
        """Candidates [n_queries, c]; -1 where the visited part of the index holds fewer."""
        found = torch.empty((len(queries), c), dtype=torch.long)
        for start in track(range(0, len(queries), QUERY_BLOCK)):
            block = queries.prepare(queries.x[start : start + QUERY_BLOCK]).cpu().numpy()
            found[start : start + QUERY_BLOCK] = torch.from_numpy(self._index.search(block, c)[1])
        return found

    def set(self, value: int | None) -> None:
        """Set the search parameter (nothing to do for an index that has none)."""
        self.value = value
        if self.parameter is not None and value is not None:
            faiss = load_faiss()
            assert faiss is not None
            faiss.ParameterSpace().set_index_parameter(self._index, self.parameter, int(value))

    def tune(
        self, hits: Callable[[ApproximateIndex], Tensor], recall: float, half: int
    ) -> tuple[int | None, Tensor]:
        """Raise the parameter until the first ``half`` of ``hits`` (recall of each query) suffices.

        "Suffices" is mean - standard error >= recall, or the end of the range. Returns the value and its hits.
        """
        if self.parameter is None:
            return None, hits(self)
        value = 1 if self.parameter == "nprobe" else 16
        while True:
            self.set(value)
            share = hits(self)
            tuned = share[:half]
            if float(tuned.mean() - tuned.std() / half**0.5) >= recall or value >= self._limit:
                return value, share
            value = min(self._limit, max(value + 1, int(1.5 * value)))

    def describe(self) -> str:
        """For example "IVF632,Flat (nprobe=6)"."""
        return self.recipe if self.value is None else f"{self.recipe} ({self.parameter}={self.value})"

    def _find_parameter(self) -> str | None:
        faiss = load_faiss()
        assert faiss is not None
        for name, default in zip(_PARAMETERS, (1, 16), strict=True):
            try:
                faiss.ParameterSpace().set_index_parameter(self._index, name, default)
            except RuntimeError:
                continue
            return name
        return None

    def __getstate__(self) -> dict[str, Any]:
        faiss = load_faiss()
        assert faiss is not None
        return {**self.__dict__, "_index": faiss.serialize_index(self._index)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        faiss = load_faiss()
        if faiss is None:
            raise ImportError(
                "this search holds a FAISS index: pip install graphclust[cpu], or graphclust[gpu]"
            )
        self.__dict__.update(state, _index=faiss.deserialize_index(state["_index"]))
        self.set(self.value)


def _set_power(faiss: Any, index: Any, p: float) -> None:
    """The factory leaves out the power of Minkowski's metric, and HNSW keeps its own copy of it."""
    index.metric_arg = p
    storage = getattr(faiss.downcast_index(index), "storage", None)
    if storage is not None:
        storage.metric_arg = p


def _listed() -> str:
    return ", ".join(map(repr, _NAMES)) + ", or a string for FAISS's index_factory such as 'IVF1024,Flat'"
