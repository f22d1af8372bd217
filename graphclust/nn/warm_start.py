"""Starting the graph branch from a trained encoder instead of from noise.

The branch has the encoder's widths, so each convolution can begin with the encoder's own weights: before any training
it then computes the encoder's states, averaged over the neighbours. A random start of five stacked convolutions was
measured to need more full-batch steps to reach that point than the whole training afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg

from graphclust.nn.autoencoder import MLPEncoder
from graphclust.nn.convolutions import AnyConv
from graphclust.nn.fusion import GraphFusion


@torch.no_grad()
def set_convolution(
    layer: nn.Module, weight: Tensor, bias: Tensor, neighbor_weight: float = 1.0, lift: float = 0.0
) -> bool:
    """Make a convolution compute about ``mean over the neighbourhood (X) weight^T + bias``.

    Parameters
    ----------
    layer : Module
        PyG's GCNConv, GATConv, GATv2Conv, SAGEConv or TransformerConv, also of the user's, or this package's GINConv;
        others are left alone.
    weight, bias : Tensor [out, in], [out]
    neighbor_weight : float
        Mean sum of a sample's edge weights, by which GIN's sum is turned into a mean.
    lift : float
        For GIN where negative outputs are wanted: more than the largest of them in size.

    Returns
    -------
    bool
        Whether the layer was set.
    """
    if isinstance(layer, pyg.GINConv):
        # GIN's perceptron has a ReLU in its middle. `lift` raises what goes in and lowers what comes out by as much, so
        # that negative outputs pass it.
        layer.nn[0].weight.copy_(weight / (1.0 + neighbor_weight))
        layer.nn[0].bias.copy_(bias + lift)
        nn.init.eye_(layer.nn[2].weight)
        nn.init.constant_(layer.nn[2].bias, -lift)
        return True
    linears, own_bias = _averaging(layer.layer if isinstance(layer, AnyConv) else layer)
    # Several heads whose mean is taken compute the same each; where they are put side by side, no width fits.
    if not linears or any(linear.weight.shape[1] != weight.shape[1] for linear in linears):
        return False
    heads = [linear.weight.shape[0] / len(weight) for linear in linears]
    if any(not count.is_integer() for count in heads) or len(own_bias) != len(weight):
        return False
    for linear, count in zip(linears, heads, strict=True):
        linear.weight.copy_(weight.repeat(int(count), 1) / len(linears))
        if linear.bias is not None:
            linear.bias.zero_()
    own_bias.copy_(bias)
    return True


def _averaging(layer: Any) -> tuple[list[Any], Any]:
    """The linear maps of a layer that add up to its mean over a neighbourhood, and its bias; none of other layers."""
    nothing: tuple[list[Any], Any] = [], None
    bias = getattr(layer, "bias", None)
    if getattr(layer, "res", None) is not None:  # a residual map beside the mean
        return nothing
    if isinstance(layer, (pyg.GCNConv, pyg.GATConv)):
        found = [getattr(layer, "lin", None)], bias
    elif isinstance(layer, pyg.GATv2Conv):
        found = [layer.lin_l], bias
    elif isinstance(layer, pyg.SAGEConv) and not layer.project:
        found = [layer.lin_l, *([layer.lin_r] if layer.root_weight else [])], layer.lin_l.bias
    elif isinstance(layer, pyg.TransformerConv) and layer.root_weight and not layer.beta:
        found = [layer.lin_value, layer.lin_skip], layer.lin_skip.bias
    else:
        return nothing
    return nothing if found[1] is None or any(linear is None for linear in found[0]) else found


def warm_start(
    fusion: GraphFusion, encoder: nn.Module, classifier: tuple[Tensor, Tensor], neighbor_weight: float = 1.0
) -> int:
    """Give the graph branch the encoder's weights, and its last layer those of a linear classifier of the clusters.

    Parameters
    ----------
    fusion : GraphFusion
        Of the encoder's widths.
    encoder : Module
        An `MLPEncoder`; with another one only the last layer is set.
    classifier : tuple of Tensor [K, latent_dim], [K]
        Weights and biases of logits on the last bridge's output.
    neighbor_weight : float
        See `set_convolution`.

    Returns
    -------
    int
        Number of layers that were set; the others keep their random start.
    """
    linears = [*encoder.layers, encoder.mean] if isinstance(encoder, MLPEncoder) else []
    done = 0
    for layer, linear in zip(fusion.layers[:-1], linears, strict=False):
        done += set_convolution(layer, linear.weight, linear.bias, neighbor_weight)
    return done + set_convolution(fusion.layers[-1], *classifier, neighbor_weight, lift=100.0)
