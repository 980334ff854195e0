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
from flowopt.viz.patches import render_patches

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
    parts: list[RenderableType] = [_heading(att)]
    if att.grid is not None:
        parts.append(render_patches(att))
    else:
        parts.append(_strip(content.pieces(att, found)))
    generated = content.generated_pieces(found)
    if generated:
        parts += [Text("generated before", style="dim"), _strip(generated)]
    parts.append(_table(att, found))
    special = content.special_line(found, att.certificate is not None)
    if special is not None:
        parts.append(Text(special, style="dim"))
    parts.append(Text(content.value_line(att)))
    hint = content.hint(att)
    if hint is not None:
        parts.append(Text(hint, style="yellow"))
    good = att.status == "optimal"
    style = "green" if good else "dim" if att.certificate is None else "bold yellow"
    parts.append(Text(content.proof(att), style=style))
    return Group(*parts)


def _heading(att: Attribution) -> Text:
    prediction, target = att.prediction, att.target
    line = Text()
    line.append(content.label(att, prediction), style="bold")
    line.append(f"  {content.percent(prediction.probability)}")
    if target.index != prediction.index:
        what = str(att.settings.get("output") or "class")
        name = content.label(att, target).removeprefix("token ")
        share = content.percent(target.probability)
        line.append(f"   explained {what}: {name} {share}", style="bold")
    names = ("tensor", "objective") if att.settings.get("tensor") else ("method",)
    how = " ".join(content.printable(str(att.settings.get(name) or "")) for name in names)
    line.append(f"   {how}".rstrip(), style="dim")
    return line


def _strip(pieces: Sequence[tuple[str, content.Row | None]]) -> RenderableType:
    """The words on a strip of paper, so that the shades read on dark and light terminals."""
    paper = shade(0.0)
    plain = Style(color=LIGHT.text, bgcolor=paper)
    text = Text(style=plain, overflow="fold")
    for piece, row in pieces:
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
    table.add_column("word" if att.grid is None else "patch", no_wrap=True, max_width=_WORD_WIDTH)
    table.add_column("", min_width=8, max_width=32, ratio=1)
    heading, scores = content.score_column([row.score for row in words])
    table.add_column(heading, justify="right", no_wrap=True)
    normalised = att.raw_scores is not None
    if normalised:
        raw_heading, raws = content.score_column([row.raw or 0.0 for row in words])
        table.add_column(raw_heading.replace("score", "raw"), justify="right", no_wrap=True)
    table.add_column(content.share_heading(att), justify="right", no_wrap=True)
    bounded = any(row.error is not None for row in words)
    if bounded:
        table.add_column("error bound", justify="right", no_wrap=True)
    for i in sorted(shown):
        row = words[i]
        cells: list[RenderableType] = [
            Text(row.word, overflow="ellipsis"),
            _bar(row.level, signed),
            Text(scores[i]),
        ]
        if normalised:
            cells.append(Text("" if row.raw is None else raws[i]))
        cells.append(Text(content.percent(row.share)))
        if bounded:
            cells.append(Text("" if row.error is None else f"\u00b1 {content.upper(row.error)}"))
        table.add_row(*cells)
    if len(shown) == len(words):
        return table
    kind = "words" if att.grid is None else "patches"
    note = f"the {len(shown)} largest of {len(words)} {kind}; .words() has all"
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
