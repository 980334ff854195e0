"""The one colour decision: how a score becomes a colour, everywhere.

A level in [-1, 1] moves on a straight line in OKLab from paper to an anchor, so equal steps of
score look equally large: blue for positive scores, orange for negative ones, both of the same
lightness (safe for the common colour blindnesses). Nonnegative scores use the blue arm alone,
which is then a sequential map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["DARK", "LIGHT", "STEPS", "Scheme", "contrast", "ink", "relative_levels", "shade"]

STEPS = 32
"""Shades of each sign on a page; the eye tells fewer apart."""

_Lch = tuple[float, float, float]


@dataclass(frozen=True)
class Scheme:
    """Anchors of the map as OKLCh: lightness, chroma, hue in degrees.

    Parameters
    ----------
    paper : tuple
        Colour of the score 0.
    positive, negative : tuple
        Colours of the levels 1 and -1.
    text, faint : str
        Hex colours of plain text and of what stands back.
    """

    paper: _Lch
    positive: _Lch
    negative: _Lch
    text: str
    faint: str


LIGHT = Scheme((0.988, 0.003, 250), (0.52, 0.155, 253), (0.52, 0.125, 45), "#1b1f27", "#6a7280")
DARK = Scheme((0.215, 0.012, 255), (0.80, 0.108, 240), (0.80, 0.115, 62), "#e4e7ec", "#949dab")


def shade(level: float, scheme: Scheme = LIGHT) -> str:
    """Hex colour of a level in [-1, 1]; beyond it the nearest end."""
    end = scheme.positive if level >= 0 else scheme.negative
    weight = min(abs(level), 1.0)
    start_lab, end_lab = _lab(scheme.paper), _lab(end)
    mixed = [a + weight * (b - a) for a, b in zip(start_lab, end_lab, strict=True)]
    return "#" + "".join(f"{round(255 * part):02x}" for part in _srgb(*mixed))


def ink(background: str) -> str:
    """Black or white, whichever reads better on a background."""
    return max(("#000000", "#ffffff"), key=lambda text: contrast(text, background))


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two hex colours, 1 to 21 (WCAG 2); text needs 4.5."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def relative_levels(scores: Iterable[float], largest: float | None = None) -> NDArray[np.float64]:
    """Scores over the largest magnitude, clipped to [-1, 1]; zeros if all are zero.

    Parameters
    ----------
    scores : iterable of float
    largest : float, optional
        The magnitude that gets the full colour; None takes it from the scores.
    """
    array = np.nan_to_num(np.array(list(scores), dtype=np.float64))
    top = float(np.abs(array).max(initial=0.0)) if largest is None else largest
    return np.clip(array / top, -1.0, 1.0) if top > 0 else np.zeros_like(array)


def _lab(colour: _Lch) -> tuple[float, float, float]:
    lightness, chroma, hue = colour
    angle = math.radians(hue)
    return lightness, chroma * math.cos(angle), chroma * math.sin(angle)


def _srgb(lightness: float, a: float, b: float) -> list[float]:
    """OKLab to sRGB in [0, 1] (Ottosson, 2020)."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    return [_gamma(min(max(part, 0.0), 1.0)) for part in linear]


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else float(1.055 * linear ** (1 / 2.4) - 0.055)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
