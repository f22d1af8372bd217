"""Scaling of the features of documents: rare words tell more than frequent ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from graphclust.nn.scaling import FeatureScale
from graphclust.nn.sparse_features import DENSITY


class TermScale(nn.Module):
    r"""Bags of words weighed by inverse document frequency and brought to length 1; other features as `FeatureScale`.

    Features are bags of words where none is negative and at most 5 % of the entries are not zero. Feature j, which
    :math:`n_j` of n samples have, is multiplied by :math:`\log(n / n_j)` (Sparck Jones 1972), and rows are divided by
    their length, so that long documents count no more than short ones.

    Parameters
    ----------
    n_features : int
    by_rarity : bool, default=True
        Without it all words count the same, and the rows alone are scaled.
    """

    weight: Tensor
    unit_length: Tensor

    def __init__(self, n_features: int, by_rarity: bool = True) -> None:
        super().__init__()
        self.by_rarity = by_rarity
        self.plain = FeatureScale(n_features)
        self.unit_range = False
        self.register_buffer("weight", torch.ones(n_features))
        self.register_buffer("unit_length", torch.zeros((), dtype=torch.bool))

    @property
    def is_terms(self) -> bool:
        """Whether the training data were bags of words."""
        return bool(self.unit_length)

    def fit(self, x: Tensor, scale: str = "auto", *, block_size: int = 65536) -> TermScale:
        """Read the scale off the data x [N, d], block by block; `scale` as in `FeatureScale`."""
        present = torch.zeros(x.shape[1], dtype=torch.int64)
        terms = scale == "auto"
        # 16 MiB of float32, however wide the rows.
        for block in x.split(max(1, min(block_size, (1 << 22) // x.shape[1]))):
            if not terms:
                break
            present += (block != 0).sum(dim=0).cpu()
            terms = int(present.sum()) <= DENSITY * x.numel() and not bool((block < 0).any())
        if terms:
            if self.by_rarity:  # a word that all samples have, or none, tells nothing
                self.weight.copy_((x.shape[0] / present.clamp_min(1)).log() * (present > 0))
            self.unit_length.fill_(True)
            return self
        self.plain.fit(x, scale, block_size=block_size)
        self.unit_range = self.plain.unit_range
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Stored features of any numeric type [n, d] -> scaled float32 [n, d]."""
        return normalize(x.float() * self.weight) if self.is_terms else self.plain(x)
