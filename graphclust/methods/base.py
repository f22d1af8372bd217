"""What all deep estimators share: the way from X over graph, network and stages to labels, and the files."""

from __future__ import annotations

import os
import textwrap
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
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

from graphclust._checks import check_choice, check_count, check_device, check_features
from graphclust.graph import SampleGraph
from graphclust.methods.files import plain_parameters, read_meta, replacing_folder, saved_folder, write_meta
from graphclust.nn.scaling import SCALES
from graphclust.training.batches import BatchSource
from graphclust.training.inference import in_blocks
from graphclust.training.stage import Stage
from graphclust.training.trainer import Trainer, choose_device

PRECISIONS = ("auto", "32-true", "bf16-mixed")
RESULTS = ("labels", "probabilities", "embedding")
Input: TypeAlias = ArrayLike | Tensor | Data
Self = TypeVar("Self", bound="DeepClusterer")


# scikit-learn wants a constructor that names every parameter and does nothing but store it. That is what a dataclass
# writes, so a method lists its own parameters with their defaults and inherits the rest.
@dataclass(eq=False, repr=False, kw_only=True)
class DeepClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator, ABC):
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
        """Raise ValueError or TypeError for a parameter that makes no sense, before anything is computed."""
        check_count(self.n_clusters, "n_clusters")
        check_count(self.n_neighbors, "n_neighbors")
        check_choice(self.normalization, "normalization", ("symmetric", "row"))
        check_choice(self.scale, "scale", SCALES)
        check_choice(self.precision, "precision", PRECISIONS)
        check_device(self.device)
        if self.batch_size is not None:
            check_count(self.batch_size, "batch_size", remedy="None takes the full graph")
        if self.checkpoint is not None:
            if not isinstance(self.checkpoint, (str, os.PathLike)):
                raise TypeError(f"checkpoint={self.checkpoint!r} is no path; name a folder, or None")
            if self.random_state is None:
                raise ValueError(
                    "random_state=None gives another run each time, which no checkpoint can continue; "
                    "with a checkpoint set random_state to a number"
                )

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
        seed = draw_seed(self.random_state)
        trainer = Trainer(
            seed=seed,
            device=self.device,
            precision=self.precision,
            checkpoint=self.checkpoint,
            verbose=self.verbose,
        )
        graph = self._graph_of(X)
        n_samples, n_features = graph.x.shape
        if self.n_clusters > n_samples:
            raise ValueError(
                f"n_samples={n_samples} is smaller than n_clusters={self.n_clusters}: ask for fewer clusters"
            )
        with _private_randomness(seed):
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
        features: Tensor
        if isinstance(X, Data):
            # Names of columns that an earlier fit saw do not belong to this one.
            self.__dict__.pop("feature_names_in_", None)
            given = self._given_graph(X)
            if given is not None:
                return given
            features = check_features(X.x, "X.x", min_samples=2)
        else:
            features = self._features_of(X, reset=True)
        on_cuda = self.device is not None and torch.device(self.device).type == "cuda"
        return SampleGraph.from_features(
            features,
            n_neighbors=self.n_neighbors,
            metric=self.metric,
            kernel=self.kernel,
            symmetrize=self.symmetrize,
            device=self.device if on_cuda else None,
            random_state=0,
            verbose=self.verbose,
        )

    def _given_graph(self, X: Data) -> SampleGraph | None:
        """The graph that X is or holds, as it is; None for a PyG Data without edges."""
        if X.x is None:
            raise ValueError("X has no x; set X.x to the features [N, d], e.g. torch.eye(X.num_nodes)")
        if isinstance(X, SampleGraph):
            if "normalized" in X.construction:
                raise ValueError(
                    "X is a normalised graph, and the network normalises by itself; pass the graph it came from"
                )
            return X
        if X.edge_index is None or X.edge_index.numel() == 0:
            return None
        return SampleGraph.from_data(X, symmetrize=self.symmetrize)

    def _features_of(self, X: ArrayLike | Tensor, *, reset: bool) -> Tensor:
        if isinstance(X, Tensor):
            X = X.detach().cpu()
            X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
        least = 2 if reset else 1
        # NaN and infinity are looked for once, below, with a message that says where they are.
        array = validate_data(
            self, X, reset=reset, dtype="numeric", ensure_min_samples=least, ensure_all_finite=False
        )
        return check_features(array, "X", min_samples=least)

    def _source(self, graph: SampleGraph, device: torch.device, seed: int = 0) -> BatchSource:
        return BatchSource(
            graph, normalization=self.normalization, num_neighbors=self._fanouts(), device=device, seed=seed
        )

    def _fanouts(self) -> list[int]:
        """Neighbours sampled per hop; methods with a graph branch have one hop a layer."""
        return [-1]

    def _fingerprint(self, graph: SampleGraph, seed: int) -> dict[str, Any]:
        """What a checkpoint must agree in to be continued."""
        rows = torch.linspace(0, graph.x.shape[0] - 1, 64, dtype=torch.float64).long()
        digest = float(graph.x[rows].double().sum())
        ignored = ("verbose", "checkpoint", "device")
        parameters = {k: v for k, v in plain_parameters(self).items() if k not in ignored}
        for name, value in self.get_params(deep=False).items():
            if callable(value):
                parameters[name] = getattr(value, "__qualname__", type(value).__qualname__)
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
            Features (and a Data without edges) are attached to the training graph (`SampleGraph.attach`); a graph is
            read as it is.

        Returns
        -------
        ndarray [M], int64
        """
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X: Input) -> NDArray[np.float32]:
        """Cluster probabilities of new samples, [M, K]; see `predict`."""
        check_is_fitted(self, "model_")
        device = next(self.model_.parameters()).device
        features = self._known_features(X)
        given = self._given_graph(X) if isinstance(X, Data) else None
        if given is not None:
            return self._probabilities(self._source(given, device), None)
        if self.graph_.construction.get("source") != "features":
            raise ValueError(
                "the model was fitted to given edges, so new rows have no place in its graph: pass a PyG Data or a "
                "SampleGraph that holds the samples and their edges"
            )
        attached = self.graph_.attach(features)
        n_old = self.graph_.num_nodes
        new = torch.arange(n_old, n_old + len(features))
        return self._probabilities(self._source(attached, device), new)

    def transform(self, X: Input) -> NDArray[np.float32]:
        """Latent codes of samples, [M, latent_dim]; they do not depend on the graph."""
        check_is_fitted(self, "model_")
        return self._embed(self._known_features(X))

    def _known_features(self, X: Input) -> Tensor:
        """Features [M, d] of new samples, of the d that were fitted."""
        if not isinstance(X, Data):
            return self._features_of(X, reset=False)
        if X.x is None:
            raise ValueError("X has no x; set X.x to the features [M, d]")
        return check_features(X.x, "X.x", n_features=self.n_features_in_)

    def fit_transform(self, X: Input, y: Any = None) -> NDArray[np.float32]:
        """``fit(X).embedding_``."""
        return self.fit(X).embedding_

    def __sklearn_tags__(self) -> Any:
        """Tags for scikit-learn: whatever goes in, codes come out as float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

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
        check_is_fitted(self, "model_")
        with replacing_folder(Path(folder)) as partial:
            self._write(partial)
        return Path(folder)

    def _write(self, folder: Path) -> None:
        weights = {k: v.cpu().contiguous() for k, v in self.model_.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        results = {k: torch.from_numpy(np.ascontiguousarray(getattr(self, f"{k}_"))) for k in RESULTS}
        save_file(results, folder / "results.safetensors")
        self.graph_.save(folder / "graph")
        write_meta(
            folder,
            method=type(self).__name__,
            parameters=plain_parameters(self),
            callables=[k for k, v in self.get_params(deep=False).items() if callable(v)],
            n_features=self.n_features_in_,
            feature_names=list(getattr(self, "feature_names_in_", [])),
            unit_range=self.model_.scale.unit_range,
            history=self.history_,
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
        with _private_randomness(0):
            model = estimator._build(meta["n_features"])
        try:
            model.load_state_dict(load_file(folder / "model.safetensors"))
            results = load_file(folder / "results.safetensors")
            results = {name: results[name] for name in RESULTS}
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            reason = textwrap.shorten(str(error), 200)  # torch lists every tensor that does not fit
            raise ValueError(f"the model in {folder} cannot be read: {reason}") from error
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


def draw_seed(random_state: Any) -> int:
    """A seed from an int or a RandomState; for None a fresh one, which leaves NumPy's global generator alone."""
    source = np.random.RandomState() if random_state is None else check_random_state(random_state)
    return int(source.randint(2**31 - 1))


@contextmanager
def _private_randomness(seed: int) -> Iterator[None]:
    """Networks draw their first weights from torch's global CPU generator: seeded here, and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
