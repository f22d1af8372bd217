"""What the estimators share that begin with an auto-encoder."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphclust._checks import check_choice, check_count, check_number
from graphclust.methods.base import DeepClusterer
from graphclust.methods.inputs import Input
from graphclust.nn.autoencoder import AutoEncoder
from graphclust.nn.heads import StudentTAssignment
from graphclust.nn.likelihoods import Likelihood, resolve_likelihood
from graphclust.nn.losses import target_distribution
from graphclust.nn.networks import AutoEncoderNetwork
from graphclust.nn.scaling import FeatureScale
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import in_blocks
from graphclust.training.stage import Loss, Stage, Step


@dataclass(eq=False, repr=False, kw_only=True)
class AutoEncoderClusterer(DeepClusterer):
    """Base of the deep estimators with an auto-encoder: it is pretrained, and its codes are clustered."""

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
        return AutoEncoderNetwork(FeatureScale(n_features), autoencoder, self._head(), self.n_clusters)

    def _autoencoder(self, n_features: int) -> AutoEncoder:
        hidden = tuple(self.hidden_channels)
        return AutoEncoder.mlp(n_features, hidden, self.latent_dim, variational=self._variational)

    def _head(self) -> nn.Module:
        """Clusters in the latent space, before they are started."""
        return StudentTAssignment(self.n_clusters, self.latent_dim)

    def _likelihood(self, model: Any) -> Likelihood:
        return resolve_likelihood(self.decoder, unit_range=model.scale.unit_range)

    def _pretraining(self, model: Any, loss: Loss | None = None, name: str = "pretraining") -> Stage:
        """The auto-encoder alone, on its reconstruction (or another loss)."""
        likelihood = self._likelihood(model)

        def reconstruct(m: Any, batch: Batch) -> Step:
            x = m.scale(batch.x)
            output = m.autoencoder.decode(m.autoencoder.encode(x).mean)
            return Step({"reconstruction": likelihood.negative_log_likelihood(output, x).mean()})

        return Stage(
            name,
            reconstruct if loss is None else loss,
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
class FineTuned(DeepClusterer):
    """Adds the last stage, in which network and clusters are trained together, with its parameters."""

    epochs: int = 50
    learning_rate: float = 1e-3
    decay: float = 1.0
    decay_every: int = 10
    batch_size: int | None = 256
    tolerance: float | None = 1e-3

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("learning_rate", "decay"):
            check_number(getattr(self, name), name, 0.0, open_low=True)
        check_count(self.epochs, "epochs", 0)
        check_count(self.decay_every, "decay_every")
        if self.tolerance is not None:
            check_number(self.tolerance, "tolerance", 0.0)

    def _clustering(self, loss: Loss, start: Callable[[], None] | None = None) -> Stage:
        return Stage(
            "clustering",
            loss,
            self.epochs,
            self.learning_rate,
            decay=self.decay,
            decay_every=self.decay_every,
            batch_size=self.batch_size,
            uses_graph=self.uses_graph,
            start=start,
            tolerance=self.tolerance,
        )


def sharpened(model: Any, log_q: Tensor, batch: Batch) -> Tensor:
    """DEC's target P [b, K] of the batch's assignments, by the frequencies of all samples; not differentiated."""
    q = log_q.detach().exp()
    return target_distribution(q, model.frequencies.update(q, batch.n_samples))
