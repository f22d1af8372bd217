"""What users hand to `fit` and `predict`, as features [N, d]; images are rows of H * W * C features."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch_geometric.data import Data

from graphclust._checks import WITHOUT_FEATURES, check_count, check_edges_are_read, check_features
from graphclust.graph import SampleGraph
from graphclust.graph.counting import estimate_n_clusters
from graphclust.graph.form import in_form
from graphclust.graph.sample_graph import on_cpu
from graphclust.methods.image_arrays import as_rows, check_images, in_range, value_range

#: How many times the usual distance from the middle is too far: a digit more, and clusters of iris are lost by one row.
_FAR = 1000
#: Share of the samples that may be so.
_MOST_FAR = 0.05
#: Values up to which far samples are looked for.
_MOST_LOOKED_AT = 10**8
#: Values that are converted at once, so that features stay in their file.
_BLOCK = 1 << 18

Input: TypeAlias = ArrayLike | Tensor | Data


def check_n_clusters(n_clusters: Any) -> None:
    """Raise ValueError or TypeError unless `n_clusters` is an integer of at least 1, or "auto"."""
    if isinstance(n_clusters, str):
        if n_clusters != "auto":
            raise ValueError(
                f'n_clusters={n_clusters!r} must be a number of at least 1, or "auto" to estimate it'
            )
    else:
        check_count(n_clusters, "n_clusters")


def choose_n_clusters(n_clusters: int | str, data: Any, seed: int = 0) -> int:
    """K as it is used for features [N, d] or a graph: given, or estimated from the sample graph for "auto"."""
    if isinstance(n_clusters, str):
        has_edges = isinstance(data, Data) and data.edge_index is not None and data.edge_index.numel() > 0
        features = data.x if isinstance(data, Data) else data
        return estimate_n_clusters(data if has_edges else features, random_state=seed)
    check_enough_samples(n_clusters, data.x.shape[0] if isinstance(data, Data) else len(data))
    return int(n_clusters)


def given_graph(X: Any, *, symmetrize: str = "union") -> SampleGraph | None:
    """The graph that X is or holds, on the CPU; None for features and for a PyG Data without edges.

    A `SampleGraph` is taken as it is where its edges are in the form that it keeps them in, which a PyG transform may
    have changed (`graphclust.graph.form.in_form`).
    """
    if not isinstance(X, Data):
        return None
    check_fields(X)
    if isinstance(X, SampleGraph) and X.edge_index is not None:
        if "normalized" in X.construction:
            raise ValueError(
                "X is a normalised graph, and methods normalise by themselves; pass the graph it came from"
            )
        return in_form(on_cpu(X))
    check_edges_are_read(X)
    if X.edge_index is None or X.edge_index.numel() == 0:
        return None
    return SampleGraph.from_data(on_cpu(X), symmetrize=symmetrize)


def check_enough_samples(n_clusters: int | str | None, n_samples: int) -> None:
    """Raise ValueError where there are fewer samples than clusters; K that is found fits any number."""
    if n_clusters is not None and not isinstance(n_clusters, str) and n_clusters > n_samples:
        raise ValueError(
            f"n_samples={n_samples} is smaller than n_clusters={n_clusters}: ask for fewer clusters"
        )


def warn_of_one_cluster(x: Tensor, X: Any) -> None:
    """Said where K was estimated as 1: whatever a method then learns, all samples have the same label.

    Of equal samples `warn_of_equal_samples` says all that there is to say.
    """
    if _are_equal(x, X):
        return
    warnings.warn(
        f"all {len(x):,} samples are in one cluster: no border between groups is clear enough to be told from "
        "chance, as often where samples are few; give n_clusters if you know it",
        stacklevel=3,
    )


def warn_of_equal_samples(x: Tensor, X: Any) -> None:
    """Said of features [N, d] that are all the same, unless X is a graph, whose edges may tell clusters."""
    if not _are_equal(x, X):
        return
    warnings.warn(
        f"all {len(x):,} samples of X are equal: whatever the labels say, there are no clusters", stacklevel=3
    )


def _are_equal(x: Tensor, X: Any) -> bool:
    blocks = x.split(max(1, _BLOCK // x.shape[1]))
    return not isinstance(X, Data) and not any(bool((block != x[0]).any()) for block in blocks)


def warn_of_empty_clusters(labels: NDArray[np.int64], n_clusters: int, why: str) -> None:
    """Said where fewer clusters hold samples than were asked for; `why` that can be."""
    found = len(np.unique(labels))
    if found < n_clusters:
        warnings.warn(f"{n_clusters} clusters were asked for and {found} hold samples: {why}", stacklevel=3)


def read_features(estimator: Any, X: Input, *, reset: bool) -> Tensor:
    """Features [N, d] of an array, memory map, tensor or PyG Data, on the CPU.

    Parameters
    ----------
    estimator : BaseEstimator
        Number and names of its features, and the shape of its images (`image_shape_`), are set when `reset`, and
        checked otherwise.
    X : array, memory map or tensor [N, d], [N, H, W], [N, H, W, C] or [N, C, H, W], or PyG Data with x
        Images become rows of H * W * C features, channels last.
    reset : bool
        Whether this is `fit`.
    """
    least = 2 if reset else 1
    if isinstance(X, (str, os.PathLike)):
        raise TypeError(
            f"X is the path {os.fspath(X)!r}, and a method takes features: images are read by "
            "graphclust.images.read_images(path, ...).x, files of features by numpy.load or pandas; graphclust.cluster "
            "takes paths, and so does graphclust.results.Result.predict"
        )
    X = as_frame(X)
    if type(X).__module__.startswith("PIL.") and not reset:
        X = np.asarray(X)[None]  # one image
    if isinstance(X, (list, tuple)):
        _check_list(X)
    is_networkx = hasattr(X, "adj") and not isinstance(X, Data) and not hasattr(X, "__array__")
    is_mapping = isinstance(X, dict) and not issparse(X)  # one of SciPy's sparse formats is a dict
    if X is None or is_networkx or is_mapping or isinstance(X, (int, float)):
        raise TypeError(
            f"X is a {type(X).__name__}: pass features [N, d] as an array or a data frame, images [N, H, W] or "
            "[N, H, W, C], or a graph with features: a PyG Data (of a networkx graph "
            "torch_geometric.utils.from_networkx)"
        )
    if isinstance(X, Data):
        check_fields(X)
        if X.x is None:
            raise ValueError("X has no x; set X.x to the features [N, d], " + WITHOUT_FEATURES)
        check_edges_are_read(X)
        if reset:
            # Names of columns that an earlier fit saw do not belong to this one.
            estimator.__dict__.pop("feature_names_in_", None)
            estimator.image_shape_ = estimator.image_range_ = None
            _warn_of_unread_edges(estimator, X)
        known = None if reset else estimator.n_features_in_
        x = check_features(X.x, "X.x", min_samples=least, n_features=known).cpu()
        if reset:
            check_enough_samples(estimator.n_clusters, len(x))
            _warn_of_far_samples(x, "X.x")
        return x
    if isinstance(X, Tensor):
        X = X.detach().cpu()
        X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    X, image_shape = as_rows(_checked_columns(X))
    _check_matrix(X)
    if isinstance(X, np.ndarray) and X.dtype.kind in "SU":
        raise TypeError(
            f"X holds text, such as {str(X.flat[0])!r}, and samples are numbers: encode categories "
            "(sklearn.preprocessing), read image files by graphclust.images.read_images"
        )
    if reset:
        estimator.image_shape_ = image_shape
        estimator.image_range_ = None if image_shape is None else value_range(X)
    else:
        if image_shape is not None:
            check_images(X, image_shape, estimator)
        if isinstance(X, np.ndarray) and getattr(estimator, "image_range_", None) is not None:
            X = in_range(X, estimator)
    # NaN and infinity are looked for once, below, with a message that says where they are.
    array = validate_data(
        estimator, X, reset=reset, dtype="numeric", ensure_min_samples=least, ensure_all_finite=False
    )
    x = check_features(array, "X", min_samples=least)
    if reset:
        check_enough_samples(estimator.n_clusters, len(x))
        _warn_of_far_samples(x, "X")
    return x


def as_frame(X: Any) -> Any:
    """A table of pyarrow as a data frame, with its columns' names; what else X is, as it is."""
    return X.to_pandas() if type(X).__module__.partition(".")[0] == "pyarrow" else X


