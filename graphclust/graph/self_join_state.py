"""Where a self-join keeps its arrays: memory maps in a folder, with a journal that lets a killed search go on."""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from graphclust._files import is_no_folder, new_map, sync
from graphclust.graph import storage
from graphclust.graph.engines import load_faiss
from graphclust.graph.metric import Rows

FORMAT = "graphclust.SelfJoin"
VERSION = 1
_JOURNAL = "self_join.json"
_LOCK, _PARTIAL = "self_join.lock", "self_join.tmp"
_JOURNAL_SECONDS = 1.0
#: The journal is written again after so many times as long as it took, on a slow disk less often than each second.
_FLUSH_PAUSE = 20.0
#: Resident pages of the maps are given back after this many bytes of work.
_RELEASE_BYTES = 128 << 20

Track = Callable[[Iterable], Iterable]


@contextmanager
def single_threaded_workers() -> Iterator[ThreadPoolExecutor]:
    """As many worker threads as torch uses, each of which computes with one thread.

    Many small products side by side are faster than each of them spread over all cores, and do not depend on the
    number of cores.
    """
    faiss = load_faiss()
    assert faiss is not None
    count = torch.get_num_threads()

    def start() -> None:
        faiss.omp_set_num_threads(1)
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(count, initializer=start)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(count)  # torch's setting is shared by threads that start later


