"""Arrays of images among what methods are given: their shape, their rows, and the range of their values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphclust._checks import check_choice
from graphclust.nn.convolutional import check_image_shape

#: Values that are read at once.
_BLOCK = 1 << 18


def as_rows(X: Any) -> tuple[Any, tuple[int, int, int] | None]:
    """Images [N, H, W], [N, H, W, C] or [N, C, H, W] as rows and their (H, W, C); else as it is, and None."""
    if isinstance(X, (list, tuple)):
        try:
            X = np.asarray(X)
        except ValueError as error:
            raise ValueError(
                "X is no matrix: its rows differ in length; pass one row of numbers a sample"
            ) from error
    if not isinstance(X, np.ndarray) or X.ndim < 3:
        return X, None
    if X.ndim > 4 or X.size == 0:
        raise ValueError(
            f"X has shape {list(X.shape)}, but samples are rows [N, d] or images [N, H, W] or [N, H, W, C], at least "
            "one of each; flatten what is neither: X.reshape(len(X), -1)"
        )
    if has_channels_first(X.shape):
        X = X.transpose(0, 2, 3, 1)
    height, width, *channels = X.shape[1:]
    return X.reshape(len(X), -1), (height, width, channels[0] if channels else 1)


def has_channels_first(shape: Sequence[int]) -> bool:
    """Whether an array of images is [N, C, H, W], as torch keeps them, and not [N, H, W, C]: C is 1, 3 or 4."""
    return len(shape) == 4 and shape[3] not in (1, 3, 4) and shape[1] in (1, 3, 4)


def check_images(X: Any, image_shape: tuple[int, int, int], estimator: Any) -> None:
    """Raise ValueError for images of another shape than those of `fit`."""
    fitted = estimator.image_shape_
    if image_shape == fitted:
        return
    height, width, channels = image_shape
    if fitted is not None and (len(X), height, width * channels) in (fitted, (*fitted[:2], 1)):
        raise ValueError(
            f"X has the shape of one image, {list(fitted[: 2 + (fitted[2] > 1)])}: pass a stack of images, X[None]"
        )
    given = f"X has images of height {height}, width {width} and {channels} channel(s)"
    if fitted is None:
        raise ValueError(
            f"{given}, but {type(estimator).__name__} was fitted to rows of {estimator.n_features_in_} features; pass "
            "rows: X.reshape(len(X), -1)"
        )
    raise ValueError(
        f"{given}, but {type(estimator).__name__} was fitted to height {fitted[0]}, width {fitted[1]} and "
        f"{fitted[2]} channel(s); resize them"
    )


def value_range(X: NDArray[Any]) -> tuple[float, float]:
    """Least and largest value of images [N, d], of a byte all that it can be; NaN is looked for elsewhere."""
    if X.dtype == np.uint8:
        return 0.0, 255.0
    step = max(1, _BLOCK // X.shape[1])
    blocks = [X[start : start + step] for start in range(0, len(X), step)]
    return float(min(np.min(block) for block in blocks)), float(max(np.max(block) for block in blocks))


def in_range(X: NDArray[Any], estimator: Any) -> NDArray[Any]:
    """Images [M, d] with values as those of `fit`: bytes are brought to [0, 1] where these were; else ValueError.

    Images are read from files in [0, 1], and arrays of them mostly hold bytes.
    """
    low, high = estimator.image_range_
    if X.dtype.kind not in "buif" or X.size == 0 or not 0 <= low < high:
        return X
    largest = float(X.max())
    if high <= 1 and X.dtype == np.uint8:
        if 0 < largest <= 1:
            warnings.warn(
                f"X holds bytes of 0 and 1, which are read as 1/255 of white: {type(estimator).__name__} was fitted to "
                "values from 0 to 1; pass X.astype(float) where 1 is white",
                stacklevel=3,
            )
        return np.divide(X, np.float32(255), dtype=np.float32)
    bytes_for_shares = high <= 1 and largest > 10
    shares_for_bytes = high > 10 and largest <= 1 and X.dtype.kind == "f" and bool((X % 1 != 0).any())
    if bytes_for_shares or shares_for_bytes:
        raise ValueError(
            f"X has images with values up to {largest:.4g}, but {type(estimator).__name__} was fitted to images with "
            f"values from {low:.4g} to {high:.4g}: bring them to the same range "
            f"({'X / 255' if bytes_for_shares else 'X * 255'})"
        )
    return X


#: Least growth of the differences from one to two rows, as a share of that from one to two columns. (Pictures of digits
#: and clothes, clean and with noise: 0.4 to 1; curves with a period of one row: -0.2 to 0.3.)
_GROWTH = 1 / 3


def choose_image_shape(
    image_shape: Any, n_features: int, read: tuple[int, int, int] | None, x: Tensor | None = None
) -> tuple[int, int, int] | None:
    """(H, W, C) of samples that are images, None for vectors.

    Parameters
    ----------
    image_shape : "auto", None, (H, W) or (H, W, C)
        "auto" takes the shape of the array that was given, and a row whose length is a square number of at least 16
        as a grey image; None takes every sample as a vector.
    n_features : int
    read : (H, W, C) or None
        Shape of the array that was given, None for rows.
    x : Tensor [N, d], optional
        The rows: where they are given, "auto" also asks that neighbouring entries are alike.
    """
    if image_shape is None:
        return None
    if isinstance(image_shape, str):
        check_choice(image_shape, "image_shape", ("auto",))
        side = math.isqrt(n_features)
        if read or side < 4 or side * side != n_features:
            return read
        return (side, side, 1) if x is None or _neighbors_alike(x, side) else None
    wanted = check_image_shape(image_shape)
    if math.prod(wanted) != n_features or (read is not None and read != wanted):
        found = f"has {n_features} features" if read is None else f"is an image (H, W, C) = {read}"
        raise ValueError(
            f"image_shape={image_shape!r} is (H, W, C) = {wanted} with {math.prod(wanted)} values, but a sample of X "
            f'{found}; name the shape of your images, "auto" or None'
        )
    return wanted


def _neighbors_alike(x: Tensor, side: int) -> bool:
    """Whether entries side by side in a square picture differ much less than any two: an embedding of 256 does not.

    The mean absolute difference of neighbours, down and across, is compared with that of random pairs of entries. In a
    curve of as many points near entries are alike too; but there a point is less like the one a whole row further than
    the one half a row further, and in a picture more.
    """
    rows = x[torch.linspace(0, len(x) - 1, min(len(x), 500)).long()].float()
    pictures = rows.unflatten(1, (side, side))
    down, across = (pictures.diff(dim=dim).abs().mean() for dim in (1, 2))
    order = torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(0))
    alike = (down + across) / 2 < 0.8 * (rows - rows[:, order]).abs().mean()
    half = side // 2
    in_rows = down < (rows[:, half:] - rows[:, :-half]).abs().mean()
    two_down = (pictures[:, 2:] - pictures[:, :-2]).abs().mean()
    two_across = (pictures[:, :, 2:] - pictures[:, :, :-2]).abs().mean()
    grows = (two_down - down) * across > _GROWTH * (two_across - across) * down
    return bool(alike and in_rows and grows)
