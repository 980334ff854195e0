"""Rows of results in a folder: every text is in a parquet file as soon as it is done.

What is finished becomes a small file at once, written beside its name and renamed, so that
whatever kills the process can only lose texts that were not finished. Small files are merged as
they gather; a merge is renamed before its parts are deleted, so that a row may be there twice but
never not. Reading keeps the latest row of a piece of work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from flowopt.errors import InputError

__all__ = [
    "COLUMNS",
    "Row",
    "Store",
    "columns_of_metrics",
    "curve_column",
    "open_store",
    "read_runs",
]

Row = dict[str, Any]
ROWS, RUNS, _LOCK = "rows", "runs.jsonl", "lock"
_MERGED_AT = 64  # files of one size before they become one file
_LARGE = 100_000  # rows from which a file is left alone
_CURVE = " curve"

COLUMNS: dict[str, pa.DataType] = {
    "example": pa.string(),
    "work": pa.string(),
    "model": pa.string(),
    "model_revision": pa.string(),
    "tokenizer_revision": pa.string(),
    "dataset": pa.string(),
    "position": pa.int64(),
    "id": pa.string(),
    "text_digest": pa.string(),
    "label": pa.string(),
    "method": pa.string(),
    "method_name": pa.string(),
    "settings_digest": pa.string(),
    "settings": pa.string(),
    "protocol": pa.string(),
    "seed": pa.int64(),
    "metrics": pa.string(),
    "status": pa.string(),
    "error": pa.string(),
    "note": pa.string(),
    "tokens": pa.int64(),
    "prediction": pa.string(),
    "target": pa.string(),
    "probability": pa.float64(),
    "forward": pa.int64(),
    "backward": pa.int64(),
    "seconds": pa.float64(),
    "measure_forward": pa.int64(),
    "measure_seconds": pa.float64(),
    "scores": pa.list_(pa.float64()),
    "flowopt": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
}
"""Columns of every row; one per metric (its name) and per curve (its name and "curve") follow.

``example`` and ``work`` together are the key of a row: digests of (data set, id, text, label,
words, marks), and of (model, tokenizer, protocol, seed, method, settings).
"""


def curve_column(name: str) -> str:
    """Name of a curve's column."""
    return name + _CURVE


def columns_of_metrics(names: Sequence[str]) -> list[str]:
    """Those columns of a table that are metrics."""
    return [name for name in names if name not in COLUMNS and not name.endswith(_CURVE)]


