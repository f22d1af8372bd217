"""What people hand over: folders with everything that folders hold, lists, arrays, shards, tables, data sets."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from graphclust.images import is_image_source, list_images, path_as_text, printable, text_as_path
from graphclust.images.items import FileItem, as_bytes_in_one_range
from graphclust.images.sources import open_source


def png(value: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (4, 4), value).save(stream, "PNG")
    return stream.getvalue()


def put(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(value))
    return path


def names(source: object) -> list[str]:
    return [os.path.basename(item.name) for item in list_images(source)]


def test_folders_are_read_nested_and_sorted(tmp_path: Path) -> None:
    for name in ("b/z.png", "a/x.JPG", "a/c/deep.tiff", "top.webp", "no_suffix"):
        put(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    put(tmp_path / ".hidden.png")
    put(tmp_path / ".thumbnails" / "t.png")
    source = open_source(tmp_path)
    shown = [os.path.relpath(item.name, tmp_path) for item in source.items]
    assert shown == ["no_suffix", "top.webp", "a/x.JPG", "a/c/deep.tiff", "b/z.png"]
    reasons = {os.path.basename(entry.path): entry.reason for entry in source.skipped}
    assert reasons == {
        "notes.txt": "not an image by its name (.txt)",
        ".hidden.png": "hidden",
        ".thumbnails": "hidden",
    }


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "real" / "a.png")
    put(tmp_path / "elsewhere" / "b.png")
    photos = tmp_path / "photos"
    (photos / "again").symlink_to(photos / "real")
    (photos / "real" / "loop").symlink_to(photos)
    (photos / "other").symlink_to(tmp_path / "elsewhere")
    (photos / "nothing.png").symlink_to(tmp_path / "gone.png")
    (photos / "circle.png").symlink_to(photos / "circle.png")
    source = open_source(photos)
    assert sorted(os.path.basename(item.name) for item in source.items) == [
        "a.png", "b.png", "circle.png", "nothing.png",
    ]  # fmt: skip
    assert [entry.reason for entry in source.skipped] == [
        "folder that was read already (a link or a loop)"
    ] * 2
    assert "real/a.png" in source.items[2].name  # under its own name, not that of the link
    with pytest.raises(ValueError, match="does not exist"):
        FileItem(str(photos / "nothing.png")).load()
    with pytest.raises(ValueError, match="links"):
        FileItem(str(photos / "circle.png")).load()


def test_a_link_upwards_does_not_bring_in_what_lies_beside_the_folder(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.png")
    put(tmp_path / "private" / "b.png")
    (tmp_path / "photos" / "up").symlink_to("..")
    source = open_source(tmp_path / "photos")
    assert [os.path.basename(item.name) for item in source.items] == ["a.png"]
    assert [entry.reason for entry in source.skipped] == ["link to a folder above (a loop)"]


def test_a_result_inside_the_folder_is_no_source_of_images(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "result" / "report_files" / "sheet.png")
    put(tmp_path / "other" / "report_files" / "b.png")
    for name in ("model", "graph"):
        (tmp_path / "result" / name).mkdir()
    for name in ("images.json", "labels.parquet"):
        (tmp_path / "result" / name).write_text("{}")
    source = open_source(tmp_path)
    assert sorted(os.path.basename(item.name) for item in source.items) == ["a.png", "b.png"]
    assert [entry.reason for entry in source.skipped] == ["folder of a result, which holds thumbnails"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(raw, "wb") as file:
        file.write(png())
    (item,) = list_images(tmp_path)
    assert item.name.endswith(r"caf\xe9.png")
    item.name.encode("utf-8")
    assert item.load() == png()
    assert os.fsencode(text_as_path(item.name)) == raw
    assert path_as_text(text_as_path(item.name)) == item.name
    assert names([item.name]) == [r"caf\xe9.png"]


def test_names_for_a_terminal_hold_no_commands() -> None:
    assert printable("a\x1b[31m\n\r<b>é") == "a\\x1b[31m\\n\\r<b>é"


def test_files_that_must_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="not a regular file"):
        FileItem(str(tmp_path / "pipe.png")).load()
    monkeypatch.setattr("graphclust.images.items._MOST_BYTES", 10)
    with pytest.raises(ValueError, match="too large"):
        FileItem(str(put(tmp_path / "large.png"))).load()


def test_unreadable_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, closed = put(tmp_path / "secret.png"), put(tmp_path / "closed" / "x.png").parent
    real_scan = os.scandir

    def scan(path: str) -> object:
        if path == str(closed):
            raise PermissionError(13, "Permission denied")
        return real_scan(path)

    def refuse(*_: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("graphclust.images.folders.os.scandir", scan)
    source = open_source(tmp_path)
    assert [entry.reason for entry in source.skipped] == ["folder: permission denied"]
    monkeypatch.setattr("graphclust.images.items.open", refuse, raising=False)
    with pytest.raises(ValueError, match="permission denied"):
        FileItem(str(secret)).load()


def test_nothing_to_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no images: name a folder"):
        open_source(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="not an image by its name"):
        open_source(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_source(tmp_path / "absent")
    with pytest.raises(ValueError, match="empty"):
        open_source([])
    with pytest.raises(TypeError, match="source is a int"):
        open_source(3)


def test_lists_of_paths(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.png")
    put(tmp_path / "2.png")
    source = open_source([tmp_path / "a", str(tmp_path / "2.png"), tmp_path / "absent.png"])
    assert [os.path.basename(item.name) for item in source.items] == ["1.png", "2.png"]
    assert len(source.skipped) == 1
    assert "does not exist" in source.skipped[0].reason
    assert names(str(tmp_path / "*" / "*.png")) == ["1.png"]
    with pytest.raises(TypeError, match="paths alone"):
        open_source([str(tmp_path), np.zeros((3, 3))])


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tar.xz", "w:xz")])
def test_webdataset_shards(tmp_path: Path, suffix: str, mode: str) -> None:
    members = {f"{n:03}.png": png(n) for n in range(5)} | {"000.cls": b"3", "../../evil.png": png(99)}
    shard = tar(tmp_path / f"s-000{suffix}", members, mode)
    items = list_images(shard)
    assert [item.name for item in items] == [f"{shard}::{name}" for name in members if name != "000.cls"]
    assert [item.load() for item in reversed(items)] == [png(n) for n in (99, 4, 3, 2, 1, 0)]
    assert not (tmp_path.parent.parent / "evil.png").exists()


def test_shards_by_folder_and_pattern(tmp_path: Path) -> None:
    for n in range(3):
        tar(tmp_path / f"t-{n:03}.tar", {"x.png": png(n)})
    assert len(list_images(tmp_path)) == 3
    assert len(list_images(str(tmp_path / "t-{001..002}.tar"))) == 2
    assert len(list_images(str(tmp_path / "t-*.tar"))) == 3
    put(tmp_path / "one.png")  # beside images an archive is a backup, not data
    source = open_source(tmp_path)
    assert len(source.items) == 1
    assert {entry.reason for entry in source.skipped} == {"archive beside image files: give it by name"}


def test_truncated_shard_gives_what_came_before(tmp_path: Path) -> None:
    whole = tar(tmp_path / "w.tar", {f"{n}.png": png(n) + bytes(5000) for n in range(6)}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:20_000])
    (tmp_path / "noise.tar").write_bytes(b"no archive" * 100)
    source = open_source(tmp_path / "cut.tar")
    assert 2 <= len(source.items) <= 4
    assert source.items[0].load().startswith(b"\x89PNG")
    assert "damaged archive after 0 images" in open_source(tmp_path / "noise.tar").skipped[0].reason


def test_parquet_of_images_and_of_features(tmp_path: Path) -> None:
    rows = [{"bytes": png(n), "path": f"{n}.png"} for n in range(7)]
    table = pa.table({"image": rows, "label": list(range(7))})
    pq.write_table(table, tmp_path / "hub.parquet", row_group_size=2)
    items = list_images(tmp_path / "hub.parquet")
    assert [item.load() for item in items[::-1]] == [png(n) for n in range(7)][::-1]
    assert is_image_source(tmp_path / "hub.parquet")
    assert len(list_images(tmp_path)) == 7
    features = pd.DataFrame(np.eye(3, dtype=np.float32), columns=list("abc"))
    features.to_parquet(tmp_path / "features.parquet")
    assert not is_image_source(tmp_path / "features.parquet")
    found = open_source(tmp_path / "features.parquet").features
    assert found is not None
    assert np.array_equal(found, np.eye(3))


def test_array_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "features.npz", x=np.ones((4, 3)))
    source = open_source(tmp_path / "images.npy")
    assert source.pixels is not None
    assert [item.name for item in source.items] == [f"{tmp_path / 'images.npy'}::{n}" for n in range(5)]
    assert np.array_equal(source.items[3].load(), images[3])
    assert open_source(tmp_path / "features.npz").features is not None


def test_arrays_and_tensors() -> None:
    torch = pytest.importorskip("torch")
    assert len(open_source(np.zeros((5, 4, 4))).items) == 5
    assert open_source(torch.zeros(5, 3, 8, 9)).items[0].load().shape == (8, 9, 3)
    assert open_source(np.zeros((5, 4))).features is not None
    assert len(open_source([np.zeros((4, 4)), np.zeros((5, 7, 3))]).items) == 2
    assert len(open_source([Image.new("L", (3, 3))]).items) == 1
    for wrong in (np.zeros(3), np.zeros((2, 5, 3, 5)), np.zeros((0, 3, 3))):
        with pytest.raises(ValueError, match="shape"):
            open_source(wrong)


def test_an_array_of_images_keeps_one_scale() -> None:
    images = np.stack([np.full((2, 2), value) for value in (0.0, 0.5, 1.0)])
    assert [int(as_bytes_in_one_range(images)(n)[0, 0]) for n in range(3)] == [0, 128, 255]
    assert [int(as_bytes_in_one_range(images * 200)(n)[0, 0]) for n in range(3)] == [0, 100, 200]
    assert [int(as_bytes_in_one_range(images * 2 - 1)(n)[0, 0]) for n in range(3)] == [0, 128, 255]
    with pytest.raises(ValueError, match="NaN"):
        as_bytes_in_one_range(np.full((1, 2, 2), np.nan))


def test_hugging_face_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra datasets")
    put(tmp_path / "file.png", 7)
    rows = {"image": [{"bytes": png(1), "path": None}, {"bytes": None, "path": str(tmp_path / "file.png")}]}
    dataset = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()}))
    assert [item.load() for item in list_images(dataset)] == [png(1), png(7)]
    dataset.save_to_disk(tmp_path / "saved")
    assert len(list_images(tmp_path / "saved")) == 2
    with pytest.raises(ValueError, match=r"dataset\['train'\]"):
        list_images(datasets.DatasetDict(train=dataset))
    with pytest.raises(ValueError, match="0 columns of images"):
        list_images(datasets.Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(ValueError, match="holds no images"):
        open_source(dataset, column="absent")


def test_a_data_set_without_its_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"graphclust\[datasets\]"):
        open_source(tmp_path)


def test_which_paths_are_images(tmp_path: Path) -> None:
    for name in ("x.png", "s.tar", "s-{0..9}.tar", "x.TIFF"):
        assert is_image_source(Path(name))
    assert is_image_source(tmp_path)
    for name in ("x.npy", "x.csv", "x.npz", "absent.parquet"):
        assert not is_image_source(Path(name))
