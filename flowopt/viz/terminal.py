"""An attribution in the terminal, with rich: shaded sentence, bars, proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Group
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from flowopt.viz import content
from flowopt.viz.palette import LIGHT, ink, shade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from flowopt.attribution import Attribution

__all__ = ["render"]

_MOST_ROWS = 24
_WORD_WIDTH = 18
_LEAST_SHADE = 0.04  # fainter shades cannot be told from paper in 256 colours


def render(att: Attribution) -> RenderableType:
    """Lay an attribution out for a rich console; readable at 60 columns and without colour.

    Parameters
    ----------
    att : Attribution

    Returns
    -------
    rich renderable
    """
    found = content.rows(att)
    parts: list[RenderableType] = [_heading(att), _sentence(att, found), _table(att, found)]
    special = content.special_line(found)
    if special is not None:
        parts.append(Text(special, style="dim"))
    parts.append(Text(content.value_line(att)))
    good = att.status == "optimal"
    parts.append(Text(content.proof(att), style="green" if good else "bold yellow"))
    return Group(*parts)


def _heading(att: Attribution) -> Text:
    prediction, target = att.prediction, att.target
    line = Text()
    line.append(content.printable(prediction.label), style="bold")
    line.append(f"  {content.percent(prediction.probability)}")
    if target.index != prediction.index:
        name, probability = content.printable(target.label), content.percent(target.probability)
        line.append(f"   explained class: {name} {probability}", style="bold")
    tensor = content.printable(str(att.settings.get("tensor") or ""))
    line.append(
        f"   {tensor} {content.printable(str(att.settings.get('objective') or ''))}".rstrip(),
        style="dim",
    )
    return line


def _sentence(att: Attribution, found: Sequence[content.Row]) -> RenderableType:
    """The words on a strip of paper, so that the shades read on dark and light terminals."""
    paper = shade(0.0)
    plain = Style(color=LIGHT.text, bgcolor=paper)
    text = Text(style=plain, overflow="fold")
    for piece, row in content.pieces(att, found):
        style = plain
        if row is not None and abs(row.level) >= _LEAST_SHADE:
            background = shade(row.level)
            style = Style(color=ink(background), bgcolor=background)
        elif row is None and piece.strip():
            style = Style(color=LIGHT.faint, bgcolor=paper)  # not read: cut off, or no token
        text.append(piece, style=style)
    return Padding(text, (0, 1), style=plain)


def _table(att: Attribution, found: Sequence[content.Row]) -> RenderableType:
    words = [row for row in found if not row.special]
    shown = set(range(len(words)))
    if len(words) > _MOST_ROWS:
        shown = set(sorted(shown, key=lambda i: -abs(words[i].score))[:_MOST_ROWS])
    signed = content.is_signed(att)
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("word", no_wrap=True, max_width=_WORD_WIDTH)
    table.add_column("", min_width=8, max_width=32, ratio=1)
    heading, scores = content.score_column([row.score for row in words])
    table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("share" if signed else "of |f|", justify="right", no_wrap=True)
    bounded = any(row.error is not None for row in words)
    if bounded:
        table.add_column("error bound", justify="right", no_wrap=True)
    for i in sorted(shown):
        row = words[i]
        cells: list[RenderableType] = [
            Text(row.word, overflow="ellipsis"),
            _bar(row.level, signed),
            Text(scores[i]),
            Text(content.percent(row.share)),
        ]
        if bounded:
            cells.append(Text("" if row.error is None else f"\u00b1 {content.upper(row.error)}"))
        table.add_row(*cells)
    if len(shown) == len(words):
        return table
    note = f"the {len(shown)} largest of {len(words)} words; .words() has all"
    return Group(table, Text(note, style="dim"))


def _bar(level: float, signed: bool) -> RenderableType:
    """A bar of the level's length; signed ones start in the middle."""
    start = 1.0 if signed else 0.0
    colour = shade(1.0 if level >= 0 else -1.0)
    return Bar(
        size=2.0 if signed else 1.0,
        begin=start + min(level, 0.0),
        end=start + max(level, 0.0),
        color=colour,
    )
