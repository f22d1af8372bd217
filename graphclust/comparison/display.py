"""The table of a comparison on the screen: it fills on a terminal; elsewhere each run is a line."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from graphclust.comparison.comparison import WITH_LABELS, Comparison

_SHORT = {"modularity": "modul.", "conductance": "conduct.", "silhouette": "silhou.", "agreement": "agreem."}
#: Left out, the first first, where the terminal is too narrow; the files have all of them.
_DISPENSABLE = ("conductance", "F1", "silhouette", "modularity", "ARI", "agreement")
_WHOLE_WIDTH = 140
_UNITS = "scores in percent, ± standard deviation over the seeds; time of fit in s, peak memory in MiB"


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Do the runs that are left (`Comparison.run`) and print what comes out, at the end the whole table."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WHOLE_WIDTH)
    left, planned = len(comparison.left), len(comparison.planned)
    if left < planned:
        console.print(f"{planned - left} of {planned} runs were done before")
    if console.is_terminal and left:
        _live(comparison, console)
    else:
        for number, record in enumerate(comparison.run(), start=planned - left + 1):
            console.print(f"{number}/{planned}  {_line(record, comparison)}", markup=False, soft_wrap=True)
    console.print(fitting(comparison, console))


def _live(comparison: Comparison, console: Console) -> None:
    pending = [f"{contender.name} with seed {seed}" for contender, seed in comparison.left]
    table, started = fitting(comparison, console), time.monotonic()

    def picture() -> Group:
        if not pending:
            return Group(table)
        state = (
            f"{pending[0]} runs since {time.monotonic() - started:.0f} s, {len(pending) - 1} to go after it"
        )
        return Group(table, Text(state))

    with Live(get_renderable=picture, console=console, refresh_per_second=2, transient=True):
        for _ in comparison.run():
            pending.pop(0)
            table, started = fitting(comparison, console), time.monotonic()


def fitting(comparison: Comparison, console: Console) -> Table:
    """The table with as many scores as the console is wide enough for."""
    left_out: tuple[str, ...] = ()
    unlimited = Console(width=1000)  # which tells how wide the table would like to be
    shown = as_table(comparison)
    for name in _DISPENSABLE:
        if unlimited.measure(shown).maximum <= console.width:
            break
        left_out = (*left_out, name)
        shown = as_table(comparison, left_out)
    return shown


def as_table(comparison: Comparison, left_out: Sequence[str] = ()) -> Table:
    """Means and deviations of what is done so far."""
    rows = comparison.table().to_dict("records")
    scores = [name for name in (*comparison.score_names, "agreement") if name not in left_out]
    n, d = comparison.data.x.shape
    seeds = len(comparison.seeds)
    title = f"{comparison.data.name}: {n:,} x {d:,}, {comparison.n_clusters} clusters, {seeds} seeds"
    errors = [f"{row['method']}: {row['error']}" for row in rows if isinstance(row.get("error"), str)]
    # As Text, in which brackets are no markup.
    caption = Text("\n".join([_UNITS, *errors]))
    table = Table(title=Text(title), caption=caption, title_justify="left", caption_justify="left")
    table.add_column("method", no_wrap=True)
    for name in [*(_SHORT.get(score, score) for score in scores), "s", "MiB", "runs"]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            _percent(row[name], row[f"{name} sd"] if name in WITH_LABELS else math.nan) for name in scores
        ]
        failed = f" ({row['failed']} failed)" if row["failed"] else ""
        costs = [_number(row["seconds"]), _number(row["peak_mib"]), f"{row['runs']}{failed}"]
        table.add_row(Text(row["method"]), *cells, *costs)
    return table


def _line(record: dict[str, Any], comparison: Comparison) -> str:
    head = f"{record['method']:<12} seed {record['seed']}"
    if "error" in record:
        log = f" ({record['log']})" if "log" in record else ""
        return f"{head}  {record['error']}{log}"
    scores = "  ".join(
        f"{_SHORT.get(name, name)} {_percent(record[name])}" for name in comparison.score_names
    )
    return f"{head}  {scores}  {_number(record['seconds'])} s  {_number(record['peak_mib'])} MiB"


def _percent(mean: float, deviation: float = math.nan) -> str:
    if math.isnan(mean):
        return "-"
    return f"{100 * mean:.1f}" + ("" if math.isnan(deviation) else f" ±{100 * deviation:.1f}")


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
