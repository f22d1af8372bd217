"""Folders at any address that fsspec knows (``s3://``, ``gs://``, ``memory://``, ...), sent and fetched whole.

A folder at an address holds its files under a name of their own for each save, and ``graphclust.json``, which says
which save counts, with size and checksum of each file. That one small file is written last: a save that breaks off
leaves the older one in place, also where the storage cannot rename. Who fetches while the older save is removed gets
the newer one. What is fetched is kept in a local cache, where it can be mapped into memory.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from graphclust._files import replacing

_INDEX = "graphclust.json"
_VERSION = 1
_PIECE_BYTES = 16 << 20
_VERSION_NAME = re.compile("[0-9a-f]{32}")
_SOURCE = "source.txt"
#: How long the local copy of an older save stays after its last use, and at an address what a save left that ended
#: neither well nor with an error, or at the same moment as another.
_KEPT_SECONDS = 24 * 3600
#: Times that a folder is fetched while others save to its address.
_ATTEMPTS = 20
#: What file systems say of a file that changes with its content.
_STAMPS = ("size", "ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
# Two letters at least, because C:/ is a disk; one slash at least, because pathlib makes one of two.
_ADDRESS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+(.*)$", re.DOTALL)


def resolve(folder: str | os.PathLike[str]) -> Path | str:
    """A local path, or an address as text; ``file://`` is local. A `Path` made from an address is understood too."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"{folder!r} is no path: name a file or a folder")
    text = os.fspath(folder)
    found = _ADDRESS.match(text)
    if found is None:
        return Path(text)
    protocol, rest = found.groups()
    return Path("/" + rest) if protocol in ("file", "local") else f"{protocol}://{rest.rstrip('/')}"


def inside(folder: Path | str, name: str) -> Path | str:
    """A folder or file within a resolved one."""
    return f"{folder}/{name}" if isinstance(folder, str) else folder / name


@contextmanager
def sending(address: str) -> Iterator[Path]:
    """An empty local folder to write to, which takes the place of what is at the address when it is complete."""
    files, root = filesystem(address)
    with tempfile.TemporaryDirectory(prefix="graphclust-") as name:
        partial = Path(name) / "folder"
        partial.mkdir()
        yield partial
        _send(files, root, partial)


def _send(files: Any, root: str, folder: Path) -> None:
    version = uuid.uuid4().hex
    _read_index(files, root)  # what cannot be replaced is refused before anything is sent
    index: dict[str, Any] = {"format_version": _VERSION, "version": version, "files": {}}
    try:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            target = f"{root}/{version}/{name}"
            files.makedirs(target.rpartition("/")[0], exist_ok=True)
            files.put_file(str(path), target)
            index["files"][name] = [path.stat().st_size, file_checksum(path)]
        old = _read_index(files, root)  # not the one at the beginning: another save may have ended since
        files.pipe_file(f"{root}/{_INDEX}", json.dumps(index, indent=1).encode())
    except BaseException:
        with suppress(Exception):
            files.rm(f"{root}/{version}", recursive=True)
        raise
    if old is not None:
        with suppress(FileNotFoundError):
            files.rm(f"{root}/{old['version']}", recursive=True)
    with suppress(Exception):  # the save is complete; the next one tries again
        _remove_dead(files, root)


def _remove_dead(files: Any, root: str) -> None:
    """Remove saves that do not count and got their last file long ago, where the storage tells when that was."""
    files.invalidate_cache()
    names = [str(path).rstrip("/").rpartition("/")[2] for path in files.ls(root, detail=False)]
    index = _read_index(files, root)
    for name in names:
        if index is None or name == index["version"] or not _VERSION_NAME.fullmatch(name):
            continue
        with suppress(
            FileNotFoundError, NotImplementedError
        ):  # removed by another; no times, so it may be going on
            stored = files.find(f"{root}/{name}")
            newest = max((files.modified(path).timestamp() for path in stored), default=time.time())
            if time.time() - newest > _KEPT_SECONDS:
                files.rm(f"{root}/{name}", recursive=True)


