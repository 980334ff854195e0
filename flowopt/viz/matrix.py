"""A matrix of attributions: as a shaded table on a page, and in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.style import Style
from rich.table import Table
from rich.text import Text

from flowopt.viz import content
from flowopt.viz.cards import Card, card_of, css_class, facts_of
from flowopt.viz.palette import ink, relative_levels, shade

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console, ConsoleOptions, RenderableType

    from flowopt.attribution import AttributionMatrix

    Array = NDArray[np.float64]

__all__ = ["MatrixCard", "matrix_card", "render_matrix", "shares_of"]

_MOST_CARDS = 40  # rows that get a card of their own on a page
_LABEL, _CELL, _WIDEST = 14, 4, 9
_TOP = 4


@dataclass(frozen=True)
class _Cell:
    text: str
    css: str
    title: str


@dataclass(frozen=True)
class _MatrixRow:
    token: str
    cells: tuple[_Cell, ...]
    value: str
    card: Card | None


@dataclass(frozen=True)
class MatrixCard:
    """All that the template shows of a matrix."""

    source: str
    output: str
    how: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[_MatrixRow, ...]
    note: str
    proof: str
    hints: tuple[str, ...]
    proved: bool
    facts: tuple[tuple[str, str], ...]
    template: str = "matrix.html"


def shares_of(matrix: AttributionMatrix) -> tuple[Array, Array | None]:
    """Shares (n, t) of every row's flow, and what earlier generated tokens take of it (n,).

    Without signs the two sum to 1 in each row; the second is None where generation is unrolled.
    """
    prefix = matrix.prefix_scores
    taken = np.zeros(len(matrix))
    if prefix is not None:
        taken = np.array([np.abs(each).sum() for each in prefix])
    totals = (np.abs(matrix.scores).sum(axis=1) + taken)[:, None]
    shares = np.divide(matrix.scores, totals, out=np.zeros_like(matrix.scores), where=totals > 0)
    if prefix is None:
        return shares, None
    return shares, np.divide(taken, totals[:, 0], out=np.zeros_like(taken), where=totals[:, 0] > 0)


def levels_of(matrix: AttributionMatrix, shares: Array) -> Array:
    """Shares over the largest of a token that is not special, clipped to [-1, 1]."""
    plain = np.abs(shares[:, ~matrix.rows[0].special])
    largest = float(plain.max(initial=0.0)) or float(np.abs(shares).max(initial=0.0))
    return relative_levels(shares.ravel(), largest).reshape(shares.shape)


def matrix_card(matrix: AttributionMatrix) -> MatrixCard:
    """Lay a matrix out for a page."""
    shares, earlier = shares_of(matrix)
    levels = levels_of(matrix, shares)
    names = [content.spelled(token) for token in matrix.source_tokens]
    columns = [(name, bool(dim)) for name, dim in zip(names, matrix.rows[0].special, strict=True)]
    rows = []
    for place, row in enumerate(matrix.rows):
        token = content.spelled(matrix.output_tokens[place])
        cells = [
            _cell(token, name, share, level, float(row.scores[column]))
            for column, (name, share, level) in enumerate(
                zip(names, shares[place], levels[place], strict=True)
            )
        ]
        if earlier is not None:
            share = float(earlier[place])
            cells.append(_Cell(_whole(share), "p0", f"{token} from earlier output: {_pct(share)}"))
        card = card_of(row, 0) if len(matrix) <= _MOST_CARDS else None
        rows.append(_MatrixRow(token, tuple(cells), content.number(row.value), card))
    if earlier is not None:
        columns.append(("earlier output", True))
    return MatrixCard(
        source=content.printable(matrix.text or " ".join(names)),
        output=content.printable(matrix.output or ""),
        how=content.printable(_how(matrix)),
        columns=tuple(columns),
        rows=tuple(rows),
        note=_NOTE,
        proof=proof(matrix),
        hints=hints(matrix),
        proved=matrix.status == "optimal",
        facts=facts_of(matrix.rows[-1]),
    )


_NOTE = "percent of each row's flow; rows: generated tokens, columns: tokens they come from"


def _cell(row: str, column: str, share: float, level: float, score: float) -> _Cell:
    title = f"{row} from {column}: {content.number(score)} ({_pct(share)})"
    return _Cell(_whole(float(share)), css_class(float(level)), title)


def _pct(share: float) -> str:
    return content.percent(float(share))


def _whole(share: float) -> str:
    """Whole percent; what is less than half of one is a dot."""
    return f"{100 * share:.0f}" if abs(share) >= 0.005 else "\u00b7"


def _how(matrix: AttributionMatrix) -> str:
    settings = matrix.rows[0].settings
    parts = [str(settings.get(name) or "") for name in ("model", "tensor", "objective", "solver")]
    return " \u00b7 ".join(part for part in parts if part)


def proof(matrix: AttributionMatrix) -> str:
    """What is proved of all rows."""
    if matrix.status == "optimal":
        errors = matrix.attribution_error
        if errors is None:
            return "every row proved optimal; no error bound is known for the single scores"
        largest = float(np.max(errors, initial=0.0))
        if largest == 0:
            return "every row proved optimal, every score is exactly the optimum's"
        return f"every row proved optimal: scores within {content.upper(largest)} of the optimum"
    worst = [place for place, row in enumerate(matrix.rows) if row.status == matrix.status]
    return (
        f"row {worst[0]} ({matrix.output_tokens[worst[0]]}): {content.proof(matrix.rows[worst[0]])}"
    )


def hints(matrix: AttributionMatrix) -> tuple[str, ...]:
    """Why nothing flows in some rows; each reason once."""
    found = [hint for hint in map(content.hint, matrix.rows) if hint is not None]
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, eq=False)
class _Heat:
    """Cells of percent numbers, shaded; the largest of each row where there is no room."""

    matrix: AttributionMatrix

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        shares, earlier = shares_of(self.matrix)
        count = shares.shape[1] + (earlier is not None)
        room = (options.max_width - _LABEL - 1) // count - 1
        if room >= _CELL - 1:
            yield self._table(shares, earlier, min(room, _WIDEST))
            yield Text(_NOTE, style="dim")
        else:
            yield self._largest(shares, earlier)
            yield Text("the words that each generated token comes from most", style="dim")

    def _table(self, shares: Array, earlier: Array | None, width: int) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 1), header_style="dim")
        table.add_column("", no_wrap=True, max_width=_LABEL)
        for token in (*self.matrix.source_tokens, *(["earlier"] if earlier is not None else [])):
            name = content.spelled(token).strip() or content.printable(token)
            table.add_column(Text(name[:width]), justify="right", no_wrap=True, min_width=3)
        levels = levels_of(self.matrix, shares)
        for place, token in enumerate(self.matrix.output_tokens):
            cells: list[RenderableType] = [Text(content.spelled(token), overflow="ellipsis")]
            for share, level in zip(shares[place], levels[place], strict=True):
                background = shade(float(level))
                style = Style(color=ink(background), bgcolor=background)
                cells.append(Text(_whole(float(share)), style=style))
            if earlier is not None:
                cells.append(Text(_whole(float(earlier[place])), style="dim"))
            table.add_row(*cells)
        return table

    def _largest(self, shares: Array, earlier: Array | None) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
        table.add_column("generated", no_wrap=True, max_width=_LABEL)
        table.add_column("from")
        for place, row in enumerate(self.matrix.rows):
            whole = content.total(row) or 1.0
            words = sorted(row.words(), key=lambda word: -abs(word.score))[:_TOP]
            parts = [f"{content.printable(w.word)} {_pct(w.score / whole)}" for w in words]
            if earlier is not None:
                parts.append(f"earlier output {_pct(float(earlier[place]))}")
            token = content.spelled(self.matrix.output_tokens[place])
            table.add_row(Text(token, overflow="ellipsis"), Text(", ".join(parts)))
        return table


def render_matrix(matrix: AttributionMatrix) -> RenderableType:
    """Lay a matrix out for a rich console; readable without colour."""
    from rich.console import Group

    source = content.printable(matrix.text or " ".join(matrix.source_tokens))
    heading = Text(source)
    heading.append(" \u2192 ", style="dim")
    heading.append(content.printable(matrix.output or ""), style="bold")
    good = matrix.status == "optimal"
    parts: list[RenderableType] = [heading, Text(_how(matrix), style="dim")]
    parts += [_Heat(matrix), *(Text(hint) for hint in hints(matrix))]
    parts.append(Text(proof(matrix), style="green" if good else "bold yellow"))
    return Group(*parts)
