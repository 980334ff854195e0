"""What the backends behind CVXPY share: one well-scaled problem, and duals read as potentials.

The variables are shares w = f / min(u, F*) of what an edge could carry, rows of the conservation
matrix are scaled to the size of their largest entry, and the network to a maximum flow of about
1: without that, interior-point methods fail on networks of ordinary size (method.md section 6).
A backend's own opinion of its answer becomes a message; flowopt's certificate decides.
"""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from flowopt.errors import InputError
from flowopt.network import FloatArray, FlowNetwork, IntArray
from flowopt.objectives import (
    Entropy,
    LogBarrier,
    MaxFlow,
    MaxMinFair,
    MinCost,
    Objective,
    ProportionalFair,
    Quadratic,
    Separable,
    ShapleyFlow,
)
from flowopt.problem import mixed_terminals
from flowopt.solvers.base import RawSolution, Solver
from flowopt.solvers.fair import one_player_per_path

LP, QP, EXP = "LP", "QP", "EXP"  # EXP stands for every conic problem that is not a QP
_WORDS = {LP: "linear", QP: "quadratic", EXP: "exponential-cone and other conic"}
_CLASSES: Mapping[type[Objective], str] = {
    MaxFlow: LP,
    MinCost: LP,
    Quadratic: QP,
    MaxMinFair: QP,
    LogBarrier: EXP,
    Entropy: EXP,
    ProportionalFair: EXP,
}


@dataclass(frozen=True, eq=False)
class ScaledProblem:
    """A CVXPY problem over shares, and how to read its solution.

    Attributes
    ----------
    problem, share : cvxpy.Problem, cvxpy.Variable
        Flow of each kept edge as a share of what it could carry, shape (m,).
    scale : ndarray, shape (m,)
        flow = scale * share.
    limits : tuple of (constraint, nodes, sign)
        Constraints on nodes, as rows already scaled: the potential of ``nodes`` is ``sign`` times
        the dual variable.
    back : constraint, or None
        The limit of the return edge.
    """

    problem: Any
    share: Any
    scale: FloatArray
    limits: tuple[tuple[Any, IntArray, FloatArray], ...]
    back: Any


def scaled_problem(net: FlowNetwork, objective: Objective) -> ScaledProblem:
    """The problem of `FlowProblem.to_cvxpy` in shares, with scaled rows.

    Raises
    ------
    InputError
        If the objective does not follow CVXPY's rules for convex problems (DCP).
    """
    from flowopt.lazy_cvxpy import cp

    graph, edges = net.graph, net.edges
    scale = np.minimum(edges.capacity, net.max_flow)
    share = cp.Variable(len(scale), bounds=[0.0, edges.capacity / scale], name="share")
    flow = cp.multiply(scale, share)
    sources, sinks = mixed_terminals(net)
    inner = np.flatnonzero(graph.alive & ~graph.source & ~graph.sink)
    limits = []
    # max c.f + dual * (what leaves): the dual of a node is its potential, its sign CVXPY's
    for nodes, sense in ((inner, 0), (sources, 1), (sinks, -1)):
        if nodes.size:
            rows = sp.csr_array(edges.full_incidence[nodes] @ sp.diags_array(scale))
            size = 1 / abs(rows).max(axis=1).toarray().reshape(-1)
            leaving = sp.csr_array(sp.diags_array(size) @ rows) @ share
            constraint = leaving == 0 if sense == 0 else sense * leaving >= 0
            limits.append((constraint, nodes, -size if sense == 0 else sense * size))
    back = None
    if net.return_capacity is not None:
        back = net.value(flow) / net.return_capacity <= 1
    constraints = [constraint for constraint, _, _ in limits] + ([] if back is None else [back])
    constraints += objective.constraints(flow, net)
    problem = cp.Problem(cp.Maximize(objective.expression(flow, net)), constraints)
    if not problem.is_dcp():
        raise InputError(
            f"{objective!r} does not follow CVXPY's rules of disciplined convex programming (DCP): "
            "expression() must be concave and constraints() convex in the flow. See "
            "https://www.cvxpy.org/tutorial/dcp; problem.to_cvxpy() shows the expression."
        )
    return ScaledProblem(problem, share, scale, tuple(limits), back)


def problem_class(net: FlowNetwork, objective: Objective) -> str:
    """Class of the problem: LP, QP or EXP; a researcher's own objective is built to find out."""
    known = _CLASSES.get(type(objective))
    if known is not None:
        return known
    problem = scaled_problem(net, objective).problem
    if problem.is_lp():
        return LP
    return QP if problem.is_qp() else EXP


