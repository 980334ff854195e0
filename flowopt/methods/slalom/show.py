"""A SLALOM explanation in a terminal, as text, and in a notebook."""

from __future__ import annotations

import html as escape
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.plain import plain_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flowopt.methods.slalom.explanation import SlalomExplanation

__all__ = ["html", "plain", "quality_line", "render"]

_MOST_ROWS = 40
_COLUMNS = ("token", "times", "value", "importance", "linearised", "removal")


def render(explanation: SlalomExplanation) -> RenderableType:
    """For rich: class, quality of the fit, and a table of the tokens."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, header_style="dim")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "token" else "right")
    for row in _rows(explanation):
        table.add_row(*(Text(cell) for cell in row))
    parts: list[RenderableType] = [
        Text(_heading(explanation), style="bold"),
        Text(quality_line(explanation)),
        table,
    ]
    if len(explanation.vocabulary) > _MOST_ROWS:
        note = f"the {_MOST_ROWS} with the largest |removal| of {len(explanation.vocabulary)}"
        parts.append(Text(note, style="dim"))
    return Group(*parts)


def plain(shown: Any) -> str:
    """As text without colours, of a width that does not depend on the terminal."""
    return plain_text(shown).strip("\n")


def html(explanation: SlalomExplanation) -> str:
    """As an HTML table for a notebook."""
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    body = ""
    for row in _rows(explanation):
        body += "<tr>" + "".join(f"<td>{escape.escape(cell)}</td>" for cell in row) + "</tr>"
    return (
        f"<div><strong>{escape.escape(_heading(explanation))}</strong>"
        f"<p>{escape.escape(quality_line(explanation))}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def quality_line(explanation: SlalomExplanation) -> str:
    """How well the surrogate predicts the model on held-out queries, in plain words."""
    quality = explanation.quality
    where = f"{quality.queries} {'held-out' if quality.unseen else 'repeated'} queries"
    return (
        f"mean squared error on {where}: SLALOM {quality.slalom:.4g}, linear {quality.linear:.4g}, "
        f"constant {quality.constant:.4g}"
    )


def _heading(explanation: SlalomExplanation) -> str:
    from flowopt.viz.content import percent, printable

    target = explanation.target
    plan = explanation.settings.get("plan", "")
    return (
        f"SLALOM for {printable(target.label)} {percent(target.probability)}, log odds "
        f"{explanation.log_odds:.4g}; {explanation.settings.get('samples')} {plan} queries"
    )


def _rows(explanation: SlalomExplanation) -> list[tuple[str, ...]]:
    """Cells of the table, in the order of the text; of many tokens those that matter most."""
    from flowopt.viz.content import printable

    removal = explanation.token_scores("removal")
    shown = np.sort(np.argsort(-np.abs(removal), kind="stable")[:_MOST_ROWS])
    fit, counts = explanation.fit, explanation.counts
    return [
        (
            printable(explanation.vocabulary[i]),
            str(counts[i]),
            f"{fit.values[i]:+.4g}",
            f"{fit.importances[i]:+.4g}",
            f"{fit.linearised[i]:+.4g}",
            f"{removal[i]:+.4g}",
        )
        for i in shown
    ]
