"""What users hand to `fit` and `predict`, as features [N, d]."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch_geometric.data import Data

from graphclust._checks import check_features

Input: TypeAlias = ArrayLike | Tensor | Data


def choose_n_clusters(n_clusters: int, n_samples: int) -> int:
    """K as it is used, for N samples: no more clusters than samples."""
    if n_clusters > n_samples:
        raise ValueError(
            f"n_samples={n_samples} is smaller than n_clusters={n_clusters}: ask for fewer clusters"
        )
    return int(n_clusters)


def read_features(estimator: Any, X: Input, *, reset: bool) -> Tensor:
    """Features [N, d] of an array, memory map, tensor or PyG Data.

    Parameters
    ----------
    estimator : BaseEstimator
        Its number and names of features are set when `reset`, and checked otherwise.
    X : array, memory map or tensor [N, d], or PyG Data with x
    reset : bool
        Whether this is `fit`.
    """
    least = 2 if reset else 1
    if isinstance(X, Data):
        if X.x is None:
            raise ValueError("X has no x; set X.x to the features [N, d], e.g. torch.eye(X.num_nodes)")
        if reset:
            # Names of columns that an earlier fit saw do not belong to this one.
            estimator.__dict__.pop("feature_names_in_", None)
        known = None if reset else estimator.n_features_in_
        return check_features(X.x, "X.x", min_samples=least, n_features=known)
    if isinstance(X, Tensor):
        X = X.detach().cpu()
        X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    # NaN and infinity are looked for once, below, with a message that says where they are.
    array = validate_data(
        estimator, X, reset=reset, dtype="numeric", ensure_min_samples=least, ensure_all_finite=False
    )
    return check_features(array, "X", min_samples=least)
