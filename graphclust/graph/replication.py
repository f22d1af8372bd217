"""Which clusters of a graph with features come again: found twice, in disjoint halves of the features and the edges."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

#: What clusters can be read from.
VIEWS = ("both", "features", "edges")
#: Samples whose clusters are compared.
_ROWS = 5_000
#: Samples that a comparison needs at least.
_LEAST = 20
#: Most N K^2, which the search for K eigenvectors takes time and N K memory by.
_LARGEST_SEARCH = 100_000_000
#: Share of entries that are not zero, up to which features are compressed.
_DENSITY = 0.05
_STARTS, _HOPS = 3, 2
#: Splits after which a view that was worse in all of them is given up.
_FIRST = 3


class _Split(NamedTuple):
    """Columns [d / 2] of both halves, edges of the first [E / 2], and the samples that are compared."""

    columns: tuple[NDArray[np.int64], NDArray[np.int64]]
    chosen: NDArray[np.bool_]
    rows: NDArray[np.int64]


class Replication:
    r"""How well clusters are found again in data that share the samples and nothing else.

    Columns of the features and edges are split at random into two halves each. Both halves are clustered alone, and
    the adjusted Rand index of the two results, on the nodes that have an edge in both halves, is the *agreement*. What
    is noise differs between the halves; only what the clusters themselves have done to features and edges comes again.
    So a larger agreement tells, without labels, the better of two ways of clustering and of two numbers of clusters
    (cross-validation of clusters: Lange, Roth, Braun & Buhmann 2004 split the samples; here the variables are split,
    because the edges of different samples are not independent).

    Three views are compared:

    - "both": :math:`\hat A^2 X`, the features propagated twice, rows at length 1, in 32 principal directions.
    - "features": the same of X.
    - "edges": eigenvectors of :math:`(D + \tau)^{-1/2} A (D + \tau)^{-1/2}` to the K largest eigenvalues, rows at
      length 1, with the mean degree :math:`\tau` (regularised spectral clustering, Qin & Rohe 2013). Not
      looked at where :math:`N K^2` is above 10^8.

    Parameters
    ----------
    x : ndarray [N, d], float32
        Features, scaled.
    weights : csr_matrix [N, N]
        Symmetric edge weights.
    n_splits : int, default=10
    seed : int, default=0
    """

    def __init__(
        self, x: NDArray[np.float32], weights: sp.csr_matrix, *, n_splits: int = 10, seed: int = 0
    ) -> None:
        self.x: Any = sp.csr_matrix(x) if np.count_nonzero(x) <= _DENSITY * x.size else x
        self.seed = seed
        self.n_splits = n_splits
        self._edges = sp.triu(weights, 1).tocoo()
        self._generator = np.random.default_rng(seed)
        self._splits: list[_Split] = []
        self._codes: dict[tuple[str, int, int], NDArray[np.float32]] = {}
        self._agreements: dict[tuple[str, int, int], float] = {}

    @property
    def is_possible(self) -> bool:
        """Whether there are columns and edges enough to be split."""
        return self.x.shape[1] > 1 and self.n_compared >= _LEAST

    @property
    def n_compared(self) -> int:
        """Nodes whose clusters are compared, in the first split; the others hardly differ."""
        return len(self._split(0).rows)

    def _split(self, i: int) -> _Split:
        """Split i, drawn after those before it."""
        while len(self._splits) <= i:
            self._splits.append(_split(self.x.shape, self._edges, self._generator))
        return self._splits[i]

    def _is_read(self, view: str, n_clusters: int) -> bool:
        return view != "edges" or self.x.shape[0] * n_clusters**2 <= _LARGEST_SEARCH

    def agreements(self, view: str, n_clusters: int, n_splits: int | None = None) -> NDArray[np.float64]:
        """Adjusted Rand index of the two halves in each of the first `n_splits` splits, [R], from -0.5 to 1.

        That of edges is 0, as of chance, where their eigenvectors are too many to be searched for.
        """
        found = []
        if not self._is_read(view, n_clusters):
            return np.zeros(self.n_splits if n_splits is None else n_splits)
        for i in range(self.n_splits if n_splits is None else n_splits):
            key = (view, n_clusters, i)
            if key not in self._agreements:
                self._agreements[key] = adjusted_rand_score(
                    *(self._labels(view, n_clusters, i, half) for half in (0, 1))
                )
            found.append(self._agreements[key])
        return np.array(found)

    def best_view(self, n_clusters: int) -> str:
        """The view with the largest agreement; "both" unless another is better by two standard errors of the splits."""
        if not self.is_possible or n_clusters < 2:
            return "both"
        both = self.agreements("both", n_clusters)
        better = {}
        for view in VIEWS[1:]:
            if not self._is_read(view, n_clusters):
                continue
            # Worse in each of the first splits, it will not be better by two standard errors of all.
            if np.all(self.agreements(view, n_clusters, min(_FIRST, self.n_splits)) < both[:_FIRST]):
                continue
            agreements = self.agreements(view, n_clusters)
            gain = agreements - both
            if gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain)):
                better[view] = float(agreements.mean())
        return max(better, key=better.__getitem__, default="both")

    def curve(self, most: int) -> tuple[str, NDArray[np.int64], NDArray[np.float64]]:
        """Agreements of the view and the numbers of clusters around the best.

        Numbers of clusters are tried in steps that grow by a quarter, by two splits; then of the best view those with
        at least half of the best's agreement by all splits, and those beside the best.

        Parameters
        ----------
        most : int
            Largest number of clusters, at least 2.

        Returns
        -------
        view : str
        candidates : ndarray [C], int64
            Numbers of clusters, ascending.
        agreements : ndarray [C, n_splits]
        """
        grid = [2]
        while grid[-1] < most:
            grid.append(min(most, max(grid[-1] + 1, round(1.25 * grid[-1]))))
        few = min(2, self.n_splits)
        # The most clusters first: their eigenvectors hold those of fewer.
        first = {
            view: [float(self.agreements(view, k, few).mean()) for k in grid[::-1]][::-1] for view in VIEWS
        }
        view = max(VIEWS, key=lambda view: max(first[view]))
        most_found = max(first[view])
        least = min(most_found / 2, most_found)  # the best may be below 0
        promising = [k for k, a in zip(grid, first[view]) if a >= least]
        means = {k: float(self.agreements(view, k).mean()) for k in promising[::-1]}
        best = max(means, key=means.__getitem__)
        place = grid.index(best)
        for k in range(grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)] + 1):
            means[k] = float(self.agreements(view, k).mean())
        candidates = sorted(means)
        return view, np.array(candidates), np.array([self.agreements(view, k) for k in candidates])

    def _labels(self, view: str, n_clusters: int, i: int, half: int) -> NDArray[np.int64]:
        codes = self._half(view, n_clusters, i, half)
        if view == "edges":
            codes = normalize(codes[:, -n_clusters:])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct codes than clusters
            model = KMeans(n_clusters, n_init=_STARTS, random_state=(self.seed + 2 * i + half) % 2**32)
            return np.asarray(model.fit_predict(codes))

    def _half(self, view: str, n_clusters: int, i: int, half: int) -> NDArray[np.float32]:
        key = (view, i, half)
        known = self._codes.get(key)
        if known is not None and (view != "edges" or known.shape[1] >= n_clusters):
            return known
        split = self._split(i)
        if view == "edges":
            weights = _half_weights(self._edges, split.chosen, half)
            codes = spectral_positions(weights, n_clusters, seed=self.seed)[split.rows]
        elif view == "both":
            # Of the propagated features only the rows that are compared are read, and what these depend on.
            a = propagation(_half_weights(self._edges, split.chosen, half))
            parts, rows = [], split.rows
            for _ in range(_HOPS):
                some = a[rows]
                rows, position = np.unique(some.indices, return_inverse=True)
                shape = (some.shape[0], len(rows))
                parts.append(sp.csr_matrix((some.data, position, some.indptr), shape=shape))
            x = self.x[rows][:, split.columns[half]]
            for part in parts[::-1]:
                x = part @ x
            codes = _principal(x, self.seed)
        else:
            codes = _principal(self.x[split.rows][:, split.columns[half]], self.seed)
        self._codes[key] = codes
        return codes


def _split(shape: tuple[int, int], edges: sp.coo_matrix, generator: np.random.Generator) -> _Split:
    """Columns and edges (each named once) in two random halves."""
    n, d = shape
    columns = generator.permutation(d)
    middle = d // 2
    chosen = generator.random(edges.nnz) < 0.5
    # Where a half has no edge, its clusters are those of isolated nodes, which come again with every split.
    joined = [np.zeros(n, dtype=bool) for _ in range(2)]
    for nodes, some in zip(joined, (chosen, ~chosen), strict=True):
        nodes[edges.row[some]] = nodes[edges.col[some]] = True
    rows = np.flatnonzero(joined[0] & joined[1])
    if len(rows) > _ROWS:
        rows = np.sort(generator.choice(rows, _ROWS, replace=False))
    return _Split((columns[:middle], columns[middle:]), chosen, rows)


def _half_weights(edges: sp.coo_matrix, chosen: NDArray[np.bool_], half: int) -> sp.csr_matrix:
    """Symmetric weights [N, N] of the chosen edges for half 0, of the others for half 1; made when they are read."""
    some = chosen if half == 0 else ~chosen
    one = sp.coo_matrix((edges.data[some], (edges.row[some], edges.col[some])), shape=edges.shape).tocsr()
    return (one + one.T).tocsr()


def propagation(weights: sp.csr_matrix) -> sp.csr_matrix:
    r""":math:`\hat A = D^{-1/2} (A + I) D^{-1/2}` of symmetric weights A [N, N], in float32."""
    joined = weights + sp.identity(weights.shape[0], format="csr")
    scale = sp.diags(np.asarray(joined.sum(axis=1)).ravel() ** -0.5)
    return (scale @ joined @ scale).tocsr().astype(np.float32)


def spectral_positions(weights: sp.csr_matrix, n_components: int, *, seed: int = 0) -> NDArray[np.float32]:
    r"""Eigenvectors of :math:`(D + \tau)^{-1/2} A (D + \tau)^{-1/2}` to the largest eigenvalues, the largest last.

    :math:`\tau`, the mean degree, keeps small separate parts from taking all of them (Qin & Rohe 2013).

    Parameters
    ----------
    weights : csr_matrix [N, N]
        Symmetric, not negative.
    n_components : int
        From 1; more than N - 2 are N - 2.
    seed : int, default=0
        Of the vector that the search begins with.

    Returns
    -------
    ndarray [N, n_components], float32
        Rows as they are, not yet at length 1.
    """
    n = weights.shape[0]
    k = max(1, min(n_components, n - 2))
    degree = np.asarray(weights.sum(axis=1)).ravel()
    scale = sp.diags((degree + max(float(degree.mean()), 1e-12)) ** -0.5)
    matrix = (scale @ weights @ scale).tocsr().astype(np.float64)
    if n < 4 * k + 20:
        return np.linalg.eigh(matrix.toarray())[1][:, -k:].astype(np.float32)
    begin = np.random.default_rng(seed).normal(size=n)
    try:
        found = eigsh(matrix, k=k, which="LA", v0=begin, tol=1e-3, maxiter=1000)
    except ArpackNoConvergence as error:
        found = error.eigenvalues, error.eigenvectors
        if found[1].shape[1] < k:
            # Eigenvalues so close together hardly differ in what they tell: a subspace will do.
            return randomized_svd(matrix + sp.identity(n), k, random_state=seed)[0][:, ::-1].astype(
                np.float32
            )
    except ArpackError:
        return np.zeros((n, k), dtype=np.float32)
    order = np.argsort(found[0])
    return np.ascontiguousarray(found[1][:, order], dtype=np.float32)


def _principal(x: Any, seed: int, n_components: int = 32) -> NDArray[np.float32]:
    """Rows at length 1 in their principal directions, again at length 1, [n, <= 32]."""
    x = normalize(x)
    if x.shape[1] > n_components:
        u, s, _ = randomized_svd(x, min(n_components, *x.shape), random_state=seed)
        x = u * s
    return normalize(x.toarray() if sp.issparse(x) else x).astype(np.float32)
