"""``graphclust graph``: the sample graph of a file, described and saved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphclust.cli._app import (
    Debug,
    File,
    Ignore,
    Key,
    Labels,
    Overwrite,
    Quiet,
    app,
    number_or_name,
    plain_messages,
    refuse_used_folder,
)


@app.command()
def graph(
    file: File,
    n_neighbors: Annotated[int, typer.Option("--n-neighbors", help="Neighbours of each sample.")] = 10,
    metric: Annotated[
        str, typer.Option("--metric", help="euclidean, cosine, inner_product, manhattan or minkowski.")
    ] = "euclidean",
    p: Annotated[float, typer.Option("--p", help="Exponent of the Minkowski distance.")] = 2.0,
    kernel: Annotated[
        str, typer.Option("--kernel", help="Weight of an edge: heat, binary or cosine.")
    ] = "heat",
    bandwidth: Annotated[
        str, typer.Option("--bandwidth", help="t of the heat kernel: a number, median or self-tuning.")
    ] = "self-tuning",
    symmetrize: Annotated[str, typer.Option("--symmetrize", help="none, union, mutual or mean.")] = "union",
    index: Annotated[
        str, typer.Option("--index", help="auto, exact or a FAISS index-factory string.")
    ] = "auto",
    recall: Annotated[
        float, typer.Option("--recall", help="Recall that an approximate search aims at.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="random_state of the search.")] = 0,
    key: Key = None,
    labels: Labels = None,
    ignore: Ignore = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to save the graph in.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build the sample graph of FILE and describe it."""
    with plain_messages(debug, quiet):
        from graphclust._files import read_features

        if out is not None:
            refuse_used_folder(out, overwrite)
        table = read_features(file, key=key, labels=labels, ignore=ignore or ())
        from graphclust.graph import SampleGraph

        started = time.perf_counter()
        built = SampleGraph.from_features(
            table.x,
            n_neighbors,
            metric=metric,
            p=p,
            kernel=kernel,
            bandwidth=number_or_name(bandwidth),
            symmetrize=symmetrize,
            index=index,
            recall=recall,
            random_state=seed,
            verbose=not quiet,
        )
        seconds = time.perf_counter() - started
        console = Console(quiet=quiet, highlight=False)
        console.print(str(built.summary(table.labels)), markup=False, soft_wrap=True)
        console.print(f"built in {seconds:.1f} s")
        if out is not None:
            built.save(out)
            console.print(f"{out} is written: SampleGraph.open({str(out)!r}) reads it back", soft_wrap=True)
