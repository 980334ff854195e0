"""Newton's method on the dual function of the barrier problem (method.md section 6).

For given potentials the best flow of every edge is a closed form, so the dual is smooth, convex
and unconstrained; its gradient is the conservation residual, its Hessian a graph Laplacian.
Near the optimum every step squares the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowopt.network import FloatArray
from flowopt.solvers.native import kernels
from flowopt.solvers.native.system import System


@dataclass(frozen=True)
class Report:
    """How the iteration ended: whether at its goal, at which decrement, after how many steps."""

    converged: bool
    decrement: float
    steps: int


def gradient(system: System, x: FloatArray, mu: float) -> FloatArray:
    """Conservation residual of the best flow at x; weights and sums stay in the system."""
    y = system.potential(x)
    system.each(
        lambda k, rows: kernels.dual_pass(
            system.capacity, *rows, y, mu, system.weight, *system.partial[k]
        )
    )
    return system.collect()


def minimise(
    system: System, x: FloatArray, mu: float, goal: float, limit: int
) -> tuple[FloatArray, FloatArray, Report]:
    """Minimise the dual function.

    Parameters
    ----------
    x : ndarray, shape (unknowns,)
    mu : float
        In units of flow.
    goal : float
        Distance to the optimum, in the local norm, that the answer should have.
    limit : int
        Of Newton steps.

    Returns
    -------
    ndarray, ndarray, Report
        Potentials, and the last Newton step, kept apart: at small mu a step can matter to the
        flows that would be lost in rounding if it were added to the potentials.
    """
    slope_at = gradient(system, x, mu)
    decrement = np.inf
    for step in range(1, limit + 1):
        forcing = min(0.1, max(0.1 * decrement, 1e-8))
        direction = -system.solve(slope_at, forcing)
        previous = decrement
        decrement = float(np.sqrt(max(-slope_at @ direction, 0.0) / mu))
        stalled = decrement < 1e-5 and decrement > 0.5 * previous  # rounding of the potentials
        if decrement**2 <= goal or stalled:  # a full step squares the decrement
            direction -= system.solve(slope_at + system.image(direction), 1e-4)
            return x, direction, Report(True, decrement**2, step)
        x, slope_at = _line_search(system, x, mu, direction, float(slope_at @ direction))
    return x, np.zeros(system.size), Report(False, decrement, limit)


def _line_search(
    system: System, x: FloatArray, mu: float, direction: FloatArray, slope: float
) -> tuple[FloatArray, FloatArray]:
    """Step along a descent direction until the slope has clearly not turned upwards.

    The dual is convex, so the slope alone tells too long from too short; each trial is one pass.
    """
    step = 1.0
    for _ in range(40):
        trial = x + step * direction
        new = gradient(system, trial, mu)
        end = float(new @ direction)
        if np.isfinite(end) and end <= 0.5 * abs(slope) + 1e-300:
            break
        # secant between the falling slope at 0 and the rising one at the trial
        share = -slope / (end - slope) if np.isfinite(end) else 0.1
        step *= min(max(share, 0.1), 0.7)
    return trial, new
