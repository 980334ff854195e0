"""flowopt's own solver for the log barrier: Newton's method on the node potentials.

For given potentials the best flow of every edge is a closed form, so the dual problem is smooth,
convex and unconstrained, with one unknown per node instead of one per edge (method.md
section 6). Its gradient is the conservation residual and its Hessian a weighted graph Laplacian,
solved by conjugate gradients or, where those are slow and the network is small, by Cholesky.
A small mu is reached by continuation from a larger one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import scipy.linalg

from flowopt.graph import Graph
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import LogBarrier, Objective
from flowopt.solvers import native_kernels as kernels
from flowopt.solvers.base import RawSolution, Solver


@dataclass(frozen=True)
class Native(Solver):
    """Dual Newton method for `LogBarrier`.

    Parameters
    ----------
    tolerance : float
        Newton decrement at which to stop; the certificate's delta ends near it.
    max_newton : int
        Limit on Newton steps, over all values of mu together.
    reduction : float
        Factor between successive values of mu.
    direct_limit : int
        Number of unknowns up to which a dense Cholesky factorisation may replace conjugate
        gradients that converge slowly.
    """

    name: ClassVar[str] = "native"
    package: ClassVar[str] = "numba"

    tolerance: float = 1e-9
    max_newton: int = 400
    reduction: float = 0.1
    direct_limit: int = 1500

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
        dual = Dual(net.graph)
        built = time.perf_counter()
        final = objective.absolute_mu
        warm = start is not None and start.shape == (net.graph.n_nodes,)
        y = dual.reduce(start) if warm and start is not None else dual.initial()
        mu = final if warm else max(final, dual.first_mu())
        newton = steps = 0
        message = "converged"
        while True:
            last = mu <= final
            goal = self.tolerance if last else 0.5
            y, report = _newton(dual, y, mu, goal, self.max_newton - newton, self.direct_limit)
            newton += report.newton
            steps += report.cg
            if not report.converged:
                message = f"stopped at Newton decrement {report.decrement:.1e}, mu {mu:.1e}"
            if last or newton >= self.max_newton:
                break
            mu = max(mu * self.reduction, final)
        return RawSolution(
            flow=dual.flow(y, final),
            potential=dual.expand(y),
            message=message,
            build_seconds=built - began,
            solve_seconds=time.perf_counter() - built,
            iterations=newton,
            extra={"mu": final, "cg_steps": steps},
        )


@dataclass(frozen=True)
class _Report:
    converged: bool
    decrement: float
    newton: int
    cg: int


@dataclass
class Dual:
    """The dual function of a network's barrier problem, and the arrays its passes reuse."""

    graph: Graph
    weight: FloatArray = field(init=False)
    residual: FloatArray = field(init=False)
    diagonal: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        g = self.graph
        self.rows = (g.row_tail, g.row_head, g.row_start)
        self.weight = np.empty(len(g.capacity))
        self.residual, self.diagonal = np.empty(g.n_nodes), np.empty(g.n_nodes)
        self.label = g.label
        self.free = np.flatnonzero(g.label >= 0)
        self.size = int(g.label.max(initial=-1)) + 1
        self.back = g.network.return_capacity
        source = np.flatnonzero(g.source & g.alive)
        self.top = int(g.label[source[0]])  # unknown of the source, where it is free
        self.return_weight = 0.0

    def expand(self, y: FloatArray) -> FloatArray:
        """Potential of every node from the unknowns."""
        full = self.graph.fixed.copy()
        full[self.free] = y[self.label[self.free]]
        return full

    def reduce(self, potential: FloatArray) -> FloatArray:
        """Unknowns from the potentials of all nodes."""
        y = np.zeros(self.size)
        y[self.label[self.free]] = np.nan_to_num(potential[self.free])
        return y

    def gather(self, values: FloatArray) -> FloatArray:
        """Sum node values over the nodes of each unknown."""
        sums = np.bincount(self.label[self.free], values[self.free], self.size)
        return np.asarray(sums, dtype=np.float64)

    def initial(self) -> FloatArray:
        """Potentials that fall evenly along the longest path from the source to each sink."""
        g = self.graph
        depth = np.zeros(g.n_nodes)
        kernels.longest_path(g.capacity, *self.rows, g.node_rows, g.node_rows_start, g.order, depth)
        height = np.zeros(g.n_nodes)
        kernels.longest_path_back(
            g.capacity, *self.rows, g.node_rows, g.node_rows_start, g.order, height
        )
        return self.reduce(height / np.maximum(depth + height, 1))

    def first_mu(self) -> float:
        """A mu at which the problem is easy: a share of the largest capacity."""
        return 0.01 * self.graph.largest_capacity

    def evaluate(self, y: FloatArray, mu: float) -> FloatArray:
        """Gradient at y, the conservation residual; the Hessian's weights stay here."""
        kernels.barrier_pass(
            self.graph.capacity,
            *self.rows,
            self.expand(y) / mu,
            mu,
            self.weight,
            self.residual,
            self.diagonal,
        )
        gradient = self.gather(self.residual)
        if self.back is not None:  # the return edge, at price 1 - y_source
            edge = np.array([self.back])
            price = np.array([1 - y[self.top]])
            flow = LogBarrier(mu, relative=False).edge_best(price, edge)[0]
            rest = self.back - flow
            self.return_weight = 1 / (mu * (1 / flow**2 + 1 / rest**2))
            gradient[self.top] -= flow
        return gradient

    def flow(self, y: FloatArray, mu: float) -> FloatArray:
        """Best flow of every edge at y; unlimited edges carry what their nodes must pass on."""
        g = self.graph
        flow = np.empty(len(g.capacity))
        kernels.barrier_flow(g.capacity, *self.rows, self.expand(y) / mu, flow)
        if np.isinf(g.capacity).any():
            kernels.fill_unlimited(
                flow, g.capacity, *self.rows, g.node_rows, g.node_rows_start, g.order, g.source
            )
        return flow

    def step(
        self, gradient: FloatArray, tolerance: float, direct_limit: int
    ) -> tuple[FloatArray, int]:
        """Newton direction -H^-1 gradient with the weights of the last `evaluate`."""
        d = np.zeros(self.size)
        diagonal = self.diagonal
        if self.back is None:
            limit = 60 if self.size <= direct_limit else 3000
            steps, done = kernels.conjugate_gradients(
                self.weight, *self.rows, diagonal, self.label, -gradient, tolerance, limit, d
            )
            if done or self.size > direct_limit:
                return d, steps
        else:
            steps = 0
        return self._direct(gradient), steps

    def _direct(self, gradient: FloatArray) -> FloatArray:
        h = np.zeros((self.size, self.size))
        kernels.assemble(self.weight, *self.rows, self.label, h)
        if self.back is not None:
            h[self.top, self.top] += self.return_weight
        scale = 1 / np.sqrt(np.maximum(h.diagonal(), 1e-300))
        h *= scale[:, None] * scale
        h[np.diag_indices_from(h)] = 1 + 1e-15
        try:
            factor = scipy.linalg.cho_factor(h, lower=True, overwrite_a=True, check_finite=False)
            return np.asarray(-scale * scipy.linalg.cho_solve(factor, scale * gradient))
        except np.linalg.LinAlgError:  # numerically singular: a Jacobi step still descends
            return -gradient * scale**2


