"""Measuring solvers on sets of problems: resumable, one certificate for all, failures recorded."""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np

from flowopt import provenance
from flowopt.comparison.compare import REFUSED
from flowopt.comparison.identity import (
    digest_of,
    label_of,
    options_of,
    problems_of,
    unique,
    version_of,
)
from flowopt.comparison.journal import Journal, Result, open_journal
from flowopt.comparison.problem_sets import Problem
from flowopt.comparison.report import (
    OVER_LIMIT,
    SKIPPED,
    BenchmarkReport,
    with_differences,
)
from flowopt.errors import InputError
from flowopt.network import FlowNetwork
from flowopt.objectives import LogBarrier, Objective
from flowopt.progress import progress_bar
from flowopt.solution import FlowSolution, Status
from flowopt.solvers import available, get_solver, solve
from flowopt.solvers.base import Solver

__all__ = ["benchmark_solvers"]

JOURNAL, CSV, REPORT = "results.jsonl", "results.csv", "report.md"


def benchmark_solvers(
    problems: str | FlowNetwork | Iterable[Problem | FlowNetwork] = "synthetic",
    objective: Objective | None = None,
    solvers: Sequence[str | Solver] | None = None,
    out: str | PathLike[str] | None = None,
    time_limit: float = 60.0,
    repeats: int = 1,
    progress: bool = True,
) -> BenchmarkReport:
    """Solve a set of problems with several solvers; say who is certified, who fails, how fast.

    Parameters
    ----------
    problems : str, FlowNetwork, or iterable of Problem or FlowNetwork
        A name of `flowopt.comparison.problem_sets.available_problem_sets`, or problems of your own.
    objective : Objective, optional
        ``LogBarrier(gap=0.05)`` by default.
    solvers : sequence of str or Solver, optional
        All available ones by default. A Solver may carry options of its own.
    out : path, optional
        Folder. Every result is appended to its results.jsonl at once; a later call skips what is
        there, by problem, objective, solver, version and settings. results.csv and report.md
        are written at the end and show this call's problems and solvers.
    time_limit : float
        Seconds for building and solving one problem. A solve is not interrupted; if it took
        longer it counts as unsolved, and the solver is skipped on larger problems of the family.
    repeats : int
        Solves per problem and solver; the median time counts.
    progress : bool
        Whether to show progress, where standard error is a terminal.

    Returns
    -------
    BenchmarkReport
        Whatever a solver raises is recorded in it as a failure.

    Raises
    ------
    InputError
        For an unknown problem set or solver, two problems or solvers of one name, or limits that
        are not positive.
    MissingDependencyError
        If the package of a named solver is not installed.

    Examples
    --------
    >>> report = benchmark_solvers("synthetic", solvers=["native", "CLARABEL"], out="runs/barrier")
    ... # doctest: +SKIP
    """
    if not time_limit > 0:
        raise InputError(f"time_limit must be a positive number of seconds, not {time_limit!r}.")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise InputError(f"repeats must be a positive integer, not {repeats!r}.")
    objective = LogBarrier(gap=0.05) if objective is None else objective
    if not isinstance(objective, Objective):
        raise InputError(f"objective must be an Objective such as MaxFlow(), not {objective!r}.")
    asked = problems_of(problems)
    backends = [get_solver(each) for each in (available() if solvers is None else solvers)]
    unique([label_of(backend) for backend in backends], "solvers")
    unique([f"{each.collection}: {each.name}" for each in asked], "problems")
    folder = None if out is None else Path(out)
    journal = open_journal(None if folder is None else folder / JOURNAL)
    plan = _Plan(objective, time_limit, repeats)
    rows: list[Result] = []
    total = len(asked) * len(backends)
    with progress_bar(total, progress and sys.stderr.isatty(), "solve", "benchmark") as advance:
        for row in _results(asked, backends, plan, journal):
            rows.append(row)
            advance()
    report = BenchmarkReport(
        problem_sets=tuple(dict.fromkeys(each.collection for each in asked)),
        objective=repr(objective),
        time_limit=float(time_limit),
        repeats=repeats,
        rows=with_differences(rows, objective.facts.unique_attributions),
        runs=journal.runs_behind(rows),
    )
    if folder is not None:
        report.to_csv(folder / CSV)
        (folder / REPORT).write_text(report.to_markdown(), encoding="utf-8")
    return report


