"""The rows of a comparison of solvers, and how they look in a terminal, as text, in a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowopt.plain import plain_text

if TYPE_CHECKING:
    from rich.table import Table

    from flowopt.comparison.compare import Comparison

_COLOURS = {"optimal": "green", "feasible": "cyan", "inaccurate": "yellow", "failed": "red"}
_COLUMNS = (
    "solver",
    "status",
    "|f|",
    "objective",
    "gap",
    "conservation",
    "bounds",
    "error",
    "difference",
    "iterations",
    "build",
    "solve",
)


@dataclass(frozen=True)
class Row:
    """One solver on one network.

    Attributes
    ----------
    network : int
        Number of the network, from 0.
    solver : str
    status : str
        A `Status`, or ``"refused"`` if the solver cannot solve this problem.
    value, objective_value : float or None
        |f|, and the objective with its regulariser; None if refused.
    gap, conservation, bounds : float or None
        From our certificate.
    attribution_error : float or None
        Largest certified error of an attribution, relative to |f|.
    build_seconds, solve_seconds : float or None
    iterations : int or None
    difference : float or None
        Largest difference of an attribution from the reference's, relative to |f|.
    reference : bool
        Whether this row is what the others of its network are compared with.
    message : str
        The backend's own word, or why it refused.
    """

    network: int
    solver: str
    status: str
    value: float | None = None
    objective_value: float | None = None
    gap: float | None = None
    conservation: float | None = None
    bounds: float | None = None
    attribution_error: float | None = None
    build_seconds: float | None = None
    solve_seconds: float | None = None
    iterations: int | None = None
    difference: float | None = None
    reference: bool = False
    message: str = ""


def rich_table(comparison: Comparison) -> Table:
    """As a rich table, the remarks below it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    networks = comparison.networks
    names = networks[0] if len(networks) == 1 else f"{len(networks)} networks"
    table = Table(
        title=f"{comparison.objective} on {names}",
        caption="\n".join(comparison.remarks),
        caption_justify="left",
        box=box.SIMPLE,
    )
    for name in _header(comparison):
        table.add_column(name, justify="left" if name in ("solver", "status") else "right")
    for row in comparison.rows:
        style = _COLOURS.get(row.status, "dim")
        cells = _cells(row, len(networks) > 1)
        table.add_row(*(Text(c, style=style if c == row.status else "") for c in cells))
    return table


def plain(comparison: Comparison) -> str:
    """As text without colours."""
    return plain_text(comparison, width=160)


def html_table(comparison: Comparison) -> str:
    """As HTML for a notebook."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in _header(comparison))
    body = ""
    for row in comparison.rows:
        cells = _cells(row, len(comparison.networks) > 1)
        body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    remarks = "".join(f"<li>{html.escape(remark)}</li>" for remark in comparison.remarks)
    return (
        f"<table><caption>{html.escape(comparison.objective)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{remarks}</ul>"
    )


def _header(comparison: Comparison) -> list[str]:
    return ["network", *_COLUMNS] if len(comparison.networks) > 1 else list(_COLUMNS)


def _cells(row: Row, numbered: bool) -> list[str]:
    cells = [
        row.solver,
        row.status,
        "" if row.value is None else f"{row.value:.8g}",
        "" if row.objective_value is None else f"{row.objective_value:.8g}",
        *map(_number, (row.gap, row.conservation, row.bounds, row.attribution_error)),
        "reference" if row.reference else _number(row.difference),
        "" if row.iterations is None else str(row.iterations),
        *map(_seconds, (row.build_seconds, row.solve_seconds)),
    ]
    return [str(row.network), *cells] if numbered else cells


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f} s"
