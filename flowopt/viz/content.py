"""What every picture of an attribution says, before anyone draws it: rows, text, plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowopt.attribution.words import merge_words
from flowopt.viz.numbers import number, percent, printable, score_column, unit_of, upper
from flowopt.viz.palette import relative_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowopt.attribution import Attribution
    from flowopt.objectives import Facts
    from flowopt.trace.record import Prediction

__all__ = [
    "Row",
    "generated_pieces",
    "hint",
    "is_signed",
    "label",
    "number",
    "percent",
    "pieces",
    "player_names",
    "printable",
    "proof",
    "rows",
    "score_column",
    "share_heading",
    "special_line",
    "spelled",
    "total",
    "unit_of",
    "upper",
    "value_line",
]


@dataclass(frozen=True)
class Row:
    """One word, or one special token, with all that is shown of it.

    Parameters
    ----------
    word : str
        Safe to print: no control characters.
    score : float
    share : float
        Of the sum of |score| over all tokens, which for flows without signs is |f|.
    level : float
        Score relative to the largest word, in [-1, 1]: its colour.
    error : float or None
        Bound on the error of the score.
    special : bool
    start, end : int or None
        Characters in the text.
    tokens : tuple of (str, float)
        The sub-words and their scores.
    raw : float or None
        The score before a normalisation.
    generated : bool
        Whether it is a token generated before the explained one.
    """

    word: str
    score: float
    share: float
    level: float
    error: float | None
    special: bool
    start: int | None
    end: int | None
    tokens: tuple[tuple[str, float], ...]
    raw: float | None = None
    generated: bool = False


def rows(att: Attribution) -> list[Row]:
    """Words and special tokens in the order of the text, then generated tokens with scores."""
    place = (att.special, att.word_ids, att.offsets, att.text, True)
    words = att.words(include_special=True)
    # Merging ones counts the tokens of each word, merging errors bounds its score.
    counts = [round(w.score) for w in merge_words(att.tokens, np.ones(len(att.scores)), *place)]
    bound = att.attribution_error
    merged = None if bound is None else merge_words(att.tokens, np.asarray(bound), *place)
    raw = None if att.raw_scores is None else merge_words(att.tokens, att.raw_scores, *place)
    prefix = np.empty(0) if att.prefix_scores is None else att.prefix_scores
    plain = [word.score for word in words if not word.special]
    largest = float(np.abs(plain).max(initial=0.0)) or float(np.abs(prefix).max(initial=0.0))
    levels = relative_levels((*(w.score for w in words), *prefix), largest)
    whole = total(att)
    found, first = [], 0
    for i, (word, count) in enumerate(zip(words, counts, strict=True)):
        parts = range(first, first + count)
        first += count
        found.append(
            Row(
                word=printable(word.word),
                score=word.score,
                share=word.score / whole if whole > 0 else 0.0,
                level=float(levels[i]),
                error=None if merged is None else merged[i].score,
                special=word.special,
                start=word.start,
                end=word.end,
                tokens=tuple((printable(att.tokens[j]), float(att.scores[j])) for j in parts),
                raw=None if raw is None else raw[i].score,
            )
        )
    for level, token, score in zip(levels[len(words) :], att.prefix_tokens, prefix, strict=True):
        found.append(_generated_row(token, float(score), float(level), whole))
    return found


def _generated_row(token: str, score: float, level: float, whole: float) -> Row:
    return Row(
        word=spelled(token).strip() or printable(token),
        score=score,
        share=score / whole if whole > 0 else 0.0,
        level=level,
        error=None,
        special=False,
        start=None,
        end=None,
        tokens=((printable(token), score),),
        generated=True,
    )


def pieces(att: Attribution, found: Sequence[Row]) -> list[tuple[str, Row | None]]:
    """The text cut at its words, nothing lost; the words joined by blanks where it is unknown."""
    words = [row for row in found if not row.special and not row.generated]
    ends = [0] + [row.end or 0 for row in words]
    known = att.text is not None and all(
        row.start is not None and row.end is not None and before <= row.start <= row.end
        for row, before in zip(words, ends, strict=False)
    )
    if not known or att.text is None:
        joined: list[tuple[str, Row | None]] = []
        for row in words:
            joined += [(" ", None), (row.word, row)]
        return joined[1:]
    cut: list[tuple[str, Row | None]] = []
    for row, before in zip(words, ends, strict=False):
        cut.append((printable(att.text[before : row.start]), None))
        cut.append((printable(att.text[row.start : row.end]), row))
    cut.append((printable(att.text[ends[-1] :]), None))
    return [(text, row) for text, row in cut if text]


def generated_pieces(found: Sequence[Row]) -> list[tuple[str, Row | None]]:
    """The generated tokens that have scores, one blank apart."""
    joined: list[tuple[str, Row | None]] = []
    for row in found:
        if row.generated:
            joined += [(" ", None), (row.word, row)]
    return joined[1:]


def spelled(token: str) -> str:
    """A token as text: the blanks of byte-level BPE and SentencePiece are blanks."""
    return printable(token.replace("\u0120", " ").replace("\u2581", " "))


def label(att: Attribution, prediction: Prediction) -> str:
    """Name of a class; a token in quotes."""
    if att.settings.get("output") == "token":
        return f"token \u2018{spelled(prediction.label)}\u2019"
    return printable(prediction.label)


def player_names(att: Attribution, count: int) -> tuple[list[str], list[bool]] | None:
    """Names of a network's players, and which stand back; None if they are not the tokens.

    Generated tokens whose flow goes on to the tokens they came from are "+1", "+2", ...
    """
    more = count - len(att.tokens)
    if more < 0:
        return None
    after = att.prefix_tokens if len(att.prefix_tokens) == more else None
    names = after or [f"+{place}" for place in range(1, more + 1)]
    dim = [bool(flag) for flag in att.special] + [True] * more
    return [printable(name) for name in (*att.tokens, *names)], dim


def total(att: Attribution) -> float:
    """Sum of |score|: the whole of which shares are parts; |f| for flows without signs."""
    generated = 0.0 if att.prefix_scores is None else np.abs(att.prefix_scores).sum()
    return float(np.abs(att.scores).sum() + generated)


def is_signed(att: Attribution) -> bool:
    """Whether some tokens speak against the class."""
    negative = att.prefix_scores is not None and (att.prefix_scores < 0).any()
    return bool((att.scores < 0).any() or negative)


def value_line(att: Attribution) -> str:
    """The value of the flow, and how near it comes to the maximum flow; else what scores sum to."""
    if att.certificate is None:
        return _sum_line(att)
    if is_signed(att):
        return f"flow for minus flow against = {number(att.value)}"
    line = f"flow |f| = {number(att.value)}"
    if att.max_flow is None:
        return line
    if att.max_flow <= 0:
        return f"{line}, the maximum flow is {number(att.max_flow)}"
    return f"{line}, {percent(att.value / att.max_flow)} of the maximum flow {number(att.max_flow)}"


def _sum_line(att: Attribution) -> str:
    """What scores sum to that are no flow, and to what they should by their method's promise."""
    line = f"the scores sum to {number(att.value)}"
    promised, what = att.settings.get("expected_sum"), att.settings.get("sums_to")
    if promised is None or what is None:
        return line
    return f"{line}; {what} is {number(float(promised))}"


