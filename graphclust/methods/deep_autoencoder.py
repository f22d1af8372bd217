"""What the estimators share that begin with an auto-encoder."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphclust._checks import check_choice, check_count, check_number
from graphclust.methods.base import DeepClusterer
from graphclust.methods.inputs import Input
from graphclust.methods.starts import start_centers
from graphclust.nn.autoencoder import AutoEncoder
from graphclust.nn.heads import StudentTAssignment
from graphclust.nn.likelihoods import Gaussian, Likelihood, resolve_likelihood
from graphclust.nn.losses import target_distribution
from graphclust.nn.networks import AutoEncoderNetwork
from graphclust.nn.scaling import FeatureScale
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import in_blocks
from graphclust.training.stage import Stage, Step

#: Steps over which the rate rises where a stage goes on with a pretrained network. (Without it `IDEC` lost the three
#: groups of 200 to 1,000 samples that k-means had found in its codes, and `DEC` all of 569; 20 and 50 serve alike.)
WARM_UP = 20


@dataclass(eq=False, repr=False, kw_only=True)
class AutoEncoderClusterer(DeepClusterer):
    """Base of the deep estimators with an auto-encoder: it is pretrained, and its codes are clustered.

    By itself it is pretraining and k-means on the codes; a method replaces what is its own: `_autoencoder` (the
    network), `_pretraining_loss`, `_head` (what holds the clusters), `_start` (how they begin).

    Parameters
    ----------
    hidden_channels : sequence of int
        Widths of the encoder; the decoder is its mirror image.
    latent_dim : int
        Width of the code.
    decoder : {"auto", "bernoulli", "gaussian"}
        Likelihood of a sample: Bernoulli for data in [0, 1] after scaling, Gaussian otherwise.
    pretrain_epochs, pretrain_learning_rate, pretrain_batch_size : int, float, int
        Of the auto-encoder alone.
    """

    hidden_channels: Sequence[int] = (256, 256, 512)
    latent_dim: int = 10
    decoder: str = "auto"
    pretrain_epochs: int = 50
    pretrain_learning_rate: float = 1e-3
    pretrain_batch_size: int = 256

    _variational: ClassVar[bool] = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self.decoder, "decoder", ("auto", "bernoulli", "gaussian"))
        check_number(self.pretrain_learning_rate, "pretrain_learning_rate", 0.0, open_low=True)
        check_count(self.pretrain_epochs, "pretrain_epochs", 0)
        check_count(self.latent_dim, "latent_dim")
        check_count(self.pretrain_batch_size, "pretrain_batch_size")
        if isinstance(self.hidden_channels, (str, numbers.Number)):
            raise TypeError(
                f"hidden_channels={self.hidden_channels!r} is no sequence; give the widths in brackets, e.g. (256, 512)"
            )

    def _build(self, n_features: int) -> Any:
        autoencoder = self._autoencoder(n_features)
        return AutoEncoderNetwork(FeatureScale(n_features), autoencoder, self._head(), self.n_clusters_)

    def _autoencoder(self, n_features: int) -> AutoEncoder:
        hidden = tuple(self.hidden_channels)
        return AutoEncoder.mlp(n_features, hidden, self.latent_dim, variational=self._variational)

    def _head(self) -> nn.Module:
        """Clusters in the latent space, before they are started."""
        return StudentTAssignment(self.n_clusters_, self.latent_dim)

    def _likelihood(self, model: Any) -> Likelihood:
        return resolve_likelihood(self.decoder, unit_range=model.scale.unit_range)

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        return [
            self._pretraining(),
            Stage("clusters", None, 0, start=partial(self._start, model, source, memory)),
        ]

    def _start(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> None:
        """First clusters, from the pretrained codes: here k-means. `memory["start"]` is their labels."""
        memory["start"] = start_centers(model, source, self.n_clusters_)

    def _pretraining_loss(self, model: Any, batch: Batch) -> Step:
        """Reconstruction of the samples."""
        x = model.scale(batch.x)
        return Step({"reconstruction": self._error(model, model.autoencoder.encode(x).mean, x)})

    def _error(self, model: Any, codes: Tensor, x: Tensor) -> Tensor:
        """Negative log-likelihood of scaled samples given their codes, the mean over samples."""
        likelihood = self._likelihood(model)
        return likelihood.negative_log_likelihood(model.autoencoder.decode(codes), x).mean()

    def _error_per_feature(self, model: Any, codes: Tensor, x: Tensor) -> Tensor:
        """Mean over samples and features of the cross-entropy or of the squared error, of which a likelihood has half.

        The weights of divergences beside it are the authors', whose code has the mean squared error.
        """
        whole = 2 if isinstance(self._likelihood(model), Gaussian) else 1
        return whole * self._error(model, codes, x) / x.shape[1]

    def _pretraining(self) -> Stage:
        """The auto-encoder alone."""
        return Stage(
            "pretraining",
            self._pretraining_loss,
            self.pretrain_epochs,
            self.pretrain_learning_rate,
            batch_size=self.pretrain_batch_size,
            parameters=lambda m: m.autoencoder.parameters(),
        )

    def _logits(
        self, model: Any, source: BatchSource, nodes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        nodes = torch.arange(source.n_samples) if nodes is None else nodes
        for block in nodes.split(8192):
            yield (
                block,
                in_blocks(lambda x: model.head(model.embed(x)), source.x[block], device=source.device),
            )

    def reconstruct(self, X: Input) -> NDArray[np.float32]:
        """Samples encoded and decoded again, [M, d] -> [M, d], in the units of the data."""
        codes = torch.from_numpy(self.transform(X))
        with torch.no_grad():
            return np.concatenate([self._decode(block.to(self._device)) for block in codes.split(8192)])

    def _decode(self, codes: Tensor) -> NDArray[np.float32]:
        model = self.model_
        output = self._likelihood(model).mean(model.autoencoder.decode(codes))
        return model.scale.inverse(output).cpu().numpy()


@dataclass(eq=False, repr=False, kw_only=True)
class FineTuned(AutoEncoderClusterer):
    """Adds the last stage, in which network and clusters are trained together, with its parameters.

    Parameters
    ----------
    epochs : int
        Most epochs of the last stage.
    learning_rate : float
        Of Adam, in the last stage.
    decay, decay_every : float, int
        The rate is multiplied by `decay` every `decay_every` epochs.
    tolerance : float or None
        With a number, the last stage ends when a smaller share of the labels changed in three epochs in a row.
    """

    epochs: int = 50
    learning_rate: float = 1e-3
    decay: float = 1.0
    decay_every: int = 10
    batch_size: int | None = 256
    tolerance: float | None = 1e-3

    _warm_up: ClassVar[int] = WARM_UP

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("learning_rate", "decay"):
            check_number(getattr(self, name), name, 0.0, open_low=True)
        check_count(self.epochs, "epochs", 0)
        check_count(self.decay_every, "decay_every")
        if self.tolerance is not None:
            check_number(self.tolerance, "tolerance", 0.0)

    @abstractmethod
    def _loss(self, model: Any, batch: Batch) -> Step:
        """What the last stage minimises."""

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        start = partial(self._start, model, source, memory)
        return [self._pretraining(), self._clustering(start)]

    def _clustering(self, start: Callable[[], None] | None = None) -> Stage:
        return Stage(
            "clustering",
            self._loss,
            self.epochs,
            self.learning_rate,
            decay=self.decay,
            decay_every=self.decay_every,
            warm_up=self._warm_up,
            batch_size=self.batch_size,
            uses_graph=self.uses_graph,
            start=start,
            tolerance=self.tolerance,
        )


def sharpened(model: Any, log_q: Tensor, batch: Batch) -> Tensor:
    """DEC's target P [b, K] of the batch's assignments, by the frequencies of all samples; not differentiated."""
    q = log_q.detach().exp()
    return target_distribution(q, model.frequencies.update(q, batch.n_samples))
