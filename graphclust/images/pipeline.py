"""The way of each image through threads, cache and encoder, in order."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from graphclust.images.cache import FeatureStore, digest_of
from graphclust.images.decode import UnreadableImage, decode, fit
from graphclust.images.encoders import Encoder
from graphclust.images.items import FileItem, Item, Skipped
from graphclust.images.progress import ImageProgress
from graphclust.images.sources import Source

_MOST_WORKERS = 32
#: Files below so many bytes are decoded by one thread: most of the time is Python's, and several wait for its lock.
_TINY, _LOOKED_AT = 4096, 32
#: Images that a thread takes at once: for small ones, handing over one by one would take longer than decoding.
_GROUP = 32
#: JPEG is decoded at least this much larger than it is needed, so that the sizing still averages pixels.
_JPEG_MARGIN = 2
T = TypeVar("T")
R = TypeVar("R")


class NothingReadable(ValueError):
    """None of the images can be read; `skipped` says of each why."""

    skipped: list[Skipped]


@dataclass(eq=False)
class Encoded:
    """Rows of the images that could be read [N, ...], where they come from, and the time it took."""

    rows: NDArray[Any]
    items: list[FileItem | Item]
    seconds: float


def encode_all(
    opened: Source,
    encoder: Encoder,
    store: FeatureStore,
    *,
    resize: str,
    batch_size: int | None = None,
    workers: int | None = None,
    verbose: bool = False,
) -> Encoded:
    """Encode every image of a source: threads read, hash, decode and size; this one collects batches and encodes.

    Pillow's decoders and sizing release the interpreter's lock, so threads suffice and nothing is copied between
    processes. Images with the same bytes are encoded once. What cannot be read is appended to ``opened.skipped``.

    Raises
    ------
    NothingReadable
        If no image can be read.
    """
    if workers is None:
        workers = 1 if encoder.size is None and _are_tiny(opened.items) else _cores()
    batch_size = batch_size or encoder.batch_size

    def prepare(item: FileItem | Item) -> tuple[bytes, NDArray[np.uint8] | None] | UnreadableImage:
        try:
            data = item.load()
            digest = digest_of(data)
            return digest, None if digest in store else _pixels(data, encoder.size, resize)
        except UnreadableImage as error:
            return error

    items: list[FileItem | Item] = []
    digests: list[bytes] = []
    batch: dict[bytes, NDArray[np.uint8]] = {}

    def encode() -> None:
        if batch:
            images = [pixels[None] for pixels in batch.values()]
            store.add(list(batch), encoder.encode(images[0] if len(images) == 1 else np.concatenate(images)))
            batch.clear()

    with (
        ThreadPoolExecutor(workers) as pool,
        ImageProgress(f"Reading images ({encoder.name})", len(opened.items), verbose) as progress,
    ):
        try:
            # Enough waits for a batch while the one before it is encoded.
            group = _GROUP if encoder.size is None else min(batch_size, _GROUP)
            ahead = 2 * max(batch_size, group) + workers
            results = _in_order(pool, prepare, opened.items, ahead, group)
            for item, result in zip(opened.items, results):
                progress.step()
                if isinstance(result, UnreadableImage):
                    opened.skipped.append(Skipped(item.name, str(result)))
                    continue
                digest, pixels = result
                items.append(item)
                digests.append(digest)
                if pixels is not None and digest not in store:
                    batch[digest] = pixels
                if len(batch) == batch_size:
                    encode()
            encode()
        finally:  # after a kill by the user, too: what was computed is kept
            pool.shutdown(wait=False, cancel_futures=True)
            store.flush()
        seconds = progress.seconds
    if not items:
        reasons = Counter(entry.reason.partition(":")[0] for entry in opened.skipped).most_common(4)
        error = NothingReadable(
            f"{opened.where} holds no image that can be read ({', '.join(f'{n:,} {why}' for why, n in reasons)}): "
            "give PNG, JPEG, TIFF, BMP, GIF or WebP files"
        )
        error.skipped = opened.skipped
        raise error
    progress.finish(len(items), len(opened.skipped))
    return Encoded(_stack([store[digest] for digest in digests]), items, seconds)


def _pixels(data: Any, size: tuple[int, int] | None, resize: str) -> NDArray[np.uint8]:
    """Decode, in colour, at a size (None: its own)."""
    image = decode(data, at_least=None if size is None else _JPEG_MARGIN * max(size)).convert("RGB")
    return np.asarray(image) if size is None else fit(image, size, resize)


def _stack(rows: list[NDArray[Any]]) -> NDArray[Any]:
    shapes = Counter(row.shape for row in rows)
    if len(shapes) > 1:
        (one, _), (other, _) = shapes.most_common(2)
        raise ValueError(
            f"the images have {len(shapes)} sizes, among them {one[1]} x {one[0]} and {other[1]} x {other[0]}: give "
            "one with size, or take the features of a network"
        )
    return np.stack(rows)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[T], R], values: Sequence[T], ahead: int, group: int
) -> Iterator[R]:
    """Results in the order of the values, computed in groups; about `ahead` of them wait in memory."""

    def of_group(start: int) -> list[R]:
        return [function(value) for value in values[start : start + group]]

    waiting: deque[Future[list[R]]] = deque()
    for start in range(0, len(values), group):
        waiting.append(pool.submit(of_group, start))
        if len(waiting) * group >= ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _are_tiny(items: Sequence[FileItem | Item]) -> bool:
    """Whether the first images are files of a few kilobytes."""
    sizes = []
    for item in items[:_LOOKED_AT]:
        try:
            data = item.load()
        except UnreadableImage:
            continue
        sizes.append(len(data) if isinstance(data, bytes) else _TINY)
    return bool(sizes) and float(np.median(sizes)) < _TINY


def _cores() -> int:
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(known or 1, _MOST_WORKERS)
