"""What a benchmark found: a row per problem and solver, a summary per solver."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.comparison import report_tables as benchmark_tables
from flowopt.comparison.compare import REFUSED, ROUNDING
from flowopt.comparison.journal import Result
from flowopt.errors import InputError, MissingDependencyError
from flowopt.solution import Status

if TYPE_CHECKING:
    import pandas
    from rich.console import Group

__all__ = [
    "OVER_LIMIT",
    "SHIFT",
    "SKIPPED",
    "BenchmarkReport",
    "Summary",
    "shifted_geometric_mean",
    "with_differences",
]

OVER_LIMIT, SKIPPED = "over limit", "skipped"
SHIFT = 0.01  # seconds; most solves take milliseconds, where the usual 1 or 10 s would hide all
COLUMNS = tuple(field.name for field in fields(Result) if field.name != "attributions")


def shifted_geometric_mean(seconds: Sequence[float], shift: float = SHIFT) -> float:
    """exp(mean(log(s + shift))) - shift: neither the largest nor the tiniest times rule it.

    Parameters
    ----------
    seconds : sequence of float, not negative
    shift : float, positive

    Raises
    ------
    InputError
    """
    times = np.asarray(seconds, dtype=np.float64)
    if times.size == 0 or not shift > 0 or (times < 0).any():
        raise InputError("give at least one time, none below 0, and a positive shift")
    return float(np.expm1(np.log1p(times / shift).mean()) * shift)


@dataclass(frozen=True)
class Summary:
    """One solver on all problems.

    Attributes
    ----------
    solver : str
    problems, solved : int
        How many there were, and how many were certified optimal within the time limit.
    success : float
        solved / problems. A problem that the solver refuses is one it does not solve.
    solve_mean, total_mean : float
        Shifted geometric means over all problems of the time to solve, and to build and solve,
        in seconds; unsolved problems count as the time limit.
    worst_difference : float or None
        Largest difference from the reference, relative to |f|, among the solved.
    worst_bound : float or None
        Largest certified error of an attribution, relative to |f|, among the solved: what their
        certificates allow. None where the objective does not determine attributions.
    refused, failed, slow : tuple of str
        Problems that it cannot take; that it answered without proof, or not at all; that took
        longer than the limit, or were skipped for that.
    """

    solver: str
    problems: int
    solved: int
    success: float
    solve_mean: float
    total_mean: float
    worst_difference: float | None
    worst_bound: float | None
    refused: tuple[str, ...]
    failed: tuple[str, ...]
    slow: tuple[str, ...]


@dataclass(frozen=True)
class BenchmarkReport:
    """Results of `benchmark_solvers`; prints, exports, and names every failure.

    Attributes
    ----------
    problem_sets : tuple of str
    objective : str
    time_limit : float
        Seconds for building and solving one problem.
    repeats : int
    rows : tuple of Result
        Problem by problem, in the order of the solvers.
    runs : tuple of dict
        Machine facts of every run that measured some of the rows, with their number "results".
        Times of different runs compare only as well as the machine was as busy.
    """

    problem_sets: tuple[str, ...]
    objective: str
    time_limit: float
    repeats: int
    rows: tuple[Result, ...]
    runs: tuple[dict[str, Any], ...]

    @property
    def summary(self) -> tuple[Summary, ...]:
        """A summary per solver that can take at least one problem; best first."""
        found = [self._summarised(name) for name in self._solvers if name not in self.unable]
        return tuple(sorted(found, key=lambda each: (-each.solved, each.total_mean)))

    @property
    def unable(self) -> dict[str, str]:
        """Solvers that refuse every problem, with the reason of the first."""
        found = {}
        for name in self._solvers:
            rows = [row for row in self.rows if row.solver == name]
            if all(row.status == REFUSED for row in rows):
                found[name] = rows[0].message
        return found

    @property
    def failures(self) -> tuple[Result, ...]:
        """Rows without a certified answer, refusals apart."""
        good = (Status.OPTIMAL.value, REFUSED)
        return tuple(row for row in self.rows if row.status not in good)

    @property
    def _solvers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.solver for row in self.rows))

    def _summarised(self, solver: str) -> Summary:
        rows = [row for row in self.rows if row.solver == solver]
        solved = [row for row in rows if row.status == Status.OPTIMAL]
        beyond = [self.time_limit] * (len(rows) - len(solved))
        apart = [row.difference for row in solved if row.difference is not None]
        bounds = [row.attribution_error for row in solved if row.attribution_error is not None]

        def named(*statuses: str) -> tuple[str, ...]:
            return tuple(row.problem for row in rows if row.status in statuses)

        return Summary(
            solver,
            len(rows),
            len(solved),
            len(solved) / len(rows),
            shifted_geometric_mean([row.solve_seconds or 0.0 for row in solved] + beyond),
            shifted_geometric_mean([row.seconds or 0.0 for row in solved] + beyond),
            max(apart, default=None),
            max(bounds, default=None),
            named(REFUSED),
            named(Status.FAILED, Status.INACCURATE, Status.FEASIBLE),
            named(OVER_LIMIT, SKIPPED),
        )

    def to_pandas(self) -> pandas.DataFrame:
        """One row per problem and solver, without the attributions.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError(
                "to_pandas() needs pandas: pip install 'flowopt[compare]'."
            ) from error
        numbers = {
            name: "Int64" if name == "iterations" else "float64"
            for name in (*_MEASURED, "iterations")
        }
        return pandas.DataFrame(self._records(), columns=list(COLUMNS)).astype(numbers)

    def to_parquet(self, path: str | PathLike[str]) -> None:
        """Write the table of `to_pandas` as parquet.

        Raises
        ------
        MissingDependencyError
            If pandas or pyarrow is not installed.
        """
        table = self.to_pandas()
        if find_spec("pyarrow") is None:
            raise MissingDependencyError(
                "to_parquet() needs pyarrow: pip install 'flowopt[compare]'."
            )
        table.to_parquet(path, engine="pyarrow", index=False)

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write the table of `to_pandas` as CSV; needs nothing that is not installed."""
        with Path(path).open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._records())

    def to_json(self) -> str:
        """Everything but the attributions as JSON text; infinity is null."""
        values = {
            "problem_sets": self.problem_sets,
            "objective": self.objective,
            "time_limit": self.time_limit,
            "repeats": self.repeats,
            "shift": SHIFT,
            "summary": [
                {name: _finite(entry) for name, entry in asdict(each).items()}
                for each in self.summary
            ],
            "unable": self.unable,
            "runs": self.runs,
            "rows": [
                {name: _finite(entry) for name, entry in row.items()} for row in self._records()
            ],
        }
        return json.dumps(values, indent=1, allow_nan=False)

    def to_markdown(self) -> str:
        """A report to read: summary, where each solver fails, every failure, machine facts."""
        return benchmark_tables.markdown(self)

    def _records(self) -> list[dict[str, Any]]:
        return [{name: getattr(row, name) for name in COLUMNS} for row in self.rows]

    def __rich__(self) -> Group:
        """As rich tables: the summary, and failures by family."""
        return benchmark_tables.rich_tables(self)

    def __str__(self) -> str:
        return benchmark_tables.plain(self)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


_MEASURED = (
    "value",
    "objective_value",
    "gap",
    "attribution_error",
    "build_seconds",
    "solve_seconds",
    "difference",
)


def with_differences(rows: Iterable[Result], unique_attributions: bool) -> tuple[Result, ...]:
    """Compare rows with their problem's reference: the first with the smallest certified gap.

    Derived from stored values alone, so that a resumed benchmark says the same as one that was
    never interrupted. A problem that no solver solves has no reference.
    """
    rows = list(rows)
    best: dict[tuple[str, str], Result] = {}
    for row in rows:
        known = best.get((row.problem_set, row.problem))
        if row.status == Status.OPTIMAL and (known is None or _gap(row) < _gap(known)):
            best[row.problem_set, row.problem] = row
    return tuple(
        _compared(row, best.get((row.problem_set, row.problem)), unique_attributions)
        for row in rows
    )


def _gap(row: Result) -> float:
    return math.inf if row.gap is None else max(row.gap, ROUNDING)


def _compared(row: Result, truth: Result | None, unique_attributions: bool) -> Result:
    if truth is None or row.value is None or truth.value is None:
        return row
    apart = abs(row.value - truth.value)
    if unique_attributions and row.attributions is not None and truth.attributions is not None:
        pairs = zip(row.attributions, truth.attributions, strict=True)
        apart = max((abs(one - other) for one, other in pairs), default=0.0)
    return replace(row, difference=apart / (truth.value or 1.0), reference=row is truth)


def _finite(entry: Any) -> Any:
    return None if isinstance(entry, float) and not math.isfinite(entry) else entry
