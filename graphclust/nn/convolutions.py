"""Graph convolutions that propagate on their narrower side.

A convolution multiplies by a weight matrix W and sums over neighbours. The two commute, ``A (X W) = (A X) W``, and the
sum over neighbours is bound by memory: it is done on whichever of X and X W has fewer columns. The layers are PyG's own
(parameters, initialisation, names), only their forward pass is arranged anew; tests hold each to PyG's result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import nn as pyg
from torch_geometric.utils import softmax

from graphclust._messages import shown
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.sparse_features import compressed_features, sparse_linear


def _narrow(adjacency: Adjacency, weight: Tensor, x: Tensor, linear: Any, key: str | None) -> Tensor:
    """``A x W`` in the cheaper order; `key` names x when it never changes, so that A x is computed once."""

    def propagate() -> Tensor:
        return adjacency.matmul(weight, x)

    if key is not None and adjacency.constant:
        return linear(adjacency.memo(key, propagate))
    if linear.weight.shape[0] < x.shape[1]:
        return adjacency.matmul(weight, linear(x))
    return linear(propagate())


class GCNConv(pyg.GCNConv):
    """Kipf & Welling (2017): ``D~^-1/2 (A + I) D~^-1/2 X W + b``."""

    @property
    def is_narrower(self) -> bool:
        """Whether X W comes first, because it has fewer columns than X."""
        return self.out_channels < self.in_channels

    def multiplied(self, x: Tensor) -> Tensor:
        """X W, [N, out_channels]: what needs no neighbours."""
        return F.linear(x, self.lin.weight)

    def forward(
        self, x: Tensor, adjacency: Adjacency, *, constant: bool = False, columns: Tensor | None = None
    ) -> Tensor:
        """[N, in_channels] -> [N, out_channels]; `constant` says that x is the same in every step.

        The columns of x are multiplied by `columns` [in_channels]; as this is done to the weights, x stays constant.
        Where the layer is narrower than its input, x may be `multiplied(x)` already, [N, out_channels].
        """
        weight = self.lin.weight if columns is None else self.lin.weight * columns
        narrower = self.is_narrower
        if narrower and x.shape[1] == self.out_channels:
            out = adjacency.propagate(x)
            return out if self.bias is None else out + self.bias
        compressed = compressed_features(x, adjacency) if constant and narrower else None
        if constant and adjacency.constant and compressed is None:
            return F.linear(adjacency.memo("gcn_input", lambda: adjacency.propagate(x)), weight, self.bias)
        if narrower:
            product = F.linear(x, weight) if compressed is None else sparse_linear(compressed, weight)
            out = adjacency.propagate(product)
            return out if self.bias is None else out + self.bias
        return F.linear(adjacency.propagate(x), weight, self.bias)


class SAGEConv(pyg.SAGEConv):
    """Hamilton et al. (2017): ``X W_r + mean over neighbours (X) W + b``."""

    def forward(self, x: Tensor, adjacency: Adjacency, *, constant: bool = False) -> Tensor:
        """[N, in_channels] -> [N, out_channels]."""
        weight = adjacency.mean_weight
        linear = _WithoutBias(self.lin_l)
        out = _narrow(adjacency, weight, x, linear, "sage_input" if constant else None)
        out = out + self.lin_r(x)
        return out if self.lin_l.bias is None else out + self.lin_l.bias


class GINConv(pyg.GINConv):
    """Xu et al. (2019): ``MLP((1 + eps) X + sum over neighbours (X))``, the sum weighted by the sample graph."""

    def forward(self, x: Tensor, adjacency: Adjacency, *, constant: bool = False) -> Tensor:
        """[N, in_channels] -> [N, out_channels]."""
        first, own = self.nn[0], 1.0 + self.eps
        # One product with the weights: the sample's own part joins the sum before or after it.
        if constant and adjacency.constant:
            out = first(
                adjacency.memo("gin_input", lambda: adjacency.matmul(adjacency.edge_weight, x)) + own * x
            )
        elif first.out_features < x.shape[1]:
            h = F.linear(x, first.weight)
            out = adjacency.matmul(adjacency.edge_weight, h) + own * h + first.bias
        else:
            out = first(adjacency.matmul(adjacency.edge_weight, x) + own * x)
        for layer in self.nn[1:]:
            out = layer(out)
        return out


class GATConv(pyg.GATConv):
    """Velickovic et al. (2018) with one head: attention over the neighbours and the sample itself.

    The score of an edge is ``leaky_relu(a_s W x_j + a_t W x_i)``; since ``a W x = (W^T a) x``, scores and sums are both
    taken on the narrower side.
    """

    def forward(self, x: Tensor, adjacency: Adjacency, *, constant: bool = False) -> Tensor:
        """[N, in_channels] -> [N, out_channels]."""
        looped = adjacency.looped()
        source, target = looped.edge_index
        weight = self.lin.weight
        with torch.autocast(x.device.type, enabled=False):
            projection = torch.cat([self.att_src.view(1, -1), self.att_dst.view(1, -1)]) @ weight.float()
            scores = x.float() @ projection.T
            score = F.leaky_relu(scores[source, 0] + scores[target, 1], self.negative_slope)
            attention = softmax(score, target, num_nodes=looped.num_nodes)
        out = _narrow(looped, attention, x, self.lin, None)
        return out if self.bias is None else out + self.bias


class AnyConv(nn.Module):
    """A layer of the user's, called as PyG calls it: ``layer(x, edge_index[, edge_weight])``.

    A layer without ``edge_weight`` that takes one feature an edge (``edge_dim=1``) gets the weights as that feature.
    """

    layer: Any

    def __init__(self, layer: nn.Module, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = layer
        self.made = f"conv({in_channels}, {out_channels}) gave a {type(layer).__name__}"
        self.out_channels = out_channels
        parameters = inspect.signature(layer.forward).parameters
        many = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
        if len(parameters) < 2 and not many:
            raise TypeError(
                f"{self.made}, whose forward takes {', '.join(parameters) or 'nothing'} alone: a graph convolution "
                "takes (x, edge_index)"
            )
        self.takes_weight = "edge_weight" in parameters
        self.takes_feature = "edge_attr" in parameters and getattr(layer, "edge_dim", None) == 1

    def reset_parameters(self) -> None:
        """Those of the layer."""
        if hasattr(self.layer, "reset_parameters"):
            self.layer.reset_parameters()

    def forward(self, x: Tensor, adjacency: Adjacency, *, constant: bool = False) -> Tensor:
        """[N, in_channels] -> [N, out_channels]."""
        options: dict[str, Tensor] = {}
        if self.takes_weight:
            options["edge_weight"] = adjacency.edge_weight
        elif self.takes_feature:
            options["edge_attr"] = adjacency.edge_weight[:, None]
        try:
            out = self.layer(x, adjacency.edge_index, **options)
        except (TypeError, AttributeError, AssertionError) as error:
            called = ", ".join(["x", "edge_index", *options])
            raise TypeError(
                f"{self.made}, which cannot be called with ({called}): {type(error).__name__} {error}".rstrip()
                + "; edge features other than the weight (edge_dim=1) are not passed"
            ) from error
        shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        if shape != [x.shape[0], self.out_channels]:
            raise ValueError(
                f"{self.made}, whose output is {shape}, but {[x.shape[0], self.out_channels]} is needed; of several "
                "heads take the mean (concat=False)"
            )
        return out


def layer_parts(layers: Sequence[nn.Module], adjacency: Adjacency, rows: int | None) -> list[Adjacency]:
    """What each of these layers reads, one after the other, for the first `rows` rows of the last one's output.

    All of it for None, and where one is the user's: it may read degrees, or look farther than one hop.
    """
    if rows is None or any(isinstance(layer, AnyConv) for layer in layers):
        return [adjacency] * len(layers)
    return adjacency.reaching(rows, len(layers))


class _WithoutBias(nn.Module):
    """A linear layer's product alone: the bias is added once, after the sum over neighbours."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.weight: Tensor = linear.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def _gin(in_channels: int, out_channels: int) -> GINConv:
    mlp = nn.Sequential(
        nn.Linear(in_channels, out_channels), nn.ReLU(), nn.Linear(out_channels, out_channels)
    )
    return GINConv(mlp, train_eps=True)


