"""The contents of the page as plain data: what JSON can hold and the page's scripts read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import numpy as np

from graphclust import __version__
from graphclust.report._measures import Measures
from graphclust.report._style import cluster_colors
from graphclust.report._thumbnails import Sheets

_EXAMPLES = 24  # representatives, borderline and outlying samples that are named for each cluster


def as_text(name: Any) -> str:
    """A name as text, whatever its type."""
    return os.fsdecode(name) if isinstance(name, (bytes, os.PathLike)) else str(name)


def as_address(path: str) -> str:
    """A path as part of an address, its bytes as they are on the disk, as JavaScript's encodeURIComponent has them."""
    return quote(os.fsencode(path.replace(os.sep, "/")), safe="/!*'()")


def plain_text(text: Any) -> str:
    """Text without lone surrogates, which no file can hold."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def example_samples(measures: Measures) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Representatives, borderline and outlying samples of each cluster."""
    found = []
    for cluster in range(len(measures.labels)):
        members = measures.members(cluster)
        borderline = members[np.argsort(measures.margin[members], kind="stable")]
        borderline = borderline[measures.second[borderline] >= 0]
        outlying = members[np.argsort(-measures.outlying[members], kind="stable")]
        found.append((members[:_EXAMPLES], borderline[:_EXAMPLES], outlying[:_EXAMPLES]))
    return found


def cluster_records(
    measures: Measures,
    examples: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    place: np.ndarray,
    cluster_names: Mapping[Any, str] | None,
) -> list[dict[str, Any]]:
    """What the page knows of each cluster: label, colour, figures, nearest clusters, examples."""
    from matplotlib.colors import to_hex

    colors = [to_hex(color) for color in cluster_colors(measures.labels)]
    result = []
    for k, label in enumerate(measures.labels):
        members = measures.members(k)
        points = place[members].astype(np.float64)
        middle = members[np.square(points - np.median(points, axis=0)).sum(axis=1).argmin()]
        row = measures.shares[[k]].tocoo()
        others = [(int(c), float(v)) for c, v in zip(row.col, row.data) if c != k and v > 0]
        noise = measures.has_noise and k == len(measures.labels) - 1
        name = (cluster_names or {}).get(label)
        result.append(
            {
                "label": "–" if noise else as_text(label),
                "name": ("Noise" if noise else None) if name is None else as_text(name),
                "noise": noise,
                "color": colors[k],
                "size": int(measures.sizes[k]),
                "certainty": rounded(measures.mean_certainty[k]),
                "cohesion": rounded(measures.cohesion[k]),
                "silhouette": rounded(measures.silhouette[k]),
                "near": [[c, rounded(v)] for c, v in sorted(others, key=lambda pair: -pair[1])[:6]],
                "anchor": int(middle),
                "representative": examples[k][0].tolist(),
                "borderline": examples[k][1].tolist(),
                "outlying": examples[k][2].tolist(),
            }
        )
    return result


def tree_record(linkage: np.ndarray | None) -> dict[str, Any] | None:
    """The merges of a linkage and the order of its leaves."""
    if linkage is None:
        return None
    from scipy.cluster.hierarchy import leaves_list

    # Above this no edge joins the two sides (`merge_parts` gives such pairs a weight of 1e-12).
    unlinked = -np.log(1.1e-12)
    merges = [[int(a), int(b), rounded(h), bool(h >= unlinked)] for a, b, h, _ in linkage]
    return {"merges": merges, "order": leaves_list(linkage).tolist()}


def sheet_record(sheets: Sheets | None, folder: str, n_front: int) -> dict[str, Any] | None:
    """How the sheets of thumbnails are laid out, and their files."""
    if sheets is None:
        return None
    return {
        "cell": sheets.cell,
        "columns": sheets.columns,
        "each": sheets.per_sheet,
        "front": n_front,
        "pixelated": sheets.pixelated,
        "mime": sheets.mime,
        "files": ["./" + as_address(folder) + "/" + name for name in sheets.files],
    }


def made_sections(
    how_made: Mapping[str, Any] | None,
    graph: Any,
    measures: Measures,
    features_name: str | None,
    sheets: Sheets | None,
) -> list[list[Any]]:
    """Sections of [key, value] pairs, all text."""
    given = {} if how_made is None else dict(how_made)
    sections: dict[str, dict[str, Any]] = {
        "Result": {
            "Samples": f"{len(measures.codes):,}",
            "Clusters": f"{len(measures.labels) - measures.has_noise:,}",
            **({"Features": features_name} if features_name else {}),
        }
    }
    plain = {key: value for key, value in given.items() if not isinstance(value, Mapping)}
    sections["Result"].update(plain)
    sections.update({str(key): dict(value) for key, value in given.items() if isinstance(value, Mapping)})
    construction = getattr(graph, "construction", None)
    if isinstance(construction, Mapping) and construction:
        sections.setdefault("Sample graph", dict(construction))
        sections["Sample graph"].setdefault("edges", f"{graph.num_edges:,}")
    page = {"Written": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")}
    if sheets is not None and sheets.n_missing:
        page["Images that could not be read"] = f"{sheets.n_missing:,}"
    sections["This page"] = {**page, "graphclust": __version__}
    return [
        [
            plain_text(name),
            [[plain_text(key).replace("_", " "), _value(value)] for key, value in section.items()],
        ]
        for name, section in sections.items()
    ]


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{plain_text(key)}: {_value(item)}" for key, item in value.items())
    return "–" if value is None else plain_text(value)


def rounded(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None
