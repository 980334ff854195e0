"""Quadratic and Entropy, natively: an interior path, then Newton's method on the dual.

The path: f zl = (u - f) zu = theta v for every edge, zu - zl its price plus the slope of its own
term, and theta falls as fast as the steps allow (Wright, *Primal-Dual Interior-Point Methods*,
1997). The weight v is the geometric mean of u and the largest capacity: where capacities span ten
orders of magnitude, v constant or v = u take two to four times as many steps (measured). The dual
alone has kinks, at which Newton's method without the path takes many short steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowopt.network import FloatArray
from flowopt.network import kernels as graph_kernels
from flowopt.objectives import Entropy, Quadratic
from flowopt.solvers.native import clipped_kernels as kernels
from flowopt.solvers.native.dual import Found, Gradient, Report, minimise
from flowopt.solvers.native.system import System

MARGIN = 0.99  # share of the way to the boundary that a step may go
START = 0.03  # path parameter at the beginning; prices are differences of potentials in 0..1
# path parameters at which the dual's Newton method tries to finish: the first is enough unless
# edges carry a very small share of their capacity, whose flow the path still pushes up (at a
# share of 1e-6 and a weight of 1e-4 until 1e-17 or so)
ENDS = (1e-8, 1e-10, 1e-12, 1e-14, 1e-17, 1e-20, 1e-24, 1e-28)
TRIAL = 6  # Newton steps of one such try
WARM_STEPS = 20  # Newton steps from a start of the caller's before it is given up
FINE = 1e-6  # accuracy of the linear solves after the first stage
SMALL = 1e-12  # squared decrements are measured in this share of the sum of all flows
RESIDUAL = 1e-13  # largest imbalance of a finished answer, as a share of the sum of all flows
FLOOR = 1e-9  # weight of a clipped edge in the dual, as a share of its largest


@dataclass(frozen=True)
class EdgeFunction:
    """The term of one edge in shares of its capacity, as the compiled passes know it.

    Attributes
    ----------
    kind : int
        ``QUADRATIC`` or ``ENTROPY`` of `clipped_kernels`, where its formulas are.
    weight : float
        rho or tau, dimensionless.
    """

    kind: int
    weight: float

    @classmethod
    def of(cls, objective: Quadratic | Entropy) -> EdgeFunction:
        """The term of an objective."""
        if isinstance(objective, Quadratic):
            return cls(kernels.QUADRATIC, float(objective.rho))
        return cls(kernels.ENTROPY, float(objective.tau))

    def gradient(self, system: System) -> Gradient:
        """Gradient of the dual function."""
        function = (self.kind, self.weight, FLOOR)

        def gradient(x: FloatArray) -> FloatArray:
            y = system.potential(x)
            system.each(
                lambda i, rows: kernels.dual_pass(
                    system.capacity, *rows, *function, y, system.weight, *system.partial[i]
                )
            )
            return system.collect()

        return gradient

    def best_flow(self, system: System, x: FloatArray, last: FloatArray) -> FloatArray:
        """Best flow of every edge at potentials x + last, where `last` may be very small."""
        flow = np.empty(len(system.capacity))
        shared = (self.kind, self.weight, system.potential(x), system.expand(last), flow)
        system.each(lambda _, rows: kernels.best_flow(system.capacity, *rows, *shared))
        return flow


class Path:
    """The interior path of one problem, followed in stages.

    Attributes
    ----------
    y : ndarray, shape (n_nodes,)
        Potentials.
    steps : int
        Taken so far.
    """

    def __init__(self, system: System, term: EdgeFunction, x: FloatArray) -> None:
        self.system, self.term = system, term
        self.y = system.potential(x)
        self.steps = 0
        capacity, y, edges = system.capacity, self.y, len(system.capacity)
        self._state = np.empty(edges), np.empty(edges), np.empty(edges)
        fixed = (system.scale, START, y, *self._state)
        system.each(lambda _, rows: kernels.start(capacity, *rows, *fixed))
        self._tilt = np.empty((system.parts, system.graph.n_nodes))
        self._dy = np.zeros_like(y)
        self._theta, self._step_f, self._step_z = START, 0.0, 0.0
        self._average = self._advance()

    @property
    def flow(self) -> FloatArray:
        """Flow of every edge (E,), interior; conservation is met in the limit."""
        p, capacity = self._state[0], self.system.capacity
        return np.where(capacity > 0, np.where(p >= 0, p, capacity + p), 0.0)

    def follow(self, end: float, tolerance: float, limit: int) -> bool:
        """Lower the path parameter to `end`; whether that took at most `limit` steps in all.

        `tolerance` is of the inner linear solves.
        """
        system = self.system
        while self._average > end:
            if self.steps >= limit:
                return False
            shortfall = 1 - min(self._step_f, self._step_z)
            self._theta = self._average * min(0.8, max(0.03, shortfall))
            right = -(system.collect() + self._theta * system.gather(self._tilt.sum(axis=0)))
            self._dy = system.expand(system.solve(right, tolerance))
            worst_f, worst_z = self._lengths()
            self._step_f = min(1.0, MARGIN / max(worst_f, 1e-300))
            self._step_z = min(1.0, MARGIN / max(worst_z, 1e-300))
            self._average = self._advance()
            self.steps += 1
        return True

    def resume(self) -> None:
        """Set up the next step again, after the system's arrays were used for something else."""
        self._step_f = self._step_z = 0.0
        self._average = self._advance()

    def _advance(self) -> float:
        """Take the step and set up the next; the mean of f zl and s zu over v."""
        system, term = self.system, self.term
        moves = (self.y, self._dy, self._theta, self._step_f, self._step_z, *self._state)

        def work(i: int, rows: tuple[Any, ...]) -> float:
            balance, diagonal = system.partial[i]
            found: float = kernels.advance(
                system.capacity, *rows, system.scale, term.kind, term.weight, *moves,
                system.weight, balance, self._tilt[i], diagonal,
            )  # fmt: skip
            return found

        products = float(np.sum(system.each(work)))
        self.y = self.y + self._step_z * self._dy
        return products / (2 * system.edges)

    def _lengths(self) -> tuple[float, float]:
        """Largest relative decreases of flows or slacks, and of multipliers, in a full step."""
        system, term = self.system, self.term
        moves = (self.y, self._dy, self._theta, *self._state)
        found = system.each(
            lambda _, rows: kernels.step_lengths(
                system.capacity, *rows, system.scale, term.kind, term.weight, *moves
            )
        )
        worst_f, worst_z = np.max(found, axis=0)
        return float(worst_f), float(worst_z)


