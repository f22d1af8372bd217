"""The sparse contingency table that every score against known classes reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from graphclust._labels import encode_labels


class Table:
    """Sparse contingency table of clusters (rows) and classes (columns), and what is read from it."""

    def __init__(self, y_true: Any, y_pred: Any) -> None:
        self.true_codes, self.classes = encode_labels(y_true, "y_true")
        self.pred_codes, self.clusters = encode_labels(y_pred, "y_pred")
        if len(self.true_codes) != len(self.pred_codes):
            raise ValueError(
                f"y_true has {len(self.true_codes)} labels and y_pred has {len(self.pred_codes)}: "
                "give one of each per sample, in the same order"
            )
        ones = np.ones(len(self.true_codes), dtype=np.int64)
        shape = (len(self.clusters), len(self.classes))
        # The conversion to CSR adds up the entries of one cell.
        self.counts = sp.coo_array((ones, (self.pred_codes, self.true_codes)), shape=shape).tocsr()
        self.cluster_sizes = np.bincount(self.pred_codes, minlength=shape[0])
        self.class_sizes = np.bincount(self.true_codes, minlength=shape[1])
        self._matching: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def n_samples(self) -> int:
        return len(self.true_codes)

    def matching(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the best matching; pairs without a common sample are left out."""
        if self._matching is None:
            n_clusters, n_classes = self.counts.shape
            # The sparse solver wants every row matched. Each cluster therefore gets a private column that
            # stands for "no class"; all weights are raised by one, because a stored weight of zero would
            # count as no edge, and since each row is matched exactly once that shifts all matchings alike.
            gain = self.counts.astype(np.float64)
            gain.data += 1.0
            padded = sp.hstack([gain, sp.csr_array(sp.eye(n_clusters))], format="csr")
            rows, cols = min_weight_full_bipartite_matching(padded, maximize=True)
            real = cols < n_classes
            self._matching = rows[real], cols[real]
        return self._matching

    def matched_counts(self) -> np.ndarray:
        rows, cols = self.matching()
        return np.asarray(self.counts[rows, cols]).ravel()

    def accuracy(self) -> float:
        return float(self.matched_counts().sum() / self.n_samples)

    def f1(self) -> float:
        rows, cols = self.matching()
        scores = 2.0 * self.matched_counts() / (self.cluster_sizes[rows] + self.class_sizes[cols])
        return float(scores.sum() / len(self.classes))

    def purity(self) -> float:
        return float(self.counts.max(axis=1).toarray().sum() / self.n_samples)

    def nmi(self) -> float:
        from sklearn.metrics import normalized_mutual_info_score

        return float(normalized_mutual_info_score(self.true_codes, self.pred_codes))

    def ari(self) -> float:
        from sklearn.metrics import adjusted_rand_score

        return float(adjusted_rand_score(self.true_codes, self.pred_codes))
