"""``graphclust predict``: labels of new samples by a fitted model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from graphclust.cli._app import Debug, Ignore, Key, Labels, Overwrite, Quiet, Source, app, plain_messages
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
            refuse_table_options(labels=labels, ignore=ignore, probabilities=probabilities)
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
        table = read_features(file, key=key, labels=labels, ignore=ignore or ())
        started = time.perf_counter()
        proba = estimator.predict_proba(table.x) if hasattr(estimator, "predict_proba") else None
        if proba is None and probabilities:
            raise ValueError(
                f"{type(estimator).__name__} gives labels and no probabilities: leave out --probabilities"
            )
        found = np.asarray(estimator.predict(table.x) if proba is None else proba.argmax(axis=1)).reshape(-1)
        seconds = time.perf_counter() - started
        # Labels may go to standard output, so the summary goes to the other stream.
        console = Console(stderr=True, quiet=quiet, highlight=False)
        if out is not None:
            write_labels(out, found, proba, every=probabilities)
        else:
            _print_labels(found, proba, every=probabilities)
        print_summary(console, file, table, found, seconds)
        if out is not None:
            console.print(f"{out} is written", soft_wrap=True)


def _print_labels(labels: np.ndarray, proba: np.ndarray | None, *, every: bool) -> None:
    from graphclust._files import check_all_probabilities

    if proba is None:
        typer.echo("index,cluster")
        for row, label in enumerate(labels):
            typer.echo(f"{row},{label}")
        return
    if every:
        check_all_probabilities(proba)
    names = ["index", "cluster", "probability", *(f"p_{c}" for c in range(proba.shape[1]) if every)]
    typer.echo(",".join(names))
    for row, label in enumerate(labels):
        values = [proba[row, label], *(proba[row] if every else ())]
        typer.echo(f"{row},{label}," + ",".join(f"{value:.6g}" for value in values))
