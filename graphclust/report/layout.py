r"""A picture's coordinates for a sample graph: neighbours near, others apart.

The layout starts from the eigenvectors of the normalised Laplacian, which lay out the coarse shape, and
refines it by the forces of UMAP (McInnes, Healy, Melville 2018), whose low-dimensional similarity is

.. math:: s(d) = \frac{1}{1 + a\, d^{2b}}, \quad a = 1.577,\; b = 0.895

Each edge attracts its two ends in proportion to its weight, and each node is repelled by a few others drawn
at random. All nodes move at once, so an epoch is a handful of array operations: O(E + N), no loop over
edges.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackError, eigsh

from graphclust._labels import as_array

__all__ = ["graph_layout"]

# The curve s(d) fitted to UMAP's default minimum distance of 0.1.
_A, _B = 1.577, 0.895
_SPAN = 5.0  # half-width of the initial layout, in units of the distance d


def graph_layout(
    graph: Any, dim: int = 2, random_state: int = 0, *, n_epochs: int | None = None, n_negatives: int = 5
) -> np.ndarray:
    """Coordinates for the nodes of a graph, such that joined nodes lie together.

    Parameters
    ----------
    graph : torch_geometric.data.Data
        Its ``edge_index`` [2, E], ``num_nodes`` and, if it has one, ``edge_weight`` [E] (>= 0) are read;
        directions are ignored. A weight counts relative to the largest one at the same node.
    dim : int
        Number of coordinates, at least 1.
    random_state : int
        Seed; the same seed on the same machine gives the same layout.
    n_epochs : int, optional
        Rounds of refinement; 0 gives the spectral layout alone. Default: 300 up to 20,000 nodes, then
        fewer, 100 at least.
    n_negatives : int
        Random nodes that repel each node in a round.

    Returns
    -------
    ndarray of shape (N, dim), float32
        Centred. The parts of a disconnected graph and isolated nodes get places of their own.

    Raises
    ------
    ValueError
        If ``dim`` is below 1, the graph has no nodes, or a weight is negative or not finite.
    """
    if dim < 1:
        raise ValueError(f"dim is {dim}: a layout needs at least 1 coordinate")
    weights = _similarity(graph)
    n_nodes = weights.shape[0]
    rng = np.random.default_rng(random_state)
    position = _initial(weights, dim, rng)
    if n_epochs is None:
        n_epochs = int(np.clip(300 * 20_000 / n_nodes, 100, 300))
    if n_nodes > 1:
        position = _refine(weights, position, n_epochs, n_negatives, rng)
    return (position - position.mean(axis=0)).astype(np.float32)


def _similarity(graph: Any) -> sp.csr_array:
    """Symmetric weights in [0, 1] without a diagonal, the nearest neighbour of each node at about 1."""
    n_nodes = int(graph.num_nodes or 0)
    if n_nodes < 1:
        raise ValueError("the graph has no nodes: there is nothing to lay out")
    source, target = as_array(graph.edge_index)
    given = getattr(graph, "edge_weight", None)
    weight = np.ones(len(source)) if given is None else as_array(given).astype(np.float64).ravel()
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("edge_weight has negative or non-finite entries: weights are similarities, >= 0")
    keep = (source != target) & (weight > 0)
    source, target, weight = source[keep], target[keep], weight[keep]
    # One bandwidth for all leaves outliers with next to no weight at all; relative to the node's best
    # neighbour nobody is let go.
    largest = np.zeros(n_nodes)
    np.maximum.at(largest, target, weight)
    relative = sp.coo_array((weight / largest[target], (target, source)), shape=(n_nodes, n_nodes)).tocsr()
    return sp.csr_array(relative.maximum(relative.T)).astype(np.float32)


# -- where to start ------------------------------------------------------------------------------------------


def _initial(weights: sp.csr_array, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Each connected part laid out by itself, large ones by the spectrum, and the parts set side by side."""
    n_nodes = weights.shape[0]
    n_parts, part = connected_components(weights, directed=False)
    sizes = np.bincount(part, minlength=n_parts)
    radius = _SPAN * np.sqrt(sizes / n_nodes)
    position = rng.normal(scale=0.3, size=(n_nodes, dim)) * radius[part, None]
    for k in np.flatnonzero(sizes >= max(20, 2 * dim + 3)):
        members = np.flatnonzero(part == k)
        position[members] = _spectral(weights[members][:, members], dim, rng) * radius[k]
    position += _places(radius, dim)[part]
    # Equal rows of the eigenvectors (twins in the graph) would never be pulled apart.
    return position + rng.normal(scale=1e-3 * _SPAN, size=position.shape)


