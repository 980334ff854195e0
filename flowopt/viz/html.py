"""Attributions as HTML: a stand-alone page, or a fragment for notebooks.

All text reaches the page through jinja2 with autoescaping; nothing is marked as safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from flowopt.attribution import AttributionMatrix
from flowopt.viz import content
from flowopt.viz.cards import Card, card_of, css_class
from flowopt.viz.matrix import MatrixCard, matrix_card
from flowopt.viz.palette import DARK, LIGHT, STEPS, Scheme, ink, shade

if TYPE_CHECKING:
    import jinja2

    from flowopt.attribution import Attribution

    Shown = Attribution | AttributionMatrix

__all__ = ["fragment", "to_html"]

_MOST_DIAGRAMS = 12  # on one page; each weighs some 30 kB


def to_html(att: Shown | Sequence[Shown], max_edges: int = 240) -> str:
    """Return a page that needs nothing else: light and dark, scores on hovering.

    Parameters
    ----------
    att : Attribution or AttributionMatrix, or a sequence of them
        Several are shown one below the other; flow diagrams only for a dozen or fewer.
    max_edges : int
        Most edges in a flow diagram; 0 leaves diagrams out.
    """
    from flowopt import __version__

    found = _sequence(att)
    title = _title(found[0]) if len(found) == 1 else "flowopt"
    return _render("page.html", found, max_edges, title=title, version=__version__)


def fragment(att: Shown | Sequence[Shown], max_edges: int = 240) -> str:
    """Return a piece of HTML for a notebook; it follows the notebook's light or dark theme."""
    return _render("fragment.html", _sequence(att), max_edges)


def _sequence(att: Shown | Sequence[Shown]) -> Sequence[Shown]:
    return att if isinstance(att, Sequence) else (att,)


def _title(shown: Shown) -> str:
    if isinstance(shown, AttributionMatrix):
        start = content.printable(shown.text or " ".join(shown.source_tokens))[:40]
        return f"{start} \u2192 {content.printable(shown.output or '')[:40]}"
    start = content.printable(shown.text or " ".join(shown.tokens))[:60]
    return f"{content.label(shown, shown.prediction)}: {start}"


def _render(template: str, found: Sequence[Shown], max_edges: int, **more: Any) -> str:
    edges = max_edges if len(found) <= _MOST_DIAGRAMS else 0
    return (
        _environment()
        .get_template(template)
        .render(
            cards=[_card(each, edges) for each in found],
            unfold=len(found) == 1 and template == "page.html",
            light=_scheme(LIGHT, "#dfe3e9"),
            dark=_scheme(DARK, "#39414d"),
            steps=STEPS,
            **more,
        )
    )


def _card(shown: Shown, max_edges: int) -> Card | MatrixCard:
    if isinstance(shown, AttributionMatrix):
        return matrix_card(shown)
    return card_of(shown, max_edges)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("flowopt.viz"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _scheme(scheme: Scheme, rule: str) -> dict[str, Any]:
    """Colours of every step, for the style sheet."""
    shades = []
    for step in range(-STEPS, STEPS + 1):
        background = shade(step / STEPS, scheme)
        css = css_class(step / STEPS)
        shades.append({"name": css, "background": background, "ink": ink(background)})
    return {
        "text": scheme.text,
        "faint": scheme.faint,
        "paper": shade(0.0, scheme),
        "rule": rule,
        "shades": shades,
    }
