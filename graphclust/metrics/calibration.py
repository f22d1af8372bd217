"""Whether probabilities can be believed: how often a sample that is said to be sure is in the right cluster."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import scipy.sparse as sp

from graphclust._labels import as_array, encode_labels
from graphclust.metrics.labels import match_labels

_TOLERANCE = 1e-3


def reliability(y_true: Any, probabilities: Any, n_bins: int = 15) -> dict[str, np.ndarray]:
    r"""The reliability curve: accuracy against confidence, bin by bin.

    A sample's label is its most probable cluster, its confidence the probability of it. Clusters and classes are
    matched one-to-one, as in :func:`clustering_accuracy`; samples of a cluster without a class count as wrong.

    Parameters
    ----------
    y_true : array-like of shape (N,)
        Classes, any hashable labels.
    probabilities : array-like or sparse matrix of shape (N, K)
        Of the clusters 0 to K - 1, as `probabilities_` and `predict_proba` give them.
    n_bins : int
        Intervals of equal width that [0, 1] is cut into.

    Returns
    -------
    dict
        ``"confidence"`` and ``"accuracy"``, the means over the samples of each bin, and ``"share"``, the bin's part of
        all samples; arrays in the order of the confidence, bins without samples left out.

    Raises
    ------
    ValueError
        For values outside [0, 1], another number of rows than of classes, or less than one bin.

    Examples
    --------
    >>> curve = reliability([0, 0, 1, 1], [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    >>> curve["confidence"].round(2), curve["accuracy"].round(2)
    (array([0.6, 0.9]), array([0., 1.]))
    """
    is_sparse = sp.issparse(probabilities)
    p = (probabilities.tocsr() if is_sparse else as_array(probabilities)).astype(np.float64, copy=False)
    bins = operator.index(n_bins)
    if bins < 1:
        raise ValueError(f"n_bins={n_bins}: at least one is needed")
    if p.ndim != 2 or 0 in p.shape:
        raise ValueError(f"probabilities have shape {list(p.shape)}: [N, K] is needed, a column a cluster")
    if not (p.min() >= -_TOLERANCE and p.max() <= 1 + _TOLERANCE):  # NaN is in no interval
        raise ValueError(f"probabilities are from {p.min():.4g} to {p.max():.4g}: [0, 1] is needed")
    classes, _ = encode_labels(y_true, "y_true")
    if len(classes) != p.shape[0]:
        raise ValueError(f"{len(classes)} classes and {p.shape[0]} rows of probabilities: as many are needed")
    total = np.asarray(p.sum(axis=1)).reshape(-1)
    if not is_sparse and (off := int(np.abs(total - 1).argmax())) >= 0 and abs(total[off] - 1) > 1e-3:
        raise ValueError(f"the probabilities of row {off} sum to {total[off]:.4g}: 1 is needed")
    labels, confidence = np.asarray(p.argmax(axis=1)).reshape(-1), p.max(axis=1)
    if is_sparse:
        confidence = confidence.toarray().reshape(-1)
    partner = np.full(p.shape[1], -1)
    for cluster, matched in match_labels(classes, labels).items():
        partner[cluster] = matched
    right = partner[labels] == classes
    number = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    size = np.bincount(number, minlength=bins)
    kept = size > 0
    return {
        "confidence": (np.bincount(number, confidence, bins)[kept] / size[kept]),
        "accuracy": (np.bincount(number, right, bins)[kept] / size[kept]),
        "share": size[kept] / len(classes),
    }


def calibration_error(y_true: Any, probabilities: Any, n_bins: int = 15) -> float:
    r"""Expected calibration error (Naeini et al. 2015) of the most probable cluster.

    .. math:: ECE = \sum_b \frac{n_b}{N} \left| \mathrm{accuracy}_b - \mathrm{confidence}_b \right|

    over the bins b of :func:`reliability`.

    Parameters
    ----------
    y_true, probabilities, n_bins
        See :func:`reliability`.

    Returns
    -------
    float
        In [0, 1]; 0 where confidence and accuracy agree in each bin.

    Examples
    --------
    >>> round(calibration_error([0, 0, 1, 1], [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]), 3)
    0.225
    """
    curve = reliability(y_true, probabilities, n_bins)
    return float(np.sum(curve["share"] * np.abs(curve["accuracy"] - curve["confidence"])))
