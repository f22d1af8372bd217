"""One image file to pixels: any mode upright as 8-bit grey or RGB, and brought to a size."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

RESIZE = ("pad", "stretch", "crop")

#: What is tried on a file's content. Pillow knows more, among them formats that start other programs (EPS).
FORMATS = (
    "JPEG", "MPO", "PNG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "AVIF", "PPM", "ICO", "JPEG2000", "HEIF",
)  # fmt: skip
#: Names that say "image". A file of another name is not opened, one without a suffix is judged by its content.
SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".webp",
        ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".jp2", ".j2k", ".jpx", ".heic", ".heif",
    }
)  # fmt: skip

_ORIENTATION = ExifTags.Base.Orientation
# Decoded one at a time, so that a row of large scans does not take the memory of all threads at once.
_LARGE_PIXELS = 1 << 25
_one_large = threading.Lock()


class UnreadableImage(ValueError):
    """An image that cannot be decoded; the text says why, in words for `skipped.csv`."""


def decode(data: Any, *, at_least: int | None = None) -> Image.Image:
    """Decode one image: the first frame, upright, mode "L" or "RGB".

    EXIF rotation is applied. Transparent pixels are laid over white. 16-bit values are divided by 257, which maps the
    full range to 8 bits by one fixed rule; floating-point images in [0, 1] or [0, 255] keep that range, others are
    stretched from their smallest to their largest value. CMYK becomes RGB without its colour profile.

    Parameters
    ----------
    data : bytes, PIL.Image.Image, or array [H, W] or [H, W, C] with C = 1, 3 or 4
        Content of a file, or an image in memory.
    at_least : int, optional
        The longer side that is enough; JPEG is then decoded at a half, a quarter or an eighth where that is larger.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    UnreadableImage
        With the reason.
    """
    try:
        image = _open(data)
        if image.width * image.height > _LARGE_PIXELS:
            with _one_large:
                return _eight_bit(_upright(image, at_least))
        return _eight_bit(_upright(image, at_least))
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(
            f"too large: {str(error).split(' exceeds')[0]} (PIL.Image.MAX_IMAGE_PIXELS allows more)"
        ) from error
    except (
        Exception
    ) as error:  # a damaged file may raise anything in any of the decoders, and the run goes on
        raise UnreadableImage(f"damaged: {_reason(error)}") from error


def read_size(file: Any) -> tuple[int, int]:
    """Width and height of an upright image (a path or an open file) from its header alone."""
    try:
        with Image.open(file, formats=_formats()) as image:
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            width, height = image.size
            return (height, width) if turned else (width, height)
    except Exception as error:  # as above
        raise UnreadableImage(f"damaged: {_reason(error)}") from error


def fit(image: Image.Image, size: tuple[int, int], resize: str = "pad") -> NDArray[np.uint8]:
    """Bring a decoded image to a size.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode "L" or "RGB".
    size : (H, W)
    resize : {"pad", "stretch", "crop"}
        "pad" keeps the aspect ratio and all of the image; what is left is filled with the median colour of its border,
        so that a dark or white background goes on. "stretch" ignores the aspect ratio. "crop" keeps it, and cuts off
        what lies beyond the middle.

    Returns
    -------
    ndarray, uint8, shape [H, W] or [H, W, 3]
    """
    height, width = size
    if resize == "stretch":
        return np.asarray(_resized(image, width, height))
    ratios = width / image.width, height / image.height
    scale = min(ratios) if resize == "pad" else max(ratios)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if resize == "crop":
        inner = max(width, inner[0]), max(height, inner[1])
    pixels = np.asarray(_resized(image, *inner))
    left, top = abs(width - inner[0]) // 2, abs(height - inner[1]) // 2
    if resize == "crop":
        return pixels[top : top + height, left : left + width]
    if pixels.shape[:2] == size:
        return pixels
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    padded = np.empty((height, width, *pixels.shape[2:]), np.uint8)
    padded[:] = np.median(border, axis=0).astype(np.uint8)
    padded[top : top + inner[1], left : left + inner[0]] = pixels
    return padded


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _open(data: Any) -> Image.Image:
    if isinstance(data, Image.Image):
        return data
    if isinstance(data, np.ndarray):
        return _from_array(data)
    if not data:
        raise UnreadableImage("empty file")
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage("not an image, whatever its name says") from error


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise UnreadableImage(
            f"array of shape {array.shape}: [H, W] or [H, W, C] with C = 1, 3 or 4 is needed"
        )
    if array.dtype == np.uint16:
        array = _to_bytes(array.astype(np.float32), 65535.0)
    elif array.dtype != np.uint8:
        array = _to_bytes(array.astype(np.float32))
    return Image.fromarray(np.ascontiguousarray(array))


def _upright(image: Image.Image, at_least: int | None) -> Image.Image:
    if at_least is not None and max(image.size) > at_least:
        scale = at_least / max(image.size)
        # Only JPEG listens. Both sides stay above the wanted ones, so the sizing afterwards still averages pixels.
        image.draft(None, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
    image.load()
    try:  # asked first, as an upright image would be copied
        return image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata; the pixels are there
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        if "transparency" not in image.info:
            return image
        image = image.convert("RGBA")
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") and (
        image.mode != "P" or "transparency" in image.info
    ):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float32)
        whole = image.mode.startswith("I") and values.min() >= 0 and values.max() <= 65535
        return Image.fromarray(_to_bytes(values, 65535.0 if whole else None))
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_bytes(values: NDArray[np.float32], white: float | None = None) -> NDArray[np.uint8]:
    """Numbers to 0 .. 255: by a known white, else by the range that they keep to."""
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if white is None:
        if low >= 0 and high <= 255:
            white = 1.0 if high <= 1 else 255.0
        else:
            values, white = values - low, high - low
    return np.rint(values * (255 / white)).astype(np.uint8)


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image
    # Large reductions first average whole blocks, which is faster and hardly differs.
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__
