"""From a folder of images to a report: the command as a user calls it, and images a second against a plain loop.

    GRAPHCLUST_DATA=<folder> python benchmarks/folder.py [--run leaves fashion speed]

`leaves`: 990 JPEGs of many sizes by the default features of photographs, 99 clusters. `fashion`: the last 10,000 images
of Fashion-MNIST as PNG files, by their pixels, 10 clusters. Both start without cached features. `speed`: the first 200
leaves through decoding and the network (once, and as by default at several depths with their mirror images), and the
10,000 PNG files through decoding, against a loop over files that decodes one image after the other (and passes it to
the same network). Writes benchmarks/results/folder.csv.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import in_child, read_table, show, write_table
from PIL import Image

import graphclust

N_PNG, N_LEAVES = 10_000, 200


def write_png(folder: str) -> None:
    """The last images of Fashion-MNIST as files."""
    images = graphclust.datasets.load("fashion_mnist").images[-N_PNG:]
    for number, image in enumerate((images * 255).round().astype(np.uint8)):
        Image.fromarray(image).save(Path(folder) / f"{number:05}.png")


def command(folder: str, n_clusters: int) -> dict[str, Any]:
    """`graphclust cluster`, start of Python and report included."""
    with tempfile.TemporaryDirectory() as scratch:
        out, cache = Path(scratch) / "result", Path(scratch) / "cache"
        words = [
            "cluster",
            folder,
            "-k",
            str(n_clusters),
            "--out",
            str(out),
            "--cache",
            str(cache),
            "--quiet",
        ]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "graphclust", *words], check=True)
        seconds = time.perf_counter() - started
        size = (out / "report.html").stat().st_size
    return {"seconds": round(seconds, 1), "report MiB": round(size / 2**20, 1)}


def ours(folder: str, n: int, features: str) -> dict[str, Any]:
    """`read_images`."""
    paths = _files(folder, n)
    graphclust.images.read_images(
        paths[:1], features, cache=None
    )  # imports, and the network's file in memory
    started = time.perf_counter()
    graphclust.images.read_images(paths, features, cache=None)
    return _rate(len(paths), started)


def plain(folder: str, n: int, features: str) -> dict[str, Any]:
    """One image after the other."""
    import torch

    from graphclust.images import fit
    from graphclust.images.encoders import EFFICIENTNET_LAYERS, make_encoder, mirrored

    paths = _files(folder, n)
    graphclust.images.read_images(paths[:1], features, cache=None)
    started = time.perf_counter()
    name = EFFICIENTNET_LAYERS if features == "auto" else features
    encoder = None if name == "pixels" else make_encoder(name, device=torch.device("cpu"))
    if encoder is not None and features == "auto":
        encoder = mirrored(encoder, "horizontal")
    for path in paths:
        with Image.open(path) as image:
            if encoder is None:
                np.asarray(image, dtype=np.float32).ravel() / 255
            else:
                encoder.encode(fit(image.convert("RGB"), encoder.size)[None])
    return _rate(len(paths), started)


def _files(folder: str, n: int) -> list[str]:
    return [str(path) for path in sorted(Path(folder).rglob("*")) if path.suffix in (".jpg", ".png")][:n]


def _rate(n: int, started: float) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 2), "images a second": round(n / seconds, 1)}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", nargs="*", default=["leaves", "fashion", "speed"])
    options = parser.parse_args()
    leaves = Path(os.environ["GRAPHCLUST_DATA"]) / "leaves"
    rows = read_table("folder")

    def add(what: str, images: int, function: str, **arguments: Any) -> None:
        rows[:] = [row for row in rows if row["what"] != what]
        rows.append({"what": what, "images": images} | in_child("folder", function, **arguments))
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        if {"fashion", "speed"} & set(options.run):
            write_png(folder)
        if "leaves" in options.run:
            add("990 leaves to report", 990, "command", folder=str(leaves), n_clusters=99)
        if "fashion" in options.run:
            add("10,000 PNG to report", N_PNG, "command", folder=folder, n_clusters=10)
        if "speed" in options.run:
            for function in ("ours", "plain"):
                for name, features in (("network", "efficientnet-lite0"), ("default", "auto")):
                    add(
                        f"leaves, {name}: {function}",
                        N_LEAVES,
                        function,
                        folder=str(leaves),
                        n=N_LEAVES,
                        features=features,
                    )
                add(f"PNG, pixels: {function}", N_PNG, function, folder=folder, n=N_PNG, features="pixels")
    show(rows, "from a folder")
    write_table("folder", rows, "from a folder of images to labels and report")


if __name__ == "__main__":
    main()
