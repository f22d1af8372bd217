"""Tables of numbers in, from .csv, .tsv, .txt and .parquet: one row a sample."""

from __future__ import annotations

import codecs
import gzip
import re
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame, Series

__all__ = ["Table", "listed", "read_table"]

# Lines that tell what marks the decimals.
_FIRST_LINES = 100


class Table(NamedTuple):
    """A table that was read.

    Attributes
    ----------
    values : ndarray [N, d]
    labels : ndarray [N] or None
        The column of true classes, where one was named.
    columns : list of str or None
        Names of the d columns; None where the file has no header, or a column of vectors was read.
    names : ndarray [N] or None
        Names of the samples: the column that was asked for, else what the file itself marks as row names.
    """

    values: np.ndarray
    labels: np.ndarray | None
    columns: list[str] | None
    names: np.ndarray | None


def read_table(
    path: Path,
    *,
    key: str | None = None,
    labels: str | None = None,
    ignore: Sequence[str] = (),
    names: str | None = None,
    columns: Sequence[str] | None = None,
    by_command: bool = True,
) -> Table:
    """Read a table; see `graphclust._files.read_features`, which this is a part of.

    Raises
    ------
    ValueError
        Where a column is missing or holds no numbers; the message names the column and a value.
    """
    table = _parse(path)
    has_header = not all(isinstance(name, int) for name in table.columns)
    table.columns = [str(name) for name in table.columns]
    for name in (key, labels, names, *ignore):
        if name is not None and name not in table.columns:
            raise ValueError(f"{path} has no column {name!r}: it holds {listed(list(table.columns))}")
    true = None if labels is None else table[labels].to_numpy()
    called = _row_names(table) if names is None else table[names].to_numpy()
    if called is not None and called.dtype.kind not in "iu":
        called = called.astype(str)
    if key is not None:
        return Table(_vectors(table[key], path), true, None, called)
    left = table.drop(columns=list({*ignore, *(name for name in (labels, names) if name is not None)}))
    if columns is not None and has_header:
        # By their names: a table of the same columns in another order would else be read wrongly, and silently.
        if missing := [name for name in columns if name not in left]:
            raise ValueError(
                f"{path} has no column {listed(missing)}, which the model was fitted to: it holds "
                f"{listed(list(left.columns))}"
            )
        left = left[list(columns)]
    else:
        for name in _row_numbers(left):
            warnings.warn(
                f"{path}: column {name!r} counts the rows and is taken as a feature; if it is their number, "
                + _leaving_out(name, by_command),
                stacklevel=2,
            )
    return Table(_numbers(left, path, by_command), true, list(left.columns) if has_header else None, called)


def _row_names(table: DataFrame) -> np.ndarray | None:
    """What pandas took as names of the rows: the index of a .parquet, the column that R writes without a header."""
    from pandas import RangeIndex

    return None if isinstance(table.index, RangeIndex) else table.index.to_numpy()


def _row_numbers(table: DataFrame) -> list[str]:
    """Columns of whole numbers that grow by one from row to row."""
    import pandas as pd

    found = []
    for name in table.columns:
        column = table[name]
        if len(column) > 2 and pd.api.types.is_integer_dtype(column) and not column.isna().any():
            steps = np.diff(column.to_numpy(dtype=np.int64))
            if bool((steps == 1).all()):
                found.append(str(name))
    return found


def _parse(path: Path) -> DataFrame:
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        return pd.read_parquet(path)
    encoding = _encoding(path)
    with _open_text(path, encoding) as file:
        lines = list(islice(file, _FIRST_LINES))
    first = lines[0] if lines else ""
    separator = _separator(lines)
    decimal = _decimal_mark(lines, separator)
    # A first line of numbers alone is data. Columns without a header are called 0, 1, 2, ...
    cells = re.split(separator, first.strip())
    header = None if all(_is_number(cell, decimal) for cell in cells) else 0
    if _are_counted(cells) and not _are_counted(re.split(separator, "".join(lines[1:2]).strip()), len(cells)):
        header = 0  # names that pandas gives to columns without any
    try:
        table = pd.read_csv(path, sep=separator, header=header, encoding=encoding, decimal=decimal)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty: one row a sample is needed") from None
    if len(table) == 0:
        raise ValueError(f"{path} holds a header and no rows: one row a sample is needed")
    if table.index.nlevels > 1:
        # pandas takes all columns but the last ones as names of the rows then, and says nothing.
        wide = table.shape[1] + table.index.nlevels
        raise ValueError(
            f"{path}: the first line has fewer cells than the next ones ({table.shape[1]} and {wide}): remove what "
            "stands above the header"
        )
    return table


