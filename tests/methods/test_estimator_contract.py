"""VGDCN as scikit-learn's tools see it: its own checks, clones, pipelines, searches, names of columns."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import silhouette_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch_geometric.data import Data
from torch_geometric.nn import ChebConv

from graphclust import METHODS, VGDCN, Agglomerative, KMeans, SampleGraph
from graphclust.methods import DeepClusterer

TINY: dict[str, Any] = {
    "hidden_channels": (16,),
    "latent_dim": 4,
    "pretrain_epochs": 2,
    "branch_epochs": 2,
    "epochs": 2,
    "random_state": 0,
}


def briefly(name: str, epochs: int) -> Any:
    """A method whose stages last so many epochs."""
    model = METHODS[name](3, random_state=0)
    stages = ("epochs", "pretrain_epochs", "branch_epochs", "graph_epochs", "joint_epochs", "part_epochs")
    return model.set_params(**{key: epochs for key in stages if key in model.get_params()})


@parametrize_with_checks(
    [
        VGDCN(n_clusters=3, **TINY),
        VGDCN(n_clusters=3, **{**TINY, "init": "mixture", "target": "latent", "batch_size": 16}),
    ]
)
def test_scikit_learn_checks(estimator: VGDCN, check: Any) -> None:
    with warnings.catch_warnings():
        # The checks fit clusters to noise; that some stay empty is not what they are about.
        warnings.filterwarnings("ignore", message=".*clusters were asked for")
        check(estimator)


@pytest.fixture(scope="module")
def x(digits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return digits[0][:200]


def test_clone_keeps_parameters_and_forgets_the_fit(x: np.ndarray) -> None:
    model = VGDCN(4, **TINY, conv="sage", epsilon=[0.2, 0.9]).fit(x)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "labels_")
    np.testing.assert_array_equal(copy.fit(x).labels_, model.labels_)


def test_set_params_takes_effect(x: np.ndarray) -> None:
    model = VGDCN(4, **TINY).set_params(n_clusters=2, n_neighbors=3, epsilon=np.float32(0.5))
    model.fit(x)
    assert model.probabilities_.shape == (200, 2)
    assert model.graph_.neighbor_index.shape == (200, 3)
    with pytest.raises(ValueError, match="Invalid parameter 'depth'"):
        model.set_params(depth=3)


def test_pipeline(x: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), VGDCN(4, **TINY))
    labels = pipeline.fit_predict(x)
    scaled = pipeline[0].transform(x)
    np.testing.assert_array_equal(labels, VGDCN(4, **TINY).fit(scaled).labels_)
    np.testing.assert_array_equal(pipeline.predict(x[:9]), pipeline[1].predict(scaled[:9]))
    assert list(pipeline.get_feature_names_out()) == ["vgdcn0", "vgdcn1", "vgdcn2", "vgdcn3"]


def test_grid_search_with_a_score_that_needs_no_labels(x: np.ndarray) -> None:
    def silhouette(estimator: VGDCN, x: np.ndarray, y: None = None) -> float:
        labels = estimator.predict(x)
        return -1.0 if len(np.unique(labels)) < 2 else silhouette_score(x, labels)

    grid = {"epsilon": [0.0, np.float64(0.7)], "n_neighbors": [3, 6]}
    search = GridSearchCV(VGDCN(4, **TINY), grid, scoring=silhouette, cv=2, error_score="raise").fit(x)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 4
    assert search.best_score_ == scores.max()
    assert search.best_estimator_.n_neighbors == search.best_params_["n_neighbors"]
    assert search.predict(x[:3]).shape == (3,)


def test_grid_search_of_k_means_needs_no_score_of_the_user_s(x: np.ndarray) -> None:
    search = GridSearchCV(KMeans(random_state=0), {"n_clusters": [2, 6]}, cv=2).fit(x)
    assert search.best_params_ == {"n_clusters": 6}
    model = KMeans(4, random_state=0).fit(x)
    assert model.score(x) == pytest.approx(-model.inertia_, rel=1e-5)


def test_training_samples_have_their_labels_with_a_layer_of_the_user_s(x: np.ndarray) -> None:
    """Also one that reads more than the edges into a sample."""
    model = VGDCN(4, **TINY, conv=lambda i, o: ChebConv(i, o, K=2)).fit(x)
    np.testing.assert_array_equal(model.predict(x), model.labels_)
    np.testing.assert_array_equal(model.predict(x[7:9]), model.labels_[7:9])


def test_names_of_columns(x: np.ndarray) -> None:
    frame = pd.DataFrame(x, columns=[f"pixel{i}" for i in range(64)])
    model = VGDCN(4, **TINY).fit(frame)
    assert list(model.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(model.labels_, VGDCN(4, **TINY).fit(x).labels_)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"pixel3": "other"}))
    coded = model.set_output(transform="pandas").transform(frame[:5])
    assert list(coded.columns) == list(model.get_feature_names_out()) == [f"vgdcn{i}" for i in range(4)]
    # A graph has no columns: what an earlier fit saw is forgotten.
    model.fit(model.graph_)
    assert not hasattr(model, "feature_names_in_")


def test_columns_that_no_method_reads(x: np.ndarray) -> None:
    frame = pd.DataFrame(x[:, :3], columns=list("abc"))
    for when in (pd.Timestamp("2020"), pd.Timedelta("1h")):
        with pytest.raises(TypeError, match=r"not numbers: 'when'; drop them"):
            KMeans(3).fit(frame.assign(when=when))
    with pytest.raises(ValueError, match="2 columns named 'a': give each a name of its own"):
        KMeans(3).fit(frame.set_axis(list("aab"), axis=1))


@pytest.mark.parametrize("name", METHODS)
def test_samples_that_are_all_equal(name: str) -> None:
    """Whatever a method does with them, it is said."""
    model = briefly(name, 1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model.fit(np.ones((40, 5), dtype=np.float32))
        except ValueError as error:
            assert "all equal" in str(error) or "all samples are equal" in str(error)
            return
    assert any("all 40 samples of X are equal" in str(warning.message) for warning in said)


@pytest.mark.parametrize("name", METHODS)
def test_equal_samples_have_one_label(name: str, x: np.ndarray) -> None:
    """Also where there are more copies than neighbours, which are then joined to different ones of them."""
    model = briefly(name, 2)
    number = np.random.default_rng(0).permutation(np.repeat(np.arange(30), 9))
    copies = x[number]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*clusters were asked for")
        labels = model.fit(copies).labels_
    assert all(len(set(labels[number == sample])) == 1 for sample in range(30))
    if hasattr(model, "predict"):
        np.testing.assert_array_equal(model.predict(copies), labels)


def test_edges_that_a_method_does_not_read_are_told(x: np.ndarray) -> None:
    graph = SampleGraph.from_features(x, 3)
    given = Data(x=graph.x, edge_index=graph.edge_index)
    with pytest.warns(UserWarning, match="KMeans reads no edges"):
        KMeans(3, random_state=0).fit(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (graph, Data(x=graph.x)):  # of neighbours nothing is lost
            KMeans(3, random_state=0).fit(data)
        Agglomerative(3).fit(given)


def test_transform_is_the_embedding(x: np.ndarray) -> None:
    model = VGDCN(4, **TINY)
    codes = model.fit_transform(x)
    assert codes.dtype == np.float32 and codes.shape == (200, 4)
    np.testing.assert_array_equal(codes, model.embedding_)
    np.testing.assert_allclose(model.transform(x.astype(np.float64)), codes, atol=1e-5)


def test_the_base_class_cannot_be_used_alone() -> None:
    with pytest.raises(TypeError, match="abstract"):
        DeepClusterer(3)  # type: ignore[abstract]
