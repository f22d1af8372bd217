"""DBC and DECDA: the boosted target, what the target is read from, what is augmented, images and vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphclust
from graphclust import DBC, DECDA
from graphclust.methods.deep_autoencoder import WARM_UP
from graphclust.nn import (
    ConvEncoder,
    MLPEncoder,
    RandomAffine,
    RandomNoise,
    kl_divergence,
    target_distribution,
)
from graphclust.training.batches import Batch

pytestmark = pytest.mark.filterwarnings("ignore:.*clusters were asked for")
TINY: dict[str, Any] = {
    "channels": [4, 6],
    "hidden_channels": [16],
    "latent_dim": 4,
    "pretrain_epochs": 2,
    "epochs": 3,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def x(digits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return digits[0][:200]


def whole_batch(x: np.ndarray) -> Batch:
    return Batch(torch.from_numpy(x.copy()), torch.arange(len(x)), len(x))


def soft(seed: int) -> Tensor:
    return torch.randn(40, 5, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(dim=1)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])
def test_boosted_target_by_hand(alpha: float) -> None:
    s = soft(0).double()
    boosted = target_distribution(s, s.pow(alpha).sum(dim=0), alpha)
    wanted = torch.zeros_like(s)
    for i in range(40):
        ratios = [float(s[i, j]) ** alpha / float((s[:, j] ** alpha).sum()) for j in range(5)]
        wanted[i] = torch.tensor([r / sum(ratios) for r in ratios])
    torch.testing.assert_close(boosted, wanted)
    # A common factor of the frequencies changes nothing.
    torch.testing.assert_close(target_distribution(s, 7 * s.pow(alpha).sum(dim=0), alpha), boosted)


def test_a_larger_exponent_decides_more() -> None:
    s = soft(1)
    sharpness = [
        float(target_distribution(s, torch.ones(5), alpha).amax(dim=1).mean()) for alpha in (1.0, 2.0, 4.0)
    ]
    assert sharpness == sorted(sharpness) and sharpness[2] - sharpness[0] > 0.1
    torch.testing.assert_close(target_distribution(s, torch.ones(5), 1.0), s)


@pytest.mark.parametrize("alpha", [2, 3.0])
def test_dbc_minimises_the_divergence_from_its_boosted_target(alpha: float, x: np.ndarray) -> None:
    model = DBC(5, **{**TINY, "epochs": 1}, alpha=alpha).fit(x)
    network, batch = model.model_, whole_batch(x)
    step = model._loss(network, batch)  # in evaluation mode: the running statistics, no renewal
    with torch.no_grad():
        held = network.held(network.scale(batch.x)).exp()
        target = target_distribution(held, held.pow(alpha).sum(dim=0), alpha)
        wanted = kl_divergence(target, network(batch.x))
    torch.testing.assert_close(step.terms["kl"].detach(), wanted, atol=1e-5, rtol=1e-4)
    step.terms["kl"].backward()
    assert float(network.head.centers.grad.abs().max()) > 0
    assert float(network.autoencoder.encoder.layers[0].weight.grad.abs().max()) > 0
    assert network.held.head.centers.grad is None


def test_decda_compares_the_moved_with_the_clean_sample(x: np.ndarray) -> None:
    model = DECDA(5, **{**TINY, "epochs": 1}).fit(x)
    network, batch = model.model_, whole_batch(x)
    seen: list[Tensor] = []

    class Mirror(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            seen.append(rows)
            return rows.flip(1)

    network.augmentation = Mirror()
    step = model._loss(network, batch)
    with torch.no_grad():
        rows = network.scale(batch.x)
        held = network.held(rows).exp()
        target = target_distribution(held, held.sum(dim=0))
        wanted = kl_divergence(target, network.head(network.autoencoder.encode(rows.flip(1)).mean))
    torch.testing.assert_close(step.terms["kl"].detach(), wanted, atol=1e-5, rtol=1e-4)
    assert len(seen) == 1 and torch.equal(seen[0], rows)
    # Labels are those of the clean sample.
    assert torch.equal(step.probabilities.exp(), held)
    pretraining = model._pretraining_loss(network, batch).terms["reconstruction"]
    codes = network.autoencoder.encode(rows.flip(1)).mean
    torch.testing.assert_close(pretraining, model._error(network, codes, rows.flip(1)))


def test_decda_takes_noise_out_of_vectors(x: np.ndarray) -> None:
    model = DECDA(5, **TINY, image_shape=None, dropout=1.0, noise=0.0).fit(x)
    network, batch = model.model_, whole_batch(x)
    assert isinstance(network.augmentation, RandomNoise)
    network.augmentation.train()
    found = model._pretraining_loss(network, batch).terms["reconstruction"]
    rows = network.scale(batch.x)
    codes = network.autoencoder.encode(torch.zeros_like(rows)).mean
    torch.testing.assert_close(found, model._error(network, codes, rows))


def test_parameters_reach_the_augmentation(x: np.ndarray) -> None:
    settings = {"degrees": 3.0, "translate": 0.2, "zoom": 0.25, "shear": 4.0}
    moving = DECDA(3, **{**TINY, "pretrain_epochs": 0, "epochs": 0}, **settings).fit(x).model_.augmentation
    assert isinstance(moving, RandomAffine)
    assert (moving.degrees, moving.translate, moving.scale, moving.shear) == (3.0, 0.2, (0.75, 1.25), 4.0)
    assert moving.image_shape == (8, 8, 1)


@pytest.mark.parametrize("method", [DBC, DECDA])
def test_images_rows_and_vectors(method: Any, x: np.ndarray, tmp_path: Path) -> None:
    rows = method(3, **TINY).fit(x)
    assert isinstance(rows.model_.autoencoder.encoder, ConvEncoder)
    assert rows.image_shape_ == (8, 8, 1)
    images = method(3, **TINY).fit(x.reshape(-1, 8, 8))
    np.testing.assert_array_equal(images.labels_, rows.labels_)
    read = graphclust.load(images.save(tmp_path / "model"))
    for model in (rows, images, read):
        np.testing.assert_array_equal(model.predict(x), rows.labels_)
        np.testing.assert_array_equal(model.predict(x.reshape(-1, 8, 8)), rows.labels_)
    assert rows.reconstruct(x[:3]).shape == (3, 64)

    signal = method(3, **TINY, image_shape=(1, 64)).fit(x)
    assert signal.model_.autoencoder.encoder.image_shape == (1, 64, 1)
    vectors = method(3, **TINY, image_shape=None).fit(x.reshape(-1, 8, 8))
    assert isinstance(vectors.model_.autoencoder.encoder, MLPEncoder)
    assert vectors.image_shape_ == (8, 8, 1)  # of the array, which predict takes again
    vectors.predict(x.reshape(-1, 8, 8))
    odd = method(3, **TINY).fit(x[:, :63])
    assert isinstance(odd.model_.autoencoder.encoder, MLPEncoder) and odd.image_shape_ is None

    colour = np.random.default_rng(0).integers(0, 256, (40, 7, 5, 3), dtype=np.uint8)
    model = method(3, **TINY, batch_size=13).fit(colour)  # batches of 13 and one of a single sample
    assert model.model_.autoencoder.encoder.image_shape == (7, 5, 3)
    assert model.predict(colour[:1]).shape == (1,)


@pytest.mark.parametrize("method", [DBC, DECDA])
def test_targets_are_held_for_a_period(method: Any, x: np.ndarray) -> None:
    model = method(4, **{**TINY, "epochs": 5}, period=2, batch_size=64, tolerance=None).fit(x)
    changed = [r["changed"] for r in model.history_ if r["stage"] == "clustering"]
    # Labels are read off the held assignments: they can change at a renewal alone, in epochs 3 and 5.
    assert changed[1] == changed[3] == 0.0
    assert changed[2] > 0.0


def test_stops_when_renewals_change_no_label(x: np.ndarray) -> None:
    # Without batch normalisation, whose running statistics move by themselves.
    model = DBC(4, **{**TINY, "epochs": 40}, image_shape=None, learning_rate=1e-8, period=2).fit(x)
    records = [r for r in model.history_ if r["stage"] == "clustering"]
    # The warm-up (a step an epoch), and three periods of two.
    assert len(records) == WARM_UP + 6


def test_resumes_in_the_middle_of_a_period(x: np.ndarray, tmp_path: Path) -> None:
    settings = {**TINY, "epochs": 12, "tolerance": None}
    whole = DECDA(4, **settings, period=4, checkpoint=tmp_path / "a").fit(x)

    class KilledError(Exception):
        pass

    class Killed(DECDA):
        def _loss(self, model: Any, batch: Batch) -> Any:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps > 11:
                raise KilledError
            return super()._loss(model, batch)

    Killed.__name__ = "DECDA"
    with pytest.raises(KilledError):
        Killed(4, **settings, period=4, checkpoint=tmp_path / "b").fit(x)
    resumed = DECDA(4, **settings, period=4, checkpoint=tmp_path / "b").fit(x)
    np.testing.assert_array_equal(resumed.embedding_, whole.embedding_)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (DBC(alpha=0.5), "alpha"),
        (DBC(period=0), "period"),
        (DBC(image_shape=(8, 9)), "image_shape"),
        (DBC(channels=(8, 0)), "channels"),
        (DECDA(degrees=-1), "degrees"),
        (DECDA(zoom=1.0), "zoom"),
        (DECDA(dropout=2), "dropout"),
    ],
)
def test_bad_parameters(model: Any, message: str, x: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        model.fit(x)


def test_channels_must_be_a_sequence(x: np.ndarray) -> None:
    with pytest.raises(TypeError, match="channels=32"):
        DBC(channels=32).fit(x)
