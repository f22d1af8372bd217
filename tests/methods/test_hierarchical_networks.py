"""Trees over the codes of a network: DeepECT's tree by brute force, the told decoder, leaves, cuts, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import is_valid_linkage
from torch import Tensor

import graphclust
from graphclust import DEC, DeepHierarchical, HierarchicalVAE, VAEHierarchical, report
from graphclust.nn import leaves
from graphclust.nn.cluster_tree import ClusterTree
from graphclust.nn.conditional import ConditionalDecoder, kl_gaussian
from graphclust.nn.leaves import LeafAssignment
from graphclust.nn.losses import kl_standard_normal

pytestmark = pytest.mark.filterwarnings("ignore:.*clusters were asked for")

TINY: dict[str, Any] = {"hidden_channels": [32], "latent_dim": 5, "pretrain_epochs": 3, "random_state": 0}
METHODS: list[Any] = [
    pytest.param(VAEHierarchical, TINY | {"channels": [4, 8]}, id="VAEHierarchical"),
    pytest.param(HierarchicalVAE, TINY | {"epochs": 2, "rounds": 2}, id="HierarchicalVAE"),
    pytest.param(DeepHierarchical, TINY | {"epochs": 2}, id="DeepHierarchical"),
]


@pytest.fixture(scope="module")
def x(digits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return digits[0][:400]


@pytest.fixture(scope="module")
def fitted(x: np.ndarray) -> dict[str, Any]:
    return {p.values[0].__name__: p.values[0](6, **p.values[1]).fit(x.reshape(-1, 8, 8)) for p in METHODS}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grown(n_leaves: int, codes: Tensor, seed: int = 0) -> ClusterTree:
    """A tree whose leaves are split at random places, with the weights and centres of all codes."""
    tree = ClusterTree(n_leaves, codes.shape[1]).double()
    tree.plant(codes)
    rng = np.random.default_rng(seed)
    while tree.n_leaves < n_leaves:
        leaf = int(rng.choice(np.flatnonzero(tree.present.numpy())))
        picked = codes[torch.from_numpy(rng.choice(len(codes), 2, replace=False))]
        tree.split(leaf, picked, torch.ones(2))
    tree.update(codes, tree.nearest(codes), len(codes))
    return tree


def brute_force_compression(tree: ClusterTree, z: np.ndarray) -> float:
    """Node by node and sample by sample, from the pairs alone."""
    p = tree.max_leaves
    pairs = {p + i: pair for i, pair in enumerate(tree.pairs.tolist()) if pair[0] >= 0}
    centers, weights = tree.centers.numpy(), tree.weights.numpy()

    def leaves(node: int) -> list[int]:
        return [node] if node < p else [leaf for child in pairs[node] for leaf in leaves(child)]

    def center(node: int) -> np.ndarray:
        below = leaves(node)
        return np.average(centers[below], axis=0, weights=weights[below])

    present = np.flatnonzero(tree.present.numpy())
    nearest = present[np.linalg.norm(z[:, None] - centers[present], axis=2).argmin(axis=1)]
    total, n_nodes = 0.0, 0
    for first, second in pairs.values():
        for node, sibling in ((first, second), (second, first)):
            n_nodes += 1
            line = center(node) - center(sibling)
            line /= np.linalg.norm(line)
            for i in range(len(z)):
                if nearest[i] in leaves(node):
                    total += abs(line @ (z[i] - center(node)))
    return total / (len(z) * n_nodes)


class TestClusterTree:
    @pytest.mark.parametrize(("n_leaves", "seed"), [(2, 0), (3, 1), (9, 2), (9, 3)])
    def test_compression_by_brute_force(self, n_leaves: int, seed: int) -> None:
        codes = normal(120, 4, seed=seed)
        tree = grown(n_leaves, codes, seed)
        batch = codes[:50]
        found = tree.compression(batch, tree.nearest(batch))
        assert float(found) == pytest.approx(brute_force_compression(tree, batch.numpy()), rel=1e-9)

    def test_gradient_is_along_the_lines_between_siblings(self) -> None:
        codes = normal(80, 4)
        tree = grown(2, codes)
        batch = codes[:30].clone().requires_grad_()
        leaf = tree.nearest(batch)
        assert torch.autograd.gradcheck(lambda z: tree.compression(z, leaf), (batch,))
        tree.compression(batch, leaf).backward()
        line = tree.centers[0] - tree.centers[1]
        line = line / line.norm()
        gradient = batch.grad
        assert gradient is not None and float(gradient.norm(dim=1).min()) > 0
        torch.testing.assert_close((gradient @ line)[:, None] * line, gradient)

    def test_centres_of_inner_nodes_are_means_of_all_samples_below(self) -> None:
        codes = normal(200, 3)
        tree = grown(7, codes)
        leaf = tree.nearest(codes)
        tree.update(codes, leaf, len(codes))
        nodes = tree.split_nodes()
        assert len(nodes.centers) == tree.n_leaves - 1
        for centers, weights, below in zip(*nodes, strict=True):
            for center, weight, under in zip(centers, weights, below, strict=True):
                members = codes[under[leaf]]
                torch.testing.assert_close(center, members.mean(dim=0))
                assert float(weight) == len(members)

    def test_batches_move_centres_to_the_means_of_all(self) -> None:
        codes = normal(400, 3) + torch.tensor([0.0, 0.0, 3.0])
        codes[:150] += 8.0
        tree = ClusterTree(2, 3).double()
        tree.plant(codes)
        tree.split(0, torch.stack([codes[:150].mean(dim=0) + 1, codes[150:].mean(dim=0) - 1]), torch.ones(2))
        for epoch in range(12):
            order = torch.randperm(400, generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(40):
                tree.update(codes[rows], tree.nearest(codes[rows]), 400)
                assert len(tree.weights[tree.present]) == 2
        torch.testing.assert_close(tree.weights.sum(), torch.tensor(400.0).double(), rtol=1e-3, atol=0)
        wanted = torch.stack([codes[:150].mean(dim=0), codes[150:].mean(dim=0)])
        assert float((tree.centers - wanted).abs().max()) < 0.15
        tree.update(codes, tree.nearest(codes), 400)
        torch.testing.assert_close(tree.centers, wanted)

    def test_a_leaf_that_loses_its_samples_is_pruned(self) -> None:
        codes = normal(60, 2)
        tree = grown(3, codes)
        first, second = tree.pairs[1].tolist()  # leaves both: the second split
        sibling_of_both = next(n for n in tree.pairs[0].tolist() if n != tree.max_leaves + 1)
        tree.centers[first] = 1e3
        tree.update(codes, tree.nearest(codes), 60)
        assert tree.n_leaves == 2 and not tree.present[first] and float(tree.weights[first]) == 0
        assert sorted(tree.pairs[0].tolist()) == sorted([second, sibling_of_both])
        assert tree.pairs[1].tolist() == [-1, -1]
        assert set(tree.nearest(codes).tolist()) == {second, sibling_of_both}
        tree.split(second, codes[:2], torch.ones(2))  # the freed places are taken again
        assert tree.n_leaves == 3 and tree.split_nodes().below.shape == (2, 2, 3)
        for leaf in (0, 1, 2):
            tree.prune(leaf)
        assert tree.n_leaves == 1 and float(tree.compression(codes, tree.nearest(codes))) == 0.0

    def test_a_loaded_tree_is_that_tree(self) -> None:
        codes = normal(100, 3)
        one, other = grown(6, codes, 1), grown(6, codes, 2)
        before = float(other.compression(codes, other.nearest(codes)))
        other.load_state_dict(one.state_dict())
        after = float(other.compression(codes, other.nearest(codes)))
        assert after == float(one.compression(codes, one.nearest(codes))) != before


class TestLeafAssignment:
    def test_by_hand(self) -> None:
        head = LeafAssignment(3, 2, 8).double()
        centers, clusters = normal(5, 2, seed=1), torch.tensor([2, 0, 0, 2, 1])
        head.set_leaves(centers, clusters)
        z = normal(40, 2, seed=2)
        distance = torch.cdist(z, centers).square()
        kernel = torch.stack([1 / (1 + distance[:, clusters == j].amin(dim=1)) for j in range(3)], dim=1)
        torch.testing.assert_close(head(z).exp(), kernel / kernel.sum(dim=1, keepdim=True))
        assert torch.equal(head(z).argmax(dim=1), clusters[head.nearest(z)])

    def test_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        head = LeafAssignment(3, 2, 8).double()
        head.set_leaves(normal(5, 2, seed=1), torch.tensor([2, 0, 0, 2, 1]))
        z = normal(41, 2, seed=2)
        q, nearest = head(z), head.nearest(z)
        monkeypatch.setattr(leaves, "_DISTANCES", 8 * 6)  # six rows at a time
        torch.testing.assert_close(head(z), q)
        assert torch.equal(head.nearest(z), nearest)

    def test_a_cluster_without_leaves_has_probability_0(self) -> None:
        head = LeafAssignment(4, 2, 4)
        head.set_leaves(torch.eye(2), torch.tensor([0, 2]))
        q = head(torch.randn(5, 2)).exp()
        assert (q[:, [1, 3]] == 0).all()
        torch.testing.assert_close(q.sum(dim=1), torch.ones(5))

    def test_too_many_leaves(self) -> None:
        with pytest.raises(ValueError, match="3 leaves and room for 2"):
            LeafAssignment(2, 1, 2).set_leaves(torch.zeros(3, 1), torch.zeros(3))


class TestConditional:
    def test_divergence_of_two_gaussians(self) -> None:
        m, s, mu, t = (normal(6, 3, seed=i) for i in range(4))
        wanted = torch.distributions.kl_divergence(
            torch.distributions.Normal(m, (0.5 * s).exp()), torch.distributions.Normal(mu, (0.5 * t).exp())
        ).sum(dim=1)
        torch.testing.assert_close(kl_gaussian(m, s, mu, t), wanted)
        zero = torch.zeros_like(m)
        torch.testing.assert_close(kl_gaussian(m, s, zero, zero), kl_standard_normal(m, s))

    def test_the_decoder_gets_the_one_hot_cluster(self) -> None:
        decoder = ConditionalDecoder(torch.nn.Identity(), 3)
        z = torch.randn(4, 2)
        out = decoder(z, torch.tensor([2, 0, 1, 1]))
        assert torch.equal(out[:, :2], z)
        assert out[:, 2:].tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0]]
        assert torch.equal(decoder(z)[:, 2:], torch.zeros(4, 3))

    def test_the_same_code_is_decoded_differently_in_two_branches(self, x: np.ndarray) -> None:
        """And better in a sample's own branch than in another: the decoder uses what it is told."""
        long = {"epochs": 25, "rounds": 1, "pretrain_epochs": 10, "batch_size": 32, "pretrain_batch_size": 32}
        model = HierarchicalVAE(6, **TINY | long).fit(x)
        network, n_branches = model.model_, 3 * 6
        assert network.autoencoder.decoder.n_clusters == n_branches
        rows = torch.from_numpy(x.copy())
        with torch.no_grad():
            codes = network.embed(rows)
            branch = network.prior(codes).argmax(dim=1)
            own, other, unknown = (
                network.autoencoder.decoder(codes, c).sigmoid()
                for c in (branch, (branch + 7) % n_branches, None)
            )
        assert float((own - other).abs().mean()) > 0.02
        errors = [float((output - rows).square().mean()) for output in (own, other, unknown)]
        assert errors[0] < 0.95 * errors[1] and errors[0] < errors[2]
        np.testing.assert_allclose(model.reconstruct(x), own.numpy(), atol=1e-5)

    def test_a_round_is_told_the_cut_of_the_tree_before_it(self, x: np.ndarray) -> None:
        seen: dict[str, Tensor] = {}

        class Watched(HierarchicalVAE):
            def _start_round(self, model: Any, source: Any, memory: Any) -> None:
                super()._start_round(model, source, memory)
                seen["branch"], seen["cut"] = memory["branch"], torch.from_numpy(self.cut(12))
                seen["codes"], seen["prior"] = (
                    model.embed(source.x).detach(),
                    model.prior.centers.detach().clone(),
                )

        Watched(4, **TINY | {"epochs": 1, "rounds": 1}).fit(x)
        assert torch.equal(seen["branch"], seen["cut"]) and len(seen["branch"].unique()) == 12
        for c in range(12):
            torch.testing.assert_close(seen["prior"][c], seen["codes"][seen["branch"] == c].mean(dim=0))