class CvxpySolver(Solver):
    """A backend that CVXPY speaks to; its `name` is CVXPY's name for it."""

    classes: ClassVar[frozenset[str]]  # problem classes it can solve

    @abstractmethod
    def options(self, net: FlowNetwork) -> dict[str, Any]:
        """The backend's options, as CVXPY passes them on."""

    @abstractmethod
    def own_status(self, raw: Any) -> str:
        """The backend's own word for how it ended, from what CVXPY got from it."""

    def salvaged(self, raw: Any) -> Any:
        """What CVXPY got from the backend, changed so that CVXPY hands out all numbers in it."""
        return raw

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:  # noqa: D102
        if net.graph.empty:
            return None
        if isinstance(objective, ShapleyFlow):
            return "Shapley values are averages over all orders of the tokens, no CVXPY expression"
        if isinstance(objective, MaxMinFair) and not one_player_per_path(net):
            return (
                "as one CVXPY problem MaxMinFair fixes |f| at the maximum flow, and here some of "
                "it can end elsewhere than in one player; ProportionalFair has the same optimum"
            )
        kind = problem_class(net, objective)
        if kind in self.classes:
            return None
        can = " and ".join(_WORDS[c] for c in (LP, QP, EXP) if c in self.classes)
        return f"the problem is {_WORDS[kind]}; this backend solves {can} problems"

    def solve(  # noqa: D102
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        import flowopt.lazy_cvxpy  # noqa: F401  # its import is no part of building a problem

        began = time.perf_counter()
        # fair objectives take logarithms of node flows: those should be of the order of 1
        size = 1.0 if objective.facts.flow_units else float(np.sqrt(net.graph.report.kept))
        factor = size / net.max_flow
        rescaled = objective.rescaled(factor)
        if rescaled is None:
            factor, scaled = 1.0, scaled_problem(net, objective)
        else:
            scaled = scaled_problem(net.scaled(factor), rescaled)
        facts: dict[str, Any] = {"backend_version": version(self.package)}
        built = time.perf_counter()
        try:
            with warnings.catch_warnings():  # an inaccurate answer is for the certificate to judge
                warnings.simplefilter("ignore")
                options = self.options(net)
                data, chain, inverse = scaled.problem.get_problem_data(
                    self.name, solver_opts=options
                )
                built = time.perf_counter()
                raw = chain.solve_via_data(scaled.problem, data, solver_opts=options)
                solved = time.perf_counter()
                facts["backend_status"] = self.own_status(raw)
                solution = chain.invert(self.salvaged(raw), inverse)
        except Exception as error:  # whatever a backend raises is an answer without a flow
            facts.setdefault("backend_status", f"{type(error).__name__}: {error}")
            now = time.perf_counter()
            return RawSolution(
                None, None, facts["backend_status"], built - began, now - built, extra=facts
            )
        share = solution.primal_vars.get(scaled.share.id) if solution.primal_vars else None
        flow = potential = None
        if share is not None and np.isfinite(share).all():
            kept = scaled.scale * np.asarray(share).reshape(-1) / factor
            flow = np.zeros(len(net.graph.capacity))
            flow[net.edges.index] = kept
            duals = solution.dual_vars or {}
            potential = _potential(net, objective, scaled, kept, duals, factor)
        message = facts["backend_status"]
        if message.lower() != solution.status:
            message += f" ({solution.status})"
        return RawSolution(
            flow=flow,
            potential=potential,
            message=message,
            build_seconds=built - began,
            solve_seconds=solved - built,
            iterations=solution.attr.get("num_iters"),
            extra=facts,
        )


def _potential(
    net: FlowNetwork,
    objective: Objective,
    scaled: ScaledProblem,
    kept: FloatArray,
    duals: Mapping[int, Any],
    factor: float,
) -> FloatArray | None:
    """Potentials from the dual variables, in the convention of the objective's bound.

    |f| gives the sources potential 1 (less the price of a limited return edge); ProportionalFair
    has no term in |f|, and prices in units of 1/flow. Otherwise the bound finds its own.
    """
    if not isinstance(objective, Separable | ProportionalFair):
        return None
    sources = net.graph.source & net.graph.alive
    separable = isinstance(objective, Separable)
    y = np.where(sources & separable, 1.0, 0.0)
    if scaled.back is not None:
        assert net.return_capacity is not None
        price = duals.get(scaled.back.id)
        if price is None:
            return None
        y[sources] -= float(np.asarray(price).item()) / (net.return_capacity * factor)
        if isinstance(objective, Separable):
            y[sources] -= _own_price(objective, float(net.value(kept)), net.return_capacity)
    for constraint, nodes, sign in scaled.limits:
        dual = duals.get(constraint.id)
        if dual is None or not np.isfinite(dual).all():
            return None
        y[nodes] += sign * np.asarray(dual).reshape(-1)
    return y if separable else y * factor


def _own_price(objective: Separable, flow: float, capacity: float) -> float:
    """Price at which the best flow of the return edge is `flow`: minus its term's derivative."""
    limit = np.array([capacity])

    def carries(price: float) -> bool:
        return float(objective.edge_best(np.array([price]), limit)[0]) >= flow

    flow = min(flow, capacity)
    low, high = -1.0, 1.0
    while carries(low) and low > -1e300:
        low *= 4
    while not carries(high) and high < 1e300:
        high *= 4
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if carries(middle) else (middle, high)
    return high
