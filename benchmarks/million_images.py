"""A million images from pixels to labels: `graphclust.cluster` on Fashion-MNIST grown by small shifts and rotations.

    GRAPHCLUST_DATA=<folder> python benchmarks/million_images.py [--samples 70000 1000000] [--folder DIR] [--new 100000]

70,000 samples are the originals; more are `million_data.grown_images` of them (seed 0), made once and read from a
memory map of uint8. Labels of the copies are those of their originals. Each size is a process of its own: seconds
without imports and scores, processor seconds of all threads, largest resident memory with both, pages of the memory map
included; the stages are clock seconds, `network s` and `graph s` of all images, at the end. Then the fitted model is
saved, opened again, and labels other changed copies (seed 1), of which the same numbers are taken. Writes
benchmarks/results/million_images.csv.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from common import in_child, show, write_table
from million_data import grown_images

SCORES = ("ACC", "NMI", "ARI")


def make(folder: str | Path, samples: int, seed: int = 0) -> str:
    """The file of `samples` images, made where it is not there; its path."""
    import graphclust

    path = Path(folder) / f"fashion_{samples}_{seed}.npy"
    images = np.rint(255 * graphclust.datasets.load("fashion_mnist").images).astype(np.uint8)
    grown_images(path, images, samples, seed)
    return str(path)


def _timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    wall, used = time.perf_counter(), time.process_time()
    value = call()
    spent = {"seconds": time.perf_counter() - wall, "cpu s": time.process_time() - used}
    return value, {key: round(number, 1) for key, number in spent.items()}


def _scores(labels: np.ndarray) -> dict[str, float]:
    import graphclust
    from graphclust.metrics import evaluate

    y = graphclust.datasets.load("fashion_mnist").y
    found = evaluate(y[np.arange(len(labels)) % len(y)], labels)
    return {name: round(100 * found[name], 2) for name in SCORES}


@contextmanager
def _stages() -> Iterator[dict[str, float]]:
    """Seconds that the stages of a fit take; the latest, where there are several of a kind."""
    from graphclust import LearnedGraphClustering

    names = {
        "_sample_graph": "pixel graph s",
        "_start_parts": "parts s",
        "_merged": "consensus s",
        "_learned_graph": "graph s",
        "_read_samples": "network s",
    }
    spent: dict[str, float] = {}

    def wrap(method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            value = method(*args, **options)
            spent[name] = round(time.perf_counter() - started, 1)
            print(name, spent[name], file=sys.stderr, flush=True)
            return value

        return timed

    with ExitStack() as stack:
        for method, name in names.items():
            own = getattr(LearnedGraphClustering, method)
            stack.enter_context(patch.object(LearnedGraphClustering, method, wrap(own, name)))
        yield spent


def fit(path: str, model: str, seed: int = 0) -> dict[str, Any]:
    """From the memory map to labels; the model is saved to the folder `model`."""
    import graphclust

    x = np.load(path, mmap_mode="r")
    with _stages() as stages:
        estimator, spent = _timed(lambda: graphclust.cluster(x, 10, random_state=seed))
    history = estimator.history_
    more = {
        "rounds": len({record["stage"] for record in history} - {"parts"}),
        "training s": round(sum(record["seconds"] for record in history), 1),
    }
    recall = {"recall": round(float(estimator.graph_.construction["estimated_recall"]), 3)}
    # The first 70,000 are the originals: what they get beside the copies, and what they get alone.
    scores = _scores(estimator.labels_) | {"ACC originals": _scores(estimator.labels_[:70_000])["ACC"]}
    print(scores, spent, more, recall, file=sys.stderr, flush=True)
    _, saving = _timed(lambda: estimator.save(model))
    return scores | spent | more | stages | recall | {"save s": saving["seconds"]}


def predict(path: str, model: str, out: str) -> dict[str, Any]:
    """Labels of new images by the saved model, written as they come."""
    import graphclust

    x = np.load(path, mmap_mode="r")
    estimator, loading = _timed(lambda: graphclust.load(model))
    labels, spent = _timed(lambda: estimator.predict(x, out=out))
    return _scores(labels) | spent | {"load s": loading["seconds"]}


def main() -> None:
    """Fit each size, and label new images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", nargs="*", type=int, default=[70_000, 1_000_000])
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the data are made")
    parser.add_argument("--new", type=int, default=100_000, help="new images to label; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    note = "Fashion-MNIST and grown copies (million_data.grown_images, seed 0): graphclust.cluster, K given"
    for samples in options.samples:
        path = make(options.folder, samples)
        model, out = (str(Path(options.folder) / f"fashion_{samples}_{name}") for name in ("model", "labels"))
        row = in_child("million_images", "fit", path=path, model=model, seed=options.seed)
        rows.append({"samples": samples, "what": "fit"} | row)
        print(rows[-1], flush=True)
        if options.new:
            new = make(options.folder, options.new, 1)
            row = in_child("million_images", "predict", path=new, model=model, out=out)
            rows.append({"samples": options.new, "what": f"predict, after {samples}"} | row)
            print(rows[-1], flush=True)
        for folder in (model, out):
            shutil.rmtree(folder, ignore_errors=True)
        write_table("million_images", rows, note)
    show(rows, note)


if __name__ == "__main__":
    main()
