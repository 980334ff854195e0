"""Newton's method on the dual function of a separable objective (method.md section 6).

For given potentials the best flow of every edge is a closed form, so the dual is convex and
unconstrained; its gradient is the conservation residual, its Hessian a graph Laplacian. For the
barrier it is smooth, and near the optimum every step squares the error; for objectives that clip
flows it is piecewise smooth, and one step ends it once the clipped edges are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowopt.network import FloatArray
from flowopt.solvers.native import kernels
from flowopt.solvers.native.system import System

# residual (unknowns,) of the best flows at given unknowns; leaves its weights in the system
Gradient = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Report:
    """How the iteration ended: whether at its goal, at which decrement, after how many steps."""

    converged: bool
    decrement: float
    steps: int


@dataclass(frozen=True, eq=False)
class Found:
    """An optimum: unknowns, with the last step apart, and flow and slack of the system's edges."""

    x: FloatArray
    last: FloatArray
    report: Report
    path_steps: int
    flow: FloatArray
    slack: FloatArray | None = None


def barrier_gradient(system: System, mu: float) -> Gradient:
    """Gradient of the barrier's dual; `mu` in units of flow."""

    def gradient(x: FloatArray) -> FloatArray:
        y = system.potential(x)
        system.each(
            lambda k, rows: kernels.dual_pass(
                system.capacity, *rows, y, mu, system.weight, *system.partial[k]
            )
        )
        return system.collect()

    return gradient


def barrier_balance(system: System, x: FloatArray, last: FloatArray, mu: float) -> FloatArray:
    """Conservation residual of the best flows at x + last, to first order in `last`."""
    y, dy, sums = system.potential(x), system.expand(last), system.partial[:, 0]
    system.each(lambda k, rows: kernels.best_balance(system.capacity, *rows, y, dy, mu, sums[k]))
    return system.gather(sums.sum(axis=0))


def minimise(
    system: System,
    gradient: Gradient,
    x: FloatArray,
    unit: float,
    goal: float,
    limit: int,
    *,
    forcing: float = 0.1,
    sound: Callable[[FloatArray, FloatArray], bool] | None = None,
) -> tuple[FloatArray, FloatArray, Report]:
    """Minimise a dual function.

    Parameters
    ----------
    gradient : Gradient
    x : ndarray, shape (unknowns,)
    unit : float
        What the squared Newton decrement is divided by: mu for the barrier, in units of flow.
    goal : float
        Squared decrement at which one more step is the last.
    limit : int
        Of Newton steps.
    forcing : float
        Loosest relative accuracy of a linear solve.
    sound : callable, optional
        Whether potentials and last step may be returned; for duals with kinks, which the last
        step might cross.

    Returns
    -------
    ndarray, ndarray, Report
        Potentials, and the last Newton step, kept apart: at small weights a step can matter to
        the flows that would be lost in rounding if it were added to the potentials.
    """
    slope_at = gradient(x)
    decrement = np.inf
    for step in range(1, limit + 1):
        direction = -system.solve(slope_at, min(forcing, max(0.1 * decrement, 1e-8)))
        previous = decrement
        decrement = float(np.sqrt(max(-float(slope_at @ direction), 0.0) / unit))
        stalled = decrement < 1e-5 and decrement > 0.5 * previous  # rounding of the potentials
        if decrement**2 <= goal or stalled:  # a full step squares the decrement
            # with factors more accuracy costs nothing, and 1e-4 doubles delta at mu = 1e-8
            last = 1e-6 if system.direct else 1e-4
            direction -= system.solve(slope_at + system.image(direction), last)
            if sound is None or sound(x, direction):
                return x, direction, Report(True, decrement**2, step)
        x, slope_at = _line_search(gradient, x, direction, float(slope_at @ direction))
    return x, np.zeros(system.size), Report(False, decrement, limit)


def _line_search(
    gradient: Gradient, x: FloatArray, direction: FloatArray, slope: float
) -> tuple[FloatArray, FloatArray]:
    """Step along a descent direction until the slope has clearly not turned upwards.

    The dual is convex, so the slope alone tells too long from too short; each trial is one pass.
    """
    step = 1.0
    for _ in range(40):
        trial = x + step * direction
        new = gradient(trial)
        end = float(new @ direction)
        if np.isfinite(end) and end <= 0.5 * abs(slope) + 1e-300:
            break
        # secant between the falling slope at 0 and the rising one at the trial
        share = -slope / (end - slope) if np.isfinite(end) else 0.1
        step *= min(max(share, 0.1), 0.7)
    return trial, new
