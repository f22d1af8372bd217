"""Data sets of any size from a seed, written in pieces to a .npy file that is opened as a memory map.

    python benchmarks/million_data.py FILE [--samples 1000000] [--features 128] [--clusters 1000] [--seed 0] [--uniform]

`blobs` has clusters of unequal size and shape that overlap, in a space of few dimensions within many, with noise in
all of them: as embeddings of images look like. `uniform` is the hard case of a search: no clusters, and as many
dimensions as features. `grown_images` makes many images of few by small shifts and rotations.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

#: Rows made at once. Each piece has a generator of its own, so that memory does not grow with the number of rows.
PIECE = 50_000
#: Dimensions in which clusters differ, the spread of their centres there, and the noise in each feature.
INTRINSIC = 24
SPREAD = 0.7
NOISE = 0.05


def labels_path(path: str | os.PathLike[str]) -> Path:
    """Where `blobs` writes the labels of the file `path`: beside it, as `<name>_labels.npy`."""
    return Path(path).with_name(Path(path).stem + "_labels.npy")


def blobs(
    path: str | os.PathLike[str], n: int, d: int = 128, n_clusters: int = 1000, seed: int = 0
) -> np.ndarray:
    """Write overlapping clusters to `path` (float32 .npy, [n, d]) and their labels beside it; return the labels.

    A cluster k has a share of the samples that is log-normal (sigma 0.7; of 1,000 clusters the largest has some
    ninety times the samples of the smallest), a centre m_k ~ N(0, 0.7^2 I) in r = min(24, d) dimensions, and a
    covariance A_k A_k' with a random basis and standard deviations falling from about 1 to 0.15, multiplied by a
    log-normal factor of the cluster. A sample is x = (m_k + s A_k z) B + 0.05 e with z and e normal,
    s^2 = 8 / chi^2(8) (tails heavier than Gaussian) and B an orthonormal basis [r, d] common to all. The same
    arguments give the same file; a file that is there already, of this shape, is kept.

    Returns
    -------
    labels : array, int32, shape [n]
    """
    shared = np.random.default_rng([seed, n_clusters, d])
    r = min(INTRINSIC, d)
    share = shared.lognormal(0.0, 0.7, n_clusters)
    centers = SPREAD * shared.standard_normal((n_clusters, r))
    fall = np.geomspace(1.0, 0.15, r)
    size = shared.lognormal(0.0, 0.2, n_clusters)
    bases = np.linalg.qr(shared.standard_normal((n_clusters, r, r)))[0]
    shapes = (bases * (fall * size[:, None])[:, None, :]).transpose(0, 2, 1).astype(np.float32)
    embed = np.linalg.qr(shared.standard_normal((d, r)))[0].T.astype(np.float32)
    border = np.cumsum(share / share.sum())
    if _is_there(path, n, d) and labels_path(path).exists():
        return np.load(labels_path(path))
    labels = np.empty(n, dtype=np.int32)
    rows = _create(path, n, d)
    for piece, start in enumerate(range(0, n, PIECE)):
        rng = np.random.default_rng([seed, n_clusters, d, piece])
        stop = min(start + PIECE, n)
        # All of a piece is drawn, so that a longer file begins with a shorter one.
        label = np.minimum(np.searchsorted(border, rng.random(PIECE)), n_clusters - 1)
        z = rng.standard_normal((PIECE, r), dtype=np.float32)
        z *= np.sqrt(8 / rng.chisquare(8, PIECE)).astype(np.float32)[:, None]
        latent = np.empty_like(z)
        order = np.argsort(label, kind="stable")
        ends = np.searchsorted(label[order], np.arange(n_clusters + 1))
        for k in range(n_clusters):
            mine = order[ends[k] : ends[k + 1]]
            latent[mine] = z[mine] @ shapes[k] + centers[k].astype(np.float32)
        x = latent @ embed
        x += NOISE * rng.standard_normal((PIECE, d), dtype=np.float32)
        rows[start:stop] = x[: stop - start]
        labels[start:stop] = label[: stop - start]
    _finish(path, rows)
    np.save(labels_path(path), labels)
    return labels


def uniform(path: str | os.PathLike[str], n: int, d: int = 128, seed: int = 0) -> None:
    """Write samples uniform in the unit cube to `path` (float32 .npy, [n, d]), unless it is there already."""
    if _is_there(path, n, d):
        return
    rows = _create(path, n, d)
    for piece, start in enumerate(range(0, n, PIECE)):
        block = np.random.default_rng([seed, d, piece]).random((PIECE, d), dtype=np.float32)
        stop = min(start + PIECE, n)
        rows[start:stop] = block[: stop - start]
    _finish(path, rows)


def grown_images(path: str | os.PathLike[str], images: np.ndarray, n: int, seed: int = 0) -> None:
    """Write `n` images to `path` (uint8 .npy, [n, H, W]), copies of `images` (uint8, [m, H, W]), unless there already.

    Image i is a copy of image i mod m. The first m are the originals; each of the others is turned by an angle that is
    uniform in +-10 degrees and shifted by uniform +-2 pixels down and across, read by bilinear interpolation, zeros
    coming in from outside. The same arguments give the same file, and a longer file begins with a shorter one.
    """
    import torch

    from graphclust.nn.augmentation import affine_matrices, warp_rows

    m, *size = images.shape
    if _is_there(path, n, *size, dtype=np.uint8):
        return
    rows = _create(path, n, *size, dtype=np.uint8)
    shape = size[0], size[1], 1
    for piece, start in enumerate(range(0, n, PIECE)):
        stop = min(start + PIECE, n)
        number = np.arange(start, stop)
        # All of a piece is drawn, so that a longer file begins with a shorter one.
        drawn = np.random.default_rng([seed, piece]).uniform(-1, 1, (3, PIECE)).astype(np.float32)
        u = torch.from_numpy(drawn[:, : stop - start])
        none = torch.zeros(stop - start)
        matrices = affine_matrices(np.radians(10.0) * u[0], none + 1, none, 2.0 * u[1:].T)
        for part in np.array_split(np.arange(stop - start), 50):
            old = images[number[part] % m]
            x = torch.from_numpy(old.reshape(len(part), -1)).float()
            moved = (
                warp_rows(x, shape, matrices[part]).round().clamp(0, 255).byte().numpy().reshape(old.shape)
            )
            rows[start + part] = np.where((number[part] < m)[:, None, None], old, moved)
    _finish(path, rows)


def _is_there(path: str | os.PathLike[str], *shape: int, dtype: type = np.float32) -> bool:
    if not Path(path).exists():
        return False
    found = np.load(path, mmap_mode="r")
    return found.shape == shape and found.dtype == dtype


def _create(path: str | os.PathLike[str], *shape: int, dtype: type = np.float32) -> np.memmap:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    partial = Path(path).with_suffix(".partial")
    return np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)


def _finish(path: str | os.PathLike[str], rows: np.memmap) -> None:
    rows.flush()
    os.replace(Path(path).with_suffix(".partial"), path)


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--uniform", action="store_true", help="no clusters")
    arguments = parser.parse_args()
    if arguments.uniform:
        uniform(arguments.file, arguments.samples, arguments.features, arguments.seed)
    else:
        blobs(arguments.file, arguments.samples, arguments.features, arguments.clusters, arguments.seed)


if __name__ == "__main__":
    main()
