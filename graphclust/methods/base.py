"""What all deep estimators share: the way from X over graph, network and stages to labels, and the files."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch_geometric.data import Data

from graphclust.graph import SampleGraph
from graphclust.nn.heads import check_n_clusters
from graphclust.training.batches import BatchSource
from graphclust.training.inference import in_blocks
from graphclust.training.stage import Stage
from graphclust.training.trainer import Trainer, choose_device

FORMAT_VERSION = 1
Input: TypeAlias = ArrayLike | Tensor | Data
Self = TypeVar("Self", bound="DeepClusterer")


# scikit-learn wants a constructor that names every parameter and does nothing but store it. That is what a dataclass
# writes, so a method lists its own parameters with their defaults and inherits the rest.
@dataclass(eq=False, repr=False, kw_only=True)
class DeepClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """Base of the estimators that train a network over a sample graph.

    A method is a recipe: `_build` puts a network together, `_stages` says what is minimised in which order, and
    `_logits` reads the cluster logits off the trained network. Everything else is here, once.
    """

    n_clusters: int = field(default=8, kw_only=False)
    n_neighbors: int = 5
    metric: str = "euclidean"
    kernel: str = "heat"
    symmetrize: str = "union"
    normalization: str = "symmetric"
    scale: str = "auto"
    batch_size: int | None = None
    device: Any = None
    precision: str = "auto"
    checkpoint: Any = None
    random_state: Any = None
    verbose: bool = False

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
        """Raise ValueError for a parameter of the method that makes no sense, before anything is computed."""

    # -- learning ----------------------------------------------------------------------------------------------

    def fit(self: Self, X: Input, y: Any = None) -> Self:
        """Build the sample graph, train the network and label the samples.

        Parameters
        ----------
        X : array, memory map or tensor [N, d], SampleGraph, or PyG Data with x
            A graph is taken as it is; features get one by the parameters of this estimator.
        y : ignored
            True labels are never read.

        Returns
        -------
        self
        """
        self._check_parameters()
        graph = self._graph_of(X)
        n_samples, n_features = graph.x.shape
        if check_n_clusters(self.n_clusters) > n_samples:
            raise ValueError(
                f"n_samples={n_samples} is smaller than n_clusters={self.n_clusters}: ask for fewer clusters"
            )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        trainer = Trainer(
            seed=seed,
            device=self.device,
            precision=self.precision,
            checkpoint=self.checkpoint,
            verbose=self.verbose,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self._build(n_features)
            model.scale.fit(graph.x, self.scale)
        source = self._source(graph, trainer.device, seed)
        model.to(trainer.device)
        memory: dict[str, Tensor] = {}
        stages = self._stages(model, source, memory)
        self.history_ = trainer.fit(
            model, stages, source, memory=memory, fingerprint=self._fingerprint(graph, seed)
        )
        self.graph_ = graph
        self.model_ = model.eval()
        self.n_features_in_ = n_features
        self.probabilities_ = self._probabilities(source, None)
        self.labels_ = self.probabilities_.argmax(axis=1)
        self.embedding_ = self._embed(graph.x)
        found = len(np.unique(self.labels_))
        if found < self.n_clusters:
            warnings.warn(
                f"{self.n_clusters} clusters were asked for and {found} hold samples: the data may have fewer "
                "distinct groups, or training was too long or too fast",
                stacklevel=2,
            )
        return self

    def _graph_of(self, X: Input) -> SampleGraph:
        how: dict[str, Any] = {
            "n_neighbors": self.n_neighbors,
            "metric": self.metric,
            "kernel": self.kernel,
            "symmetrize": self.symmetrize,
        }
        how |= {"device": self.device, "random_state": 0, "verbose": self.verbose}
        if isinstance(X, Data):
            known = X.edge_index is not None and X.edge_index.numel() > 0
            return SampleGraph.from_data(X) if known else SampleGraph.from_data(X, **how)
        return SampleGraph.from_features(self._features_of(X, reset=True), **how)

    def _features_of(self, X: ArrayLike | Tensor, *, reset: bool) -> NDArray[Any]:
        if isinstance(X, Tensor):
            X = X.detach().cpu().numpy()
        return validate_data(self, X, reset=reset, dtype="numeric", ensure_min_samples=2 if reset else 1)

    def _source(self, graph: SampleGraph, device: torch.device, seed: int = 0) -> BatchSource:
        return BatchSource(
            graph, normalization=self.normalization, num_neighbors=self._fanouts(), device=device, seed=seed
        )

    def _fanouts(self) -> list[int]:
        """Neighbours sampled per hop; methods with a graph branch have one hop a layer."""
        return [-1]

    def _fingerprint(self, graph: SampleGraph, seed: int) -> dict[str, Any]:
        """What a checkpoint must agree in to be continued."""
        rows = torch.linspace(0, graph.x.shape[0] - 1, 64).long()
        digest = float(graph.x[rows].double().sum())
        ignored = ("verbose", "checkpoint", "device")
        parameters = {k: v for k, v in plain_parameters(self).items() if k not in ignored}
        data = {
            "data_shape": list(graph.x.shape),
            "data_digest": digest,
            "n_edges": graph.edge_index.shape[1],
        }
        return {"method": type(self).__name__, **parameters, **data, "seed": seed}

    # -- reading the result ------------------------------------------------------------------------------------

    def predict(self, X: Input) -> NDArray[np.int64]:
        """Cluster of each new sample: it is joined to its nearest training samples and read by the network.

        Parameters
        ----------
        X : array, memory map or tensor [M, d], or PyG Data / SampleGraph
            Features are attached to the training graph (`SampleGraph.attach`); a graph is read as it is.

        Returns
        -------
        ndarray [M], int64
        """
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X: Input) -> NDArray[np.float32]:
        """Cluster probabilities of new samples, [M, K]; see `predict`."""
        check_is_fitted(self)
        device = next(self.model_.parameters()).device
        if isinstance(X, Data):
            return self._probabilities(self._source(SampleGraph.from_data(X), device), None)
        features = self._features_of(X, reset=False)
        attached = self.graph_.attach(features)
        n_old = self.graph_.num_nodes
        new = torch.arange(n_old, n_old + len(features))
        return self._probabilities(self._source(attached, device), new)

    def transform(self, X: Input) -> NDArray[np.float32]:
        """Latent codes of samples, [M, latent_dim]; they do not depend on the graph."""
        check_is_fitted(self)
        if isinstance(X, Data):
            return self._embed(SampleGraph.from_data(X).x)
        return self._embed(torch.from_numpy(np.ascontiguousarray(self._features_of(X, reset=False))))

    def fit_transform(self, X: Input, y: Any = None) -> NDArray[np.float32]:
        """``fit(X).embedding_``."""
        return self.fit(X).embedding_

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]

    def _embed(self, x: Tensor) -> NDArray[np.float32]:
        device = next(self.model_.parameters()).device
        return in_blocks(self.model_.embed, x, device=device).float().numpy()

    def _probabilities(self, source: BatchSource, nodes: Tensor | None) -> NDArray[np.float32]:
        blocks = [logits.float().softmax(dim=1) for _, logits in self._logits(self.model_, source, nodes)]
        return torch.cat(blocks).numpy()

    # -- files -------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the fitted estimator to a folder: weights and results as safetensors, parameters as JSON, the graph.

        Nothing is pickled. The folder is complete before it takes the place of an older one.

        Returns
        -------
        Path
            The folder.
        """
        check_is_fitted(self)
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and any(folder.iterdir()) and not (folder / "estimator.json").exists():
            raise ValueError(f"{folder} holds other files: name an empty or a new folder")
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        save_file(
            {k: v.cpu().contiguous() for k, v in self.model_.state_dict().items()},
            partial / "model.safetensors",
        )
        results = {"labels": self.labels_, "probabilities": self.probabilities_, "embedding": self.embedding_}
        save_file(
            {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in results.items()},
            partial / "results.safetensors",
        )
        self.graph_.save(partial / "graph")
        meta = {
            "format_version": FORMAT_VERSION,
            "method": type(self).__name__,
            "parameters": plain_parameters(self),
            "callables": [k for k, v in self.get_params(deep=False).items() if callable(v)],
            "n_features": self.n_features_in_,
            "feature_names": list(getattr(self, "feature_names_in_", [])),
            "unit_range": self.model_.scale.unit_range,
            "history": self.history_,
        }
        (partial / "estimator.json").write_text(json.dumps(meta, indent=1))
        previous = folder.with_name(folder.name + ".previous")
        shutil.rmtree(previous, ignore_errors=True)
        if folder.exists():
            os.replace(folder, previous)
        os.replace(partial, folder)
        shutil.rmtree(previous, ignore_errors=True)
        return folder

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
        folder = Path(folder)
        meta = read_meta(folder)
        if meta["method"] != cls.__name__:
            raise ValueError(
                f"{folder} holds a {meta['method']}, not a {cls.__name__}: use graphclust.load(folder)"
            )
        missing = [name for name in meta["callables"] if name not in callables]
        if missing:
            raise ValueError(
                f"{folder} was saved with a callable for {', '.join(missing)}, which files cannot hold: "
                f"pass it again, load(folder, {missing[0]}=...)"
            )
        estimator = cls(**{**meta["parameters"], **callables})
        model = estimator._build(meta["n_features"])
        try:
            model.load_state_dict(load_file(folder / "model.safetensors"))
            results = load_file(folder / "results.safetensors")
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"the model in {folder} cannot be read: {error}") from error
        model.scale.unit_range = meta["unit_range"]
        estimator.model_ = model.to(choose_device(device)).eval()
        estimator.graph_ = SampleGraph.open(folder / "graph")
        estimator.n_features_in_ = meta["n_features"]
        if meta["feature_names"]:
            estimator.feature_names_in_ = np.asarray(meta["feature_names"], dtype=object)
        estimator.history_ = meta["history"]
        for name, value in results.items():
            setattr(estimator, f"{name}_", value.numpy())
        return estimator


def read_meta(folder: Path) -> dict[str, Any]:
    """The JSON part of a saved estimator, checked."""
    path = folder / "estimator.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no saved estimator (no estimator.json)")
    try:
        meta: dict[str, Any] = json.loads(path.read_text())
        version = meta.get("format_version")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has format version {version}, this graphclust reads version {FORMAT_VERSION}: "
            "load it with the graphclust that wrote it, or fit again"
        )
    return meta


def plain_parameters(estimator: BaseEstimator) -> dict[str, Any]:
    """Constructor parameters as JSON can hold them; callables and random generators become None."""
    plain: dict[str, Any] = {}
    for name, value in estimator.get_params(deep=False).items():
        if isinstance(value, np.generic):
            value = value.item()
        elif isinstance(value, (tuple, list)):
            value = [v.item() if isinstance(v, np.generic) else v for v in value]
        elif isinstance(value, (Path, torch.device)):
            value = str(value)
        elif callable(value) or isinstance(value, (np.random.RandomState, np.random.Generator)):
            value = None
        plain[name] = value
    return plain