def fetch(address: str) -> Path:
    """The local copy of what `sending` left at an address; downloaded unless the cache has it.

    The cache is the folder ``storage`` in that of GRAPHCLUST_CACHE, else of ``~/.cache/graphclust``.

    Raises
    ------
    FileNotFoundError
        When there is nothing.
    ValueError
        When a file is not as long as it was, or has another checksum.
    """
    files, root = filesystem(address)
    index = _index_at(files, root, address)
    for _ in range(_ATTEMPTS):
        try:
            return _copy_of(files, root, index, address)
        except ValueError:
            newer = _index_at(files, root, address)
            if newer["version"] == index["version"]:
                raise
            index = newer  # saved meanwhile, which removed the files of the save before
    return _copy_of(files, root, index, address)


def _index_at(files: Any, root: str, address: str) -> dict[str, Any]:
    index = _read_index(files, root)
    if index is None:
        raise FileNotFoundError(
            f"there is nothing saved at {address} (no {_INDEX}); save to this address first"
        )
    return index


def _copy_of(files: Any, root: str, index: dict[str, Any], address: str) -> Path:
    """The local copy of the save that an index names; downloaded unless the cache has it."""
    place = _cache() / hashlib.sha256(address.encode()).hexdigest()[:24]
    target = place / str(index["version"])
    if target.is_dir():
        with suppress(OSError):
            os.utime(target)  # in use: see `_remove_unused`
        return target
    place.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=place))
    try:
        for name, (size, checksum) in index["files"].items():
            local = partial / name
            local.parent.mkdir(parents=True, exist_ok=True)
            try:
                files.get_file(f"{root}/{index['version']}/{name}", str(local))
            except FileNotFoundError as error:
                raise ValueError(f"{address} has lost its file {name}: save it again") from error
            found = local.stat().st_size
            if found != size or file_checksum(local) != checksum:
                raise ValueError(
                    f"the file {name} at {address} has {found:,} bytes of {size:,}, or another content than was "
                    "saved: save it again"
                )
        # Another process may have been faster.
        with suppress(OSError):
            os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _remove_unused(place, target)
    return target


