"""LearnedGraphClustering: a network learns the sample graph that the clusters are read from."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data

from graphclust._checks import check_count, check_number
from graphclust.graph import SampleGraph
from graphclust.graph.over_segmentation import split_parts
from graphclust.graph.partition import check_distinct
from graphclust.methods.base import without_edges
from graphclust.methods.graph import GraphClusterer
from graphclust.methods.image_arrays import choose_image_shape
from graphclust.methods.image_views import chosen_views, image_views
from graphclust.methods.inputs import Input, read_features
from graphclust.methods.neighbor_average import Neighbors, Table, averaged, sharpened_labels
from graphclust.methods.rounds import take_labels
from graphclust.methods.starts import principal_components
from graphclust.methods.views import MOST_CLUSTERS, View, clusters_of_views
from graphclust.nn.augmentation import RandomAffine, RandomNoise
from graphclust.nn.convolutional import check_image_shape
from graphclust.nn.features import ConvFeatures, FeatureClassifier, MLPFeatures
from graphclust.nn.scaling import FeatureScale
from graphclust.nn.vector_scale import VectorScale
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import collect, in_blocks
from graphclust.training.stage import Stage, Step

#: Passes over the data are as many as these steps take, so that small data are seen often and large data seldom.
_STEPS = {"parts": 240, "clusters": 120}
#: Averages over the neighbours that a sample's probabilities go through.
_AVERAGES = 2
#: Samples that are learnt from, in all and for each cluster; of more, so many are drawn.
_LEARNT, _LEARNT_PER_CLUSTER = 50_000, 100
#: Recall of the neighbours of more samples than are learnt from.
_RECALL = 0.9
#: Pictures and vectors that the network reads at once: convolutions are twice as fast where results stay in the cache.
_PICTURES, _VECTORS = 512, 8192
#: New samples whose neighbours are searched at once: enough to make an index worth its while; and
#: probabilities of such.
_NEW, _MOST_AT_ONCE = 65536, 1 << 26


Self = TypeVar("Self", bound="LearnedGraphClustering")


@dataclass(eq=False, repr=False, kw_only=True)
class LearnedGraphClustering(GraphClusterer):
    r"""Clusters of the sample graph that a network has learnt: the default of `graphclust.cluster`.

    Graph and network teach each other, from many small parts to few clusters:

    1. *Parts.* The samples' principal components X are propagated over their sample graph,
       :math:`\hat A^{16} X`, and k-means splits them into about 24 parts for each cluster, eight times from different
       centres. A part is small enough to hold samples of one kind, also where two kinds touch. Images are looked at by
       the directions of their edges (`graphclust.nn.GradientHistograms`), up to ten pixels wide by their pixels too.
    2. *Features.* A network is trained to tell the parts of changed copies of the samples apart (images: shifted,
       turned, zoomed, sheared; vectors: masked and noisy), with a classifier for each split s,
       :math:`-\frac18 \sum_s \log \mathrm{softmax}(W_s f(\tau(x)))_{part_s}`. To do so it must overlook what the
       changes change, so parts of one kind come together in its features f. Eight splits draw their borders at
       different places, and no single border is learnt.
    3. *Graph.* The sample graph of the features, normalised to length 1, is built, and parts of it are put together
       to K clusters. Where there are two other views (images with a pretrained network, or up to ten pixels wide):
       those that say most about where short walks lead on this graph, on those of step 1, and on those of the
       pretrained network's features (`graphclust.graph.informative_partition`). Else: by
       the consensus of average linkage (`graphclust.graph.consensus_partition`), and where modularity says that another
       cluster should have been split and two others joined, that is done (`graphclust.graph.rearranged`).
    4. *Clusters.* The network is trained further to tell the clusters apart. Its probabilities, averaged over the
       neighbours in its own graph and divided by the clusters' frequencies, :math:`p^2_{ij} / f_j`, give the labels of
       the next round. Rounds that help change fewer and fewer labels; where one would change over 1 % of them and
       over 0.8 times as many as the one before, they end with the network of before; they end, too, with one that
       changes none.

    Of more than 50,000 samples (or 100 for each cluster, if that is more) a random part of that size goes through
    these steps, the same for every `random_state`. The trained network then reads all samples, block by block, their
    graph is built with a recall of 0.9, and the last average is taken over it. So training takes no longer for a
    million images than for 50,000; what grows is one pass of the network, one search, 4 bytes for each feature and 400
    for the graph of a sample. Samples with given edges are all learnt from.

    The method is this library's own (2026), with no reported result of others and no paper to depart from:
    docs/method.md has its figures. Labels and probabilities are the averages over the last graph. Training on the parts
    is what makes the difference: networks that start from K clusters learn the start's errors, where two clusters are
    joined or one is split.

    Parameters
    ----------
    image_shape : "auto", None, (H, W) or (H, W, C)
        What a sample is. "auto": an image for arrays [N, H, W] and [N, H, W, C] and for rows whose length is a square
        number of at least 16 and whose neighbouring entries are alike; else a vector. None: a vector.
    channels : sequence of int
        Of the convolutions, for images.
    hidden_channels : sequence of int
        Widths of the layers, for vectors.
    feature_dim : int
        Number of features f.
    parts_per_cluster : int
        Parts that a cluster is made of; fewer where they would hold less than 16 samples on average.
    splits : int
        How many times the samples are split into parts.
    part_epochs, epochs : int or None
        Passes over the data in step 2, and in each round of step 4; None takes as many as 240 and 120 steps are, at
        least 2 and 1.
    rounds : int
        Of step 4, at most.
    learning_rate : float
        Highest rate of AdamW; it rises and falls in each stage (one cycle).
    batch_size : int
        Samples a step; there is no full batch, and None is refused.
    augmentation : float
        Strength of the random changes: 1 turns images by up to 12 degrees, shifts by 8 %, zooms by 12 %, shears by 8
        degrees; masks a fifth of the entries of vectors. 0 makes none.
    views : "auto", None or sequence of {"gradients", "pretrained"}
        What images are looked at by: the directions of their edges, and EfficientNet-Lite0 (at most 5,000 of them,
        brought to 96 x 96 pixels). "auto": both, the second where the extra ``images`` is installed. None: pixels
        alone, clustered as vectors are. Vectors have no other views.
    metric, p : str, float
        In which the samples are near, of step 1; learnt features are near by the Euclidean metric.
    normalization, sampling, num_workers : ignored
        Propagation is symmetric, and no neighbours are sampled.

    Attributes
    ----------
    graph_ : SampleGraph
        Of the learnt features.
    embedding_ : ndarray [N, feature_dim], float32
        The learnt features, of length 1.
    probabilities_ : ndarray or csr_matrix [N, K], float32
        Averaged over the neighbours in `graph_`; sparse, the five largest of each sample, where N K is above 10^8.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from graphclust import LearnedGraphClustering
    >>> model = LearnedGraphClustering(10, random_state=0).fit(load_digits().images)  # doctest: +SKIP
    """

    image_shape: Any = "auto"
    channels: Sequence[int] = (24, 48, 96, 96)
    hidden_channels: Sequence[int] = (512, 512)
    feature_dim: int = 128
    parts_per_cluster: int = 24
    splits: int = 8
    part_epochs: int | None = None
    epochs: int | None = None
    rounds: int = 6
    learning_rate: float = 2e-3
    batch_size: int = 128
    augmentation: float = 1.0
    views: Any = "auto"

    #: The network reads samples alone; the graph is what it is taught by.
    uses_graph: ClassVar[bool] = True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("feature_dim", "parts_per_cluster", "splits", "rounds"):
            check_count(getattr(self, name), name)
        for name in ("part_epochs", "epochs"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name, 0)
        for name in ("channels", "hidden_channels"):
            widths = getattr(self, name)
            if isinstance(widths, (str, numbers.Number)):
                raise TypeError(
                    f"{name}={widths!r} is no sequence; give the widths in brackets, e.g. (32, 64)"
                )
            for width in widths:
                check_count(width, f"a width of {name}")
        check_number(self.learning_rate, "learning_rate", 0.0, open_low=True)
        check_number(self.augmentation, "augmentation", 0.0)
        if self.image_shape is not None and not isinstance(self.image_shape, str):
            check_image_shape(self.image_shape)
        chosen_views(self.views)

    def _check_batch_size(self) -> None:
        if self.batch_size is None:
            raise TypeError(
                "batch_size=None takes all samples in one step elsewhere, and LearnedGraphClustering always trains in "
                "batches: give a number of at least 1, or leave it at 128"
            )
        check_count(self.batch_size, "batch_size")

    # -- the network -------------------------------------------------------------------------------------------

    def fit(self: Self, X: Input, y: Any = None) -> Self:
        """Learn the graph and label the samples; see `DeepClusterer.fit`."""
        try:
            return super().fit(X, y)
        finally:  # also of a fit that failed
            for name in ("_all", "_views", "_n_samples"):
                self.__dict__.pop(name, None)

    def _data_of(self, X: Input) -> SampleGraph:
        given = self._given_graph(X)
        if given is not None:
            self.image_shape_ = None
        features = read_features(self, X, reset=True) if given is None else given.x
        read: Any = self.image_shape_
        self.image_shape_ = choose_image_shape(self.image_shape, features.shape[1], read, features)
        if given is None and len(features) > self._most_learnt():
            self._all = features
            features = features[_drawn(len(features), self._most_learnt())]
        self._n_samples = len(features)
        if given is not None:
            return given
        if not self._reads_vectors():
            return self._sample_graph(features)
        graph = self._sample_graph(VectorScale(features.shape[1]).fit(features)(features))
        graph.x = features  # the network scales by itself, new samples too
        graph.construction = {**graph.construction, "scaled": True}
        return graph

    def _counted(self, graph: Data) -> Data:
        if self.n_clusters != "auto" or "scaled" not in graph.construction:
            return graph
        counted = copy.copy(graph)  # in the units in which neighbours are near
        counted.x = VectorScale(graph.x.shape[1]).fit(graph.x)(graph.x)
        return counted

    def _most_learnt(self) -> int:
        """Samples that training reads at most."""
        return max(_LEARNT, 0 if isinstance(self.n_clusters, str) else _LEARNT_PER_CLUSTER * self.n_clusters)

    def _fingerprint(self, graph: Data, seed: int) -> dict[str, Any]:
        everything = self.__dict__.get("_all")
        drawn = {} if everything is None else {"n_samples": len(everything)}
        return super()._fingerprint(graph, seed) | drawn

    def _reads_vectors(self) -> bool:
        return self.image_shape_ is None and self.scale == "auto"

    def _build(self, n_features: int) -> FeatureClassifier:
        strength = self.augmentation
        features: nn.Module
        if self.image_shape_ is not None:
            features = ConvFeatures(self.image_shape_, tuple(self.channels), self.feature_dim)
            low, high = np.exp(-0.12 * strength), np.exp(0.12 * strength)
            augment: nn.Module = RandomAffine(
                self.image_shape_, 12.0 * strength, 0.08 * strength, (low, high), min(8.0 * strength, 45.0)
            )
        else:
            features = MLPFeatures(n_features, tuple(self.hidden_channels), self.feature_dim)
            augment = RandomNoise(min(0.2 * strength, 0.9), 0.1 * strength)
        scale = VectorScale(n_features) if self._reads_vectors() else FeatureScale(n_features)
        return FeatureClassifier(
            scale, augment, features, self.feature_dim, self._part_count(), self.n_clusters_, self.splits
        )

    def _part_count(self) -> int:
        """Parts that the training samples are split into; a network that is read from a file has no need of them."""
        n_samples = self.__dict__.get("_n_samples")
        if n_samples is None:
            return 0
        return max(self.n_clusters_, min(self.parts_per_cluster * self.n_clusters_, n_samples // 16))

    # -- training ----------------------------------------------------------------------------------------------

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        parts = self._stage("parts", partial(self._part_loss, memory), self.part_epochs, source, 2)
        parts.start = partial(self._start_parts, model, source, memory)
        parts.parameters = lambda m: [*m.features.parameters(), *m.parts.parameters()]
        if not self._has_parts():
            parts.epochs = 0
        stages = [parts]
        for number in range(self.rounds):
            stage = self._stage("clusters", partial(self._cluster_loss, memory), self.epochs, source, 1)
            stage.name = f"clusters {number + 1}"
            stage.start = partial(self._start_clusters, model, source, memory, stage, first=number == 0)
            stage.parameters = lambda m: [*m.features.parameters(), *m.clusters.parameters()]
            stages.append(stage)
        return stages

    def _stage(self, name: str, loss: Any, epochs: int | None, source: BatchSource, least: int) -> Stage:
        steps = source.n_batches(self.batch_size)
        return Stage(
            name,
            loss,
            max(least, -(-_STEPS[name] // steps)) if epochs is None else epochs,
            self.learning_rate,
            schedule="one-cycle",
            weight_decay=1e-4,
            batch_size=self.batch_size,
        )

    def _views_of(self, model: Any, source: BatchSource) -> list[View]:
        """Views of the samples, made once; a run that is resumed makes them again, the same."""
        if "_views" not in self.__dict__:
            scaled = in_blocks(model.scale, source.x, device=source.device)
            self._views = [View(source.graph, principal_components(scaled, seed=source.seed))]
            # Given edges say more than what pictures look like.
            if self.image_shape_ is not None and source.graph.neighbor_index is not None:
                options = {**self._graph_options(), "verbose": self.verbose}
                self._views = image_views(
                    self.views, scaled, self.image_shape_, self._views[0], options, source.seed, source.device
                )
        return self._views

    def _start_parts(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> None:
        """Step 1: parts of the samples; where clusters are too small to have parts, the clusters at once."""
        views = self._views_of(model, source)
        if not views[0].graph.joins_neighbors and bool((source.x == source.x[:1]).all()):
            # The network sees no edges: said before it is trained.
            check_distinct(1, self.n_clusters_, given_edges=True)
        if not self._has_parts():
            memory["clusters"] = self._merged(views[0], views[1:], source.seed)
            return
        # Views of all samples take turns.
        whole = [view.positions(self.n_clusters_) for view in views if view.rows is None]
        seeds = range(source.seed * self.splits, (source.seed + 1) * self.splits)
        split = [
            split_parts(whole[number % len(whole)], self._part_count(), random_state=seed)
            for number, seed in enumerate(seeds)
        ]
        memory["parts"] = torch.stack(split, dim=1)

    def _has_parts(self) -> bool:
        """Whether there are enough samples for four parts a cluster."""
        return self._part_count() >= 4 * self.n_clusters_

    def _merged(self, own: View, others: list[View], seed: int) -> Tensor:
        """Step 3: clusters of the samples."""
        k = self.n_clusters_
        tree = own.consensus(k, seed, self.parts_per_cluster)
        if others and 1 < k <= MOST_CLUSTERS:
            return clusters_of_views(own, tree, others, k, seed)
        return own.moved(tree, k) if self._has_parts() else tree.labels

    def _start_clusters(
        self, model: Any, source: BatchSource, memory: dict[str, Tensor], stage: Stage, *, first: bool
    ) -> None:
        """Steps 3 and 4: the learnt graph, and the labels that it gives; no more of them where they do not settle."""
        if "ended" in memory:
            stage.epochs = 0
            return
        if first and "clusters" in memory:
            return
        codes, p = self._read_samples(model, source.x, source.device)
        graph = self._learned_graph(codes)
        if first:
            views = self._views_of(model, source)
            # Two views alone do not outvote each other.
            others = views if len(views) > 1 else []
            memory["clusters"] = self._merged(View(graph, codes), others, source.seed)
            return
        labels = sharpened_labels(averaged(graph, p, _AVERAGES))
        if not take_labels(model, memory, labels, left_out="parts."):
            stage.epochs = 0

    def _part_loss(self, memory: dict[str, Tensor], model: Any, batch: Batch) -> Step:
        logits = model.part_logits(batch.x)
        target = memory["parts"][batch.index.cpu()].to(logits.device)
        return Step({"cross_entropy": cross_entropy(logits.flatten(0, 1), target.flatten())})

    def _cluster_loss(self, memory: dict[str, Tensor], model: Any, batch: Batch) -> Step:
        logits = model(batch.x)
        target = memory["clusters"][batch.index.cpu()].to(logits.device)
        return Step({"cross_entropy": cross_entropy(logits, target)}, logits)

    def _learned_graph(self, codes: Tensor, recall: float = 0.95) -> SampleGraph:
        return SampleGraph.from_features(codes, **self._graph_options(recall))

    def _graph_options(self, recall: float = 0.95) -> dict[str, Any]:
        return {
            "n_neighbors": self.n_neighbors,
            "kernel": self.kernel,
            "bandwidth": self.bandwidth,
            "symmetrize": self.symmetrize,
            "recall": recall,
            "device": self._search_device,
            "random_state": 0,
        }

    # -- reading the result ------------------------------------------------------------------------------------

    def _block_size(self) -> int:
        return _VECTORS if self.image_shape_ is None else _PICTURES

    def _read_samples(self, model: Any, x: Tensor, device: Any) -> tuple[Tensor, Table]:
        """Features [N, f] and the network's own probabilities [N, K] of samples [N, d], which may be memory-mapped."""
        codes = torch.empty(len(x), self.feature_dim)

        def logits() -> Iterator[Tensor]:
            start = 0
            with torch.no_grad():
                for block in x.split(self._block_size()):
                    found, logits = model.embed_and_classify(block.to(device))
                    codes[start : start + len(block)] = found.cpu()
                    start += len(block)
                    yield logits.cpu()

        return codes, collect(logits(), len(x)).probabilities

    def _take_results(self, source: BatchSource) -> None:
        model: Any = self.model_
        model.parts = None
        drawn = "_all" in self.__dict__
        x = self.__dict__.get("_all", source.x)
        codes, p = self._read_samples(model, x, source.device)
        self.graph_ = self._learned_graph(codes, _RECALL if drawn else 0.95)
        self.probabilities_ = averaged(self.graph_, p, _AVERAGES)
        self.labels_ = np.asarray(self.probabilities_.argmax(axis=1)).reshape(-1)
        self.embedding_ = codes.numpy()

    def _new_samples(self, X: Input) -> tuple[BatchSource, Tensor | None]:
        return self._source(without_edges(read_features(self, X, reset=False)), self._device), None

    def _codes(self, source: BatchSource, nodes: Tensor | None) -> NDArray[np.float32]:
        x = source.x if nodes is None else source.x[nodes]
        return in_blocks(self.model_.embed, x, device=source.device, block_size=self._block_size()).numpy()

    def _logits(
        self, model: Any, source: BatchSource, nodes: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Of new samples: logarithms of the network's probabilities, averaged with those of their neighbours."""
        neighbors = Neighbors(self.graph_, self.probabilities_, source.n_samples)
        step = max(1, min(_NEW, _MOST_AT_ONCE // self.n_clusters_))
        for rows in torch.arange(source.n_samples).split(step):
            codes, own = self._read_samples(model, source.x[rows[0] : rows[-1] + 1], source.device)
            dense = own if isinstance(own, np.ndarray) else own.toarray()
            yield rows, neighbors.average(codes, torch.from_numpy(dense)).log()


def _drawn(n: int, size: int) -> Tensor:
    """Rows of a random part, in their order, [size]."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:size].sort().values
