"""What the estimators share whose codes come from a stack of graph convolutions."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from graphclust._checks import check_choice, check_count, check_number
from graphclust.graph import SampleGraph
from graphclust.methods.graph import GraphClusterer, unique_nodes
from graphclust.methods.inputs import Input
from graphclust.methods.starts import rows_at_once, start_centers
from graphclust.nn.convolutions import CONVOLUTIONS, Convolution
from graphclust.nn.graph_encoder import GraphEncoder, GraphEncoderNetwork
from graphclust.nn.heads import StudentTAssignment
from graphclust.nn.scaling import FeatureScale
from graphclust.nn.term_scale import TermScale
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import collect, layerwise_outputs
from graphclust.training.stage import Stage, Step


@dataclass(eq=False, repr=False, kw_only=True)
class GraphCodes(GraphClusterer):
    """Base of the estimators whose codes depend on the graph, not on a sample's own features alone.

    New samples are attached to the training graph by `transform` as by `predict`, so that ``transform(X)`` of the
    training data is `embedding_`.
    """

    @abstractmethod
    def _graph_codes(
        self, model: Any, source: BatchSource, nodes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of sorted nodes with their codes [b, latent_dim], exact; all nodes for None."""

    def transform(self, X: Input) -> NDArray[np.float32]:
        """Latent codes of samples, [M, latent_dim], read where `predict` reads them: in the graph."""
        check_is_fitted(self, "model_")
        return self._codes(*self._new_samples(X))

    def _take_results(self, source: BatchSource) -> None:
        # The graph is read once, for the codes; the labels are read off these.
        assert isinstance(source.graph, SampleGraph)
        self.graph_ = source.graph
        codes = source.codes
        if codes is None:
            codes = torch.cat([codes for _, codes in self._graph_codes(self.model_, source, None)])
        logits = (
            self._head_of(self.model_, block, source) for block in codes.split(rows_at_once(self.n_clusters_))
        )
        self.labels_, self.probabilities_ = collect(logits, len(codes))
        self.embedding_ = codes.float().numpy()

    def _codes(self, source: BatchSource, nodes: Tensor | None) -> NDArray[np.float32]:
        wanted, place = unique_nodes(nodes)
        codes = torch.cat([codes for _, codes in self._graph_codes(self.model_, source, wanted)])
        return codes[place].float().numpy()

    def _logits(
        self, model: Any, source: BatchSource, nodes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for block, codes in self._graph_codes(model, source, nodes):
            yield block, self._head_of(model, codes, source)

    @staticmethod
    def _head_of(model: Any, codes: Tensor, source: BatchSource) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model.head(codes.to(source.device)).cpu()
        return logits


@dataclass(eq=False, repr=False, kw_only=True)
class GraphEncoderClusterer(GraphCodes):
    """Base of the methods with a graph encoder: it is trained on the graph, then its codes are clustered by k-means.

    A method says what is minimised (`_loss`); it may replace the encoder (`_encoder`), what holds the clusters
    (`_head`), how they begin (`_start`), and the order of things (`_stages`).

    With ``scale="auto"`` bags of words have rows of length 1 (`graphclust.nn.TermScale`).

    Parameters
    ----------
    hidden_channels : sequence of int
        Widths of the hidden convolutions.
    latent_dim : int
        Width of the code.
    conv : {"gcn", "gat", "sage", "gin"} or callable
        Graph convolution; a callable takes (in_channels, out_channels) and returns a PyG layer.
    epochs : int
        Passes over the data.
    learning_rate : float
        Of Adam.
    weight_decay : float
        Decoupled (AdamW).
    num_neighbors : sequence of int or None
        Neighbours sampled per hop in mini-batches, one for each convolution; None takes 10 a hop.
    """

    hidden_channels: Sequence[int] = (256,)
    latent_dim: int = 16
    conv: str | Convolution = "gcn"
    epochs: int = 200
    learning_rate: float = 1e-2
    weight_decay: float = 0.0
    num_neighbors: Sequence[int] | None = None

    #: Whether codes are scaled to length 1.
    _unit_length: ClassVar[bool] = False
    #: Whether the loss of a batch reads the codes of its samples' neighbours as well: one hop more is sampled.
    _reads_neighbors: ClassVar[bool] = False
    _default_neighbors: ClassVar[tuple[int, ...]] = (10,)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if isinstance(self.hidden_channels, (str, numbers.Number)):
            raise TypeError(
                f"hidden_channels={self.hidden_channels!r} is no sequence; give the widths in brackets, e.g. (256,)"
            )
        for width in self.hidden_channels:
            check_count(width, "hidden_channels")
        check_count(self.latent_dim, "latent_dim")
        if isinstance(self.conv, str):
            check_choice(self.conv, "conv", tuple(CONVOLUTIONS))
        check_count(self.epochs, "epochs", 0)
        check_number(self.learning_rate, "learning_rate", 0.0, open_low=True)
        check_number(self.weight_decay, "weight_decay", 0.0)

    def _k_means_options(self, n_samples: int) -> dict[str, Any]:
        """What k-means on the codes is called with."""
        return {}

    @property
    def _n_layers(self) -> int:
        """Convolutions of the encoder."""
        return len(tuple(self.hidden_channels)) + 1

    @property
    def _n_sampled(self) -> int:
        """Hops that the loss of a batch reads."""
        return self._n_layers + self._reads_neighbors

    def _hops(self) -> int | None:
        # A layer of the user's may look further than one hop.
        return self._n_layers if isinstance(self.conv, str) else None

    def _build(self, n_features: int) -> Any:
        return GraphEncoderNetwork(
            self._feature_scale(n_features),
            self._encoder(n_features),
            self._head(),
            self.n_clusters_,
            self.latent_dim,
            unit_length=self._unit_length,
        )

    def _feature_scale(self, n_features: int) -> FeatureScale | TermScale:
        """Scaling of the input. Long documents shall not count more than short ones."""
        return TermScale(n_features, by_rarity=False)

    def _encoder(self, n_features: int) -> GraphEncoder:
        """Convolutions from features to codes."""
        return GraphEncoder((n_features, *self.hidden_channels, self.latent_dim), self.conv)

    def _head(self) -> nn.Module:
        """Clusters in the latent space, before they are started."""
        return StudentTAssignment(self.n_clusters_, self.latent_dim)

    @abstractmethod
    def _loss(self, model: Any, batch: Batch) -> Step:
        """What is minimised."""

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        return [
            self._training(source),
            Stage("clusters", None, 0, start=partial(self._start, model, source, memory)),
        ]

    def _training(self, source: BatchSource) -> Stage:
        """The encoder on the graph."""
        batch_size, epochs = self._in_batches(self.epochs, source)
        return Stage(
            "training",
            self._loss,
            epochs,
            self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=batch_size,
            uses_graph=True,
        )

    def _in_batches(self, epochs: int, source: BatchSource) -> tuple[int | None, int]:
        """Samples a step, and passes over the data."""
        return self.batch_size, epochs

    def _start(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> None:
        """Clusters of the trained codes, by k-means. `memory["start"]` is their labels."""
        codes = torch.cat([codes for _, codes in self._graph_codes(model, source, None)])
        self._start_at(codes, model, source, memory)

    def _start_at(self, codes: Tensor, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> None:
        source.codes = codes
        options = self._k_means_options(len(codes))
        memory["start"] = start_centers(model, source, self.n_clusters_, codes, **options)

    def _graph_codes(
        self, model: Any, source: BatchSource, nodes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for block, out in layerwise_outputs(model.encoder, source, nodes, prepare=model.scale):
            yield block, model.code(out)
