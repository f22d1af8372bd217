"""Starts: first labels from codes and graph, and how they reach the mixture and the graph branch."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.mixture import GaussianMixture as FittedMixture
from torch import Tensor
from torch.nn.functional import one_hot

from graphclust.graph.partition import consensus_partition
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.heads import GaussianMixture
from graphclust.nn.networks import FusionNetwork
from graphclust.nn.warm_start import warm_start
from graphclust.training.batches import BatchSource

STARTS = ("linkage", "mixture")
PROPAGATIONS = 16


def whole_adjacency(source: BatchSource) -> Adjacency:
    """The graph with its propagation weights, on the CPU."""
    graph = source.graph
    assert graph.edge_index is not None
    return Adjacency(graph.edge_index.cpu(), graph.edge_weight.cpu(), *(w.cpu() for w in source.weights))


def start_labels(kind: str, source: BatchSource, codes: Tensor, n_clusters: int) -> Tensor:
    """First cluster of each sample, from latent codes [N, d] and, for "linkage", the sample graph.

    - "mixture": a Gaussian mixture fitted to the codes (VaDE, VGDCN's own procedure).
    - "linkage": codes propagated 16 times over the graph, split into many parts, merged by average linkage on the
      graph, with a consensus of several runs (`consensus_partition`).

    Returns
    -------
    Tensor [N], int64
    """
    seed = source.seed % 2**31
    if kind == "mixture":
        mixture = FittedMixture(
            n_clusters, covariance_type="diag", n_init=3, reg_covar=1e-4, random_state=seed
        )
        return torch.from_numpy(mixture.fit_predict(codes.double().numpy())).long()
    if kind == "linkage":
        adjacency = whole_adjacency(source)
        smooth = codes
        for _ in range(PROPAGATIONS):
            smooth = adjacency.propagate(smooth)
        return consensus_partition(source.graph, smooth, n_clusters, random_state=seed).labels
    raise ValueError(f"init is {kind!r}, it must be one of {list(STARTS)}")


@torch.no_grad()
def start_mixture(mixture: GaussianMixture, codes: Tensor, labels: Tensor) -> Tensor:
    """Set a mixture to the weights, means and variances of labelled codes; returns the mean variance within [d]."""
    k = mixture.centers.shape[0]
    member = one_hot(labels, k).to(codes.dtype)
    size = member.sum(dim=0)
    mean = member.T @ codes / size.clamp_min(1)[:, None]
    within = (codes - mean[labels]).square()
    shared = within.mean(dim=0).clamp_min(1e-6)
    # Ten samples' worth of the shared variance: a cluster of two samples must not get a variance of zero.
    variance = (member.T @ within + 10.0 * shared) / (size[:, None] + 10.0)
    mixture.set_parameters((size + 1.0) / (size + 1.0).sum(), mean, variance)
    return shared


@torch.no_grad()
def start_branch(model: FusionNetwork, source: BatchSource, codes: Tensor, labels: Tensor) -> None:
    """Start the graph branch with the encoder's weights and a linear discriminant of the labels as its last layer."""
    adjacency = whole_adjacency(source)
    eps = model.fusion.epsilon[-1].detach().cpu()
    last = adjacency.propagate(torch.lerp(adjacency.propagate(codes).relu(), codes, eps))
    k = model.fusion.widths[-1]
    weight, bias = torch.zeros(k, codes.shape[1]), torch.full((k,), -10.0)
    present = np.unique(labels.numpy())
    if len(present) > 1:
        # Shrinkage, because codes may have constant or collinear columns.
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-3).fit(
            last.double().numpy(), labels.numpy()
        )
        coef, intercept = torch.from_numpy(lda.coef_).float(), torch.from_numpy(lda.intercept_).float()
        if len(present) == 2:  # scikit-learn gives the one difference of two classes
            coef, intercept = torch.cat([-coef / 2, coef / 2]), torch.cat([-intercept / 2, intercept / 2])
        weight[present], bias[present] = coef, intercept
    else:
        bias[present] = 0.0
    neighbor_weight = float(source.graph.edge_weight.sum()) / source.n_samples
    device = next(model.parameters()).device
    warm_start(model.fusion, model.autoencoder.encoder, (weight.to(device), bias.to(device)), neighbor_weight)
