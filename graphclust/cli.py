"""The command line: ``graphclust cluster``, ``graphclust predict``, ``graphclust graph``.

It reads a file, calls an estimator or `SampleGraph`, and writes what came out. What takes long to import is imported
inside the commands, so that ``graphclust --help`` answers at once.
"""

from __future__ import annotations

import inspect
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import numpy as np

    from graphclust._files import FeatureTable

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
File = Annotated[Path, typer.Argument(metavar="FILE", help="Features: .npy, .npz, .csv, .tsv or .parquet.")]
Key = Annotated[
    str | None, typer.Option("--key", help="Array of the .npz, or column of the table with one vector a row.")
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="Column, array or .npy file with the true classes; used for scores alone."),
]
Ignore = Annotated[list[str] | None, typer.Option("--ignore", help="Column to leave out; may be repeated.")]
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


@app.command()
def cluster(
    file: File,
    n_clusters: Annotated[int, typer.Option("--n-clusters", "-k", help="Number of clusters.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for labels, model and picture.")],
    method: Annotated[
        str, typer.Option("--method", help="Estimator of graphclust.methods, in any case.")
    ] = "vgdcn",
    n_neighbors: Annotated[
        int | None, typer.Option("--n-neighbors", help="Neighbours of each sample in the graph.")
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            "--epsilon", help='Share of the encoder in the bridge: a number, "0.3,0.5,..." or "learn".'
        ),
    ] = None,
    conv: Annotated[
        str | None, typer.Option("--conv", help="Graph convolution: gcn, gat, sage or gin.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Samples a mini-batch; without it the full graph.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Epochs of the joint training.")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other parameter of the estimator; may be repeated."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="random_state: the same seed gives the same labels.")
    ] = 0,
    key: Key = None,
    labels: Labels = None,
    ignore: Ignore = None,
    table_format: Annotated[
        str, typer.Option("--format", help="Format of the labels: csv or parquet.")
    ] = "csv",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write all K probabilities of each sample.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Cluster the samples of FILE; writes labels, model and a picture to a folder."""
    with _plain_messages(debug, quiet):
        from graphclust._files import read_features, replacing, write_labels

        console = Console(quiet=quiet, highlight=False)
        table_path = out / f"labels.{_one_of('--format', table_format, ('csv', 'parquet'))}"
        _refuse_used_folder(out, overwrite)
        given = {
            "n_neighbors": n_neighbors,
            "epsilon": None if epsilon is None else _parse_epsilon(epsilon),
            "conv": conv,
            "batch_size": batch_size,
            "epochs": epochs,
        }
        chosen = {name: value for name, value in given.items() if value is not None} | _parse_settings(
            parameters or []
        )
        estimator = _estimator(
            method, {"n_clusters": n_clusters, "random_state": seed, "verbose": not quiet, **chosen}
        )
        table = read_features(file, key=key, labels=labels, ignore=ignore or ())

        started = time.perf_counter()
        estimator.fit(table.x)
        seconds = time.perf_counter() - started

        out.mkdir(parents=True, exist_ok=True)
        proba = getattr(estimator, "probabilities_", None)
        write_labels(table_path, estimator.labels_, proba, every=probabilities)
        for other in {out / "labels.csv", out / "labels.parquet"} - {table_path}:
            other.unlink(
                missing_ok=True
            )  # of an earlier run in this folder: labels of another model would mislead
        estimator.save(out / "model")
        with replacing(out / "overview.png") as partial:
            _draw(estimator, table, partial)
        _print_summary(
            console, file, table, estimator.labels_, seconds, graph=getattr(estimator, "graph_", None)
        )
        console.print(f"{table_path}, {out / 'model'} and {out / 'overview.png'} are written", soft_wrap=True)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `graphclust cluster` wrote.")],
    file: File,
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
    with _plain_messages(debug, quiet):
        from graphclust._files import read_features, table_format, write_labels

        if out is not None:
            table_format(out)
            if out.exists() and not overwrite:
                raise ValueError(f"{out} exists: name another file with --out, or give --overwrite")
        folder = model / "model" if (model / "model").is_dir() else model
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{model} is not a folder: give the folder that `graphclust cluster` wrote (--out)"
            )
        import graphclust

        estimator = graphclust.load(folder)
        table = read_features(file, key=key, labels=labels, ignore=ignore or ())
        started = time.perf_counter()
        proba = estimator.predict_proba(table.x)
        found = proba.argmax(axis=1)
        seconds = time.perf_counter() - started
        # Labels may go to standard output, so the summary goes to the other stream.
        console = Console(stderr=True, quiet=quiet, highlight=False)
        if out is not None:
            write_labels(out, found, proba, every=probabilities)
        else:
            _print_labels(found, proba, every=probabilities)
        _print_summary(console, file, table, found, seconds)
        if out is not None:
            console.print(f"{out} is written", soft_wrap=True)


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
    with _plain_messages(debug, quiet):
        from graphclust._files import read_features

        if out is not None:
            _refuse_used_folder(out, overwrite)
        table = read_features(file, key=key, labels=labels, ignore=ignore or ())
        from graphclust.graph import SampleGraph

        started = time.perf_counter()
        built = SampleGraph.from_features(
            table.x,
            n_neighbors,
            metric=metric,
            p=p,
            kernel=kernel,
            bandwidth=_number_or_name(bandwidth),
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


@contextmanager
def _plain_messages(debug: bool, quiet: bool) -> Iterator[None]:
    """Errors end with one red line and exit code 2, warnings are a line each; ``debug`` lets tracebacks through."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if not quiet:
            console.print(f"warning: {' '.join(str(message).split())}", style="yellow", markup=False)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, _EXPECTED_ERRORS):
            text = f"{type(error).__name__}: {text} (unexpected; --debug shows where)"
        console.print(f"error: {text}", style="red", markup=False)
        raise typer.Exit(2) from error


