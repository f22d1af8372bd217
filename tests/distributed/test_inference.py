"""The model that labels blocks on other machines, as far as one can see without Ray."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphclust.methods
from graphclust.distributed import inference
from graphclust.methods import KMeans

REPLACED = "was saved again while it was used.*call predict again, and save to another folder"


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


@pytest.fixture(params=["folder", "address"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path | str]:
    """Where a model is saved to."""
    inference._model.cache_clear()
    if request.param == "folder":
        yield tmp_path / "model"
        return
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("GRAPHCLUST_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").store.clear()
    yield "memory://bucket/model"
    fsspec.filesystem("memory").store.clear()


def test_a_model_that_is_saved_again_labels_nothing(place: Path | str, x: np.ndarray) -> None:
    model = KMeans(2, random_state=0).fit(x)
    model.save(place)
    stamp = inference._stamp(place)
    np.testing.assert_array_equal(inference._model(str(place), stamp).predict(x), model.labels_)
    KMeans(3, random_state=0).fit(x).save(place)
    inference._model.cache_clear()  # as in a worker that has not loaded it yet
    with pytest.raises(RuntimeError, match=REPLACED):
        inference._model(str(place), stamp)
    assert inference._model(str(place), inference._stamp(place)).n_clusters == 3


@pytest.mark.parametrize("error", [None, ValueError("files of two models"), FileNotFoundError("no folder")])
def test_a_model_that_is_saved_while_it_is_loaded(
    error: Exception | None, place: Path | str, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = KMeans(2, random_state=0).fit(x)
    model.save(place)
    load = graphclust.methods.load

    def meanwhile(*args: Any, **options: Any) -> Any:
        found = load(*args, **options)
        model.save(place)
        if error is not None:
            raise error
        return found

    monkeypatch.setattr(graphclust.methods, "load", meanwhile)
    with pytest.raises(RuntimeError, match=REPLACED):
        inference._model(str(place), inference._stamp(place))


def test_a_damaged_model_keeps_its_own_error(tmp_path: Path, x: np.ndarray) -> None:
    inference._model.cache_clear()
    folder = KMeans(2, random_state=0).fit(x).save(tmp_path / "model")
    (folder / "estimator.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        inference._model(str(folder), inference._stamp(folder))
    shutil.rmtree(folder)
    assert inference._stamp(folder) == ""
    with pytest.raises(FileNotFoundError, match="no saved estimator"):
        inference._model(str(folder), "")
