"""Comparing solvers on the same problems: who solved what, how well, how fast, and who differs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.comparison import table as comparison_table
from flowopt.comparison.table import Row
from flowopt.errors import InputError, MissingDependencyError
from flowopt.network import FlowNetwork
from flowopt.objectives import MaxFlow, Objective
from flowopt.solution import FlowSolution, Status
from flowopt.solvers import available, get_solver, solve
from flowopt.solvers.base import Solver

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

__all__ = ["Comparison", "Row", "compare_solvers"]

AGREEMENT = 1e-6  # differences relative to |f| that are worth a word
REFUSED = "refused"
ROUNDING = 1e-12  # gaps below are as good as each other


@dataclass(frozen=True)
class Comparison:
    """A table of solvers by networks; prints, exports, and says who disagrees and who failed.

    Attributes
    ----------
    objective : str
    networks : tuple of str
    rows : tuple of Row
    unique_attributions : bool
        Whether the objective has one optimal attribution, so that solvers ought to agree on it.
    """

    objective: str
    networks: tuple[str, ...]
    rows: tuple[Row, ...]
    unique_attributions: bool

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows whose answer our certificate does not accept."""
        return tuple(row for row in self.rows if row.status in (Status.INACCURATE, Status.FAILED))

    @property
    def refused(self) -> tuple[Row, ...]:
        """Rows of solvers that cannot solve the problem."""
        return tuple(row for row in self.rows if row.status == REFUSED)

    @property
    def disagreeing(self) -> tuple[Row, ...]:
        """Certified rows whose |f| or, where they are unique, attributions differ from the rest."""
        found = []
        for row in self.rows:
            reference = self._reference(row.network)
            if reference is None or row.status != Status.OPTIMAL or row.value is None:
                continue
            value = reference.value or 0.0
            apart = self._determines_value and abs(row.value - value) > AGREEMENT * value
            if self.unique_attributions and row.difference is not None:
                apart |= row.difference > AGREEMENT
            if apart:
                found.append(row)
        return tuple(found)

    @property
    def _determines_value(self) -> bool:
        return self.unique_attributions or self.objective.startswith("MaxFlow")

    def _reference(self, network: int) -> Row | None:
        return next((r for r in self.rows if r.reference and r.network == network), None)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the table means, in sentences."""
        said = []
        if not self.unique_attributions:
            said.append(
                f"{self.objective} has no unique optimum: different attributions are expected and "
                "no fault of a solver; LogBarrier, Quadratic and Entropy determine them."
            )
        for row in self.disagreeing:
            error = row.attribution_error
            allowed = "" if error is None else f" (its certificate allows {error:.1e})"
            apart = f"{row.difference:.1e} of |f|{allowed}"
            said.append(f"{self._name(row)} disagrees with the reference by {apart}.")
        said += [f"{self._name(row)} is {row.status}: {row.message}" for row in self.failed]
        if all(row.status == REFUSED for row in self.rows):
            said.append("None of these solvers can solve this; leave `solvers` out to try all.")
        elif not (self.disagreeing or self.failed) and self.unique_attributions:
            said.append("All solvers that can solve this agree within their certificates.")
        reasons: dict[tuple[str, str], int] = {}
        for row in self.refused:
            reasons[row.solver, row.message] = reasons.get((row.solver, row.message), 0) + 1
        for (solver, why), count in reasons.items():
            where = "" if count == len(self.networks) else f" ({count} networks)"
            said.append(f"{solver} cannot solve this{where}: {why}.")
        return tuple(said)

    def _name(self, row: Row) -> str:
        return row.solver if len(self.networks) == 1 else f"{row.solver} on network {row.network}"

    def to_pandas(self) -> pandas.DataFrame:
        """One row per solver and network.

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
        return pandas.DataFrame([asdict(row) for row in self.rows])

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return JSON text, and write it to a file where a path is given; infinity is null."""
        values = asdict(self)
        for row in values["rows"]:
            for key, entry in row.items():
                if isinstance(entry, float) and not math.isfinite(entry):
                    row[key] = None
        text = json.dumps({**values, "remarks": self.remarks}, indent=1)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def __rich__(self) -> Table:
        """As a rich table, remarks below."""
        return comparison_table.rich_table(self)

    def __str__(self) -> str:
        return comparison_table.plain(self)

    def _repr_html_(self) -> str:
        return comparison_table.html_table(self)


def compare_solvers(
    networks: FlowNetwork | Iterable[FlowNetwork],
    objective: Objective | None = None,
    solvers: Sequence[str | Solver] | None = None,
    reference: str | None = None,
    progress: bool = True,
) -> Comparison:
    """Solve the same problems with several solvers and compare what our certificate says.

    Parameters
    ----------
    networks : FlowNetwork, or iterable of FlowNetwork
    objective : Objective, optional
        Plain maximum flow by default.
    solvers : sequence of str or Solver, optional
        All available ones by default; those that cannot solve a problem are listed with the
        reason.
    reference : str, optional
        Name of the solver the others are compared with; by default, on each network, the first
        with the smallest certified gap (up to rounding).
    progress : bool
        Whether to show progress, where standard error is a terminal.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        For an unknown solver, a reference that is not among them, or no network.
    """
    if isinstance(networks, FlowNetwork):
        networks = [networks]
    nets = list(networks) if isinstance(networks, Iterable) else []
    if not nets or not all(isinstance(net, FlowNetwork) for net in nets):
        raise InputError("compare_solvers needs a FlowNetwork or several of them.")
    objective = MaxFlow() if objective is None else objective
    if isinstance(solvers, str | Solver):
        solvers = [solvers]
    if solvers is not None and not solvers:
        raise InputError(f"solvers is empty; known ones: {', '.join(available())}.")
    backends = [get_solver(solver) for solver in (available() if solvers is None else solvers)]
    names = [backend.name for backend in backends]
    if reference is not None and reference.lower() not in [name.lower() for name in names]:
        raise InputError(f"The reference {reference!r} is not among the solvers {names}.")
    rows: list[Row] = []
    with _bar(len(nets) * len(backends), progress) as bar:
        for number, net in enumerate(nets):
            resolved = objective.resolve(net)
            found: list[tuple[Row, FlowSolution | None]] = []
            for backend in backends:
                bar.set_postfix_str(backend.name)
                found.append(_solved(number, net, objective, resolved, backend))
                bar.update()
            rows += _compared(found, reference)
    return Comparison(
        objective=repr(objective),
        networks=tuple(repr(net) for net in nets),
        rows=tuple(rows),
        unique_attributions=objective.facts.unique_attributions,
    )


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, disable=None if progress else True, leave=False, file=sys.stderr)


def _solved(
    number: int, net: FlowNetwork, objective: Objective, resolved: Objective, backend: Solver
) -> tuple[Row, FlowSolution | None]:
    own = not type(objective).__module__.startswith("flowopt.")  # `solve` asks it nothing there
    why = None if net.graph.empty and own else backend.refusal(net, resolved)
    if why is not None:
        return Row(number, backend.name, REFUSED, message=why), None
    solution = solve(net, objective, backend, throw=False)
    certificate, stats = solution.certificate, solution.stats
    error = certificate.attribution_error
    unit = solution.value or 1.0
    row = Row(
        network=number,
        solver=backend.name,
        status=solution.status.value,
        value=solution.value,
        objective_value=solution.objective_value,
        gap=certificate.gap,
        conservation=certificate.conservation,
        bounds=certificate.bounds,
        attribution_error=None if error is None else float(error.max(initial=0.0)) / unit,
        build_seconds=stats["build_seconds"],
        solve_seconds=stats["solve_seconds"],
        iterations=stats["iterations"],
        message=str(stats["message"]),
    )
    return row, solution


def _compared(found: list[tuple[Row, FlowSolution | None]], reference: str | None) -> list[Row]:
    """Rows of one network with their differences from the reference."""
    solved = [(row, solution) for row, solution in found if solution is not None]
    if reference is not None:
        candidates = [pair for pair in solved if pair[0].solver.lower() == reference.lower()]
    else:
        best = [pair for pair in solved if pair[0].status == Status.OPTIMAL]
        best = best or [pair for pair in solved if pair[0].status == Status.FEASIBLE] or solved
        key = [math.inf if row.gap is None else max(row.gap, ROUNDING) for row, _ in best]
        candidates = [best[int(np.argmin(key))]] if best else []
    if not candidates:
        return [row for row, _ in found]
    chosen, truth = candidates[0]
    rows = []
    for row, solution in found:
        if solution is None or solution.status is Status.FAILED:
            rows.append(row)
            continue
        apart = np.abs(solution.attributions - truth.attributions).max(initial=0.0)
        rows.append(
            replace(row, difference=float(apart) / (truth.value or 1.0), reference=row is chosen)
        )
    return rows