def finish(
    system: System, term: EdgeFunction, x: FloatArray, goal: float, limit: int
) -> tuple[FloatArray, FloatArray, Report]:
    """Newton's method on the dual from unknowns x; see `dual.minimise`."""
    total = max(float(term.best_flow(system, x, np.zeros(system.size)).sum()), 1e-300)

    def balanced(x: FloatArray, last: FloatArray) -> bool:
        into, out = graph_kernels.node_sums(
            *system.rows[:3], term.best_flow(system, x, last), system.graph.n_nodes
        )
        return bool(np.abs(system.gather(out - into)).max() <= RESIDUAL * total)

    return minimise(
        system, term.gradient(system), x, SMALL * total, goal, limit,
        forcing=1e-3, sound=balanced,
    )  # fmt: skip


def optimum(
    system: System,
    term: EdgeFunction,
    first: FloatArray,
    warm: FloatArray | None,
    goal: float,
    tolerance: float,
    limit: int,
) -> Found:
    """The optimum of Quadratic or Entropy.

    Parameters
    ----------
    first : ndarray, shape (unknowns,)
        Where the path starts.
    warm : ndarray, shape (unknowns,), or None
        Near the optimum: Newton's method alone is tried from there.
    goal : float
        Squared decrement relative to the sum of all flows, in units of `SMALL`.
    tolerance : float
        Of the linear solves in the path's first stage.
    limit : int
        Of steps on the path.
    """
    zero = np.zeros(system.size)
    if not system.size:
        flow = term.best_flow(system, zero, zero)
        return Found(zero, zero, Report(True, 0.0, 0), 0, flow)
    if warm is not None:
        x, last, report = finish(system, term, warm, goal, WARM_STEPS)
        if report.converged:
            return Found(x, last, report, 0, term.best_flow(system, x, last))
    path, steps = Path(system, term, first), 0
    for end in ENDS:
        on_time = path.follow(end, tolerance if end == ENDS[0] else FINE, limit)
        trial = TRIAL if end != ENDS[-1] else WARM_STEPS
        x, last, report = finish(system, term, system.reduce(path.y), goal, trial)
        steps += report.steps
        report = replace(report, steps=steps)
        if report.converged:
            return Found(x, last, report, path.steps, term.best_flow(system, x, last))
        if not on_time:
            break
        path.resume()
    return Found(system.reduce(path.y), zero, report, path.steps, path.flow)
