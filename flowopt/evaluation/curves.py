"""Curves of an evaluation as numbers for an SVG: one line per method, drawn by the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowopt.evaluation.results import Evaluation

__all__ = ["Chart", "Line", "charts"]

# Okabe and Ito's colours, which the common colour blindnesses tell apart, without black and yellow
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_REFERENCES = {"random": "1 4", "leave-one-out": "5 5"}
_GREY = "#7d8592"
_LEFT, _TOP, _WIDTH, _HEIGHT, _LEGEND = 46, 12, 420, 240, 18
_TITLES = {
    "deletion": "Probability of the explained class when the highest tokens are removed",
    "insertion": "Probability of the explained class when only the highest tokens are there",
}


@dataclass(frozen=True)
class Line:
    """One method: points in pixels, and where its name stands."""

    name: str
    points: str
    colour: str
    dash: str
    legend: int
    values: str


@dataclass(frozen=True)
class Chart:
    """One kind of curve."""

    title: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    lines: Sequence[Line]


def charts(found: Evaluation) -> list[Chart]:
    """Draw the mean deletion and insertion curves that there are."""
    drawn = []
    for name, title in _TITLES.items():
        levels, curves = found.curve(name)
        if curves and len(levels) > 1:
            drawn.append(_chart(title, levels.tolist(), {k: v.tolist() for k, v in curves.items()}))
    return drawn


def _chart(title: str, levels: list[float], curves: dict[str, list[float]]) -> Chart:
    bottom, right = _TOP + _HEIGHT, _LEFT + _WIDTH

    def x(share: float) -> float:
        return round(_LEFT + _WIDTH * share / levels[-1], 1)

    def y(probability: float) -> float:
        return round(bottom - _HEIGHT * probability, 1)

    lines, used = [], 0
    for number, (name, curve) in enumerate(curves.items()):
        if name in _REFERENCES:
            colour, dash = _GREY, _REFERENCES[name]
        else:
            colour = _COLOURS[used % len(_COLOURS)]
            dash = _DASHES[used // len(_COLOURS) % len(_DASHES)]
            used += 1
        points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(levels, curve, strict=False))
        values = ", ".join(f"{a:.0%}: {b:.3f}" for a, b in zip(levels, curve, strict=False))
        lines.append(Line(name, points, colour, dash, _TOP + 8 + _LEGEND * number, values))
    steps = [levels[-1] * i / 5 for i in range(6)]
    return Chart(
        title=title,
        width=right + 34 + 7 * max(map(len, curves)) + 20,
        height=max(bottom + 40, _TOP + 16 + _LEGEND * len(curves)),
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
        x_ticks=[(x(step), f"{step:.0%}") for step in steps],
        y_ticks=[(y(step / 4), f"{step / 4:.2f}") for step in range(5)],
        lines=lines,
    )
