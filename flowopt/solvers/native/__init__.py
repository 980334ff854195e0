"""flowopt's own solver for the log barrier, on the node potentials alone.

A primal-dual central path (`central_path`) comes near the optimum in a few steps for any mu;
Newton's method on the dual (`dual`) finishes to rounding. Every step is one or two passes over
the capacities and one system with a weighted graph Laplacian (`system`), so the cost is a
constant number of reads of the attention itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowopt import graph_kernels
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import LogBarrier, Objective
from flowopt.solvers.base import RawSolution, Solver
from flowopt.solvers.native import central_path, dual, kernels
from flowopt.solvers.native.system import System


@dataclass(frozen=True)
class Native(Solver):
    """Primal-dual and dual Newton method for `LogBarrier`.

    Parameters
    ----------
    tolerance : float
        Newton decrement at which to stop; the certificate's delta ends near it.
    max_steps : int
        Limit on the steps of either stage.
    start : float
        Path parameter at the beginning, as a share of the largest capacity.
    inner_tolerance : float
        Relative accuracy of the linear solves along the path.
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
        if not isinstance(objective, LogBarrier):
            return "it is made for LogBarrier"
        if not net.graph.contractible:
            return "an unlimited link is not its node's only way in or out, so it may lie idle"
        return None

    def solve(  # noqa: D102
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        assert isinstance(objective, LogBarrier)
        began = time.perf_counter()
        system = System(net.graph, self.threads)
        built = time.perf_counter()
        mu = objective.absolute_mu
        path_steps = 0
        if start is not None and start.shape == (net.graph.n_nodes,):
            x = system.reduce(start)
        else:
            x = system.reduce(_falling(net))
            if system.size:
                first = max(mu, self.start * system.scale)
                x, path_steps = central_path.follow(
                    system, x, mu, first, self.inner_tolerance, self.max_steps
                )
        last, report = np.zeros(system.size), dual.Report(True, 0.0, 0)
        if system.size:
            x, last, report = dual.minimise(system, x, mu, self.tolerance, self.max_steps)
        message = (
            "converged" if report.converged else f"stopped at decrement {report.decrement:.1e}"
        )
        flow, slack = _flow(system, x, last, mu)
        return RawSolution(
            flow=flow,
            slack=slack,
            potential=system.potential(x + last),
            message=message,
            build_seconds=built - began,
            solve_seconds=time.perf_counter() - built,
            iterations=path_steps + report.steps,
            extra={
                "mu": mu,
                "path_steps": path_steps,
                "cg_steps": system.cg_steps,
                "factorisations": system.factorisations,
            },
        )


def _falling(net: FlowNetwork) -> FloatArray:
    """Potentials that fall evenly with depth, from 1 at the top."""
    g = net.graph
    depth: FloatArray = graph_kernels.depths(
        g.capacity, g.row_head, g.row_start, g.node_rows, g.node_rows_start, g.order
    )
    return 1 - depth / max(depth.max(), 1.0)


def _flow(
    system: System, x: FloatArray, last: FloatArray, mu: float
) -> tuple[FloatArray, FloatArray]:
    """Best flow and slack of every edge; unlimited edges carry what their nodes pass on."""
    g = system.graph
    flow, slack = np.empty(len(system.capacity)), np.empty(len(system.capacity))
    y, dy = system.potential(x), system.expand(last)
    system.each(lambda _, rows: kernels.best_flow(system.capacity, *rows, y, dy, mu, flow, slack))
    flow, slack = flow[: len(g.capacity)], slack[: len(g.capacity)]
    if system.capacity is not g.capacity and np.isinf(g.capacity).any():
        kernels.fill_unlimited(
            flow, g.capacity, g.row_head, g.row_start, g.node_rows, g.node_rows_start,
            g.order, g.source,
        )  # fmt: skip
        slack[np.isinf(g.capacity)] = np.inf
    return flow, slack
