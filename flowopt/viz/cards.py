"""What one attribution puts on an HTML page, ready to print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.viz import content
from flowopt.viz.palette import STEPS
from flowopt.viz.patches import Patches, patches_of
from flowopt.viz.svg import FlowPicture, picture

if TYPE_CHECKING:
    from flowopt.attribution import Attribution

__all__ = ["Card", "Piece", "card_of", "css_class", "facts_of"]


@dataclass(frozen=True)
class Piece:
    """Some text, shaded and with a tooltip if it is a word."""

    text: str
    css: str = ""
    title: str = ""


@dataclass(frozen=True)
class TableRow:
    """A row of the table of scores."""

    word: str
    title: str
    bar: str
    left: float
    width: float
    score: str
    share: str
    error: str
    raw: str
    special: bool


@dataclass(frozen=True)
class Card:
    """All that the template shows of an attribution."""

    label: str
    probability: str
    target: str
    what: str
    how: str
    pieces: tuple[Piece, ...]
    generated: tuple[Piece, ...]
    patches: Patches | None
    special: str | None
    value: str
    proof: str
    hint: str | None
    proved: bool
    player: str
    score_name: str
    share_name: str
    raw_name: str
    bounded: bool
    rows: tuple[TableRow, ...]
    flows: tuple[FlowPicture, ...]
    facts: tuple[tuple[str, str], ...]
    template: str = "card.html"


def card_of(att: Attribution, max_edges: int) -> Card:
    """Lay an attribution out, with at most `max_edges` edges in a flow diagram."""
    found = content.rows(att)
    signed = content.is_signed(att)
    score_name, scores = content.score_column([row.score for row in found])
    raw_name, raws = "", [""] * len(found)
    if att.raw_scores is not None:
        raw_name, raws = content.score_column([row.raw or 0.0 for row in found])
    other = att.target.index != att.prediction.index
    return Card(
        label=content.label(att, att.prediction),
        probability=content.percent(att.prediction.probability),
        target=_class(att) if other else "",
        what=str(att.settings.get("output") or "class"),
        how=_how(att),
        pieces=() if att.grid else tuple(_piece(*pair) for pair in content.pieces(att, found)),
        generated=tuple(_piece(*pair) for pair in content.generated_pieces(found)),
        patches=patches_of(att),
        special=content.special_line(found, att.certificate is not None),
        value=content.value_line(att),
        proof=content.proof(att),
        hint=content.hint(att),
        proved=att.status == "optimal" or att.certificate is None,
        share_name=content.share_heading(att),
        bounded=att.attribution_error is not None,
        player="word" if att.grid is None else "patch",
        score_name=score_name,
        raw_name=raw_name.replace("score", "before normalisation"),
        rows=tuple(
            _table_row(row, score, raw, signed)
            for row, score, raw in zip(found, scores, raws, strict=True)
        ),
        flows=_flows(att, max_edges),
        facts=facts_of(att),
    )


def css_class(level: float) -> str:
    """Class of a level: p0 .. p32 and m1 .. m32."""
    step = round(level * STEPS)
    return f"p{step}" if step >= 0 else f"m{-step}"


def _how(att: Attribution) -> str:
    names = ("model", "method", "tensor", "objective", "solver")
    parts = [content.printable(str(att.settings.get(name) or "")) for name in names]
    return " \u00b7 ".join(part for part in parts if part)


def _class(att: Attribution) -> str:
    return f"{content.label(att, att.target)} {content.percent(att.target.probability)}"


def _piece(text: str, row: content.Row | None) -> Piece:
    if row is None:
        return Piece(text, "unread" if text.strip() else "")
    return Piece(text, css_class(row.level), _hover(row))


def _hover(row: content.Row) -> str:
    lines = [f"{row.word}: {content.number(row.score)} ({content.percent(row.share)})"]
    if row.error is not None:
        lines[0] += f", error at most {content.upper(row.error)}"
    if row.raw is not None:
        lines.append(f"before normalisation: {content.number(row.raw)}")
    if len(row.tokens) > 1:
        lines += [f"{token}: {content.number(score)}" for token, score in row.tokens]
    return "\n".join(lines)


def _table_row(row: content.Row, score: str, raw: str, signed: bool) -> TableRow:
    room, start = (50, 50) if signed else (100, 0)
    return TableRow(
        word=row.word,
        title=_hover(row),
        bar="p0" if row.level == 0 else css_class(1.0 if row.level > 0 else -1.0),
        left=round(start + room * min(row.level, 0.0), 2),
        width=round(room * abs(row.level), 2),
        score=score,
        share=content.percent(row.share),
        error="" if row.error is None else f"\u00b1 {content.upper(row.error)}",
        raw="" if row.raw is None else raw,
        special=row.special,
    )


def _flows(att: Attribution, max_edges: int) -> tuple[FlowPicture, ...]:
    if max_edges <= 0:
        return ()
    # Signed flow: scores are the difference of two flows, one for and one against the class.
    halves = len(att.solutions) == 2 and _is_difference(att)
    found = []
    for i, solution in enumerate(att.solutions):
        players = content.player_names(att, solution.network.n_players)
        if players is None:
            continue
        tokens, dim = players
        against = halves and i == 1
        name = ("Against the class. " if against else "For the class. ") if halves else ""
        if len(att.solutions) > 1 and not halves:
            name = f"Flow {i + 1} of {len(att.solutions)}. "
        found.append(picture(solution, tokens, dim, name, against, max_edges))
    return tuple(found)


def _is_difference(att: Attribution) -> bool:
    first, second = (solution.attributions for solution in att.solutions)
    scores = att.scores if att.raw_scores is None else att.raw_scores
    return len(first) == len(second) and np.allclose((first - second)[: len(scores)], scores)


def facts_of(att: Attribution) -> tuple[tuple[str, str], ...]:
    """Certificate, then settings, as pairs of text."""
    facts: list[tuple[str, Any]] = [("status", att.status), *_proof_facts(att)]
    for name, value in att.settings.items():
        if isinstance(value, dict):
            facts += [(f"{name}: {key}", _plain(part)) for key, part in value.items()]
        else:
            facts.append((name, _plain(value)))
    return tuple((content.printable(name), content.printable(str(text))) for name, text in facts)


def _proof_facts(att: Attribution) -> list[tuple[str, Any]]:
    """The certificate, where there is one."""
    proof = att.certificate
    if proof is None:
        return [("sum of scores", content.number(att.value))]
    error = proof.attribution_error
    largest = None if error is None else float(np.max(error, initial=0.0))
    return [
        ("flow |f|", content.number(att.value)),
        ("maximum flow", "not computed" if att.max_flow is None else content.number(att.max_flow)),
        ("conservation violated by", f"{proof.conservation:.1e} of |f|"),
        ("bounds violated by", f"{proof.bounds:.1e} of |f|"),
        ("gap to the optimum", "not known" if proof.gap is None else f"at most {proof.gap:.1e}"),
        ("error of a token's score", "no bound" if largest is None else f"at most {largest:.1e}"),
    ]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return content.number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(part) for part in value) or "none"
    return "not set" if value is None else str(value)
