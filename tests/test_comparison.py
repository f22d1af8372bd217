"""Methods side by side: processes of their own, failures that end nothing, reruns that go on, tables that add up."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.transforms import Bbox
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import Data

import graphclust
from graphclust import KMeans, metrics
from graphclust.comparison import Comparison, find_method, store
from graphclust.comparison import child as child_module
from graphclust.comparison import comparison as comparison_module
from graphclust.comparison.contenders import Contender, contenders
from graphclust.comparison.data import ComparedData, read_data
from graphclust.comparison.process import Outcome, run_in_process
from graphclust.comparison.store import RunStore
from graphclust.report import method_comparison


@pytest.fixture(scope="module")
def few(digits: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return digits[0][:300], digits[1][:300]


class InProcess:
    """Stands in for `run_in_process`: the same job without a process, and a record of what was run."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, int]] = []

    def __call__(self, contender: Contender, seed: int, data: Path, work: Path, limit: Any) -> Outcome:
        self.ran.append((contender.name, seed))
        labels = work / "labels.npy"
        job = {"data": str(data), "method": contender.method, "parameters": contender.with_seed(seed)}
        try:
            measured = child_module._fit({**job, "labels": str(labels)})
        except Exception as error:
            return Outcome({}, None, f"{type(error).__name__}: {error}", "the log")
        return Outcome(measured, np.load(labels), "", "")


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    runner = InProcess()
    monkeypatch.setattr(comparison_module, "run_in_process", runner)
    yield runner


class TestProcesses:
    """With real processes, which take seconds each: as few as possible."""

    @pytest.fixture(scope="class")
    @staticmethod
    def folder(tmp_path_factory: pytest.TempPathFactory, few: tuple[np.ndarray, np.ndarray]) -> Path:
        data = tmp_path_factory.mktemp("job") / "data"
        data.mkdir()
        ComparedData("digits", few[0], few[1]).save(data)
        return data

    def test_labels_are_those_of_fit_and_never_leave_the_parent(self, folder: Path, few: Any) -> None:
        assert [file.name for file in folder.iterdir()] == ["x.npy"]  # no true labels for the child to read
        ballast = np.ones(900_000_000, dtype=np.uint8)  # counts for this process, and must not for the child
        contender = Contender("a", "KMeans", {"n_clusters": 10, "n_init": 2})
        outcome = run_in_process(contender, 3, folder, folder.parent, None)
        assert (
            ballast.nbytes / 2**20 > 850 > outcome.measured["peak_mib"] > outcome.measured["start_mib"] * 0.9
        )
        assert outcome.error == "" and outcome.measured["seconds"] > 0
        here = KMeans(10, n_init=2, random_state=3).fit(few[0]).labels_
        assert outcome.labels is not None
        assert metrics.adjusted_rand(here, outcome.labels) == 1.0

    def test_errors_come_back_as_a_line_and_a_log(self, folder: Path) -> None:
        wrong = Contender("a", "KMeans", {"n_clusters": 10, "metric": "nonsense"})
        outcome = run_in_process(wrong, 0, folder, folder.parent, None)
        assert outcome.labels is None
        assert outcome.error.startswith("ValueError: metric='nonsense'")
        assert "Traceback" in outcome.log

    def test_time_limit(self, folder: Path) -> None:
        started = time.monotonic()
        outcome = run_in_process(Contender("a", "KMeans", {}), 0, folder, folder.parent, 0.05)
        assert outcome.error == "ended after the time limit of 0.05 s"
        assert time.monotonic() - started < 5

    @pytest.mark.skipif(os.name != "posix", reason="kills by signal")
    @pytest.mark.parametrize(
        ("death", "said"),
        [("os.kill(os.getpid(), 9)", "SIGKILL.*memory ran out"), ("os._exit(7)", "ended with code 7")],
    )
    def test_killed_and_crashed(
        self, death: str, said: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "sitecustomize.py").write_text(f"import os\n{death}\n")
        monkeypatch.setattr(
            "graphclust.comparison.process._environment", lambda: {**os.environ, "PYTHONPATH": str(tmp_path)}
        )
        outcome = run_in_process(Contender("a", "KMeans", {}), 0, folder, folder.parent, None)
        assert outcome.labels is None
        assert pd.Series([outcome.error]).str.contains(said).all()


