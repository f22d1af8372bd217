"""``graphclust cluster``: a file in; labels, model and a picture out."""

from __future__ import annotations

import inspect
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from graphclust.cli._app import (
    Clusters,
    Debug,
    Ignore,
    Key,
    Labels,
    Names,
    Overwrite,
    Quiet,
    Source,
    app,
    count_or_auto,
    number_or_name,
    one_of,
    parse_settings,
    plain_messages,
    refuse_used_folder,
    telling_what_is_kept,
)
from graphclust.cli._images import (
    Cache,
    Features,
    Mirror,
    Report,
    Resize,
    Size,
    cluster_images,
    forget_images,
    refuse_image_options,
    refuse_table_options,
)
from graphclust.cli._summary import print_summary

if TYPE_CHECKING:
    from graphclust._files import FeatureTable


@app.command()
def cluster(
    file: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for labels, model and picture.")],
    n_clusters: Clusters = "auto",
    method: Annotated[
        str,
        typer.Option(
            "--method", help="Estimator of graphclust.methods, in any case; auto: what suits the data."
        ),
    ] = "auto",
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
    features: Features = "auto",
    size: Size = None,
    resize: Resize = "pad",
    mirror: Mirror = "auto",
    cache: Cache = None,
    report: Report = True,
    key: Key = None,
    labels: Labels = None,
    ignore: Ignore = None,
    names: Names = None,
    table_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Format of the labels: csv or parquet; by default csv, of images parquet."
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write all K probabilities of each sample.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Cluster the samples of FILE, or the images of a folder; writes labels, model and a picture or page."""
    with plain_messages(debug, quiet):
        from graphclust._files import read_features, replacing, write_labels
        from graphclust._storage import resolve
        from graphclust.images import is_image_source
        from graphclust.methods.files import check_replaceable

        console = Console(quiet=quiet, highlight=False)
        table_path = out / f"labels.{one_of('--format', table_format or 'csv', ('csv', 'parquet'))}"
        refuse_used_folder(out, overwrite, ("labels.csv", "labels.parquet", "overview.png"))
        check_replaceable(out / "model")
        given = {
            "n_neighbors": n_neighbors,
            "epsilon": None if epsilon is None else _parse_epsilon(epsilon),
            "conv": conv,
            "batch_size": batch_size,
            "epochs": epochs,
        }
        chosen = {name: value for name, value in given.items() if value is not None} | parse_settings(
            parameters or []
        )
        chosen = {
            "n_clusters": count_or_auto(n_clusters),
            "random_state": seed,
            "verbose": not quiet,
            **chosen,
        }
        if method != "auto":  # a wrong name or parameter is told before anything is read
            _estimator(method, chosen)
        of_images = key is None and is_image_source(file)
        if not of_images and isinstance(place := resolve(file), Path) and not place.exists():
            raise FileNotFoundError(
                f"{file} does not exist: name a folder of images, or a file of features (.npy, .npz, .parquet, .csv, "
                ".tsv or .txt)"
            )
        if of_images:
            refuse_table_options(ignore=ignore, names=names, probabilities=probabilities)
            if table_format == "csv":
                raise ValueError(
                    "--format csv is for files of features: the labels of images are kept as parquet, and "
                    "`graphclust export RESULT --table labels.csv` writes them as a table of your own"
                )
            cluster_images(
                file,
                out,
                partial(_estimator, method, chosen),
                features=features,
                size=size,
                resize=resize,
                mirror=mirror,
                cache=cache,
                labels=labels,
                report=report,
                quiet=quiet,
            )
            return
        refuse_image_options(
            features=(features, "auto"),
            size=(size, None),
            resize=(resize, "pad"),
            mirror=(mirror, "auto"),
            cache=(cache, None),
        )
        table = read_features(file, key=key, labels=labels, ignore=ignore or (), names=names)
        data = table.data()
        estimator = _estimator(method, chosen, data)
        started = time.perf_counter()
        with telling_what_is_kept(estimator):
            estimator.fit(data)
        seconds = time.perf_counter() - started

        out.mkdir(parents=True, exist_ok=True)
        forget_images(out)
        proba = getattr(estimator, "probabilities_", None)
        if probabilities and proba is None:
            warnings.warn(f"{type(estimator).__name__} gives labels and no probabilities", stacklevel=1)
        write_labels(table_path, estimator.labels_, proba, every=probabilities, names=table.names)
        for other in {out / "labels.csv", out / "labels.parquet"} - {table_path}:
            other.unlink(
                missing_ok=True
            )  # of an earlier run in this folder: labels of another model would mislead
        estimator.save(out / "model")
        with replacing(out / "overview.png") as unfinished:
            _draw(estimator, table, unfinished)
        console.print(f"method: {type(estimator).__name__}")
        print_summary(
            console, file, table, estimator.labels_, seconds, graph=getattr(estimator, "graph_", None)
        )
        console.print(f"{table_path}, {out / 'model'} and {out / 'overview.png'} are written", soft_wrap=True)


def _parse_epsilon(text: str) -> float | str | list[float]:
    if "," not in text:
        return number_or_name(text)
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f'--epsilon is {text!r}, it must be a number, numbers with commas between them, or "learn"'
        ) from None


def _estimator(method: str, parameters: dict[str, Any], data: Any = None) -> Any:
    """The estimator of that name with those parameters; ValueError for a name or a parameter that it lacks."""
    from graphclust._messages import unknown_parameters
    from graphclust.clustering import few_samples, suitable_method
    from graphclust.comparison import find_method

    chosen = find_method(suitable_method(data) if method == "auto" else method)
    known = inspect.signature(chosen).parameters
    # Not every method has something to show.
    parameters = {name: value for name, value in parameters.items() if name != "verbose" or name in known}
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise ValueError(
            unknown_parameters(chosen.__name__, unknown, known)
            + ("; --method names another one" if method == "auto" else "")
        )
    return chosen(**{**few_samples(chosen, data), **parameters})


def _draw(estimator: Any, table: FeatureTable, path: Path) -> None:
    """The map of the samples; beside it, where the file holds images, some of each cluster."""
    from graphclust.report import embedding_map, overview

    graph, labels = getattr(estimator, "graph_", None), estimator.labels_
    positions = getattr(estimator, "embedding_", None)  # methods without a network have none
    positions = table.x if positions is None else positions
    # Beyond that the layout of the graph takes longer than a picture is worth; two principal components stay quick.
    layout: Literal["auto", "pca"] = "auto" if graph is not None and len(labels) <= 50_000 else "pca"
    n_found = len(set(labels.tolist()))
    clusters = "1 cluster" if n_found == 1 else f"{n_found} clusters"
    name = type(estimator).__name__
    if table.image_shape is None:
        title = f"{name}: {len(labels):,} samples, {clusters}"
        figure = embedding_map(positions, labels, graph=graph, layout=layout, title=title)
    else:
        images = table.x.reshape(-1, *table.image_shape)
        probabilities = getattr(estimator, "probabilities_", None)
        figure = overview(positions, labels, images, probabilities, graph=graph, layout=layout, title=name)
    what = "features" if positions is table.x else "codes"
    n_columns = positions.shape[1]
    if n_columns > 2:
        by_graph = graph is not None and layout == "auto"
        what = "layout of the sample graph" if by_graph else f"two principal components of the {what}"
    elif n_columns == 2:
        what = f"the two {what}"
    figure.axes[0].set_xlabel(
        f"A point is a sample, its colour the cluster, whose number stands in its middle. Positions: {what}.",
        loc="left",
        fontsize=8.5,
    )
    figure.savefig(path, dpi=110)
