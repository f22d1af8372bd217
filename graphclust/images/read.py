"""`read_images`: whatever holds images, as one matrix of features."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graphclust._checks import check_count, check_device
from graphclust.images.cache import FeatureStore, default_cache
from graphclust.images.collection import Images
from graphclust.images.decode import RESIZE
from graphclust.images.encoders import EFFICIENTNET_LAYERS, MIRROR, make_encoder, mirrored
from graphclust.images.items import value_range_of
from graphclust.images.pipeline import Encoded, encode_all
from graphclust.images.pixels import are_small, array_features, as_features, pixel_encoder
from graphclust.images.sources import Source, open_source


def read_images(
    source: Any,
    features: Any = "auto",
    *,
    size: int | Sequence[int] | None = None,
    resize: str = "pad",
    mirror: str = "auto",
    channels: int | None = None,
    unit_length: bool = True,
    column: str | None = None,
    value_range: Sequence[float] | None = None,
    cache: str | os.PathLike[str] | None = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    device: Any = None,
    verbose: bool = False,
) -> Images:
    """Read images, and turn each into a row of features.

    What cannot be read is left out and listed with its reason. The features of a network are kept by the content of
    the image (cache), so that a second run, or one after a kill, computes only what is new.

    Parameters
    ----------
    source : path, sequence of paths, array, sequence of images, or datasets.Dataset
        A folder (nested, links followed once), an image file, a tar shard (WebDataset) or a pattern of shards
        ("a-{000..009}.tar", "*.tar"), a parquet file with images, a folder that `datasets` saved; a list of such paths;
        an array or tensor of images [N, H, W] or [N, H, W, C], a list of arrays or of Pillow images, a
        `datasets.Dataset`. Features [N, d] (an array, .npy, .npz, .parquet, .csv) are taken as they are.
    features : str, path, torch.nn.Module or callable
        "auto" takes pixels where all images have one size of at most 64 x 64, else "efficientnet-lite0-layers" (the
        weights come with the extra `images`): EfficientNet-Lite0's own features, which know objects, beside averages
        and maxima of two inner feature maps, which know strokes, textures and shapes. "efficientnet-lite0" are the
        former alone. "pixels"; "dinov2", "dinov3", "clip", "siglip", any other name on the hub, or the folder of a
        network (the library transformers); a module from [B, 3, S, S] to [B, d], normalised by its attributes `mean`
        and `std` where it has them, else as ImageNet (its features are kept in the cache only where it has an attribute
        `cache_key`, a text that changes with its code); a function from uint8 [B, S, S, 3] to [B, d].
    size : int or (H, W), optional
        Of the images that are encoded; by default their own for pixels, for networks what they were trained with.
    resize : {"pad", "stretch", "crop"}
        See `graphclust.images.fit`.
    mirror : {"auto", "none", "horizontal", "both"}
        Of network features: average those of the image and of its mirror images, left to right, or also top to bottom.
        "both" is for images that have no upright position (leaves, cells, aerial photographs), and takes four times
        as long. "auto": "horizontal" where `features` is "auto" too and takes a network, as a photograph and its mirror
        image show the same; else "none". Give "none" for images of writing, or to take half the time.
    channels : {1, 3}, optional
        Of pixels; by default 1 where all images are grey.
    unit_length : bool
        Scale each network feature vector to length 1, so that Euclidean neighbours are those of the cosine.
    column : str, optional
        Column of a data set with several columns of images; array or column of a feature file.
    value_range : (float, float), optional
        Of images in an array that is not 8-bit: the values that are black and white. By default 0 and 1, or 0 and 255,
        whichever holds all of them, else the array's own extremes. A result keeps them for new images.
    cache : path, "auto" or None
        Folder for features; "auto" is ``features`` in GRAPHCLUST_CACHE, else in ``~/.cache/graphclust``.
    batch_size : int, optional
        Images that the network takes at once; by default 8 of 224 x 224 on a CPU and more of smaller ones, 128
        on CUDA, 32 for a function.
    workers : int, optional
        Threads that decode; by default one a core.
    device : str or torch.device, optional
        Of the network; CUDA where there is one, else the CPU.
    verbose : bool
        Show progress and throughput on standard error.

    Returns
    -------
    Images

    Raises
    ------
    ValueError
        If nothing can be read, or a parameter is not valid.
    ImportError
        If a library of an extra is missing; the message names the extra.

    Examples
    --------
    >>> import numpy as np
    >>> read_images(np.zeros((5, 8, 8), np.uint8))
    Images(5 x 64 features, pixels, 0 skipped)
    """
    if resize not in RESIZE:
        raise ValueError(f"resize={resize!r} is unknown: use one of {', '.join(RESIZE)}")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels={channels!r}: use 1 (grey), 3 (colour) or None (as the images are)")
    for name, count in (("batch_size", batch_size), ("workers", workers)):
        if count is not None:
            check_count(count, name)
    if mirror != "auto" and mirror not in MIRROR:
        raise ValueError(f"mirror={mirror!r} is unknown: use one of auto, {', '.join(MIRROR)}")
    sides = _sides(size)
    if value_range is not None and isinstance(source, (list, tuple)) and _are_alike(source):
        source = np.stack(source)  # one array, as those whose range it is
    opened = open_source(source, column=column)
    white: tuple[float, float] | None = None
    if opened.pixels is not None and opened.pixels.dtype not in (np.uint8, np.bool_):
        white = _range(value_range, opened.pixels)
        opened = opened.in_range(white)
    is_given = isinstance(features, str) and features == "given"  # in the settings of a result of features
    if opened.features is None and is_given:
        raise ValueError(
            f"{opened.where} holds images, and features [N, d] are needed, as they were given before"
        )
    if opened.features is not None:
        if not is_given and not (isinstance(features, str) and features == "auto"):
            raise ValueError(
                f"{opened.where} holds features [N, d], and images are needed to compute features={features!r}: give "
                "images, or leave features out to take these as they are"
            )
        x = np.asarray(opened.features, dtype=np.float32)
        return Images(x, [str(row) for row in range(len(x))], settings={"features": "given"})
    with warnings.catch_warnings():
        # Damaged metadata, and sizes below the limit: what cannot be read is listed.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        features, mirror = chosen_features(opened, features, mirror)
        if isinstance(features, str) and features == "pixels":
            if mirror != "none":
                raise ValueError(
                    f"mirror={mirror!r} averages features of a network, and these are pixels: leave it out, or choose "
                    f"features={EFFICIENTNET_LAYERS!r}"
                )
            own = opened.pixels is not None and sides in (None, opened.pixels.shape[1:3])
            if opened.pixels is not None and own and opened.pixels.shape[3:] != (4,):
                x = array_features(opened.pixels, channels, white or value_range_of(opened.pixels))
                return _of_pixels(x, opened, Encoded(x, opened.items, 0.0), resize, white)
            # At their own size, small images are decoded as fast as they would be found again.
            folder = None if sides is None else _cache_folder(cache)
            store = FeatureStore(folder, {"key": "pixels", "size": sides, "resize": resize})
            encoder = pixel_encoder(sides)
            encoded = encode_all(opened, encoder, store, resize=resize, workers=workers, verbose=verbose)
            return _of_pixels(as_features(encoded.rows, channels), opened, encoded, resize, white)
        if sides is not None and sides[0] != sides[1]:
            raise ValueError(f"size={sides}: networks take square images, give one number")
        encoder = make_encoder(features, None if sides is None else sides[0], check_device(device))
        encoder = mirrored(encoder, mirror)
        how = {"key": encoder.key, "size": encoder.size, "resize": resize}
        store = FeatureStore(_cache_folder(cache) if encoder.key else None, how)
        encoded = encode_all(
            opened, encoder, store, resize=resize, batch_size=batch_size, workers=workers, verbose=verbose
        )
    rows = encoded.rows.astype(np.float32)
    if unit_length:
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    assert encoder.size is not None
    settings = {
        # A module or a function has no name by which it could be found again.
        "features": os.fspath(features) if isinstance(features, (str, os.PathLike)) else None,
        "size": encoder.size[0],
        "resize": resize,
        "mirror": mirror,
        "unit_length": unit_length,
    }
    if white is not None:
        settings["value_range"] = list(white)
    return _collection(rows, opened, encoded, settings)


def _are_alike(images: Sequence[Any]) -> bool:
    """Whether all are arrays of one shape."""
    return len({getattr(image, "shape", None) for image in images}) == 1 and all(
        isinstance(image, np.ndarray) and image.ndim in (2, 3) for image in images
    )


def _range(given: Sequence[float] | None, pixels: NDArray[Any]) -> tuple[float, float]:
    """The values that are black and white, as they are given or told from the pixels."""
    own = value_range_of(pixels)
    if given is None:
        return own
    low, high = (float(value) for value in given)
    if not low < high:
        raise ValueError(f"value_range={tuple(given)!r} must be two numbers, the lower one first")
    if float(pixels.max()) > high + 2 * (high - low):
        warnings.warn(
            f"the images reach {float(pixels.max()):g}, and {high:g} is white, as it was for those before: bring them "
            "to the same units, or give value_range",
            stacklevel=3,
        )
    return low, high


def chosen_features(opened: Source, features: Any, mirror: str) -> tuple[Any, str]:
    """What "auto" stands for, of `features` and `mirror`, for the images of a source."""
    if isinstance(features, str) and features == "auto":
        features = "pixels" if are_small(opened) else EFFICIENTNET_LAYERS
        if mirror == "auto" and features != "pixels":
            mirror = "horizontal"
    return features, "none" if mirror == "auto" else mirror


def _of_pixels(
    x: NDArray[np.float32],
    opened: Source,
    encoded: Encoded,
    resize: str,
    white: tuple[float, float] | None,
) -> Images:
    shape = x.shape[1:]
    settings: dict[str, Any] = {
        "features": "pixels",
        "size": list(shape[:2]),
        "resize": resize,
        "channels": 3 if shape[2:] else 1,
    }
    if white is not None:
        settings["value_range"] = list(white)
    return _collection(x.reshape(len(x), -1), opened, encoded, settings, shape)


def _collection(
    x: NDArray[np.float32],
    opened: Source,
    encoded: Encoded,
    settings: dict[str, Any],
    shape: tuple[int, ...] | None = None,
) -> Images:
    paths = [item.name for item in encoded.items]
    return Images(x, paths, opened.skipped, shape, settings, encoded.seconds, encoded.items)


def _cache_folder(cache: str | os.PathLike[str] | None) -> Path | None:
    if cache is None:
        return None
    return default_cache() if cache == "auto" else Path(cache)


def _sides(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(
        isinstance(side, (int, np.integer)) and 1 <= side <= 4096 for side in sides
    ):
        raise ValueError(f"size={size!r}: give one side or (H, W), whole numbers from 1 to 4096")
    return int(sides[0]), int(sides[1])
