r"""How good a clustering is: against known classes, and without any.

With classes: :func:`clustering_accuracy`, :func:`normalized_mutual_info`, :func:`adjusted_rand`,
:func:`macro_f1`, :func:`purity`, and :func:`evaluate` for all of them; :func:`reliability` and
:func:`calibration_error` for probabilities. They read the contingency table
:math:`n_{kc} = |\{i : y_i = c, \hat y_i = k\}|` in sparse form, so 10,000 clusters of a million samples
need some megabytes and not the 800 MB of the dense table.

Without classes: :func:`modularity` and :func:`conductance` on a graph, :func:`silhouette` on features, and
:func:`agreement` between several runs.

Labels are lists, arrays or tensors of anything hashable (numbers, strings, tuples); only which samples
share a label counts, so the noise label -1 of density methods is a cluster like any other: all noise
together is one cluster.
"""

from graphclust.metrics.calibration import calibration_error, reliability
from graphclust.metrics.labels import (
    adjusted_rand,
    agreement,
    clustering_accuracy,
    evaluate,
    macro_f1,
    match_labels,
    normalized_mutual_info,
    purity,
)
from graphclust.metrics.structure import conductance, modularity, silhouette

__all__ = [
    "adjusted_rand",
    "agreement",
    "calibration_error",
    "clustering_accuracy",
    "conductance",
    "evaluate",
    "macro_f1",
    "match_labels",
    "modularity",
    "normalized_mutual_info",
    "purity",
    "reliability",
    "silhouette",
]
