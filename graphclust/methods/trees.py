"""Trees of merges: what every hierarchical method has, from the merges to clusters and to other programs' files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import is_valid_linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.utils.validation import check_is_fitted

from graphclust._checks import check_count, check_number
from graphclust._files import replacing
from graphclust.methods.documented import Documented

#: Names that every reader of Newick takes as they are: it reads "_" as a blank, and the rest has a meaning.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9.+-]+")


def make_linkage(children: ArrayLike, heights: ArrayLike) -> NDArray[np.float64]:
    """A tree in scipy's format from its merges, in the order in which they happen.

    Under a constraint a merge may cost less than one before it, and such a tree could not be cut by height. So a merge
    is as high as the highest up to then; the order stays, and with it the clusters that each number of merges leaves.

    Parameters
    ----------
    children : array-like [P - 1, 2], int
        The two nodes of each merge: a leaf is 0 ... P - 1, the i-th merge makes node P + i.
    heights : array-like [P - 1]
        At least 0.

    Returns
    -------
    ndarray [P - 1, 4], float64
        The two nodes (the smaller first), the height, the number of leaves.

    Raises
    ------
    ValueError
        When a node is not there yet, is merged twice, or a height is negative or not finite.
    """
    pairs = np.asarray(children, dtype=np.int64).reshape(-1, 2)
    height = np.asarray(heights, dtype=np.float64).reshape(-1)
    if len(pairs) != len(height):
        raise ValueError(f"there are {len(pairs)} merges and {len(height)} heights; pass one height a merge")
    if not np.isfinite(height).all() or (height < 0).any():
        raise ValueError("heights must be finite and at least 0; shift or rescale them")
    n_leaves = len(pairs) + 1
    late = (pairs < 0).any(axis=1) | (pairs.max(axis=1, initial=0) >= n_leaves + np.arange(len(pairs)))
    if late.any():
        i = int(late.argmax())
        raise ValueError(
            f"merge {i} joins {pairs[i].tolist()}, but nodes 0 to {n_leaves + i - 1} are there by then"
        )
    if len(np.unique(pairs)) < pairs.size:
        raise ValueError("a node is merged twice; every node but the root has one parent")
    size = [1] * n_leaves
    for first, second in pairs.tolist():
        size.append(size[first] + size[second])
    return np.column_stack([np.sort(pairs, axis=1), np.maximum.accumulate(height), size[n_leaves:]])


def cut_leaves(
    tree: NDArray[np.float64], n_clusters: int | None = None, distance: float | None = None
) -> NDArray[np.int64]:
    """Cluster of each leaf [P], 0 ... K - 1 by the first leaf of each, when the tree is cut; see `Tree.cut`."""
    n_leaves = len(tree) + 1
    if (n_clusters is None) == (distance is None):
        given = "neither is" if n_clusters is None else "both are"
        raise ValueError(f"a tree is cut by n_clusters or by distance, and {given} given; pass one of them")
    if n_clusters is not None:
        remedy = f"the tree has {n_leaves} leaves; where they are not samples, more clusters in fit give more leaves"
        if n_leaves == 1:
            remedy = "the tree is one leaf, as samples that are all equal make it: look at the features"
        done = n_leaves - check_count(n_clusters, "n_clusters", maximum=n_leaves, remedy=remedy)
    else:
        top = float(tree[-1, 2]) if len(tree) else 0.0
        least = check_number(distance, "distance", 0.0, remedy=f"the tree's heights go from 0 to {top:g}")
        done = int(np.searchsorted(tree[:, 2], least, side="right"))
    # Each merge is joined to its two nodes; what hangs together after the first `done` of them is a cluster.
    merge = np.repeat(n_leaves + np.arange(done), 2)
    node = tree[:done, :2].astype(np.int64).ravel()
    n_nodes = n_leaves + done
    joined = coo_array((np.ones(len(merge), dtype=np.int8), (merge, node)), shape=(n_nodes, n_nodes))
    found = connected_components(joined, directed=False)[1][:n_leaves]
    _, first, label = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[label].astype(np.int64)


def newick(tree: NDArray[np.float64], names: Sequence[str]) -> str:
    """A tree in Newick's format, one line; see `Tree.to_newick`."""
    n_leaves = len(tree) + 1
    quoted = [_quote(name, i) for i, name in enumerate(names)]
    height = np.concatenate([np.zeros(n_leaves), tree[:, 2]]).tolist()
    children = tree[:, :2].astype(np.int64).tolist()
    written: list[str] = []
    # What is still to be written, the next one last: text, or a node with its branch. No recursion: a chain of merges
    # is as deep as it has leaves.
    waiting: list[str | tuple[int, str]] = [";", (2 * n_leaves - 2, "")]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            written.append(item)
            continue
        node, branch = item
        if node < n_leaves:
            written.append(quoted[node] + branch)
            continue
        first, second = children[node - n_leaves]
        top = height[node]
        written.append("(")
        waiting += [
            ")" + branch,
            (second, f":{top - height[second]!r}"),
            ",",
            (first, f":{top - height[first]!r}"),
        ]
    return "".join(written)


