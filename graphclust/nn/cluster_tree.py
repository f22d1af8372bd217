"""A binary tree of clusters in the latent space that grows and is pruned while the network is trained."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphclust._processes import total
from graphclust.nn.precision import in_double, in_single

#: A leaf with less than half a sample is dead.
_DEAD = 0.5
#: Codes whose table of leaves is held at a time.
_ROWS = 8192


class SplitNodes(NamedTuple):
    """The inner nodes of a tree, I of them, with their two children each.

    Attributes
    ----------
    centers : Tensor [I, 2, d]
        Of the children: the mean of all samples below.
    weights : Tensor [I, 2]
        Samples below the children.
    below : Tensor [I, 2, max_leaves], bool
        Which leaves are below the children.
    """

    centers: Tensor
    weights: Tensor
    below: Tensor


class ClusterTree(nn.Module):
    r"""A tree of clusters (DeepECT; Mautz, Plant & Boehm 2020): leaves have centres, all else follows from them.

    A code belongs to its nearest leaf and to all nodes above that. A leaf's weight and centre are the number and the
    mean of its codes, over all N samples: a batch of b samples replaces the share b/N of both, so that a full batch
    gives them exactly. The centre of an inner node is the weighted mean of the leaves below it.

    Parameters
    ----------
    max_leaves : int
        P.
    latent_dim : int
        Width d of the code.

    Attributes
    ----------
    centers : Tensor [P, d]
    weights : Tensor [P]
        Codes of each leaf, 0 for one that is not there.
    present : Tensor [P], bool
    pairs : Tensor [P - 1, 2], int64
        Of the inner nodes: leaves are 0 ... P - 1, inner nodes P ... 2P - 2; -1 for one that is not there.
    """

    centers: Tensor
    weights: Tensor
    present: Tensor
    pairs: Tensor
    _below: Tensor | None

    def __init__(self, max_leaves: int, latent_dim: int) -> None:
        super().__init__()
        self.max_leaves = max_leaves
        self.register_buffer("centers", torch.zeros(max_leaves, latent_dim))
        self.register_buffer("weights", torch.zeros(max_leaves))
        self.register_buffer("present", torch.zeros(max_leaves, dtype=torch.bool))
        self.register_buffer("pairs", torch.full((max_leaves - 1, 2), -1))
        self._changed()
        self.register_load_state_dict_post_hook(ClusterTree._changed)

    @property
    def n_leaves(self) -> int:
        """Leaves that are there."""
        return int(self.present.sum())

    @torch.no_grad()
    def plant(self, codes: Tensor) -> None:
        """A single leaf that holds all codes [N, d]."""
        self.weights.zero_()
        self.present.zero_()
        self.pairs.fill_(-1)
        self._changed()
        self.present[0] = True
        self.weights[0], self.centers[0] = len(codes), codes.mean(dim=0)

    @torch.no_grad()
    def split(self, leaf: int, centers: Tensor, weights: Tensor) -> None:
        """Give a leaf two children with these centres [2, d] and weights [2]: the first keeps its number."""
        new = int((~self.present).nonzero()[0])
        inner = int((self.pairs[:, 0] < 0).nonzero()[0])
        self.pairs[self.pairs == leaf] = self.max_leaves + inner
        self.pairs[inner] = self.pairs.new_tensor([leaf, new])
        self._changed()
        self.present[new] = True
        for child, center, weight in zip((leaf, new), centers, weights, strict=True):
            self.centers[child], self.weights[child] = center, weight

    @torch.no_grad()
    def prune(self, leaf: int) -> None:
        """Remove a leaf: its sibling takes the place of their parent. The only leaf stays."""
        at = (self.pairs == leaf).nonzero()
        if not len(at):
            return
        inner, side = at[0].tolist()
        sibling = int(self.pairs[inner, 1 - side])
        self.pairs[inner] = -1
        self.pairs[self.pairs == self.max_leaves + inner] = sibling
        self.present[leaf], self.weights[leaf] = False, 0.0
        self._changed()

    def nearest(self, z: Tensor) -> Tensor:
        """Nearest leaf of each code, [N, d] -> [N]."""
        z, centers = in_double(z.detach(), self.centers)
        return torch.cdist(z, centers).masked_fill(~self.present, torch.inf).argmin(dim=1)

    @torch.no_grad()
    def update(self, z: Tensor, leaf: Tensor, n_samples: int) -> None:
        """Take a batch's codes [b, d] and their leaves [b] into weights and centres, and prune what has died."""
        own = torch.zeros_like(self.centers)
        with in_single(z):
            for codes, leaves in zip(z.detach().split(_ROWS), leaf.split(_ROWS), strict=True):
                member = codes.new_zeros(len(codes), self.max_leaves, dtype=own.dtype)
                own += member.scatter_(1, leaves[:, None], 1.0).T @ codes.to(own.dtype)
        added = total(torch.bincount(leaf, minlength=self.max_leaves).to(own.dtype))
        kept = max(0.0, n_samples - float(added.sum())) / n_samples
        weights = kept * self.weights + added
        sums = (kept * self.weights)[:, None] * self.centers
        sums += total(own)
        self.centers.copy_(
            torch.where(weights[:, None] > 0, sums / weights.clamp_min(1e-12)[:, None], self.centers)
        )
        self.weights.copy_(weights)
        for dead in (self.present & (weights < _DEAD)).nonzero().flatten().tolist():
            self.prune(dead)

    def split_nodes(self) -> SplitNodes:
        """The inner nodes, children before their parents."""
        if self._below is None or self._below.device != self.pairs.device:
            self._below = self._leaves_below().to(self.pairs.device)
        share = self._below * self.weights
        weights = share.sum(dim=2)
        with in_single(share):
            centers = share @ self.centers / weights.clamp_min(1e-12)[:, :, None]
        return SplitNodes(centers, weights, self._below)

    def _leaves_below(self) -> Tensor:
        """Which leaves are below the children of each inner node, [I, 2, P]; children before their parents."""
        p, pairs = self.max_leaves, self.pairs.tolist()
        below = {leaf: torch.eye(p, dtype=torch.bool)[leaf] for leaf in range(p)}
        found: list[Tensor] = []
        waiting = [i for i, (first, _) in enumerate(pairs) if first >= 0]
        while waiting:
            ready = [i for i in waiting if all(child in below for child in pairs[i])]
            for i in ready:
                found.append(torch.stack([below[child] for child in pairs[i]]))
                below[p + i] = found[-1].any(dim=0)
            waiting = [i for i in waiting if p + i not in below]
        return torch.stack(found) if found else torch.zeros(0, 2, p, dtype=torch.bool)

    def _changed(self, *_: Any) -> None:
        """What was derived from the pairs is out of date."""
        self._below = None

    def compression(self, z: Tensor, leaf: Tensor) -> Tensor:
        r"""How far codes are from the centres of their nodes, along the lines that join siblings: a scalar.

        .. math:: \frac{1}{b\, n} \sum_a \sum_{z \in a} |u_a^\top (z - \mu_a)|, \quad
                  u_a = \frac{\mu_a - \mu_{a'}}{|\mu_a - \mu_{a'}|}

        over the n nodes a but the root, a' being the sibling of a. What is orthogonal to the line is left as it is.
        """
        nodes = self.split_nodes()
        if not len(nodes.centers):
            return z.sum() * 0.0
        line = nodes.centers[:, 0] - nodes.centers[:, 1]
        line = line / line.norm(dim=1, keepdim=True).clamp_min(1e-12)
        place = (nodes.centers * line[:, None]).sum(dim=2)  # [I, 2]
        with in_single(z):
            gap = ((z.to(line.dtype) @ line.T).unsqueeze(2) - place).abs()  # [b, I, 2]
        belongs = nodes.below[:, :, leaf].permute(2, 0, 1)
        return (gap * belongs).sum() / (len(z) * 2 * len(nodes.centers))
