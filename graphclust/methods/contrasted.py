"""What the estimators share whose graph encoder learns by contrast with a shuffled graph."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from graphclust._checks import check_count
from graphclust.methods.graph_encoder import GraphEncoderClusterer
from graphclust.nn.smoothing import SmoothedEncoder
from graphclust.training.batches import Batch


@dataclass(eq=False, repr=False, kw_only=True)
class ContrastedClusterer(GraphEncoderClusterer):
    """Base of GraphMI and DinkNet: a discriminator tells codes of the graph from codes of shuffled features.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    n_hops : int
        Propagations of the trained codes, which are added to the codes before all are made of length 1; 0 for none.
    num_neighbors : sequence of int or None
        Neighbours sampled per hop in mini-batches, one for each convolution; None takes 10, then 5, then 2 of each.
    """

    hidden_channels: Sequence[int] = ()
    latent_dim: int = 512
    n_hops: int = 5
    learning_rate: float = 1e-3

    # Far hops are averages of averages: few neighbours tell enough of them.
    _default_neighbors: ClassVar[tuple[int, ...]] = (10, 5, 2)

    @abstractmethod
    def _discriminator(self) -> nn.Module:
        """``discriminator(true codes, false codes) -> loss``."""

    def _check_parameters(self) -> None:
        check_count(self.n_hops, "n_hops", 0)
        super()._check_parameters()

    @property
    def _n_layers(self) -> int:
        return super()._n_layers + self.n_hops

    @property
    def _n_sampled(self) -> int:
        return super()._n_layers  # codes are contrasted before they are smoothed

    def _build(self, n_features: int) -> Any:
        model = super()._build(n_features)
        model.discriminator = self._discriminator()
        return model

    def _encoder(self, n_features: int) -> SmoothedEncoder:
        widths = (n_features, *self.hidden_channels, self.latent_dim)
        return SmoothedEncoder(widths, self.conv, ["prelu"] * (len(widths) - 1), n_hops=self.n_hops)

    def _contrast(self, model: Any, batch: Batch, rows: int | None = None) -> tuple[Tensor, Tensor]:
        """Loss of the discriminator on a batch, and the true codes H of its first `rows` rows, not smoothed yet.

        Those of the batch's own samples for None.
        """
        assert batch.adjacency is not None
        rows = batch.size if rows is None else rows
        x = model.scale(batch.x)
        true, false = model.encoder.local_pair(x, batch.adjacency, rows, batch.size)
        return model.discriminator(true[: batch.size], false), true
