"""One image at a time: every mode, upright, and each kind of broken file with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graphclust.images.decode import UnreadableImage, decode, fit, read_size


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def colours() -> Image.Image:
    """Left half red, right half blue, 40 wide and 20 high."""
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))
    return image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_formats(colours: Image.Image, kind: str) -> None:
    image = decode(encoded(colours, kind))
    assert image.mode == "RGB"
    assert image.size == (40, 20)
    pixels = np.asarray(image).astype(int)
    assert pixels[10, 5, 0] > 200 > 60 > pixels[10, 5, 2]
    assert pixels[10, 35, 2] > 200 > 60 > pixels[10, 35, 0]


def test_exif_rotation_is_applied(colours: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to view
    data = encoded(colours, "JPEG", exif=exif, quality=95)
    image = decode(data)
    assert image.size == (20, 40) == read_size(io.BytesIO(data))
    assert np.asarray(image)[5, 10, 0] > 200  # what was on the left is on top


def test_transparent_pixels_lie_over_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (0, 255, 0, 255)
    image = Image.fromarray(rgba)
    for data in (encoded(image, "PNG"), encoded(image.quantize(4, method=Image.Quantize.FASTOCTREE), "PNG")):
        pixels = np.asarray(decode(data))
        assert tuple(pixels[0, 0]) == (0, 255, 0)
        assert tuple(pixels[3, 3]) == (255, 255, 255)
    grey = encoded(Image.fromarray(rgba[:, :, 2:]), "PNG")  # mode LA: blue as grey, and alpha
    assert np.asarray(decode(grey))[3, 3].min() == 255


def test_palette_with_one_transparent_colour() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    image.putpalette([200, 0, 0, 0, 0, 200])
    pixels = np.asarray(decode(encoded(image, "GIF", transparency=1)))
    assert tuple(pixels[0, 0]) == (200, 0, 0)
    assert tuple(pixels[0, 1]) == (255, 255, 255)


def test_sixteen_bits_by_one_rule() -> None:
    values = np.array([[0, 257 * 10], [257 * 128, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        image = decode(encoded(Image.fromarray(values), kind))
        assert image.mode == "L"
        assert np.asarray(image).tolist() == [[0, 10], [128, 255]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 1.0]], [[0, 255]]),
        ([[0.0, 51.0]], [[0, 51]]),
        ([[-1.0, 0.0, 1.0]], [[0, 128, 255]]),
        ([[np.nan, 1.0]], [[0, 255]]),
        ([[3.0, 3.0]], [[3, 3]]),
    ],
)
def test_floating_point(values: list[list[float]], expected: list[list[int]]) -> None:
    image = Image.fromarray(np.array(values, np.float32))
    assert np.asarray(decode(encoded(image, "TIFF"))).tolist() == expected


def test_cmyk_and_black_and_white(colours: Image.Image) -> None:
    pixels = np.asarray(decode(encoded(colours.convert("CMYK"), "JPEG", quality=95))).astype(int)
    assert pixels[10, 5, 0] > 200 > 80 > pixels[10, 5, 2]
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert np.asarray(decode(encoded(bits, "PNG"))).tolist() == [[0, 255]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_gives_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (250, 120, 0)]
    image = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.asarray(image)[4, 4, 0] > 240


def test_jpeg_is_decoded_small_where_that_is_enough() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 1024, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    assert decode(data, at_least=200).size == (256, 128)  # a quarter; an eighth would be below 200
    assert decode(data).size == (1024, 512)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is large, and holds nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, data, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def broken() -> dict[str, tuple[bytes, str]]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    jpeg, png, gif = (encoded(noise, kind) for kind in ("JPEG", "PNG", "GIF"))
    return {
        "empty": (b"", "empty file"),
        "text": (b"<html><body>no image</body></html>", "not an image"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        "truncated jpeg": (jpeg[: len(jpeg) // 2], "damaged"),
        "truncated png": (png[: len(png) // 2], "damaged"),
        "truncated gif": (gif[: len(gif) // 2], "damaged"),
        "flipped bytes": (png[:60] + bytes(200) + png[260:], "damaged"),
        "bomb": (png_header(30_000, 30_000), "too large"),
        "header alone": (jpeg[:3], "not an image"),
    }


@pytest.mark.parametrize("name", broken())
def test_broken_files_have_a_reason(name: str) -> None:
    data, reason = broken()[name]
    with pytest.raises(UnreadableImage, match=reason):
        decode(data)


def test_arrays_of_a_wrong_shape_have_a_reason() -> None:
    for shape in ((4,), (4, 4, 2), (2, 2, 2, 3)):
        with pytest.raises(UnreadableImage, match="shape"):
            decode(np.zeros(shape, np.uint8))
    assert decode(np.zeros((4, 5, 1), np.uint8)).size == (5, 4)


def test_pad_keeps_the_aspect_ratio_and_goes_on_with_the_border() -> None:
    image = Image.new("L", (40, 20), 30)
    image.paste(200, (10, 5, 30, 15))
    padded = fit(image, (40, 40), "pad")
    assert padded.shape == (40, 40)
    assert np.array_equal(padded[10:30], np.asarray(image))
    assert (padded[:10] == 30).all()
    assert (padded[30:] == 30).all()


def test_crop_and_stretch(colours: Image.Image) -> None:
    cropped = fit(colours, (20, 20), "crop")
    assert np.array_equal(cropped, np.asarray(colours)[:, 10:30])
    assert fit(colours, (10, 30), "stretch").shape == (10, 30, 3)


@pytest.mark.parametrize("how", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1), (7, 300)])
def test_fit_takes_any_shape(size: tuple[int, int], how: str) -> None:
    assert fit(Image.new("RGB", size, (9, 8, 7)), (24, 32), how).shape == (24, 32, 3)
    assert (fit(Image.new("RGB", size, (9, 8, 7)), (24, 32), how)[12, 16] == (9, 8, 7)).all()
