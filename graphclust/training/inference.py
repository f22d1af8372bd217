"""Inference in pieces: layer by layer, for graphs and features larger than memory allows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from graphclust._files import new_map, replacing
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.convolutions import AnyConv, GCNConv
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
    block_size : int, default=8192
        Rows at a time; of more than 1,024 values less, because convolutions hold many times as much.
    """
    block_size = max(1, min(block_size, _VALUES // max(1, x[:1].numel())))
    collected: Tensor | None = None
    start = 0
    with torch.no_grad():
        for block in x.split(block_size):
            part = function(block.to(device)).cpu()
            if collected is None:
                # Written in place: parts and their concatenation would take twice the memory.
                collected = part.new_empty((len(x), *part.shape[1:]))
            collected[start : start + len(part)] = part
            start += len(part)
    assert collected is not None
    return collected


#: Entries of a block of rows.
_VALUES = 1 << 23
#: Entries of a dense table of probabilities; beyond, the largest of each row are kept.
MOST_DENSE = 1e8
N_TOP = 5


class Assignments(NamedTuple):
    """Labels and probabilities of samples, result of `collect`.

    Attributes
    ----------
    labels : ndarray [N], int64
    probabilities : ndarray or csr_matrix [N, K], float32
        Dense where N K is at most 10^8 (400 MB), else sparse with the five largest of each row.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32] | csr_matrix


def collect(
    logits: Iterable[Tensor], n_samples: int, out: str | Path | None = None, *, are_logits: bool = True
) -> Assignments:
    """Labels and probabilities from blocks of logits [b, K], as they come.

    Parameters
    ----------
    logits : iterable of Tensor
        Blocks in the order of the samples, N rows over all.
    n_samples : int
        N.
    out : path, optional
        A folder for ``labels.npy`` [N] (int64), ``top_indices.npy`` (int32) and ``top_probabilities.npy`` (float32),
        both [N, min(5, K)], the largest first. They are written block by block, and take their names, in place of
        older ones, when they are complete. The results are then memory maps of them, and sparse.
    are_logits : bool, default=True
        False where the blocks are probabilities, written as they are: the largest of a row need not sum to 1.
    """
    with ExitStack() as stack:
        made: dict[str, Any] = {}
        start, n_clusters, dense = 0, 0, False
        for block in logits:
            p = block.float().softmax(dim=1) if are_logits else block.float()
            if not made:
                n_clusters = p.shape[1]
                dense = out is None and n_samples * n_clusters <= MOST_DENSE
                made = _tables(stack, n_samples, n_clusters, dense, out)
            rows = slice(start, start + len(p))
            start += len(p)
            if dense:
                made["probabilities"][rows] = p.numpy()
                made["labels"][rows] = made["probabilities"][rows].argmax(axis=1)
                continue
            values, indices = p.topk(min(N_TOP, n_clusters), dim=1)
            labels = p.numpy().argmax(axis=1)
            made["top_probabilities"][rows] = values.numpy()
            made["top_indices"][rows] = _first(indices.numpy(), labels)
            made["labels"][rows] = labels
        if start != n_samples:
            raise ValueError(f"the blocks have {start} rows, but {n_samples} samples are to be labelled")
        for name in made if out is not None else ():
            made[name].flush()
    if dense:
        return Assignments(made["labels"], made["probabilities"])
    if out is not None:
        # Copy on write: scipy sorts the entries of a row in place.
        made = {name: np.load(Path(out) / f"{name}.npy", mmap_mode="c") for name in made}
    width = made["top_indices"].shape[1]
    parts = (made["top_probabilities"].reshape(-1), made["top_indices"].reshape(-1))
    pointer = np.arange(
        0, n_samples * width + 1, width, dtype=np.int32 if n_samples * width < 2**31 else np.int64
    )
    return Assignments(made["labels"], csr_matrix((*parts, pointer), shape=(n_samples, n_clusters)))


def _first(indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Columns of the largest entries [n, T], that of the label first: which of equal ones comes first is open."""
    other = np.flatnonzero(indices[:, 0] != labels)
    rows, places = np.nonzero(indices[other] == labels[other, None])
    indices[other[rows], places] = indices[other[rows], 0]
    indices[other, 0] = labels[other]
    return indices


def _tables(
    stack: ExitStack, n_samples: int, n_clusters: int, dense: bool, out: str | Path | None
) -> dict[str, Any]:
    """Empty tables for the results, in memory or as files that take their names when the stack is left."""
    top = (n_samples, min(N_TOP, n_clusters))
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {"labels": ((n_samples,), np.int64)}
    if dense:
        shapes["probabilities"] = ((n_samples, n_clusters), np.float32)
    else:
        shapes |= {"top_indices": (top, np.int32), "top_probabilities": (top, np.float32)}
    if out is None:
        return {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
    files = {name: stack.enter_context(replacing(Path(out) / f"{name}.npy")) for name in shapes}
    return {
        name: new_map(files[name], shape, dtype, "or name a folder on another disk in out=")
        for name, (shape, dtype) in shapes.items()
    }


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
    states of all layers. A product with weights that makes rows narrower is taken before, once for each node and not
    once for each of its edges. Layers of the user's (`conv` a callable) may read degrees, or look several hops away:
    with them the whole graph is one block.

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
    for layer, convolution in enumerate(stack.layers):
        row_of[held] = torch.arange(held.shape[0])
        prepared = layer > 0
        if isinstance(convolution, GCNConv) and convolution.is_narrower:
            held = levels[layer]
            table = _multiplied(convolution, table, row_of[held], device, None if prepared else prepare)
            row_of[held] = torch.arange(held.shape[0])
            prepared = True
        targets, last = levels[layer + 1], layer + 1 == len(stack.layers)
        outputs: Tensor | None = None
        start = 0
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
            if not prepared:
                rows = prepare(rows)
            with torch.no_grad():
                out = stack.step(layer, rows, adjacency)[: block.shape[0]]
                if states is not None and not last:
                    # The next layer's input is mixed here, once for each node, not once for each of its edges.
                    state = states(prepare(source.x[block].to(device)))[layer]
                    out = stack.mix(layer + 1, out, state)  # type: ignore[attr-defined]
            # Copied: as a view it would keep the rows of all the block's neighbours.
            if last:
                yield (wanted, out.cpu()[wanted]) if whole else (block, out.cpu().clone())
                continue
            if outputs is None:
                outputs = torch.empty((len(targets), *out.shape[1:]), dtype=out.dtype)
            outputs[start : start + len(block)] = out
            start += len(block)
        if outputs is not None:
            table, held = outputs, targets


def _multiplied(
    convolution: GCNConv,
    table: Tensor,
    rows: Tensor,
    device: torch.device,
    prepare: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """Some rows of a table, prepared, times the weights of a convolution, on the CPU."""
    product: Tensor | None = None
    start = 0
    with torch.no_grad():
        for some in rows.split(max(1, min(8192, _VALUES // table.shape[1]))):
            x = table[some].to(device)
            part = convolution.multiplied(x if prepare is None else prepare(x))
            if product is None:
                product = torch.empty((len(rows), part.shape[1]), dtype=part.dtype)
            product[start : start + len(some)] = part
            start += len(some)
    assert product is not None
    return product


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