class TestTable:
    def test_scores_are_those_of_the_labels(self, few: Any, inside: InProcess, tmp_path: Path) -> None:
        settings = {"n_init": 1, "metric": "cosine"}
        table = graphclust.compare(few[0], "kmeans", 10, 3, few[1], tmp_path, parameters=settings)
        assert inside.ran == [("KMeans", 0), ("KMeans", 1), ("KMeans", 2)]
        found = [KMeans(10, **settings, random_state=seed).fit(few[0]).labels_ for seed in range(3)]
        scores = pd.DataFrame([metrics.evaluate(few[1], labels) for labels in found])
        row = table.iloc[0]
        for name in ("ACC", "NMI", "ARI", "F1"):
            assert row[name] == pytest.approx(scores[name].mean())
            assert row[f"{name} sd"] == pytest.approx(scores[name].std())
        assert row["agreement"] == pytest.approx(metrics.agreement(found))
        graph = graphclust.SampleGraph.from_features(few[0], 10)
        assert row["modularity"] == pytest.approx(np.mean([metrics.modularity(graph, y) for y in found]))
        assert row["conductance"] == pytest.approx(np.mean([metrics.conductance(graph, y) for y in found]))
        assert row["silhouette"] == pytest.approx(np.mean([metrics.silhouette(few[0], y) for y in found]))
        assert (row["runs"], row["failed"]) == (3, 0)
        # A mean that is a whole number comes back from the file as an integer.
        pd.testing.assert_frame_equal(
            pd.read_csv(tmp_path / "table.csv"), table, rtol=1e-4, check_dtype=False
        )
        assert len(pd.read_csv(tmp_path / "runs.csv")) == 3
        about = json.loads((tmp_path / "about.json").read_text())
        assert about["data"]["samples"] == 300 and about["methods"]["KMeans"]["metric"] == "cosine"
        assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")

    def test_without_labels_and_folder(self, few: Any, inside: InProcess) -> None:
        runs = graphclust.compare(few[0], [KMeans], 4, seeds=[5, 9], each_run=True)
        assert list(runs["seed"]) == [5, 9]
        assert "ACC" not in runs and runs["modularity"].notna().all()
        one = graphclust.compare(few[0], "KMeans", 4, seeds=1)
        assert np.isnan(one["agreement"][0]) and np.isnan(one["modularity sd"][0])

    def test_one_cluster_has_no_silhouette(self, few: Any, inside: InProcess) -> None:
        row = graphclust.compare(few[0], "kmeans", 1, seeds=1).iloc[0]
        assert np.isnan(row["silhouette"]) and row["modularity"] == pytest.approx(0) and row["runs"] == 1

    def test_one_failing_method_does_not_end_the_run(
        self, few: Any, inside: InProcess, tmp_path: Path
    ) -> None:
        methods = {"bad": KMeans(metric="nonsense"), "good": KMeans(n_init=1)}
        table = graphclust.compare(few[0], methods, 5, 2, out=tmp_path).set_index("method")
        assert tuple(table.loc["bad", ["runs", "failed"]]) == (0, 2)
        assert table.loc["bad", "error"].startswith("ValueError: metric='nonsense'")
        assert tuple(table.loc["good", ["runs", "failed"]]) == (2, 0)
        logs = pd.read_csv(tmp_path / "runs.csv")["log"].dropna()
        assert [(tmp_path / log).read_text() for log in logs] == ["the log", "the log"]

    def test_k_is_estimated_once_for_all(
        self, few: Any, inside: InProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []
        monkeypatch.setattr("graphclust.graph.estimate_n_clusters", lambda x: asked.append(x) or 6)
        comparison = Comparison(few[0], ["kmeans", "geneticKmeans"], "auto", 1)
        assert len(asked) == 1 and comparison.n_clusters == 6
        assert {contender.parameters["n_clusters"] for contender in comparison.contenders} == {6}


class TestRerun:
    def test_goes_on_where_it_stopped(self, few: Any, inside: InProcess, tmp_path: Path) -> None:
        methods = {"a": KMeans(n_init=1), "b": KMeans(n_init=2)}
        stopped = Comparison(few[0], methods, 4, 2, out=tmp_path)
        for number, _ in enumerate(stopped.run()):
            if number == 1:
                break  # as an interrupt would
        assert not list(tmp_path.glob(".work-*"))  # what the processes exchanged is gone
        assert inside.ran == [("a", 0), ("b", 0)]
        of_another = RunStore(tmp_path).work_folder()  # a comparison of this process that goes on
        left = RunStore(
            tmp_path
        ).work_folder()  # as after a kill in a container, where this process has its number
        store._OWN.discard(left)
        graphclust.compare(few[0], methods, 4, 2, out=tmp_path)
        assert not left.exists() and of_another.exists()
        assert inside.ran[2:] == [("a", 1), ("b", 1)]
        # More seeds, another name of a row and true labels need no run of what is done.
        table = graphclust.compare(few[0], {"c": KMeans(n_init=1)}, 4, 3, few[1], tmp_path)
        assert inside.ran[4:] == [("c", 2)]
        assert table["runs"][0] == 3 and table["ACC"].notna().all()

    def test_other_data_and_parameters_are_not_mixed_up(
        self, few: Any, inside: InProcess, tmp_path: Path
    ) -> None:
        def compare(x: np.ndarray, k: int = 4, **parameters: Any) -> int:
            before = len(inside.ran)
            graphclust.compare(x, "kmeans", k, 1, out=tmp_path, parameters={"n_init": 1, **parameters})
            return len(inside.ran) - before

        changed = few[0].copy()
        changed[-1, -1] += 1e-3
        assert compare(few[0]) == 1
        assert compare(changed) == 1
        assert compare(few[0], k=5) == 1
        assert compare(few[0], max_iter=7) == 1
        assert compare(few[0].reshape(-1, 8, 8)) == 1  # images may be read in another way
        assert compare(few[0]) == 0

    def test_damaged_and_failed_runs_are_repeated(self, few: Any, inside: InProcess, tmp_path: Path) -> None:
        bad = {"bad": KMeans(metric="nonsense"), "good": KMeans(n_init=1)}
        graphclust.compare(few[0], bad, 4, 1, out=tmp_path)
        (record,) = (tmp_path / "runs").glob("*.json")
        graphclust.compare(few[0], bad, 4, 1, out=tmp_path)
        assert inside.ran[2:] == [("bad", 0)]
        record.write_text(record.read_text()[:20])
        with pytest.warns(UserWarning, match="is damaged"):
            graphclust.compare(few[0], bad, 4, 1, out=tmp_path)
        assert inside.ran[3:] == [("bad", 0), ("good", 0)]

    def test_a_folder_of_the_users_is_left_alone(self, few: Any, inside: InProcess, tmp_path: Path) -> None:
        (tmp_path / "table.csv").write_text("mine")
        with pytest.raises(ValueError, match="holds other files"):
            graphclust.compare(few[0], "kmeans", 4, 1, out=tmp_path)
        assert (tmp_path / "table.csv").read_text() == "mine"
        with pytest.raises(ValueError, match="is a file"):
            graphclust.compare(few[0], "kmeans", 4, 1, out=tmp_path / "table.csv")
        assert not inside.ran


class TestNames:
    def test_any_case_and_a_hint(self) -> None:
        assert find_method("vgdcn") is graphclust.VGDCN
        with pytest.raises(
            ValueError, match=r"no method 'kmean': did you mean KMeans\? The methods are VGDCN"
        ):
            find_method("kmean")

    def test_lists_mappings_and_all(self) -> None:
        assert [row.name for row in contenders("kmeans, dec", 3)] == ["KMeans", "DEC"]
        assert [row.method for row in contenders("all", 3)] == list(graphclust.methods.METHODS)
        for written in ("KMeans DEC, VGDCN", "kmeans,dec vgdcn", ["KMeans DEC", "VGDCN"]):
            assert [row.method for row in contenders(written, 3)] == ["KMeans", "DEC", "VGDCN"]
        (row,) = contenders({"mine": KMeans(n_init=7)}, 3)
        assert (row.name, row.method, row.parameters["n_init"]) == ("mine", "KMeans", 7)
        with pytest.raises(ValueError, match="KMeans is there twice"):
            contenders(["kmeans", KMeans(n_init=2)], 3)
        with pytest.raises(ValueError, match="no method was named"):
            contenders([], 3)
        from sklearn.cluster import KMeans as Other

        with pytest.raises(TypeError, match="no method of graphclust"):
            contenders(Other(), 3)
        with pytest.raises(TypeError, match="conv of VGDCN is a callable"):
            contenders(graphclust.VGDCN(conv=torch.nn.Linear), 3)

    def test_parameters_of_all_and_of_one(self) -> None:
        settings = {"epochs": 7, "dec.epochs": 3, "KMeans.n_init": 2}
        rows = {row.name: row.parameters for row in contenders("vgdcn,dec,kmeans", 3, settings)}
        assert (rows["VGDCN"]["epochs"], rows["DEC"]["epochs"]) == (7, 3)
        assert rows["KMeans"] == {"n_clusters": 3, "n_init": 2}
        for wrong, said in {
            "depth": "none of KMeans has a parameter 'depth'",
            "KMeans.depth": "KMeans has no parameter 'depth'",
            "DEC.epochs": "DEC is not compared",
            "KMean.n_init": "did you mean KMeans",
            "n_clusters": "set by n_clusters and seeds",
        }.items():
            with pytest.raises(ValueError, match=said):
                contenders("kmeans", 3, {wrong: 1})

    def test_bad_numbers(self, few: Any) -> None:
        for wrong, said in (
            ({"seeds": 0}, "seeds=0"),
            ({"seeds": []}, "seeds is empty"),
            ({"time_limit": 0}, "time_l"),
        ):
            with pytest.raises(ValueError, match=said):
                Comparison(few[0], "kmeans", 3, **wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="n_clusters=301"):
            Comparison(few[0], "kmeans", 301)


class TestData:
    def test_a_folder_of_results_does_not_hide_a_data_set(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "digits").mkdir()
        (tmp_path / "photos").mkdir()
        monkeypatch.chdir(tmp_path)
        assert read_data("digits").x.shape == (1797, 64)
        with pytest.raises(ValueError, match="photos is a folder"):
            read_data("photos")

    def test_names_files_and_images(self, few: Any, tmp_path: Path) -> None:
        named = read_data("Digits")
        assert named.x.shape == (1797, 64) and named.image_shape == (8, 8)
        assert named.labels is not None and named.samples().shape == (1797, 8, 8)
        np.savez(tmp_path / "a.npz", x=few[0], y=few[1])
        read = read_data(tmp_path / "a.npz", "y")
        np.testing.assert_array_equal(read.labels, few[1])  # type: ignore[arg-type]
        with pytest.raises(FileNotFoundError, match="neither a file nor a data set.*usps"):
            read_data("uspss")
        with pytest.raises(FileNotFoundError, match=r"nothing\.npy does not exist"):
            read_data("nothing.npy")
        with pytest.raises(ValueError, match=r"labels have shape \(3,\)"):
            read_data(few[0], few[1][:3])

    def test_round_trip_without_labels(self, few: Any, tmp_path: Path) -> None:
        graph = Data(
            x=torch.from_numpy(few[0].copy()), edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.arange(300)
        )
        data = read_data(graph)
        assert data.labels is not None and data.edge_index is not None
        data.save(tmp_path)
        back = ComparedData.open(tmp_path)
        assert back.labels is None and back.digest == data.digest
        np.testing.assert_array_equal(back.edge_index, data.edge_index)  # type: ignore[arg-type]
        assert back.graph().edge_index.shape == (2, 4)  # both directions

    def test_edges_go_to_methods_that_take_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: dict[str, Any] = {}

        class Spy:
            uses_graph = True

            def __init__(self, **_: Any) -> None: ...

            def fit(self, X: Any) -> None:
                seen["graph" if self.uses_graph else "features"] = X
                self.labels_ = np.zeros(4, dtype=np.int64)

        class Blind(Spy):
            uses_graph = False

        x = torch.arange(8.0).reshape(4, 2)
        read_data(Data(x=x, edge_index=torch.tensor([[0, 1], [1, 0]]))).save(tmp_path)
        monkeypatch.setattr("graphclust.methods.METHODS", {"Spy": Spy, "Blind": Blind})
        for method in ("Spy", "Blind"):
            job = {
                "data": str(tmp_path),
                "method": method,
                "parameters": {},
                "labels": str(tmp_path / "l.npy"),
            }
            child_module._fit(job)
        assert isinstance(seen["graph"], Data) and seen["graph"].edge_index.shape == (2, 2)
        np.testing.assert_array_equal(seen["features"], x)

    @pytest.mark.parametrize("name", ["Agglomerative", "AgglomerativeDensity", "ConsensusClustering", "GCSC"])
    def test_given_edges_are_those_that_are_clustered(self, name: str, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        truth = np.repeat([0, 1], 30)
        joined = np.argwhere(np.triu((truth[:, None] == truth) & (rng.random((60, 60)) < 0.5), 1)).T
        noise = torch.from_numpy(rng.random((60, 5), dtype=np.float32))
        data = read_data(Data(x=noise, edge_index=torch.from_numpy(joined.copy())))
        data.save(tmp_path)
        seed = {"random_state": 0}
        job = {
            "data": str(tmp_path),
            "method": name,
            "parameters": {"n_clusters": 4, **seed},
            "labels": str(tmp_path / "l.npy"),
        }
        child_module._fit(job)
        found = np.load(tmp_path / "l.npy")
        method = graphclust.methods.METHODS[name](4, **seed)
        np.testing.assert_array_equal(found, method.fit(data.graph()).labels_)
        assert adjusted_rand_score(found, method.fit(data.samples()).labels_) < 0.9


def test_a_folder_of_images_is_told_how_to_be_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder: .*graphclust\.images\.read_images\(folder\)\.x"):
        read_data(tmp_path)


def test_peak_memory_grows_with_what_is_used() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    before = child_module.peak_memory()
    ballast = np.ones(int(before * 2**20) + 200_000_000, dtype=np.uint8)
    assert child_module.peak_memory() > before + 150 and ballast.any()


class TestPicture:
    def test_rows_in_order_and_bars_of_deviation(self) -> None:
        scores = {"ACC": {"a": [0.5, 0.7], "b": [0.9, 0.9], "c": [np.nan]}}
        figure = method_comparison(scores, {"a": [1, 3], "b": [100, 100], "c": [1]}, title="digits")
        left, right = figure.axes
        assert [label.get_text() for label in left.get_yticklabels()] == ["b", "a", "c"]
        (bars,) = left.containers
        (_, _, (lines,)) = bars
        low, high = lines.get_segments()[1][:, 0]
        assert (low, high) == pytest.approx(
            (0.6 - np.std([0.5, 0.7], ddof=1), 0.6 + np.std([0.5, 0.7], ddof=1))
        )
        points = [container[0].get_xydata()[0] for container in right.containers]
        np.testing.assert_allclose(points, [[100, 0.9], [2, 0.6]])
        assert {text.get_text() for text in right.texts} == {"a", "b"}

    def test_names_do_not_cover_each_other(self) -> None:
        rng = np.random.default_rng(0)
        names = [f"Method{i}" for i in range(12)]
        scores = {"ACC": {name: [0.8 + 0.002 * rng.random()] for name in names}}
        figure = method_comparison(scores, {name: [10 + i / 10] for i, name in enumerate(names)})
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.axes[1].texts]
        # A tenth of a line may touch: letters do not fill their boxes.
        inner = [
            Bbox.from_extents(x0, y0 + 0.1 * (y1 - y0), x1, y1 - 0.1 * (y1 - y0))
            for x0, y0, x1, y1 in (b.extents for b in boxes)
        ]
        covered = [(i, j) for i in range(12) for j in range(i) if inner[i].overlaps(inner[j])]
        assert len(boxes) == 12 and not covered

    def test_a_single_point_has_room_around_it(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for score in (0.0, 0.5, np.nan):
                figure = method_comparison({"ACC": {"a": [score]}}, {"a": [2.0]})
                figure.draw_without_rendering()

    def test_refuses_what_it_should(self) -> None:
        with pytest.raises(ValueError, match="nothing to draw"):
            method_comparison({}, {})
        with pytest.raises(ValueError, match="not of the same methods"):
            method_comparison({"ACC": {"a": [1]}}, {"b": [1]})
        with pytest.raises(ValueError, match="at most 5"):
            method_comparison({str(i): {"a": [1]} for i in range(6)}, {"a": [1]})
