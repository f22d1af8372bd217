"""A fit that is refused or interrupted leaves the estimator as it was."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphclust
from graphclust import METHODS, FaissNeighbors

pytestmark = pytest.mark.filterwarnings("ignore:.*clusters were asked for")


def briefly(name: str) -> Any:
    model = METHODS[name](3, random_state=0)
    stages = ("epochs", "pretrain_epochs", "branch_epochs", "graph_epochs", "joint_epochs", "part_epochs")
    return model.set_params(**{key: 1 for key in (*stages, "rounds") if key in model.get_params()})


def blobs(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)) + 6 * np.eye(d)[np.arange(n) % 3]
    return x.astype(np.float32)


X, OTHER = blobs(60, 5, 0), blobs(40, 4, 1)


def found(model: Any) -> np.ndarray:
    return model.predict(X) if hasattr(model, "predict") else model.labels_


@pytest.mark.parametrize("name", METHODS)
def test_a_refused_fit_changes_nothing(name: str) -> None:
    model = briefly(name).fit(X)
    labels, before = found(model), dict(model.__dict__)
    bad = OTHER.copy()
    bad[3, 2] = np.nan
    for wrong in (bad, OTHER[:2], np.array([["a", "b"], ["c", "d"]]), OTHER[:20].reshape(20, 2, 2) * np.nan):
        with pytest.raises((ValueError, TypeError)):
            model.fit(wrong)
        assert model.__dict__.keys() == before.keys()
        assert all(model.__dict__[key] is value for key, value in before.items())
        np.testing.assert_array_equal(found(model), labels)
    fresh = briefly(name)
    with pytest.raises(ValueError):
        fresh.fit(bad)
    assert vars(fresh) == vars(briefly(name))  # nothing is fitted


INTERRUPTED = [
    ("ConsensusClustering", "graphclust.methods.consensus.scaling_runs"),
    ("Agglomerative", "graphclust.methods.agglomerative.Agglomerative._fit"),
    ("AgglomerativeDensity", "graphclust.methods.agglomerative_density.AgglomerativeDensity._fit"),
    ("VGDCN", "graphclust.methods.base.Trainer.fit"),
    ("VGDCN", "graphclust.methods.base.DeepClusterer._codes"),
    ("LearnedGraphClustering", "graphclust.methods.base.Trainer.fit"),
]


@pytest.mark.parametrize(("name", "place"), INTERRUPTED)
def test_an_interrupted_fit_changes_nothing(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = briefly(name).fit(X)
    labels = found(model)

    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.fit(OTHER)
    np.testing.assert_array_equal(found(model), labels)
    assert model.n_features_in_ == 5
    np.testing.assert_array_equal(found(graphclust.load(model.save(tmp_path / "model"))), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(model.fit(OTHER).labels_) == 40  # and it can be fitted again


def test_a_refused_fit_of_the_transformer_changes_nothing() -> None:
    search = FaissNeighbors(n_neighbors=3).fit(X)
    with pytest.raises(ValueError, match="mode"):
        search.set_params(mode="far").fit(OTHER)
    assert search.n_features_in_ == 5