@dataclass(frozen=True)
class _Plan:
    objective: Objective
    time_limit: float
    repeats: int

    def settings(self, backend: Solver) -> str:
        limits = f"time_limit={self.time_limit:g}, repeats={self.repeats}"
        options = ", ".join(f"{name}={value!r}" for name, value in options_of(backend).items())
        return f"{limits}; {options}" if options else limits


def _results(
    problems: Sequence[Problem], backends: Sequence[Solver], plan: _Plan, journal: Journal
) -> Iterator[Result]:
    """Every result, from the journal or made now, problem by problem."""
    beaten: dict[tuple[str, str, str], Result] = {}  # the smallest problem that took too long
    warm: set[str] = set()
    for problem in problems:
        net = problem.make() if problem.identity is None else None
        identity = digest_of(net) if net is not None else str(problem.identity)
        for backend in backends:
            row = Result(
                problem.collection,
                problem.name,
                problem.family,
                identity,
                0,
                repr(plan.objective),
                label_of(backend),
                version_of(backend),
                plan.settings(backend),
                Status.FAILED.value,
            )
            known = journal.done.get(row.key)
            if known is None:
                if not warm:  # nothing was measured yet in this run
                    journal.add_run(provenance.facts())
                net = problem.make() if net is None else net
                known = _measured(row, net, backend, plan, beaten, warm)
                journal.add(known)
            if known.status == OVER_LIMIT:
                beaten.setdefault((problem.collection, problem.family, known.solver), known)
            yield known


def _measured(
    row: Result,
    net: FlowNetwork,
    backend: Solver,
    plan: _Plan,
    beaten: dict[tuple[str, str, str], Result],
    warm: set[str],
) -> Result:
    complete = partial(replace, row, size=len(net.capacity))
    if row.solver not in warm:
        warm.add(row.solver)
        _warm_up(backend, plan.objective)
    slow = beaten.get((row.problem_set, row.family, row.solver))
    began = time.perf_counter()
    try:
        why = None if net.graph.empty else backend.refusal(net, plan.objective.resolve(net))
        if why is not None:
            return complete(status=REFUSED, message=why)
        if slow is not None and len(net.capacity) >= slow.size:
            return complete(
                status=SKIPPED,
                message=f"took more than {plan.time_limit:g} s on {slow.problem}",
            )
        began = time.perf_counter()
        solutions = _solutions(net, backend, plan)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever it is: a panic of a Rust backend is no Exception
        return complete(
            message=f"{type(error).__name__}: {error}",
            build_seconds=0.0,
            solve_seconds=time.perf_counter() - began,
            status=_limited(Status.FAILED.value, time.perf_counter() - began, plan),
        )
    solution = solutions[0]
    certificate, stats = solution.certificate, solution.stats
    build = statistics.median(float(each.stats["build_seconds"]) for each in solutions)
    seconds = statistics.median(float(each.stats["solve_seconds"]) for each in solutions)
    status = _limited(solution.status.value, build + seconds, plan)
    message = str(stats["message"])
    failed = solution.status is Status.FAILED
    error_bound = certificate.attribution_error
    return complete(
        status=status,
        message=f"{solution.status.value}: {message}" if status == OVER_LIMIT else message,
        value=None if failed else float(solution.value),
        objective_value=None if failed else float(solution.objective_value),
        gap=None if certificate.gap is None else float(certificate.gap),
        attribution_error=(
            None
            if error_bound is None
            else float(error_bound.max(initial=0.0)) / (solution.value or 1.0)
        ),
        build_seconds=build,
        solve_seconds=seconds,
        iterations=None if stats["iterations"] is None else int(stats["iterations"]),
        attributions=None if failed else tuple(map(float, solution.attributions)),
    )


def _solutions(net: FlowNetwork, backend: Solver, plan: _Plan) -> list[FlowSolution]:
    found: list[FlowSolution] = []
    began = time.perf_counter()
    with warnings.catch_warnings():  # what a backend has to warn of, the certificate shows
        warnings.simplefilter("ignore")
        for _ in range(plan.repeats):
            found.append(solve(net, plan.objective, backend, throw=False))
            if time.perf_counter() - began > plan.repeats * plan.time_limit:
                break
    return found


def _limited(status: str, seconds: float, plan: _Plan) -> str:
    return OVER_LIMIT if seconds > plan.time_limit else status


def _warm_up(backend: Solver, objective: Objective) -> None:
    """Load and compile what a first solve would be charged for."""
    net = FlowNetwork.layered(np.full((2, 3, 3), 0.5))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solve(net, objective, backend, throw=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # the measured solves will tell
        return
