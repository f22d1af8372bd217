"""VGDCN: variational graph-convolution deep clustering network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from graphclust.nn.autoencoder import AutoEncoder
from graphclust.nn.convolutions import Convolution
from graphclust.nn.heads import GaussianMixture, student_t_log_assignment
from graphclust.nn.likelihoods import gaussian_sample, resolve_likelihood
from graphclust.nn.losses import kl_divergence, mixture_kl, target_distribution
from graphclust.nn.networks import FusionNetwork
from graphclust.nn.scaling import FeatureScale
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import in_blocks, layerwise_logits
from graphclust.training.stage import Stage, Step

from .base import DeepClusterer
from .starts import start_branch, start_labels, start_mixture


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

    def _stages(self, model: nn.Module, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        assert isinstance(model, FusionNetwork)
        mixture = model.head
        assert isinstance(mixture, GaussianMixture)
        likelihood = resolve_likelihood(self.decoder, unit_range=model.scale.unit_range)

        def reconstruct(m: nn.Module, batch: Batch) -> Step:
            x = m.scale(batch.x)
            output = m.autoencoder.decode(m.autoencoder.encode(x).mean)
            return Step({"reconstruction": likelihood.negative_log_likelihood(output, x).mean()})

        def start() -> None:
            codes = in_blocks(model.embed, source.x, device=source.device)
            labels = memory["start"] = start_labels(self.init, source, codes, self.n_clusters)
            within = start_mixture(mixture, codes, labels)
            model.frequencies.set(torch.bincount(labels, minlength=self.n_clusters).float())
            # The code's noise begins at a tenth of the clusters' own variance: enough to learn from, too little to
            # wash out what pretraining found.
            model.autoencoder.encoder.log_variance.bias.data.copy_((0.1 * within).log())
            start_branch(model, source, codes, labels)

        def follow_start(m: nn.Module, batch: Batch) -> Step:
            with torch.no_grad():
                x = m.scale(batch.x)
                states = m.states(x)
            logits = m.fusion(x, states, batch.adjacency)[: batch.size]
            target = memory["start"][batch.index.cpu()].to(logits.device)
            return Step({"cross_entropy": cross_entropy(logits, target)}, logits)

        def cluster(m: nn.Module, batch: Batch) -> Step:
            encoding, logits = m(batch.x, batch.adjacency)
            x, mean, log_variance = m.scale(batch.x[: batch.size]), *encoding.gaussian(batch.size)
            z = gaussian_sample(mean, log_variance)
            likelihoods = likelihood.negative_log_likelihood(m.autoencoder.decode(z), x)
            prior = mixture_kl(
                mean, log_variance, mixture(z), mixture.log_weights, mixture.centers, mixture.log_variances
            )
            log_z_g = logits[: batch.size].log_softmax(dim=1)
            with torch.no_grad():
                q = log_z_g if self.target == "graph" else student_t_log_assignment(mean, mixture.centers)
                frequencies = m.frequencies.update(q.exp(), batch.n_samples)
                p = target_distribution(q.exp(), frequencies)
            terms = {"elbo": (likelihoods + prior).mean(), "kl": self.delta * kl_divergence(p, log_z_g)}
            return Step(terms, log_z_g)

        graph_stage = {"batch_size": self.batch_size, "uses_graph": True, "learning_rate": self.learning_rate}
        return [
            Stage(
                "pretraining",
                reconstruct,
                self.pretrain_epochs,
                learning_rate=self.learning_rate,
                batch_size=self.pretrain_batch_size,
                parameters=lambda m: m.autoencoder.parameters(),
            ),
            Stage(
                "graph branch",
                follow_start,
                self.branch_epochs,
                start=start,
                parameters=lambda m: m.fusion.parameters(),
                **{**graph_stage, 'learning_rate': getattr(self,'blr',1e-3)},
            ),
            Stage("clustering", cluster, self.epochs, decay=0.9, tolerance=self.tolerance, **{**graph_stage,'learning_rate':getattr(self,'clr',1e-3)}),
        ]

    def _logits(self, model: nn.Module, source: BatchSource, nodes: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        assert isinstance(model, FusionNetwork)
        return layerwise_logits(model.fusion, model.states, source, nodes, prepare=model.scale)
