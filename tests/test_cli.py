"""The command line on real digits: what it reads, what it writes, how it refuses."""

from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.datasets import load_wine
from typer.testing import CliRunner

import graphclust
from graphclust._files import read_features, write_labels
from graphclust.cli import app
from graphclust.cli._app import parse_settings

# A network and a training that are small enough for a test, and large enough to find digits.
SMALL = [
    "--method",
    "vgdcn",
    "--set",
    "hidden_channels=[64,64]",
    "--set",
    "latent_dim=5",
    "--set",
    "pretrain_epochs=20",
    "--epochs",
    "10",
]


def run(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_settings_as_python_writes_them() -> None:
    found = parse_settings(["a=None", "b=(16, 8)", "c=[1]", "d=true", "e=cosine", "f=1e-3", "g='x'"])
    assert found == {"a": None, "b": (16, 8), "c": [1], "d": True, "e": "cosine", "f": 1e-3, "g": "x"}


def refused(*arguments: object) -> str:
    """Exit code 2 and one line on standard error, without a traceback."""
    result = run(*arguments, code=2)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not result.stdout.strip()
    return result.stderr


@pytest.fixture(scope="module")
def few(digits: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    x, y = digits
    return x[:500], y[:500]


@pytest.fixture
def npy(few: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", few[0])
    return tmp_path / "x.npy"


@pytest.fixture
def table(few: tuple[np.ndarray, np.ndarray]) -> pd.DataFrame:
    frame = pd.DataFrame(few[0], columns=[f"pixel{i}" for i in range(few[0].shape[1])])
    return frame.assign(digit=few[1], name=[f"image {i}" for i in range(len(frame))])


@pytest.fixture(scope="module")
def fitted(few: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder, made once; tests only read it."""
    folder = tmp_path_factory.mktemp("cli")
    np.savez(folder / "digits.npz", x=few[0], y=few[1])
    result = run(
        *("cluster", folder / "digits.npz", "--n-clusters", 10, "--out", folder / "result"),
        *("--labels", "y", "--probabilities", *SMALL),
    )
    (folder / "printed.txt").write_text(result.stdout)
    return folder


class TestReading:
    def test_npy_is_memory_mapped(self, npy: Path, few: tuple[np.ndarray, np.ndarray]) -> None:
        x = read_features(npy).x
        assert isinstance(x, np.memmap)
        np.testing.assert_array_equal(x, few[0])

    def test_8_bit_images_are_flattened_and_scaled(self, tmp_path: Path) -> None:
        images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 10
        np.save(tmp_path / "images.npy", images)
        read = read_features(tmp_path / "images.npy")
        assert read.image_shape == (3, 4)
        np.testing.assert_allclose(read.x, images.reshape(2, 12) / 255, rtol=1e-6)

    def test_other_images_keep_their_range(self, tmp_path: Path) -> None:
        images = np.linspace(0, 2, 24, dtype=np.float32).reshape(2, 3, 4)
        np.save(tmp_path / "images.npy", images)
        np.testing.assert_array_equal(read_features(tmp_path / "images.npy").x, images.reshape(2, 12))

    @pytest.mark.parametrize("name", ["x", "X", "features", "data", "images", "anything"])
    def test_npz_finds_its_features(self, name: str, tmp_path: Path) -> None:
        values, labels = np.ones((4, 2)), np.arange(4)
        np.savez(tmp_path / "a.npz", **{name: values, "target": labels})
        read = read_features(tmp_path / "a.npz", labels="target")
        np.testing.assert_array_equal(read.x, values)
        assert read.labels is not None
        np.testing.assert_array_equal(read.labels, labels)

    def test_npz_of_several_unknown_arrays_asks_for_the_key(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", first=np.ones((4, 2)), second=np.zeros((4, 3)))
        with pytest.raises(ValueError, match="'first', 'second'.*--key"):
            read_features(tmp_path / "a.npz")
        assert read_features(tmp_path / "a.npz", key="second").x.shape == (4, 3)
        with pytest.raises(ValueError, match="no array 'third'.*'first', 'second'"):
            read_features(tmp_path / "a.npz", key="third")

    @pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt", ".csv.gz", ".TSV.gz", ".parquet"])
    def test_tables(self, ending: str, table: pd.DataFrame, tmp_path: Path) -> None:
        path = tmp_path / f"table{ending}"
        if ending == ".parquet":
            table.to_parquet(path)
        else:
            table.to_csv(path, index=False, sep="\t" if "tsv" in ending.lower() else ",")
        read = read_features(path, labels="digit", ignore=["name"])
        np.testing.assert_allclose(read.x, table.filter(like="pixel").to_numpy(), rtol=1e-6)
        assert read.labels is not None
        np.testing.assert_array_equal(read.labels, table["digit"])

    @pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.txt.gz"])
    def test_white_space_between_the_numbers(self, name: str, tmp_path: Path) -> None:
        """What NumPy's savetxt writes, with and without names of columns; blanks inside of one are no columns."""
        values = np.array([[1.5, -2e-3, 3], [4, 5, 6]])
        np.savetxt(tmp_path / name, values)
        np.testing.assert_allclose(read_features(tmp_path / name).x, values)
        np.savetxt(tmp_path / name, values, header="one two  three", comments="")
        read = read_features(tmp_path / name, ignore=["two"])
        assert read.columns == ["one", "three"]
        np.testing.assert_allclose(read.x, values[:, [0, 2]])
        np.savetxt(tmp_path / name, values[:, :1], header="one column", comments="")
        assert read_features(tmp_path / name).columns == ["one column"]

    def test_a_compressed_table_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv.gz").write_text("1,2")
        with pytest.raises(ValueError, match=r"a\.csv\.gz .*(damaged|cannot be read)"):
            read_features(tmp_path / "a.csv.gz")

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_csv_without_a_header_loses_no_row(self, separator: str, tmp_path: Path) -> None:
        values = np.array([[1.5, -2e-3, 3], [4, 5, 6]])
        np.savetxt(tmp_path / "a.csv", values, delimiter=separator)
        np.testing.assert_allclose(read_features(tmp_path / "a.csv").x, values)

    @pytest.mark.parametrize("header", ["height;width\n", ""])
    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_decimal_commas(self, separator: str, header: str, tmp_path: Path) -> None:
        text = header + "1,5;-2,25\n3;4,0\n1e3;2,5e-1\n"
        (tmp_path / "a.csv").write_text(text.replace(";", separator))
        np.testing.assert_allclose(read_features(tmp_path / "a.csv").x, [[1.5, -2.25], [3, 4], [1000, 0.25]])

    def test_points_and_commas_together_are_not_guessed(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a;b\n1,5;2.5\n3,5;4.5\n")
        with pytest.raises(ValueError, match="'a' are not numbers, for example '1,5'"):
            read_features(tmp_path / "a.csv")

    def test_a_table_of_a_western_spreadsheet(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes("höhe;größe\n1,5;2\n3,5;4\n".encode("cp1252"))
        read = read_features(tmp_path / "a.csv", ignore=["größe"])
        np.testing.assert_allclose(read.x, [[1.5], [3.5]])

    @pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
    def test_unicode_text_of_a_spreadsheet(self, name: str, tmp_path: Path) -> None:
        content = "höhe\tgröße\n1.5\t2\n3.5\t4\n".encode("utf-16")
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        read = read_features(tmp_path / name)
        assert read.columns == ["höhe", "größe"]
        np.testing.assert_allclose(read.x, [[1.5, 2], [3.5, 4]])

    def test_a_sparse_matrix_and_a_pipe(self, tmp_path: Path) -> None:
        scipy.sparse.save_npz(tmp_path / "a.npz", scipy.sparse.eye(4).tocsr())
        with pytest.raises(ValueError, match=r"a\.npz holds a sparse matrix: reduce it.*TruncatedSVD"):
            read_features(tmp_path / "a.npz")
        os.mkfifo(tmp_path / "a.csv")
        with pytest.raises(FileNotFoundError, match=r"a\.csv is no regular file"):
            read_features(tmp_path / "a.csv")

    def test_columns_that_are_called_by_their_numbers(self, tmp_path: Path) -> None:
        """As pandas names columns without names; rows that go on counting are values."""
        values = np.random.default_rng(0).normal(size=(5, 3))
        pd.DataFrame(values).to_csv(tmp_path / "a.csv", index=False)
        np.testing.assert_allclose(read_features(tmp_path / "a.csv").x, values)
        np.savetxt(tmp_path / "b.csv", np.arange(12).reshape(4, 3), fmt="%d", delimiter=",")
        np.testing.assert_array_equal(read_features(tmp_path / "b.csv").x, np.arange(12).reshape(4, 3))

    def test_column_of_vectors(self, tmp_path: Path) -> None:
        frame = pd.DataFrame({"path": ["a", "b"], "embedding": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]})
        frame.to_parquet(tmp_path / "a.parquet")
        read = read_features(tmp_path / "a.parquet", key="embedding")
        np.testing.assert_array_equal(read.x, [[1, 2, 3], [4, 5, 6]])
        with pytest.raises(ValueError, match="'path' must hold one vector a row"):
            read_features(tmp_path / "a.parquet", key="path")

    def test_columns_that_are_not_numbers_are_named(self, table: pd.DataFrame, tmp_path: Path) -> None:
        table.to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(ValueError, match="'name' are not numbers, for example 'image 0'.*--ignore"):
            read_features(tmp_path / "a.csv")

    def test_the_value_that_is_no_number_is_shown(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a,b\n1,2\n3,?\n5,6\n")
        with pytest.raises(ValueError, match=r"'\?' in row 1 \(from 0; 1 of 3\): correct"):
            read_features(tmp_path / "a.csv")

    def test_a_header_alone_is_no_column_of_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a,b\n")
        with pytest.raises(ValueError, match="a header and no rows"):
            read_features(tmp_path / "a.csv")

    def test_a_title_above_the_table_does_not_swallow_columns(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("my measurements\n1,2,3\n4,5,6\n")
        with pytest.raises(ValueError, match="fewer cells.*1 and 3.*remove"):
            read_features(tmp_path / "a.csv")

    def test_names_of_samples(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("cell,a,b\nx1,1,2\nx2,3,4\n")
        read = read_features(tmp_path / "a.csv", names="cell")
        assert read.names is not None and list(read.names) == ["x1", "x2"] and read.columns == ["a", "b"]
        with pytest.raises(ValueError, match="'x1' in row 0.*--names"):
            read_features(tmp_path / "a.csv")
        # R writes no name above the row names; a .parquet has an index.
        (tmp_path / "r.csv").write_text("a,b\nx1,1,2\nx2,3,4\n")
        pd.DataFrame(read.x, index=["x1", "x2"], columns=["a", "b"]).to_parquet(tmp_path / "a.parquet")
        for name in ("r.csv", "a.parquet"):
            other = read_features(tmp_path / name)
            np.testing.assert_array_equal(other.x, read.x)
            assert other.names is not None and list(other.names) == ["x1", "x2"]
        np.save(tmp_path / "a.npy", read.x)
        with pytest.raises(ValueError, match="a column of names was named.*array file"):
            read_features(tmp_path / "a.npy", names="cell")

    def test_a_column_that_counts_the_rows_is_pointed_out(self, table: pd.DataFrame, tmp_path: Path) -> None:
        numbers = table.drop(columns="name")
        numbers.to_csv(tmp_path / "t.csv")  # with the index, as pandas does by default
        with pytest.warns(UserWarning, match=r"'Unnamed: 0' counts the rows.*--ignore"):
            read_features(tmp_path / "t.csv")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_features(tmp_path / "t.csv", ignore=["Unnamed: 0"])
            numbers.to_parquet(tmp_path / "t.parquet")
            read_features(tmp_path / "t.parquet")

    def test_what_is_no_array_is_not_called_a_pickle(self, tmp_path: Path) -> None:
        (tmp_path / "x.npy").write_bytes(b"no array")
        with pytest.raises(ValueError, match="damaged or not what its name says"):
            read_features(tmp_path / "x.npy")

    def test_missing_values_are_located(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a,b\n1,2\n3,\n")
        with pytest.raises(ValueError, match="column 'b' has no value in row 1"):
            read_features(tmp_path / "a.csv")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.doc", b"1,2", "'.doc'.*\\.npy, \\.npz, .*\\.csv"),
            ("a.csv", b"", "is empty"),
            ("a.npy", b"\x93NUMPY\x01\x00", "a.npy"),
            ("a.npz", b"PK\x03\x04 cut off", "a.npz"),
            ("a.parquet", b"PAR1", "a.parquet"),
            ("a.csv", b"a,b\n1,2,3,4\n1\n1,2,3,4,5,6\n", "a.csv"),
        ],
    )
    def test_damaged_files_are_named(self, name: str, content: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_features(tmp_path / name)

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.ones(5), "shape \\(5,\\)"),
            (np.ones((0, 3)), "shape \\(0, 3\\)"),
            (np.array([["a", "b"]]), "type <U1"),
            (np.ones((2, 2), dtype=complex), "complex"),
        ],
    )
    def test_arrays_that_are_no_features(self, array: np.ndarray, message: str, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match=message):
            read_features(tmp_path / "a.npy")

    def test_pickled_objects_are_not_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(ValueError, match="a.npy"):
            read_features(tmp_path / "a.npy")

    def test_labels_of_another_length(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.ones((4, 2)), y=np.arange(3))
        with pytest.raises(ValueError, match="'y' have shape \\(3,\\).* 4 samples"):
            read_features(tmp_path / "a.npz", labels="y")


class TestWriting:
    @pytest.mark.parametrize("ending", [".csv", ".parquet"])
    def test_round_trip(self, ending: str, tmp_path: Path) -> None:
        proba = np.array([[0.25, 0.75], [0.9, 0.1]], dtype=np.float32)
        path = tmp_path / f"labels{ending}"
        write_labels(path, np.array([1, 0]), proba, every=True)
        back = pd.read_csv(path) if ending == ".csv" else pd.read_parquet(path)
        assert list(back.columns) == ["index", "cluster", "probability", "p_0", "p_1"]
        np.testing.assert_array_equal(back["cluster"], [1, 0])
        np.testing.assert_allclose(back["probability"], [0.75, 0.9], rtol=1e-5)
        np.testing.assert_allclose(back[["p_0", "p_1"]], proba, rtol=1e-5)
        assert [child.name for child in tmp_path.iterdir()] == [path.name]

    def test_a_failure_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.csv"
        write_labels(path, np.array([1, 0]), None)
        before = path.read_bytes()
        with pytest.raises(IndexError):
            write_labels(path, np.array([5, 0]), np.ones((2, 2)))
        assert path.read_bytes() == before
        assert [child.name for child in tmp_path.iterdir()] == ["labels.csv"]


class TestGraph:
    def test_describes_and_saves(self, few: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
        np.savez(tmp_path / "digits.npz", x=few[0], y=few[1])
        options = ["--labels", "y", "--n-neighbors", 5, "--out", tmp_path / "graph"]
        result = run("graph", tmp_path / "digits.npz", *options)
        graph = graphclust.SampleGraph.open(tmp_path / "graph")
        assert graph.neighbor_index.shape == (500, 5)
        for line in str(graph.summary()).splitlines():
            assert line in result.stdout
        assert "homophily" in result.stdout

    def test_passes_its_options_on(self, npy: Path, tmp_path: Path) -> None:
        options = ["--metric", "minkowski", "--p", 3, "--bandwidth", 0.5, "--symmetrize", "mutual"]
        run("graph", npy, *options, "--n-neighbors", 4, "--out", tmp_path / "graph", "--quiet")
        construction = graphclust.SampleGraph.open(tmp_path / "graph").construction
        wanted = {"metric": "minkowski", "p": 3.0, "bandwidth": 0.5, "symmetrize": "mutual", "n_neighbors": 4}
        assert {name: construction[name] for name in wanted} == wanted

    def test_quiet_says_nothing(self, npy: Path) -> None:
        assert run("graph", npy, "--quiet").output == ""

    def test_refuses_what_it_should(self, npy: Path, tmp_path: Path) -> None:
        assert "600" in refused("graph", npy, "--n-neighbors", 600)
        assert "'euclid'" in refused("graph", npy, "--metric", "euclid")
        assert "'wide'" in refused("graph", npy, "--bandwidth", "wide")
        assert "nothing.npy does not exist" in refused("graph", tmp_path / "nothing.npy")
        assert "is a folder" in refused("graph", tmp_path)

    def test_overwrites_only_when_told(self, npy: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "mine.txt").write_text("precious")
        assert "--overwrite" in refused("graph", npy, "--out", out)
        run("graph", npy, "--out", out, "--overwrite")
        assert (out / "mine.txt").read_text() == "precious"
        assert graphclust.SampleGraph.open(out).num_nodes == 500
        assert "is a file" in refused("graph", npy, "--out", out / "mine.txt", "--overwrite")


class TestCluster:
    def test_an_address(self, npy: Path, tmp_path: Path) -> None:
        out = tmp_path / "of an address"
        run("cluster", f"file://{npy}", "-k", 3, "-o", out, "--method", "kmeans", "-q")
        assert len(pd.read_csv(out / "labels.csv")) == 500

    def test_writes_labels_model_and_picture(self, fitted: Path) -> None:
        out = fitted / "result"
        assert {child.name for child in out.iterdir()} == {"labels.csv", "model", "overview.png"}
        labels = pd.read_csv(out / "labels.csv")
        assert list(labels.columns) == ["index", "cluster", "probability", *(f"p_{c}" for c in range(10))]
        assert len(labels) == 500
        every = labels.filter(like="p_").to_numpy()
        np.testing.assert_allclose(every.sum(axis=1), 1, atol=1e-4)
        np.testing.assert_array_equal(every.argmax(axis=1), labels["cluster"])
        np.testing.assert_allclose(every.max(axis=1), labels["probability"])
        assert (out / "overview.png").read_bytes().startswith(b"\x89PNG")
        model = graphclust.load(out / "model")
        np.testing.assert_array_equal(model.labels_, labels["cluster"])
        assert (model.n_clusters, model.random_state, list(model.hidden_channels)) == (10, 0, [64, 64])

    def test_prints_the_scores(self, fitted: Path, few: tuple[np.ndarray, np.ndarray]) -> None:
        from graphclust.metrics import evaluate

        printed = (fitted / "printed.txt").read_text()
        labels = pd.read_csv(fitted / "result" / "labels.csv")["cluster"]
        scores = evaluate(few[1], labels)
        for name in ("ACC", "NMI", "ARI"):
            assert any(name in line and f"{scores[name]:.3f}" in line for line in printed.splitlines())
        assert scores["ACC"] > 0.3  # ten classes: chance is about 0.15

    def test_parquet_and_parameters_and_the_same_seed(self, fitted: Path, tmp_path: Path) -> None:
        parameters = [
            "--conv",
            "sage",
            "--epsilon",
            "0.5",
            "--n-neighbors",
            4,
            "--batch-size",
            200,
            "--seed",
            3,
        ]
        tables = []
        for out in (tmp_path / "a", tmp_path / "b"):
            command = [
                "cluster",
                fitted / "digits.npz",
                "-k",
                10,
                "-o",
                out,
                "--format",
                "parquet",
                "--quiet",
            ]
            assert run(*command, *SMALL, *parameters).output == ""
            tables.append(pd.read_parquet(out / "labels.parquet"))
        pd.testing.assert_frame_equal(*tables)
        assert list(tables[0].columns) == ["index", "cluster", "probability"]
        model = graphclust.load(tmp_path / "a" / "model")
        assert (model.conv, model.epsilon, model.n_neighbors, model.batch_size) == ("sage", 0.5, 4, 200)
        assert model.random_state == 3

    def test_overwriting_leaves_no_older_labels(self, npy: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "labels.parquet").write_text("of an earlier run")
        assert "is not empty" in refused("cluster", npy, "-k", 5, "-o", out, *SMALL)
        run("cluster", npy, "-k", 5, "-o", out, "--overwrite", *SMALL)
        assert {child.name for child in out.iterdir()} == {"labels.csv", "model", "overview.png"}

    def test_what_cannot_be_replaced_is_told_before_the_work(
        self, npy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(graphclust.KMeans, "fit", None)  # not called
        command = ("cluster", npy, "-k", 5, "--method", "kmeans", "--overwrite", "-o")
        (tmp_path / "out" / "model").mkdir(parents=True)
        (tmp_path / "out" / "labels.csv").write_text("of an earlier run")
        (tmp_path / "out" / "model" / "mine.txt").write_text("precious")
        assert "holds other files (mine.txt)" in refused(*command, tmp_path / "out")
        assert (tmp_path / "out" / "labels.csv").read_text() == "of an earlier run"
        (tmp_path / "other" / "overview.png").mkdir(parents=True)
        assert "overview.png is a folder where a file" in refused(*command, tmp_path / "other")

    @pytest.mark.parametrize(
        ("place", "said"),
        [
            ("graphclust.KMeans._fit", "nothing was saved\n"),
            (
                "graphclust.methods.base.Trainer.fit",
                "nothing was saved: add --set checkpoint=FOLDER to go on from",
            ),
            ("graphclust.methods.base.Trainer.fit", "nothing was saved yet: the first checkpoint in "),
            ("graphclust.DEC._start", "the same command goes on from "),  # after pretraining, which is kept
        ],
    )
    def test_an_interrupt_says_what_is_kept(
        self, place: str, said: str, npy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(place, interrupt)
        options = ["--method", "kmeans"]
        if "KMeans" not in place:
            options = ["--method", "dec", *SMALL[2:8]]
            options += [] if "add" in said else ["--set", f"checkpoint={tmp_path / 'kept'}"]
        result = run("cluster", npy, "-k", 5, "-o", tmp_path / "out", *options, code=130)
        assert f"interrupted; {said}" in result.stderr
        assert not (tmp_path / "out").exists()

    def test_warnings_are_a_line_each(self, tmp_path: Path) -> None:
        x = np.ones((30, 4), dtype=np.float32)
        x[0] = 0  # has no direction, so no cosine distance
        np.save(tmp_path / "x.npy", x)
        stderr = run("graph", tmp_path / "x.npy", "--metric", "cosine", "--n-neighbors", 3).stderr
        (line,) = [line for line in stderr.splitlines() if "zero vectors" in line]
        assert line.startswith("warning: 1 of 30 samples")
        assert (
            run("graph", tmp_path / "x.npy", "--metric", "cosine", "--n-neighbors", 3, "--quiet").output == ""
        )

    def test_deprecations_are_for_authors(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """PyG on Python 3.13 has some, and whoever calls a command can do nothing about them."""
        from_features = graphclust.SampleGraph.from_features

        def warning(*arguments: Any, **keywords: Any) -> Any:
            for category in (DeprecationWarning, PendingDeprecationWarning, UserWarning):
                warnings.warn(f"a {category.__name__}", category, stacklevel=2)
            return from_features(*arguments, **keywords)

        monkeypatch.setattr(graphclust.SampleGraph, "from_features", warning)
        np.save(tmp_path / "x.npy", np.eye(9, dtype=np.float32))
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            stderr = run("graph", tmp_path / "x.npy", "--n-neighbors", 3).stderr
        assert "warning: a UserWarning" in stderr
        assert "Deprecation" not in stderr

    def test_refuses_what_it_should(self, npy: Path, tmp_path: Path) -> None:
        cluster = ("cluster", npy, "--out", tmp_path / "out")
        assert "'kmean'" in refused(*cluster, "-k", 3, "--method", "kmean")
        assert "KMeans" in refused(*cluster, "-k", 3, "--method", "kmean")
        assert "'deepclusterer'" in refused(*cluster, "-k", 3, "--method", "deepclusterer")  # abstract
        assert "'depth'" in refused(*cluster, "-k", 3, "--set", "depth=3")
        assert "NAME=VALUE" in refused(*cluster, "-k", 3, "--set", "depth")
        assert "'xls'" in refused(*cluster, "-k", 3, "--format", "xls")
        assert "'0.1,x'" in refused(*cluster, "-k", 3, "--epsilon", "0.1,x")
        assert "501" in refused(*cluster, "-k", 501)
        assert "--features, --size is for images" in refused(*cluster, "--features", "dinov2", "--size", 64)
        assert not (tmp_path / "out").exists()

    def test_debug_shows_where(self, npy: Path, tmp_path: Path) -> None:
        result = run("cluster", npy, "-o", tmp_path / "out", "-k", 501, "--debug", code=1)
        assert isinstance(result.exception, ValueError)

    def test_the_picture_says_what_it_shows(
        self, npy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from matplotlib.figure import Figure

        drawn: list[Figure] = []
        save = Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))
        )
        x = np.load(npy)
        np.save(tmp_path / "plane.npy", x[:, 20:22])
        np.save(tmp_path / "images.npy", x.reshape(-1, 8, 8))
        cases = [
            (npy, "gcsc", "GCSC: 500 samples, 4 clusters", "layout of the sample graph."),
            (npy, "kmeans", "KMeans: 500 samples, 4 clusters", "two principal components of the features."),
            (tmp_path / "plane.npy", "kmeans", "KMeans: 500 samples, 4 clusters", "the two features."),
            (tmp_path / "images.npy", "kmeans", "KMeans", "two principal components of the features."),
        ]
        for number, (file, method, title, positions) in enumerate(cases):
            run("cluster", file, "-k", 4, "--method", method, "-o", tmp_path / str(number), "-q")
            assert drawn[-1].get_suptitle() == title
            assert drawn[-1].axes[0].get_xlabel().endswith(f"Positions: {positions}")


class TestPredict:
    def test_labels_new_samples(
        self, fitted: Path, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
    ) -> None:
        new = digits[0][500:560]
        np.save(tmp_path / "new.npy", new)
        run("predict", fitted / "result", tmp_path / "new.npy", "--out", tmp_path / "new.csv")
        labels = pd.read_csv(tmp_path / "new.csv")
        model = graphclust.load(fitted / "result" / "model")
        np.testing.assert_array_equal(labels["cluster"], model.predict(new))
        np.testing.assert_allclose(labels["probability"], model.predict_proba(new).max(axis=1), rtol=1e-4)

    @pytest.mark.parametrize("ending", [".csv", ".npz"])
    def test_tables_and_archives(
        self, ending: str, few: tuple[np.ndarray, np.ndarray], table: pd.DataFrame, tmp_path: Path
    ) -> None:
        """From file to labels to labels of the same rows, which are found again; images come with a picture of them."""
        path = tmp_path / f"digits{ending}"
        if ending == ".csv":
            table.to_csv(path, index=False)
            columns = ["--ignore", "name", "--labels", "digit"]
        else:
            np.savez(path, images=few[0].reshape(-1, 8, 8), y=few[1])
            columns = ["--labels", "y"]
        out = tmp_path / "out"
        assert "ACC" in run("cluster", path, "-k", 10, "-o", out, *columns, *SMALL).stdout
        run("predict", out, path, *columns, "--out", tmp_path / "again.csv")
        first, again = pd.read_csv(out / "labels.csv"), pd.read_csv(tmp_path / "again.csv")
        assert (first["cluster"] == again["cluster"]).mean() > 0.9
        assert (out / "overview.png").stat().st_size > 10_000

    def test_prints_a_table_without_out(self, fitted: Path, npy: Path) -> None:
        from io import StringIO

        result = run("predict", fitted / "result" / "model", npy, "--probabilities", "--quiet")
        labels = pd.read_csv(StringIO(result.stdout))
        assert list(labels.columns) == ["index", "cluster", "probability", *(f"p_{c}" for c in range(10))]
        assert len(labels) == 500
        assert result.stderr == ""

    def test_scores_where_labels_are_named(self, fitted: Path, tmp_path: Path) -> None:
        arguments = ["predict", fitted / "result", fitted / "digits.npz", "--labels", "y"]
        result = run(*arguments, "--out", tmp_path / "new.parquet")
        assert "ACC" in result.stderr
        assert len(pd.read_parquet(tmp_path / "new.parquet")) == 500

    def test_refuses_what_it_should(self, fitted: Path, npy: Path, tmp_path: Path) -> None:
        assert "not a folder" in refused("predict", tmp_path / "nothing", npy)
        np.save(tmp_path / "narrow.npy", np.ones((3, 5), dtype=np.float32))
        message = refused("predict", fitted / "result", tmp_path / "narrow.npy")
        assert "5" in message and "64" in message
        assert ".xls" in refused("predict", fitted / "result", npy, "--out", tmp_path / "a.xls")
        (tmp_path / "a.csv").write_text("precious")
        assert "--overwrite" in refused("predict", fitted / "result", npy, "--out", tmp_path / "a.csv")
        assert (tmp_path / "a.csv").read_text() == "precious"

    @pytest.mark.parametrize("out", [None, "labels.csv"])
    def test_methods_without_probabilities(self, npy: Path, out: str | None, tmp_path: Path) -> None:
        model = graphclust.KMeans(3, random_state=0).fit(np.load(npy))
        model.save(tmp_path / "result" / "model")
        given = [] if out is None else ["--out", tmp_path / out]
        printed = run("predict", tmp_path / "result", npy, *given).stdout
        text = printed if out is None else (tmp_path / out).read_text()
        assert text.splitlines()[0] == "index,cluster"
        assert [int(line.split(",")[1]) for line in text.splitlines()[1:]] == model.labels_.tolist()
        assert "no probabilities" in refused("predict", tmp_path / "result", npy, "--probabilities")


def test_probabilities_that_a_method_does_not_have_are_told(npy: Path, tmp_path: Path) -> None:
    options = ["-k", 3, "--method", "kmeans", "--probabilities"]
    result = run("cluster", npy, "-o", tmp_path / "out", *options)
    assert "warning: KMeans gives labels and no probabilities" in result.stderr
    assert "for a folder of images" in refused("duplicates", tmp_path / "out")


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    wine = load_wine(as_frame=True).frame
    wine.insert(0, "bottle", [f"b{i}" for i in range(len(wine))])
    wine.to_csv(tmp_path / "wine.csv", index=False)
    options = ["--labels", "target", "--names", "bottle", "-k", 3, "--method", "kmeans", "-q"]
    run("cluster", tmp_path / "wine.csv", "-o", tmp_path / "out", *options)
    known = pd.read_csv(tmp_path / "out" / "labels.csv")
    assert list(known.columns[:3]) == ["index", "name", "cluster"] and known["name"][7] == "b7"

    # The columns in another order, and others among them, by which no model was fitted.
    wine[wine.columns[::-1]].to_csv(tmp_path / "turned.csv", index=False)
    run("predict", tmp_path / "out", tmp_path / "turned.csv", "-o", tmp_path / "new.csv", "-q")
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "new.csv")["cluster"], known["cluster"])
    printed = run("predict", tmp_path / "out", tmp_path / "turned.csv", "--names", "bottle", "-q").stdout
    assert printed.splitlines()[1] == f"0,b0,{known['cluster'][0]}"

    # Without a header columns are taken by their places.
    values = wine.drop(columns=["bottle", "target"])
    values.to_csv(tmp_path / "bare.csv", index=False, header=False)
    run("predict", tmp_path / "out", tmp_path / "bare.csv", "-o", tmp_path / "bare-labels.csv", "-q")
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "bare-labels.csv")["cluster"], known["cluster"])

    values.drop(columns="alcohol").to_csv(tmp_path / "less.csv", index=False)
    assert "'alcohol', which the model was fitted to" in refused(
        "predict", tmp_path / "out", tmp_path / "less.csv"
    )


def test_methods_to_compare_with_spaces_between_them(npy: Path, tmp_path: Path) -> None:
    message = refused("compare", npy, "--methods", "kmeans", "decc", "-k", 3, "--out", tmp_path / "out")
    assert "'decc'" in message
    assert "--methods" in refused("compare", npy, "kmeans", "-k", 3, "--out", tmp_path / "out")


def test_options_of_tables_are_refused_for_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for option in (["--probabilities"], ["--ignore", "name"]):
        message = refused("cluster", tmp_path / "photos", "--out", tmp_path / "out", *option)
        assert option[0] in message


def test_version_and_help() -> None:
    assert run("--version").stdout == f"graphclust {graphclust.__version__}\n"
    for command in ([], ["cluster"], ["predict"], ["graph"]):
        assert "Usage" in run(*command, "--help").stdout


class TestMethodThatSuits:
    def test_vectors(self, tmp_path: Path) -> None:
        x, y = load_wine(return_X_y=True)
        np.savez(tmp_path / "wine.npz", x=x, y=y)
        result = run("cluster", tmp_path / "wine.npz", "-k", 3, "--labels", "y", "--out", tmp_path / "out")
        assert "method: ConsensusClustering" in result.stdout
        assert isinstance(graphclust.load(tmp_path / "out" / "model"), graphclust.ConsensusClustering)

    def test_images(self, few: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", few[0][:200])
        short = ["--epochs", 1, "--set", "part_epochs=1", "--set", "rounds=1", "--set", "channels=[8,8,8]"]
        run("cluster", tmp_path / "x.npy", "-k", 5, "--out", tmp_path / "out", *short)
        assert isinstance(graphclust.load(tmp_path / "out" / "model"), graphclust.LearnedGraphClustering)

    def test_parameter_of_another_method(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", load_wine().data)
        message = refused("cluster", tmp_path / "x.npy", "-k", 3, "--conv", "gat", "--out", tmp_path / "out")
        assert "ConsensusClustering has no parameter 'conv'" in message
        assert "--method" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", 5), ("0,7,9", [0, 7, 9]), ("7,", [7]), ("x", None), (",", None), ("1,,2", None)],
)
def test_how_many_seeds_or_which(text: str, expected: int | list[int] | None) -> None:
    from graphclust.cli.compare import _seeds

    if expected is not None:
        assert _seeds(text) == expected
        return
    with pytest.raises(ValueError, match=f'--seeds is {text!r}.*"7,"'):
        _seeds(text)
