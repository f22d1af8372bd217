"""What the tests share: the folder with real data, and data sets that are loaded once a session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Pictures are drawn without a screen, also in the processes that tests start; set before anything imports matplotlib.
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from sklearn.datasets import load_digits

_IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def _missing(message: str) -> None:
    """Skip on a developer's machine; fail in CI, where a skipped test would look like a passed one."""
    if _IN_CI:
        pytest.fail(message + " (CI is set, so this is an error)")
    pytest.skip(message)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder that GRAPHCLUST_DATA names; without it the test is skipped, or fails where CI is set."""
    named = os.environ.get("GRAPHCLUST_DATA")
    if not named:
        _missing(
            "needs real data: set GRAPHCLUST_DATA to the folder that holds usps.npz (see data/README.md)"
        )
    folder = Path(str(named)).expanduser()
    if not (folder / "usps.npz").is_file():
        _missing(f"needs real data: GRAPHCLUST_DATA={named} holds no usps.npz (see data/README.md)")
    return folder


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 handwritten 8 x 8 digits of scikit-learn: X float32 [1797, 64] in [0, 1] (read-only), y int64."""
    bunch = load_digits()
    return _frozen(bunch.data / 16, bunch.target)


@pytest.fixture(scope="session")
def usps(data_folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """USPS, 9,298 handwritten 16 x 16 digits: X float32 [9298, 256] in [0, 1] (read-only), y int64."""
    with np.load(data_folder / "usps.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return _frozen(images.reshape(len(images), -1) / 2000, labels)


def _frozen(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrays that many tests share must not be changed by one of them."""
    x, y = x.astype(np.float32), y.astype(np.int64)
    x.flags.writeable = y.flags.writeable = False
    return x, y


_S3_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()  # until the process that started it ends
"""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server on this machine, a process of its own."""
    for name in ("s3fs", "moto", "flask", "flask_cors"):
        pytest.importorskip(name, reason='needs an S3 server: pip install s3fs "moto[s3]" flask flask-cors')
    process = subprocess.Popen(
        [sys.executable, "-c", _S3_SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    host, port = process.stdout.readline().split()
    yield f"http://{host}:{port}"
    process.terminate()  # a process that a test forked may hold the pipe open
    process.wait(timeout=30)
    process.stdin.close()
    process.stdout.close()


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """fsspec's file system of that server with an empty ``bucket``, and a cache of the test's own."""
    import fsspec

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",  # what any server of tests takes
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "GRAPHCLUST_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()
    files = fsspec.filesystem("s3")
    files.mkdir("bucket")
    yield files
    files.invalidate_cache()
    files.rm("bucket", recursive=True)
    kind.clear_instance_cache()


@pytest.fixture
def with_file_limit() -> Callable[[str, int], str]:
    """What Python code prints in a process whose files may hold so many bytes: a disk that runs full, without one.

    The limit holds from the line ``limit()`` on. A system without such limits (Windows) skips the test.
    """
    pytest.importorskip("resource", reason="this system has no limits on the size of files")

    def run(code: str, n_bytes: int) -> str:
        head = f"""
import resource, signal
def limit():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, {n_bytes}))
"""
        done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=True)
        return done.stdout

    return run


@pytest.fixture
def breaks_off() -> Callable[..., Callable[..., Any]]:
    """Makes of an upload one that works so many times, and then finds the network gone."""

    def make(put: Callable[..., Any], after: int) -> Callable[..., Any]:
        left = [after]

        def broken(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OSError("the network is gone")
            return put(*args, **kwargs)

        return broken

    return make
