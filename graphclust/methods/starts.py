"""Starts: first labels from codes and graph, and how they reach the mixture and the graph branch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as FittedMixture
from torch import Tensor
from torch.nn.functional import one_hot

from graphclust._checks import check_choice
from graphclust.graph.over_segmentation import consensus_partition
from graphclust.methods.kmeans import k_means
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.heads import GaussianMixture
from graphclust.nn.networks import FusionNetwork
from graphclust.nn.warm_start import warm_start
from graphclust.training.batches import BatchSource
from graphclust.training.inference import in_blocks

STARTS = ("linkage", "mixture")
#: Steps over the graph that draw the samples of one dense region together.
PROPAGATIONS = 16
#: Entries of a table of samples by clusters that is held at a time.
_TABLE = 1 << 24
#: Entries of a table of samples by clusters, beyond which a mixture is fitted to some of the samples.
_RESPONSIBILITIES = 50_000_000


def whole_adjacency(source: BatchSource) -> Adjacency:
    """The graph with its propagation weights, on the CPU."""
    graph = source.graph
    assert graph.edge_index is not None
    return Adjacency(graph.edge_index.cpu(), graph.edge_weight.cpu(), *(w.cpu() for w in source.weights))


def propagated(source: BatchSource, x: Tensor, times: int) -> Tensor:
    """Rows x [N, d] multiplied by the graph's propagation matrix `times` times, on the CPU."""
    adjacency = whole_adjacency(source)
    for _ in range(times):
        x = adjacency.propagate(x)
    return x


