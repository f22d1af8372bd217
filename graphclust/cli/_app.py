"""The application, and what its commands share: options, plain error messages, values on the command line."""

from __future__ import annotations

import ast
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    name="graphclust",
    help="Cluster feature vectors and images over an explicit sample graph.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_EXPECTED_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError, ArithmeticError)

# Options that several commands share.
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="Features: .npy, .npz, .csv, .tsv, .txt or .parquet.")
]
Source = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Features (.npy, .npz, .csv, .tsv, .txt or .parquet), or images: a folder, a file, a tar shard.",
    ),
]
Key = Annotated[
    str | None, typer.Option("--key", help="Array of the .npz, or column of the table with one vector a row.")
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="Column, array or .npy file with the true classes; used for scores alone."),
]
Ignore = Annotated[list[str] | None, typer.Option("--ignore", help="Column to leave out; may be repeated.")]
Names = Annotated[
    str | None,
    typer.Option(
        "--names", help="Column with the samples' names: no feature, and written beside their labels."
    ),
]
Clusters = Annotated[
    str, typer.Option("--n-clusters", "-k", help='Number of clusters; "auto" estimates it without labels.')
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


def main() -> None:
    """Run the command line (the entry point of the script ``graphclust``)."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        from graphclust import __version__

        typer.echo(f"graphclust {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def plain_messages(debug: bool, quiet: bool) -> Iterator[None]:
    """Errors end with one red line and exit code 2, warnings are a line each; ``debug`` lets tracebacks through.

    Ctrl-C ends with one line, too, and exit code 130, as of other programs.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        # What a library's authors should change is no news to who calls a command (PyG on Python 3.13).
        if not quiet and not issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):
            console.print(f"warning: {' '.join(str(message).split())}", style="yellow", markup=False)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as stop:  # whoever knows what is kept has put it into words
        console.print(f"interrupted{f'; {stop}' if str(stop) else ''}", style="yellow", markup=False)
        raise typer.Exit(130) from stop
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, _EXPECTED_ERRORS):
            text = f"{type(error).__name__}: {text} (unexpected; --debug shows where)"
        console.print(f"error: {text}", style="red", markup=False)
        raise typer.Exit(2) from error


@contextmanager
def telling_what_is_kept(estimator: Any) -> Iterator[None]:
    """A fit that is interrupted says from where the same command goes on, or how another one could have."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(_what_is_kept(estimator)) from stop


def _what_is_kept(estimator: Any) -> str:
    from graphclust.training.checkpoint import is_checkpoint

    if "checkpoint" not in estimator.get_params():
        return "nothing was saved"
    folder = estimator.checkpoint
    if folder is None:
        return "nothing was saved: add --set checkpoint=FOLDER to go on from where it stopped"
    if is_checkpoint(folder):
        return f"the same command goes on from {folder}"
    return f"nothing was saved yet: the first checkpoint in {folder} was not due"


def one_of(option: str, value: str, choices: Sequence[str]) -> str:
    """The value of an option, when it is one of the choices."""
    if value not in choices:
        raise ValueError(f"{option} is {value!r}, it must be one of {', '.join(choices)}")
    return value


def number_or_name(text: str) -> float | str:
    """A number where the text is one, else the text."""
    try:
        return float(text)
    except ValueError:
        return text


def count_or_auto(text: str) -> int | str:
    """The value of ``--n-clusters``."""
    try:
        count = 0 if text == "auto" else int(text)
    except ValueError:
        raise ValueError(f'--n-clusters is {text!r}, it must be a whole number, or "auto"') from None
    if text != "auto" and count < 1:
        raise ValueError(f"--n-clusters is {text}, it must be at least 1")
    return count or text


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``name=value`` pairs; the value is read as JSON or as Python writes it (None, a tuple), else it is text."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"--set is {setting!r}, it must be NAME=VALUE, for example --set latent_dim=20")
        parsed[name.strip()] = value
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError):
                parsed[name.strip()] = read(value)
                break
    return parsed


def refuse_used_folder(folder: Path, overwrite: bool, files: Sequence[str] = ()) -> None:
    """Checked before the work begins, so that an hour of training does not end with it; `files` will be written."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder with --out")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"{folder} cannot be written, as {existing} allows no new files: name another with --out"
        )
    for name in files:
        if (folder / name).is_dir():
            raise ValueError(
                f"{folder / name} is a folder where a file is to be written: name another with --out"
            )
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty: name another folder with --out, or give --overwrite to replace the result in it"
        )
