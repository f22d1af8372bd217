"""The folder of a result: written, opened, asked, extended, exported; from Python and from the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from PIL import Image
from typer.testing import CliRunner

from graphclust import KMeans, SampleGraph
from graphclust.cli import app
from graphclust.images import Images, read_images
from graphclust.results import COLUMNS, Result
from graphclust.results.table import Centers, assignments

RNG = np.random.default_rng(0)
N_EACH = 12
runner = CliRunner()


def picture(kind: int, rng: np.random.Generator) -> Image.Image:
    """16 x 16 with a bright bar in one of three places, and noise."""
    pixels = rng.integers(0, 60, (16, 16), dtype=np.uint8)
    if kind == 0:
        pixels[:5] += 180
    elif kind == 1:
        pixels[:, :5] += 180
    else:
        pixels[6:11, 6:11] += 180
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 images of three kinds in three folders; one of them twice, one broken."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for kind in range(3):
        (folder / f"kind{kind}").mkdir(parents=True)
        for n in range(N_EACH):
            picture(kind, RNG).save(folder / f"kind{kind}" / f"{n:02}.png")
    shutil.copy(folder / "kind0" / "03.png", folder / "kind1" / "copy of 03.png")
    (folder / "kind2" / "broken.png").write_bytes(b"\x89PNG")
    return folder


def fitted(photos: Path) -> tuple[Images, KMeans]:
    images = read_images(photos)
    return images, KMeans(3, random_state=0).fit(images.x)


@pytest.fixture
def result(photos: Path, tmp_path: Path) -> Result:
    images, model = fitted(photos)
    return Result.write(tmp_path / "result", images, model, source=photos)


@pytest.mark.parametrize("kind", ["uint16", "float"])
def test_new_images_of_an_array_are_read_in_the_range_of_the_fit(kind: str, tmp_path: Path) -> None:
    """Each by itself as all together, whatever its own darkest and brightest values are."""
    rng = np.random.default_rng(0)
    pixels = np.stack([np.asarray(picture(n % 3, rng)) for n in range(30)])
    array = (16 * pixels.astype(np.uint16)) if kind == "uint16" else (pixels - 100.0) / 50
    images = read_images(array)
    model = KMeans(3, random_state=0).fit(images.x)
    written = Result.write(tmp_path / "result", images, model)
    again = Result.open(written.folder)
    dark = again.read(array[1:2] if kind == "float" else array[1:2] // 2)
    expected = images.x[1] if kind == "float" else array[1].ravel() // 2 / array.max()
    np.testing.assert_allclose(dark.x[0], expected, atol=1e-6)
    np.testing.assert_allclose(again.read([array[4], array[7]]).x, images.x[[4, 7]], atol=1e-6)
    assert again.predict(array[5:8])["cluster"].tolist() == model.labels_[5:8].tolist()
    with pytest.warns(UserWarning, match="is white, as it was for those before"):
        read_images(array * 9, **images.settings)
    with pytest.raises(ValueError, match="the lower one first"):
        read_images(array, value_range=(1, 0))


def test_a_write_that_fails_leaves_no_mixture(result: Result, photos: Path) -> None:
    images, model = fitted(photos)
    unfit = SampleGraph.from_features(images.x, 5, metric="inner_product", kernel="cosine")
    with pytest.raises(ValueError, match="distances"):
        Result.write(result.folder, images, model, graph=unfit)
    assert len(Result.open(result.folder).labels) == 37  # nothing was replaced yet
    SampleGraph.from_features(images.x[:9], 5).save(result.folder / "graph")
    with pytest.raises(ValueError, match="37 labels, and a graph of 9 samples"):
        Result.open(result.folder)


def test_rows_of_an_array_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = read_images(np.stack([np.asarray(picture(n % 3, rng)) for n in range(12)]))
    written = Result.write(tmp_path / "r", images, KMeans(3, random_state=0).fit(images.x))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1").write_text("no image")
    assert written.image(1).size == (16, 16)
    with pytest.raises(ValueError, match="found in none of the sources"):
        Result.open(written.folder).export(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/1"))


def test_an_image_that_is_named_twice_is_added_once(result: Result, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    picture(0, RNG).save(tmp_path / "new" / "a.png")
    assert len(result.update([str(tmp_path / "new"), str(tmp_path / "new" / "a.png")])) == 1


def test_features_over_a_result_of_images_and_back(photos: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "r", tmp_path / "x.npy"
    np.save(table, np.random.default_rng(0).normal(size=(40, 6)))
    how = ["-k", "3", "-o", str(out), "--overwrite", "-q", "--method", "kmeans"]
    assert runner.invoke(app, ["cluster", str(photos), *how]).exit_code == 0
    assert runner.invoke(app, ["cluster", str(table), *how]).exit_code == 0
    assert {path.name for path in out.iterdir()} == {"labels.csv", "model", "overview.png"}
    labelled = runner.invoke(app, ["predict", str(out), str(table), "-q"])
    assert labelled.exit_code == 0 and labelled.stdout.count("\n") == 41
    assert runner.invoke(app, ["cluster", str(photos), *how]).exit_code == 0
    assert not {"labels.csv", "overview.png"} & {path.name for path in out.iterdir()}


def test_what_lies_in_the_folder(result: Result, photos: Path) -> None:
    table = pd.read_parquet(result.folder / "labels.parquet")
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 3 * N_EACH + 1
    kinds = table["path"].str.extract(r"kind(\d)/(\d\d)\.png")[0]
    assert (table.groupby(kinds)["cluster"].nunique() == 1).all()
    assert table["cluster"].nunique() == 3
    assert (table["second_cluster"] != table["cluster"]).all()
    assert set(table["duplicate_group"]) == {-1, 0}
    pair = table.loc[table["duplicate_group"] == 0, "path"].map(os.path.basename)
    assert set(pair) == {"03.png", "copy of 03.png"}
    assert table["outlier_score"].between(0.5, 10).all()
    assert SampleGraph.open(result.folder / "graph").num_nodes == len(table)
    assert "broken.png" in (result.folder / "skipped.csv").read_text()
    assert json.loads((result.folder / "images.json").read_text())["sources"] == [str(photos)]


def test_distance_is_that_to_the_own_centre(result: Result, photos: Path) -> None:
    images, model = fitted(photos)
    away = model.transform(images.x)
    table = result.labels
    assert np.allclose(table["distance"], away.min(axis=1), atol=1e-4)
    assert (table["second_cluster"].to_numpy(int) == np.argsort(away, axis=1)[:, 1]).all()
    assert table["probability"].isna().all()  # k-means has none


def test_probabilities_of_a_model_that_has_them(photos: Path, tmp_path: Path) -> None:
    from graphclust import VaDE

    images = read_images(photos)
    model = VaDE(3, random_state=0, pretrain_epochs=2, epochs=1, batch_size=None).fit(images.x)
    table = Result.write(tmp_path / "r", images, model).labels
    proba = model.probabilities_
    assert np.allclose(table["probability"], proba.max(axis=1))
    second = np.sort(proba, axis=1)[:, -2]
    named = table["second_cluster"].notna().to_numpy()
    assert np.array_equal(named, second > 0)  # of one whose others are impossible there is none
    other = table["second_cluster"][named].to_numpy(int)
    assert (other != table["cluster"][named]).all()
    assert np.array_equal(proba[np.flatnonzero(named), other], second[named])


def test_open_gives_back_what_was_written(result: Result) -> None:
    again = Result.open(result.folder)
    pd.testing.assert_frame_equal(again.labels, result.labels)
    assert again.meta == result.meta
    assert again.model.n_clusters_ == 3
    assert again.image(0).size == (16, 16)
    assert repr(again).endswith("37 images, 3 clusters)")


def test_search_finds_the_kind_and_the_image_itself(result: Result, photos: Path) -> None:
    found = Result.open(result.folder).search(str(photos / "kind0" / "03.png"), k=5)
    assert list(found.columns) == ["query", "rank", "path", "cluster", "distance"]
    assert found["distance"].tolist()[:2] == [0, 0]  # itself and its copy
    assert found["cluster"].nunique() == 1
    new = [picture(2, RNG), picture(1, RNG)]
    several = result.search(new, k=4)
    assert several["rank"].tolist() == [1, 2, 3, 4] * 2
    folders = several["path"].map(lambda path: Path(path).parent.name).tolist()
    assert folders == ["kind2"] * 4 + ["kind1"] * 4


def test_duplicates_and_outliers(result: Result) -> None:
    assert result.duplicates()["path"].map(os.path.basename).tolist() == ["03.png", "copy of 03.png"]
    assert result.duplicates(0)["group"].tolist() == [0, 0]
    assert len(result.duplicates(1000)) == 37
    ordered = result.outliers()["outlier_score"].to_numpy()
    assert (np.diff(ordered) <= 0).all()
    assert len(result.outliers(4)) == 4 and len(result.outliers(0)) == 0


def test_search_tells_what_cannot_be_searched_for(result: Result, photos: Path) -> None:
    good, broken = photos / "kind0" / "03.png", photos / "kind2" / "broken.png"
    with pytest.warns(UserWarning, match=r"broken\.png cannot be searched for: "):
        found = result.search([str(good), str(broken)], k=2)
    assert set(found["query"]) == {str(good)}


def test_search_gives_all_where_fewer_are_there(result: Result, photos: Path) -> None:
    assert len(result.search(str(photos / "kind0" / "03.png"), k=1000)) == 37
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        result.search(str(photos / "kind0" / "03.png"), k=0)


def more(folder: Path) -> Path:
    """Four images of kind 0, two of kind 2 that are the same, a broken one, and one of another size."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for n in range(4):
        picture(0, rng).save(folder / f"a{n}.png")
    twice = picture(2, rng)
    twice.save(folder / "b0.png")
    twice.save(folder / "b1.bmp")
    picture(1, rng).resize((64, 64)).convert("RGB").save(folder / "c.png")
    (folder / "bad.jpg").write_text("no")
    return folder