def fetch_file(address: str) -> Path:
    """The local copy of one file at an address; downloaded unless the cache has it as it is there now.

    Kept as `fetch` keeps folders. The processes of a machine that ask for it at the same time wait for one of them.

    Raises
    ------
    FileNotFoundError
        When it is not there.
    ValueError
        When what came is not as long as the storage says.
    OSError
        When the disk of the cache has no room for it.
    """
    files, root = filesystem(address)
    files.invalidate_cache()  # a listing of some time ago may be another file's
    try:
        info = files.info(root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file at {address}") from error
    if info.get("type") == "directory":
        raise FileNotFoundError(f"{address} is a folder; name a file in it")
    stamp = hashlib.sha256(repr([str(info.get(name)) for name in _STAMPS]).encode()).hexdigest()[:24]
    place = _cache() / hashlib.sha256(address.encode()).hexdigest()[:24]
    target = place / stamp / root.rpartition("/")[2]
    if target.is_file():
        with suppress(OSError):
            os.utime(target.parent)  # in use: see `_remove_unused`
        return target
    place.mkdir(parents=True, exist_ok=True)
    with importlib.import_module("filelock").FileLock(str(place / ".lock")):
        if not target.is_file():  # nobody else fetched it meanwhile
            with replacing(place / _SOURCE) as partial:
                partial.write_text(address, encoding="utf-8")
            _download(files, root, info["size"], target, address)
            _remove_unused(place, target.parent)
    return target


def _remove_unused(place: Path, kept: Path) -> None:
    """Remove older copies: another process may just have been given one of them, and not have opened it yet."""
    for other in place.iterdir():
        with suppress(OSError):
            unused = time.time() - other.stat().st_mtime > _KEPT_SECONDS
            if unused and other.is_dir() and other != kept and not other.name.startswith("."):
                shutil.rmtree(other, ignore_errors=True)


def _download(files: Any, root: str, size: int | None, target: Path, address: str) -> None:
    free = shutil.disk_usage(target.parent.parent).free
    if size is not None and size > free:
        raise OSError(
            errno.ENOSPC,
            f"no room for {address}: {size:,} bytes are needed and {free:,} are free; free some, or name a folder on "
            "another disk in GRAPHCLUST_CACHE",
            str(target.parent.parent),
        )
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name(f".partial-{target.name}")
    try:
        files.get_file(root, str(partial))
        found = partial.stat().st_size
        if size is not None and found != size:
            raise ValueError(f"of {address} came {found:,} bytes instead of {size:,}; try again")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def address_of(path: str | os.PathLike[str]) -> str | None:
    """Where `fetch_file` got a file of the cache from; None for any other file."""
    place = Path(path).parent.parent
    if place.parent != _cache():
        return None
    return read_text(place, _SOURCE)


def write_text(folder: Path | str, name: str, text: str) -> None:
    """Write a small file into a resolved folder, in one step."""
    if isinstance(folder, str):
        files, root = filesystem(folder)
        files.makedirs(root, exist_ok=True)
        files.pipe_file(f"{root}/{name}", text.encode())
        return
    with replacing(folder / name) as partial:
        partial.write_text(text, encoding="utf-8")


def read_text(folder: Path | str, name: str) -> str | None:
    """A small file of a resolved folder, None where it is not there."""
    try:
        if isinstance(folder, str):
            files, root = filesystem(folder)
            return str(files.cat_file(f"{root}/{name}").decode())
        return (folder / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def remove(folder: Path | str, name: str) -> None:
    """Remove a file or folder within a resolved folder, if it is there."""
    if isinstance(folder, str):
        files, root = filesystem(folder)
        with suppress(FileNotFoundError):
            files.rm(f"{root}/{name}", recursive=True)
    elif (folder / name).is_dir():
        shutil.rmtree(folder / name, ignore_errors=True)
    else:
        (folder / name).unlink(missing_ok=True)


def version_at(address: str) -> str | None:
    """Name of the save that counts at an address, None where there is none."""
    index = _read_index(*filesystem(address))
    return None if index is None else str(index["version"])


def _read_index(files: Any, root: str) -> dict[str, Any] | None:
    try:
        content = files.cat_file(f"{root}/{_INDEX}")
    except FileNotFoundError:
        return None
    try:
        index: dict[str, Any] = json.loads(content)
        version = index["format_version"]
        complete = {"version", "files"} <= index.keys()
        # Whoever writes the index names files here: none may be anywhere but in the folder of its save.
        harmless = not complete or _names_within(index)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{root}/{_INDEX} is damaged ({error}); delete it, and save again") from error
    if version != _VERSION or not complete:
        raise ValueError(
            f"{root}/{_INDEX} has format version {version}, this graphclust reads version {_VERSION}: open it with "
            "the graphclust that wrote it, or save again"
        )
    if not harmless:
        raise ValueError(
            f"{root}/{_INDEX} names files outside of its folder, which graphclust does not write: nothing was fetched; "
            "delete it, and save again"
        )
    return index


def _names_within(index: dict[str, Any]) -> bool:
    """Whether the version of an index is one that `_send` makes, and its files are below it."""
    paths = [PurePosixPath(name) for name in index["files"]]
    return bool(_VERSION_NAME.fullmatch(index["version"])) and not any(
        path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", str(path)) or not path.parts
        for path in paths
    )


def filesystem(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path there."""
    try:
        core = importlib.import_module("fsspec.core")
        files, root = core.url_to_fs(address)
    except ImportError as error:
        raise ImportError(f"{address} needs a library that is not installed: {error}") from error
    except ValueError as error:
        raise ValueError(f"{address}: {error}; name a folder, or an address that fsspec knows") from error
    return files, str(root).rstrip("/")


def _cache() -> Path:
    given = os.environ.get("GRAPHCLUST_CACHE")
    folder = Path(given).expanduser() if given else Path.home() / ".cache" / "graphclust"
    return folder.absolute() / "storage"


def file_checksum(path: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    checksum = 0
    with open(path, "rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return checksum
