"""Agreement of several clusterings: average linkage on the share of runs that put two samples together."""

import itertools

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import is_valid_linkage
from sklearn.metrics import adjusted_rand_score

from graphclust.graph.agreement import agreed_partition


def noisy_runs(n=60, k=3, n_runs=7, share=0.25, seed=0):
    """Runs that each move a share of the samples to clusters at random, with names of their own; and the truth."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % k
    runs = []
    for _ in range(n_runs):
        labels = np.where(rng.random(n) < share, rng.integers(0, k, n), truth)
        runs.append(rng.permutation(k)[labels])
    return torch.from_numpy(np.array(runs)), truth


def together(runs, weights=None):
    """Share of runs that put two samples together, for all pairs: what nothing in the library stores."""
    runs = np.asarray(runs)
    weights = np.ones(len(runs)) if weights is None else np.asarray(weights, dtype=float)
    return np.einsum("r,rij->ij", weights / weights.sum(), runs[:, :, None] == runs[:, None, :])


@pytest.mark.parametrize("weights", [None, [1, 2, 0, 0.5, 1, 3, 1]])
@pytest.mark.parametrize("seed", range(4))
def test_is_average_linkage_of_all_samples(seed, weights):
    runs, _ = noisy_runs(n=40, seed=seed, share=0.5)
    found = agreed_partition(runs, 3, min_share=0, weights=weights)
    similarity = together(runs, weights)
    assert is_valid_linkage(found.linkage)
    groups = {part: np.flatnonzero(found.parts.numpy() == part) for part in range(int(found.parts.max()) + 1)}
    n_parts = len(groups)
    for step, (a, b, height, _) in enumerate(found.linkage):
        means = {
            pair: similarity[np.ix_(groups[pair[0]], groups[pair[1]])].mean()
            for pair in itertools.combinations(sorted(groups), 2)
        }
        # Of several pairs that are equally alike any may come first.
        assert np.exp(-height) == pytest.approx(means[int(a), int(b)], abs=1e-9)
        assert np.exp(-height) == pytest.approx(max(means.values()), abs=1e-9)
        groups[n_parts + step] = np.concatenate([groups.pop(int(a)), groups.pop(int(b))])
        if len(groups) == 3:
            sizes = sorted(len(group) for group in groups.values())
            assert sorted(np.bincount(found.labels)) == sizes


def test_finds_what_no_run_did():
    runs, truth = noisy_runs(n=300, n_runs=15, share=0.4)
    alone = [adjusted_rand_score(truth, run) for run in runs.numpy()]
    agreed = adjusted_rand_score(truth, agreed_partition(runs, 3).labels)
    assert max(alone) < 0.5 and agreed > 0.95


def test_few_parts_are_enough():
    runs, truth = noisy_runs(n=2000, n_runs=15, share=0.4)
    found = agreed_partition(runs, 3, most_parts=200)
    assert int(found.parts.max()) + 1 == 200
    assert adjusted_rand_score(truth, found.labels) > 0.95


def test_labels_do_not_depend_on_names():
    runs, _ = noisy_runs()
    renamed = torch.stack([torch.tensor([2, 0, 1])[run] for run in runs])
    assert torch.equal(agreed_partition(runs, 3).labels, agreed_partition(renamed, 3).labels)


def test_small_groups_are_no_clusters():
    truth = np.repeat([0, 1, 2], [100, 90, 4])
    runs = torch.from_numpy(np.stack([truth] * 3))
    runs[0, :100] = torch.arange(100) % 2 * 3  # two halves of the first, which one run tells apart
    found = agreed_partition(runs, 3).labels.numpy()
    assert sorted(np.bincount(found)) == [50, 50, 94]
    assert (
        len(set(found[:100].tolist())) == 2
        and len(set(agreed_partition(runs, 3, min_share=0).labels[190:])) == 4
    )


@pytest.mark.parametrize("counts", list(itertools.product([1, 3], [2, 5])))
def test_runs_of_different_numbers_of_clusters(counts):
    labels = np.arange(40) % 10
    runs = torch.from_numpy(np.stack([labels % k for k in (*counts, 10)]))
    assert len(set(agreed_partition(runs, 10, min_share=0).labels.tolist())) == 10


def test_errors():
    runs, _ = noisy_runs()
    with pytest.raises(
        ValueError, match="n_clusters=3 is more than the samples can be told apart into: there are 2"
    ):
        agreed_partition(torch.tensor([[0, 1, 0, 1]]), 3)
    for weights in ([1, 2], [0] * 7, [-1] + [1] * 6, [np.nan] * 7):
        with pytest.raises(ValueError, match="weights must be 7 numbers"):
            agreed_partition(runs, 3, weights=weights)
