"""Clusters of parts that say most about where a walk over several sample graphs leads."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.special import xlogy
from torch import Tensor

from graphclust._checks import check_count, check_number

#: Samples of each graph whose walks a search reads at most: more change the information by less than the search finds.
_ROWS = 2000
#: Temperatures that each search starts at, in nats; over its sweeps they fall to a tenth.
_TEMPERATURES = 2e-4, 1e-3, 3e-3
_SWEEPS = 12
#: Results that are recombined: so many of the best are overlaid, and as often at most as the best becomes better.
_OVERLAID, _CROSSED, _CROSSINGS = (3, 6, 12), 3, 3


class InformativePartition(NamedTuple):
    """Result of `informative_partition`.

    Attributes
    ----------
    part_labels : ndarray [P], int64
        Cluster of each part.
    information : float
        The objective, in nats.
    start : int
        Number of the start that led there.
    """

    part_labels: np.ndarray
    information: float
    start: int


def neighbor_walk(neighbors: Tensor, steps: int = 2) -> sp.csr_matrix:
    """Where a walk leads that goes to one of its sample's neighbours, each as likely, `steps` times.

    Parameters
    ----------
    neighbors : Tensor [N, k], int64
        As `SampleGraph.neighbor_index`; entries below 0 are no neighbours.
    steps : int, default=2

    Returns
    -------
    csr_matrix [N, N], float32
        Rows sum to 1; those of samples without a neighbour stay where they are.
    """
    table = neighbors.cpu().numpy()
    n, k = table.shape
    row = np.repeat(np.arange(n), k)
    column = table.reshape(-1)
    found = column >= 0
    row, column = row[found], column[found]
    alone = np.setdiff1d(np.arange(n), row)
    row, column = np.concatenate([row, alone]), np.concatenate([column, alone])
    weight = (1.0 / np.bincount(row, minlength=n)[row]).astype(np.float32)
    step = sp.csr_matrix((weight, (row, column)), shape=(n, n))
    walk = step
    for _ in range(steps - 1):
        walk = (walk @ step).tocsr()
    return walk


def informative_partition(
    walks: Sequence[sp.csr_matrix],
    starts: Sequence[np.ndarray],
    n_clusters: int,
    *,
    size_weight: float = 0.85,
    weights: Sequence[float] | None = None,
    random_state: int = 0,
) -> InformativePartition:
    r"""Clusters of parts by the information between a sample and the cluster that a short walk from it ends in.

    A walk from sample i in view v ends in part p with probability :math:`W^v_{ip}`, so in cluster k with
    :math:`q^v_{ik} = \sum_{p \in k} W^v_{ip}`. A cluster is a good one where such walks end where they began, whichever
    view they are taken in. That is measured by

    .. math:: I = \frac1V \sum_v \frac1{N_v} \sum_{ik} q^v_{ik} \log q^v_{ik} - \beta \sum_k m_k \log m_k,
        \quad m_k = \frac1V \sum_v \frac1{N_v} \sum_i q^v_{ik}

    with :math:`\beta = 1` the mutual information between the walk's start and its end's cluster (the information
    bottleneck of Tishby & Slonim 2000, for several walks at once). The second term alone is largest for clusters of
    equal sizes; a smaller :math:`\beta` leaves unequal ones more room.

    From each start the parts are visited in random order and moved by heat bath, with the probability
    exp(I / T) of each cluster, T falling; then each goes where I is largest until the end. Several parts that hold each
    other where they are have to move at once: so the best results are overlaid, the parts that are together in all of
    them are moved as one in the same way, and then each by itself again (Sanders & Schulz 2012 recombine partitions of
    graphs like this). That is repeated while it helps.

    Parameters
    ----------
    walks : sequence of csr_matrix [N_v, P]
        Of each view, rows that sum to 1: where a walk from each of its samples ends.
    starts : sequence of ndarray [P]
        Clusters of the parts, 0 ... K - 1, that searches begin with.
    n_clusters : int
        K, from 1 to P. No cluster is emptied.
    size_weight : float, default=0.85
        beta.
    weights : sequence of float, optional
        Of the views in the means; by default each has the same.
    random_state : int

    Returns
    -------
    InformativePartition
        The best of all searches, by all rows of the walks.

    Raises
    ------
    ValueError
        When walks or starts have different numbers of parts, or there are none.
    """
    widths = {walk.shape[1] for walk in walks} | {len(start) for start in starts}
    if len(widths) != 1 or not len(starts):
        raise ValueError(
            f"walks and starts have {sorted(widths)} parts: pass at least one of each, all with the same number"
        )
    n_clusters = check_count(n_clusters, "n_clusters", maximum=widths.pop())
    check_number(size_weight, "size_weight", 0.0)
    if weights is not None and (len(weights) != len(walks) or min(weights) <= 0):
        raise ValueError(f"weights={list(weights)} of {len(walks)} views: give each one above 0")
    rng = np.random.default_rng(random_state)

    def drawn() -> list[sp.csr_matrix]:
        """Some rows of each view, others for each search: what only some of them say leads none but one astray."""
        return [
            walk if walk.shape[0] <= _ROWS else walk[np.sort(rng.choice(walk.shape[0], _ROWS, replace=False))]
            for walk in walks
        ]

    whole = _Search(walks, n_clusters, size_weight, weights)
    tried: set[bytes] = set()
    found: dict[bytes, InformativePartition] = {}

    def keep(label: np.ndarray, number: int) -> None:
        if _name(label) not in found:
            found[_name(label)] = InformativePartition(label, whole.value(label), number)

    for number, start in enumerate(starts):
        if _name(start) in tried:
            continue
        tried.add(_name(start))
        search = _Search(drawn(), n_clusters, size_weight, weights)
        for temperature in _TEMPERATURES:
            keep(search.run(np.asarray(start), temperature, rng), number)
    for _ in range(_CROSSINGS):
        best = sorted(found.values(), key=lambda partition: -partition.information)
        for label, number in _recombined(_Search(drawn(), n_clusters, size_weight, weights), best, rng):
            keep(label, number)
        if max(partition.information for partition in found.values()) <= best[0].information:
            break
    return max(found.values(), key=lambda partition: partition.information)


def _recombined(
    search: _Search, best: Sequence[InformativePartition], rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, int]]:
    """Labels of the parts, and the start behind them: what is together in all of the best moves as one, then alone."""
    for size in _OVERLAID:
        together = np.stack([partition.part_labels for partition in best[:size]], axis=1)
        _, one_part, group = np.unique(together, axis=0, return_index=True, return_inverse=True)
        group = group.reshape(-1)
        groups = search.of_groups(group)
        for partition in best[: min(size, _CROSSED)]:
            for temperature in _TEMPERATURES:
                moved = groups.run(partition.part_labels[one_part], temperature, rng)[group]
                yield search.run(moved, 0.0, rng), partition.start


def _name(label: np.ndarray) -> bytes:
    """The same for the same clusters, whatever their numbers."""
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return first[number].tobytes()


def information(
    walks: Sequence[sp.csr_matrix],
    part_labels: np.ndarray,
    size_weight: float = 0.85,
    weights: Sequence[float] | None = None,
) -> float:
    """What `informative_partition` maximises, of given clusters of the parts (with a part a sample: of samples)."""
    return _Search(walks, int(part_labels.max()) + 1, size_weight, weights).value(part_labels)


class _Search:
    """Clusters of parts, and what moving one of them gains: only the walks that end in it need to be looked at."""

    def __init__(
        self,
        walks: Sequence[sp.csr_matrix],
        n_clusters: int,
        size_weight: float,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.n_clusters, self.size_weight = n_clusters, size_weight
        votes = np.ones(len(walks)) if weights is None else np.asarray(weights, dtype=np.float64)
        # A view's samples share its votes.
        self.share = np.concatenate(
            [
                np.full(walk.shape[0], vote / (votes.sum() * walk.shape[0]))
                for walk, vote in zip(walks, votes, strict=True)
            ]
        )
        self.walk = sp.vstack(list(walks)).tocsc()
        self.walk.data = self.walk.data.astype(np.float64)
        self.mass = np.asarray(self.walk.T @ self.share).reshape(-1)

    def of_groups(self, group: np.ndarray) -> _Search:
        """The same search with groups of parts in the place of parts: `group` [P] says which part is in which."""
        member = sp.csr_matrix((np.ones(len(group)), (np.arange(len(group)), group)))
        groups = copy.copy(self)
        groups.walk, groups.mass = (self.walk @ member).tocsc(), member.T @ self.mass
        return groups

    def place(self, label: np.ndarray) -> None:
        """Put each part where `label` says."""
        member = sp.csr_matrix(
            (np.ones(len(label)), (np.arange(len(label)), label)), shape=(len(label), self.n_clusters)
        )
        self.label = label.astype(np.int64)
        self.ends = np.asarray((self.walk @ member).todense())
        self.total = self.share @ self.ends
        self.count = np.bincount(label, minlength=self.n_clusters)

    def value(self, label: np.ndarray) -> float:
        """The objective."""
        self.place(label)
        certainty = float(self.share @ xlogy(self.ends, self.ends).sum(axis=1))
        return certainty - self.size_weight * float(xlogy(self.total, self.total).sum())

    def run(self, start: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
        """Labels after heat-bath sweeps from `start`."""
        self.place(start)
        for sweep in range(_SWEEPS):
            cold = sweep >= _SWEEPS - 3
            heat = temperature * 0.1 ** (sweep / (_SWEEPS - 1))
            moved = False
            for part in rng.permutation(len(self.label)):
                moved |= self._visit(int(part), 0.0 if cold else heat, rng)
            if cold and not moved:
                break
        return self.label.copy()

    def _visit(self, part: int, heat: float, rng: np.random.Generator) -> bool:
        """Take a part out of its cluster and put it into one drawn, or without heat into the best; whether it moved."""
        here = self.label[part]
        if self.count[here] == 1:
            return False
        held = slice(self.walk.indptr[part], self.walk.indptr[part + 1])
        rows, weight = self.walk.indices[held], self.walk.data[held]
        ends = self.ends[rows]
        ends[:, here] -= weight
        np.maximum(ends, 0.0, out=ends)
        with_part = ends + weight[:, None]
        gain = self.share[rows] @ (xlogy(with_part, with_part) - xlogy(ends, ends))
        total = self.total.copy()
        total[here] = max(total[here] - self.mass[part], 0.0)
        larger = total + self.mass[part]
        gain -= self.size_weight * (xlogy(larger, larger) - xlogy(total, total))
        if heat > 0:
            odds = np.exp((gain - gain.max()) / heat)
            there = int(np.searchsorted(np.cumsum(odds), rng.random() * odds.sum()))
            there = min(there, self.n_clusters - 1)
        else:
            there = int(gain.argmax())
        if there == here:
            return False
        self.ends[rows, here] = ends[:, here]
        self.ends[rows, there] = with_part[:, there]
        self.total = total
        self.total[there] = larger[there]
        self.count[here] -= 1
        self.count[there] += 1
        self.label[part] = there
        return True


def labels_of_parts(labels: Tensor, parts: Tensor, n_clusters: int, rows: Tensor | None = None) -> np.ndarray:
    """The cluster that most samples of each part have, [P].

    Parameters
    ----------
    labels : Tensor [N] or [R]
        Clusters of all samples, or of those that `rows` names.
    parts : Tensor [N]
        Part of each sample, 0 ... P - 1.
    n_clusters : int
    rows : Tensor [R], optional

    Returns
    -------
    ndarray [P], int64
        Of a part that none of the rows is in: cluster 0.
    """
    n_parts = int(parts.max()) + 1
    chosen = parts if rows is None else parts[rows]
    table = torch.bincount(chosen * n_clusters + labels.to(chosen.device), minlength=n_parts * n_clusters)
    return table.view(n_parts, n_clusters).argmax(dim=1).cpu().numpy()
