"""GeneticKMeans: a population of centroid sets, bred towards the smallest within-cluster distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from graphclust._checks import check_count, check_number
from graphclust.methods.centers import CenterClusterer, Distortion


@dataclass
class Individual:
    """One centroid set, and how it divides the samples.

    Attributes
    ----------
    centers : ndarray [K, d]
    labels : ndarray [N], int64
        Nearest centre.
    cost : ndarray [N], float64
        D to it (`Distortion`).
    fitness : float
        Sum of the costs; less is fitter.
    """

    centers: NDArray[Any]
    labels: NDArray[np.int64]
    cost: NDArray[np.float64]
    fitness: float


@dataclass(eq=False, repr=False, kw_only=True)
class GeneticKMeans(CenterClusterer):
    r"""K-means by a genetic algorithm: minimises :math:`\sum_i D(x_i, \mu_{c_i})` over sets of K centres.

    The first generation is drawn by k-means++. Each further one has the fittest of the last, and children of two
    parents, each the fitter of two that are drawn at random:

    - crossover: the parents' centres are matched one-to-one at the smallest total distance, and of each matched pair
      the child takes one, at even odds;
    - mutation, at the rate `mutation`: one centre, drawn at random, goes to a sample drawn with a probability in
      proportion to its D to the nearest of the other centres;
    - the k-means operator: one step of Lloyd's algorithm, for the fittest as well.

    The fittest is replaced by its own next step only where that is fitter, so the best fitness never gets worse, and
    the last one is no worse than the best start. At the end Lloyd's algorithm takes the fittest to its optimum.

    Krishna & Murty (1999) made a k-means step an operator; matching crossover and this mutation are of HG-means
    (Gribel & Vidal 2019), which reports sums no worse than those of the best known solutions.

    Departures: HG-means runs k-means to the end for every child and keeps the fittest of parents and children; this
    takes one step a generation and replaces all but the fittest.

    Parameters
    ----------
    population : int
        Centroid sets in a generation, at least 2. Each takes N numbers for its costs and N labels.
    generations : int
        Beyond the first.
    mutation : float
        Probability that a child has a centre moved, 0 to 1.
    max_iter : int
        Most iterations of Lloyd's algorithm at the end.

    Attributes
    ----------
    n_iter_ : int
        Iterations of Lloyd's algorithm at the end.
    history_ : list of dict
        One record a generation: stage, epoch (0 is the start), best and mean fitness.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from graphclust import GeneticKMeans
    >>> model = GeneticKMeans(10, generations=20, random_state=0).fit(load_digits().data)
    >>> model.inertia_ <= model.history_[0]["best"]
    True
    """

    population: int = 20
    generations: int = 50
    mutation: float = 0.5

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count(self.population, "population", 2, remedy="a child has two parents")
        check_count(self.generations, "generations", 0)
        check_number(self.mutation, "mutation", 0, 1)

    def _fit(self, x: NDArray[np.float32], seed: int) -> None:
        distortion = Distortion.make(self.metric, self.p)
        generator = np.random.RandomState(seed)
        # Around the mean float32 squares lose least.
        origin = x.mean(axis=0) if distortion.metric == "euclidean" else np.zeros(x.shape[1], np.float32)
        points = distortion.points(x - origin)
        people = [
            self._grow(distortion, points, distortion.start(points, self.n_clusters_, generator))
            for _ in range(self.population)
        ]
        self.history_ = [_record(0, people)]
        for generation in range(1, self.generations + 1):
            people = self._next(distortion, points, people, generator)
            self.history_.append(_record(generation, people))
        best = min(people, key=lambda person: person.fitness)
        descent = distortion.descend(points, best.centers, max_iter=self.max_iter, tolerance=self.tolerance)
        self.n_iter_ = max(1, len(descent.sums) - 1)  # a step that changes nothing is one
        self.cluster_centers_ = (descent.centers + origin).astype(np.float32)
        # Far from the origin rounding moves the centres, and `predict` has no others.
        self.labels_, _ = distortion.assign(points, self.cluster_centers_ - origin)
        self.inertia_ = descent.sums[-1]

    @staticmethod
    def _grow(distortion: Distortion, points: NDArray[Any], centers: NDArray[Any]) -> Individual:
        labels, cost = distortion.assign(points, centers)
        return Individual(centers, labels, cost, float(cost.sum()))

    def _step(self, distortion: Distortion, points: NDArray[Any], person: Individual) -> Individual:
        """One step of Lloyd's algorithm; the person itself where rounding would make it worse."""
        moved = distortion.move(points, person.labels, person.centers, person.cost)
        after = self._grow(distortion, points, moved)
        return after if after.fitness < person.fitness else person

    def _next(
        self,
        distortion: Distortion,
        points: NDArray[Any],
        people: list[Individual],
        generator: np.random.RandomState,
    ) -> list[Individual]:
        """The next generation, the fittest of this one first."""
        fittest = min(people, key=lambda person: person.fitness)
        following = [self._step(distortion, points, fittest)]
        while len(following) < self.population:
            first, second = (_fitter_of_two(people, generator) for _ in range(2))
            centers = crossover(distortion, first.centers, second.centers, generator)
            if generator.random_sample() < self.mutation:
                centers = mutate(distortion, points, centers, generator)
            following.append(self._step(distortion, points, self._grow(distortion, points, centers)))
        return following


def crossover(
    distortion: Distortion,
    first: NDArray[Any],
    second: NDArray[Any],
    generator: np.random.RandomState,
) -> NDArray[Any]:
    """A child of two centroid sets [K, d]: of each pair of matched centres one, at even odds."""
    mine, other = linear_sum_assignment(distortion.distances(first, second))
    takes_mine = generator.random_sample(len(mine)) < 0.5
    return np.where(takes_mine[:, None], first[mine], second[other])


def mutate(
    distortion: Distortion, points: NDArray[Any], centers: NDArray[Any], generator: np.random.RandomState
) -> NDArray[Any]:
    """The centres [K, d] with one of them moved to a sample that the others leave far away."""
    lost = int(generator.randint(len(centers)))
    others = np.delete(centers, lost, axis=0)
    odds = np.cumsum(distortion.assign(points, others)[1]) if len(others) else np.arange(1.0, len(points) + 1)
    mutant = centers.copy()
    # Where all samples are centres, none is far away and none is taken.
    if odds[-1] > 0:
        drawn = np.searchsorted(odds, generator.random_sample() * odds[-1], side="right")
        mutant[lost] = points[min(int(drawn), len(points) - 1)]
    return mutant


def _fitter_of_two(people: list[Individual], generator: np.random.RandomState) -> Individual:
    first, second = generator.randint(len(people), size=2)
    return min(people[first], people[second], key=lambda person: person.fitness)


def _record(generation: int, people: list[Individual]) -> dict[str, Any]:
    fitness = [person.fitness for person in people]
    return {
        "stage": "generations",
        "epoch": generation,
        "best": min(fitness),
        "mean": float(np.mean(fitness)),
    }
