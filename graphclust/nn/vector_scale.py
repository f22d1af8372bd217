"""Scaling of vectors of unknown origin: measurements in many units, or embeddings of a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphclust._checks import check_choice

#: Vectors of this many entries are taken as embeddings.
EMBEDDING = 256
#: Up to so many entries are whitened: the eigenvectors of more take minutes.
WIDEST = 4096
#: Fewer samples do not tell the directions in which an embedding varies.
_SAMPLES = 500
#: Entries of a block of rows.
_VALUES = 1 << 24
#: Columns whose ranges differ by this factor are measured in different units.
_UNITS = 10.0
#: Columns are measured in one unit where the quartiles of their ranges differ by no more than this factor.
_ALIKE = 2.0
#: Order statistics of a column that ranks are read off, and rows that these are taken from.
_KNOTS, _RANKED = 1024, 65_536
KINDS = ("auto", "common", "units", "whitened")


class VectorScale(nn.Module):
    """Brings vectors to where Euclidean distance means something, by a rule that reads no labels.

    - "whitened", which "auto" takes for embeddings (256 <= d <= 4096, of at least 500 samples): whitened with
      shrinkage and brought to length 1, ``(x - mean) V diag(1 / sqrt(lambda + mean(lambda))) V^T`` with the
      covariance's eigenvalues lambda and eigenvectors V: the few directions in which all samples of a network vary most
      count no more than those that tell kinds apart, and directions below the mean eigenvalue, which are mostly noise,
      are left small. Of vectors with d < 256 the correlation is taken instead, and their length stays.
    - "units", which "auto" takes for columns in different units (the 90th percentile of their ranges is over ten times
      the 10th): mean 0 and variance 1 each.
    - "common": centred, and divided by one factor for all.

    Parameters
    ----------
    n_features : int
    kind : {"auto", "common", "units", "whitened"}, default="auto"

    Attributes
    ----------
    taken : str
        The kind that `fit` took.
    one_unit : bool
        Whether the columns' ranges are alike: the middle half of them within a factor of two, and 90 % within ten.
    unit_range : bool
        False: the result is no set of pixels.
    """

    shift: Tensor
    factor: Tensor
    matrix: Tensor
    unit_length: Tensor

    def __init__(self, n_features: int, kind: str = "auto") -> None:
        super().__init__()
        self.kind = self.taken = check_choice(kind, "kind", KINDS)
        self.whitens = n_features <= WIDEST and (
            kind == "whitened" or (kind == "auto" and n_features >= EMBEDDING)
        )
        self.unit_range = False
        self.one_unit = True
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("factor", torch.ones(n_features))
        self.register_buffer("matrix", torch.eye(n_features) if self.whitens else torch.empty(0))
        self.register_buffer("unit_length", torch.zeros((), dtype=torch.bool))

    def fit(self, x: Tensor, scale: str = "auto", *, block_size: int = 65536) -> VectorScale:
        """Read the scale off the data x [N, d], block by block; `scale` must be "auto"."""
        n, d = x.shape
        block_size = max(1, min(block_size, _VALUES // d))
        total = torch.zeros(d, dtype=torch.float64)
        low, high = torch.full((d,), torch.inf), torch.full((d,), -torch.inf)
        for block in x.split(block_size):
            total += block.sum(dim=0, dtype=torch.float64)
            low = torch.minimum(low, block.float().amin(dim=0))
            high = torch.maximum(high, block.float().amax(dim=0))
        mean = total / n
        covariance = torch.zeros((d, d) if self.whitens else d, dtype=torch.float64)
        for block in x.split(block_size):
            centred = block - mean  # in float64, without a copy of the block in it
            covariance += centred.T @ centred if self.whitens else centred.square().sum(dim=0)
        covariance /= n
        variance = covariance.diagonal() if self.whitens else covariance
        self.shift.copy_(mean)
        ranges = (high - low)[high > low]
        differ = len(ranges) > 0 and bool(ranges.quantile(0.9) > _UNITS * ranges.quantile(0.1))
        alike = len(ranges) == 0 or bool(ranges.quantile(0.75) <= _ALIKE * ranges.quantile(0.25))
        self.one_unit = alike and not differ
        # Below that float32 keeps hardly a digit, and the factor would leave its range.
        own = torch.where(high > low, variance.clamp_min(1e-70).rsqrt(), 1.0)
        if self.whitens and float(variance.sum()) > 0 and (n >= _SAMPLES or self.kind == "whitened"):
            self.taken = "whitened"
            if d < EMBEDDING:
                self.factor.copy_(own)
                covariance = covariance * own * own[:, None]
            values, vectors = torch.linalg.eigh(covariance)
            self.matrix.copy_((vectors * (values.clamp_min(0) + values.mean()).rsqrt()) @ vectors.T)
            self.unit_length.fill_(d >= EMBEDDING)
            return self
        self.taken = self.kind
        if self.kind not in ("common", "units"):
            self.taken = "units" if differ else "common"
        if self.taken == "units":
            self.factor.copy_(own)
        elif len(ranges):
            self.factor.fill_(float(variance.mean().clamp_min(1e-70).rsqrt()))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Stored vectors of any numeric type [n, d] -> scaled float32 [n, d]."""
        x = (x.float() - self.shift) * self.factor
        if self.whitens:
            x = x @ self.matrix
        return F.normalize(x) if bool(self.unit_length) else x


