"""``graphclust compare``: methods side by side on one data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphclust.cli._app import (
    Clusters,
    Debug,
    Ignore,
    Key,
    Labels,
    Quiet,
    app,
    count_or_auto,
    parse_settings,
    plain_messages,
)


@app.command(context_settings={"allow_extra_args": True})
def compare(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Features (.npy, .npz, .csv, .tsv, .txt, .parquet), or a data set by name: digits, usps, cora, ...",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for tables and picture; a second call goes on in it.")
    ],
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            "-m",
            help="Names with spaces or commas between them. Without it: all methods.",
        ),
    ] = None,
    n_clusters: Clusters = "auto",
    seeds: Annotated[
        str, typer.Option("--seeds", help='How many, as 5 (0 to 4), or which, as "0,7,9" or "7,".')
    ] = "5",
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of all methods that have it; Method.NAME=VALUE of one. May be repeated.",
        ),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Seconds after which a run is ended.")
    ] = None,
    key: Key = None,
    labels: Labels = None,
    ignore: Ignore = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run several methods with several seeds on DATA; writes tables and a picture to a folder."""
    with plain_messages(debug, quiet):
        from graphclust.comparison import Comparison
        from graphclust.comparison.contenders import contenders
        from graphclust.comparison.data import read_data
        from graphclust.comparison.display import show

        # click gives an option one value; the names that follow the first one are left over.
        if context.args and not methods:
            raise ValueError(f"{' '.join(context.args)} is one thing too many: name methods with --methods")
        chosen = [*methods, *context.args] if methods else ["all"]
        settings = parse_settings(parameters or [])
        contenders(chosen, 2, settings)  # a wrong name shall not wait for the data
        comparison = Comparison(
            read_data(data, labels, key=key, ignore=tuple(ignore or ())),
            chosen,
            count_or_auto(n_clusters),
            _seeds(seeds),
            parameters=settings,
            time_limit=time_limit,
            out=out,
        )
        console = Console(quiet=quiet, highlight=False)
        show(comparison, console)
        comparison.write_tables()
        comparison.write_picture()
        written = [name for name in ("table.csv", "runs.csv", "comparison.png") if (out / name).exists()]
        console.print(f"{', '.join(written)} are written to {out}", soft_wrap=True, markup=False)
        if not (comparison.table()["runs"] > 0).any():
            raise typer.Exit(1)


def _seeds(text: str) -> int | list[int]:
    try:
        # The comma tells one seed, "7,", from so many seeds, "7".
        return [int(part) for part in text.removesuffix(",").split(",")] if "," in text else int(text)
    except ValueError:
        raise ValueError(
            f'--seeds is {text!r}, it must be how many, as 5, or which, as in "0,7,9", and "7," for one'
        ) from None