def test_predict_labels_new_images(result: Result, photos: Path, tmp_path: Path) -> None:
    cluster = {
        Path(p).parent.name: c for p, c in zip(result.labels["path"][::-1], result.labels["cluster"][::-1])
    }
    table = Result.open(result.folder).predict(more(tmp_path / "more"))
    assert list(table.columns) == list(COLUMNS[:5])
    expected = [cluster[f"kind{kind}"] for kind in (0, 0, 0, 0, 2, 2, 1)]
    assert table["cluster"].tolist() == expected


def test_new_kinds_are_told(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Of known kinds nothing is said; noise, and a digit that was not there before, are said to lie apart."""
    x, y = digits
    known, rest, strange = x[y != 0][:900], x[y != 0][900:1100], x[y == 0]
    images = Images(
        known.astype(np.float32), [str(n) for n in range(len(known))], settings={"features": "given"}
    )
    opened = Result.write(tmp_path / "result", images, KMeans(9, random_state=0).fit(images.x))

    def new(rows: np.ndarray) -> Images:
        return Images(rows.astype(np.float32), [f"n{n}" for n in range(len(rows))], settings=images.settings)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened.label(new(rest))
        opened.label(new(rest[:1]))
    with pytest.warns(UserWarning, match=r"of a kind that no cluster holds"):
        opened.label(new(strange))
    noise = np.random.default_rng(0).random((3, x.shape[1])) * x.max()
    with pytest.warns(UserWarning, match=r"^3 of 3 lie farther apart than 99%.* most of all n\d:"):
        opened.label(new(noise))


def test_update_adds_to_graph_and_labels(result: Result, tmp_path: Path) -> None:
    before = result.labels.copy()
    added = Result.open(result.folder).update(more(tmp_path / "more"))
    assert len(added) == 7
    again = Result.open(result.folder)
    assert len(again.labels) == again.graph.num_nodes == 44
    pd.testing.assert_frame_equal(again.labels[list(COLUMNS[:5])].head(37), before[list(COLUMNS[:5])])
    groups = again.labels.set_index(again.labels["path"].map(os.path.basename))["duplicate_group"]
    assert groups["b0.png"] == groups["b1.bmp"] != -1
    assert groups["copy of 03.png"] != groups["b0.png"]
    skipped = (again.folder / "skipped.csv").read_text()
    assert "broken.png" in skipped
    assert "bad.jpg" in skipped
    # The same folder again, with one image more: that one alone is added.
    picture(1, np.random.default_rng(9)).save(tmp_path / "more" / "d.png")
    once_more = again.update(tmp_path / "more")
    assert once_more["path"].map(os.path.basename).tolist() == ["d.png"]
    assert Result.open(result.folder).graph.num_nodes == 45
    assert len(again.update(tmp_path / "more")) == 0
    assert (result.folder / "skipped.csv").read_text().count("bad.jpg") == 1


def test_update_keeps_the_report_up_to_date(result: Result, tmp_path: Path) -> None:
    result.update(more(tmp_path / "first"))
    assert not (result.folder / "report.html").exists()  # none is made that nobody asked for
    page = result.write_report()
    before = page.read_text()
    picture(1, np.random.default_rng(9)).save(tmp_path / "first" / "a new one.png")
    result.update(tmp_path / "first")
    assert "a new one.png" not in before
    assert "a new one.png" in page.read_text()


def test_an_update_that_was_cut_off_is_as_if_it_had_not_begun(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As a signal would."""

    def dies(*_: object) -> None:
        raise Killed

    folder = more(tmp_path / "more")
    before = result.graph.edge_index.clone()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Result, "_save", dies)
        Result.open(result.folder).update(folder)
    assert SampleGraph.open(result.folder / "graph").num_nodes == 44
    again = Result.open(result.folder)
    assert again.graph.num_nodes == len(again.labels) == 37
    assert np.array_equal(again.graph.edge_index, before)
    assert len(again.update(folder)) == 7
    assert Result.open(result.folder).graph.num_nodes == 44


