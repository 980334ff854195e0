"""flowopt's own solver for separable objectives, on the node potentials alone.

A primal-dual path (`central_path` for the barrier, `clipped` for Quadratic and Entropy) comes
near the optimum in a few steps for any weight; Newton's method on the dual (`dual`) finishes to
rounding. Every step is one or two passes over the capacities and one system with a weighted
graph Laplacian (`system`), so the cost is a constant number of reads of the attention itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowopt.network import FloatArray, FlowNetwork
from flowopt.network import kernels as graph_kernels
from flowopt.objectives import Entropy, LogBarrier, MaxFlow, Objective, Quadratic
from flowopt.solvers.base import RawSolution, Solver
from flowopt.solvers.native import central_path, clipped, dual, kernels
from flowopt.solvers.native.system import System
from flowopt.solvers.push_relabel import PushRelabel

# mu, in units of the largest capacity, below which imbalances of 1e-14, left by weights in single
# precision, show beside slacks of mu: in chains they raised delta from 1e-8 to 1e-6
SMALL = 1e-6


@dataclass(frozen=True)
class Native(Solver):
    """Primal-dual and dual Newton method for `LogBarrier`, `Quadratic` and `Entropy`.

    `MaxFlow`, their limit for vanishing weights, is passed to push-relabel.

    Parameters
    ----------
    tolerance : float
        Newton decrement at which to stop; the barrier certificate's delta ends near it. Where
        flows are clipped, the squared decrement relative to the sum of all flows.
    max_steps : int
        Limit on the steps of either stage.
    start : float
        The barrier's path parameter at the beginning, as a share of the largest capacity.
    inner_tolerance : float
        Relative accuracy of the first linear solves along the path; the barrier's get more
        accurate as the path parameter falls.
    threads : int, optional
        Threads for one network; None decides by its size (batches use one each).
    """

    name: ClassVar[str] = "native"
    package: ClassVar[str] = "numba"

    tolerance: float = 1e-9
    max_steps: int = 100
    start: float = 0.003
    inner_tolerance: float = 0.03
    threads: int | None = None

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:  # noqa: D102
        if isinstance(objective, MaxFlow):
            return PushRelabel().refusal(net, objective)
        if not isinstance(objective, LogBarrier | Quadratic | Entropy):
            return "it is made for LogBarrier, Quadratic, Entropy and MaxFlow"
        if not net.graph.contractible:
            return "an unlimited link is not its node's only way in or out, so it may lie idle"
        return None

    def solve(  # noqa: D102
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        if isinstance(objective, MaxFlow):  # their limit, which needs no path to it
            return PushRelabel().solve(net, objective)
        assert isinstance(objective, LogBarrier | Quadratic | Entropy)
        began = time.perf_counter()
        system = System(net.graph, self.threads)
        built = time.perf_counter()
        x = None
        if start is not None and start.shape == (net.graph.n_nodes,):
            x = system.reduce(start)
        if isinstance(objective, LogBarrier):
            found = self._barrier(system, objective.absolute_mu, x)
            extra = {"mu": objective.absolute_mu}
        else:
            term = clipped.EdgeFunction.of(objective)
            first = system.reduce(_falling(net))
            limits = (self.tolerance**2, self.inner_tolerance, 2 * self.max_steps)
            found = clipped.optimum(system, term, first, x, *limits)
            extra = {}
        flow = found.flow[: len(net.graph.capacity)]
        slack = None if found.slack is None else found.slack[: len(net.graph.capacity)]
        if _fill(system, flow) and slack is not None:
            slack[np.isinf(net.graph.capacity)] = np.inf
        report = found.report
        message = (
            "converged" if report.converged else f"stopped at decrement {report.decrement:.1e}"
        )
        return RawSolution(
            flow=flow,
            slack=slack,
            potential=system.potential(found.x + found.last),
            message=message,
            build_seconds=built - began,
            solve_seconds=time.perf_counter() - built,
            iterations=found.path_steps + report.steps,
            extra={
                **extra,
                "path_steps": found.path_steps,
                "cg_steps": system.cg_steps,
                "factorisations": system.factorisations,
            },
        )

    def _barrier(self, system: System, mu: float, x: FloatArray | None) -> dual.Found:
        path_steps = 0
        if x is None:
            x = system.reduce(_falling(system.graph.network))
            if system.size:
                first = max(mu, self.start * system.scale)
                x, path_steps = central_path.follow(
                    system, x, mu, first, self.inner_tolerance, self.max_steps
                )
        last, report = np.zeros(system.size), dual.Report(True, 0.0, 0)
        if system.size:
            gradient = dual.barrier_gradient(system, mu)
            x, last, report = dual.minimise(system, gradient, x, mu, self.tolerance, self.max_steps)
            if report.converged and mu < SMALL * system.scale:
                last = last - system.solve(dual.barrier_balance(system, x, last, mu), 1e-6)
        system.factors = None  # their memory is that of the flow to come
        flow, slack = np.empty(len(system.capacity)), np.empty(len(system.capacity))
        y, dy, capacity = system.potential(x), system.expand(last), system.capacity
        system.each(lambda _, rows: kernels.best_flow(capacity, *rows, y, dy, mu, flow, slack))
        return dual.Found(x, last, report, path_steps, flow, slack)


def _falling(net: FlowNetwork) -> FloatArray:
    """Potentials that fall evenly with depth, from 1 at the top."""
    g = net.graph
    depth: FloatArray = graph_kernels.depths(
        g.capacity, g.row_head, g.row_start, g.node_rows, g.node_rows_start, g.order
    )
    return np.asarray(1 - depth / max(float(depth.max()), 1.0))


def _fill(system: System, flow: FloatArray) -> bool:
    """Let unlimited edges carry what their nodes pass on, in place; whether there are any."""
    g = system.graph
    unlimited = system.capacity is not g.capacity and bool(np.isinf(g.capacity).any())
    if unlimited:
        kernels.fill_unlimited(
            flow, g.capacity, g.row_head, g.row_start, g.node_rows, g.node_rows_start,
            g.order, g.source,
        )  # fmt: skip
    return unlimited
