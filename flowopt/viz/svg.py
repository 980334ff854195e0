"""The flow diagram as numbers for an SVG: paths, circles and labels in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowopt.viz.content import number, percent
from flowopt.viz.diagram import Diagram, lay_out
from flowopt.viz.palette import shade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowopt.solution import FlowSolution

__all__ = ["FlowPicture", "group_name", "picture"]

_TOP, _ROW, _LABELS = 16, 50, 84
_WIDEST_EDGE, _THINNEST_EDGE = 7.0, 0.4


@dataclass(frozen=True)
class Path:
    """An edge."""

    path: str
    width: float
    opacity: float


@dataclass(frozen=True)
class Circle:
    """A node."""

    x: float
    y: float
    radius: float
    idle: bool
    title: str


@dataclass(frozen=True)
class Label:
    """A line of text that ends at (x, y)."""

    x: float
    y: float
    text: str
    dim: bool = False
    turned: bool = False


@dataclass(frozen=True)
class FlowPicture:
    """All that the template draws."""

    width: int
    height: int
    css: str
    colour: str
    caption: str
    edges: tuple[Path, ...]
    nodes: tuple[Circle, ...]
    labels: tuple[Label, ...]


def picture(
    solution: FlowSolution,
    tokens: Sequence[str],
    dim: Sequence[bool],
    caption: str = "",
    against: bool = False,
    max_edges: int = 240,
) -> FlowPicture:
    """Draw one flow.

    Parameters
    ----------
    solution : FlowSolution
    tokens : sequence of str
        Names of the players.
    dim : sequence of bool
        Which of them stand back.
    caption : str
        What the flow is, where there are several.
    against : bool
        Whether it speaks against the class, which is another colour.
    max_edges : int
    """
    plan = lay_out(solution, max_edges)
    names = tuple(group_name(group, solution.network.players) for group in plan.groups)
    grid = _Grid(
        left=20.0 + 7.0 * max(len(name) for name in names),
        bottom=_TOP + _ROW * (len(names) - 1),
        step=min(max(680 / plan.columns, 15), 64),
    )
    return FlowPicture(
        width=math.ceil(grid.left + grid.step * plan.columns + 12),
        height=grid.bottom + _LABELS,
        css="against" if against else "for",
        colour=shade(-1.0 if against else 1.0),
        caption=caption + describe(plan),
        edges=_paths(plan, grid),
        nodes=_circles(plan, grid, names, tokens, solution),
        labels=_labels(plan, grid, names, tokens, dim),
    )


def describe(plan: Diagram) -> str:
    """What is drawn, and how much of it is left out."""
    if len(plan.edges) == plan.carrying:
        return f"All {plan.carrying} edges that carry flow."
    return (
        f"{len(plan.edges)} of {plan.carrying} edges, the largest of each layer; they carry "
        f"{percent(plan.share)} of the flow on all edges."
    )


def group_name(group: str, players: str | None) -> str:
    """Name of a row: "input", "layer 3", or the group's own."""
    if group == players:
        return "input"
    digits = group.removeprefix("layer")
    return f"layer {digits}" if digits.isdigit() and digits != group else group


@dataclass(frozen=True)
class _Grid:
    """From columns and rows to pixels."""

    left: float
    bottom: int
    step: float

    def x(self, column: float) -> float:
        return round(self.left + self.step * column, 1)

    def y(self, row: int) -> int:
        return self.bottom - _ROW * row


def _paths(plan: Diagram, grid: _Grid) -> tuple[Path, ...]:
    largest = max((edge.flow for edge in plan.edges), default=1.0)
    found = []
    for edge in plan.edges:
        x0, x1, y0, y1 = grid.x(edge.x0), grid.x(edge.x1), grid.y(edge.y0), grid.y(edge.y1)
        middle = (y0 + y1) / 2
        weight = edge.flow / largest
        path = f"M{x0} {y0}C{x0} {middle} {x1} {middle} {x1} {y1}"
        found.append(
            Path(path, round(max(_WIDEST_EDGE * weight, 0.4), 2), round(0.25 + 0.45 * weight, 2))
        )
    return tuple(found)


def _circles(
    plan: Diagram,
    grid: _Grid,
    names: Sequence[str],
    tokens: Sequence[str],
    solution: FlowSolution,
) -> tuple[Circle, ...]:
    largest = max((node.flow for node in plan.nodes), default=0.0) or 1.0
    widest = min(0.4 * grid.step, 11.0)
    sizes, players = solution.network.groups, solution.network.players
    found = []
    for node in plan.nodes:
        idle = node.flow <= 1e-12 * largest
        named = node.group == players or _beside(node.group, players, sizes)
        word = tokens[node.index] if named else str(node.index)
        share = percent(node.flow / solution.value) if solution.value > 0 else "0.0 %"
        found.append(
            Circle(
                x=grid.x(node.x),
                y=grid.y(node.y),
                # area, not radius, shows the flow
                radius=1.5 if idle else round(max(1.5, widest * math.sqrt(node.flow / largest)), 1),
                idle=idle,
                title=f"{names[node.y]}, {word}: {number(node.flow)} ({share})",
            )
        )
    return tuple(found)


def _beside(group: str, players: str | None, sizes: Mapping[str, int]) -> bool:
    """Whether a group stands in the same columns as the players: "layer2" as "layer0"."""
    stack = None if players is None else players.rstrip("0123456789")
    return group.rstrip("0123456789") == stack and sizes[group] == sizes[players or group]


def _labels(
    plan: Diagram,
    grid: _Grid,
    names: Sequence[str],
    tokens: Sequence[str],
    dim: Sequence[bool],
) -> tuple[Label, ...]:
    found = [Label(grid.left - 10, grid.y(y) + 4, name, dim=True) for y, name in enumerate(names)]
    players = [node for node in plan.nodes if node.player]
    for node, token, faint in zip(players, tokens, dim, strict=True):
        x = round(grid.x(node.x) + 4, 1)
        found.append(Label(x, grid.bottom + 22, _cut(token), faint, turned=True))
    return tuple(found)


def _cut(token: str, most: int = 12) -> str:
    return token if len(token) <= most else token[: most - 1] + "\u2026"