def test_arrays_go_on_counting(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    x = digits[0][:120].reshape(-1, 8, 8)
    images = read_images(x[:100])
    result = Result.write(tmp_path / "r", images, KMeans(10, random_state=0).fit(images.x))
    assert result.update(x[100:])["path"].tolist() == [str(n) for n in range(100, 120)]
    with pytest.raises(ValueError, match="found in none of the sources"):
        Result.open(tmp_path / "r").image(3)
    assert result.image(3).size == (8, 8)


def test_features_of_ones_own_have_to_be_passed_again(photos: Path, tmp_path: Path) -> None:
    def mean(images: np.ndarray) -> np.ndarray:
        return images[:, ::56, ::56].reshape(len(images), -1).astype(np.float32)

    images = read_images(photos, mean, cache=None)
    result = Result.write(tmp_path / "r", images, KMeans(3, random_state=0).fit(images.x))
    with pytest.raises(ValueError, match="pass it with features="):
        result.predict(photos)
    assert result.predict(photos, features=mean)["cluster"].tolist() == result.labels["cluster"].tolist()


# -- export --------------------------------------------------------------------------------------------------------


def test_export_copies_and_touches_nothing(result: Result, photos: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    written, missing = result.export(tmp_path / "out")
    assert (written, missing) == (37, [])
    sizes = sorted(len(list(folder.iterdir())) for folder in (tmp_path / "out").iterdir())
    assert sizes == sorted(result.labels["cluster"].value_counts())
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before
    with pytest.raises(ValueError, match="nothing is replaced"):
        result.export(tmp_path / "out")
    one = next((tmp_path / "out" / "cluster_0").iterdir())
    assert not one.is_symlink()


def test_export_links_and_keeps_names_apart(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        picture(0, RNG).save(tmp_path / "in" / folder / "same.png")
    from graphclust.results import export_images

    paths = [str(path) for path in sorted((tmp_path / "in").rglob("*.png"))]
    written, missing = export_images(
        [*paths, str(tmp_path / "gone.png")], [0, 0, -1, 12], tmp_path / "out", "symlink"
    )
    assert (written, len(missing)) == (3, 1)
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")) == [
        "cluster_00/same.png", "cluster_00/same_2.png", "noise/same.png",
    ]  # fmt: skip
    assert os.path.realpath(tmp_path / "out" / "cluster_00" / "same_2.png") == os.path.realpath(paths[1])
    with pytest.raises(ValueError, match="'copy' or 'symlink'"):
        export_images(paths, [0, 0, 0], tmp_path / "other", "move")


def test_images_in_shards_are_exported_from_them(photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for n, path in enumerate(sorted(photos.rglob("??.png"))):
            archive.add(path, f"../{n:03}.png")
    images = read_images(tmp_path / "s.tar")
    Result.write(tmp_path / "r", images, KMeans(3, random_state=0).fit(images.x), source=tmp_path / "s.tar")
    result = Result.open(tmp_path / "r")
    assert result.image(5).size == (16, 16)
    written, _ = result.export(tmp_path / "out")
    exported = sorted((tmp_path / "out").rglob("*.png"), key=lambda path: path.name)
    assert written == len(exported) == 36
    assert exported[7].read_bytes() == sorted(photos.rglob("??.png"))[7].read_bytes()
    with pytest.raises(ValueError, match="no file of its own"):
        result.export(tmp_path / "links", "symlink")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_of_all_kinds_pass_through(tmp_path: Path) -> None:
    names = [
        b"caf\xe9.png",
        b"<script>alert(1)</script>.png".replace(b"/", b"_"),
        b"a\nb.png",
        'ä, "q".png'.encode(),
    ]
    (tmp_path / "in").mkdir()
    for n in range(12):
        raw = os.fsencode(tmp_path / "in") + b"/" + (names[n] if n < 4 else f"{n}.png".encode())
        with open(raw, "wb") as file:
            picture(n % 3, RNG).save(file, "PNG")
    images = read_images(tmp_path / "in")
    result = Result.write(
        tmp_path / "r", images, KMeans(3, random_state=0).fit(images.x), source=tmp_path / "in"
    )
    assert len(Result.open(tmp_path / "r").labels) == 12
    result.export(tmp_path / "out")
    found = {
        name
        for folder in os.listdir(os.fsencode(tmp_path / "out"))
        for name in os.listdir(os.path.join(os.fsencode(tmp_path / "out"), folder))
    }
    assert set(names) <= found


def test_folders_that_hold_no_result(tmp_path: Path, result: Result) -> None:
    with pytest.raises(FileNotFoundError, match="holds no result"):
        Result.open(tmp_path)
    (result.folder / "images.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Result.open(result.folder)
    (result.folder / "images.json").write_text('{"format_version": 99}')
    with pytest.raises(ValueError, match="format version 99"):
        Result.open(result.folder)


def test_a_model_of_other_samples_is_refused(photos: Path, tmp_path: Path) -> None:
    images, model = fitted(photos)
    with pytest.raises(ValueError, match="37 samples, and there are 1 images"):
        Result.write(tmp_path / "r", read_images(photos / "kind0" / "03.png"), model)
    assert len(images) == 37


# -- command line --------------------------------------------------------------------------------------------------


def run(*arguments: object) -> str:
    outcome = runner.invoke(app, [str(argument) for argument in arguments])
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


@pytest.fixture(scope="module")
def written(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "result"
    text = run(
        "cluster", photos, "--out", out, "-k", 3, "--method", "aekmeans", "--set", "pretrain_epochs=20", "--labels",
        "folder", "--no-report",
    )  # fmt: skip
    assert "37 with 256 features" in " ".join(text.split())
    assert "skipped 1: not an image, whatever its name says" in text
    return out


def test_cluster_writes_a_result(written: Path) -> None:
    assert {"labels.parquet", "model", "graph", "skipped.csv", "images.json"} <= {
        p.name for p in written.iterdir()
    }
    assert Result.open(written).labels["cluster"].nunique() == 3


def test_report_is_written(written: Path, tmp_path: Path) -> None:
    pytest.importorskip("graphclust.report.page")
    shutil.copytree(written, tmp_path / "r")
    page = Result.open(tmp_path / "r").write_report()
    assert page == tmp_path / "r" / "report.html"
    assert page.stat().st_size > 10_000


def test_search_duplicates_outliers(written: Path, photos: Path, tmp_path: Path) -> None:
    found = pd.read_csv(io.StringIO(run("search", written, photos / "kind0" / "03.png", "-k", 3)))
    assert found["distance"].tolist()[0] == 0 < found["distance"].tolist()[1]  # its copy, and not itself
    assert found["rank"].tolist() == [1, 2, 3]
    assert str(photos / "kind0" / "03.png") not in found["path"].tolist()
    both = [photos / "kind0" / "03.png", photos / "kind1" / "02.png", photos / "kind0" / "03.png"]
    several = pd.read_csv(io.StringIO(run("search", written, *both, "-k", 3)))
    assert several["rank"].tolist() == [1, 2, 3] * 3
    pd.testing.assert_frame_equal(several.iloc[:3], found)
    every = pd.read_csv(io.StringIO(run("search", written, both[0], "-k", 1000)))
    assert len(every) == len(Result.open(written).labels) - 1
    run("duplicates", written, "--out", tmp_path / "d.csv")
    assert pd.read_csv(tmp_path / "d.csv")["group"].tolist() == [0, 0]
    assert len(pd.read_csv(io.StringIO(run("outliers", written, "-n", 5)))) == 5
    again = runner.invoke(app, ["duplicates", str(written), "--out", str(tmp_path / "d.csv")])
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_predict_and_update(written: Path, tmp_path: Path) -> None:
    folder = more(tmp_path / "more")
    table = pd.read_csv(io.StringIO(run("predict", written, folder)))
    assert len(table) == 7
    assert table["cluster"].head(4).nunique() == 1
    shutil.copytree(written, tmp_path / "r")
    assert "7 images added, 44 in" in run("update", tmp_path / "r", folder)
    assert "0 images added (7 were in it before), 44 in" in run("update", tmp_path / "r", folder)


def test_export(written: Path, tmp_path: Path) -> None:
    assert "37 images in" in run("export", written, "--symlink", tmp_path / "links")
    assert next((tmp_path / "links" / "cluster_0").iterdir()).is_symlink()
    table = tmp_path / "labels.csv"
    run("export", written, "--table", table)
    assert pd.read_csv(table)["path"].tolist() == pd.read_parquet(written / "labels.parquet")["path"].tolist()
    again = runner.invoke(app, ["export", str(written), "--table", str(table)])
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    run("export", written, "--table", table, "--overwrite")
    wrong = runner.invoke(app, ["export", str(written)])
    assert wrong.exit_code == 2
    assert "--copy" in wrong.stderr


def test_what_cannot_be_written_is_told_before_the_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("graphclust.images.read_images", None)  # nothing is read
    for out in (tmp_path / "file" / "inner", tmp_path / "new"):
        outcome = runner.invoke(app, ["cluster", str(photos), "--out", str(out)])
        assert outcome.exit_code == 2 and "cannot be written" in " ".join(outcome.stderr.split())
        monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)


def test_errors_are_one_line(tmp_path: Path, written: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "single").mkdir()
    picture(0, RNG).save(tmp_path / "single" / "a.png")
    for arguments, text in (
        (["cluster", tmp_path / "empty", "--out", tmp_path / "o", "-k", 2], "holds no images"),
        (["cluster", tmp_path / "absent", "--out", tmp_path / "o"], "name a folder of images"),
        (["cluster", tmp_path / "single", "--out", tmp_path / "o", "-q"], "one image that can be read"),
        (["cluster", tmp_path / "single", "--out", tmp_path / "o", "--format", "csv"], "--table labels.csv"),
        (["search", tmp_path / "empty", "x.png"], "holds no result of images"),
        (["search", written, tmp_path / "absent.png"], "does not exist"),
        (["outliers", written, "-n", 0], "at least 1"),
    ):
        outcome = runner.invoke(app, [str(a) for a in arguments])
        assert outcome.exit_code == 2
        assert text in " ".join(outcome.stderr.split())
        assert len(outcome.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_second_choices_from_dense_and_sparse_probabilities() -> None:
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(5), 9000).astype(np.float32)  # more than one block of rows
    labels = np.where(np.arange(9000) % 7 == 0, -1, table.argmax(axis=1))
    x, centers = (
        rng.random((9000, 2), dtype=np.float32),
        Centers(np.arange(5), rng.random((5, 2), dtype=np.float32)),
    )
    found = [
        assignments([""] * 9000, labels, form, x, centers) for form in (table, scipy.sparse.csr_matrix(table))
    ]
    pd.testing.assert_frame_equal(*found)
    ordered = np.argsort(table, axis=1)
    expected = np.where(labels < 0, ordered[:, -1], ordered[:, -2])
    np.testing.assert_array_equal(found[0]["second_cluster"].to_numpy(np.int64), expected)
    np.testing.assert_allclose(found[0]["probability"], np.where(labels < 0, np.nan, table.max(axis=1)))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_images_of_a_container_are_found_again_from_another_working_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for n in range(9):
        buffer = io.BytesIO()
        picture(n % 3, RNG).save(buffer, "PNG")
        files.append(buffer.getvalue())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if kind == "tar":
        with tarfile.open("s.tar", "w") as archive:
            for n, data in enumerate(files):
                info = tarfile.TarInfo(f"{n}.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        pd.DataFrame({"image": [{"bytes": data} for data in files]}).to_parquet("s.parquet")
    images = read_images(f"s.{kind}")  # as a person names it
    Result.write("r", images, KMeans(3, random_state=0).fit(images.x), source=f"s.{kind}")
    monkeypatch.chdir(tmp_path)
    result = Result.open("here/r")
    assert result.image(0).size == (16, 16)
    assert result.export("out") == (9, [])


def test_an_export_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    images = read_images(np.stack([np.asarray(picture(n % 3, RNG)) for n in range(9)]))
    Result.write(tmp_path / "r", images, KMeans(3, random_state=0).fit(images.x))
    with pytest.raises(ValueError, match="none of the sources"):
        Result.open(tmp_path / "r").export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_report_of_a_folder_leads_to_the_files_by_short_names(tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    for kind in range(3):
        (folder / f"kind{kind}").mkdir(parents=True)
        for n in range(4):
            picture(kind, RNG).save(folder / f"kind{kind}" / f"{n} #1.png")
    (folder / "broken.png").write_bytes(b"")
    images = read_images(folder)
    Result.write(tmp_path / "r", images, KMeans(3, random_state=0).fit(images.x), source=folder)
    (folder / "kind2" / "3 #1.png").unlink()  # gone since
    with pytest.warns(UserWarning, match="1 of 12 images are not where they were"):
        text = Result.open(tmp_path / "r").write_report().read_text(encoding="utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["names"][:2] == ["kind0/0 #1.png", "kind0/1 #1.png"]
    assert data["links"] == {"base": "./../my%20photos/", "odd": {"11": None}}
    assert ["left out", "1, listed in skipped.csv"] in dict(data["made"])["images"]


def test_one_cluster_is_explained_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for n in range(3):
        picture(n, RNG).save(tmp_path / "few" / f"{n}.png")
    arguments = ["cluster", str(tmp_path / "few"), "--method", "ConsensusClustering", "--no-report"]
    found = runner.invoke(app, [*arguments, "--out", str(tmp_path / "a")])
    assert "all 3 samples are in one cluster" in " ".join(found.stderr.split())
    asked = runner.invoke(app, [*arguments, "--out", str(tmp_path / "b"), "-k", "1"])
    assert asked.exit_code == 0 and "one cluster" not in asked.stderr


def test_a_result_that_moved_with_its_images_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for kind in range(3):
        (old / "photos" / str(kind)).mkdir(parents=True)
        for n in range(3):
            picture(kind, RNG).save(old / "photos" / str(kind) / f"{n}.png")
    monkeypatch.chdir(old)
    images = read_images("photos")
    Result.write("result", images, KMeans(3, random_state=0).fit(images.x), source="photos")
    monkeypatch.chdir(tmp_path)
    old.rename(new)
    result = Result.open("new/result")
    assert result.labels["path"].tolist() == [path.replace(str(old), str(new)) for path in images.paths]
    assert result.image(0).size == (16, 16)
    assert len(result.update(new / "photos")) == 0  # they are known by their new names
    assert result.export(tmp_path / "out") == (9, [])
    assert Result.open(new / "result").meta["sources"] == [str(new / "photos")]
    # The result alone is moved: the images stay where they are.
    (new / "result").rename(tmp_path / "elsewhere")
    assert Result.open(tmp_path / "elsewhere").labels["path"].tolist() == result.labels["path"].tolist()


def test_rows_of_several_array_files_are_told_apart(tmp_path: Path) -> None:
    arrays = [np.stack([np.asarray(picture((n + shift) % 3, RNG)) for n in range(9)]) for shift in (0, 1)]
    for name, array in zip("ab", arrays):
        np.save(tmp_path / f"{name}.npy", array)
    images = read_images(tmp_path / "a.npy")
    model = KMeans(3, random_state=0).fit(images.x)
    Result.write(tmp_path / "r", images, model, source=tmp_path / "a.npy")
    assert len(Result.open(tmp_path / "r").update(tmp_path / "b.npy")) == 9
    result = Result.open(tmp_path / "r")
    for row, expected in enumerate(np.concatenate(arrays)):
        assert np.array_equal(np.asarray(result.image(row)), expected)
    (tmp_path / "b.npy").unlink()
    written, missing = Result.open(tmp_path / "r").export(tmp_path / "out")
    assert (written, len(missing)) == (9, 9)


def test_an_earlier_report_does_not_outlive_its_result(tmp_path: Path) -> None:
    images = read_images(np.stack([np.asarray(picture(n % 3, RNG)) for n in range(9)]))
    model = KMeans(3, random_state=0).fit(images.x)
    assert Result.write(tmp_path / "r", images, model).write_report(max_embedded=0).is_file()
    assert (tmp_path / "r" / "report_files").is_dir()
    Result.write(tmp_path / "r", images, KMeans(2, random_state=0).fit(images.x))
    assert not (tmp_path / "r" / "report.html").exists() and not (tmp_path / "r" / "report_files").exists()
    with pytest.warns(UserWarning, match="9 of 9 images are not where they were"):
        Result.open(tmp_path / "r").write_report()
