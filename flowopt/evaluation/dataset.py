"""Texts to evaluate on: lists, files, and names on a hub, read one at a time."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from flowopt.errors import InputError
from flowopt.evaluation.dataset_files import FILES, file_rows, hub_rows

__all__ = ["Dataset", "Example", "read_dataset"]

TEXT_NAMES = ("text", "sentence", "review", "content", "document")
LABEL_NAMES = ("label", "labels", "class")
ID_NAMES = ("id", "idx", "uid")
WORD_NAMES = ("words", "tokens")
MARK_NAMES = ("marks", "rationale", "mean_mask")


@dataclass(frozen=True)
class Example:
    """One text, with what is known of it.

    Parameters
    ----------
    id : str
    text : str
    label : int, str or None
        The right class, for protocols that explain it.
    words : tuple of str, optional
        The words that marks refer to; the text is these words with single blanks between them.
    marks : tuple of float, optional
        For each word how much people relied on it, 0 to 1; words are ``text.split(" ")`` where
        they are not given.

    Raises
    ------
    InputError
        If words and marks differ in number.
    """

    id: str
    text: str
    label: int | str | None = None
    words: tuple[str, ...] | None = None
    marks: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.marks is None:
            return
        words = self.text.split(" ") if self.words is None else self.words
        if len(words) != len(self.marks):
            raise InputError(
                f"example {self.id!r} has {len(words)} words and {len(self.marks)} marks; give "
                "one mark per word"
            )

    @property
    def text_digest(self) -> str:
        """SHA-256 of the text, its first 16 hexadecimal digits."""
        return _digest(self.text)

    @property
    def data_digest(self) -> str:
        """The same of label, words and marks: what else a value may depend on."""
        return _digest(json.dumps([self.label, self.words, self.marks]))


@dataclass(frozen=True)
class Dataset:
    """Examples that can be read again, without holding them all.

    Parameters
    ----------
    name : str
        For tables: a file's name, or that of a hub.
    read : callable
        Gives an iterator over the examples from the first on.
    size : int or None
        How many there are, where that is known without reading them.
    facts : mapping
        What was chosen: columns, filter.
    """

    name: str
    read: Callable[[], Iterator[Example]]
    size: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Example]:
        return self.read()


Source = str | PathLike[str] | Dataset | Iterable[str | Example | Mapping[str, Any]]


def read_dataset(
    source: Source,
    *,
    text: str | None = None,
    label: str | None = None,
    id: str | None = None,
    words: str | None = None,
    marks: str | None = None,
    where: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> Dataset:
    """Make a data set of a list, a file or a name.

    Parameters
    ----------
    source : path, name, or iterable
        A ``.jsonl``, ``.csv``, ``.tsv``, ``.parquet`` or ``.txt`` file (a text in each line);
        ``"name:split"`` or ``"name/config:split"`` for the package `datasets`; or texts,
        `Example` and mappings, also mixed.
    text, label, id, words, marks : str, optional
        Columns. Without them the first that exists of: text, sentence, review, content,
        document; label, labels, class; id, idx, uid; words, tokens (lists only); marks,
        rationale, mean_mask (lists only). Without an id, its number, from 0.
    where : mapping, optional
        Only rows whose columns have these values, as in ``{"split": "dev"}``.
    limit : int, optional
        The first so many of these.

    Raises
    ------
    InputError
        If there is no such file or column; the message lists the columns there are. Bad rows of
        a file raise it when they are reached.
    MissingDependencyError
        If a name is given and `datasets` is not installed.

    Examples
    --------
    >>> [example.text for example in read_dataset(["A dull film.", "A fine one."], limit=1)]
    ['A dull film.']
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InputError(f"limit must be a positive whole number, not {limit!r}")
    if isinstance(source, Dataset):
        return _limited(source, limit)
    columns = {"text": text, "label": label, "id": id, "words": words, "marks": marks}
    name, rows, size = _rows(source)
    plan = _Plan({role: column for role, column in columns.items() if column}, dict(where or {}))
    first = next(rows(), None)
    if first is None:
        raise InputError(f"{name} holds no text")
    if isinstance(first, Mapping):
        plan.check(first, name)
    facts = {**plan.columns, **({"where": plan.where} if plan.where else {})}
    found = Dataset(name, lambda: plan.examples(rows(), name), None if where else size, facts)
    return _limited(found, limit)


