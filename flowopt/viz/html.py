"""An attribution as HTML: a stand-alone page, or a fragment for notebooks.

All text reaches the page through jinja2 with autoescaping; nothing is marked as safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.viz import content
from flowopt.viz.palette import DARK, LIGHT, Scheme, ink, shade
from flowopt.viz.svg import FlowPicture, picture

if TYPE_CHECKING:
    import jinja2

    from flowopt.attribution import Attribution

__all__ = ["fragment", "to_html"]

_STEPS = 32  # shades of each sign; the eye tells fewer apart
_MOST_DIAGRAMS = 12  # on one page; each weighs some 30 kB


@dataclass(frozen=True)
class _Piece:
    text: str
    css: str = ""
    title: str = ""


@dataclass(frozen=True)
class _TableRow:
    word: str
    title: str
    bar: str
    left: float
    width: float
    score: str
    share: str
    error: str
    special: bool


@dataclass(frozen=True)
class _Card:
    """What one attribution puts on the page, ready to print."""

    label: str
    probability: str
    target: str
    how: str
    pieces: tuple[_Piece, ...]
    special: str | None
    value: str
    proof: str
    proved: bool
    score_name: str
    share_name: str
    bounded: bool
    rows: tuple[_TableRow, ...]
    flows: tuple[FlowPicture, ...]
    facts: tuple[tuple[str, str], ...]


def to_html(att: Attribution | Sequence[Attribution], max_edges: int = 240) -> str:
    """Return a page that needs nothing else: light and dark, scores on hovering.

    Parameters
    ----------
    att : Attribution, or a sequence of them
        Several are shown one below the other; flow diagrams only for a dozen or fewer.
    max_edges : int
        Most edges in a flow diagram; 0 leaves diagrams out.
    """
    from flowopt import __version__

    found = _sequence(att)
    title = "flowopt"
    if len(found) == 1:
        start = content.printable(found[0].text or " ".join(found[0].tokens))[:60]
        title = f"{content.printable(found[0].prediction.label)}: {start}"
    return _render("page.html", found, max_edges, title=title, version=__version__)


def fragment(att: Attribution | Sequence[Attribution], max_edges: int = 240) -> str:
    """Return a piece of HTML for a notebook; it follows the notebook's light or dark theme."""
    return _render("fragment.html", _sequence(att), max_edges)


def _sequence(att: Attribution | Sequence[Attribution]) -> Sequence[Attribution]:
    return att if isinstance(att, Sequence) else (att,)


def _render(template: str, found: Sequence[Attribution], max_edges: int, **more: Any) -> str:
    edges = max_edges if len(found) <= _MOST_DIAGRAMS else 0
    return (
        _environment()
        .get_template(template)
        .render(
            cards=[_card(att, edges) for att in found],
            unfold=len(found) == 1 and template == "page.html",
            light=_scheme(LIGHT, "#dfe3e9"),
            dark=_scheme(DARK, "#39414d"),
            steps=_STEPS,
            **more,
        )
    )


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
    for step in range(-_STEPS, _STEPS + 1):
        background = shade(step / _STEPS, scheme)
        css = _css(step / _STEPS)
        shades.append({"name": css, "background": background, "ink": ink(background)})
    return {
        "text": scheme.text,
        "faint": scheme.faint,
        "paper": shade(0.0, scheme),
        "rule": rule,
        "shades": shades,
    }


def _css(level: float) -> str:
    """Class of a level: p0 .. p32 and m1 .. m32."""
    step = round(level * _STEPS)
    return f"p{step}" if step >= 0 else f"m{-step}"


