"""Inference in pieces: layer by layer, for graphs and features larger than memory allows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from graphclust.nn.adjacency import Adjacency
from graphclust.nn.convolutions import AnyConv
from graphclust.nn.fusion import GraphFusion
from graphclust.training.batches import BatchSource


def in_blocks(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    device: torch.device | str = "cpu",
    block_size: int = 8192,
) -> Tensor:
    """``function(x)`` block of rows by block of rows, without gradients; the result is collected on the CPU.

    Parameters
    ----------
    function : callable [b, d] -> [b, ...]
    x : Tensor [N, d]
        May be memory-mapped: only one block is read at a time.
    """
    with torch.no_grad():
        parts = [function(block.to(device)).cpu() for block in x.split(block_size)]
    return torch.cat(parts)


class _InEdges:
    """Incoming edges of any set of nodes, from edges sorted by target."""

    def __init__(self, edge_index: Tensor, n_nodes: int) -> None:
        source, target = edge_index
        self.order: Tensor | None = None
        if not bool((target[1:] >= target[:-1]).all()):
            target, self.order = target.sort(stable=True)
            source = source[self.order]
        self.source = source
        self.start = torch.zeros(n_nodes + 1, dtype=torch.int64)
        self.start[1:] = torch.bincount(target, minlength=n_nodes).cumsum(0)

    def of(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sources, positions of the targets in `nodes`, and columns in edge_index."""
        start, count = self.start[nodes], self.start[nodes + 1] - self.start[nodes]
        position = torch.arange(nodes.shape[0]).repeat_interleave(count)
        first = count.cumsum(0) - count
        place = torch.arange(position.shape[0]) - first[position] + start[position]
        return self.source[place], position, place if self.order is None else self.order[place]


def _needed(edges: _InEdges, nodes: Tensor, n_layers: int, n_nodes: int) -> list[Tensor]:
    """Sorted nodes whose output each layer must give so that the last one covers `nodes`."""
    levels = [nodes.unique()]
    for _ in range(n_layers):
        if levels[-1].shape[0] == n_nodes:
            levels.append(levels[-1])
            continue
        wanted = torch.zeros(n_nodes, dtype=torch.bool)
        wanted[levels[-1]] = True
        wanted[edges.of(levels[-1])[0]] = True
        levels.append(wanted.nonzero().squeeze(1))
    return levels[::-1]


class LayerStack(Protocol):
    """A network that is one graph convolution after the other: `GraphEncoder`, `GraphFusion`."""

    layers: Any

    def step(self, layer: int, z: Tensor, adjacency: Adjacency) -> Tensor:
        """Convolution `layer` (from 0) with its activation."""


def layerwise_outputs(
    stack: LayerStack,
    source: BatchSource,
    nodes: Tensor | None = None,
    *,
    states: Callable[[Tensor], Sequence[Tensor]] | None = None,
    prepare: Callable[[Tensor], Tensor] = lambda x: x,
    block_size: int = 4096,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Output of a stack of convolutions, exact, one layer after the other over all nodes that the result depends on.

    Each layer is computed once for each node, in blocks; two tables of one layer's width are held, never all hidden
    states of all layers. Layers of the user's (`conv` a callable) may read degrees, or look several hops away: with
    them the whole graph is one block.

    Parameters
    ----------
    stack : LayerStack
        In evaluation mode. With `states` it also has `mix`, see `GraphFusion`.
    source : BatchSource
        Features, edges and propagation weights.
    nodes : Tensor [m], optional
        Nodes wanted; all by default. For a few of them only their neighbourhood is computed.
    states : callable [b, d] -> list of Tensor, optional
        Of prepared features, what ``stack.mix(layer + 1, z, states(x)[layer])`` mixes into the input of each layer but
        the first: the encoder's states H(1) ... H(L) and the latent code. Without, a layer reads the one before alone.
    prepare : callable, optional
        From stored features to what the network reads (scaling).
    block_size : int
        Rows computed at a time.

    Yields
    ------
    nodes : Tensor [b]
        Sorted, over the blocks together all nodes wanted.
    outputs : Tensor [b, width of the last layer], on the CPU
    """
    n, device = source.n_samples, source.device
    edge_index = source.graph.edge_index
    assert edge_index is not None
    edges = _InEdges(edge_index.cpu(), n)
    wanted = torch.arange(n) if nodes is None else nodes.cpu().unique()
    whole = any(isinstance(layer, AnyConv) for layer in stack.layers)
    if whole:
        block_size = n
    levels = _needed(edges, torch.arange(n) if whole else wanted, len(stack.layers), n)
    weight, (propagation, loops) = source.graph.edge_weight, source.weights
    row_of = torch.full((n,), -1, dtype=torch.int64)
    table, held = source.x, torch.arange(n)  # input of the current layer and the nodes of its rows
    for layer in range(len(stack.layers)):
        row_of[held] = torch.arange(held.shape[0])
        targets, last = levels[layer + 1], layer + 1 == len(stack.layers)
        outputs: list[Tensor] = []
        for block in targets.split(block_size):
            sources, position, column = edges.of(block)
            others = sources[~torch.isin(sources, block)].unique()
            local = torch.cat([block, others])
            ordered, place = local.sort()
            found = place[torch.searchsorted(ordered, sources)]
            adjacency = Adjacency(
                torch.stack([found, position]).to(device),
                weight[column].to(device),
                propagation[column].to(device),
                loops[local].to(device),
            )
            rows = table[row_of[local]].to(device)
            if layer == 0:
                rows = prepare(rows)
            with torch.no_grad():
                out = stack.step(layer, rows, adjacency)[: block.shape[0]]
                if states is not None and not last:
                    # The next layer's input is mixed here, once for each node, not once for each of its edges.
                    state = states(prepare(source.x[block].to(device)))[layer]
                    out = stack.mix(layer + 1, out, state)  # type: ignore[attr-defined]
            if last:
                yield (wanted, out.cpu()[wanted]) if whole else (block, out.cpu())
            else:
                outputs.append(out.cpu())
        if not last:
            table, held = torch.cat(outputs), targets


def layerwise_logits(
    fusion: GraphFusion,
    states: Callable[[Tensor], Sequence[Tensor]],
    source: BatchSource,
    nodes: Tensor | None = None,
    *,
    prepare: Callable[[Tensor], Tensor] = lambda x: x,
    block_size: int = 4096,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits of a graph branch that reads the encoder's `states`; see `layerwise_outputs`."""
    return layerwise_outputs(fusion, source, nodes, states=states, prepare=prepare, block_size=block_size)
