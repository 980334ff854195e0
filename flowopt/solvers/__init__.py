"""Solving flow problems: interchangeable backends, one certificate.

``solve`` picks a backend, lets it return raw numbers, and has flowopt's own certificate decide
what they are worth.
"""

from __future__ import annotations

import time
from importlib import import_module

import numpy as np

from flowopt.certificate import certified, failed
from flowopt.errors import InputError, MissingDependencyError, SolverError, UnsupportedError
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import (
    Entropy,
    LogBarrier,
    MaxFlow,
    MaxMinFair,
    MinCost,
    Objective,
    ProportionalFair,
    Quadratic,
    ShapleyFlow,
)
from flowopt.problem import check_problem
from flowopt.solution import FlowSolution, Status
from flowopt.solvers.base import RawSolution, Solver

__all__ = [
    "RawSolution",
    "Solver",
    "available",
    "choose_solver",
    "get_solver",
    "register",
    "registered",
    "solve",
    "supporting",
]

# name -> module and class; a module is imported when its solver is first used
_REGISTRY: dict[str, tuple[str, str] | type[Solver]] = {
    "native": ("flowopt.solvers.native", "Native"),
    "torch": ("flowopt.solvers.torch_barrier", "TorchBarrier"),
    "push-relabel": ("flowopt.solvers.push_relabel", "PushRelabel"),
    "dinic": ("flowopt.solvers.dinic", "Dinic"),
    "scipy": ("flowopt.solvers.scipy_maxflow", "ScipyMaxFlow"),
    "fair": ("flowopt.solvers.fair", "FairDecomposition"),
    "shapley": ("flowopt.solvers.shapley", "Shapley"),
    "CLARABEL": ("flowopt.solvers.clarabel", "Clarabel"),
    "ECOS": ("flowopt.solvers.ecos", "Ecos"),
    "SCS": ("flowopt.solvers.scs", "Scs"),
    "HIGHS": ("flowopt.solvers.highs", "Highs"),
    "OSQP": ("flowopt.solvers.osqp", "Osqp"),
}

# the best backends for each objective, best first; every other objective goes to CLARABEL
_PREFERRED: dict[type[Objective], tuple[str, ...]] = {
    MaxFlow: ("push-relabel", "dinic", "scipy", "HIGHS", "CLARABEL"),
    LogBarrier: ("native", "CLARABEL"),
    Quadratic: ("native", "CLARABEL", "HIGHS"),
    Entropy: ("native", "CLARABEL"),
    MinCost: ("HIGHS", "CLARABEL"),
    ProportionalFair: ("fair", "CLARABEL"),
    MaxMinFair: ("fair", "CLARABEL"),
    ShapleyFlow: ("shapley",),
}


RETRY_EDGES = 5_000  # up to here a second backend takes seconds at most


def registered() -> list[str]:
    """Names of all known solvers, usable here or not."""
    return list(_REGISTRY)


def available() -> list[str]:
    """Names of the solvers usable here."""
    return [name for name in _REGISTRY if _solver_class(name).available()]


def register(solver: type[Solver]) -> type[Solver]:
    """Add a backend of your own, by its class; usable as a decorator."""
    _REGISTRY[solver.name] = solver
    return solver


def get_solver(solver: str | Solver) -> Solver:
    """The backend with a name (upper or lower case), with its default options.

    Raises
    ------
    InputError
        For an unknown name.
    MissingDependencyError
        If its package is not installed.
    """
    if isinstance(solver, Solver):
        return solver
    matches = [name for name in _REGISTRY if name.lower() == str(solver).lower()]
    if not matches:
        raise InputError(f"Unknown solver {solver!r}; known ones: {', '.join(_REGISTRY)}.")
    found = _solver_class(matches[0])
    if not found.available():
        raise MissingDependencyError(
            f"The solver {matches[0]} needs the package {found.package!r}: "
            f"pip install {found.package}."
        )
    return found()


def supporting(net: FlowNetwork, objective: Objective) -> list[str]:
    """Names of the available solvers that can solve this problem."""
    return [name for name in available() if get_solver(name).refusal(net, objective) is None]