def _card(att: Attribution, max_edges: int) -> _Card:
    found = content.rows(att)
    other = att.target.index != att.prediction.index
    signed = content.is_signed(att)
    score_name, scores = content.score_column([row.score for row in found])
    how = [str(att.settings.get(name) or "") for name in ("model", "tensor", "solver")]
    how.insert(2, content.printable(str(att.settings.get("objective") or "")))
    return _Card(
        label=content.printable(att.prediction.label),
        probability=content.percent(att.prediction.probability),
        target=_class(att.target) if other else "",
        how=content.printable(" \u00b7 ".join(part for part in how if part)),
        pieces=tuple(_piece(text, row) for text, row in content.pieces(att, found)),
        special=content.special_line(found),
        value=content.value_line(att),
        proof=content.proof(att),
        proved=att.status == "optimal",
        share_name="share" if signed else "of |f|",
        bounded=att.certificate.attribution_error is not None,
        score_name=score_name,
        rows=tuple(_table_row(*pair, signed) for pair in zip(found, scores, strict=True)),
        flows=_flows(att, max_edges),
        facts=_facts(att),
    )


def _class(prediction: Any) -> str:
    return f"{content.printable(prediction.label)} {content.percent(prediction.probability)}"


def _piece(text: str, row: content.Row | None) -> _Piece:
    if row is None:
        return _Piece(text, "unread" if text.strip() else "")
    return _Piece(text, _css(row.level), _hover(row))


def _hover(row: content.Row) -> str:
    lines = [f"{row.word}: {content.number(row.score)} ({content.percent(row.share)})"]
    if row.error is not None:
        lines[0] += f", error at most {content.upper(row.error)}"
    if len(row.tokens) > 1:
        lines += [f"{token}: {content.number(score)}" for token, score in row.tokens]
    return "\n".join(lines)


def _table_row(row: content.Row, score: str, signed: bool) -> _TableRow:
    room, start = (50, 50) if signed else (100, 0)
    return _TableRow(
        word=row.word,
        title=_hover(row),
        bar="p0" if row.level == 0 else _css(1.0 if row.level > 0 else -1.0),
        left=round(start + room * min(row.level, 0.0), 2),
        width=round(room * abs(row.level), 2),
        score=score,
        share=content.percent(row.share),
        error="" if row.error is None else f"\u00b1 {content.upper(row.error)}",
        special=row.special,
    )


def _flows(att: Attribution, max_edges: int) -> tuple[FlowPicture, ...]:
    if max_edges <= 0:
        return ()
    tokens = [content.printable(token) for token in att.tokens]
    solutions = [s for s in att.solutions if s.network.n_players == len(tokens)]
    # Signed flow: scores are the difference of two flows, one for and one against the class.
    halves = len(solutions) == 2 and np.allclose(
        solutions[0].attributions - solutions[1].attributions, att.scores
    )
    dim = [bool(flag) for flag in att.special]
    found = []
    for i, solution in enumerate(solutions):
        against = halves and i == 1
        name = ("Against the class. " if against else "For the class. ") if halves else ""
        if len(solutions) > 1 and not halves:
            name = f"Flow {i + 1} of {len(solutions)}. "
        found.append(picture(solution, tokens, dim, name, against, max_edges))
    return tuple(found)


def _facts(att: Attribution) -> tuple[tuple[str, str], ...]:
    """Certificate, then settings, as pairs of text."""
    proof = att.certificate
    error = proof.attribution_error
    largest = None if error is None else float(np.max(error, initial=0.0))
    facts: list[tuple[str, Any]] = [
        ("status", att.status),
        ("flow |f|", content.number(att.value)),
        ("maximum flow", "not computed" if att.max_flow is None else content.number(att.max_flow)),
        ("conservation violated by", f"{proof.conservation:.1e} of |f|"),
        ("bounds violated by", f"{proof.bounds:.1e} of |f|"),
        ("gap to the optimum", "not known" if proof.gap is None else f"at most {proof.gap:.1e}"),
        ("error of a token's score", "no bound" if largest is None else f"at most {largest:.1e}"),
    ]
    for name, value in att.settings.items():
        if isinstance(value, dict):
            facts += [(f"{name}: {key}", _plain(part)) for key, part in value.items()]
        else:
            facts.append((name, _plain(value)))
    return tuple((content.printable(name), content.printable(str(text))) for name, text in facts)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return content.number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(part) for part in value) or "none"
    return "not set" if value is None else str(value)