Convolution = Callable[[int, int], nn.Module]
CONVOLUTIONS: dict[str, Convolution] = {
    "gcn": lambda i, o: GCNConv(i, o, add_self_loops=False, normalize=False),
    "gat": lambda i, o: GATConv(i, o, heads=1),
    "sage": lambda i, o: SAGEConv(i, o),
    "gin": _gin,
}


def make_convolution(conv: str | Convolution, in_channels: int, out_channels: int) -> nn.Module:
    """A graph convolution by name or from the user's callable.

    Parameters
    ----------
    conv : {"gcn", "gat", "sage", "gin"} or callable
        A callable takes (in_channels, out_channels) and returns a PyG layer with output [N, out_channels].
    in_channels, out_channels : int
        Widths.
    """
    if isinstance(conv, str):
        if conv not in CONVOLUTIONS:
            raise ValueError(
                f"conv is {shown(conv)}, it must be one of {sorted(CONVOLUTIONS)} or a callable "
                "(in_channels, out_channels) -> PyG layer"
            )
        return CONVOLUTIONS[conv](in_channels, out_channels)
    if isinstance(conv, nn.Module):
        raise TypeError(
            f"conv is one layer, {conv}, and each width needs its own: pass what makes them, "
            f"lambda i, o: {type(conv).__name__}(i, o)"
        )
    if not callable(conv):
        raise TypeError(f"conv={shown(conv)} is a {type(conv).__name__}, it must be a name or a callable")
    try:
        layer = conv(in_channels, out_channels)
    except Exception as error:  # what a layer of the user's makes of two numbers cannot be foreseen
        raise TypeError(
            f"conv(in_channels, out_channels), called as conv({in_channels}, {out_channels}), failed: {error}; give "
            f"what a layer needs besides by a function, lambda i, o: {getattr(conv, '__name__', 'Layer')}(i, o, ...)"
        ) from error
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"conv({in_channels}, {out_channels}) gave a {type(layer).__name__}, not a torch module"
        )
    return AnyConv(layer, in_channels, out_channels)
