"""Saving and loading estimators: what comes back, what is refused, what survives a failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.nn import TAGConv

import graphclust
from graphclust import VGDCN, SampleGraph
from graphclust._files import scratch_beside
from graphclust.methods import base, files

TINY: dict[str, Any] = {
    "hidden_channels": (16,),
    "latent_dim": 4,
    "pretrain_epochs": 3,
    "branch_epochs": 3,
    "epochs": 3,
    "random_state": 0,
}


def tag(in_channels: int, out_channels: int) -> torch.nn.Module:
    return TAGConv(in_channels, out_channels, K=1)


@pytest.fixture(scope="module")
def x(digits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return digits[0][:240]


@pytest.fixture(scope="module")
def fitted(x: np.ndarray) -> VGDCN:
    return VGDCN(5, epsilon=[0.3, np.float64(0.8)], **TINY).fit(x[:200])


@pytest.fixture
def folder(fitted: VGDCN, tmp_path: Path) -> Path:
    return fitted.save(tmp_path / "model")


def test_everything_comes_back(fitted: VGDCN, folder: Path, x: np.ndarray) -> None:
    back = VGDCN.load(folder)
    for name in ("labels_", "probabilities_", "embedding_"):
        np.testing.assert_array_equal(getattr(back, name), getattr(fitted, name))
        assert getattr(back, name).dtype == getattr(fitted, name).dtype
    assert back.history_ == fitted.history_
    assert back.n_features_in_ == 64
    assert back.graph_.construction == fitted.graph_.construction
    assert (back.epsilon, back.n_clusters, back.random_state) == ([0.3, 0.8], 5, 0)
    np.testing.assert_array_equal(back.predict_proba(x[200:]), fitted.predict_proba(x[200:]))
    np.testing.assert_array_equal(back.transform(x), fitted.transform(x))
    np.testing.assert_array_equal(back.reconstruct(x), fitted.reconstruct(x))
    np.testing.assert_array_equal(back.sample(5, random_state=1)[0], fitted.sample(5, random_state=1)[0])
    # And it can be fitted again, to the same.
    np.testing.assert_array_equal(back.fit(x[:200]).labels_, fitted.labels_)


def test_a_fresh_process_predicts_the_same(
    fitted: VGDCN, folder: Path, x: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "new.npy", x[200:])
    code = (
        "import sys, numpy as np, graphclust\n"
        "model = graphclust.load(sys.argv[1])\n"
        "np.save(sys.argv[3], model.predict_proba(np.load(sys.argv[2])))"
    )
    arguments = [folder, tmp_path / "new.npy", tmp_path / "out.npy"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, timeout=120)
    # Another process may use other threads, which add in another order.
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), fitted.predict_proba(x[200:]), atol=1e-6)


@pytest.mark.parametrize("name", ["model.safetensors", "results.safetensors"])
def test_changed_content_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[-3] ^= 1  # one bit of a number
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} has another checksum than when it was saved"):
        graphclust.load(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        graphclust.load(copy)


def test_a_folder_without_checksums_is_read(folder: Path, tmp_path: Path, fitted: VGDCN) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "checksums.json").unlink()
    np.testing.assert_array_equal(graphclust.load(copy).labels_, fitted.labels_)


def test_a_full_disk_leaves_the_older_model(
    folder: Path, tmp_path: Path, fitted: VGDCN, with_file_limit: Any
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    code = f"""
import graphclust
model = graphclust.load({str(copy)!r})
limit()
try:
    model.save({str(copy)!r})
except OSError as error:
    print("refused", error)
