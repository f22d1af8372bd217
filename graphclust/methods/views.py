"""Views of the same samples: pixels, edges, a pretrained network's features, each with its graph and first clusters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from rich.console import Console
from rich.progress import track
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.nn.functional import interpolate

from graphclust.graph import SampleGraph
from graphclust.graph.information import (
    InformativePartition,
    informative_partition,
    labels_of_parts,
    neighbor_walk,
)
from graphclust.graph.partition import MergeTree, consensus_partition, split_parts
from graphclust.graph.rearrangement import rearranged
from graphclust.methods.starts import principal_components, propagated
from graphclust.nn.gradient_histograms import GradientHistograms
from graphclust.nn.vector_scale import VectorScale
from graphclust.training.batches import BatchSource
from graphclust.training.inference import in_blocks

#: Clusters up to which views are put together: a search takes time in proportion to their square.
MOST_CLUSTERS = 100
#: Samples that a view has for each cluster at least.
SAMPLES_OF_CLUSTER = 4
#: Names of the views of images beside their pixels.
VIEWS = ("gradients", "pretrained")
#: Side of images up to which pixels are a view too: few pixels hold few directions, and are compared one by one.
_TINY = 10
#: Pictures that a pretrained network reads: it takes ten times as long as all else.
_READ = 5_000
#: Share of the pictures that differ that have to differ in a view.
_TOLD = 0.9
#: Side that it reads them in, at most so many times their own; and how many at once: few enough for the cache.
_SIDE, _ENLARGED, _AT_ONCE = 96, 8, 8
#: Columns of its two inner feature maps and of its last one (`graphclust.images.efficientnet.LayerFeatures`).
_DEPTHS = (224, 384, 1280)
#: Steps over the graph before k-means and mixtures, and the columns that a mixture sees.
_FEW_STEPS, _MIXED = 3, 32
#: Parts for each cluster that clusters are put together from, and samples that a part has at least on average.
_PARTS_PER_CLUSTER, _PART_SIZE = 10, 16
#: Share of the mean cluster size below which no half of a cluster is split off.
_LEAST_HALF = 0.3


@dataclass
class View:
    """One way to look at samples: their graph under it, and where they lie.

    Attributes
    ----------
    graph : SampleGraph
        Of the view's samples.
    components : Tensor [N_v, c]
        Principal components of its features.
    rows : Tensor [N_v] or None
        Which samples it holds; None for all.
    """

    graph: SampleGraph
    components: Tensor
    rows: Tensor | None = None

    def smoothed(self, times: int) -> Tensor:
        """The components, propagated over the graph."""
        return propagated(BatchSource(self.graph), self.components, times)

    def first_clusters(self, n_clusters: int, tree: MergeTree | None, seed: int) -> list[Tensor]:
        """Labels [N_v] by several methods, that a search may start from: what suits differs from data to data.

        Consensus of average linkage, moved by modularity and as it is; k-means before and after three steps of
        propagation; a Gaussian mixture after them.
        """
        n = len(self.components)
        if tree is None:
            tree = consensus_partition(
                self.graph, self.smoothed(propagations(n, n_clusters)), n_clusters, random_state=seed
            )
        moved = rearranged(self.graph, tree, min_size=_LEAST_HALF * n / n_clusters)
        near = principal_components(self.smoothed(_FEW_STEPS), _MIXED, seed=seed).double().numpy()
        with warnings.catch_warnings():
            # A start that has not come to rest is a start still.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = [
                KMeans(n_clusters, n_init=2, random_state=seed).fit_predict(codes)
                for codes in (self.components.numpy(), near)
            ]
            mixture = GaussianMixture(
                n_clusters, reg_covar=1e-3 * near.var() + 1e-9, max_iter=50, random_state=seed
            )
            found.append(mixture.fit_predict(near))
        return [tree.labels, moved.labels, *(torch.from_numpy(labels).long() for labels in found)]


def propagations(n_samples: int, n_clusters: int, most: int = 16) -> int:
    """Steps over the graph: `most`, fewer where a third of a cluster is less, so that they stay inside."""
    return min(most, max(2, n_samples // (3 * n_clusters)))


def view_of(features: Tensor, options: dict[str, Any], seed: int, rows: Tensor | None = None) -> View:
    """The view of features [N_v, d]; `options` are those of `SampleGraph.from_features`."""
    features = features.float()
    graph = SampleGraph.from_features(
        features, **{**options, "n_neighbors": min(options["n_neighbors"], len(features) - 1)}
    )
    return View(graph, principal_components(features, seed=seed), rows)


def check_views(views: Any) -> Sequence[str]:
    """The names of views that `views` stands for: "auto", None, or some of `VIEWS`."""
    if isinstance(views, str) and views == "auto":
        return VIEWS
    chosen = () if views is None else views
    if isinstance(chosen, str) or not set(chosen) <= set(VIEWS):
        raise ValueError(f"views={views!r} is unknown: use 'auto', None or some of {list(VIEWS)}")
    return tuple(chosen)


def image_views(
    views: Any, x: Tensor, image_shape: Any, pixels: View, options: dict[str, Any], seed: int, device: Any
) -> list[View]:
    """Views of pictures in rows x [N, H * W * C]: those of all pictures first.

    That of the pixels is one of them where pictures are tiny, or have no edges to look at.

    Parameters
    ----------
    views : "auto", None or sequence of str
        See `check_views`; "auto" does without a pretrained network where its weights are not installed.
    x : Tensor
    image_shape : (H, W, C)
    pixels : View
    options : dict
        Of `SampleGraph.from_features`.
    seed : int
    device : torch.device
    """
    chosen = check_views(views)
    verbose = bool(options.pop("verbose", False))
    found = [pixels]
    gradients = gradient_view(x, image_shape, options, seed) if "gradients" in chosen else None
    if gradients is not None:
        found = [pixels, gradients] if min(image_shape[:2]) <= _TINY else [gradients]
    if "pretrained" in chosen:
        required = not isinstance(views, str)
        found += pretrained_views(x, image_shape, options, seed, device, required=required, verbose=verbose)
    return found


def gradient_view(x: Tensor, image_shape: Any, options: dict[str, Any], seed: int) -> View | None:
    """By the directions of edges (`GradientHistograms`).

    None where these do not tell pictures apart: below four pixels, and where a tenth of those that differ do not differ
    in them (plain ones, of other colours or brightness).
    """
    if min(image_shape[:2]) < 4:
        return None
    features = in_blocks(GradientHistograms(image_shape), x, block_size=1024)
    told, given = _n_different(features), _n_different(x)
    return view_of(features, options, seed) if told > 1 and told >= _TOLD * given else None


def _n_different(rows: Tensor) -> int:
    """Number of different rows, by two sums with random weights: sorting whole rows takes seconds."""
    weights = torch.rand(rows.shape[1], 2, generator=torch.Generator().manual_seed(0))
    return len(torch.unique(rows.float() @ weights, dim=0))


def pretrained_views(
    x: Tensor,
    image_shape: Any,
    options: dict[str, Any],
    seed: int,
    device: Any,
    *,
    required: bool = False,
    verbose: bool = False,
) -> list[View]:
    """By EfficientNet-Lite0's feature maps of three depths, whitened together and each by itself.

    None without the extra ``images``. Of more than 5,000 pictures a random part of that size is read, the same for
    every seed.
    """
    from graphclust.images import efficientnet

    try:
        network = efficientnet.load_efficientnet_lite0()
    except ImportError:
        if required:
            raise
        return []
    rows = None
    if len(x) > _READ:
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:_READ].sort().values
    model: Any = efficientnet.LayerFeatures(network)
    model = model.to(device, memory_format=torch.channels_last).eval()
    picked = x if rows is None else x[rows]
    low, high = float(picked.min()), float(picked.max())
    side = min(_SIDE, _ENLARGED * max(image_shape[:2]))
    read = []
    with torch.inference_mode():
        blocks: Iterable[Tensor] = picked.split(_AT_ONCE)
        console = Console(stderr=True)
        if verbose and console.is_terminal:
            blocks = track(
                list(blocks), "Reading images by EfficientNet-Lite0", transient=True, console=console
            )
        for block in blocks:
            maps = block.to(device).float().unflatten(1, image_shape).permute(0, 3, 1, 2)
            maps = (maps - low) / max(high - low, 1e-30)
            if maps.shape[1] != 3:
                maps = maps.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
            maps = interpolate(maps, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
            scaled = (maps - efficientnet.MEAN) / efficientnet.STD
            read.append(model(scaled.contiguous(memory_format=torch.channels_last)).float().cpu())
    features = torch.cat(read)

    def whitened(columns: Tensor) -> Tensor:
        return VectorScale(columns.shape[1], "whitened").fit(columns)(columns)

    together = whitened(features)
    apart = torch.cat([torch.nn.functional.normalize(whitened(c)) for c in features.split(_DEPTHS, dim=1)], 1)
    return [view_of(f, options, seed, rows) for f in (together, apart)]


def clusters_of_views(
    own: View, others: list[View], n_clusters: int, seed: int, tree: MergeTree | None = None
) -> Tensor:
    """Clusters [N] that say most about where walks over the graphs of all views lead.

    Parts of the own view are put together (`informative_partition`), from the first clusters of each view. Views of
    fewer than `SAMPLES_OF_CLUSTER` samples for each cluster take no part.

    Parameters
    ----------
    own : View
        Of all samples.
    others : list of View
    n_clusters : int
    seed : int
    tree : MergeTree, optional
        The own view's consensus, where it is known.
    """
    n = len(own.components)
    n_parts = max(
        min(_PARTS_PER_CLUSTER * n_clusters, n // _PART_SIZE), min(4 * n_clusters, n // 2), n_clusters
    )
    parts = split_parts(own.smoothed(propagations(n, n_clusters)), n_parts, random_state=seed)
    parts = torch.unique(parts, return_inverse=True)[1]
    member = sp.csr_matrix((np.ones(n, np.float32), (np.arange(n), parts.numpy())))
    walks, starts = [], []
    for view in (own, *others):
        if view is not own and (
            len(view.components) < SAMPLES_OF_CLUSTER * n_clusters
            or _n_different(view.components) < n_clusters
        ):
            continue
        inside = member if view.rows is None else member[view.rows.numpy()]
        assert view.graph.neighbor_index is not None
        walks.append(neighbor_walk(view.graph.neighbor_index) @ inside)
        for labels in view.first_clusters(n_clusters, tree if view is own else None, seed):
            start = labels_of_parts(labels, parts, n_clusters, view.rows)
            if len(np.unique(start)) == n_clusters:
                starts.append(start)
    if not starts:
        assert tree is not None
        return tree.labels
    found: InformativePartition = informative_partition(walks, starts, n_clusters, random_state=seed)
    return torch.from_numpy(found.part_labels)[parts]