class JoinState:
    """Named arrays and the journal of what is done, in ``folder`` or in a temporary folder.

    Parameters
    ----------
    folder : path, optional
        Made where it is not there. None: a temporary folder, removed by ``close``. Until ``close`` no other process
        has the folder: it waits, with a warning, and takes over what is done then.
    fingerprint : dict
        What the state belongs to, in plain types: data and parameters. A folder with another one is refused.

    Raises
    ------
    ValueError
        When the folder holds something else: other data, parameters or version, or a damaged journal.
    OSError
        When the disk has no room for an array; the arrays that are there remain.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, fingerprint: dict[str, Any]):
        self._temporary: tempfile.TemporaryDirectory | None = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="graphclust-", ignore_cleanup_errors=True)
            folder = self._temporary.name
        self.folder = Path(folder)
        self._arrays: dict[str, np.memmap] = {}
        self._written, self._pause = 0.0, _JOURNAL_SECONDS
        self._touched = 0
        self._journal: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": fingerprint,
            "done": {},
            "stage": "",
            "blocks": 0,
        }
        self._lock: FileLock | None = None
        if self._temporary is None:
            self._open(fingerprint)

    def _open(self, fingerprint: dict[str, Any]) -> None:
        if is_no_folder(self.folder):
            raise ValueError(f"folder={str(self.folder)!r} is a file; pass a folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check(fingerprint)  # what is refused is refused without waiting
        self._acquire()
        try:
            if not self._check(fingerprint):
                self._write()
        except BaseException:
            self.close()
            raise

    def _acquire(self) -> None:
        """Have the folder for this process alone; when it ends, however it does, the system gives it free."""
        lock = FileLock(str(self.folder / _LOCK), thread_local=False)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                warnings.warn(
                    f"another process searches with folder={str(self.folder)!r}: waiting until it ends, to go on from "
                    "what it found; pass another folder to search beside it",
                    RuntimeWarning,
                    stacklevel=2,
                )
                lock.acquire()
        except NotImplementedError:  # a file system without locks
            return
        self._lock = lock

    def _check(self, fingerprint: dict[str, Any]) -> bool:
        """Take over the journal of the folder, if there is one; ValueError if it is another search's."""
        path = self.folder / _JOURNAL
        if not path.exists():
            own = {_LOCK, _PARTIAL}  # of a search that is about to begin
            foreign = {entry.name for entry in self.folder.iterdir()} - own
            # It may have begun since: nothing but these comes before the journal.
            if foreign and not path.exists():
                raise ValueError(
                    f"folder={str(self.folder)!r} is not empty and holds no search; pass a new or empty folder"
                )
            return False
        try:
            journal = json.loads(path.read_text(encoding="utf-8"))
            found = journal["format"], journal["version"], journal["fingerprint"]
            _ = journal["done"], journal["stage"], journal["blocks"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged; remove the folder {str(self.folder)!r} and search again"
            ) from error
        if found[0] != FORMAT or found[1] != VERSION:
            raise ValueError(
                f"folder={str(self.folder)!r} holds {found[0]} version {found[1]}, but this is {FORMAT} version "
                f"{VERSION}; pass another folder"
            )
        different = [name for name, value in fingerprint.items() if found[2].get(name) != value]
        if different:
            listed = ", ".join(
                f"{name} {found[2].get(name)!r} instead of {fingerprint[name]!r}" for name in different
            )
            raise ValueError(
                f"folder={str(self.folder)!r} holds a search of other data or parameters ({listed}); "
                "pass another folder or remove this one"
            )
        self._journal = journal
        return True

    def done(self, stage: str) -> dict[str, Any] | None:
        """What ``finish`` noted about a stage, or None when it is not finished."""
        return self._journal["done"].get(stage)

    def finish(self, stage: str, **note: Any) -> dict[str, Any]:
        """Note that a stage is done, with plain values that belong to it."""
        self._journal["done"][stage] = note
        self._journal["stage"], self._journal["blocks"] = "", 0
        self._write()
        return note

    def run(
        self,
        stage: str,
        blocks: int,
        work: Callable[[int], None],
        pool: ThreadPoolExecutor,
        track: Track,
        block_bytes: int = 0,
    ) -> None:
        """Do ``work(0), ..., work(blocks - 1)`` in the pool, from where a killed run stopped (``stage`` "": from 0).

        A block may be done twice: it must write the same then, and nothing that another block reads.
        """
        first = self._journal["blocks"] if stage and self._journal["stage"] == stage else 0
        self._journal["stage"] = stage
        futures = [pool.submit(work, block) for block in range(first, blocks)]
        try:
            for number, future in enumerate(track(futures)):
                future.result()
                self._journal["blocks"] = first + number + 1
                if time.monotonic() - self._written > self._pause:
                    self._write()
                self._touched += block_bytes
                if self._touched > _RELEASE_BYTES:
                    self.release()
        finally:
            for future in futures:
                future.cancel()

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.memmap:
        """The array of this name, made (and its room on the disk taken) where it is not there in this shape."""
        if name in self._arrays and self._arrays[name].shape == shape:
            return self._arrays[name]
        path = self.folder / f"{name}.npy"
        if path.exists() and self._temporary is None:
            try:
                array = _open(path)
            except (ValueError, OSError, EOFError):  # killed while it was made: nothing in it counts yet
                array = None
            if array is not None and array.shape == shape and array.dtype == np.dtype(dtype):
                self._arrays[name] = array
                return array
        if 0 in shape:
            shape = tuple(max(1, size) for size in shape)
        array = new_map(path, shape, dtype, "or pass folder= on another disk")
        self._arrays[name] = array
        return array

    def load(self, name: str) -> np.memmap:
        """The array of this name, which a finished stage has written."""
        if name not in self._arrays:
            try:
                self._arrays[name] = _open(self.folder / f"{name}.npy")
            except (OSError, ValueError, EOFError) as error:
                raise ValueError(
                    f"{self.folder / name}.npy is missing or damaged; remove the folder and search again"
                ) from error
        return self._arrays[name]

    def keep(self, name: str, values: np.ndarray) -> np.memmap:
        """Write an array as a whole."""
        array = self.array(name, values.shape, values.dtype)
        array[...] = values
        return array

    def release(self) -> None:
        """Give the pages of the maps back to the system's cache: they stay in the file, not in this process."""
        self._touched = 0
        advice = getattr(mmap, "MADV_DONTNEED", None)
        if advice is None or os.name != "posix" or not hasattr(os, "posix_fadvise"):
            return  # only on Linux does this advice keep what was written
        for array in self._arrays.values():
            base: Any = array.base
            if isinstance(base, mmap.mmap):
                base.madvise(advice)

    def close(self) -> None:
        """Let go of the arrays and of the folder; a temporary one is removed."""
        self._arrays.clear()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def _write(self) -> None:
        """Write the journal, after what it says is done is on the disk: a power cut must not leave it ahead."""
        start = time.monotonic()
        if self._temporary is None:
            self._flush()
            self._write_journal()
        self._written = time.monotonic()
        self._pause = max(_JOURNAL_SECONDS, _FLUSH_PAUSE * (self._written - start))

    def _flush(self) -> None:
        for name, array in self._arrays.items():
            if sys.platform == "linux":  # there the same, and unlike an mmap's own it lets the workers go on
                sync(self.folder / f"{name}.npy")
            else:
                array.flush()

    def _write_journal(self) -> None:
        partial = self.folder / _PARTIAL
        with open(partial, "w", encoding="utf-8") as stream:
            json.dump(self._journal, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, self.folder / _JOURNAL)


def _open(path: Path) -> np.memmap:
    # For reading first: opened for writing, a file that is too short would be filled up with zeros.
    np.load(path, mmap_mode="r", allow_pickle=False)
    array = np.load(path, mmap_mode="r+", allow_pickle=False)
    if not isinstance(array, np.memmap):
        raise ValueError(f"{path} holds no array")
    return array


def checksum(rows: Rows) -> str:
    """CRC-32 of the features as they are stored."""
    return f"{storage.checksum(rows.x):08x}"