"""
    printed = with_file_limit(code, 1 << 14)
    assert "refused" in printed and "no room for the model" in printed
    np.testing.assert_array_equal(graphclust.load(copy).labels_, fitted.labels_)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "model"]


def test_nothing_is_pickled(folder: Path) -> None:
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in found} == {".json", ".npy", ".safetensors"}
    for path in folder.rglob("*.npy"):
        np.load(path, allow_pickle=False)
    json.loads((folder / "estimator.json").read_text())
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "no temporary folder is left"


def test_load_of_the_package_finds_the_class(folder: Path) -> None:
    assert type(graphclust.load(folder)) is VGDCN
    assert type(graphclust.load(str(folder), device="cpu")) is VGDCN


def test_the_model_in_a_result_is_found(folder: Path) -> None:
    # `graphclust cluster --out result` saves the model in result/model, beside labels and picture.
    (folder.parent / "labels.csv").touch()
    assert graphclust.load(folder.parent).n_clusters_ == 5
    with pytest.raises(FileNotFoundError, match="name the folder that save"):
        graphclust.load(folder.parent.parent / "nothing")


def test_a_parameter_of_another_version_is_named(folder: Path) -> None:
    meta = json.loads((folder / "estimator.json").read_text())
    meta["parameters"]["warp"] = 9
    (folder / "estimator.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="another version of graphclust: this VGDCN has no parameter 'warp'"):
        graphclust.load(folder)


def test_loading_leaves_the_generators_alone(folder: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    VGDCN.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_names_of_columns_come_back(x: np.ndarray, tmp_path: Path) -> None:
    frame = pd.DataFrame(x[:100], columns=[f"pixel{i}" for i in range(64)])
    back = VGDCN.load(VGDCN(3, **TINY).fit(frame).save(tmp_path / "model"))
    assert list(back.feature_names_in_) == list(frame.columns)
    assert back.predict(frame[:3]).shape == (3,)


@pytest.mark.parametrize("parameters", [{"epsilon": "learn"}, {"conv": "gin"}, {"decoder": "gaussian"}])
def test_other_networks_come_back(parameters: dict[str, Any], x: np.ndarray, tmp_path: Path) -> None:
    model = VGDCN(3, **TINY, **parameters).fit(x[:100])
    back = graphclust.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(back.predict_proba(x[100:]), model.predict_proba(x[100:]))
    np.testing.assert_array_equal(back.reconstruct(x[:3]), model.reconstruct(x[:3]))


def test_parameters_of_any_type_are_written(x: np.ndarray, tmp_path: Path) -> None:
    model = VGDCN(
        np.int64(3),
        **{**TINY, "hidden_channels": np.array([16]), "random_state": np.random.RandomState(0)},
        epsilon=np.array([0.5, 0.5]),
        device=torch.device("cpu"),
        checkpoint=tmp_path / "checkpoint",
    ).fit(x[:60])
    back = VGDCN.load(model.save(tmp_path / "model"))
    assert (back.n_clusters, back.hidden_channels, back.epsilon) == (3, [16], [0.5, 0.5])
    assert (back.random_state, back.device, back.checkpoint) == (None, "cpu", str(tmp_path / "checkpoint"))


def test_tuples_and_lists_come_back_as_they_were(fitted: VGDCN, folder: Path) -> None:
    assert graphclust.load(folder).get_params() == fitted.get_params()


def test_a_callable_must_be_given_again(x: np.ndarray, tmp_path: Path) -> None:
    model = VGDCN(3, conv=tag, **TINY).fit(x[:100])
    folder = model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"callable for conv.*load\(folder, conv=\.\.\.\)"):
        graphclust.load(folder)
    back = graphclust.load(folder, conv=tag)
    np.testing.assert_array_equal(back.predict_proba(x[100:]), model.predict_proba(x[100:]))
    with pytest.raises(ValueError, match="cannot be read.*fit and save again"):
        graphclust.load(folder, conv=lambda i, o: TAGConv(i, o, K=3))


def test_only_a_fitted_estimator_is_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        VGDCN(3).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


class TestDamage:
    def edit(self, folder: Path, **changes: Any) -> None:
        path = folder / "estimator.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def test_another_version(self, folder: Path) -> None:
        self.edit(folder, format_version=99)
        with pytest.raises(ValueError, match="format version 99.*reads version 1.*fit again"):
            graphclust.load(folder)

    def test_another_method(self, folder: Path) -> None:
        self.edit(folder, method="Other")
        with pytest.raises(ValueError, match="'Other'.*it has VGDCN"):
            graphclust.load(folder)
        with pytest.raises(ValueError, match="a Other, not a VGDCN: use graphclust.load"):
            VGDCN.load(folder)

    def test_nothing_there(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "nothing"):
            with pytest.raises(FileNotFoundError, match="no saved estimator"):
                graphclust.load(folder)

    @pytest.mark.parametrize("text", ["{", "[]", "3", '{"format_version": 1}'])
    def test_json_that_is_none(self, folder: Path, text: str) -> None:
        (folder / "estimator.json").write_text(text)
        with pytest.raises(ValueError, match="estimator.json is damaged"):
            graphclust.load(folder)

    @pytest.mark.parametrize("name", ["model.safetensors", "results.safetensors"])
    def test_tensors_cut_off_or_gone(self, folder: Path, name: str) -> None:
        content = (folder / name).read_bytes()
        for rest in (content[:-10], content[:4], b""):
            (folder / name).write_bytes(rest)
            with pytest.raises(ValueError, match=f"the model in {folder} cannot be read"):
                graphclust.load(folder)
        (folder / name).unlink()
        with pytest.raises(ValueError, match="cannot be read.*fit and save again"):
            graphclust.load(folder)

    def test_files_of_two_models(self, folder: Path, x: np.ndarray, tmp_path: Path) -> None:
        other = VGDCN(5, **{**TINY, "latent_dim": 3}).fit(x[:100]).save(tmp_path / "other")
        shutil.copy(other / "model.safetensors", folder)
        with pytest.raises(ValueError, match="cannot be read: model.safetensors has another checksum"):
            graphclust.load(folder)
        (folder / "checksums.json").unlink()  # as in folders of older versions
        with pytest.raises(ValueError, match="cannot be read: .*size mismatch"):
            graphclust.load(folder)
        shutil.copy(folder / "model.safetensors", folder / "results.safetensors")
        with pytest.raises(ValueError, match="cannot be read.*fit and save again"):
            graphclust.load(folder)

    def test_graph_gone(self, folder: Path) -> None:
        shutil.rmtree(folder / "graph")
        with pytest.raises(FileNotFoundError, match="no saved graph"):
            graphclust.load(folder)


class TestOverwriting:
    def test_replaces_an_older_model(self, folder: Path, x: np.ndarray) -> None:
        newer = VGDCN(3, **TINY).fit(x[:100])
        newer.save(folder)
        np.testing.assert_array_equal(graphclust.load(folder).labels_, newer.labels_)
        assert [path.name for path in folder.parent.iterdir()] == ["model"]

    def test_a_loaded_model_over_itself(self, fitted: VGDCN, folder: Path, x: np.ndarray) -> None:
        """Its graph is mapped from the very files that are replaced."""
        back = graphclust.load(folder)
        back.save(folder)
        np.testing.assert_array_equal(back.predict_proba(x), fitted.predict_proba(x))
        np.testing.assert_array_equal(graphclust.load(folder).predict_proba(x), fitted.predict_proba(x))

    def test_several_writers_at_once(self, fitted: VGDCN, folder: Path) -> None:
        """As under torchrun, where every process runs the whole script."""
        with ThreadPoolExecutor(4) as pool:
            for saved in [pool.submit(fitted.save, folder) for _ in range(40)]:
                saved.result()
        np.testing.assert_array_equal(graphclust.load(folder).labels_, fitted.labels_)
        assert [path.name for path in folder.parent.iterdir()] == ["model"]

    def test_what_a_dead_process_left_is_removed(self, fitted: VGDCN, folder: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        mine = scratch_beside(folder).name
        left = folder.with_name(mine.replace(f"-{os.getpid()}-", f"-{process.pid}-"))
        left.mkdir()
        (left / "model.safetensors").write_bytes(b"half")
        fitted.save(folder)
        assert [path.name for path in folder.parent.iterdir()] == ["model"]

    def test_other_files_are_safe(self, fitted: VGDCN, folder: Path, tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "notes.txt").write_text("precious")
        (folder / "notes.txt").write_text("precious")
        for place in (mine, folder):  # also beside an older model
            with pytest.raises(ValueError, match=r"other files \(notes.txt\).*name an empty or a new folder"):
                fitted.save(place)
            assert (place / "notes.txt").read_text() == "precious"
        with pytest.raises(ValueError, match="is a file"):
            fitted.save(mine / "notes.txt")

    def test_neighbouring_folders_are_safe(self, fitted: VGDCN, folder: Path) -> None:
        for name in ("model.previous", "model.partial", "model.bak"):
            (folder.parent / name).mkdir()
            (folder.parent / name / "weights").write_text("precious")
        fitted.save(folder)
        assert all(
            (folder.parent / name / "weights").exists() for name in ("model.previous", "model.partial")
        )

    @pytest.mark.parametrize("failing", ["weights", "graph", "json"])
    def test_a_failure_keeps_the_old_model(
        self, failing: str, fitted: VGDCN, folder: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        newer = VGDCN(3, **TINY).fit(x[:100])

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("No space left on device")

        where = {"weights": (base, "save_file"), "graph": (SampleGraph, "save"), "json": (base, "write_meta")}
        with monkeypatch.context() as patch:
            patch.setattr(*where[failing], fail)
            with pytest.raises(OSError, match="No space left"):
                newer.save(folder)
        np.testing.assert_array_equal(graphclust.load(folder).labels_, fitted.labels_)
        assert [path.name for path in folder.parent.iterdir()] == ["model"]

    def test_a_failing_rename_keeps_the_old_model(
        self, fitted: VGDCN, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = os.replace

        def fail(source: Path, target: Path) -> None:
            if Path(source).name.endswith(".partial"):
                raise PermissionError("in use")
            rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", fail)
            with pytest.raises(PermissionError):
                fitted.save(folder)
        assert [path.name for path in folder.parent.iterdir()] == ["model"]
        np.testing.assert_array_equal(graphclust.load(folder).labels_, fitted.labels_)

    def test_a_power_cut_leaves_one_of_the_models(
        self, fitted: VGDCN, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All of the new one is on the disk before it takes the place, and its name before the old one goes."""
        events: list[tuple[str, Path]] = []

        def noting(name: str, function: Any, which: int) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                events.append((name, Path(args[which])))
                return function(*args, **options)

            return call

        monkeypatch.setattr(files, "sync", noting("sync", files.sync, 0))
        monkeypatch.setattr(files.os, "replace", noting("rename", os.replace, 1))
        monkeypatch.setattr(files.shutil, "rmtree", noting("remove", shutil.rmtree, 0))
        fitted.save(folder)
        renamed = events.index(("rename", folder))
        on_disk = {path.name for name, path in events[:renamed] if name == "sync"}
        assert {path.name for path in folder.rglob("*") if path.is_file()} <= on_disk
        previous = folder.with_name(".model.previous")
        assert events.index(("rename", previous)) < renamed
        removed = events.index(("remove", previous), renamed)
        assert os.name != "posix" or ("sync", folder.parent) in events[renamed:removed]

    def test_killed_between_the_renames(self, fitted: VGDCN, folder: Path, x: np.ndarray) -> None:
        """The old model is still found, and the next save tidies up."""
        os.replace(folder, folder.with_name(".model.previous"))
        np.testing.assert_array_equal(graphclust.load(folder).labels_, fitted.labels_)
        newer = VGDCN(3, **TINY).fit(x[:100])
        newer.save(folder)
        assert [path.name for path in folder.parent.iterdir()] == ["model"]
        np.testing.assert_array_equal(graphclust.load(folder).labels_, newer.labels_)