@pytest.mark.parametrize(("method", "settings"), METHODS)
class TestTree:
    def test_labels_are_the_cut_tree(self, method: Any, settings: Any, fitted: Any, x: np.ndarray) -> None:
        model = fitted[method.__name__]
        assert is_valid_linkage(model.tree_) and (np.diff(model.tree_[:, 2]) >= 0).all()
        assert model.leaf_labels_.shape == (400,) and model.leaf_labels_.max() <= len(model.tree_)
        np.testing.assert_array_equal(model.labels_, model.cut(6))
        np.testing.assert_array_equal(model.labels_, model.predict(x.reshape(-1, 8, 8)))
        np.testing.assert_array_equal(model.labels_, model.probabilities_.argmax(axis=1))
        for k in (1, 2, 6, len(model.tree_) + 1):
            assert len(np.unique(model.cut(k))) == k
        assert model.cut(distance=float(model.tree_[-1, 2])).max() == 0
        assert model.to_newick().count(",") == len(model.tree_)

    def test_save_and_load(
        self, method: Any, settings: Any, fitted: Any, x: np.ndarray, tmp_path: Path
    ) -> None:
        model = fitted[method.__name__]
        read = graphclust.load(model.save(tmp_path / "model"))
        read.save(tmp_path / "model")  # once more over it
        read = graphclust.load(tmp_path / "model")
        np.testing.assert_array_equal(read.tree_, model.tree_)
        np.testing.assert_array_equal(read.cut(3), model.cut(3))
        np.testing.assert_array_equal(read.predict(x), model.labels_)
        np.testing.assert_allclose(read.decode(x[:4, :5]), model.decode(x[:4, :5]), atol=1e-6)

    def test_unknown_number_of_clusters(self, method: Any, settings: Any, digits: Any) -> None:
        model = method("auto", **settings).fit(digits[0][:300])
        assert 2 <= model.n_clusters_ <= 30 and len(np.unique(model.labels_)) == model.n_clusters_

    def test_few_distinct_samples(self, method: Any, settings: Any) -> None:
        x = np.repeat(np.eye(3, 16, dtype=np.float32), 6, axis=0)
        model = method(5, **settings).fit(x)
        assert len(np.unique(model.labels_)) <= 5 and np.isfinite(model.probabilities_).all()
        assert (model.labels_.reshape(3, 6) == model.labels_[::6, None]).all()  # equal samples stay together

    def test_resumes_as_if_unbroken(self, method: Any, settings: Any, x: np.ndarray, tmp_path: Path) -> None:
        whole = method(4, **settings, checkpoint=tmp_path / "a").fit(x[:200])
        again = method(4, **settings, checkpoint=tmp_path / "a").fit(x[:200])  # its last checkpoint
        np.testing.assert_array_equal(again.tree_, whole.tree_)
        np.testing.assert_array_equal(again.labels_, whole.labels_)

    def test_pictures(self, method: Any, settings: Any, fitted: Any, tmp_path: Path) -> None:
        model = fitted[method.__name__]
        tree, grid = report.dendrogram(model), report.latent_grid(model, title="Between clusters")
        for figure in (tree, grid):
            assert isinstance(figure, Figure)
            figure.savefig(tmp_path / "picture.png")
        sheet = np.asarray(grid.axes[0].images[0].get_array())
        side, gap = 32, 3
        assert sheet.shape == (6 * (side + gap) - gap, 6 * (side + gap) - gap, 3)
        names = [tick.get_text() for tick in grid.axes[0].get_xticklabels()]
        assert sorted(names) == list("012345") and len(grid.axes[0].patches) == 6

    def test_bad_parameters(self, method: Any, settings: Any, x: np.ndarray) -> None:
        for bad, message in (
            ({"n_leaves": 3}, "n_leaves=3 must be at least 4"),
            ({"n_neighbors": 0}, "n_neighbors"),
        ):
            with pytest.raises(ValueError, match=message):
                method(4, **settings | bad).fit(x)


