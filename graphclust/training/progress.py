"""Progress of a run: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """Shows stage, epoch, losses and the time that is left.

    Parameters
    ----------
    enabled : bool
        Nothing is shown otherwise.
    seconds_between_lines : float, default=5.0
        Without a terminal (a log file) one line is printed at most this often, and at the end of each stage.
    """

    def __init__(self, enabled: bool, *, seconds_between_lines: float = 5.0) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=not enabled)
        self.live = enabled and self.console.is_terminal
        self.seconds_between_lines = seconds_between_lines
        self._last_line = float("-inf")
        self._task: Any = None
        self._bar = Progress(
            TextColumn("[bold]{task.description:<18}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=self.console,
            disable=not self.live,
        )

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start_stage(self, name: str, epochs: int, done: int) -> None:
        """A new line of the bar, of `epochs` epochs of which `done` are behind (a resumed run)."""
        self._task = self._bar.add_task(name, total=epochs, completed=done, losses="")

    def epoch(self, record: dict[str, Any], epochs: int, *, last: bool) -> None:
        """Show one history record."""
        skip = {"stage", "epoch", "seconds", "learning_rate"}
        losses = "  ".join(f"{k} {v:.4g}" for k, v in record.items() if k not in skip and v is not None)
        if self.live:
            total = record["epoch"] if last else epochs
            self._bar.update(self._task, completed=record["epoch"], total=total, losses=losses)
        elif last or time.monotonic() - self._last_line > self.seconds_between_lines:
            self._last_line = time.monotonic()
            line = f"{record['stage']:<18} epoch {record['epoch']:>4}/{epochs}  {losses}"
            self.console.print(line, soft_wrap=True, markup=False)