def _quote(name: Any, position: int) -> str:
    text = str(name)
    if _PLAIN_NAME.fullmatch(text):
        return text
    if not text.isprintable():
        raise ValueError(
            f"names[{position}]={text!r} holds a line break or another character that Newick cannot write; rename it"
        )
    return "'" + text.replace("'", "''") + "'"


class Tree(Documented):
    """Mixin of the methods with a tree: cut it anywhere, export it, draw it by `graphclust.report.dendrogram`.

    Attributes
    ----------
    tree_ : ndarray [P - 1, 4], float64
        Merges of the P leaves in scipy's format (``scipy.cluster.hierarchy``), heights never falling: two nodes, the
        height, the number of leaves.
    leaf_labels_ : ndarray [N], int64
        Leaf of each sample, 0 ... P - 1; 0 ... N - 1 where every sample is a leaf.
    """

    if TYPE_CHECKING:
        tree_: NDArray[np.float64]
        leaf_labels_: NDArray[np.int64]

    def _set_tree(self, tree: NDArray[np.float64], leaf_labels: ArrayLike) -> None:
        """Keep the tree [P - 1, 4] (`make_linkage`) and the leaf of each sample [N]; ValueError where they are none."""
        if len(tree):
            is_valid_linkage(tree, throw=True, name="tree")
        leaf = np.asarray(leaf_labels, dtype=np.int64)
        if leaf.ndim != 1 or not len(leaf) or leaf.min() < 0 or leaf.max() > len(tree):
            raise ValueError(f"leaf_labels must be [N] and name the leaves 0 to {len(tree)} of the tree")
        self.tree_, self.leaf_labels_ = np.ascontiguousarray(tree, dtype=np.float64), leaf

    def cut(self, n_clusters: int | None = None, distance: float | None = None) -> NDArray[np.int64]:
        """Clusters of the training samples when the tree is cut.

        Parameters
        ----------
        n_clusters : int, optional
            Cut where this many clusters are left, 1 to P. Those of n lie within those of n - 1.
        distance : float, optional
            Or undo all merges above this height, at least 0.

        Returns
        -------
        ndarray [N], int64
            The largest cluster is 0; of equal ones that with the earlier leaf comes first. A leaf without samples,
            where a method has such, is counted by `n_clusters` and seen in no label.

        Raises
        ------
        ValueError, TypeError
            When not exactly one of the two is given, or it is out of bounds.
        """
        check_is_fitted(self, "tree_")
        return self._cut_leaves(n_clusters, distance)[self.leaf_labels_]

    def _cut_leaves(self, n_clusters: int | None = None, distance: float | None = None) -> NDArray[np.int64]:
        """Cluster of each leaf [P], numbered as in `cut`."""
        cluster = cut_leaves(self.tree_, n_clusters, distance)
        size = np.bincount(cluster[self.leaf_labels_], minlength=int(cluster.max()) + 1)
        return np.argsort(np.argsort(-size, kind="stable"))[cluster]

    def to_newick(
        self, path: str | os.PathLike[str] | None = None, names: Sequence[str] | None = None
    ) -> str:
        """The tree in Newick's format, which programs for phylogenies and R's ``ape`` read.

        A branch is as long as its two ends differ in height; leaves have height 0. A name is put in quotes wherever a
        reader would take a character of it for something else.

        Parameters
        ----------
        path : path, optional
            A file to write to as well (UTF-8); it is complete before it takes the place of an older one.
        names : sequence of P str, optional
            Names of the leaves; by default their numbers.

        Returns
        -------
        str
            One line, which ends in ";".

        Raises
        ------
        ValueError
            When the number of names is not that of the leaves, or a name holds a line break.

        Examples
        --------
        >>> from graphclust import Agglomerative
        >>> model = Agglomerative(2, linkage="average", constrained=False).fit([[0.0], [1.0], [3.0]])
        >>> model.to_newick(names=["ash", "white oak", "fir"])
        "(fir:2.5,(ash:1.0,'white oak':1.0):1.5);"
        """
        check_is_fitted(self, "tree_")
        n_leaves = len(self.tree_) + 1
        if names is None:
            names = [str(leaf) for leaf in range(n_leaves)]
        if isinstance(names, str) or len(names) != n_leaves:
            count = "one str" if isinstance(names, str) else f"{len(names)} entries"
            raise ValueError(f"names has {count}, but the tree has {n_leaves} leaves; pass one name a leaf")
        text = newick(self.tree_, names)
        if path is not None:
            with replacing(Path(path)) as partial:
                partial.write_text(text + "\n", encoding="utf-8")
        return text
