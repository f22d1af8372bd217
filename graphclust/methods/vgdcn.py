"""VGDCN: variational graph-convolution deep clustering network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture as FittedMixture
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from graphclust.nn.autoencoder import AutoEncoder
from graphclust.nn.convolutions import Convolution
from graphclust.nn.heads import GaussianMixture, student_t_log_assignment
from graphclust.nn.likelihoods import resolve_likelihood
from graphclust.nn.losses import kl_divergence, mixture_kl, target_distribution
from graphclust.nn.networks import FusionNetwork
from graphclust.nn.scaling import FeatureScale
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import in_blocks, layerwise_logits
from graphclust.training.stage import Stage, Step

from .base import DeepClusterer
from .starts import graph_linkage_start


class VGDCN(DeepClusterer):
    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_neighbors: int = 5,
        epsilon: float | Sequence[float] | str = 0.7,
        conv: str | Convolution = "gcn",
        hidden_channels: Sequence[int] = (500, 500, 2000),
        latent_dim: int = 10,
        decoder: str = "auto",
        scale: str = "auto",
        metric: str = "euclidean",
        kernel: str = "heat",
        symmetrize: str = "union",
        normalization: str = "symmetric",
        init: str = "linkage",
        target: str = "graph",
        delta: float = 0.01,
        pretrain_epochs: int = 15,
        branch_epochs: int = 10,
        epochs: int = 20,
        learning_rate: float = 1e-3,
        batch_size: int | None = None,
        pretrain_batch_size: int = 256,
        num_neighbors: Sequence[int] | None = None,
        tolerance: float | None = 1e-3,
        device: Any = None,
        precision: str = "auto",
        checkpoint: Any = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.epsilon = epsilon
        self.conv = conv
        self.hidden_channels = hidden_channels
        self.latent_dim = latent_dim
        self.decoder = decoder
        self.scale = scale
        self.metric = metric
        self.kernel = kernel
        self.symmetrize = symmetrize
        self.normalization = normalization
        self.init = init
        self.target = target
        self.delta = delta
        self.pretrain_epochs = pretrain_epochs
        self.branch_epochs = branch_epochs
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.pretrain_batch_size = pretrain_batch_size
        self.num_neighbors = num_neighbors
        self.tolerance = tolerance
        self.device = device
        self.precision = precision
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.verbose = verbose

    def _build(self, n_features: int) -> FusionNetwork:
        hidden = tuple(self.hidden_channels)
        return FusionNetwork(
            FeatureScale(n_features),
            AutoEncoder.mlp(n_features, hidden, self.latent_dim, variational=True),
            GaussianMixture(self.n_clusters, self.latent_dim),
            (n_features, *hidden, self.latent_dim, self.n_clusters),
            self.conv,
            self.epsilon,
        )

    def _fanouts(self) -> list[int]:
        return list(self.num_neighbors) if self.num_neighbors is not None else [5, 3, 2, 1, 1]

    def _stages(self, model: nn.Module, source: BatchSource) -> list[Stage]:
        assert isinstance(model, FusionNetwork)
        likelihood = resolve_likelihood(self.decoder, unit_range=model.scale.unit_range)
        mixture = model.head
        self._start_labels = None

        def reconstruct(m: nn.Module, batch: Batch) -> Step:
            x = m.scale(batch.x)
            code = m.autoencoder.encode(x).mean
            return Step({"reconstruction": likelihood.negative_log_likelihood(m.autoencoder.decode(code), x).mean()})

        def start() -> None:
            codes = in_blocks(model.embed, source.x, device=source.device)
            if self.init == "linkage":
                labels = graph_linkage_start(source.graph, codes, self.n_clusters, seed=source.seed)
            else:
                fitted = FittedMixture(self.n_clusters, covariance_type="diag", n_init=3, random_state=source.seed % 2**31)
                labels = torch.from_numpy(fitted.fit_predict(codes.numpy()))
            self._start_labels = labels
            onehot = torch.nn.functional.one_hot(labels, self.n_clusters).float()
            n = onehot.sum(0).clamp_min(1)
            mean = onehot.T @ codes / n[:, None]
            var = (onehot.T @ codes.square() / n[:, None] - mean.square()).clamp_min(1e-4)
            mixture.set_parameters(n / n.sum(), mean, var)
            from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
            from graphclust.nn.warm_start import warm_start
            from graphclust.nn.adjacency import Adjacency
            e, l = source.weights
            adj = Adjacency(source.graph.edge_index, source.graph.edge_weight, e, l)
            eps = float(model.fusion.epsilon[-1])
            last = adj.propagate(torch.lerp(adj.propagate(codes).relu(), codes, eps))
            lda = LinearDiscriminantAnalysis().fit(last.numpy(), labels.numpy())
            nw = float(source.graph.edge_weight.sum() / source.n_samples)
            print('LDA', lda.score(last.numpy(), labels.numpy()), nw)
            print(warm_start(model.fusion, model.autoencoder.encoder, (torch.tensor(lda.coef_).float(), torch.tensor(lda.intercept_).float()), nw))
            model.frequencies.set(n)

        def branch(m: nn.Module, batch: Batch) -> Step:
            with torch.no_grad():
                x = m.scale(batch.x)
                states = m.states(x)
            logits = m.fusion(x, states, batch.adjacency)[: batch.size]
            return Step({"entropy": torch.nn.functional.cross_entropy(logits, self._start_labels[batch.index.cpu()])}, logits)

        def joint(m: nn.Module, batch: Batch) -> Step:
            out = m(batch.x, batch.adjacency)
            mean, logvar = out.encoding.mean[: batch.size], out.encoding.log_variance[: batch.size]
            x = m.scale(batch.x[: batch.size])
            z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
            nll = likelihood.negative_log_likelihood(m.autoencoder.decode(z), x)
            prior = mixture_kl(mean, logvar, mixture(z), mixture.log_weights, mixture.centers, mixture.log_variances)
            logits = out.logits[: batch.size]
            log_q = logits.log_softmax(1)
            with torch.no_grad():
                q = log_q.exp() if self.target == "graph" else student_t_log_assignment(mean, mixture.centers).exp()
                f = m.frequencies.update(q, batch.n_samples)
                p = target_distribution(q, f)
            return Step({"elbo": (nll + prior).mean(), "kl": self.delta * kl_divergence(p, log_q)}, logits)

        return [
            Stage("pretraining", reconstruct, self.pretrain_epochs, self.learning_rate, batch_size=self.pretrain_batch_size,
                  parameters=lambda m: m.autoencoder.parameters()),
            Stage("graph branch", branch, self.branch_epochs, self.learning_rate, batch_size=self.batch_size, uses_graph=True,
                  start=start, parameters=lambda m: m.fusion.parameters()),
            Stage("clustering", joint, self.epochs, self.learning_rate, decay=0.9, batch_size=self.batch_size, uses_graph=True,
                  tolerance=self.tolerance),
        ]

    def _logits(self, model: nn.Module, source: BatchSource, nodes: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        assert isinstance(model, FusionNetwork)
        return layerwise_logits(model.fusion, model.states, source, nodes, prepare=model.scale)
