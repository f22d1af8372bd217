"""What all deep estimators share: the way from X over network and stages to labels, and the files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch_geometric.data import Data

from graphclust._checks import check_choice, check_count, check_device
from graphclust._files import is_no_folder
from graphclust._messages import shown
from graphclust._random import private_randomness
from graphclust._refits import all_or_nothing
from graphclust.graph.storage import checksum
from graphclust.methods.documented import Documented
from graphclust.methods.files import (
    plain_parameters,
    read_results,
    reading,
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
from graphclust.nn.scaling import SCALES
from graphclust.training.batches import BatchSource
from graphclust.training.inference import Assignments, collect, in_blocks
from graphclust.training.stage import Stage
from graphclust.training.trainer import Trainer, choose_device

PRECISIONS = ("auto", "32-true", "bf16-mixed")
RESULTS = ("labels", "probabilities", "embedding")
Self = TypeVar("Self", bound="DeepClusterer")


# scikit-learn wants a constructor that names every parameter and does nothing but store it. That is what a dataclass
# writes, so a method lists its own parameters with their defaults and inherits the rest.
@dataclass(eq=False, repr=False, kw_only=True)
class DeepClusterer(
    Documented, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator, ABC
):
    """Base of the estimators that train a network; those that read a graph have `GraphClusterer` as well.

    A method is a recipe: `_build` puts a network together, `_stages` says what is minimised in which order, and
    `_logits` reads the cluster logits off the trained network. Everything else is here, once.

    Parameters
    ----------
    n_clusters : int or "auto"
        K; "auto" estimates it from the sample graph (`graphclust.estimate_n_clusters`).
    scale : {"auto", "minmax", "standard", "none"}
        Of the network's input (`graphclust.nn.FeatureScale`); a graph is built on the features as they are.
    batch_size : int or None
        Samples a step; None takes all of them in one.
    device : str, torch.device or None
        None takes CUDA where there is one, else the CPU.
    precision : {"auto", "32-true", "bf16-mixed"}
        "auto" is bfloat16 where the hardware is faster with it, else float32.
    checkpoint : path or None
        Folder for checkpoints, written every ten epochs, every five minutes and after each stage. A run that was
        killed goes on from there and ends as an unbroken one would; it must have the same parameters and data, and a
        `random_state`.
    random_state : int, RandomState or None
        The only source of randomness.
    verbose : bool
        Show progress and losses.

    Attributes
    ----------
    labels_ : ndarray [N], int64
    probabilities_ : ndarray [N, K], float32
        Soft assignments; their argmax is the label. Where N K is above 10^8 a ``csr_matrix`` of the five largest of
        each sample: N K numbers are never held.
    embedding_ : ndarray [N, latent_dim], float32
        Codes.
    model_ : torch.nn.Module
    history_ : list of dict
        One record an epoch: stage, epoch, loss and its terms, share of labels that changed, seconds.
    n_clusters_ : int
        K.
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
        Of samples that are images.
    """

    n_clusters: int | str = field(default=8, kw_only=False)
    scale: str = "auto"
    batch_size: int | None = None
    device: Any = None
    precision: str = "auto"
    checkpoint: Any = None
    random_state: Any = None
    verbose: bool = False

    #: Whether the network reads edges; without, no graph is built and none is kept.
    uses_graph: ClassVar[bool] = False

    if TYPE_CHECKING:  # a declared field would be a parameter
        image_shape_: tuple[int, int, int] | None

    @abstractmethod
    def _build(self, n_features: int) -> Any:
        """Network for samples of `n_features` features; it has a `scale` (FeatureScale) and an `embed` method."""

    @abstractmethod
    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        """What is trained, in order; `memory` holds what one stage leaves to a later one."""

    @abstractmethod
    def _logits(
        self, model: Any, source: BatchSource, nodes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of sorted nodes with their cluster logits [b, K]; all nodes for None."""

    def _check_parameters(self) -> None:
        """Raise ValueError or TypeError for a parameter that makes no sense, before anything is computed."""
        check_n_clusters(self.n_clusters)
        check_choice(self.scale, "scale", SCALES)
        check_choice(self.precision, "precision", PRECISIONS)
        check_device(self.device)
        self._check_batch_size()
        if self.checkpoint is not None:
            if not isinstance(self.checkpoint, (str, os.PathLike)):
                raise TypeError(f"checkpoint={self.checkpoint!r} is no path; name a folder, or None")
            if is_no_folder(Path(self.checkpoint)):
                raise ValueError(f"checkpoint={str(self.checkpoint)!r} is a file: name a folder")
            if self.random_state is None:
                raise ValueError(
                    "random_state=None gives another run each time, which no checkpoint can continue; "
                    "with a checkpoint set random_state to a number"
                )

    def _check_batch_size(self) -> None:
        if self.batch_size is not None:
            check_count(self.batch_size, "batch_size", remedy="None takes the full graph")

    # -- learning ----------------------------------------------------------------------------------------------

    def fit(self: Self, X: Input, y: Any = None) -> Self:
        """Train the network and label the samples; methods with a graph build it first.

        Parameters
        ----------
        X : array, memory map or tensor [N, d], SampleGraph, or PyG Data with x
            Methods with a graph take a given one as it is, and build one for features by their parameters. Arrays
            [N, H, W] and [N, H, W, C] are images: rows of H * W * C features.
        y : ignored
            True labels are never read.

        Returns
        -------
        self
            A fit that is refused or interrupted leaves it as it was.
        """
        with all_or_nothing(self):
            self._check_parameters()
            seed = draw_seed(self.random_state)
            trainer = Trainer(
                seed=seed,
                device=self.device,
                precision=self.precision,
                checkpoint=self.checkpoint,
                verbose=self.verbose,
            )
            seed = trainer.seed  # of several processes, the first's
            graph = self._data_of(X)
            n_features = graph.x.shape[1]
            self.n_clusters_ = choose_n_clusters(self.n_clusters, self._counted(graph), seed)
            if self.n_clusters == "auto" and self.n_clusters_ == 1:
                warn_of_one_cluster(graph.x, X)
            with private_randomness(seed):
                model = self._build(n_features)
                model.scale.fit(graph.x, self.scale)
            source = self._source(graph, trainer.device, seed)
            model.to(trainer.device)
            memory: dict[str, Tensor] = {}
            stages = self._stages(model, source, memory)
            fingerprint = self._fingerprint(graph, seed)
            if any(callable(value) for value in self.get_params(deep=False).values()):
                fingerprint["network"] = repr(model)  # two functions may have one name
            self.history_ = trainer.fit(model, stages, source, memory=memory, fingerprint=fingerprint)
            self.model_ = model.eval()
            self.n_features_in_ = n_features
            self._take_results(source)
            self._take_copies_alike()
            warn_of_equal_samples(graph.x, X)
            warn_of_empty_clusters(
                self.labels_,
                self.n_clusters_,
                "the data may have fewer distinct groups, or training was too short, too long or too fast",
            )
        return self

    def _data_of(self, X: Input) -> Data:
        """What the network is trained on: here the features alone, as a graph without edges."""
        return without_edges(read_features(self, X, reset=True))

    def _source(self, data: Data, device: torch.device, seed: int = 0) -> BatchSource:
        return BatchSource(data, device=device, seed=seed)

    def _fingerprint(self, graph: Data, seed: int) -> dict[str, Any]:
        """What a checkpoint must agree in to be continued."""
        rows = torch.linspace(0, graph.x.shape[0] - 1, 64, dtype=torch.float64).long()
        digest = float(graph.x[rows].double().sum())
        ignored = ("verbose", "checkpoint", "device", "num_workers")
        parameters = {k: v for k, v in plain_parameters(self).items() if k not in ignored}
        for name, value in self.get_params(deep=False).items():
            if callable(value):
                parameters[name] = getattr(value, "__qualname__", type(value).__qualname__)
        data = {
            "data_shape": list(graph.x.shape),
            "data_digest": digest,
            "n_edges": graph.edge_index.shape[1],
        }
        if self.checkpoint is not None:  # all of the data is read once for it
            data["data_checksum"] = checksum(graph.x)
            data["edge_checksum"] = [checksum(graph.edge_index), checksum(graph.edge_weight)]
        return {"method": type(self).__name__, **parameters, **data, "seed": seed}

    def _counted(self, graph: Data) -> Data:
        """Features and graph that K is told from, where it is "auto"."""
        return graph

    # -- reading the result ------------------------------------------------------------------------------------

    def _take_results(self, source: BatchSource) -> None:
        """Read the trained network: labels, probabilities and codes of the training samples."""
        self.labels_, self.probabilities_ = self._assignments(source, None)
        self.embedding_ = self._codes(source, None)

    def _take_copies_alike(self) -> None:
        """Give equal samples equal results; here a result depends on the sample's own features alone."""

    def predict(self, X: Input, *, out: str | Path | None = None) -> NDArray[np.int64]:
        """Cluster of each new sample, as the trained network reads it.

        Parameters
        ----------
        X : array, memory map or tensor [M, d], or PyG Data
            Methods with a graph attach features (and a Data without edges) to the training graph
            (`SampleGraph.attach`), and read a graph as it is. Methods without one read the features alone.
        out : path, optional
            A folder for ``labels.npy`` and the five largest probabilities of each sample, written as they come
            (`graphclust.training.inference.collect`); the labels are then a memory map of the file.

        Returns
        -------
        ndarray [M], int64
        """
        if out is None:
            return np.asarray(self.predict_proba(X).argmax(axis=1)).reshape(-1)
        check_is_fitted(self, "model_")
        source, nodes = self._new_samples(X)
        if nodes is None or bool((nodes.diff() > 0).all()):
            return self._assignments(source, nodes, out).labels
        # Rows that stand for one sample of the training data are read once.
        p: Any = self._probabilities(source, nodes)
        blocks = (p[start : start + 8192] for start in range(0, p.shape[0], 8192))
        dense = (block if isinstance(block, np.ndarray) else block.toarray() for block in blocks)
        return collect((torch.from_numpy(b) for b in dense), p.shape[0], out, are_logits=False).labels

    def predict_proba(self, X: Input) -> NDArray[np.float32]:
        """Cluster probabilities of new samples, [M, K]; see `predict`. Sparse where M K is above 10^8."""
        check_is_fitted(self, "model_")
        return self._probabilities(*self._new_samples(X))

    def _new_samples(self, X: Input) -> tuple[BatchSource, Tensor | None]:
        """Where new samples are read from, and which of its nodes they are (None for all)."""
        return self._source(without_edges(read_features(self, X, reset=False)), self._device), None

    @property
    def _device(self) -> torch.device:
        """Where the trained network is."""
        return next(self.model_.parameters()).device

    @property
    def _search_device(self) -> torch.device | None:
        """Where neighbours are searched: on CUDA only where that was asked for, for FAISS's indexes are not there."""
        asked = None if self.device is None else choose_device(self.device)
        return asked if asked is not None and asked.type == "cuda" else None

    def transform(self, X: Input) -> NDArray[np.float32]:
        """Latent codes of samples, [M, latent_dim]."""
        check_is_fitted(self, "model_")
        features = read_features(self, X, reset=False)
        return self._codes(self._source(without_edges(features), self._device), None)

    def fit_transform(self, X: Input, y: Any = None) -> NDArray[np.float32]:
        """``fit(X).embedding_``."""
        return self.fit(X).embedding_

    def __sklearn_tags__(self) -> Any:
        """Tags for scikit-learn: whatever goes in, codes come out as float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.three_d_array = True
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]

    def _codes(self, source: BatchSource, nodes: Tensor | None) -> NDArray[np.float32]:
        """Codes of the nodes of a source (all for None); here they depend on each sample's own features alone."""
        x = source.x if nodes is None else source.x[nodes]
        return in_blocks(self.model_.embed, x, device=source.device).float().numpy()

    def _probabilities(self, source: BatchSource, nodes: Tensor | None) -> NDArray[np.float32]:
        return self._assignments(source, nodes).probabilities

    def _assignments(
        self, source: BatchSource, nodes: Tensor | None, out: str | Path | None = None
    ) -> Assignments:
        n_samples = source.n_samples if nodes is None else len(nodes.unique())
        return collect((logits for _, logits in self._logits(self.model_, source, nodes)), n_samples, out)

    # -- files -------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the fitted estimator to a folder: weights and results as safetensors, parameters as JSON, the graph.

        Nothing is pickled. The folder is complete before it takes the place of an older one.

        Returns
        -------
        Path
            The folder.
        """
        check_is_fitted(self, "model_")
        with replacing_folder(Path(folder)) as partial:
            self._write(partial)
        return Path(folder)

    def _write(self, folder: Path) -> None:
        weights = {k: v.cpu().contiguous() for k, v in self.model_.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        write_results(folder, self, RESULTS)
        write_meta(
            folder,
            self,
            unit_range=self.model_.scale.unit_range,
            history=self.history_,
            n_clusters=self.n_clusters_,
        )

    @classmethod
    def load(cls: type[Self], folder: str | Path, *, device: Any = None, **callables: Any) -> Self:
        """Read an estimator that `save` wrote.

        Parameters
        ----------
        folder : path
        device : str or torch.device, optional
            Where the network goes; chosen when left out.
        **callables
            Parameters that are callables, such as a `conv` of the user's, which files cannot hold.
        """
        folder = saved_folder(folder)
        estimator, meta = unfitted(cls, folder, callables, "unit_range", "history", "n_clusters")
        estimator.n_clusters_ = meta["n_clusters"]
        with private_randomness(0):
            model = estimator._build(meta["n_features"])
        with reading(folder):
            model.load_state_dict(load_file(folder / "model.safetensors"))
        read_results(folder, estimator, RESULTS)
        model.scale.unit_range = meta["unit_range"]
        estimator.model_ = model.to(choose_device(device)).eval()
        estimator.history_ = meta["history"]
        estimator._read(folder)
        return estimator

    def _read(self, folder: Path) -> None:
        """Read what `_write` of a subclass wrote besides model and results."""


def without_edges(x: Tensor) -> Data:
    """Samples that nothing joins, for methods that read no graph."""
    return Data(x=x, edge_index=torch.empty((2, 0), dtype=torch.int64), edge_weight=torch.empty(0))


def draw_seed(random_state: Any) -> int:
    """A seed from an int or a RandomState; for None a fresh one, which leaves NumPy's global generator alone."""
    try:
        source = np.random.RandomState() if random_state is None else check_random_state(random_state)
    except ValueError as error:
        raise ValueError(
            f"random_state={shown(random_state)} must be a whole number from 0 to 4294967295, a "
            "numpy.random.RandomState or None; of a Generator pass a number that it draws, int(rng.integers(2**31))"
        ) from error
    return int(source.randint(2**31 - 1))
