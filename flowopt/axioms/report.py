"""What was found about methods and axioms: prints and exports."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowopt.axioms.counterexample import Counterexample
from flowopt.errors import InputError, MissingDependencyError
from flowopt.plain import plain_text

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

HOLDS, VIOLATED, FAILED, UNCHECKED = "holds", "violated", "failed", "not checked"
_STYLE = {HOLDS: "green", VIOLATED: "red", FAILED: "yellow", UNCHECKED: "dim"}
_COLUMNS = (
    "method", "axiom", "status", "checked", "violations", "failures", "worst", "tolerance", "where",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class AxiomResult:
    """One method and one axiom on many networks.

    Attributes
    ----------
    axiom, statement : str
    tolerance : float
    checked, violations, failures : int
        Networks that had something to check; where it was violated; where the method raised.
    worst : float
        Largest violation, relative to the maximum flow; K for continuity. NaN if none checked.
    where : str
        Name of that network.
    message : str
        What the method raised first.
    counterexample : Counterexample or None
    """

    axiom: str
    statement: str
    tolerance: float
    checked: int
    violations: int
    failures: int
    worst: float
    where: str
    message: str = ""
    counterexample: Counterexample | None = None

    @property
    def status(self) -> str:
        """One of "holds", "violated", "failed" (the method raised), "not checked"."""
        if self.violations:
            return VIOLATED
        if self.failures:
            return FAILED
        return HOLDS if self.checked else UNCHECKED

    @property
    def holds(self) -> bool:
        """Whether it was checked and never violated."""
        return self.status == HOLDS


@dataclass(frozen=True, eq=False, repr=False)
class AxiomReport:
    """What `verify` found about one method; prints, exports, and can be asked by axiom.

    Attributes
    ----------
    method : str
    results : tuple of AxiomResult
    networks : int
    seed : int
    """

    method: str
    results: tuple[AxiomResult, ...]
    networks: int
    seed: int

    def __repr__(self) -> str:
        held = sum(result.holds for result in self.results)
        return f"AxiomReport({self.method}: {held} of {len(self.results)} axioms hold)"

    def __getitem__(self, axiom: str) -> AxiomResult:
        for result in self.results:
            if result.axiom == axiom:
                return result
        known = ", ".join(result.axiom for result in self.results)
        raise InputError(f"{axiom!r} was not checked; checked were: {known}.")

    @property
    def violated(self) -> tuple[str, ...]:
        """Names of the axioms that were violated."""
        return tuple(result.axiom for result in self.results if result.status == VIOLATED)

    def to_pandas(self) -> pandas.DataFrame:
        """One row per axiom.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        return _frame(self._records())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; numbers that are not finite are None."""
        rows = []
        for record, result in zip(self._records(), self.results, strict=True):
            example = result.counterexample
            rows.append(
                {key: _finite(value) for key, value in record.items() if key != "method"}
                | {"statement": result.statement, "message": result.message}
                | {"counterexample": None if example is None else example.to_dict()}
            )
        return {
            "method": self.method,
            "networks": self.networks,
            "seed": self.seed,
            "results": rows,
        }

    def to_json(self) -> str:
        """Everything, counterexamples included, as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_markdown(self) -> str:
        """As a table for a document."""
        lines = ["| axiom | | violated on | worst |", "| --- | --- | --- | --- |"]
        for r in self.results:
            count = f"{r.violations} of {r.checked}" if r.checked else ""
            lines.append(f"| {r.axiom} | {r.status} | {count} | {_number(r.worst)} |")
        return "\n".join(lines) + "\n"

    def _records(self) -> list[dict[str, Any]]:
        return [
            {"method": self.method} | {name: getattr(result, name) for name in _COLUMNS[1:]}
            for result in self.results
        ]

    def __rich__(self) -> Table:
        """As a rich table."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        title = f"{self.method} on {self.networks} networks, seed {self.seed}"
        table = Table(title=title, box=box.SIMPLE, caption_justify="left")
        for head in ("axiom", "", "violated on", "worst", "tolerance", "smallest counterexample"):
            table.add_column(head, justify="right" if head in ("worst", "tolerance") else "left")
        for r in self.results:
            detail = r.message if r.counterexample is None else r.counterexample.detail
            count = f"{r.violations} of {r.checked}" if r.checked else ""
            cells = (count, _number(r.worst), f"{r.tolerance:.0e}", detail)
            table.add_row(Text(r.axiom), Text(r.status, _STYLE[r.status]), *map(Text, cells))
        return table

    def __str__(self) -> str:
        return plain_text(self, width=160)

    def _repr_markdown_(self) -> str:
        return f"**{self.method}** on {self.networks} networks\n\n{self.to_markdown()}"


@dataclass(frozen=True, eq=False, repr=False)
class AxiomTable:
    """Methods against axioms: what `survey` found.

    Attributes
    ----------
    reports : tuple of AxiomReport
        All with the same axioms and networks.
    """

    reports: tuple[AxiomReport, ...]
    title: str = field(default="")

    def __repr__(self) -> str:
        return f"AxiomTable({len(self.reports)} methods, {len(self.axioms)} axioms)"

    def __getitem__(self, method: str) -> AxiomReport:
        for report in self.reports:
            if report.method == method:
                return report
        known = ", ".join(report.method for report in self.reports)
        raise InputError(f"{method!r} was not asked; asked were: {known}.")

    @property
    def axioms(self) -> tuple[str, ...]:
        """Names of the axioms."""
        return tuple(result.axiom for result in self.reports[0].results)

    def to_pandas(self) -> pandas.DataFrame:
        """One row per method and axiom."""
        return _frame([record for report in self.reports for record in report._records()])

    def to_json(self) -> str:
        """All reports as JSON text."""
        values = {"methods": [report.to_dict() for report in self.reports]}
        return json.dumps(values, indent=1, allow_nan=False)

    def to_markdown(self) -> str:
        """As a table for a document: a row per method."""
        lines = ["| | " + " | ".join(self.axioms) + " |", "| --- " * (len(self.axioms) + 1) + "|"]
        for report in self.reports:
            cells = " | ".join(map(_cell, report.results))
            lines.append(f"| {report.method} | {cells} |")
        return "\n".join(lines) + "\n"

    def __rich__(self) -> Table:
        """As a rich table: a row per axiom, a column per method."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        caption = (
            "holds, or violated on how many of the networks checked, and the worst violation "
            "relative to the maximum flow (for continuity the ratio K)"
        )
        table = Table(
            title=self.title or None, caption=caption, caption_justify="left", box=box.SIMPLE
        )
        table.add_column("axiom")
        for report in self.reports:
            table.add_column(report.method, overflow="fold")
        for k, axiom in enumerate(self.axioms):
            row = [report.results[k] for report in self.reports]
            table.add_row(Text(axiom), *(Text(_cell(r), _STYLE[r.status]) for r in row))
        return table

    def __str__(self) -> str:
        return plain_text(self, width=160)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def _cell(result: AxiomResult) -> str:
    if result.status == VIOLATED:
        return f"{result.violations}/{result.checked} ({_number(result.worst)})"
    if result.status == HOLDS and result.axiom.startswith("continuity"):
        return f"K={_number(result.worst)}"
    if result.status == FAILED:
        return f"failed {result.failures}"
    return {HOLDS: "holds", UNCHECKED: "-"}[result.status]


def _number(value: float) -> str:
    return "" if math.isnan(value) else ("0" if value == 0 else f"{value:.1e}")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _frame(records: list[dict[str, Any]]) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError(
            "to_pandas() needs pandas: pip install 'flowopt[compare]'."
        ) from error
    return pandas.DataFrame(records, columns=list(_COLUMNS))
