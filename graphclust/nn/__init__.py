"""Torch modules: encoders, the epsilon-bridge fusion, assignment heads, losses. No files, no loops."""

from graphclust.nn.adjacency import Adjacency, propagation_weights
from graphclust.nn.assignment import LinearAssignment
from graphclust.nn.augmentation import RandomAffine, RandomNoise
from graphclust.nn.autoencoder import AutoEncoder, Encoding, MLPDecoder, MLPEncoder
from graphclust.nn.cluster_tree import ClusterTree
from graphclust.nn.conditional import ConditionalDecoder, kl_gaussian
from graphclust.nn.contrast import NodeDiscriminator, SummaryDiscriminator, shuffle_samples
from graphclust.nn.convolutional import ConvDecoder, ConvEncoder
from graphclust.nn.convolutions import GATConv, GCNConv, GINConv, SAGEConv, make_convolution
from graphclust.nn.fusion import GraphFusion
from graphclust.nn.gradient_histograms import GradientHistograms
from graphclust.nn.heads import (
    ClusterFrequencies,
    GaussianMixture,
    RunningCenters,
    StudentTAssignment,
    student_t_log_assignment,
)
from graphclust.nn.held import HeldAssignments
from graphclust.nn.leaves import LeafAssignment
from graphclust.nn.likelihoods import Bernoulli, Gaussian, Likelihood, gaussian_sample, resolve_likelihood
from graphclust.nn.losses import kl_divergence, kl_standard_normal, mixture_kl, target_distribution
from graphclust.nn.modularity import BatchModularity, collapse_penalty, soft_modularity
from graphclust.nn.networks import AutoEncoderNetwork, FusionNetwork
from graphclust.nn.scaling import FeatureScale
from graphclust.nn.smoothing import SmoothedEncoder
from graphclust.nn.warm_start import warm_start

__all__ = [
    "Adjacency",
    "AutoEncoder",
    "AutoEncoderNetwork",
    "BatchModularity",
    "Bernoulli",
    "ClusterFrequencies",
    "ClusterTree",
    "ConditionalDecoder",
    "ConvDecoder",
    "ConvEncoder",
    "Encoding",
    "FeatureScale",
    "FusionNetwork",
    "GATConv",
    "GCNConv",
    "GINConv",
    "Gaussian",
    "GaussianMixture",
    "GradientHistograms",
    "GraphFusion",
    "HeldAssignments",
    "LeafAssignment",
    "Likelihood",
    "LinearAssignment",
    "MLPDecoder",
    "MLPEncoder",
    "NodeDiscriminator",
    "RandomAffine",
    "RandomNoise",
    "RunningCenters",
    "SAGEConv",
    "SmoothedEncoder",
    "StudentTAssignment",
    "SummaryDiscriminator",
    "collapse_penalty",
    "gaussian_sample",
    "kl_divergence",
    "kl_gaussian",
    "kl_standard_normal",
    "make_convolution",
    "mixture_kl",
    "propagation_weights",
    "resolve_likelihood",
    "shuffle_samples",
    "soft_modularity",
    "student_t_log_assignment",
    "target_distribution",
    "warm_start",
]
