"""Numbers and text as they are shown: few digits, bounds rounded up, nothing that steers."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["number", "percent", "printable", "score_column", "unit_of", "upper"]


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
