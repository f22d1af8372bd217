"""Trees of merges: cut as scipy cuts them, written so that a reader of Newick gets them back, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, fcluster, is_valid_linkage, linkage
from scipy.spatial.distance import squareform
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from graphclust import report
from graphclust.methods.trees import Tree, cut_leaves, make_linkage
from graphclust.metrics import adjusted_rand


class Method(Tree, BaseEstimator):
    """The least that has a tree."""

    def fit(self, tree: Any, leaf_labels: Any) -> Method:
        self._set_tree(tree, leaf_labels)
        self.n_clusters_ = min(3, len(tree) + 1)
        return self


def chain(n_leaves: int) -> np.ndarray:
    """Every leaf joins what was merged before: as deep as a tree can be."""
    children = [[0, 1], *([n_leaves + i - 1, i + 1] for i in range(1, n_leaves - 1))]
    return make_linkage(children, np.arange(1.0, n_leaves))


@pytest.fixture(scope="module")
def method(digits: Any) -> Method:
    return Method().fit(linkage(digits[0][:200], "average"), np.arange(200))


def parse_newick(text: str) -> tuple[dict[str, int], np.ndarray]:
    """Names of the leaves with their numbers, and the distances between all leaves along the branches."""
    assert text.endswith(";")
    position, names = 0, []
    groups: list[list[tuple[float, dict[int, float]]]] = [
        []
    ]  # children of the open nodes: branch, depths of leaves
    apart: dict[tuple[int, int], float] = {}
    while text[position] != ";":
        char = text[position]
        if char == "(":
            groups.append([])
            position += 1
            continue
        if char == ",":
            position += 1
            continue
        if char == ")":
            position += 1
            depths: dict[int, float] = {}
            for _, leaves in groups.pop():
                for a, da in depths.items():
                    for b, db in leaves.items():
                        apart[min(a, b), max(a, b)] = da + db
                depths |= leaves
        else:
            if char == "'":
                end, name = position + 1, ""
                while text[end] != "'" or text[end + 1] == "'":
                    name += text[end]
                    end += 2 if text[end] == "'" else 1
                position = end + 1
            else:
                end = position
                while text[end] not in ":,();":
                    end += 1
                name, position = text[position:end], end
            depths = {len(names): 0.0}
            names.append(name)
        branch = 0.0
        if text[position] == ":":
            end = position + 1
            while text[end] not in ",();":
                end += 1
            branch, position = float(text[position + 1 : end]), end
            assert branch >= 0
        groups[-1].append((branch, {leaf: depth + branch for leaf, depth in depths.items()}))
    matrix = np.zeros((len(names), len(names)))
    for (a, b), distance in apart.items():
        matrix[a, b] = matrix[b, a] = distance
    return {name: leaf for leaf, name in enumerate(names)}, matrix


class TestCut:
    @pytest.mark.parametrize("n_clusters", [1, 2, 7, 50, 199, 200])
    def test_by_number_as_scipy(self, n_clusters: int, method: Method) -> None:
        labels = method.cut(n_clusters)
        assert labels.dtype == np.int64 and labels.max() + 1 == n_clusters
        assert adjusted_rand(fcluster(method.tree_, n_clusters, "maxclust"), labels) == 1.0

    def test_by_distance_as_scipy(self, method: Method) -> None:
        heights = method.tree_[:, 2]
        for distance in (0.0, heights[0], heights[100], (heights[150] + heights[151]) / 2, heights[-1], 1e9):
            expected = fcluster(method.tree_, distance, "distance")
            assert adjusted_rand(expected, method.cut(distance=distance)) == 1.0

    def test_more_clusters_lie_within_fewer(self, method: Method) -> None:
        for n in range(2, 30):
            fine, coarse = method.cut(n), method.cut(n - 1)
            assert all(len(set(coarse[fine == k])) == 1 for k in range(n))

    def test_equal_heights_are_cut_by_order(self) -> None:
        tied = Method().fit(make_linkage([[0, 1], [2, 3], [4, 5]], [1.0, 1.0, 1.0]), np.arange(4))
        assert tied.cut(3).tolist() == [0, 0, 1, 2]
        assert tied.cut(2).tolist() == [0, 0, 1, 1]
        assert tied.cut(distance=1.0).tolist() == [0, 0, 0, 0]

    def test_samples_follow_their_leaf_and_the_largest_cluster_is_0(self) -> None:
        tree = make_linkage([[0, 1], [2, 3]], [1.0, 2.0])
        parts = Method().fit(tree, [0, 1, 2, 2, 2])
        assert parts.cut(2).tolist() == [1, 1, 0, 0, 0]
        without_1 = Method().fit(tree, [0, 2, 2])
        assert without_1.cut(3).tolist() == [1, 0, 0]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "neither is given"),
            ({"n_clusters": 2, "distance": 1.0}, "both are given"),
            ({"n_clusters": 0}, "n_clusters=0 must be between 1 and 200; the tree has 200 leaves"),
            ({"n_clusters": 201}, "between 1 and 200"),
            ({"distance": -0.1}, "distance=-0.1 must be at least 0; the tree's heights go from 0 to "),
            ({"distance": float("nan")}, "distance=nan"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], message: str, method: Method) -> None:
        with pytest.raises(ValueError, match=message):
            method.cut(**arguments)

    def test_not_fitted(self) -> None:
        for call in (Method().cut, Method().to_newick):
            with pytest.raises(NotFittedError):
                call()


class TestLinkage:
    def test_heights_never_fall_and_the_order_stays(self) -> None:
        tree = make_linkage([[1, 0], [3, 2], [4, 5]], [2.0, 1.0, 3.0])
        assert is_valid_linkage(tree)
        assert tree.tolist() == [[0, 1, 2, 2], [2, 3, 2, 2], [4, 5, 3, 4]]

    @pytest.mark.parametrize(
        ("children", "heights", "message"),
        [
            ([[0, 1]], [1.0, 2.0], "1 merges and 2 heights"),
            ([[0, 1], [2, 4]], [1.0, 2.0], r"merge 1 joins \[2, 4\], but nodes 0 to 3"),
            ([[0, 1], [0, 2]], [1.0, 2.0], "merged twice"),
            ([[0, -1]], [1.0], "merge 0"),
            ([[0, 1]], [-1.0], "at least 0"),
            ([[0, 1]], [float("nan")], "finite"),
        ],
    )
    def test_what_is_no_tree(self, children: Any, heights: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make_linkage(children, heights)

    def test_leaves_that_are_not_there(self) -> None:
        with pytest.raises(ValueError, match="leaves 0 to 1"):
            Method().fit(make_linkage([[0, 1]], [1.0]), [0, 1, 2])


class TestNewick:
    def test_round_trip(self, method: Method) -> None:
        names, apart = parse_newick(method.to_newick())
        order = [names[str(leaf)] for leaf in range(200)]
        # Two leaves are as far apart as twice the height at which they meet.
        np.testing.assert_allclose(
            apart[np.ix_(order, order)], 2 * squareform(cophenet(method.tree_)), atol=1e-9
        )

    def test_names_are_quoted(self) -> None:
        given = ["plain", "two words", "it's", "(a,b):c;", "under_score", "", "[x]", "ö", "-1.5e+3"]
        text = Method().fit(chain(9), np.arange(9)).to_newick(names=given)
        assert set(parse_newick(text)[0]) == set(given)
        assert "'under_score'" in text and "'it''s'" in text and "(plain:" in text

    def test_file(self, method: Method, tmp_path: Path) -> None:
        path = tmp_path / "new" / "tree.nwk"
        text = method.to_newick(path)
        assert path.read_text(encoding="utf-8") == text + "\n"
        with pytest.raises(ValueError, match="line break"):
            method.to_newick(path, names=["a\nb"] * 200)
        assert [p.name for p in path.parent.iterdir()] == ["tree.nwk"]
        assert path.read_text(encoding="utf-8") == text + "\n"

    @pytest.mark.parametrize(("names", "message"), [(["a"], "1 entries"), ("a" * 200, "one str")])
    def test_wrong_number_of_names(self, names: Any, message: str, method: Method) -> None:
        with pytest.raises(ValueError, match=f"{message}, but the tree has 200 leaves"):
            method.to_newick(names=names)

    def test_one_leaf(self) -> None:
        one = Method().fit(make_linkage([], []), [0, 0])
        assert one.to_newick() == "0;"
        assert one.cut(1).tolist() == one.cut(distance=0).tolist() == [0, 0]


def test_ten_thousand_leaves_deep() -> None:
    """Deeper than Python recurses."""
    deep = Method().fit(chain(10_000), np.arange(10_000))
    text = deep.to_newick()
    assert text.count("(") == text.count(")") == 9_999
    assert np.bincount(deep.cut(3)).tolist() == [9_998, 1, 1]
    assert cut_leaves(deep.tree_, distance=1.5).max() == 9_998
    figure = report.dendrogram(deep, max_leaves=500)
    assert len(figure.axes[0].get_xticklabels()) == 500


class TestDendrogram:
    def test_of_an_estimator(self, method: Method) -> None:
        figure = report.dendrogram(method)
        assert fcluster(method.tree_, figure.axes[0].lines[0].get_ydata()[0], "distance").max() == 3
        names = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
        assert sum(int(name[1:-1]) if name.startswith("(") else 1 for name in names) == 200

    def test_counts_samples_not_leaves(self) -> None:
        parts = Method().fit(chain(4), np.repeat([0, 1, 2, 3], [5, 6, 7, 8]))
        for figure, counts in (
            (report.dendrogram(parts), [5, 6, 7, 8]),
            (report.dendrogram(parts, max_leaves=2), [8, 18]),
        ):
            names = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
            assert sorted(int(name[1:-1]) for name in names) == counts
        named = report.dendrogram(parts, labels=list("abcd"))
        assert sorted(tick.get_text() for tick in named.axes[0].get_xticklabels()) == list("abcd")

    def test_equal_heights_are_coloured_by_order(self) -> None:
        tied = Method().fit(make_linkage([[0, 1], [2, 3], [4, 5]], [1.0, 1.0, 1.0]), np.arange(4))
        segments = report.dendrogram(tied, n_clusters=2).axes[0].collections[0]
        assert (
            len({tuple(color) for color in segments.get_colors()}) == 3
        )  # two clusters, and the merge above

    def test_too_many_leaves(self, method: Method) -> None:
        with pytest.raises(ValueError, match="at most 500"):
            report.dendrogram(method, max_leaves=501)