@dataclass(frozen=True)
class _Plan:
    """Which columns are what."""

    columns: Mapping[str, str]
    where: Mapping[str, Any]

    def check(self, row: Mapping[str, Any], name: str) -> None:
        """Refuse columns that are not there, before any work."""
        for column in (*self.columns.values(), *self.where):
            if column not in row:
                raise InputError(f"{name} has no column {column!r}; it has: {', '.join(row)}")
        if self._found(row, "text", TEXT_NAMES) is None:
            raise InputError(
                f"which column of {name} is the text? It has: {', '.join(map(str, row))}; name "
                "one with text="
            )

    def examples(self, rows: Iterator[Any], name: str) -> Iterator[Example]:
        number = -1
        for row in rows:
            if isinstance(row, Mapping) and any(
                str(row.get(column)) != str(value) for column, value in self.where.items()
            ):
                continue
            number += 1
            yield self._example(row, number, name)

    def _example(self, row: Any, number: int, name: str) -> Example:
        if isinstance(row, Example):
            return row
        if isinstance(row, str):
            return Example(str(number), row)
        if not isinstance(row, Mapping):
            raise InputError(
                f"{name}, number {number}: give a str, an Example or a mapping with a text, not "
                f"{type(row).__name__}"
            )
        if lacking := [each for each in self.columns.values() if each not in row]:
            raise InputError(f"{name}, number {number} has no {lacking[0]!r}; it has {list(row)}")
        words = self._sequence(row, "words", WORD_NAMES)
        marks = self._sequence(row, "marks", MARK_NAMES)
        column = self._found(row, "text", TEXT_NAMES)
        if column is None and words is None:
            raise InputError(f"{name}, number {number} has no text; it has: {', '.join(row)}")
        # A text that is no string fails later, as the text's own failure.
        text = row[column] if column is not None else None
        if marks is not None and words is not None:
            text = " ".join(map(str, words))
        label = self._found(row, "label", LABEL_NAMES)
        known = self._found(row, "id", ID_NAMES)
        return Example(
            id=str(number if known is None or row[known] is None else row[known]),
            text="" if text is None else str(text),
            label=None if label is None else _label(row[label]),
            words=None if words is None or marks is None else tuple(map(str, words)),
            marks=None if marks is None else _weights(marks, name, number),
        )

    def _found(self, row: Mapping[str, Any], role: str, names: Sequence[str]) -> str | None:
        if role in self.columns:
            return self.columns[role]
        return next((each for each in names if each in row), None)

    def _sequence(
        self, row: Mapping[str, Any], role: str, names: Sequence[str]
    ) -> Sequence[Any] | None:
        column = self._found(row, role, names)
        found = None if column is None else row.get(column)
        return found if isinstance(found, (list, tuple)) else None


def _rows(source: Any) -> tuple[str, Callable[[], Iterator[Any]], int | None]:
    """Name, a way to read, and the size of any source."""
    if isinstance(source, (str, PathLike)):
        path = Path(source).expanduser()
        if path.suffix.lower() in FILES:
            if not path.is_file():
                raise InputError(f"there is no file {str(source)!r}")
            return path.name, lambda: file_rows(path), None
        if path.exists() or ":" not in str(source):
            raise InputError(
                f"cannot read {str(source)!r}: give a file that ends in {', '.join(FILES)}, or a "
                "name with its split for the package datasets, as in 'imdb:test'"
            )
        rows = hub_rows(str(source))
        return str(source), lambda: iter(rows), len(rows) if hasattr(rows, "__len__") else None
    if isinstance(source, (bytes, Mapping)) or not hasattr(source, "__iter__"):
        raise InputError(f"a data set is a list of texts, a file or a name, not {source!r}")
    if iter(source) is source:  # read once only: the first row is looked at before the others
        return "texts", _tee(source), None
    return "texts", lambda: iter(source), len(source) if hasattr(source, "__len__") else None


def _tee(rows: Iterator[Any]) -> Callable[[], Iterator[Any]]:
    """Keep what two first looks read: for columns, and for a row that a filter lets pass."""
    kept: list[Any] = []
    calls = itertools.count()

    def looked() -> Iterator[Any]:
        yield from tuple(kept)
        for row in rows:
            kept.append(row)
            yield row

    return lambda: looked() if next(calls) < 2 else itertools.chain(tuple(kept), rows)


def _limited(found: Dataset, limit: int | None) -> Dataset:
    if limit is None:
        return found
    size = None if found.size is None else min(found.size, limit)
    return Dataset(found.name, lambda: itertools.islice(found.read(), limit), size, found.facts)


def _label(value: Any) -> int | str | None:
    """A class number where it looks like one: files of text know no numbers."""
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*-?[0-9]+\s*", value) else value
    return value if isinstance(value, int) else str(value)


def _weights(marks: Sequence[Any], name: str, number: int) -> tuple[float, ...]:
    try:
        found = tuple(float(mark) for mark in marks)
    except (TypeError, ValueError):
        found = (math.nan,)
    if not all(math.isfinite(mark) for mark in found):
        raise InputError(f"{name}, number {number}: marks must be finite numbers, one per word")
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
