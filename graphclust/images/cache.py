"""Features by the content of an image: computed once, kept in pieces, found again after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Changes when decoding or sizing gives other pixels than before, so that old features are not taken for new ones.
_VERSION = 1
_PIECE_ROWS = 4096
_SECONDS_BETWEEN_PIECES = 30.0
_DIGEST_BYTES = 16
#: Number of Exif's tag.
_ORIENTATION = 0x0112


def default_cache() -> Path:
    """``features`` in the folder that GRAPHCLUST_CACHE names, else in ``~/.cache/graphclust``."""
    given = os.environ.get("GRAPHCLUST_CACHE")
    return (Path(given).expanduser() if given else Path.home() / ".cache" / "graphclust") / "features"


def digest_of(data: Any) -> bytes:
    """16 bytes that stand for the content of an image: a file's bytes, an array, or a Pillow image."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    if isinstance(data, np.ndarray):
        digest.update(f"{data.dtype.str}{data.shape}".encode())
        digest.update(np.ascontiguousarray(data).data)
    elif isinstance(data, bytes):
        digest.update(data)
    else:
        palette = data.getpalette() if data.mode == "P" else ""
        # How it is turned, and which of its values is nothing.
        shown = data.getexif().get(_ORIENTATION), data.info.get("transparency")
        digest.update(f"{data.mode}{data.size}{palette}{shown}".encode())
        digest.update(data.tobytes())
    return digest.digest()


class FeatureStore:
    """Rows of features by the digest of their image.

    A piece is two files, ``<name>.rows.npy`` and ``<name>.digests.npy``. Each is written under another name and then
    renamed, the digests last, so a reader sees whole pieces alone; several runs may write to one folder.

    Parameters
    ----------
    folder : Path or None
        The cache; None keeps rows in memory alone.
    how : dict
        Everything besides the content that decides the features; another `how` lies in another folder.
    """

    def __init__(self, folder: Path | None, how: dict[str, Any]) -> None:
        text = json.dumps({**how, "version": _VERSION}, sort_keys=True)
        name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.folder = None if folder is None else folder / name
        self._rows: dict[bytes, NDArray[Any]] = {}
        self._new: list[bytes] = []
        self._written = time.monotonic()
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "how.json").write_text(text, encoding="utf-8")
            for path in sorted(self.folder.glob("*.digests.npy")):
                self._read_piece(path)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._rows

    def __getitem__(self, digest: bytes) -> NDArray[Any]:
        return self._rows[digest]

    def add(self, digests: list[bytes], rows: NDArray[Any]) -> None:
        """Take rows [B, ...]; a piece is written when it is large or old enough."""
        self._rows.update(zip(digests, rows))
        self._new += digests
        late = time.monotonic() - self._written > _SECONDS_BETWEEN_PIECES
        if late or len(self._new) >= _PIECE_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what has not been written."""
        self._written = time.monotonic()
        if self.folder is not None and self._new:
            name = uuid.uuid4().hex
            self._write(f"{name}.rows.npy", np.stack([self._rows[digest] for digest in self._new]))
            digests = np.frombuffer(b"".join(self._new), np.uint8).reshape(-1, _DIGEST_BYTES)
            self._write(f"{name}.digests.npy", digests)
        self._new = []

    def _write(self, name: str, array: NDArray[Any]) -> None:
        assert self.folder is not None
        partial = self.folder / f".{name}.partial"
        with partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        os.replace(partial, self.folder / name)

    def _read_piece(self, path: Path) -> None:
        try:
            digests = np.load(path, allow_pickle=False)
            rows = np.load(
                path.with_name(path.name.replace(".digests.", ".rows.")), mmap_mode="r", allow_pickle=False
            )
        except (OSError, ValueError, EOFError):
            return  # a damaged piece is computed again
        if digests.shape == (len(rows), _DIGEST_BYTES):
            self._rows.update(zip((digest.tobytes() for digest in digests), rows))
