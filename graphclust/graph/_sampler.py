"""The neighbour sampler: draws the in-neighbourhood of some seeds, hop by hop, all nodes of a hop at once."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch_geometric.typing as pyg_typing
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.sampler import BaseSampler, NodeSamplerInput, SamplerOutput
from torch_geometric.sampler import NeighborSampler as CompiledSampler
from torch_geometric.utils import index_sort

from graphclust._checks import check_choice, check_count
from graphclust.graph._draws import RandomState, draw_in_edges, root_seed, torch_seed

#: What may draw the neighbours.
BACKENDS = ("auto", "torch", "pyg")


class NeighborSampler(BaseSampler):
    r"""Samples in-neighbours of seed nodes hop by hop, for :class:`torch_geometric.loader.NodeLoader`.

    In hop h every node that first appeared in the hop before receives

    .. math:: \min(f_h, d_v) \text{ of its } d_v \text{ in-edges, each set of that size equally likely,}

    or, with ``replace=True``, f_h independent uniform draws (none where d_v = 0). A node is expanded once,
    however often it is met. Seeds come first in ``node`` and each seed keeps its place: a seed that is
    given twice has two places, both are expanded, and edges out of it start at the first.

    Parameters
    ----------
    graph : torch_geometric.data.Data
        Holds ``edge_index`` [2, E] int64, row 0 = source, row 1 = target. Where it is sorted by target (as
        in a ``SampleGraph``) its memory is shared, memory maps included; otherwise a sorted copy is made
        once.
    num_neighbors : sequence of int
        One fanout f_h >= 0 a hop; -1 takes all in-edges.
    replace : bool
        Draw with replacement.
    backend : {"auto", "torch", "pyg"}
        "torch" is the sampler of this file. "pyg" is PyG's own compiled one (pyg-lib, else torch-sparse); it is an
        error where neither can be imported. It follows `random_state` too, but draws other batches than "torch".
        "auto" takes pyg-lib if it is there and `random_state` is None, else "torch", because the same
        `random_state` should give the same batches whatever else is installed. Two libraries are never taken
        unasked. torch-sparse (0.6.18 and before) is slower and does not draw uniformly without replacement: the
        last in-neighbour of a list of d comes with probability (f - 1) / (d - 1) instead of f / d, and never for
        f = 1. torch-cluster draws uniformly, but slower than this file, and cannot be given a generator.
    random_state : int, torch.Generator, numpy Generator or RandomState, optional
        Source of the draws (a generator is read once, here). None draws fresh entropy. Global generators
        keep their state.

    Attributes
    ----------
    num_nodes : int
    num_neighbors : list of int
    backend : str
        "torch" or "pyg".
    in_degree : Tensor, int64 [num_nodes]

    Notes
    -----
    What a batch draws depends on `random_state`, the epoch (:meth:`seed`), its seeds in their order, and
    how often this process drew the same seeds since :meth:`seed`. So it does not depend on the number of
    loader workers or on the batches drawn before it. One instance serves one thread at a time.

    Raises
    ------
    TypeError, ValueError
        For inputs outside of the above; each message names the value and the remedy.
    """

    def __init__(
        self,
        graph: Data,
        num_neighbors: Sequence[int],
        *,
        replace: bool = False,
        backend: str = "auto",
        random_state: RandomState = None,
    ) -> None:
        edge_index, self.num_nodes = _checked_edges(graph)
        self.num_neighbors = _checked_fanouts(num_neighbors)
        self.replace = bool(replace)
        self.backend = _resolve_backend(backend, random_state)
        self.root = root_seed(random_state)
        # [epoch, calls of seed()]: a tensor, since persistent loader workers can only see changes in shared
        # memory.
        self._clock = torch.zeros(2, dtype=torch.int64)
        self._drawn: dict[bytes, int] = {}
        self._drawn_at = 0
        self._local: np.ndarray | None = None
        self._compiled: CompiledSampler | None = None

        target = edge_index[1]
        self._edge_of: np.ndarray | None = (
            None  # place in the sorted list -> place in edge_index; None: the same
        )
        source = edge_index[0]
        if not bool((target[1:] >= target[:-1]).all()):
            target, order = index_sort(target, max_value=self.num_nodes, stable=True)
            source, self._edge_of = source[order], order.numpy()
        self._source = source.numpy()
        self.in_degree = torch.bincount(target, minlength=self.num_nodes)
        self._start = np.zeros(self.num_nodes + 1, dtype=np.int64)
        np.cumsum(self.in_degree.numpy(), out=self._start[1:])
        if self.backend == "pyg":
            self._compiled = _compiled_sampler(torch.stack([source, target]), self)

    def seed(self, epoch: int) -> None:
        """Start an epoch: its batches depend on `random_state` and `epoch`, not on what was drawn before.

        Parameters
        ----------
        epoch : int
            0 or more. Training resumed at epoch e and one that was never broken draw the same batches in
            epoch e.
        """
        self._clock[0] = check_count(epoch, "epoch", minimum=0)
        self._clock[1] += 1

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return int(self._clock[0])

    @property
    def edge_permutation(self) -> None:
        """None: ``SamplerOutput.edge`` already counts the edges as the given ``edge_index`` does."""
        return None

    def sample_from_nodes(self, inputs: NodeSamplerInput, **kwargs: Any) -> SamplerOutput:
        """Sample the neighbourhood of a batch of seeds.

        Parameters
        ----------
        inputs : NodeSamplerInput
            ``node`` [B] int64: the seeds, in [0, num_nodes).

        Returns
        -------
        SamplerOutput
            ``node`` [n] global indices, seeds first, then by first appearance; ``row``, ``col`` [m] local
            source and target of each edge, ``col`` non-decreasing; ``edge`` [m] its column in
            ``edge_index``; ``num_sampled_nodes`` (hops + 1 counts, the seeds first), ``num_sampled_edges``
            (one count a hop); ``metadata`` (input_id, time) as ``NodeLoader`` expects it.
        """
        if inputs.input_type is not None or inputs.time is not None:
            raise ValueError(
                "NeighborSampler samples one node type without time stamps, but the input has "
                f"input_type={inputs.input_type!r} and time={'None' if inputs.time is None else 'a tensor'}; "
                "use torch_geometric.loader.NeighborLoader for heterogeneous or temporal graphs"
            )
        seeds = check_nodes(inputs.node, self.num_nodes, "seed").numpy()
        stream = self._stream(seeds)
        # pyg-lib numbers the nodes wrongly when a seed comes twice, so such a batch is drawn here.
        if self._compiled is not None and len(np.unique(seeds)) == len(seeds):
            out = self._sample_compiled(self._compiled, seeds, stream)
        else:
            out = self._sample(seeds, np.random.default_rng(stream))
        out.metadata = (inputs.input_id, inputs.time)
        return out

    def sample_from_edges(self, inputs: Any, neg_sampling: Any = None) -> SamplerOutput:
        """Raise: seeds are samples here; ``torch_geometric.loader.LinkNeighborLoader`` starts from edges."""
        raise NotImplementedError(
            "NeighborSampler starts from nodes; use torch_geometric.loader.LinkNeighborLoader"
        )

    def _stream(self, seeds: np.ndarray) -> np.random.SeedSequence:
        epoch, calls = self._clock.tolist()
        if calls != self._drawn_at:
            self._drawn.clear()
            self._drawn_at = calls
        digest = hashlib.blake2b(seeds.tobytes(), digest_size=8).digest()
        repeat = self._drawn[digest] = self._drawn.get(digest, -1) + 1
        return np.random.SeedSequence([self.root, epoch, int.from_bytes(digest, "little"), repeat])

    def _sample(self, seeds: np.ndarray, rng: np.random.Generator) -> SamplerOutput:
        # From global to local indices, -1 = not in the batch: 4 bytes a node, and faster than sorting each hop.
        if self._local is None:
            self._local = np.full(self.num_nodes, -1, dtype=np.int32 if self.num_nodes < 2**31 else np.int64)
        # Taken away while in use: an interrupted call must not leave a half-filled table to the next one.
        local, self._local = self._local, None
        frontier, begin, size = seeds, 0, len(seeds)
        # Of repeated indices numpy keeps the value written last: backwards, that is the first appearance.
        local[seeds[::-1]] = np.arange(size - 1, -1, -1)
        nodes, rows, cols, places = [seeds], [], [], []
        for fanout in self.num_neighbors:
            start = self._start[frontier]
            place, count = draw_in_edges(rng, start, self._start[frontier + 1] - start, fanout, self.replace)
            source = self._source[place]
            row = local[source]
            unseen = np.flatnonzero(row < 0)
            candidate = source[unseen]
            rank = np.arange(len(candidate), dtype=local.dtype)
            local[candidate[::-1]] = rank[::-1]
            fresh = candidate[local[candidate] == rank]
            local[fresh] = np.arange(size, size + len(fresh))
            row[unseen] = local[candidate]
            rows.append(row)
            cols.append(np.repeat(np.arange(begin, size), count))
            places.append(place)
            nodes.append(fresh)
            frontier, begin, size = fresh, size, size + len(fresh)
        node, place = np.concatenate(nodes), np.concatenate(places)
        local[node] = -1
        self._local = local
        return SamplerOutput(
            node=torch.from_numpy(node),
            row=torch.from_numpy(np.concatenate(rows).astype(np.int64)),
            col=torch.from_numpy(np.concatenate(cols)),
            edge=torch.from_numpy(place if self._edge_of is None else self._edge_of[place]),
            num_sampled_nodes=[len(part) for part in nodes],
            num_sampled_edges=[len(part) for part in places],
        )

    def _sample_compiled(
        self, compiled: CompiledSampler, seeds: np.ndarray, stream: np.random.SeedSequence
    ) -> SamplerOutput:
        # The compiled libraries only know torch's global generator: lend it a seed and put its state back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(torch_seed(stream))
            out = compiled.sample_from_nodes(NodeSamplerInput(None, torch.from_numpy(seeds)))
        if out.num_sampled_nodes is None:  # torch-sparse does not count; local indices rise with the hops
            reached, edges = [len(seeds)], [0]
            for _ in self.num_neighbors:
                edges.append(int(torch.searchsorted(out.col, reached[-1])))
                reached.append(max(reached[-1], int(out.row[: edges[-1]].max()) + 1 if edges[-1] else 0))
            out.num_sampled_nodes = np.diff(reached, prepend=0).tolist()
            out.num_sampled_edges = np.diff(edges).tolist()
        if self._edge_of is not None:
            out.edge = torch.from_numpy(self._edge_of[out.edge.numpy()])
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_local": None}  # a table of N entries that is quick to make again

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_nodes={self.num_nodes}, num_edges={len(self._source)}, "
            f"num_neighbors={self.num_neighbors}, replace={self.replace}, backend={self.backend!r})"
        )


class InducedSampler(NeighborSampler):
    """The seeds and all edges among them: nothing is drawn, and no other node is read.

    Parameters
    ----------
    graph, random_state
        See :class:`NeighborSampler`.
    """

    def __init__(self, graph: Data, *, random_state: RandomState = None) -> None:
        super().__init__(graph, [-1], backend="torch", random_state=random_state)

    def _sample(self, seeds: np.ndarray, rng: np.random.Generator) -> SamplerOutput:
        out = super()._sample(seeds, rng)
        assert out.num_sampled_nodes is not None and isinstance(out.edge, torch.Tensor)
        inside = out.row < len(seeds)
        out.node, out.row, out.col, out.edge = (
            out.node[: len(seeds)],
            out.row[inside],
            out.col[inside],
            out.edge[inside],
        )
        out.num_sampled_nodes, out.num_sampled_edges = [len(seeds), 0], [int(inside.sum())]
        return out


def _resolve_backend(backend: str, random_state: RandomState) -> str:
    check_choice(backend, "backend", BACKENDS)
    if backend == "auto":
        return "pyg" if pyg_typing.WITH_PYG_LIB and random_state is None else "torch"
    if backend == "pyg" and not (pyg_typing.WITH_PYG_LIB or pyg_typing.WITH_TORCH_SPARSE):
        raise ValueError(
            "backend='pyg' needs pyg-lib or torch-sparse, and neither can be imported; use backend='torch'"
        )
    return backend


def _compiled_sampler(edge_index: Tensor, sampler: NeighborSampler) -> CompiledSampler:
    """PyG's sampler over edges that are sorted by target."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pyg-lib.*")  # torch-sparse was asked for
        return CompiledSampler(
            Data(edge_index=edge_index, num_nodes=sampler.num_nodes),
            num_neighbors=sampler.num_neighbors,
            replace=sampler.replace,
            is_sorted=True,
        )


