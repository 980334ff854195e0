"""Figures with matplotlib, for papers and notebooks. Nothing is shown or saved here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError
from flowopt.viz import content
from flowopt.viz.diagram import lay_out
from flowopt.viz.palette import LIGHT, shade
from flowopt.viz.svg import describe, group_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flowopt.attribution import Attribution
    from flowopt.solution import FlowSolution

__all__ = ["plot_attribution", "plot_flow"]

_BEZIER = np.linspace(0.0, 1.0, 24)


def plot_attribution(
    att: Attribution,
    ax: Axes | None = None,
    *,
    include_special: bool = False,
    max_words: int = 40,
) -> Axes:
    """Draw the words as horizontal bars, in the order of the text, with their error bounds.

    Parameters
    ----------
    att : Attribution
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.
    include_special : bool
        Whether special tokens get bars too; otherwise the label says what they take.
    max_words : int
        Of longer texts, the words with the largest scores.

    Returns
    -------
    matplotlib Axes
    """
    if max_words < 1:
        raise InputError(f"max_words must be at least 1, not {max_words}")
    found = content.rows(att)
    shown = [row for row in found if include_special or not row.special]
    left_out = len(shown) - max_words
    if left_out > 0:
        limit = sorted((abs(row.score) for row in shown), reverse=True)[max_words - 1]
        shown = [row for row in shown if abs(row.score) >= limit][:max_words]
    ax = ax or _new_axes(6.0, 1.1 + 0.27 * len(shown))
    places = np.arange(len(shown))
    ax.barh(
        places,
        [row.score for row in shown],
        color=[_bar_colour(row) for row in shown],
        height=0.74,
    )
    _whiskers(ax, shown)
    ax.set_yticks(places, labels=[row.word for row in shown], parse_math=False)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    for label, row in zip(ax.get_yticklabels(), shown, strict=True):
        label.set_color(LIGHT.faint if row.special else LIGHT.text)
    if content.is_signed(att):
        ax.axvline(0.0, color=LIGHT.faint, linewidth=0.8)
    special = None if include_special else content.special_line(found, att.certificate is not None)
    notes = [_scaled_ticks(ax, att), special, f"{left_out} more words" if left_out > 0 else None]
    ax.set_xlabel("; ".join(note for note in notes if note), parse_math=False)
    _title(ax, att)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def plot_flow(
    flow: Attribution | FlowSolution,
    ax: Axes | None = None,
    *,
    max_edges: int = 300,
    which: int = 0,
) -> Axes:
    """Draw the network's flow: a row for each layer, a column for each token.

    Width of edges and area of nodes are proportional to the flow through them.

    Parameters
    ----------
    flow : Attribution or FlowSolution
    ax : matplotlib Axes, optional
    max_edges : int
        Most edges drawn, the largest ones; the label says what share of the flow they carry.
    which : int
        Which of an attribution's solutions; there are two for signed flow.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If an attribution has no such solution; one read from JSON has none at all.
    """
    solution, labels, dim = _solution_of(flow, which)
    plan = lay_out(solution, max_edges)
    players = solution.network.players
    width = min(max(3.2, 0.9 + 0.42 * plan.columns), 15.0)
    ax = ax or _new_axes(width, 1.0 + 0.62 * len(plan.groups))
    colour = shade(1.0)
    largest = max((edge.flow for edge in plan.edges), default=1.0)
    for edge in plan.edges:
        weight = edge.flow / largest
        ax.plot(
            *_curve(edge.x0, edge.y0, edge.x1, edge.y1),
            color=colour,
            alpha=0.25 + 0.45 * weight,
            linewidth=max(5.0 * weight, 0.3),
            solid_capstyle="butt",
            zorder=1,
        )
    top = max((node.flow for node in plan.nodes), default=0.0) or 1.0
    carrying = [node for node in plan.nodes if node.flow > 1e-12 * top]
    idle = [node for node in plan.nodes if node.flow <= 1e-12 * top]
    ax.scatter(
        [node.x for node in carrying],
        [node.y for node in carrying],
        s=[max(4.0, 170.0 * node.flow / top) for node in carrying],
        color=colour,
        zorder=2,
    )
    ax.scatter([n.x for n in idle], [n.y for n in idle], s=4, color="#c9ced6", zorder=2)
    ax.set_yticks(range(len(plan.groups)), labels=[group_name(g, players) for g in plan.groups])
    places = [node.x for node in plan.nodes if node.player]
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    turned["fontsize"] = min(10.0, max(4.0, 700.0 / plan.columns))
    ax.set_xticks(places, labels=labels, parse_math=False, **turned)
    for label, faint in zip(ax.get_xticklabels(), dim, strict=True):
        label.set_color(LIGHT.faint if faint else LIGHT.text)
    ax.set_xlim(0, plan.columns)
    ax.set_ylim(-0.45, len(plan.groups) - 0.55)
    ax.set_xlabel(describe(plan).replace("; ", ";\n"), color=LIGHT.faint, fontsize="small")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def _new_axes(width: float, height: float) -> Axes:
    # pyplot rather than a bare Figure: only its figures show up by themselves in a notebook.
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def _bar_colour(row: content.Row) -> str:
    if row.special:
        return "#b9c0ca"
    return shade(1.0 if row.score >= 0 else -1.0)


def _whiskers(ax: Axes, shown: list[content.Row]) -> None:
    """Error bounds, where there are any: invisible when the proof is tight, as it should be."""
    top = max((abs(row.score) for row in shown), default=0.0)
    known = [i for i, row in enumerate(shown) if row.error is not None and math.isfinite(row.error)]
    if known:
        visible = max(shown[i].error or 0.0 for i in known) > 2e-3 * top
        ax.errorbar(
            [shown[i].score for i in known],
            known,
            xerr=[shown[i].error or 0.0 for i in known],
            fmt="none",
            ecolor=LIGHT.text,
            elinewidth=1.0,
            capsize=2.5 if visible else 0.0,
        )


def _scaled_ticks(ax: Axes, att: Attribution) -> str:
    """Put the unit into the axis label, where it cannot collide with it, and return the label."""
    largest = max((abs(limit) for limit in ax.get_xlim()), default=0.0)
    unit = content.unit_of([largest])
    ax.xaxis.set_major_formatter(lambda x, _: f"{x / 10.0**unit:.4g}")
    what = "score of the word" if att.certificate is None else "flow through the word"
    return what + (f" \u00d71e{unit}" if unit else "")


def _title(ax: Axes, att: Attribution) -> None:
    label = content.label(att, att.target)
    title = f"{label} {content.percent(att.target.probability)}"
    if att.max_flow is not None and att.max_flow > 0 and not content.is_signed(att):
        title += f", {content.percent(att.value / att.max_flow)} of the maximum flow"
    ax.set_title(title, loc="left", fontsize="medium", parse_math=False)


def _solution_of(
    flow: Attribution | FlowSolution, which: int
) -> tuple[FlowSolution, list[str], list[bool]]:
    solutions = getattr(flow, "solutions", None)
    if solutions is None:  # a FlowSolution
        from flowopt.solution import FlowSolution

        assert isinstance(flow, FlowSolution)
        players = flow.network.n_players
        return flow, [str(i) for i in range(players)], [False] * players
    if not -len(solutions) <= which < len(solutions):
        raise InputError(
            f"this attribution has {len(solutions)} solutions, so no solution {which}; one read "
            "from JSON has none: explain the text again to draw its flow"
        )
    solution: FlowSolution = solutions[which]
    named = content.player_names(flow, solution.network.n_players)  # type: ignore[arg-type]
    return _solution_of(solution, 0) if named is None else (solution, *named)


def _curve(x0: float, y0: float, x1: float, y1: float) -> tuple[np.ndarray[Any, Any], Any]:
    """An S-shaped path: leaves and arrives vertically."""
    s = _BEZIER
    smooth = s * s * (3 - 2 * s)
    return x0 + (x1 - x0) * smooth, y0 + (y1 - y0) * s
