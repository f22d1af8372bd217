"""What `cluster` and `predict` print about the labels that they found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import numpy as np

    from graphclust._files import FeatureTable


def print_summary(
    console: Console, file: Path, table: FeatureTable, labels: np.ndarray, seconds: float, graph: Any = None
) -> None:
    """A table of what was found; scores only where true labels were named."""
    import numpy as np

    if console.quiet:
        return
    sizes = np.sort(np.unique(labels, return_counts=True)[1])[::-1]
    rows = Table(show_header=False, title=str(file), title_justify="left")
    rows.add_row("samples", f"{table.x.shape[0]:,} with {table.x.shape[1]:,} features")
    if graph is not None:
        rows.add_row("edges", f"{graph.edge_index.shape[1]:,}")
    rows.add_row("clusters", f"{len(sizes)}, of {sizes[-1]:,} to {sizes[0]:,} samples")
    if graph is not None:
        from graphclust.metrics import modularity

        rows.add_row("modularity", f"{modularity(graph, labels):.3f}")
    if table.labels is not None:
        from graphclust.metrics import evaluate

        for name, score in evaluate(table.labels, labels).items():
            rows.add_row(name, f"{score:.3f}")
    rows.add_row("time", f"{seconds:.1f} s")
    console.print(rows)
