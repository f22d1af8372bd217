"""What the estimators share that join an auto-encoder and a graph branch by the epsilon bridge."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from graphclust._checks import check_count, check_number
from graphclust._messages import shown
from graphclust.methods.deep_autoencoder import FineTuned
from graphclust.methods.graph import GraphClusterer
from graphclust.methods.starts import start_branch
from graphclust.nn.convolutions import CONVOLUTIONS, Convolution
from graphclust.nn.fusion import check_epsilon
from graphclust.nn.networks import FusionNetwork
from graphclust.nn.scaling import FeatureScale
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import in_blocks, layerwise_logits
from graphclust.training.stage import Stage, Step

_BRANCH_STAGE = "graph branch"
#: Below this mean probability of the first clusters the graph branch has not learnt them.
_LEAST_FOLLOWED = 0.5


@dataclass(eq=False, repr=False, kw_only=True)
class FusedClusterer(GraphClusterer, FineTuned):
    """Base of SDCN and VGDCN: parameters, network and label pass of the two joined branches.

    Parameters
    ----------
    epsilon : float, sequence of float or "learn"
        Share of the encoder's states in the bridge, in [0, 1]: one number, one a layer, or learnt.
    conv : {"gcn", "gat", "sage", "gin"} or callable
        Graph convolution; a callable takes (in_channels, out_channels) and returns a PyG layer, which is called with
        (x, edge_index), and with edge_weight where it takes it, or as edge_attr where its ``edge_dim`` is 1.
    hidden_channels : sequence of int
        Widths of the encoder; decoder and graph branch follow.
    warm_start : bool
        Begin the graph branch with the encoder's weights and a classifier of the first labels, instead of at random.
        That is for the named convolutions and PyG's GCNConv, GATConv, GATv2Conv, SAGEConv and TransformerConv; others
        begin at random, and take `branch_epochs` of 60 to 120.
    branch_epochs, branch_learning_rate : int, float
        The graph branch alone, fitted to the first labels.
    num_neighbors : sequence of int or None
        Neighbours sampled per hop in mini-batches, one for each convolution; None takes 5, 3, 2, 1, 1, ...: the bridge
        mixes the encoder in at each layer, so far hops matter little.

    Attributes
    ----------
    probabilities_ : ndarray [N, K], float32
        Z_G.
    """

    epsilon: float | Sequence[float] | str = 0.5
    conv: str | Convolution = "gcn"
    warm_start: bool = True
    batch_size: int | None = None
    branch_epochs: int = 25
    branch_learning_rate: float = 3e-3
    num_neighbors: Sequence[int] | None = None

    _default_neighbors: ClassVar[tuple[int, ...]] = (5, 3, 2, 1)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self.branch_learning_rate, "branch_learning_rate", 0.0, open_low=True)
        check_count(self.branch_epochs, "branch_epochs", 0)
        if isinstance(self.conv, str) and self.conv not in CONVOLUTIONS:
            raise ValueError(
                f"conv={shown(self.conv)} is not known; choose one of {', '.join(map(repr, CONVOLUTIONS))}, or pass a "
                "callable (in_channels, out_channels) -> PyG layer"
            )
        check_epsilon(self._epsilon(), self._n_layers - 1)

    @property
    def _n_layers(self) -> int:
        """Convolutions: one for each layer of the encoder, and one to the clusters."""
        return len(tuple(self.hidden_channels)) + 2

    @property
    def _n_sampled(self) -> int:
        return self._n_layers

    def _hops(self) -> int | None:
        # A layer of the user's may look further than one hop.
        return self._n_layers if isinstance(self.conv, str) else None

    def _build(self, n_features: int) -> Any:
        return FusionNetwork(
            FeatureScale(n_features),
            self._autoencoder(n_features),
            self._head(),
            (n_features, *self.hidden_channels, self.latent_dim, self.n_clusters_),
            self.conv,
            self._epsilon(),
        )

    def _epsilon(self) -> float | Sequence[float] | str:
        """Share of the bridge; NumPy's numbers, as parameter searches hand them over, become Python's."""
        return float(self.epsilon) if isinstance(self.epsilon, numbers.Real) else self.epsilon

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        return [self._pretraining(), self._branch_alone(model, source, memory), self._clustering()]

    def _branch_alone(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> Stage:
        """The graph branch alone, fitted to the first labels."""

        def start() -> None:
            self._start(model, source, memory)
            if self.warm_start:
                codes = in_blocks(model.embed, source.x, device=source.device)
                start_branch(model, source, codes, memory["start"])

        def follow_start(m: FusionNetwork, batch: Batch) -> Step:
            assert batch.adjacency is not None
            with torch.no_grad():
                x = m.scale(batch.x)
                states = m.states(x[: m.fusion.parts(batch.adjacency, batch.size)[1].num_nodes])
            logits = m.fusion(x, states, batch.adjacency, batch.size)
            target = memory["start"][batch.index.cpu()].to(logits.device)
            return Step({"cross_entropy": cross_entropy(logits, target)}, logits)

        def branch(m: FusionNetwork) -> Iterator[nn.Parameter]:
            return m.fusion.parameters()

        return Stage(
            _BRANCH_STAGE,
            follow_start,
            self.branch_epochs,
            self.branch_learning_rate,
            batch_size=self.batch_size,
            uses_graph=True,
            start=start,
            parameters=branch,
        )

    def _take_results(self, source: BatchSource) -> None:
        super()._take_results(source)
        losses = [record["cross_entropy"] for record in self.history_ if record["stage"] == _BRANCH_STAGE]
        if losses and math.exp(-losses[-1]) < _LEAST_FOLLOWED:
            warnings.warn(
                f"after {len(losses)} epochs the graph branch gives the first clusters a probability of "
                f"{math.exp(-losses[-1]):.2f} (geometric mean of the samples): it has not learnt them, and clusters "
                "may be lost. Raise branch_epochs or branch_learning_rate; a branch that begins at random (a conv of "
                "your own, warm_start=False) takes 60 to 120 epochs",
                stacklevel=3,
            )

    def _logits(
        self, model: Any, source: BatchSource, nodes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return layerwise_logits(model.fusion, model.states, source, nodes, prepare=model.scale)