def _newton(
    dual: Dual, y: FloatArray, mu: float, goal: float, limit: int, direct_limit: int
) -> tuple[FloatArray, _Report]:
    """Minimise the dual at one mu; stops at Newton decrement `goal`."""
    gradient = dual.evaluate(y, mu)
    decrement, newton, cg = np.inf, 0, 0
    if not dual.size:
        return y, _Report(True, 0.0, 0, 0)
    forcing = 0.1
    while newton < limit:
        direction, steps = dual.step(gradient, forcing, direct_limit)
        newton, cg = newton + 1, cg + steps
        slope = float(gradient @ direction)
        previous, decrement = decrement, float(np.sqrt(max(-slope, 0.0) / mu))
        y, gradient = _line_search(dual, y, mu, direction, slope, gradient)
        # after a full step the decrement is squared, up to the inner solve's accuracy
        if decrement * min(1.0, decrement + forcing) <= goal and decrement < 0.3:
            return y, _Report(True, decrement, newton, cg)
        if decrement < 1e-5 and decrement > 0.5 * previous:  # rounding level
            return y, _Report(decrement < 1e-6, decrement, newton, cg)
        forcing = min(0.1, max(decrement * 0.1, 1e-8))
    return y, _Report(False, decrement, newton, cg)


def _line_search(
    dual: Dual, y: FloatArray, mu: float, direction: FloatArray, slope: float, gradient: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Step along a descent direction until the slope has clearly not turned upwards.

    The dual is convex, so the slope alone tells too short from too long; each trial is one pass.
    """
    step, low, low_slope = 1.0, 0.0, slope
    for _ in range(40):
        trial = y + step * direction
        new = dual.evaluate(trial, mu)
        end = float(new @ direction)
        if np.isfinite(end) and end <= 0.5 * abs(slope) + 1e-300:
            return trial, new
        if np.isfinite(end):  # secant between a falling and a rising slope
            share = low_slope / (low_slope - end)
            step = low + (step - low) * float(np.clip(share, 0.1, 0.7))
        else:
            step *= 0.1
    return trial, new
