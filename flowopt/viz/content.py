"""What every picture of an attribution says, before anyone draws it: rows, text, plain words."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowopt.attribution.words import merge_words
from flowopt.viz.palette import relative_levels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowopt.attribution import Attribution
    from flowopt.objectives import Facts

__all__ = [
    "Row",
    "is_signed",
    "number",
    "percent",
    "pieces",
    "printable",
    "proof",
    "rows",
    "score_column",
    "special_line",
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


def rows(att: Attribution) -> list[Row]:
    """Words and special tokens, in the order of the text."""
    place = (att.special, att.word_ids, att.offsets, att.text, True)
    words = att.words(include_special=True)
    # Merging ones counts the tokens of each word, merging errors bounds its score.
    counts = [round(w.score) for w in merge_words(att.tokens, np.ones(len(att.scores)), *place)]
    bound = att.certificate.attribution_error
    merged = None if bound is None else merge_words(att.tokens, np.asarray(bound), *place)
    plain = [word.score for word in words if not word.special]
    levels = relative_levels((w.score for w in words), float(np.abs(plain).max(initial=0.0)))
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
            )
        )
    return found


def pieces(att: Attribution, found: Sequence[Row]) -> list[tuple[str, Row | None]]:
    """The text cut at its words, nothing lost; the words joined by blanks where it is unknown."""
    words = [row for row in found if not row.special]
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


def total(att: Attribution) -> float:
    """Sum of |score|: the whole of which shares are parts; |f| for flows without signs."""
    return float(np.abs(att.scores).sum())


def is_signed(att: Attribution) -> bool:
    """Whether some tokens speak against the class."""
    return bool((att.scores < 0).any())


def value_line(att: Attribution) -> str:
    """The value of the flow, and how near it comes to the maximum flow."""
    if is_signed(att):
        return f"flow for minus flow against = {number(att.value)}"
    line = f"flow |f| = {number(att.value)}"
    if att.max_flow is None:
        return line
    if att.max_flow <= 0:
        return f"{line}, the maximum flow is {number(att.max_flow)}"
    return f"{line}, {percent(att.value / att.max_flow)} of the maximum flow {number(att.max_flow)}"


def special_line(found: Sequence[Row]) -> str | None:
    """What special tokens take: "[CLS]+[SEP] take 38.0 % of the flow"; None without any."""
    special = [row for row in found if row.special]
    if not special:
        return None
    names = list(dict.fromkeys(row.word for row in special))
    verb = "take" if len(special) > 1 else "takes"
    share = percent(sum(abs(row.share) for row in special))
    whole = "of the flow" if all(row.score >= 0 for row in found) else "of all |scores|"
    return f"{'+'.join(names)} {verb} {share} {whole}"


def proof(att: Attribution) -> str:
    """The status and the certificate, in plain words."""
    facts = _facts(att)
    # Of whole words: what the sentence promises must hold for every number that is shown.
    errors = [row.error for row in rows(att) if row.error is not None]
    largest = None if att.certificate.attribution_error is None else max(errors, default=0.0)
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
            "flows may share it differently among the tokens"
        )
    return f"proved optimal ({_gap(att, facts)}); no error bound is known for the single scores"


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
    gap = att.certificate.gap
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


def unit_of(scores: Iterable[float]) -> int:
    """Power of ten in which scores read well: 0 unless they are very small or large."""
    exponent = _exponent(scores)
    return exponent if not -4 < exponent < 4 else 0


def score_column(scores: Sequence[float]) -> tuple[str, list[str]]:
    """Heading and numbers of a column of scores: one unit, four digits for the largest."""
    unit = unit_of(scores)
    digits = max(0, 3 - (_exponent(scores) - unit))
    heading = "score" if unit == 0 else f"score \u00d71e{unit}"
    return heading, [f"{score / 10.0**unit:.{digits}f}" for score in scores]


def _exponent(scores: Iterable[float]) -> int:
    finite = [abs(score) for score in scores if score and math.isfinite(score)]
    return math.floor(math.log10(max(finite))) if finite else 0


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def upper(value: float) -> str:
    """One significant digit, rounded up: what is printed of a bound still is a bound."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    digit = math.ceil(value / 10.0**exponent * (1 - 1e-12))
    return f"{float(f'{digit}e{exponent}'):.0e}" if exponent < -3 else f"{digit * 10.0**exponent:g}"


def percent(share: float) -> str:
    """A share in percent; what is not all is never rounded to 100."""
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def printable(text: str) -> str:
    """Text without what would steer a terminal or break a page; blanks stay blanks."""
    return "".join(" " if c.isspace() else "\ufffd" if _steers(c) else c for c in text)


def _steers(character: str) -> bool:
    """Control characters, lone surrogates, and overrides of the writing direction."""
    bidirectional = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return bidirectional or unicodedata.category(character) in ("Cc", "Cs")
