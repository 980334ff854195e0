"""One attribution for each token of a generated text, side by side: a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.attribution import stored
from flowopt.attribution.attribution import Attribution
from flowopt.attribution.words import WordScore
from flowopt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["SCHEMA", "AttributionMatrix"]

SCHEMA = "flowopt.attribution-matrix/1"
"""Name and version of the stored form."""

_WORST_FIRST = ("failed", "inaccurate", "feasible", "optimal")


@dataclass(frozen=True, eq=False)
class AttributionMatrix:
    """Flow from every generated token (a row) to every token of the prompt or source (a column).

    Parameters
    ----------
    rows : tuple of Attribution
        One for each of the n generated tokens, in order; all over the same t tokens.
    output : str or None
        The generated text.

    Raises
    ------
    InputError
        If there are no rows, or they are not over the same tokens.
    """

    rows: tuple[Attribution, ...]
    output: str | None = None

    def __post_init__(self) -> None:
        rows = tuple(self.rows)
        if not rows or not all(isinstance(row, Attribution) for row in rows):
            raise InputError("a matrix needs at least one row, all of them Attribution")
        if any(row.tokens != rows[0].tokens for row in rows):
            raise InputError("the rows of a matrix must be over the same tokens")
        object.__setattr__(self, "rows", rows)

    @property
    def scores(self) -> Array:
        """Scores (n, t): row k sums to ``rows[k].value``, generated tokens' own scores apart."""
        return np.stack([row.scores for row in self.rows])

    @property
    def source_tokens(self) -> tuple[str, ...]:
        """The t tokens of the prompt or the source."""
        return self.rows[0].tokens

    @property
    def output_tokens(self) -> tuple[str, ...]:
        """The n generated tokens."""
        return tuple(row.target.label for row in self.rows)

    @property
    def text(self) -> str | None:
        """The prompt or the source."""
        return self.rows[0].text

    @property
    def prefix_scores(self) -> tuple[Array, ...] | None:
        """For each row the scores of its `prefix_tokens`; None where generation was unrolled."""
        if all(row.prefix_scores is None for row in self.rows):
            return None
        found = [row.prefix_scores for row in self.rows]
        return tuple(np.empty(0) if scores is None else scores for scores in found)

    @property
    def values(self) -> Array:
        """The value of each row's flow (n,)."""
        return np.array([row.value for row in self.rows])

    @property
    def status(self) -> str:
        """The worst status of a row."""
        found = {str(row.status) for row in self.rows}
        return next((status for status in _WORST_FIRST if status in found), min(found))

    @property
    def attribution_error(self) -> Array | None:
        """Bound on the error of every score (n, t); None where a row has none."""
        bounds = [row.attribution_error for row in self.rows]
        known = [bound for bound in bounds if bound is not None]
        return np.stack(known) if len(known) == len(bounds) else None

    def normalised(self) -> Array:
        """Scores (n, t) with rows that sum to 1, or to 0 where nothing flows.

        Signed rows are divided by the sum of their absolute values instead.
        """
        scores = self.scores
        totals = np.abs(scores).sum(axis=1, keepdims=True)
        shares: Array = np.divide(scores, totals, out=np.zeros_like(scores), where=totals > 0)
        return shares

    def words(self, include_special: bool = False) -> list[list[WordScore]]:
        """For each row the scores of the source's words, sub-words summed."""
        return [row.words(include_special) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Attribution]:
        return iter(self.rows)

    def __getitem__(self, place: int) -> Attribution:
        return self.rows[place]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows' solutions, as plain numbers, strings, lists and dicts."""
        return {
            "schema": SCHEMA,
            "text": self.text,
            "output": self.output,
            "source_tokens": list(self.source_tokens),
            "output_tokens": list(self.output_tokens),
            "status": self.status,
            "rows": [row.to_dict() for row in self.rows],
        }

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return JSON text, and write it to a file where a path is given.

        Lossless for all but the rows' solutions: floats keep every bit.
        """
        text = stored.dumps(self.to_dict())
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | PathLike[str]) -> AttributionMatrix:
        """Read what `to_json` wrote: JSON text, or the path of a file.

        Raises
        ------
        InputError
            If there is no such file, or it was not written by `to_json`.
        """
        return cls.from_dict(stored.loads(source, SCHEMA, "AttributionMatrix.to_json"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AttributionMatrix:
        """Rebuild a matrix from `to_dict`.

        Raises
        ------
        InputError
            If a field is missing or has another type.
        """
        with stored.explained_errors(values):
            rows = tuple(Attribution.from_dict(row) for row in values["rows"])
            output = values["output"]
            return cls(rows, None if output is None else str(output))

    def to_html(self, path: str | PathLike[str] | None = None) -> str:
        """Return a stand-alone HTML page, and write it to a file where a path is given."""
        from flowopt.viz.html import to_html

        page = str(to_html(self))
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page

    def plot(self, ax: Any = None, *, include_special: bool = True) -> Any:
        """Draw the normalised scores as a heat map with matplotlib, into `ax` where given."""
        from flowopt.viz.images import plot_matrix

        return plot_matrix(self, ax=ax, include_special=include_special)

    def _repr_html_(self) -> str:
        from flowopt.viz.html import fragment

        return str(fragment(self))

    def __rich__(self) -> Any:
        from flowopt.viz.matrix import render_matrix

        return render_matrix(self)

    def __str__(self) -> str:
        from flowopt.plain import plain_text

        return plain_text(self)
