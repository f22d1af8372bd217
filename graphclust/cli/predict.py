"""``graphclust predict``: labels of new samples by a fitted model."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from graphclust.cli._app import (
    Debug,
    Ignore,
    Key,
    Labels,
    Names,
    Overwrite,
    Quiet,
    Source,
    app,
    plain_messages,
)
from graphclust.cli._images import predict_images, refuse_table_options
from graphclust.cli._summary import print_summary

if TYPE_CHECKING:
    import numpy as np


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `graphclust cluster` wrote.")],
    file: Source,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="File for the labels, .csv or .parquet; without it they are printed."
        ),
    ] = None,
    key: Key = None,
    labels: Labels = None,
    ignore: Ignore = None,
    names: Names = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write all K probabilities of each sample.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Label new samples with a fitted model."""
    with plain_messages(debug, quiet):
        from graphclust._files import read_features, table_format, write_labels

        if out is not None:
            table_format(out)
            if out.exists() and not overwrite:
                raise ValueError(f"{out} exists: name another file with --out, or give --overwrite")
        if key is None and (model / "images.json").is_file():
            refuse_table_options(labels=labels, ignore=ignore, names=names, probabilities=probabilities)
            predict_images(model, file, out, quiet=quiet)
            return
        folder = model / "model" if (model / "model").is_dir() else model
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{model} is not a folder: give the folder that `graphclust cluster` wrote (--out)"
            )
        import numpy as np

        import graphclust

        estimator = graphclust.load(folder)
        columns = getattr(estimator, "feature_names_in_", None)
        table = read_features(file, key=key, labels=labels, ignore=ignore or (), names=names, columns=columns)
        x: Any = table.x
        if columns is not None and len(columns) == x.shape[1]:  # of a file without a header: by their places
            x = replace(table, image_shape=None, columns=list(columns)).data()
        started = time.perf_counter()
        proba = estimator.predict_proba(x) if hasattr(estimator, "predict_proba") else None
        if proba is None and probabilities:
            raise ValueError(
                f"{type(estimator).__name__} gives labels and no probabilities: leave out --probabilities"
            )
        found = np.asarray(estimator.predict(x) if proba is None else proba.argmax(axis=1)).reshape(-1)
        seconds = time.perf_counter() - started
        # Labels may go to standard output, so the summary goes to the other stream.
        console = Console(stderr=True, quiet=quiet, highlight=False)
        if out is not None:
            write_labels(out, found, proba, every=probabilities, names=table.names)
        else:
            _print_labels(found, proba, every=probabilities, names=table.names)
        print_summary(console, file, table, found, seconds)
        if out is not None:
            console.print(f"{out} is written", soft_wrap=True)


def _print_labels(
    labels: np.ndarray, proba: np.ndarray | None, *, every: bool, names: np.ndarray | None = None
) -> None:
    import csv
    import sys

    from graphclust._files import check_all_probabilities
    from graphclust.images import printable

    if proba is not None and every:
        check_all_probabilities(proba)
    write = csv.writer(sys.stdout, lineterminator="\n").writerow
    header = ["index", *(["name"] if names is not None else []), "cluster"]
    if proba is not None:
        header += ["probability", *(f"p_{c}" for c in range(proba.shape[1]) if every)]
    write(header)
    for row, label in enumerate(labels):
        known = [] if proba is None else [proba[row, label], *(proba[row] if every else ())]
        name = [] if names is None else [printable(str(names[row]))]
        write([row, *name, label, *(f"{value:.6g}" for value in known)])