class RankScale(nn.Module):
    """Each column by its ranks, with mean 0 and variance 1: what no monotone change of a column's unit alters.

    Counts, prices and concentrations have long tails, in which a few samples are far from all others and a variance
    says little. Equal values share the mean of their ranks; of more than 1,024 samples ranks are read off 1,024 order
    statistics.

    Parameters
    ----------
    n_features : int
    n_knots : int, default=1024
        Order statistics that are kept; fewer where there are fewer samples.
    """

    table: Tensor
    shift: Tensor
    factor: Tensor
    taken = "ranks"

    def __init__(self, n_features: int, n_knots: int = _KNOTS) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(n_features, n_knots))
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("factor", torch.ones(n_features))

    def fit(self, x: Tensor) -> RankScale:
        """Read the order statistics off the data x [N, d]."""
        rows = x[:: max(1, -(-len(x) // _RANKED))].float()
        order = rows.T.contiguous().sort(dim=1).values
        n_knots = min(self.table.shape[1], len(rows))
        self.table = order[:, torch.linspace(0, len(rows) - 1, n_knots).round().long()].contiguous()
        ranks = self._ranks(rows)
        self.shift = ranks.mean(dim=0)
        spread = ranks.std(dim=0, correction=0)
        self.factor = torch.where(spread > 0, 1 / spread.clamp_min(1e-30), 1.0)
        return self

    def _ranks(self, x: Tensor) -> Tensor:
        columns = x.T.contiguous()
        below = torch.searchsorted(self.table, columns)
        return ((below + torch.searchsorted(self.table, columns, right=True)).float() / 2).T

    def forward(self, x: Tensor) -> Tensor:
        """Stored vectors of any numeric type [n, d] -> scaled float32 [n, d]."""
        return (self._ranks(x.float()) - self.shift) * self.factor


def vector_scales(x: Tensor) -> list[VectorScale | RankScale]:
    """The scalings under which vectors x [N, d] are looked at, fitted: "common", "units", "ranks" and "whitened".

    None of them suits all data, and what suits is hard to tell without labels. Whitening is left out where there are
    fewer samples than directions to be told apart: N < d (of embeddings, d >= 256: N < 500), or d > 4096.
    """
    n, d = x.shape
    scales: list[VectorScale | RankScale] = [VectorScale(d, kind).fit(x) for kind in ("common", "units")]
    scales.append(RankScale(d).fit(x))
    if 1 < d <= WIDEST and n >= (_SAMPLES if d >= EMBEDDING else d):
        scales.append(VectorScale(d, "whitened").fit(x))
    return scales


def suited_scaling(scales: list[VectorScale | RankScale]) -> str | None:
    """Of what `vector_scales` returned, the kind that what the vectors are speaks for; None where nothing does.

    Columns in one unit (`VectorScale.one_unit`) vary as much as they matter, as pixels do: "common". Other embeddings
    (d >= 256) are "whitened", where that can be.
    """
    first, last = scales[0], scales[-1]
    if isinstance(first, VectorScale) and first.one_unit:
        return "common"
    return "whitened" if last.taken == "whitened" and len(last.shift) >= EMBEDDING else None


def scale_from_state(state: dict[str, Tensor]) -> VectorScale | RankScale:
    """The fitted scale whose `state_dict` this is."""
    n_features = len(state["shift"])
    scale: VectorScale | RankScale
    if "table" in state:
        scale = RankScale(n_features, state["table"].shape[1])
    else:
        scale = VectorScale(n_features, "whitened" if state["matrix"].numel() else "common")
    scale.load_state_dict(state)
    return scale