def _checked_edges(graph: Data) -> tuple[Tensor, int]:
    if not isinstance(graph, Data):
        raise TypeError(
            f"graph must be a torch_geometric.data.Data, got {type(graph).__name__}; wrap edges in Data(...)"
        )
    edge_index = graph.edge_index
    if not isinstance(edge_index, Tensor) or edge_index.dtype != torch.int64:
        found = edge_index.dtype if isinstance(edge_index, Tensor) else type(edge_index).__name__
        raise TypeError(f"graph.edge_index must be an int64 tensor of shape [2, E], got {found}")
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(
            f"graph.edge_index must have shape [2, E], got {list(edge_index.shape)}; transpose it"
        )
    num_nodes = int(graph.num_nodes or 0)
    if edge_index.numel() > 0:
        low, high = (int(value) for value in edge_index.aminmax())
        if low < 0 or high >= num_nodes:
            wrong = low if low < 0 else high
            raise ValueError(
                f"graph.edge_index holds node {wrong}, but the graph has {num_nodes} nodes, numbered from 0; "
                "drop these edges or set num_nodes"
            )
    return edge_index.detach().cpu(), num_nodes


def _checked_fanouts(num_neighbors: Sequence[int]) -> list[int]:
    if not isinstance(num_neighbors, (list, tuple)):
        raise TypeError(
            f"num_neighbors must be a list with one fanout a hop, such as [10, 10]; got {num_neighbors!r}"
        )
    if len(num_neighbors) == 0:
        raise ValueError("num_neighbors is empty; give one fanout a hop, such as [10, 10]")
    return [
        check_count(fanout, f"num_neighbors[{hop}]", minimum=-1, remedy="-1 takes all neighbours")
        for hop, fanout in enumerate(num_neighbors)
    ]


def check_nodes(nodes: Tensor | Sequence[int], num_nodes: int, name: str) -> Tensor:
    """Return indices as int64 [S] or a mask as bool [N], on the CPU."""
    given = torch.as_tensor(nodes).detach().cpu()
    if given.numel() == 0 and not isinstance(nodes, Tensor):
        given = given.to(torch.int64)
    if given.is_floating_point() or given.is_complex():
        raise TypeError(f"{name} must hold whole numbers, got {given.dtype}; use .long()")
    if given.dim() != 1:
        raise ValueError(f"{name} must have one dimension, got shape {list(given.shape)}; use .flatten()")
    if given.dtype == torch.bool:
        if len(given) != num_nodes:
            raise ValueError(f"{name} is a mask of {len(given)} entries, but the graph has {num_nodes} nodes")
        return given
    outside = given[(given < 0) | (given >= num_nodes)]
    if len(outside) > 0:
        raise ValueError(f"{name} holds node {int(outside[0])}, but the graph has nodes 0 to {num_nodes - 1}")
    return given.to(torch.int64)
