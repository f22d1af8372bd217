"""Ray, imported on first use, and the loop that keeps a cluster busy with blocks."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

Block = TypeVar("Block")


def load_ray() -> Any:
    """The ray module.

    Raises
    ------
    ImportError
        When it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(
            "engine='ray' needs Ray, which is not installed: pip install graphclust[distributed], "
            "or leave engine='local'"
        ) from error


def connect(address: str | None) -> Any:
    """Ray with a connection to a cluster: the one that there is, else ``address``, else this machine alone.

    Without ``address`` Ray follows the environment variable RAY_ADDRESS. What is started here ends with the process.
    """
    # Ray reports its use to its makers unless it is told not to; nothing in this package calls out by itself.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = load_ray()
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    return ray


def run_blocks(
    ray: Any,
    blocks: Sequence[Block],
    submit: Callable[[Block], Any],
    tasks_per_block: int,
) -> Iterator[tuple[Block, Any]]:
    """Submit blocks as room comes free, and yield each with its result as it comes, in any order.

    About two tasks for each processor of the cluster are under way at any time. Their number is asked for again with
    each block, so machines that join later get work, and the partial results in memory stay bounded.

    Parameters
    ----------
    ray : module
        Connected.
    blocks : sequence
    submit : callable
        Submits the tasks of a block; returns the object reference of its result.
    tasks_per_block : int

    Raises
    ------
    RuntimeError
        When Ray gave a task up, after all retries.
    Exception
        What a task itself raised.
    """
    waiting: dict[Any, Block] = {}
    coming = iter(blocks)
    try:
        while True:
            processors = ray.cluster_resources().get("CPU", 1)
            room = max(2, math.ceil(2 * processors / tasks_per_block))
            for block in islice(coming, max(0, room - len(waiting))):
                waiting[submit(block)] = block
            if not waiting:
                return
            done, _ = ray.wait(list(waiting), num_returns=1)
            block = waiting.pop(done[0])
            yield block, _result(ray, done[0])
    finally:
        for reference in waiting:
            ray.cancel(reference, force=False, recursive=False)


def _result(ray: Any, reference: Any) -> Any:
    """The result of a task; its own error without Ray's wrapping, and one message where Ray gave up."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, Exception) and not isinstance(cause, ray.exceptions.RayError):
            raise cause from error
        raise _given_up(cause or error) from error
    except ray.exceptions.RayError as error:
        raise _given_up(error) from error


def _given_up(error: Exception) -> RuntimeError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return RuntimeError(
        f"Ray gave a task up after all retries ({type(error).__name__}: {reason}); look at the machines' memory, raise "
        "max_retries of RayEngine or take smaller shards, and with folder= go on where this run stopped"
    )
