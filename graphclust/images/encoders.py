"""Who turns decoded images into features: pixels, a pretrained network, or a function of the user's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

#: Short names of networks that `transformers` downloads once, or finds in its cache.
ALIASES = {
    "dinov2": "facebook/dinov2-small",
    "dinov3": "facebook/dinov3-vits16-pretrain-lvd1689m",
    "clip": "openai/clip-vit-base-patch32",
    "siglip": "google/siglip-base-patch16-224",
}
EFFICIENTNET = "efficientnet-lite0"
EFFICIENTNET_LAYERS = f"{EFFICIENTNET}-layers"
NAMES = ("auto", "pixels", EFFICIENTNET, EFFICIENTNET_LAYERS, *ALIASES)
#: Axes of images [B, H, W, 3] along which each view is flipped.
MIRROR: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (2,)),
    "both": ((), (2,), (1,), (1, 2)),
}
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DEFAULT_SIZE = 224
# On a CPU the feature maps of eight images of 224 x 224 stay in its caches: EfficientNet-Lite0 was measured to read 36
# of them in a second of one core in batches of 4 or 8, 20 in batches of 32, 16 in batches of 64, and 30 one by one. Of
# smaller images more are taken, as what a call costs beside its images counts more: of 64 x 64, 370 in batches of 8
# and 540 in batches of 64.
_CPU_PIXELS, _CPU_BATCHES, _CUDA_BATCH = 8 * 224**2, (8, 64), 128


@dataclass(frozen=True, eq=False)
class Encoder:
    """From images of one size to rows of features.

    Attributes
    ----------
    name : str
        How results and messages call it.
    size : (H, W) or None
        Of the images that it takes; None for any.
    encode : callable
        uint8 [B, H, W, 3] to rows [B, ...].
    key : str or None
        Stands for the weights, for the cache; None when nothing stands for them, and then nothing is cached.
    batch_size : int
        Images at once with which it is fast.
    """

    name: str
    size: tuple[int, int] | None
    encode: Callable[[NDArray[np.uint8]], NDArray[Any]]
    key: str | None
    batch_size: int = 32


def make_encoder(features: Any, size: int | None = None, device: torch.device | None = None) -> Encoder:
    """The encoder that `features` names or is.

    Parameters
    ----------
    features : str, path, torch.nn.Module or callable
        See `graphclust.images.read_images`.
    size : int, optional
        Side of the square images; by default what the network was trained with, else 224.
    device : torch.device, optional
        CUDA where there is one, else the CPU.
    """
    import torch
    from torch import nn

    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(features, nn.Module):
        name = type(features).__name__
        mean, std = (tuple(getattr(features, key, default)) for key, default in _NORMALIZATION)
        # What its forward computes is not to be told from its weights: kept only under a name of the user's.
        own = getattr(features, "cache_key", None)
        key = None if own is None else f"{own} {_weights_key(name, features)}"
        return _network(name, features, size or _DEFAULT_SIZE, mean, std, device, key)
    if callable(features):
        return _function(features, size or _DEFAULT_SIZE)
    if not isinstance(features, (str, os.PathLike)):
        raise TypeError(
            f"features is a {type(features).__name__}: pass one of {', '.join(NAMES)}, the name or folder "
            "of a network for transformers, a torch.nn.Module, or a callable"
        )
    name = os.fspath(features)
    if name in (EFFICIENTNET, EFFICIENTNET_LAYERS):
        from graphclust.images import efficientnet

        network = efficientnet.load_efficientnet_lite0()
        model = efficientnet.LayerFeatures(network) if name == EFFICIENTNET_LAYERS else network
        scaling = (efficientnet.MEAN,) * 3, (efficientnet.STD,) * 3
        return _network(name, model, size or efficientnet.SIZE, *scaling, device, name)
    from graphclust.images.transformer import load_transformer

    given = ALIASES.get(name, name)
    if given not in ALIASES.values() and "/" not in given and not os.path.isdir(given):
        raise ValueError(
            f"features={name!r} is unknown: use one of {', '.join(NAMES)}, the name of a network for transformers "
            '("facebook/dinov2-base"), or the folder of one'
        )
    loaded = load_transformer(given)
    return _network(
        name,
        loaded.model,
        size or loaded.size,
        loaded.mean,
        loaded.std,
        device,
        _weights_key(given, loaded.model),
    )


def mirrored(encoder: Encoder, mirror: str) -> Encoder:
    """The encoder whose rows are the averages over an image and its mirror images, as `MIRROR` names them."""
    if mirror not in MIRROR:
        raise ValueError(f"mirror={mirror!r} is unknown: use one of {', '.join(MIRROR)}")
    views = MIRROR[mirror]
    if len(views) == 1:
        return encoder

    def encode(images: NDArray[np.uint8]) -> NDArray[Any]:
        total = sum(encoder.encode(np.ascontiguousarray(np.flip(images, axes))) for axes in views)
        return np.asarray(total / len(views), dtype=np.float32)

    key = None if encoder.key is None else f"{encoder.key} mirror={mirror}"
    return replace(encoder, encode=encode, key=key)


_NORMALIZATION = (("mean", _IMAGENET_MEAN), ("std", _IMAGENET_STD))


def _network(
    name: str,
    model: Any,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    key: str | None,
) -> Encoder:
    import torch

    # Convolutions are fastest with the channels last, as the pixels come.
    model = model.to(device=device, memory_format=torch.channels_last)
    shift, scale = (torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in (mean, std))

    def encode(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(np.require(images, requirements="W")).to(device).permute(0, 3, 1, 2)
                return _rows(model((pixels.float() - shift) / scale), name)
        finally:
            model.train(was_training)

    batch_size = _CUDA_BATCH
    if device.type != "cuda":
        least, most = _CPU_BATCHES
        batch_size = min(max(_CPU_PIXELS // size**2, least), most)
    if key is not None:
        key = f"{key} mean={mean} std={std}"
    return Encoder(name, (size, size), encode, key, batch_size)


def _rows(output: Any, name: str) -> NDArray[np.float32]:
    """One vector an image: what networks return has many forms, of which the pooled one is taken."""
    for attribute in ("pooler_output", "last_hidden_state"):
        if getattr(output, attribute, None) is not None:
            output = getattr(output, attribute)
            break
    if isinstance(output, (tuple, list)):
        output = output[0]
    if not hasattr(output, "ndim"):
        raise TypeError(f"the network {name} returns a {type(output).__name__}: a tensor [B, d] is needed")
    if output.ndim == 4:
        output = output.mean(dim=(2, 3))
    if output.ndim != 2:
        raise ValueError(
            f"the network {name} returns a tensor of shape {list(output.shape)}: [B, d] is needed"
        )
    return np.asarray(output.float().cpu().numpy(), dtype=np.float32)


def _function(function: Callable[..., Any], size: int) -> Encoder:
    name = getattr(function, "__name__", type(function).__name__)

    def encode(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = function(images)
        rows = rows.detach().cpu().numpy() if hasattr(rows, "detach") else np.asarray(rows)
        if rows.ndim != 2 or len(rows) != len(images):
            raise ValueError(
                f"features={name} returns an array of shape {list(rows.shape)} for {len(images)} images: "
                f"[{len(images)}, d] is needed"
            )
        return rows.astype(np.float32)

    return Encoder(name, (size, size), encode, None)


def _weights_key(name: str, model: Any) -> str:
    digest = hashlib.blake2b(repr(model).encode(), digest_size=16)
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return f"{name} {digest.hexdigest()}"
