"""DFCN: deep fusion clustering network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from graphclust._checks import check_choice, check_count, check_number
from graphclust.methods.deep_autoencoder import FineTuned, sharpened
from graphclust.methods.files import reading
from graphclust.methods.graph_encoder import GraphCodes
from graphclust.methods.starts import start_centers
from graphclust.nn.convolutions import CONVOLUTIONS, Convolution
from graphclust.nn.edges import propagation_error
from graphclust.nn.losses import kl_divergence
from graphclust.nn.scaling import FeatureScale
from graphclust.nn.structure_fusion import FusedCodes, StructureAttributeNetwork
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import layerwise_outputs
from graphclust.training.stage import Stage, Step

Model = StructureAttributeNetwork


@dataclass(eq=False, repr=False, kw_only=True)
class DFCN(GraphCodes, FineTuned):
    r"""Deep fusion clustering network (Tu, Zhou, Liu, Guo, Cai, Zhu & Cheng 2021).

    An auto-encoder and a symmetric graph auto-encoder give two codes of each sample. They are fused, in the graph and
    by the samples' likeness (`StructureAttributeFusion`), and both decoders start from the fused code. Minimised is

    .. math::
        \tfrac1d L_{rec}(x, \hat x) + \tfrac{1}{Nd} |\tilde A X - \hat Z|^2
        + \gamma \tfrac{1}{N^2} |\tilde A - \hat A|^2
        + \lambda\, KL\big(P \| \sqrt[3]{Q\, Q_{AE}\, Q_{GAE}}\big)

    with gamma = 0.1, lambda = 10: one target P, from the fused codes, supervises three Student-t assignments, those of
    the fused codes and of both parts. :math:`\hat A` is the sum of the logistic inner products of the graph encoder's
    code and of its decoder's output. The paper reports 79.5 / NMI 82.8 / ARI 75.3 on USPS.

    The parts are trained alone first, then together without the clusters, which begin as k-means of the fused codes.

    The self-correlation compares every sample with every other: N^2 `latent_dim` multiplications a step, in tiles, so
    that nothing of size N x N is stored, nor for :math:`|\tilde A - \hat A|^2`, whose pairs are sampled. In
    mini-batches a sample is compared with the samples of its batch, and in the end with `batch_size` training samples.

    Departures: one share of the blend for each dimension of the code, not for each sample's each dimension; samples as
    they are, not their principal components; ReLU instead of leaky ReLU; tanh after the sum over neighbours, and none
    at the decoder's end; Bernoulli likelihood for data in [0, 1]; the geometric mean of the three assignments, as in
    the authors' code, where the paper has the arithmetic one; P follows Q in every step; labels are the argmax of Q,
    not a last k-means.

    Parameters
    ----------
    graph_channels : sequence of int
        Hidden widths of the graph encoder; its decoder is the mirror image.
    conv : {"gcn", "gat", "sage", "gin"} or callable
        Graph convolution; a callable takes (in_channels, out_channels) and returns a PyG layer.
    gamma : float
        Weight of the error of the graph.
    kl_weight : float
        :math:`\lambda`, weight of the triple self-supervision.
    graph_epochs, joint_epochs, graph_learning_rate : int, int, float
        Of the graph auto-encoder alone, and of all without clusters.
    num_neighbors : sequence of int or None
        Neighbours sampled per hop in mini-batches: one number for each convolution of encoder and decoder, and one for
        the propagation between; None takes 5, 3, 2, 1, 1, ...

    Attributes
    ----------
    keys_ : Tensor [M, latent_dim]
        Codes of training samples before the self-correlation, with which any sample is compared: of all of them, or of
        `batch_size`.
    """

    hidden_channels: Sequence[int] = (128, 256, 512)
    graph_channels: Sequence[int] = (256, 128)
    latent_dim: int = 20
    conv: str | Convolution = "gcn"
    gamma: float = 0.1
    kl_weight: float = 10.0
    graph_epochs: int = 30
    joint_epochs: int = 50
    graph_learning_rate: float = 1e-3
    epochs: int = 100
    batch_size: int | None = None
    tolerance: float | None = None
    num_neighbors: Sequence[int] | None = None

    _default_neighbors: ClassVar[tuple[int, ...]] = (5, 3, 2, 1)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for width in self.graph_channels:
            check_count(width, "graph_channels")
        if isinstance(self.conv, str):
            check_choice(self.conv, "conv", tuple(CONVOLUTIONS))
        check_number(self.gamma, "gamma", 0.0)
        check_number(self.kl_weight, "kl_weight", 0.0)
        check_count(self.graph_epochs, "graph_epochs", 0)
        check_count(self.joint_epochs, "joint_epochs", 0)
        check_number(self.graph_learning_rate, "graph_learning_rate", 0.0, open_low=True)

    @property
    def _n_sampled(self) -> int:
        # The convolutions of encoder and decoder, and the propagation between.
        return 2 * (len(tuple(self.graph_channels)) + 1) + 1

    def _build(self, n_features: int) -> Any:
        return StructureAttributeNetwork(
            FeatureScale(n_features),
            self._autoencoder(n_features),
            self._head(),
            self.n_clusters_,
            (n_features, *self.graph_channels, self.latent_dim),
            self.conv,
        )

    # -- stages ------------------------------------------------------------------------------------------------

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        graph: dict[str, Any] = {
            "learning_rate": self.graph_learning_rate,
            "batch_size": self.batch_size,
            "uses_graph": True,
        }
        return [
            self._pretraining(),
            Stage(
                "graph",
                self._graph_alone,
                self.graph_epochs,
                parameters=lambda m: [*m.encoder.parameters(), *m.decoder.parameters()],
                **graph,
            ),
            Stage("joint", lambda m, b: self._joint(m, b)[0], self.joint_epochs, **graph),
            self._clustering(partial(self._start, model, source, memory)),
        ]

    def _graph_error(
        self, model: Model, x: Tensor, structure: Tensor, codes: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """Loss of the graph auto-encoder, which decodes `codes`."""
        assert batch.adjacency is not None
        decoded = model.decoder(codes, batch.adjacency)
        pairs = propagation_error([structure, decoded], batch.index, batch.adjacency, batch.n_samples)
        return {
            "input": model.input_error(decoded, x, batch.adjacency, batch.size),
            "graph": self.gamma * pairs,
        }

    def _graph_alone(self, model: Model, batch: Batch) -> Step:
        x = model.scale(batch.x)
        assert batch.adjacency is not None
        structure = model.encoder(x, batch.adjacency, constant=True)
        return Step(self._graph_error(model, x, structure, structure, batch))

    def _joint(self, model: Model, batch: Batch) -> tuple[Step, FusedCodes]:
        """Both decoders from the fused codes."""
        x = model.scale(batch.x)
        assert batch.adjacency is not None
        codes = model(x, batch.adjacency, batch.size)
        own = x[: batch.size]
        error = self._error_per_feature(model, codes.fused[: batch.size], own)
        terms = {"reconstruction": error, **self._graph_error(model, x, codes.structure, codes.fused, batch)}
        return Step(terms), FusedCodes(*(z[: batch.size] for z in codes))

    def _loss(self, model: Model, batch: Batch) -> Step:
        step, codes = self._joint(model, batch)
        log_q = model.head(codes.fused)
        triple = (log_q + model.head(codes.attributes) + model.head(codes.structure)) / 3
        kl = kl_divergence(sharpened(model, log_q, batch), triple)
        return Step({**step.terms, "kl": self.kl_weight * kl}, log_q)

    # -- codes -------------------------------------------------------------------------------------------------

    def _start(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> None:
        self._take_keys(model, source)
        codes = torch.cat([codes for _, codes in self._graph_codes(model, source, None)])
        memory["start"] = start_centers(model, source, self.n_clusters_, codes)

    def _take_results(self, source: BatchSource) -> None:
        self._take_keys(self.model_, source)
        super()._take_results(source)

    def _take_keys(self, model: Model, source: BatchSource) -> None:
        keys = torch.cat([local for _, local in self._local_codes(model, source, None)])
        if self.batch_size is not None and self.batch_size < len(keys):
            generator = torch.Generator().manual_seed(source.seed)
            keys = keys[torch.randperm(len(keys), generator=generator)[: self.batch_size]]
        self.keys_ = keys

    def _local_codes(
        self, model: Model, source: BatchSource, nodes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of sorted nodes with their codes before the self-correlation."""
        stack = model.local_stack()
        return layerwise_outputs(stack, source, nodes, states=stack.states, prepare=model.scale)

    def _graph_codes(
        self, model: Any, source: BatchSource, nodes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        keys = self.keys_.to(source.device)
        for block, local in self._local_codes(model, source, nodes):
            with torch.no_grad():
                yield block, model.fusion.correlate(local.to(source.device), keys).cpu()

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        save_file({"keys": self.keys_.contiguous()}, folder / "keys.safetensors")

    def _read(self, folder: Path) -> None:
        super()._read(folder)
        with reading(folder):
            self.keys_ = load_file(folder / "keys.safetensors")["keys"]
