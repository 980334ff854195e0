"""Rows of files and of the package `datasets`, one at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flowopt.errors import InputError, MissingDependencyError

__all__ = ["FILES", "file_rows", "hub_rows"]

_LONGEST_FIELD = 2**27
"""Characters of one field; Python's csv allows 131,072 unless told."""


def file_rows(path: Path) -> Iterator[Any]:
    """Rows of a file by its ending: mappings, or texts.

    Raises
    ------
    InputError
        When a row is reached that cannot be read; the message has its line.
    """
    try:
        yield from FILES[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text ({error.reason}); convert it") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def hub_rows(name: str) -> Any:
    """Rows of a name such as "imdb:test" or "glue/sst2:validation".

    A part before the first slash may be an owner or, where there is no such data set, the data
    set whose configuration follows.

    Raises
    ------
    MissingDependencyError
    InputError
        If the data set cannot be loaded.
    """
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            f"the name {name!r} needs the package datasets: pip install 'flowopt[datasets]'"
        ) from None
    place, _, split = name.rpartition(":")
    parts = place.split("/")
    attempts: list[tuple[str, ...]] = [(place,)]
    if len(parts) > 1:
        attempts.append(("/".join(parts[:-1]), parts[-1]))
    if len(parts) > 2:
        attempts.reverse()
    reasons = []
    for attempt in attempts:
        try:
            return datasets.load_dataset(*attempt, split=split)
        # From a name that does not exist to a network failure: many types end up here.
        except Exception as error:
            reasons.append(str(error).strip().partition("\n")[0][:160])
    raise InputError(
        f"cannot load {name!r} with the package datasets: {reasons[0]} Check the name, "
        "'name:split' or 'name/config:split'; without network give a file"
    )


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path.name}, line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise InputError(f"{path.name}, line {number} is no JSON object")
            yield row


def _separated(path: Path, **layout: Any) -> Iterator[Mapping[str, Any]]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True, **layout)
            try:
                for row in reader:
                    if None in row or None in row.values():
                        raise InputError(
                            f"{path.name}, line {reader.line_num} has another number of fields "
                            "than the first line"
                        )
                    yield row
            except csv.Error as error:
                raise InputError(f"{path.name}, line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(before)


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    return _separated(path)


def _tsv(path: Path) -> Iterator[Mapping[str, Any]]:
    # Files of this kind hold quotation marks as they are.
    return _separated(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise InputError(f"cannot read {path.name} as parquet: {error}") from None


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as lines:
        yield from (line.rstrip("\r\n") for line in lines if line.strip())


FILES: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".txt": _lines,
}
"""How files are read, by the ending of their names."""
