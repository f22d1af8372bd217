"""What the estimators share whose auto-encoder is convolutional."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from graphclust.methods.deep_autoencoder import AutoEncoderClusterer
from graphclust.methods.image_arrays import choose_image_shape
from graphclust.nn.autoencoder import AutoEncoder
from graphclust.nn.convolutional import check_channels, check_image_shape


@dataclass(eq=False, repr=False, kw_only=True)
class ConvClusterer(AutoEncoderClusterer):
    """Base of the deep estimators for images; samples that are no images get a fully connected auto-encoder.

    Parameters
    ----------
    image_shape : "auto", None, (H, W) or (H, W, C)
        What a sample is. "auto": an image for arrays [N, H, W] and [N, H, W, C], a grey image for rows whose length is
        a square number of at least 16, else a vector. None: a vector. A signal is an image of one row, (1, length).
    channels : sequence of int
        Of the convolutions; each halves height and width.
    hidden_channels : sequence of int
        Widths of the encoder of vectors, which is fully connected; images do not read it.
    """

    image_shape: Any = "auto"
    channels: Sequence[int] = (32, 64, 128)

    _batch_norm: ClassVar[bool] = True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if isinstance(self.channels, (str, numbers.Number)):
            raise TypeError(
                f"channels={self.channels!r} is no sequence; give the channels in brackets, e.g. (32, 64)"
            )
        check_channels(self.channels)
        if self.image_shape is not None and not isinstance(self.image_shape, str):
            check_image_shape(self.image_shape)

    def _build(self, n_features: int) -> Any:
        # Arrays of images have told their shape; rows have theirs from here on, so that `predict` takes both.
        read = getattr(self, "image_shape_", None)
        found = choose_image_shape(self.image_shape, n_features, read)
        self.image_shape_: tuple[int, int, int] | None = found or read
        return super()._build(n_features)

    def _picture(self, n_features: int) -> tuple[int, int, int] | None:
        """(H, W, C) of a sample as the network reads it, None for a vector."""
        return choose_image_shape(self.image_shape, n_features, self.image_shape_)

    def _autoencoder(self, n_features: int) -> AutoEncoder:
        picture = self._picture(n_features)
        if picture is None:
            return super()._autoencoder(n_features)
        return AutoEncoder.conv(
            picture,
            tuple(self.channels),
            self.latent_dim,
            variational=self._variational,
            batch_norm=self._batch_norm,
        )