def share_heading(att: Attribution) -> str:
    """Heading of the column of shares."""
    return "share" if att.certificate is None or is_signed(att) else "of |f|"


def special_line(found: Sequence[Row], flow: bool = True) -> str | None:
    """What special tokens take: "[CLS]+[SEP] take 38.0 % of the flow"; None without any.

    Methods that are no flows give them nothing as a rule, which needs no saying.
    """
    special = [row for row in found if row.special]
    if not special or not (flow or any(row.score for row in special)):
        return None
    names = list(dict.fromkeys(row.word for row in special))
    verb = "take" if len(special) > 1 else "takes"
    share = percent(sum(abs(row.share) for row in special))
    whole = "of the flow" if flow else "of the sum of scores"
    whole = whole if all(row.score >= 0 for row in found) else "of all |scores|"
    return f"{'+'.join(names)} {verb} {share} {whole}"


def hint(att: Attribution) -> str | None:
    """Why nothing flows, where nothing does."""
    if total(att) > 0 or att.status not in ("optimal", "feasible"):
        return None
    chosen = att.settings.get("sources")
    if not isinstance(chosen, (list, tuple)) or not att.settings.get("sources_given", True):
        return (
            "nothing flows: no path of positive capacities leads from the output to a token; "
            "try another tensor, or add a residual to the capacities"
        )
    return (
        "nothing flows: the prediction does not depend on the chosen source positions "
        f"({', '.join(map(str, chosen))}); leave sources out"
    )