@dataclass
class Store:
    """Where rows are kept: a folder, or memory.

    Attributes
    ----------
    folder : Path or None
        None keeps rows in memory.
    kept : list of pyarrow.Table
        The rows, without a folder.
    """

    folder: Path | None
    kept: list[pa.Table] = field(default_factory=list)
    _number: int = 0
    _small: dict[int, list[Path]] = field(default_factory=dict)
    _lock: Any = None

    def add(self, rows: Sequence[Row]) -> None:
        """Keep the rows of finished texts: all of them or, if the process dies now, none."""
        table = _table(rows)
        if self.folder is None:
            self.kept.append(table)
            return
        self._keep(0, [table])

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows, file by file, older files first; columns that a file lacks are left out."""
        if self.folder is None:
            yield from (
                table if columns is None else _select(table, columns) for table in self.kept
            )
            return
        for path in _parts(self.folder):
            present = parquet.read_schema(path).names
            wanted = None if columns is None else [name for name in columns if name in present]
            yield parquet.read_table(path, columns=wanted, partitioning=None)

    def compact(self) -> None:
        """Merge all files that are not large into one, file by file."""
        if self.folder is None:
            return
        small = [
            path for path in _parts(self.folder) if parquet.read_metadata(path).num_rows < _LARGE
        ]
        if len(small) > 1:
            self._merge(max(map(_level, small)) + 1, small)
        self._small.clear()

    def record_run(self, facts: Mapping[str, Any]) -> None:
        """Append what a call asked for, and on which machine."""
        if self.folder is None:
            return
        with (self.folder / RUNS).open("a", encoding="utf-8") as out:
            out.write(json.dumps(facts) + "\n")

    def close(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            self._lock.release()

    def _keep(self, level: int, tables: Sequence[pa.Table] | Iterator[pa.Table]) -> None:
        path = self._next(level)
        _write(path, tables)
        gathered = self._small.setdefault(level, [])
        gathered.append(path)
        if len(gathered) >= _MERGED_AT:
            self._small[level] = []
            self._merge(level + 1, gathered)

    def _merge(self, level: int, paths: Sequence[Path]) -> None:
        self._keep(level, _aligned(paths))
        for path in paths:
            path.unlink()

    def _next(self, level: int) -> Path:
        assert self.folder is not None
        self._number += 1
        return self.folder / ROWS / f"part-{self._number:09d}-{level}.parquet"


def open_store(folder: Path | None) -> Store:
    """Open a folder for writing, or memory.

    Raises
    ------
    InputError
        If the folder holds something else, or another process writes there.
    """
    if folder is None:
        return Store(None)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the results")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ROWS).is_dir():
        raise InputError(
            f"{folder} holds other files and no results; give a new folder, or one to resume"
        )
    try:
        (folder / ROWS).mkdir(parents=True, exist_ok=True)
        lock = _locked(folder)
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}; give another folder"
        ) from None
    for left in (folder / ROWS).glob("*.tmp"):
        left.unlink()
    found = Store(folder, _lock=lock)
    for path in _parts(folder):
        found._number = max(found._number, int(path.stem.split("-")[1]))
    return found


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """What every call asked for, oldest first; a line cut short is passed over.

    Raises
    ------
    InputError
        If the folder holds no results.
    """
    path = folder / RUNS
    if not path.is_file():
        raise InputError(f"{folder} holds no results; give the folder that was out=")
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    if not found:
        raise InputError(f"{path} cannot be read; run the evaluation again with the same folder")
    return found


def _locked(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process is writing to {folder}; wait for it, or give another folder"
        ) from None
    return lock


def _parts(folder: Path) -> list[Path]:
    return sorted((folder / ROWS).glob("part-*.parquet"))


def _level(path: Path) -> int:
    return int(path.stem.split("-")[2])


def _table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table: a column for every metric and curve that one of them has."""
    types = dict(COLUMNS)
    for name in (name for row in rows for name in row):
        if name not in types:
            curve = name.endswith(_CURVE)
            types[name] = pa.list_(pa.float64()) if curve else pa.float64()
    return pa.Table.from_pylist(list(rows), schema=pa.schema(list(types.items())))


def _select(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    return table.select([name for name in columns if name in table.column_names])


def _aligned(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Tables of files one after the other, all with the columns of all."""
    schema = pa.unify_schemas([parquet.read_schema(path) for path in paths])
    for path in paths:
        table = parquet.read_table(path, partitioning=None)
        for each in schema:
            if each.name not in table.column_names:
                table = table.append_column(each, pa.nulls(len(table), each.type))
        yield table.select(schema.names)


def _write(path: Path, tables: Sequence[pa.Table] | Iterator[pa.Table]) -> None:
    """Write a file that is either whole or not there."""
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as out:
        writer = None
        gathered: list[pa.Table] = []
        for table in tables:
            gathered.append(table)
            if sum(map(len, gathered)) >= _LARGE:
                writer = _group(writer, out, gathered)
                gathered = []
        if gathered:
            writer = _group(writer, out, gathered)
        if writer is not None:
            writer.close()
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(path)


def _group(writer: Any, out: Any, tables: Sequence[pa.Table]) -> Any:
    table = pa.concat_tables(tables)
    if writer is None:
        writer = parquet.ParquetWriter(out, table.schema, compression="zstd")
    writer.write_table(table)
    return writer
