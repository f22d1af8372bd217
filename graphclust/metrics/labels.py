"""Two labellings of the same samples: clusters against classes, and one run against another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from graphclust._contingency import Table
from graphclust._labels import as_array


def clustering_accuracy(y_true: Any, y_pred: Any) -> float:
    r"""Share of samples in the right cluster, under the best one-to-one matching of clusters and classes.

    .. math:: \mathrm{ACC} = \frac{1}{N} \max_{\pi} \sum_k n_{k, \pi(k)}

    where :math:`\pi` runs over the one-to-one matchings (Hungarian method; Kuhn 1955). The numbers of
    clusters and of classes may differ: what is left without a partner counts as wrong. This is the ACC of
    the deep-clustering papers; :func:`purity`, which several programs print under the same name, is never
    lower.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (N,)
        Classes and clusters, any hashable labels. -1 (noise) is a cluster of its own.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If the lengths differ, there are no samples, or a label is NaN or None.
    """
    return Table(y_true, y_pred).accuracy()


def match_labels(y_true: Any, y_pred: Any) -> dict[Any, Any]:
    """The class that belongs to each cluster under the best one-to-one matching.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (N,)
        Classes and clusters, any hashable labels.

    Returns
    -------
    dict
        From cluster label to class label. It has min(number of clusters, number of classes) entries: a
        cluster left without a class is not in it. Pairs that share no sample are filled up in sorted order.
    """
    table = Table(y_true, y_pred)
    rows, cols = table.matching()
    # A partner that shares no sample adds nothing, but a picture or a relabelling needs one nevertheless.
    free_rows = np.setdiff1d(np.arange(len(table.clusters)), rows)
    free_cols = np.setdiff1d(np.arange(len(table.classes)), cols)
    n_extra = min(len(free_rows), len(free_cols))
    pairs = zip(
        np.concatenate([rows, free_rows[:n_extra]]), np.concatenate([cols, free_cols[:n_extra]]), strict=True
    )
    return {table.clusters[k]: table.classes[c] for k, c in sorted(pairs)}


def normalized_mutual_info(y_true: Any, y_pred: Any) -> float:
    r"""Mutual information over the mean of the two entropies, in [0, 1].

    Computed by scikit-learn. Parameters and errors as :func:`clustering_accuracy`.
    """
    return Table(y_true, y_pred).nmi()


def adjusted_rand(y_true: Any, y_pred: Any) -> float:
    """Rand index corrected for chance (Hubert and Arabie 1985): 1 is perfect, 0 is what random labels reach.

    Computed by scikit-learn. Parameters and errors as :func:`clustering_accuracy`.

    Returns
    -------
    float
        In [-0.5, 1].
    """
    return Table(y_true, y_pred).ari()


def macro_f1(y_true: Any, y_pred: Any) -> float:
    r"""Unweighted mean over the classes of F1, after the one-to-one matching of :func:`clustering_accuracy`.

    .. math:: \mathrm{F1}_c = \frac{2\, n_{\pi^{-1}(c), c}}{n_{\pi^{-1}(c), \cdot} + n_{\cdot, c}}

    A class without a cluster has F1 = 0. A rare class counts as much as a frequent one, so a method that
    swallows rare classes does worse here than by accuracy. Parameters and errors as
    :func:`clustering_accuracy`.
    """
    return Table(y_true, y_pred).f1()


def purity(y_true: Any, y_pred: Any) -> float:
    r"""Share of samples that belong to the most frequent class of their cluster.

    .. math:: \frac{1}{N} \sum_k \max_c n_{kc}

    It flatters: two clusters may claim the same class, so it never falls as clusters are split and is 1
    when each sample is its own cluster. Compare it only between results with the same number of clusters,
    and do not report it as accuracy. Parameters and errors as :func:`clustering_accuracy`.
    """
    return Table(y_true, y_pred).purity()


def evaluate(y_true: Any, y_pred: Any) -> dict[str, float]:
    """All scores against known classes at once.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (N,)
        Classes and clusters, any hashable labels. -1 (noise) is a cluster of its own.

    Returns
    -------
    dict
        ``{"ACC", "NMI", "ARI", "F1", "purity"}``: see :func:`clustering_accuracy`,
        :func:`normalized_mutual_info`, :func:`adjusted_rand`, :func:`macro_f1`, :func:`purity`.

    Examples
    --------
    >>> evaluate([0, 0, 1, 1], ["b", "b", "a", "b"])["ACC"]
    0.75
    """
    table = Table(y_true, y_pred)
    return {
        "ACC": table.accuracy(),
        "NMI": table.nmi(),
        "ARI": table.ari(),
        "F1": table.f1(),
        "purity": table.purity(),
    }


def agreement(labelings: Sequence[Any]) -> float:
    """How much several clusterings of the same samples agree: the mean :func:`adjusted_rand` over all pairs.

    Run a method with several seeds and give the labels of each run: near 1, the result does not hang on the
    seed. It needs no classes, so it may be used to choose a parameter.

    Parameters
    ----------
    labelings : sequence of array-like of shape (N,)
        At least two labellings.

    Returns
    -------
    float
        In [-0.5, 1].
    """
    if len(labelings) < 2:
        raise ValueError(
            f"agreement compares runs, and {len(labelings)} was given: give at least 2 labellings"
        )
    lengths = [len(as_array(labels)) for labels in labelings]
    if len(set(lengths)) > 1:
        raise ValueError(f"the labellings have {lengths} labels: give one of each sample in all of them")
    return float(np.mean([adjusted_rand(a, b) for a, b in combinations(labelings, 2)]))