def proof(att: Attribution) -> str:
    """The status and the certificate, in plain words."""
    if att.certificate is None:
        return "no certificate: these scores are no flow"
    facts = _facts(att)
    # Of whole words: what the sentence promises must hold for every number that is shown.
    errors = [row.error for row in rows(att) if row.error is not None]
    largest = None if att.attribution_error is None else max(errors, default=0.0)
    if att.status == "failed":
        return "the solver failed: do not use these scores"
    if att.status == "feasible":
        return "a feasible flow; how far it is from the best one is not known for this objective"
    if total(att) == 0 and att.status == "optimal":
        return "proved optimal: no flow can reach a token, so every score is 0"
    if att.status != "optimal":
        line = f"NOT proved optimal: {_gap(att, facts)}"
        return line if largest is None else f"{line}, {_within(att, largest)}"
    if largest is not None:
        return f"proved optimal: {_within(att, largest)}"
    if facts is not None and not facts.unique_attributions:
        return (
            f"proved optimal ({_gap(att, facts)}), but the scores are not unique: other optimal "
            f"flows may share it differently among the tokens{_left_open(att)}"
        )
    return f"proved optimal ({_gap(att, facts)}); no error bound is known for the single scores"


_MOST_EDGES = 500_000
"""Above this, looking for what is left open would take longer than a printout may."""


def _left_open(att: Attribution) -> str:
    """How far plain maximum flow determines the scores, where its network is at hand."""
    if len(att.solutions) != 1 or att.solutions[0].network.graph.report.kept > _MOST_EDGES:
        return ""
    from flowopt.intervals import caveat

    found = caveat(att.solutions[0], att.tokens)
    return "" if found is None else f". {found.rstrip('.')}"


def _within(att: Attribution, error: float) -> str:
    whole = total(att)
    if error == 0:
        return "every score is exactly the optimum's"
    if not math.isfinite(error):
        return "no finite error bound for the scores"
    relative = error / whole if whole > 0 else 0.0
    aside = f" ({upper(100 * relative)} % of the whole)" if relative > 1e-5 else ""
    return f"every score is within {upper(error)}{aside} of the exact optimum"


def _gap(att: Attribution, facts: Facts | None) -> str:
    gap = None if att.certificate is None else att.certificate.gap
    if gap is None or not math.isfinite(gap):
        return "gap unknown"
    unit = " of |f|" if facts is None or facts.flow_units else ""
    return f"gap at most {upper(gap)}{unit}"


def _facts(att: Attribution) -> Facts | None:
    """Facts about the objective; by its name where the solutions have not been kept."""
    if att.solutions:
        return att.solutions[0].objective.facts
    from flowopt import objectives

    name = str(att.settings.get("objective", "")).partition("(")[0]
    found = getattr(objectives, name, None) if name.isidentifier() else None
    known = isinstance(found, type) and issubclass(found, objectives.Objective)
    return found.facts if known and found is not None else None
