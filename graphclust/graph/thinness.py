"""How thin the sample graph has to be at a border, by the samples' intrinsic dimension."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from torch_geometric.data import Data

from graphclust.graph.sample_graph import SampleGraph

#: A cut between two clusters is thinner by at least a quarter than the cuts inside, however many samples there are; in
#: few dimensions by more (`thinness_of`).
MOST_DEPTH = 0.75
#: In few dimensions a border may be that deep only where samples lie half as densely as inside the denser group, and
#: has to be deeper where they do not, down to a third of it.
_THINNING, _LEAST_SHARE = 2.0, 1 / 3
_FEW = 1 + 4 * MOST_DEPTH
#: Neighbours in few dimensions: with fewer, bands have gaps through which cuts wind. Of few samples, so many times as
#: many as neighbours, they would reach across.
_NEIGHBORS, _PER_NEIGHBOR = 15, 100
#: Samples whose neighbours tell the dimension.
_SAMPLED = 5000


class Thinness(NamedTuple):
    """How thin a graph has to be between two groups, which depends on the samples' intrinsic dimension.

    Attributes
    ----------
    depth : float
        The largest share of the cut inside that the cut between them may have.
    spacing : ndarray [N] or None
        Logarithm of the distance to the neighbours, the mean over a sample's surroundings; None where the cut alone
        tells, from four dimensions on.
    full_rise : float
        By how much it has to be larger at a border, in the median, than inside the denser of both groups for that
        share; where it is r times that, the share is r² times as large, at least a third.
    """

    depth: float = MOST_DEPTH
    spacing: NDArray[np.float64] | None = None
    full_rise: float = 1.0

    def share(self, w: sp.csr_matrix, border: int, chosen: NDArray[np.int64]) -> float:
        """What `depth` is multiplied by; the groups are the rows of w [n, n] up to `border` and the rest.

        `chosen` [n] are the samples of these rows.
        """
        if self.spacing is None:
            return 1.0
        spacing = self.spacing[chosen]
        across = w[: border + 1, border + 1 :]
        at_border = np.concatenate([across.getnnz(axis=1) > 0, across.getnnz(axis=0) > 0])
        if not at_border.any():
            return 1.0
        inside = min(np.median(spacing[: border + 1]), np.median(spacing[border + 1 :]))
        rise = float(np.median(spacing[at_border]) - inside)
        return float(np.clip((max(rise, 0.0) / self.full_rise) ** 2, _LEAST_SHARE, 1))


#: From four dimensions on, and where the dimension is not known.
ANY_DIMENSION = Thinness()


def intrinsic_dimension(graph: Data) -> float:
    r"""m of the samples, told from the distances to their neighbours; infinite where these are not known.

    .. math:: 1 / m = \operatorname{mean}_{i, j < k} \log (d_{ik} / d_{ij}),

    d\ :sub:`ij` the distance to the j-th neighbour (Levina & Bickel 2005, averaged as MacKay & Ghahramani do).
    """
    apart = _spread(graph, max(1, int(graph.num_nodes or 1) // _SAMPLED))
    if apart is None:
        return float("inf")
    apart = apart[apart[:, 0] > 0]
    inverse = float(np.log(apart[:, -1:] / apart[:, :-1]).mean()) if len(apart) else 0.0
    return 1 / inverse if inverse > 0 else float("inf")


def _spread(graph: Data, step: int = 1) -> NDArray[np.float64] | None:
    """Distances [N / step, k] to the nearest neighbours, along the sphere for cosine ones; None if there are none."""
    distance = graph.get("neighbor_distance")
    metric = getattr(graph, "construction", {}).get("metric")
    if distance is None or distance.shape[1] < 3 or metric == "inner_product":
        return None
    near = distance[::step].double().cpu().numpy()
    # Cosine distance is half the square of that on the sphere.
    return np.sqrt(np.maximum(near, 0)) if metric == "cosine" else near


def widened(graph: Data) -> Data:
    """The graph with up to 15 neighbours, a hundredth of the samples, if it was built from few dimensions."""
    how = getattr(graph, "construction", {})
    most = min(_NEIGHBORS, graph.x.shape[0] // _PER_NEIGHBOR)
    if how.get("source") != "features" or how["n_neighbors"] >= most or intrinsic_dimension(graph) >= _FEW:
        return graph
    same = {name: how[name] for name in ("metric", "p", "kernel", "bandwidth", "symmetrize", "index")}
    return SampleGraph.from_features(graph.x, most, **same)


def thinness_of(graph: Data, weights: sp.csr_matrix) -> Thinness:
    """What a border has to be, by the intrinsic dimension m of the samples.

    Of all cuts through a random graph in a plane the thinnest winds through its gaps, and has a third to a half of
    what the others have, however many samples there are (first-passage percolation); in three dimensions two thirds,
    from four on nearly all. So the largest share is (m - 1) / 4, between 0.15 and 0.75.

    A long band has so many places for such a cut that the thinnest is thinner still (10,000 samples on two moons: 8
    pieces). But along it samples lie as densely as elsewhere, between groups they do not. So below four dimensions a
    border has that share only where the samples with edges across lie at most half as densely as those inside the
    denser group: the logarithm of the distance to their neighbours (root mean square, averaged twice over the
    neighbours) is larger by log(2) / m; where it is larger by r times that, the share is r² times as large, at
    least a third. Of few samples, whose neighbours reach into both groups, borders are deep enough for that.
    """
    dimension, near = intrinsic_dimension(graph), _spread(graph)
    if near is None or dimension >= _FEW:
        return ANY_DIMENSION
    mean = np.sqrt((near**2).mean(axis=1))
    spacing = np.log(np.maximum(mean, mean[mean > 0].min()))
    surroundings = ((weights > 0) + sp.identity(len(spacing), format="csr")).astype(np.float64)
    size = np.asarray(surroundings.sum(axis=1)).ravel()
    for _ in range(2):
        spacing = (surroundings @ spacing) / size
    return Thinness(max(0.15, (dimension - 1) / 4), spacing, float(np.log(_THINNING)) / dimension)
