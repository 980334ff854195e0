"""How a benchmark looks: markdown for a file, rich tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowopt import provenance
from flowopt.comparison.compare import REFUSED
from flowopt.plain import plain_text
from flowopt.solution import Status

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from flowopt.comparison.journal import Result
    from flowopt.comparison.report import BenchmarkReport, Summary

_HEADER = (
    "solver",
    "certified",
    "success",
    "solve",
    "build + solve",
    "worst difference",
    "worst bound",
    "no proof",
    "too slow",
    "refused",
)


def markdown(report: BenchmarkReport, level: int = 1) -> str:
    """The report as markdown; `level` is that of its first heading."""
    mark = "#" * level
    parts = [f"{mark} {_title(report)}", _table(_HEADER, [_cells(s) for s in report.summary])]
    parts.append(_explanation(report))
    if report.unable:
        reasons = [f"- {name}: {why}" for name, why in report.unable.items()]
        parts += ["Cannot take any of these problems:", "\n".join(reasons)]
    parts.append(f"{mark}# Certified, by family")
    families = _by_family(report)
    names = [summary.solver for summary in report.summary]
    parts.append(_table(("family", *names), families))
    parts.append(f"{mark}# What was not certified")
    parts.append(_failures(report) or "Nothing.")
    parts.append(f"{mark}# Measured on")
    if len(report.runs) > 1:
        parts.append("Several runs: times compare only as well as the machine was as busy.")
    parts.append("\n".join(map(_run, report.runs)))
    return "\n\n".join(parts) + "\n"


def rich_tables(report: BenchmarkReport) -> Group:
    """Summary and families as rich tables."""
    from rich.console import Group
    from rich.text import Text

    families = _rich("Certified, by family", ("family", *(s.solver for s in report.summary)))
    for row in _by_family(report):
        families.add_row(*map(Text, row))
    table = _rich(_title(report), _HEADER)
    for summary in report.summary:
        style = "green" if summary.success == 1 else "yellow" if summary.solved else "red"
        cells = _cells(summary)
        table.add_row(cells[0], Text(cells[1], style=style), *map(Text, cells[2:]))
    said = [_explanation(report)]
    said += [f"{name} cannot take these problems: {why}." for name, why in report.unable.items()]
    return Group(table, families, *map(Text, said))


def plain(report: BenchmarkReport) -> str:
    """As text without colours."""
    return plain_text(report, width=150)


def _rich(title: str, header: tuple[str, ...]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    return table


def _run(facts: dict[str, Any]) -> str:
    known = provenance.describe(facts) if "machine" in facts else "machine unknown"
    return f"- {facts['results']} results: {known}"


def _title(report: BenchmarkReport) -> str:
    return f"{report.objective} on {', '.join(report.problem_sets)}"


def _explanation(report: BenchmarkReport) -> str:
    from flowopt.comparison.report import SHIFT

    repeated = f"; medians of {report.repeats} solves" if report.repeats > 1 else ""
    return (
        "Certified: proved optimal by flowopt's own certificate, building and solving within "
        f"{report.time_limit:g} s. Times: geometric means shifted by {SHIFT:g} s over all "
        f"problems, those not certified counted as {report.time_limit:g} s{repeated}. Worst "
        "difference: of a certified attribution (of |f|, where attributions are not unique) from "
        "the reference, the certified answer with the smallest gap, relative to |f|; worst bound: "
        "the largest that a certificate allows."
    )


def _cells(summary: Summary) -> list[str]:
    return [
        summary.solver,
        f"{summary.solved} of {summary.problems}",
        f"{summary.success:.0%}",
        _seconds(summary.solve_mean),
        _seconds(summary.total_mean),
        *(
            "" if number is None else f"{number:.1e}"
            for number in (summary.worst_difference, summary.worst_bound)
        ),
        *(str(len(names) or "") for names in (summary.failed, summary.slow, summary.refused)),
    ]


def _by_family(report: BenchmarkReport) -> list[list[str]]:
    """Per family, for each solver of the summary: how many certified, and from which size not."""
    table = []
    for family in dict.fromkeys(row.family for row in report.rows):
        cells = [family]
        for summary in report.summary:
            rows = [
                row for row in report.rows if (row.family, row.solver) == (family, summary.solver)
            ]
            missed = [row for row in rows if row.status != Status.OPTIMAL]
            cell = f"{len(rows) - len(missed)}/{len(rows)}"
            if missed and len(missed) < len(rows):
                cell += f", fails at {_edges(min(row.size for row in missed))}"
            cells.append(cell)
        table.append(cells)
    return table


def _failures(report: BenchmarkReport) -> str:
    unable = report.unable
    rows = [row for row in report.rows if row.status != Status.OPTIMAL and row.solver not in unable]
    header = ("solver", "problem", "edges", "status", "gap", "seconds", "why")
    rows.sort(key=lambda row: row.solver)
    return _table(header, [_failure(row) for row in rows]) if rows else ""


def _failure(row: Result) -> list[str]:
    return [
        row.solver,
        row.problem,
        str(row.size),
        row.status,
        "" if row.gap is None or row.status == REFUSED else f"{row.gap:.1e}",
        "" if row.seconds is None else f"{row.seconds:.2f}",
        " ".join(row.message.split())[:120],
    ]


def _edges(count: int) -> str:
    return f"{count} edges" if count < 10_000 else f"{count // 1000}k edges"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def _table(header: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
