"""Commands on the result of a folder of images: ``search``, ``duplicates``, ``outliers``, ``export``, ``update``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from graphclust.cli._app import Debug, Overwrite, Quiet, app, plain_messages
from graphclust.cli._images import print_skipped, write_table

if TYPE_CHECKING:
    from pandas import DataFrame

Folder = Annotated[
    Path, typer.Argument(metavar="RESULT", help="Folder that `graphclust cluster` wrote from images.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="File for the table, .csv or .parquet; without it, it is printed."),
]


def _check_out(out: Path | None, overwrite: bool) -> None:
    from graphclust._files import table_format

    if out is not None:
        table_format(out)
        if out.exists() and not overwrite:
            raise ValueError(f"{out} exists: name another file, or give --overwrite")


@app.command()
def search(
    result: Folder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images to find the like of.")],
    k: Annotated[int, typer.Option("-k", help="Images to find for each, beside itself.")] = 10,
    out: Out = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the images of RESULT that are most like others, without these themselves; nothing is learnt or changed."""
    with plain_messages(debug, quiet):
        _check_out(out, overwrite)
        if k < 1:
            raise ValueError(f"-k is {k}, it must be at least 1")
        from graphclust.results import Result

        found = Result.open(result).search([str(image) for image in images], k + 1)
        write_table(_others(found, k), out, quiet=quiet)


def _others(found: DataFrame, k: int) -> DataFrame:
    """The first k hits of each query without the query itself, where it is an image of the result."""
    is_other = [
        os.path.realpath(path) != os.path.realpath(query)
        for path, query in zip(found["path"], found["query"], strict=True)
    ]
    others = found.loc[is_other]
    # A query that was named twice is searched for twice: its hits begin anew at rank 1.
    number = (found["rank"] == 1).cumsum()[others.index]
    others = others.assign(rank=others.groupby(number).cumcount() + 1)
    return others[others["rank"] <= k]


@app.command()
def duplicates(
    result: Folder,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Largest distance of two copies; by default a share of what is usual."
        ),
    ] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the near-duplicates of RESULT, group by group."""
    with plain_messages(debug, quiet):
        _check_out(out, overwrite)
        from graphclust.results import Result

        found = Result.open(result).duplicates(threshold)
        write_table(found, out, quiet=quiet)
        console = Console(stderr=True, quiet=quiet, highlight=False)
        console.print(f"{found['group'].nunique():,} groups of {len(found):,} images")


@app.command()
def outliers(
    result: Folder,
    n: Annotated[int, typer.Option("-n", help="Images to list.")] = 20,
    out: Out = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the images of RESULT that lie apart most, by the local outlier factor."""
    with plain_messages(debug, quiet):
        _check_out(out, overwrite)
        if n < 1:
            raise ValueError(f"-n is {n}, it must be at least 1")
        from graphclust.results import Result

        write_table(Result.open(result).outliers(n), out, quiet=quiet)


@app.command()
def export(
    result: Folder,
    copy: Annotated[Path | None, typer.Option("--copy", help="New folder for copies of the images.")] = None,
    symlink: Annotated[
        Path | None, typer.Option("--symlink", help="New folder for links to the images.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="File for the labels, .csv or .parquet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier table.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Put the images of RESULT into a folder for each cluster, or its labels into a table; nothing is moved."""
    with plain_messages(debug, quiet):
        if sum(given is not None for given in (copy, symlink, table)) != 1:
            raise ValueError("name one of --copy FOLDER, --symlink FOLDER, --table FILE")
        from graphclust.images import printable
        from graphclust.results import Result

        if table is not None:
            _check_out(table, overwrite)
            write_table(Result.open(result).labels, table, quiet=quiet)
            return
        out = copy or symlink
        assert out is not None
        written, missing = Result.open(result).export(out, "copy" if copy else "symlink")
        console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        for path in missing[:10]:
            console.print(f"not there any more: {printable(path)}", style="yellow", markup=False)
        gone = f", {len(missing):,} images are not there any more" if missing else ""
        console.print(f"{written:,} images in {out}{gone}", markup=False)


@app.command()
def update(
    result: Folder,
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="New images: a folder, a file or a tar shard.")
    ],
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Label new images and add them to RESULT; the model stays as it is. Images that are in it already are left out."""
    with plain_messages(debug, quiet):
        from graphclust.results import Result

        opened = Result.open(result)
        images = opened.read(str(source), verbose=not quiet)
        added = opened.add(images, source=str(source))
        console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        print_skipped(console, images)
        sizes = added["cluster"].value_counts().sort_index()
        for cluster, count in sizes.items():
            console.print(f"cluster {cluster}: {count:,} more")
        known = len(images) - len(added)
        before = f" ({known:,} were in it before)" if known else ""
        console.print(
            f"{len(added):,} images added{before}, {len(opened.labels):,} in {result}", markup=False
        )