def _encoding(path: Path) -> str:
    """UTF-8, UTF-16 with its mark (Excel's "Unicode text"), or else what spreadsheets of Western Europe write."""
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as raw:
        if raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    with _open_text(path, "utf-8-sig") as file:
        try:
            while file.read(1 << 20):
                pass
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"


def _open_text(path: Path, encoding: str) -> IO[str]:
    return (
        gzip.open(path, "rt", encoding=encoding)
        if path.suffix.lower() == ".gz"
        else path.open(encoding=encoding)
    )


def _are_counted(cells: Sequence[str], first: int = 0) -> bool:
    """Whether cells are 0, 1, 2, ... to the last; a single one may be a value."""
    return len(cells) > 1 and [cell.strip('" ') for cell in cells] == [
        str(first + i) for i in range(len(cells))
    ]


def _separator(lines: Sequence[str]) -> str:
    """A tab or semicolon that all lines have equally often (commas mark decimals too), or the commonest.

    Where no line has any of these marks, white space that all lines have equally often: what NumPy's savetxt writes.
    """
    counted = [line for line in lines if line.strip()] or [""]
    for mark in "\t;":
        if mark in counted[0] and len({line.count(mark) for line in counted}) == 1:
            return mark
    if not any(mark in line for line in counted for mark in ",;\t"):
        cells = {len(line.split()) for line in counted}
        return r"\s+" if len(cells) == 1 and cells != {1} else ","
    return max(",;\t", key=counted[0].count)


def _decimal_mark(lines: Sequence[str], separator: str) -> str:
    """A comma where it stands inside of numbers, and no point does; spreadsheets of many countries write 1,5."""
    if separator == ",":
        return "."
    cells = [cell.strip().strip('"') for line in lines for cell in re.split(separator, line.strip())]
    with_comma = any(re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", cell) for cell in cells)
    with_point = any(re.fullmatch(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", cell) for cell in cells)
    return "," if with_comma and not with_point else "."


def _is_number(cell: str, decimal: str) -> bool:
    try:
        float(cell.strip().strip('"').replace(decimal, "."))
    except ValueError:
        return not cell.strip()  # an empty cell is a missing number, not a name
    return True


def _leaving_out(name: str, by_command: bool) -> str:
    """How whoever reads a table leaves a column out: by an option, or where Python called, by pandas."""
    if by_command:
        return "leave the column out (--ignore)"
    return f"read the table with pandas and pass it without the column, table.drop(columns=[{name!r}])"


def _numbers(table: DataFrame, path: Path, by_command: bool) -> np.ndarray:
    import pandas as pd

    wrong = [
        name
        for name in table.columns
        if not (pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_bool_dtype(table[name]))
    ]
    if wrong:
        raise ValueError(
            f"{path}: the values of {listed(wrong)} are not numbers{_example(table[wrong[0]], by_command)}"
        )
    missing = table.isna().any()
    if missing.any():
        name = missing.idxmax()
        row = int(np.flatnonzero(table[name].isna())[0])
        raise ValueError(
            f"{path}: column {name!r} has no value in row {row} (from 0): fill it, or "
            + _leaving_out(str(name), by_command)
        )
    return table.to_numpy(dtype=np.float64 if (table.dtypes == np.float64).any() else np.float32)


def _example(column: Series, by_command: bool) -> str:
    """The first value of a column that is no number, and what to do: a single "?" needs another cure than names do."""
    import pandas as pd

    known = column.dropna()
    strange = known[pd.to_numeric(known, errors="coerce").isna()]
    remedy = without = _leaving_out(str(column.name), by_command)
    if by_command:
        remedy += ", or name it as the true class (--labels)"
    if not len(strange):
        return f"; {remedy}"
    example = (
        f", for example {strange.iloc[0]!r} in row {int(np.flatnonzero(column.index == strange.index[0])[0])}"
    )
    if len(strange) < len(known):
        return f"{example} (from 0; {len(strange)} of {len(column)}): correct them, or {without}"
    if by_command and len(column) > 1 and known.is_unique:
        remedy += ", or as the samples' names (--names)"
    return f"{example} (from 0); {remedy}"


def _vectors(column: Series, path: Path) -> np.ndarray:
    """A column that holds one vector a row, as embedding tables have."""
    rows = [np.asarray(row, dtype=np.float32) if np.ndim(row) == 1 else None for row in column]
    lengths = {len(row) for row in rows if row is not None}
    if any(row is None for row in rows) or len(lengths) != 1:
        raise ValueError(f"{path}: column {column.name!r} must hold one vector a row, all of one length")
    return np.stack([row for row in rows if row is not None])


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, quoted, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:most])
    return (shown or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")
