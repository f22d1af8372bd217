"""What the estimators share that embed features by an auto-encoder first, and search neighbours among its codes."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphclust._checks import check_count, check_number
from graphclust.graph import SampleGraph
from graphclust.graph.attachment import StackedRows, attach, nodes_of
from graphclust.methods.base import without_edges
from graphclust.methods.graph import GraphClusterer
from graphclust.methods.inputs import Input, read_features
from graphclust.nn.autoencoder import AutoEncoder
from graphclust.nn.likelihoods import resolve_likelihood
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.deferred import DeferredBatchSource
from graphclust.training.inference import in_blocks
from graphclust.training.stage import Stage, Step


@dataclass(eq=False, repr=False, kw_only=True)
class CodeGraphClusterer(GraphClusterer):
    """Base of the methods whose graph, where none is given, is built on the codes of an auto-encoder.

    The recipe puts `_embedding_stage` first and `_autoencoder` into its network; given edges are taken as they are, and
    the auto-encoder stays as it is.

    Parameters
    ----------
    autoencoder_channels : sequence of int
        Widths of the auto-encoder's hidden layers, its decoder is their mirror image.
    autoencoder_dim : int
        Width of its code, in which neighbours are searched.
    pretrain_epochs, pretrain_learning_rate, pretrain_batch_size : int, float, int
        Of the auto-encoder.

    Attributes
    ----------
    graph_ : SampleGraph
        Where it was built, `graph_.codes` [N, autoencoder_dim] is what its neighbours were searched by.
    """

    autoencoder_channels: Sequence[int] = (256, 256, 512)
    autoencoder_dim: int = 10
    pretrain_epochs: int = 50
    pretrain_learning_rate: float = 1e-3
    pretrain_batch_size: int = 256

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if isinstance(self.autoencoder_channels, (str, numbers.Number)):
            raise TypeError(
                f"autoencoder_channels={self.autoencoder_channels!r} is no sequence; give the widths in brackets, "
                "e.g. (256, 512)"
            )
        for width in self.autoencoder_channels:
            check_count(width, "autoencoder_channels")
        check_count(self.autoencoder_dim, "autoencoder_dim")
        check_count(self.pretrain_epochs, "pretrain_epochs", 0)
        check_number(self.pretrain_learning_rate, "pretrain_learning_rate", 0.0, open_low=True)
        check_count(self.pretrain_batch_size, "pretrain_batch_size")

    def _autoencoder(self, n_features: int) -> AutoEncoder:
        return AutoEncoder.mlp(n_features, tuple(self.autoencoder_channels), self.autoencoder_dim)

    def _embedding_stage(self, model: Any, source: BatchSource) -> Stage:
        """The auto-encoder alone; the graph is built on its codes afterwards. No epochs where edges are given."""
        epochs = 0
        if isinstance(source, DeferredBatchSource):
            epochs = self.pretrain_epochs
            source.make_graph = partial(self._code_graph, model, source.x)
        return Stage(
            "pretraining",
            self._reconstruction_loss,
            epochs,
            self.pretrain_learning_rate,
            batch_size=self.pretrain_batch_size,
            parameters=lambda m: m.autoencoder.parameters(),
        )

    def _reconstruction_loss(self, model: Any, batch: Batch) -> Step:
        x = model.scale(batch.x)
        likelihood = resolve_likelihood("auto", unit_range=model.scale.unit_range)
        output = model.autoencoder.decode(model.autoencoder.encode(x).mean)
        return Step({"reconstruction": likelihood.negative_log_likelihood(output, x).mean()})

    def _data_of(self, X: Input) -> Data:
        features = read_features(self, X, reset=True)
        given = self._given_graph(X)
        if given is not None:
            return given
        check_count(
            self.n_neighbors, "n_neighbors", 1, max(1, len(features) - 1), "there are no more other samples"
        )
        return without_edges(features)

    def _source(self, data: Data, device: torch.device, seed: int = 0) -> BatchSource:
        if data.edge_index is not None and isinstance(data, SampleGraph):
            return super()._source(data, device, seed)
        assert data.x is not None
        return DeferredBatchSource(data.x, **self._source_options(device, seed))

    def _codes_of(self, model: Any, x: Tensor) -> Tensor:
        """The auto-encoder's codes of stored features, on the CPU."""
        device = next(model.parameters()).device
        return in_blocks(lambda b: model.autoencoder.encode(model.scale(b)).mean, x, device=device).float()

    def _code_graph(self, model: Any, x: Tensor) -> SampleGraph:
        training = model.training  # the graph is made when the first batch is asked for
        codes = self._codes_of(model.eval(), x)
        model.train(training)
        graph = self._sample_graph(codes)
        graph.x, graph["codes"] = x, codes
        # Its distances are between codes, so that its features alone have no place in it.
        graph.construction = {**graph.construction, "source": "codes"}
        return graph

    def _attach(self, features: Tensor) -> SampleGraph:
        if self.graph_.construction.get("source") != "codes":  # a graph that was given
            return super()._attach(features)
        by_code = copy.copy(self.graph_)
        by_code.x = self.graph_["codes"]
        by_code.construction = {**self.graph_.construction, "source": "features"}
        attached: SampleGraph = attach(by_code, self._codes_of(self.model_, features))
        old, new = self.graph_.x, features.to(self.graph_.x.device)
        attached.x = StackedRows(old, new)
        # Codes of equal features differ by rounding.
        attached.stand_for = nodes_of(old, new, attached["neighbor_index"].second)
        return attached
