"""Scaling of vectors of unknown origin: measurements in many units, or embeddings of a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Vectors of this many entries are taken as embeddings.
EMBEDDING = 256
#: Fewer samples do not tell the directions in which an embedding varies.
_SAMPLES = 500
#: Columns whose ranges differ by this factor are measured in different units.
_UNITS = 10.0


class VectorScale(nn.Module):
    """Brings vectors to where Euclidean distance means something, by a rule that reads no labels.

    - Embeddings (d >= 256, of at least 500 samples) are whitened with shrinkage and brought to length 1,
      ``(x - mean) V diag(1 / sqrt(lambda + mean(lambda))) V^T`` with the covariance's eigenvalues lambda and
      eigenvectors V: the few directions in which all samples of a network vary most count no more than those that tell
      kinds apart, and directions below the mean eigenvalue, which are mostly noise, are left small.
    - Columns in different units (the 90th percentile of their ranges is over ten times the 10th) get mean 0 and
      variance 1 each.
    - Others are centred, and divided by one factor for all.

    Attributes
    ----------
    unit_range : bool
        False: the result is no set of pixels.
    """

    shift: Tensor
    factor: Tensor
    matrix: Tensor
    unit_length: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.whitens = n_features >= EMBEDDING
        self.unit_range = False
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("factor", torch.ones(n_features))
        self.register_buffer("matrix", torch.eye(n_features) if self.whitens else torch.empty(0))
        self.register_buffer("unit_length", torch.zeros((), dtype=torch.bool))

    def fit(self, x: Tensor, scale: str = "auto", *, block_size: int = 65536) -> VectorScale:
        """Read the scale off the data x [N, d], block by block; `scale` must be "auto"."""
        n, d = x.shape
        total = torch.zeros(d, dtype=torch.float64)
        low, high = torch.full((d,), torch.inf), torch.full((d,), -torch.inf)
        for block in x.split(block_size):
            total += block.double().sum(dim=0)
            low = torch.minimum(low, block.float().amin(dim=0))
            high = torch.maximum(high, block.float().amax(dim=0))
        mean = total / n
        covariance = torch.zeros((d, d) if self.whitens else d, dtype=torch.float64)
        for block in x.split(block_size):
            centred = block.double() - mean
            covariance += centred.T @ centred if self.whitens else centred.square().sum(dim=0)
        covariance /= n
        variance = covariance.diagonal() if self.whitens else covariance
        self.shift.copy_(mean)
        if self.whitens and n >= _SAMPLES and float(variance.sum()) > 0:
            values, vectors = torch.linalg.eigh(covariance)
            self.matrix.copy_((vectors * (values.clamp_min(0) + values.mean()).rsqrt()) @ vectors.T)
            self.unit_length.fill_(True)
            return self
        ranges = (high - low)[high > low]
        if len(ranges) == 0:
            return self
        if ranges.quantile(0.9) > _UNITS * ranges.quantile(0.1):
            self.factor.copy_(torch.where(variance > 0, variance.clamp_min(1e-70).rsqrt(), 1.0))
        else:
            # Below that float32 keeps hardly a digit, and the factor would leave its range.
            self.factor.fill_(float(variance.mean().clamp_min(1e-70).rsqrt()))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Stored vectors of any numeric type [n, d] -> scaled float32 [n, d]."""
        x = (x.float() - self.shift) * self.factor
        if self.whitens:
            x = x @ self.matrix
        return F.normalize(x) if bool(self.unit_length) else x