def solve(
    net: FlowNetwork,
    objective: Objective | None = None,
    solver: str | Solver | None = None,
    *,
    throw: bool = True,
    start: FlowSolution | None = None,
) -> FlowSolution:
    """Solve a flow problem and certify the answer.

    Parameters
    ----------
    net : FlowNetwork
    objective : Objective, optional
        Plain maximum flow by default.
    solver : str, Solver, optional
        A name of `available`, or a backend with options of its own; None picks the best that
        can, and on small networks goes on to the next where its answer has no proof.
    throw : bool
        Whether an answer without proof (``inaccurate``, ``failed``) raises; otherwise the
        solution is returned and its status says so.
    start : FlowSolution, optional
        Solution of a similar problem on the same nodes, for backends that can start from it.

    Returns
    -------
    FlowSolution

    Raises
    ------
    UnsupportedError
        If the solver cannot solve this objective on this network.
    SolverError
        If no certified answer was found; its `solution` keeps what was.
    """
    objective = MaxFlow() if objective is None else objective
    check_problem(net, objective)
    if start is not None and not isinstance(start, FlowSolution):
        raise InputError(f"start must be a FlowSolution, not {type(start).__name__}.")
    began = time.perf_counter()
    resolved = objective.resolve(net)
    spent = time.perf_counter() - began
    if net.graph.empty:
        if solver is not None and type(objective).__module__.startswith("flowopt."):
            choose_solver(net, resolved, solver, objective)  # refuses what it always refuses
        return _attempt(net, objective, resolved, None, None, spent)
    potential = None if start is None else start.potential
    backends = _candidates(net, resolved) if solver is None else None
    best: FlowSolution | None = None
    for backend in backends or [choose_solver(net, resolved, solver, objective)]:
        found = _attempt(net, objective, resolved, backend, potential, spent)
        if best is None or _gap(found) < _gap(best):
            best = found
        if best.status in (Status.OPTIMAL, Status.FEASIBLE) or net.graph.report.kept > RETRY_EDGES:
            break
    assert best is not None
    if throw and best.status in (Status.INACCURATE, Status.FAILED):
        raise SolverError(
            f"{best.solver} did not reach a certified optimum of {objective!r} "
            f"({best.stats['message']}): {best.certificate}. {_advice(best, solver is None)} What "
            "was found is kept in the error's .solution; throw=False returns it.",
            best,
        )
    return best


def _attempt(
    net: FlowNetwork,
    objective: Objective,
    resolved: Objective,
    backend: Solver | None,
    start: FloatArray | None,
    resolve_seconds: float,
) -> FlowSolution:
    """Let one backend solve, and certify what it returns; None for a network without paths."""
    if backend is None:
        raw = RawSolution(None, None, "no path from source to sink", 0.0, 0.0, 0)
    else:
        raw = backend.solve(net, resolved, start)
    name = "none" if backend is None else backend.name
    began = time.perf_counter()
    stats = {
        "message": raw.message,
        "iterations": raw.iterations,
        "resolve_seconds": resolve_seconds,
        "build_seconds": raw.build_seconds,
        "solve_seconds": raw.solve_seconds,
        **raw.extra,
    }
    if raw.flow is None and backend is not None:
        solution = failed(net, objective, resolved, name, stats)
    else:
        flow = np.zeros(len(net.graph.capacity)) if raw.flow is None else raw.flow
        solution = certified(
            net, objective, resolved, flow, raw.potential, name, stats, raw.slack, True
        )
    solution.stats["certify_seconds"] = time.perf_counter() - began  # type: ignore[index]
    return solution


def _advice(solution: FlowSolution, all_tried: bool) -> str:
    """What to do about an answer without proof."""
    if "infeasible" in str(solution.stats["message"]).lower() and solution.objective.constrained:
        return "The objective's own constraints cannot all hold on this network; loosen them."
    capacity = solution.network.capacity
    finite = capacity[np.isfinite(capacity)]
    decades = np.log10(finite.max() / finite.min()) if len(finite) else 0.0
    if decades > 14:
        return (
            f"The capacities span {decades:.0f} orders of magnitude, more than float64 resolves; "
            "drop the smallest first (flowopt.capacities.Threshold)."
        )
    if all_tried:
        return "Try a larger regularisation (mu, rho, tau), or a solver with options of its own."
    return solution.status.advice


def _gap(solution: FlowSolution) -> float:
    if solution.status is Status.FAILED or solution.certificate.gap is None:
        return np.inf
    return solution.certificate.gap


def choose_solver(
    net: FlowNetwork,
    objective: Objective,
    solver: str | Solver | None = None,
    asked: Objective | None = None,
) -> Solver:
    """The backend with a name, or the best that can solve a problem.

    `objective` is resolved; messages name the one that was `asked` for.

    Raises
    ------
    UnsupportedError
        If it, or every backend, refuses.
    """
    if solver is not None:
        backend = get_solver(solver)
        why = backend.refusal(net, objective)
        if why is not None:
            can = ", ".join(supporting(net, objective)) or "none here"
            raise UnsupportedError(
                f"{backend.name} cannot solve {asked or objective!r}: {why}. "
                f"Solvers that can: {can}."
            )
        return backend
    return _candidates(net, objective)[0]


def _candidates(net: FlowNetwork, objective: Objective) -> list[Solver]:
    """Backends here that can solve a problem, best first; at least one."""
    names = next((n for kind, n in _PREFERRED.items() if isinstance(objective, kind)), ())
    backends = [
        get_solver(name)
        for name in dict.fromkeys((*names, "CLARABEL", "ECOS", "SCS"))
        if _solver_class(name).available()
    ]
    able = [backend for backend in backends if backend.refusal(net, objective) is None]
    if not able:
        raise UnsupportedError(
            f"No solver here can solve {objective!r}; install CLARABEL (pip install clarabel)."
        )
    return able


def _solver_class(name: str) -> type[Solver]:
    entry = _REGISTRY[name]
    if isinstance(entry, tuple):
        module, attribute = entry
        found: type[Solver] = getattr(import_module(module), attribute)
        return found
    return entry
