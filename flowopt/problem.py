"""A network and an objective as one declarative CVXPY problem."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError
from flowopt.network import FlowNetwork, IntArray
from flowopt.objectives import MaxFlow, Objective

if TYPE_CHECKING:
    import cvxpy as cp

    from flowopt.solution import FlowSolution


@dataclass(frozen=True, eq=False)
class FlowProblem:
    """Maximise an objective over the feasible flows of a network.

    Parameters
    ----------
    network : FlowNetwork
    objective : Objective
        Plain maximum flow by default.
    """

    network: FlowNetwork
    objective: Objective = field(default_factory=MaxFlow)

    def __post_init__(self) -> None:
        check_problem(self.network, self.objective)

    def solve(self, solver: Any = None, **options: Any) -> FlowSolution:
        """See `flowopt.solvers.solve`."""
        from flowopt.solvers import solve

        return solve(self.network, self.objective, solver, **options)

    def to_cvxpy(self) -> cp.Problem:
        """The problem over one variable named ``flow``, shape (m,), the kept edges in order.

        Constraints, in this order: "conservation" at the inner nodes, bounds 0 <= flow and
        flow <= capacity, then the one-sided and return limits where the network has them, then
        the objective's own. Read it, change it, solve it: it is an ordinary CVXPY problem.
        """
        from flowopt.lazy_cvxpy import cp

        net = self.network
        if net.graph.empty:
            zero = cp.Variable(1, name="flow")
            return cp.Problem(cp.Maximize(cp.sum(zero)), [zero == 0])
        flow = cp.Variable(len(net.capacity), name="flow")
        objective = self.objective.expression(flow, net)
        return cp.Problem(
            cp.Maximize(objective),
            [*flow_constraints(flow, net), *self.objective.constraints(flow, net)],
        )


def check_problem(net: object, objective: object) -> None:
    """Refuse what is not a network and an objective, naming what would be."""
    if not isinstance(net, FlowNetwork):
        raise InputError(
            f"Give a FlowNetwork, such as FlowNetwork.layered(C), not a {type(net).__name__}."
        )
    if not isinstance(objective, Objective):
        raise InputError(f"objective must be an Objective such as MaxFlow(), not {objective!r}.")


def flow_constraints(flow: Any, net: FlowNetwork) -> list[Any]:
    """The feasible set: conservation, bounds, terminal directions and the return limit.

    `flow` is any CVXPY expression of shape (m,). Conservation is always the first constraint,
    0 <= flow the second and flow <= capacity the third.
    """
    edges = net.edges
    finite = np.flatnonzero(np.isfinite(edges.capacity))
    bounded = flow if len(finite) == len(edges.capacity) else flow[finite]
    constraints = [
        edges.incidence @ flow == 0,
        flow >= 0,
        bounded <= edges.capacity[finite],
    ]
    leaving = edges.full_incidence
    mixed_source, mixed_sink = mixed_terminals(net)
    if mixed_source.size:  # edges enter a source: it may still only give
        constraints.append(leaving[mixed_source] @ flow >= 0)
    if mixed_sink.size:  # edges leave a sink: it may still only take
        constraints.append(leaving[mixed_sink] @ flow <= 0)
    if net.return_capacity is not None:
        constraints.append(net.value(flow) <= net.return_capacity)
    return constraints


def mixed_terminals(net: FlowNetwork) -> tuple[IntArray, IntArray]:
    """Source nodes that edges enter, and sink nodes that edges leave, by node number."""
    graph = net.graph
    found = []
    for terminal, sign in ((graph.source, -1), (graph.sink, 1)):
        rows = np.flatnonzero(terminal & graph.alive)
        other = net.edges.full_incidence[rows] * sign
        found.append(rows[np.asarray(other.maximum(0).sum(axis=1)).reshape(-1) > 0])
    return found[0], found[1]
