"""ConsensusClustering on vectors as users have them: several scalings, equal samples, few samples, tails."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine, make_blobs
from sklearn.metrics import adjusted_rand_score

import graphclust
from graphclust import ConsensusClustering, SampleGraph
from graphclust.methods.scaling_runs import clearest_share
from graphclust.nn.vector_scale import RankScale


def blobs(n=300, k=3, d=5, seed=0):
    return make_blobs(n, d, centers=k, cluster_std=1.0, center_box=(-8, 8), random_state=seed)


def fit(x, k, **parameters):
    return ConsensusClustering(k, **{"random_state": 0, **parameters}).fit(x)


class TestScalings:
    def test_units_do_not_matter(self):
        x, y = blobs()
        other = x * np.array([1, 1e-4, 1e3, 1, 50]) + 7
        assert adjusted_rand_score(y, fit(other, 3).labels_) > 0.95

    def test_long_tails_do_not_matter(self):
        x, y = blobs()
        tailed = np.exp(x)  # prices, counts, concentrations
        assert adjusted_rand_score(y, fit(tailed, 3).labels_) > 0.85

    def test_ranks_serve_new_samples(self, tmp_path):
        x, y = blobs(400)
        tailed = np.exp(2 * x).astype(np.float32)
        model = fit(tailed[:300], 3, random_state=1)
        assert isinstance(model._scale, RankScale)
        predicted = model.predict(tailed[300:])
        assert adjusted_rand_score(y[300:], predicted) > 0.7
        again = graphclust.load(model.save(tmp_path / "model"))
        assert (again.predict(tailed[300:]) == predicted).all()

    def test_one_scaling(self):
        x, _ = blobs()
        model = fit(x, 3, scale="none")
        torch.testing.assert_close(model.graph_.x, torch.from_numpy(x.astype(np.float32)))

    def test_constant_and_copied_columns(self):
        x, y = load_wine(return_X_y=True)
        wide = np.column_stack([x, np.full(len(x), 3.3), x[:, :3], np.zeros(len(x))])
        assert adjusted_rand_score(y, fit(wide, 3).labels_) > 0.75

    def test_labels_and_probabilities_agree(self):
        x, _ = blobs(200, 4)
        model = fit(x, 4)
        assert (model.probabilities_.argmax(axis=1) == model.labels_).all()
        np.testing.assert_allclose(model.probabilities_.sum(axis=1), 1, atol=1e-5)
        assert (model.predict(x) == model.labels_).mean() > 0.97


class TestUnequalClusters:
    @pytest.mark.parametrize("sizes", [(1000, 200, 50), (300, 300, 30)])
    def test_a_small_one_that_stands_alone(self, sizes):
        x, y = make_blobs(sizes, 2, centers=np.array([[0, 0], [8, 0], [0, 8]]), random_state=0)
        assert adjusted_rand_score(y, fit(x, 3).labels_) > 0.98

    def test_few_samples_far_out_are_no_cluster(self):
        x, y = blobs(400, 2, d=4)
        x[:20] = x[:20] + np.random.default_rng(0).normal(size=(20, 4)) * 20
        assert adjusted_rand_score(y[20:], fit(x, 2).labels_[20:]) > 0.95

    def test_the_share_on_which_runs_agree_more(self):
        generator = torch.Generator().manual_seed(0)
        one, other = torch.arange(120) // 40, torch.randint(0, 3, (4, 4, 120), generator=generator)
        same = [one.expand(4, -1)] * 4
        assert clearest_share([torch.stack([noise, clear]) for noise, clear in zip(other, same)]) == 1
        assert clearest_share([torch.stack([clear, noise]) for noise, clear in zip(other, same)]) == 0
        assert clearest_share([torch.stack([clear, clear]) for clear in same]) == 0


class TestEqualSamples:
    def test_copies_change_nothing(self):
        x, y = blobs()
        x = x.astype(np.float32)
        copies = np.repeat(np.arange(300), np.random.default_rng(0).integers(1, 30, 300))
        labels = fit(x[copies], 3).labels_
        assert adjusted_rand_score(y[copies], labels) > 0.95
        for sample in range(300):
            assert len(set(labels[copies == sample])) == 1

    def test_binary_answers(self):
        rng = np.random.default_rng(0)
        y = np.arange(600) % 3
        answers = rng.random((600, 12)) < np.where((np.arange(12) // 4)[None] == y[:, None], 0.9, 0.15)
        assert adjusted_rand_score(y, fit(answers.astype(np.float32), 3).labels_) > 0.7

    def test_two_kinds(self):
        x = np.repeat([[0.0, 1.0], [2.0, 5.0]], 20, axis=0)
        model = fit(x, 2)
        assert sorted(np.bincount(model.labels_)) == [20, 20]
        with pytest.raises(
            ValueError, match="there are 2 kinds of them, all others are equal; ask for at most 2"
        ):
            fit(x, 3)

    def test_all_equal(self):
        assert (fit(np.ones((30, 4)), 1).labels_ == 0).all()


@pytest.mark.parametrize("shape", [(10, 3), (12, 1), (15, 400), (60, 1000)])
def test_few_samples(shape):
    n = shape[0]
    y = np.arange(n) % 2
    x = np.random.default_rng(0).normal(size=shape) * 0.1 + y[:, None]
    model = graphclust.cluster(x, 2)
    assert adjusted_rand_score(y, model.labels_) == 1
    assert len(set(graphclust.cluster(x, n // 2).labels_)) == n // 2
    assert len(graphclust.cluster(x).labels_) == n


def test_training_samples_have_the_probabilities_of_the_fit(digits):
    x = digits[0][:700]
    model = ConsensusClustering(10, random_state=0).fit(x)
    np.testing.assert_array_equal(model.predict_proba(x), model.probabilities_)
    np.testing.assert_array_equal(model.predict(x[::-1]), model.labels_[::-1])
    assert (model.predict(x + 1e-3) != model.labels_).any()  # which their neighbours alone would not give


@pytest.mark.parametrize("scale", ["auto", "none"])
def test_training_samples_have_their_labels(scale: str) -> None:
    """Also where neighbours would outvote a whole cluster, or labels are those of the partition."""
    x = np.random.default_rng(0).integers(0, 12, (800, 3)).astype(np.float32)
    model = ConsensusClustering(12, scale=scale, random_state=0).fit(x)
    np.testing.assert_array_equal(model.probabilities_.argmax(axis=1), model.labels_)
    np.testing.assert_array_equal(model.predict(x), model.labels_)


def test_a_large_model_knows_its_training_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphclust.methods.consensus._MOST_DISTANCES", 1e3)
    x = load_digits().data.astype(np.float32)
    model = ConsensusClustering(10, random_state=0).fit(x)
    assert hasattr(model, "_mixture")
    new = np.concatenate([x[5:8], x[:3] + 0.1, x[:2]])
    p = model.predict_proba(new)
    np.testing.assert_array_equal(p[[0, 1, 2, 6, 7]], model.probabilities_[[5, 6, 7, 0, 1]])
    np.testing.assert_allclose(p[3:6], model.predict_proba(x[:3] + 0.1), atol=1e-6)


def test_the_given_graph_has_its_labels() -> None:
    x = load_digits().data[:300].astype(np.float32)
    graph = SampleGraph.from_features(x, 5)
    model = ConsensusClustering(4, random_state=0).fit(graph)
    np.testing.assert_array_equal(model.predict(graph), model.labels_)
    with pytest.raises(ValueError, match="only this graph has labels"):
        model.predict(x)


@pytest.mark.parametrize(("large", "small", "away"), [(1000, 10, 8.0), (1000, 10, 20.0), (5000, 50, 8.0)])
def test_a_small_cluster_that_stands_alone_is_found(large: int, small: int, away: float) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=(large, 4)), rng.normal(away, size=(small, 4))])
    labels = ConsensusClustering(2, random_state=0).fit(x).labels_
    assert np.array_equal(labels, np.repeat([0, 1], [large, small]))


@pytest.mark.parametrize("zeros", [500, 900])
def test_equal_samples_count_as_many_as_they_are(zeros: int) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.zeros((zeros, 3)), rng.normal(5, 1, size=(1000 - zeros, 3))])
    labels = ConsensusClustering(2, random_state=0).fit(x).labels_
    assert adjusted_rand_score(labels, np.arange(1000) < zeros) == 1.0


def test_a_sample_far_from_all_is_in_the_cluster_of_the_nearest() -> None:
    x, y = make_blobs(300, centers=[[0, 0], [10, 0], [0, 10]], random_state=0)
    model = ConsensusClustering(3, random_state=0).fit(x)
    far = np.array([[1e6, -1e5], [-1e5, 1e6], [-1e6, -1e6]])
    found = model.predict_proba(far)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    of_class = [model.labels_[y == c][0] for c in (1, 2, 0)]
    assert model.predict(far).tolist() == of_class


def test_the_tree_tells_how_far_apart_separate_clusters_are() -> None:
    centers = [[0, 0], [3, 0], [30, 30], [100, 100], [103, 100]]
    x, y = make_blobs(300, centers=centers, cluster_std=0.4, random_state=0)
    model = ConsensusClustering(5, random_state=0).fit(x)
    assert adjusted_rand_score(model.cut(3), np.array([0, 0, 1, 2, 2])[y]) == 1.0
    assert adjusted_rand_score(model.cut(2), np.array([0, 0, 0, 1, 1])[y]) == 1.0
