"""Progress through many images: a bar with rate and remaining time on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 5.0


class ImageProgress:
    """Shows how many images are done, how many a second, and the time that is left.

    Parameters
    ----------
    title : str
    total : int
    enabled : bool
        Nothing is shown otherwise.
    """

    def __init__(self, title: str, total: int, enabled: bool) -> None:
        self.title, self.total, self.done = title, total, 0
        self.console = Console(stderr=True, highlight=False, quiet=not enabled)
        self.live = enabled and self.console.is_terminal
        self._started = self._last_line = time.monotonic()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self.console, disable=not self.live, transient=True)
        self._task: TaskID = self._bar.add_task(title, total=total, rate="")

    def __enter__(self) -> ImageProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return max(time.monotonic() - self._started, 1e-9)

    def step(self) -> None:
        """One image more."""
        self.done += 1
        rate = f"{self.done / self.seconds:,.1f} images/s"
        if self.live:
            self._bar.update(self._task, completed=self.done, rate=rate)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            left = (self.total - self.done) * self.seconds / self.done
            line = f"{self.title}: {self.done:,} of {self.total:,}, {rate}, {left:.0f} s left"
            self.console.print(line, soft_wrap=True, markup=False)

    def finish(self, n_read: int, n_skipped: int) -> None:
        """One line of what was read and left out, and how fast; not all that was left out was looked into."""
        line = (
            f"{self.title}: {n_read:,} read in {self.seconds:.1f} s, {self.done / self.seconds:,.1f} images/s"
        )
        self.console.print(f"{line}, {n_skipped:,} skipped", soft_wrap=True, markup=False)