def propagations(n_samples: int, n_clusters: int) -> int:
    """Steps over the graph: 16, fewer where a third of a cluster is less, so that walks stay inside."""
    return min(PROPAGATIONS, max(2, n_samples // (3 * n_clusters)))


def principal_components(x: Tensor, n_components: int = 64, *, seed: int = 0) -> Tensor:
    """The first principal components of rows x [N, d]; x itself, centred, where d is no larger.

    Propagation and principal components are both linear, so fewer columns are propagated for nearly the same result.
    """
    x = x.float()
    if x.shape[1] <= n_components:
        return x - x.mean(dim=0)
    if bool((x == x[0]).all()):  # no direction has a variance that could be divided by
        return x.new_zeros(len(x), min(n_components, *x.shape))
    found = PCA(min(n_components, *x.shape), svd_solver="randomized", random_state=seed % 2**32)
    return torch.from_numpy(found.fit_transform(x.numpy()).astype(np.float32))


def start_labels(kind: str, source: BatchSource, codes: Tensor, n_clusters: int) -> Tensor:
    """First cluster of each sample, from latent codes [N, d] and, for "linkage", the sample graph.

    - "mixture": a Gaussian mixture fitted to the codes (VaDE, VGDCN's own procedure).
    - "linkage": codes propagated 16 times over the graph, split into many parts, merged by average linkage on the
      graph, with a consensus of several runs (`consensus_partition`).

    Returns
    -------
    Tensor [N], int64
    """
    check_choice(kind, "init", STARTS)
    seed = source.seed % 2**31
    same = _fewer_distinct(codes, n_clusters)
    if same is not None:
        return same
    with warnings.catch_warnings():
        # About duplicates among the many parts, whose number is no business of the user's.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if kind == "mixture":
            mixture = FittedMixture(
                n_clusters, covariance_type="diag", n_init=3, reg_covar=1e-4, random_state=seed
            )
            # Tables of samples by clusters are held.
            few = max(10 * n_clusters, _RESPONSIBILITIES // n_clusters)
            if len(codes) <= few:
                return torch.from_numpy(mixture.fit_predict(codes.double().numpy())).long()
            some = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))[:few]
            mixture.fit(codes[some].double().numpy())
            return in_blocks(lambda z: torch.from_numpy(mixture.predict(z.double().numpy())).long(), codes)
        smooth = propagated(source, codes, PROPAGATIONS)
        # A few samples that are all joined become one point.
        positions = smooth if _fewer_distinct(smooth, n_clusters) is None else codes
        return consensus_partition(source.graph, positions, n_clusters, random_state=seed).labels


def _fewer_distinct(codes: Tensor, n_clusters: int) -> Tensor | None:
    """Where there are fewer distinct codes than clusters, each is a cluster: their labels [N]; else None.

    Codes closer than a hundred-thousandth of the largest entry are the same: float32 rounds equal samples apart.
    """
    rounded = (codes / codes.abs().max().clamp_min(1e-30) * 1e5).round()
    # Nearly always the first rows tell, and the sort of all is saved.
    if len(rounded[: 100 * n_clusters].unique(dim=0)) >= n_clusters:
        return None
    distinct, labels = rounded.unique(dim=0, return_inverse=True)
    return labels if len(distinct) < n_clusters else None


@torch.no_grad()
def start_mixture(mixture: GaussianMixture, codes: Tensor, labels: Tensor) -> Tensor:
    """Set a mixture to the weights, means and variances of labelled codes; returns the mean variance within [d]."""
    k = mixture.centers.shape[0]
    size = torch.bincount(labels, minlength=k).to(codes.dtype)
    mean = _sums(codes, labels, k) / size.clamp_min(1)[:, None]
    within = (codes - mean[labels]).square()
    shared = within.mean(dim=0).clamp_min(1e-6)
    # Ten samples' worth of the shared variance: a cluster of two samples must not get a variance of zero.
    variance = (_sums(within, labels, k) + 10.0 * shared) / (size[:, None] + 10.0)
    mixture.set_parameters((size + 1.0) / (size + 1.0).sum(), mean, variance)
    return shared


def _sums(rows: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    """Sum of the rows [N, d] of each cluster, [K, d]."""
    step = rows_at_once(n_clusters)
    parts = zip(rows.split(step), labels.split(step), strict=True)
    return sum(one_hot(part, n_clusters).to(rows.dtype).T @ block for block, part in parts)


def rows_at_once(n_clusters: int) -> int:
    """Samples whose table [n, K] is held: nothing of size N x K, however many samples there are."""
    return max(1, _TABLE // n_clusters)


@torch.no_grad()
def start_variational(model: Any, codes: Tensor, labels: Tensor) -> None:
    """Start mixture, frequencies and the code's noise of a network with a variational encoder."""
    within = start_mixture(model.head, codes, labels)
    model.frequencies.set(torch.bincount(labels, minlength=model.head.centers.shape[0]).float())
    # The code's noise begins at a tenth of the clusters' own variance: enough to learn from, too little to wash out
    # what pretraining found.
    model.autoencoder.encoder.log_variance.bias.copy_((0.1 * within).log())


@torch.no_grad()
def start_centers(
    model: Any, source: BatchSource, n_clusters: int, codes: Tensor | None = None, **k_means_options: Any
) -> Tensor:
    """Start a head's centres by k-means on the codes, and the frequencies by its assignments; labels [N].

    Parameters
    ----------
    model : Module
        With `embed`, `head` (it has `centers`, and gives log-probabilities) and `frequencies`.
    codes : Tensor [N, d], optional
        Computed by `embed` when left out.
    **k_means_options
        `n_init`, 20 by default, and others of `graphclust.methods.kmeans.k_means`.
    """
    if codes is None:
        codes = in_blocks(model.embed, source.x, device=source.device)
    options = {"n_init": 20} | k_means_options
    found = k_means(codes.float().numpy(), n_clusters, random_state=source.seed, **options)
    model.head.centers.copy_(torch.from_numpy(found.centers))
    parts = codes.split(rows_at_once(n_clusters))
    model.frequencies.set(sum(_assignments(model.head, part, source.device).sum(dim=0) for part in parts))
    return torch.from_numpy(found.labels)


def _assignments(head: Any, codes: Tensor, device: torch.device) -> Tensor:
    return in_blocks(lambda z: head(z).exp(), codes, device=device)


@torch.no_grad()
def start_branch(model: FusionNetwork, source: BatchSource, codes: Tensor, labels: Tensor) -> None:
    """Start the graph branch with the encoder's weights and a linear discriminant of the labels as its last layer."""
    adjacency = whole_adjacency(source)
    eps = model.fusion.epsilon[-1].detach().cpu()
    last = adjacency.propagate(torch.lerp(adjacency.propagate(codes).relu(), codes, eps))
    k = model.fusion.widths[-1]
    weight, bias = torch.zeros(k, codes.shape[1]), torch.full((k,), -10.0)
    present = np.unique(labels.numpy())
    if 1 < len(present) < len(labels):
        # Shrinkage, because codes may have constant or collinear columns.
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-3)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Only one sample available")  # a cluster of one
            lda.fit(last.double().numpy(), labels.numpy())
        coef, intercept = torch.from_numpy(lda.coef_).float(), torch.from_numpy(lda.intercept_).float()
        if len(present) == 2:  # scikit-learn gives the one difference of two classes
            coef, intercept = torch.cat([-coef / 2, coef / 2]), torch.cat([-intercept / 2, intercept / 2])
        weight[present], bias[present] = coef, intercept
    else:
        bias[present] = 0.0
    neighbor_weight = float(source.graph.edge_weight.sum()) / source.n_samples
    device = next(model.parameters()).device
    warm_start(model.fusion, model.autoencoder.encoder, (weight.to(device), bias.to(device)), neighbor_weight)
