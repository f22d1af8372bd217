"""What the estimators share that train no network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from graphclust._refits import all_or_nothing
from graphclust.methods.base import draw_seed
from graphclust.methods.documented import Documented
from graphclust.methods.files import (
    read_results,
    replacing_folder,
    saved_folder,
    unfitted,
    write_meta,
    write_results,
)
from graphclust.methods.inputs import (
    Input,
    check_n_clusters,
    choose_n_clusters,
    read_features,
    warn_of_empty_clusters,
    warn_of_equal_samples,
    warn_of_one_cluster,
)

Self = TypeVar("Self", bound="ShallowClusterer")


@dataclass(eq=False, repr=False, kw_only=True)
class ShallowClusterer(Documented, ClusterMixin, BaseEstimator, ABC):
    """Base of the estimators that cluster features as they are; the same `fit`, `save` and `load` as the deep ones.

    Parameters
    ----------
    n_clusters : int or "auto"
        K; "auto" estimates it from the sample graph (`graphclust.estimate_n_clusters`).
    random_state : int, RandomState or None
        The only source of randomness.

    Attributes
    ----------
    labels_ : ndarray [N], int64
    n_clusters_ : int
        K.
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
        Of samples that are images.
    """

    n_clusters: int | str = field(default=8, kw_only=False)
    random_state: Any = None

    if TYPE_CHECKING:  # a declared field would be a parameter
        n_clusters_: int
        history_: list[dict[str, Any]]

    #: Fitted arrays and numbers (without the underscore) that `save` writes.
    _results: ClassVar[tuple[str, ...]] = ("labels",)
    #: Whether the method takes n_clusters=None, and sets `n_clusters_` by itself.
    _finds_n_clusters: ClassVar[bool] = False

    @abstractmethod
    def _fit(self, x: NDArray[np.float32], seed: int) -> None:
        """Cluster the samples x [N, d]: set the attributes that `_results` names."""

    def _check_parameters(self) -> None:
        """Raise ValueError or TypeError for a parameter that makes no sense, before anything is computed."""
        if not (self._finds_n_clusters and self.n_clusters is None):
            check_n_clusters(self.n_clusters)

    def fit(self: Self, X: Input, y: Any = None) -> Self:
        """Cluster the samples.

        Parameters
        ----------
        X : array, memory map or tensor [N, d], or PyG Data with x
            Arrays [N, H, W] and [N, H, W, C] are images: rows of H * W * C features.
        y : ignored
            True labels are never read.

        Returns
        -------
        self
            A fit that is refused or interrupted leaves it as it was.
        """
        with all_or_nothing(self):
            self._check_parameters()
            x = self._data_of(X)
            seed = draw_seed(self.random_state)
            if self.n_clusters is not None:
                self.n_clusters_ = self._choose_n_clusters(x, seed)
                if self.n_clusters == "auto" and self.n_clusters_ == 1:
                    warn_of_one_cluster(x, X)
            self.n_features_in_ = x.shape[1]
            self._fit(x.float().cpu().numpy(), seed)
            warn_of_equal_samples(x, X)
            warn_of_empty_clusters(
                self.labels_,
                self.n_clusters_,
                "the data may have fewer distinct samples; ask for fewer clusters",
            )
        return self

    def _choose_n_clusters(self, x: Tensor, seed: int) -> int:
        """K as it is used: given, or estimated."""
        return choose_n_clusters(self.n_clusters, self.__dict__.get("graph_", x), seed)

    def _data_of(self, X: Input) -> Tensor:
        """Features [N, d] of the training samples."""
        return read_features(self, X, reset=True)

    def _features(self, X: Input) -> NDArray[np.float32]:
        """Features [M, d] of new samples."""
        check_is_fitted(self, "labels_")
        return read_features(self, X, reset=False).float().cpu().numpy()

    def __sklearn_tags__(self) -> Any:
        """Tags for scikit-learn: images are read as rows."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def save(self, folder: str | Path) -> Path:
        """Write the fitted estimator to a folder: results as safetensors, parameters as JSON; returns the folder."""
        check_is_fitted(self, "labels_")
        with replacing_folder(Path(folder)) as partial:
            self._write(partial)
        return Path(folder)

    def _write(self, folder: Path) -> None:
        write_results(folder, self, self._results)
        write_meta(folder, self, n_clusters=self.n_clusters_, history=getattr(self, "history_", None))

    @classmethod
    def load(cls: type[Self], folder: str | Path, *, device: Any = None, **callables: Any) -> Self:
        """Read an estimator that `save` wrote.

        Parameters
        ----------
        folder : path
        device : ignored
            There is no network; it is here so that all methods are loaded alike.
        **callables
            Parameters that are callables, which files cannot hold.
        """
        folder = saved_folder(folder)
        estimator, meta = unfitted(cls, folder, callables, "n_clusters")
        estimator.n_clusters_ = meta["n_clusters"]
        if meta.get("history") is not None:
            estimator.history_ = meta["history"]
        read_results(folder, estimator, cls._results)
        estimator._read(folder)
        return estimator

    def _read(self, folder: Path) -> None:
        """Read what `_write` of a subclass wrote besides results and parameters."""