class TestLatentGrid:
    def test_cells_lie_on_the_lines_between_means(self, fitted: Any) -> None:
        model = fitted["VAEHierarchical"]
        seen: list[np.ndarray] = []

        class Watched:
            labels_, embedding_, image_shape_ = model.labels_, model.embedding_, model.image_shape_

            def decode(self, codes: np.ndarray) -> np.ndarray:
                seen.append(codes)
                return model.decode(codes)

        report.latent_grid(Watched(), share=0.25)
        codes = seen[0].reshape(6, 6, -1)
        means = np.stack([model.embedding_[model.labels_ == k].mean(axis=0) for k in range(6)])
        np.testing.assert_allclose(codes[np.arange(6), np.arange(6)], means, atol=1e-5)
        np.testing.assert_allclose(codes[1, 4], 0.75 * means[1] + 0.25 * means[4], atol=1e-5)

    def test_largest_clusters(self, fitted: Any) -> None:
        grid = report.latent_grid(fitted["HierarchicalVAE"], max_clusters=3)
        assert sorted(t.get_text() for t in grid.axes[0].get_yticklabels()) == ["0", "1", "2"]

    def test_errors(self, fitted: Any, x: np.ndarray) -> None:
        model = fitted["VAEHierarchical"]
        with pytest.raises(TypeError, match="DEC has no decode"):
            report.latent_grid(DEC())
        with pytest.raises(ValueError, match="share"):
            report.latent_grid(model, share=1.5)
        with pytest.raises(ValueError, match="max_clusters is 1"):
            report.latent_grid(model, max_clusters=1)
        vectors = VAEHierarchical(3, **TINY).fit(x[:100, :63])
        with pytest.raises(ValueError, match="no square image"):
            report.latent_grid(vectors)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (VAEHierarchical(prior_weight=-1), "prior_weight"),
        (HierarchicalVAE(rounds=-1), "rounds"),
        (HierarchicalVAE(branches=0), "branches"),
        (HierarchicalVAE(learning_rate=0), "learning_rate"),
        (DeepHierarchical(compression_weight=-1), "compression_weight"),
        (DeepHierarchical(grow_epochs=-1), "grow_epochs"),
    ],
)
def test_bad_parameters(model: Any, message: str, x: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        model.fit(x)


def test_the_tree_grows_by_its_widest_leaf(x: np.ndarray) -> None:
    """Leaves one after the other, each from the leaf with the largest sum of squared distances."""
    model = DeepHierarchical(4, **TINY | {"n_leaves": 7, "epochs": 1}).fit(x)
    stages = list(dict.fromkeys(record["stage"] for record in model.history_))
    assert stages == ["pretraining", *(f"{n} leaves" for n in range(2, 8))]
    assert model.model_.tree.n_leaves == len(model.tree_) + 1 == 7


@pytest.mark.parametrize("batch_size", [64, None])
def test_losses_fall(batch_size: int | None, x: np.ndarray) -> None:
    """In batches and with all samples at once, in the first round and under the fully grown tree."""
    settings = TINY | {"pretrain_epochs": 10, "epochs": 12, "batch_size": batch_size}
    for model, stage in (
        (HierarchicalVAE(4, **settings, rounds=1), "round 1"),
        (DeepHierarchical(4, **settings, n_leaves=6, compression_weight=0.3), "6 leaves"),
    ):
        records = [record for record in model.fit(x).history_ if record["stage"] == stage]
        assert len(records) == 12 and records[-1]["loss"] < records[0]["loss"]
