"""What the estimators share that put a tree over the codes of an auto-encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from graphclust._checks import check_count, check_features, check_number
from graphclust._random import run_seeds
from graphclust.graph import SampleGraph
from graphclust.graph.metric import Metric
from graphclust.methods.agglomerative_density import LEAST_SHARE, join_parts, pair_densities
from graphclust.methods.base import RESULTS
from graphclust.methods.deep_autoencoder import WARM_UP, AutoEncoderClusterer
from graphclust.methods.files import read_results, write_results
from graphclust.methods.kmeans import k_means
from graphclust.methods.trees import Tree, cut_leaves
from graphclust.nn.leaves import LeafAssignment
from graphclust.training.batches import BatchSource
from graphclust.training.inference import in_blocks
from graphclust.training.stage import Stage

#: Leaves a cluster, and samples a leaf on average: as many as `AgglomerativeDensity` has.
_LEAVES, _LEAF_SIZE = 27, 8
_TREE = ("tree", "leaf_labels")


@dataclass(eq=False, repr=False, kw_only=True)
class CodeTree(Tree, AutoEncoderClusterer):
    """Base of the deep estimators with a tree: its leaves are centres among the codes.

    Here the leaves are the parts of an over-segmentation of the codes, and they are merged where the density between
    two is nearly that within them (`AgglomerativeDensity`). The clusters are the tree, cut into K; a new sample goes
    with its nearest leaf. So `labels_` is ``cut(n_clusters_)``, and what `predict` says of the training samples.

    Parameters
    ----------
    n_leaves : int or None
        Leaves of the tree, at most; None takes 27 a cluster. There are no more than one for eight samples.
    n_neighbors : int
        Neighbours that each code is joined to, for the density.
    """

    n_leaves: int | None = None
    n_neighbors: int = 10

    #: Whether the density between two parts counts by that within them (`join_parts`).
    _relative_density: ClassVar[bool] = True
    #: Other over-segmentations whose clusters weigh the links of the last one.
    _n_runs: ClassVar[int] = 0

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count(self.n_neighbors, "n_neighbors")
        if self.n_leaves is not None:
            least = self.n_clusters if isinstance(self.n_clusters, int) else 2
            check_count(self.n_leaves, "n_leaves", least, remedy="a cluster has at least one leaf")

    def _head(self) -> nn.Module:
        return LeafAssignment(self.n_clusters_, self.latent_dim, self._max_leaves())

    def _max_leaves(self) -> int:
        return max(self.n_leaves or _LEAVES * self.n_clusters_, self.n_clusters_)

    def _start(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> None:
        """The tree over the present codes; `memory["start"]` are its clusters."""
        codes = in_blocks(model.embed, source.x, device=source.device).float()
        n_parts, n_runs = self._n_parts(len(codes)), self._n_runs
        parts = [
            k_means(codes.numpy(), n_parts, n_init=1, max_iter=20, random_state=run_seed)
            for run_seed in run_seeds(source.seed, n_runs + 1)
        ]
        centers = [torch.from_numpy(found.centers) for found in parts]
        memory["start"] = self._join(model.head, codes, centers[0], [found.labels for found in parts[1:]])

    def _n_parts(self, n_samples: int) -> int:
        """Leaves for this many samples: room for one a cluster, and else no more than one for eight samples."""
        return min(n_samples, max(self.n_clusters_, min(self._max_leaves(), n_samples // _LEAF_SIZE)))

    def _join(
        self, head: LeafAssignment, codes: Tensor, centers: Tensor, others: Sequence[NDArray[np.int64]] = ()
    ) -> Tensor:
        """Join leaves with these centres [P, d] to a tree, cut it into the head's clusters; labels of codes [N].

        `others` are more over-segmentations [N]: the clusters of their trees weigh this one's links (`join_parts`).
        """
        head.set_leaves(centers, torch.zeros(len(centers)))
        nearest = in_blocks(head.nearest, codes, device=head.centers.device)
        present, leaf = nearest.unique(return_inverse=True)  # some may be nobody's nearest
        n = len(codes)
        graph = SampleGraph.from_features(
            codes, min(self.n_neighbors, n - 1), kernel="binary", device=self._search_device, random_state=0
        )
        join = partial(
            join_parts,
            pair_densities(graph, Metric.make("euclidean")),
            least=max(1, round(LEAST_SHARE * n / self.n_clusters_)),
            relative=self._relative_density,
        )
        runs = []
        for other in others:
            part = np.unique(other, return_inverse=True)[1]
            tree = join(part).tree
            runs.append(cut_leaves(tree, min(self.n_clusters_, len(tree) + 1))[part])
        self._set_tree(join(leaf.numpy(), runs=runs).tree, leaf.numpy())
        # Data may have fewer distinct samples than clusters were asked for.
        clusters = torch.from_numpy(self._cut_leaves(min(self.n_clusters_, len(present))))
        head.set_leaves(centers[present], clusters)
        return clusters[leaf]

    def decode(self, Z: Any) -> NDArray[np.float32]:
        """Codes [M, latent_dim] decoded to samples [M, d], in the units of the data (images as rows)."""
        check_is_fitted(self, "model_")
        codes = check_features(Z, "Z", n_features=self.embedding_.shape[1]).float()
        with torch.no_grad():
            return np.concatenate([self._decode(block.to(self._device)) for block in codes.split(8192)])

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        write_results(folder, self, (*RESULTS, *_TREE))

    def _read(self, folder: Path) -> None:
        super()._read(folder)
        read_results(folder, self, _TREE)


@dataclass(eq=False, repr=False, kw_only=True)
class TrainedCodeTree(CodeTree):
    """Base of those that go on training the network once there is a tree, in stages that each begin with a new tree.

    Parameters
    ----------
    epochs : int
        Of such a stage.
    learning_rate : float
        Of Adam, in it.
    batch_size : int or None
        Samples a step in it; None takes all of them in one.
    """

    epochs: int = 10
    learning_rate: float = 1e-3
    batch_size: int | None = 256

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count(self.epochs, "epochs", 0)
        check_number(self.learning_rate, "learning_rate", 0.0, open_low=True)

    def _in_turn(self, name: str, loss: Any, start: Callable[[], None], epochs: int) -> Stage:
        """A stage of training that begins with `start`."""
        return Stage(
            name, loss, epochs, self.learning_rate, warm_up=WARM_UP, batch_size=self.batch_size, start=start
        )