def _spectral(weights: sp.csr_array, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Leading non-trivial eigenvectors of D^-1/2 W D^-1/2, each scaled to [-1, 1]."""
    scale = 1.0 / np.sqrt(np.asarray(weights.sum(axis=1)).ravel())
    operator = sp.csr_array(weights.multiply(scale[:, None]).multiply(scale[None, :])).astype(np.float64)
    start = rng.normal(size=weights.shape[0])
    try:
        values, vectors = eigsh(operator, k=dim + 1, which="LA", v0=start, tol=1e-3, maxiter=300)
        vectors = vectors[:, np.argsort(-values)]
    except ArpackError:
        # Many nearly separate parts: eigenvalues crowd at 1. A blurred random start is enough to begin with.
        vectors = rng.normal(size=(weights.shape[0], dim + 1))
        vectors[:, 0] = 1.0 / scale
        for _ in range(50):
            vectors = np.linalg.qr(operator @ vectors + vectors)[0]
    # The first is constant but for the degrees; dividing by the roots of the degrees gives the random walk's.
    vectors = vectors[:, 1 : dim + 1] * scale[:, None]
    # A few far-off nodes must not press all others together.
    centred = vectors - np.median(vectors, axis=0)
    spread = np.quantile(np.abs(centred), 0.95, axis=0)
    return np.clip(centred / np.maximum(spread, 1e-12), -1.5, 1.5)


def _places(radius: np.ndarray, dim: int) -> np.ndarray:
    """Centres for discs of the given radii: the largest in the middle, the others on a sunflower spiral around it."""
    centres = np.zeros((len(radius), dim))
    order = np.argsort(-radius, kind="stable")
    area_before = np.concatenate([[0.0], np.cumsum(radius[order] ** 2)[:-1]])
    distance = 1.2 * np.sqrt(area_before) + radius[order]
    distance[0] = 0.0
    angle = np.arange(len(order)) * math.pi * (3 - math.sqrt(5))
    centres[order, 0] = distance * np.cos(angle)
    if dim > 1:
        centres[order, 1] = distance * np.sin(angle)
    return centres


# -- refinement ----------------------------------------------------------------------------------------------


def _refine(
    weights: sp.csr_array, position: np.ndarray, n_epochs: int, n_negatives: int, rng: np.random.Generator
) -> np.ndarray:
    """Move all nodes along the forces, by steps that shrink to nothing."""
    n_nodes = len(position)
    # One contiguous array per coordinate: gathering from those is several times faster than gathering rows.
    y = np.ascontiguousarray(position.T, dtype=np.float32)
    rows = np.repeat(np.arange(n_nodes, dtype=np.int32), np.diff(weights.indptr))
    cols = weights.indices.astype(np.int32)
    degree = np.asarray(weights.sum(axis=1)).ravel().astype(np.float32)
    pull = sp.csr_array(weights, copy=True)
    ones = np.ones(n_nodes, dtype=np.float32)
    for epoch in range(n_epochs):
        squared = np.full(len(cols), 1e-6, dtype=np.float32)
        for coordinate in y:
            squared += np.square(coordinate.take(rows) - coordinate.take(cols))
        powered = squared**_B
        pull.data = weights.data * (
            np.float32(2 * _A * _B) * powered / (squared * (1 + np.float32(_A) * powered))
        )
        stiffness = pull @ ones

        others = rng.integers(n_nodes, size=(n_negatives, n_nodes), dtype=np.int32)
        apart = [coordinate - coordinate.take(others) for coordinate in y]
        squared = sum(
            (np.square(difference) for difference in apart), start=np.full(others.shape, 1e-6, np.float32)
        )
        push = np.float32(2 * _B) / ((np.float32(1e-3) + squared) * (1 + np.float32(_A) * squared**_B))
        # Two nodes that happen to lie together must not be thrown across the picture.
        np.minimum(push, 4 / np.sqrt(squared), out=push)

        # Divided by the stiffness of its springs, a node jumps at most to where its neighbours are.
        step = np.float32(1 - epoch / n_epochs) / np.maximum(stiffness, 1)
        forces = []
        for coordinate, difference in zip(y, apart, strict=True):
            # UMAP repels one end of each sampled edge n_negatives times and attracts both ends: hence the
            # half.
            repulsion = (push * difference).sum(axis=0) * (degree / 2)
            forces.append(pull @ coordinate - stiffness * coordinate + repulsion)
        y += step * np.stack(forces)
    return y.T