def _warn_of_far_samples(x: Tensor, name: str) -> None:
    """Warn of samples so far from all others that no scaling leaves differences between these.

    A single row of codes for missing values (999999) takes the mean and the variance along: clusters of the others are
    lost, by every method that scales. Distances are those from the columns' medians, compared with their own median.
    """
    if x.dtype == torch.uint8 or x.numel() > _MOST_LOOKED_AT:
        return
    some = x[torch.linspace(0, len(x) - 1, min(len(x), 500)).long().to(x.device)].double()
    middle = some.median(dim=0).values
    usual = float((some - middle).norm(dim=1).median())
    if usual == 0:
        return
    blocks = x.split(max(1, _BLOCK // x.shape[1]))
    distance = torch.cat([(block.double() - middle).norm(dim=1) for block in blocks])
    far = int((distance > _FAR * usual).sum())
    # More are no wrong values: the others are nearly equal, as where a column is mostly zero.
    if 0 < far <= _MOST_FAR * len(x):
        warnings.warn(
            f"{name}: row {int(distance.argmax())} lies {float(distance.max()):.3g} from the columns' medians, and "
            f"half of the samples within {usual:.3g} ({far} of {len(x)} lie over {_FAR:,} times as far): beside it the "
            "others can hardly be told apart. Correct a wrong value or a code for a missing one (-9999), drop the row, "
            "or take logarithms of columns with long tails",
            stacklevel=4,
        )


def check_fields(data: Data) -> None:
    """Raise TypeError for a PyG Data whose features or edges are no tensors."""
    for name in ("x", "edge_index", "edge_weight"):
        value = data.get(name)
        if value is not None and not isinstance(value, Tensor) and not hasattr(value, "sparse_sizes"):
            raise TypeError(
                f"X.{name} is a {type(value).__name__}, and a PyG Data holds tensors: "
                f"X.{name} = torch.as_tensor(X.{name})"
            )


def _check_list(X: Sequence[Any]) -> None:
    """Raise TypeError for lists of what is no sample: paths, graphs, features beside edges."""
    if any(isinstance(item, (str, os.PathLike)) for item in X):
        raise TypeError(
            "X is a list with paths, and a method takes features: images are read by "
            "graphclust.images.read_images(X, ...).x; graphclust.cluster takes lists of paths"
        )
    if any(isinstance(item, Data) for item in X):
        raise TypeError(
            f"X is a list of {len(X)} graphs: pass one PyG Data; several are one by "
            "torch_geometric.data.Batch.from_data_list(X)"
        )
    check_pair(X)


def check_pair(X: Sequence[Any]) -> None:
    """Raise TypeError for a pair of features [N, d] and edges [2, E]."""
    shapes = [tuple(getattr(item, "shape", ())) for item in X[:3]]
    if len(shapes) == 2 and all(len(shape) == 2 for shape in shapes) and shapes[1][0] == 2 != shapes[0][0]:
        raise TypeError(
            f"X is a pair of arrays of shapes {list(shapes[0])} and {list(shapes[1])}: features and edges [2, E] make "
            "one graph, torch_geometric.data.Data(x=..., edge_index=...)"
        )


def _check_matrix(X: Any) -> None:
    """ValueError for one row or column of numbers, and for complex ones, which scikit-learn would print whole."""
    if getattr(X, "ndim", None) == 1 and _holds_vectors(X):
        raise ValueError(
            f"X is a {type(X).__name__} with one vector a row: pass them as a matrix, np.stack(X)"
        )
    if getattr(X, "ndim", None) == 1:
        raise ValueError(
            f"X has shape [{len(X)}], but samples are rows [N, d]. Reshape your data: X.reshape(-1, 1) has one "
            "feature, X.reshape(1, -1) is one sample (of a pandas Series, X.to_frame())"
        )
    if getattr(getattr(X, "dtype", None), "kind", "") == "c":
        raise ValueError(
            "Complex data not supported: samples are real numbers; pass parts or magnitudes (X.real, X.imag, np.abs(X))"
        )


def _checked_columns(X: Any) -> Any:
    """X, a data frame without its sparse columns; TypeError for columns that are not numbers or for masked values."""
    if isinstance(X, np.ma.MaskedArray) and np.ma.getmaskarray(X).any():
        raise ValueError(
            "X is a masked array, and its masked values would be read: fill them first (X.filled(0))"
        )
    if not (hasattr(X, "dtypes") and hasattr(X, "columns") and hasattr(X, "iloc")):
        return X
    wrong = [
        name
        for position, name in enumerate(X.columns)
        if (kind := getattr(X.dtypes.iloc[position], "kind", "O")) in "Mm"
        or (kind in "OSUT" and not _holds_numbers(X.iloc[:, position]))
    ]
    repeated = [name for name, count in Counter(X.columns).items() if count > 1]
    if repeated:
        raise ValueError(
            f"X has {Counter(X.columns)[repeated[0]]} columns named {repeated[0]!r}: give each a name of its own, or "
            "pass X.to_numpy()"
        )
    vectors = [name for name in wrong if _holds_vectors(X[name])]
    if vectors:
        raise TypeError(
            f"X has a column with one vector a row, {vectors[0]!r}: pass these as a matrix, np.stack(X[{vectors[0]!r}])"
        )
    if wrong:
        shown = ", ".join(repr(name) for name in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        raise TypeError(
            f"X has columns that are not numbers: {shown}; drop them (X.drop(columns=...)) or encode them "
            "(sklearn.preprocessing)"
        )
    sparse = {name: kind.subtype for name, kind in X.dtypes.items() if hasattr(kind, "fill_value")}
    return X.astype(sparse) if sparse else X


def _holds_vectors(column: Any) -> bool:
    """Whether an array or column of objects holds rows of numbers."""
    return len(column) > 0 and all(np.ndim(row) == 1 for row in islice(column, 10))


def _holds_numbers(column: Any) -> bool:
    try:
        column.to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return True


def _warn_of_unread_edges(estimator: Any, data: Data) -> None:
    """Said of edges that were given to a method that reads features alone; of nearest neighbours nothing is lost."""
    built = isinstance(data, SampleGraph) and data.joins_neighbors
    given = data.edge_index is not None and data.edge_index.numel() > 0
    if given and not built and not getattr(estimator, "uses_graph", False):
        warnings.warn(
            f"{type(estimator).__name__} reads no edges, and those of X change nothing: take a method with a graph "
            "(GraphContrastClustering, GAE, ...) or pass X.x",
            stacklevel=5,
        )