def _one_of(option: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f"{option} is {value!r}, it must be one of {', '.join(choices)}")
    return value


def _number_or_name(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _parse_epsilon(text: str) -> float | str | list[float]:
    if "," not in text:
        return _number_or_name(text)
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f'--epsilon is {text!r}, it must be a number, numbers with commas between them, or "learn"'
        ) from None


def _parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``name=value`` pairs; the value is read as JSON where it is JSON, else as text."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"--set is {setting!r}, it must be NAME=VALUE, for example --set latent_dim=20")
        try:
            parsed[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name.strip()] = value
    return parsed


def _estimator(method: str, parameters: dict[str, Any]) -> Any:
    """The estimator of that name with those parameters; ValueError for a name or a parameter that it lacks."""
    from graphclust import methods

    classes = {name.lower(): getattr(methods, name) for name in methods.__all__}
    classes = {
        name: value
        for name, value in classes.items()
        if inspect.isclass(value) and not inspect.isabstract(value)
    }
    if method.lower() not in classes:
        raise ValueError(f"--method is {method!r}, it must be one of {', '.join(sorted(classes))}")
    chosen = classes[method.lower()]
    known = inspect.signature(chosen).parameters
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise ValueError(
            f"{chosen.__name__} has no parameter {', '.join(map(repr, unknown))}; it has {', '.join(known)}"
        )
    return chosen(**parameters)


def _refuse_used_folder(folder: Path, overwrite: bool) -> None:
    """Checked before the work begins, so that an hour of training does not end with it."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder with --out")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty: name another folder with --out, or give --overwrite to replace the result in it"
        )


def _draw(estimator: Any, table: FeatureTable, path: Path) -> None:
    """The map of the samples; beside it, where the file holds images, some of each cluster."""
    from graphclust.report import embedding_map, overview

    graph, labels = getattr(estimator, "graph_", None), estimator.labels_
    # Beyond that the layout of the graph takes longer than a picture is worth; two principal components stay quick.
    layout: Literal["auto", "pca"] = "auto" if graph is not None and len(labels) <= 50_000 else "pca"
    if table.image_shape is None:
        figure = embedding_map(estimator.embedding_, labels, graph=graph, layout=layout)
    else:
        images = table.x.reshape(-1, *table.image_shape)
        probabilities = getattr(estimator, "probabilities_", None)
        figure = overview(estimator.embedding_, labels, images, probabilities, graph=graph, layout=layout)
    figure.savefig(path, dpi=110)


def _print_summary(
    console: Console, file: Path, table: FeatureTable, labels: np.ndarray, seconds: float, graph: Any = None
) -> None:
    """A table of what was found; scores only where true labels were named."""
    import numpy as np

    if console.quiet:
        return
    sizes = np.sort(np.unique(labels, return_counts=True)[1])[::-1]
    rows = Table(show_header=False, title=str(file), title_justify="left")
    rows.add_row("samples", f"{table.x.shape[0]:,} with {table.x.shape[1]:,} features")
    if graph is not None:
        rows.add_row("edges", f"{graph.edge_index.shape[1]:,}")
    rows.add_row("clusters", f"{len(sizes)}, of {sizes[-1]:,} to {sizes[0]:,} samples")
    if graph is not None:
        from graphclust.metrics import modularity

        rows.add_row("modularity", f"{modularity(graph, labels):.3f}")
    if table.labels is not None:
        from graphclust.metrics import evaluate

        for name, score in evaluate(table.labels, labels).items():
            rows.add_row(name, f"{score:.3f}")
    rows.add_row("time", f"{seconds:.1f} s")
    console.print(rows)


def _print_labels(labels: np.ndarray, proba: np.ndarray, *, every: bool) -> None:
    names = ["index", "cluster", "probability", *(f"p_{c}" for c in range(proba.shape[1]) if every)]
    typer.echo(",".join(names))
    for row, label in enumerate(labels):
        values = [proba[row, label], *(proba[row] if every else ())]
        typer.echo(f"{row},{label}," + ",".join(f"{value:.6g}" for value in values))
