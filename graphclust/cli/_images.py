"""What `cluster` and `predict` do with images instead of a file of features."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from graphclust.cli._app import telling_what_is_kept
from graphclust.cli._summary import print_summary

if TYPE_CHECKING:
    from pandas import DataFrame

    from graphclust.images import Images

Features = Annotated[
    str,
    typer.Option(
        "--features",
        help="Of images: auto, pixels, efficientnet-lite0, efficientnet-lite0-layers, dinov2, dinov3, clip, siglip, or "
        "the name or folder of a network for transformers.",
    ),
]
Size = Annotated[int | None, typer.Option("--size", help="Side to which images are brought.")]
Resize = Annotated[str, typer.Option("--resize", help="How: pad, stretch or crop.")]
Mirror = Annotated[
    str,
    typer.Option(
        "--mirror",
        help="Average network features over mirror images: none, horizontal, both (also top to bottom; for images "
        "without an upright position), or auto: horizontal where --features is auto too.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder that keeps the features of images; a user folder by default."),
]
Report = Annotated[bool, typer.Option("--report/--no-report", help="Write report.html.")]


def cluster_images(
    source: Path,
    out: Path,
    make_estimator: Callable[[Any], Any],
    *,
    features: str = "auto",
    size: int | None = None,
    resize: str = "pad",
    mirror: str = "auto",
    cache: Path | None = None,
    labels: str | None = None,
    report: bool = True,
    quiet: bool = False,
) -> None:
    """Read images, fit the estimator to them, and write the folder of the result.

    Parameters
    ----------
    make_estimator : callable
        From the images, as an array [N, d] of features or [N, H, W, C] of pixels, to the estimator.
    labels : "folder" or None
        "folder" compares the clusters with the folders that the images lie in; for scores alone.
    """
    from graphclust._files import FeatureTable
    from graphclust.clustering import check_enough
    from graphclust.images import read_images
    from graphclust.results import Result

    if labels not in (None, "folder"):
        raise ValueError(
            f"--labels is {labels!r}: of images it can be 'folder', the name of the folder of each"
        )
    console = Console(quiet=quiet, highlight=False)
    images = read_images(
        str(source),
        features,
        size=size,
        resize=resize,
        mirror=mirror,
        cache=cache or "auto",
        verbose=not quiet,
    )
    check_enough(images)
    data = images.x if images.image_shape is None else images.x.reshape(-1, *images.image_shape)
    estimator = make_estimator(data)
    started = time.perf_counter()
    with telling_what_is_kept(estimator):
        estimator.fit(data)
    seconds = time.perf_counter() - started
    result = Result.write(out, images, estimator, source=str(source))
    for other in ("labels.csv", "overview.png"):  # of features that were clustered into this folder before
        (out / other).unlink(missing_ok=True)
    true = folders_of(images) if labels else None
    table = FeatureTable(images.x, true, images.image_shape)
    console.print(f"method: {type(estimator).__name__}")
    print_summary(console, source, table, estimator.labels_, seconds, graph=result.graph)
    print_skipped(console, images)
    if report:
        result.write_report()
    console.print(
        f"{out} is written: {', '.join(sorted(path.name for path in out.iterdir()))}", soft_wrap=True
    )


def forget_images(out: Path) -> None:
    """Remove what is left of an earlier result of images, so that the folder is one of features."""
    if not (out / "images.json").is_file():
        return
    from graphclust.report.page import remove_report

    (out / "images.json").unlink()  # first: without it nobody takes the rest for a result
    remove_report(out)
    (out / "skipped.csv").unlink(missing_ok=True)
    shutil.rmtree(out / "graph", ignore_errors=True)


def refuse_table_options(**given: Any) -> None:
    """Options of tables that mean nothing for images; ValueError for what would be left out without a word."""
    named = [f"--{name}" for name, value in given.items() if value]
    if named:
        raise ValueError(
            f"{', '.join(named)} is for files of features, and these are images: leave it out (their table has the "
            "probability and the second choice of each)"
        )


def refuse_image_options(**given: Any) -> None:
    """Options of images that mean nothing for files of features; ValueError for what would be left out."""
    named = [f"--{name}" for name, (value, default) in given.items() if value != default]
    if named:
        raise ValueError(
            f"{', '.join(named)} is for images, and this is a file of features: leave it out, or name a folder or an "
            "archive of images"
        )


def predict_images(folder: Path, source: Path, out: Path | None, *, quiet: bool = False) -> None:
    """Label images by the model of a result; to a table, or as lines to standard output."""
    from graphclust._files import FeatureTable
    from graphclust.results import Result

    result = Result.open(folder)
    started = time.perf_counter()
    images = result.read(str(source), verbose=not quiet)
    table = result.label(images)
    console = Console(stderr=True, quiet=quiet, highlight=False)
    write_table(table, out, quiet=quiet)
    features = FeatureTable(images.x, None, images.image_shape)
    print_summary(console, source, features, table["cluster"].to_numpy(), time.perf_counter() - started)
    print_skipped(console, images)


def folders_of(images: Images) -> Any:
    """The name of the folder that each image lies in."""
    import numpy as np

    return np.array([Path(path).parent.name for path in images.paths])


def print_skipped(console: Console, images: Images) -> None:
    """How many things were left out, by reason."""
    reasons = Counter(entry.reason.partition(":")[0] for entry in images.skipped)
    for reason, count in reasons.most_common(8):
        console.print(f"skipped {count:,}: {reason}", markup=False, soft_wrap=True)


def write_table(table: DataFrame, out: Path | None, *, quiet: bool = False) -> None:
    """To a .csv or .parquet file, as it says on standard error; without one as CSV to standard output.

    There no name can move the cursor.
    """
    from graphclust._files import replacing, table_format
    from graphclust.images import printable

    if out is None:
        text = table.apply(
            lambda column: column.map(printable) if column.name in ("path", "query") else column
        )
        typer.echo(text.to_csv(index=False, float_format="%.6g"), nl=False)
        return
    kind = table_format(out)
    with replacing(out) as partial:
        if kind == "csv":
            table.to_csv(partial, index=False, float_format="%.6g")
        else:
            table.to_parquet(partial, index=False)
    console = Console(stderr=True, quiet=quiet, highlight=False)
    console.print(f"{out} is written: {len(table):,} rows", soft_wrap=True, markup=False)
