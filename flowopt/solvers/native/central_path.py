"""A primal-dual path to the barrier's optimum: few steps, however small mu is.

The dual alone is smooth but very curved at small mu, so Newton's method on it takes many short
steps. Here flows and multipliers are unknowns of their own, f zl = (u - f) zu = tau with
zu - zl = r, and tau falls to mu as fast as the steps allow (Mehrotra; Wright, *Primal-Dual
Interior-Point Methods*, 1997). Two numbers are kept per edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flowopt.network import FloatArray
from flowopt.solvers.native import kernels
from flowopt.solvers.native.system import System

MARGIN = 0.99  # share of the way to the boundary that a step may go
CLOSE = 0.3  # distance from the target at which the dual Newton method takes over
# Below this path parameter, in units of the largest capacity, linear solves get more accurate,
# with its square root down to a share of FINEST: inaccurate steps are cut short there by the
# bounds, and a path of 24 steps with exact solves took 47 to 98 (measured at mu = 1e-8).
ROUGH, FINEST = 1e-4, 1 / 30


def follow(
    system: System, x: FloatArray, mu: float, start: float, tolerance: float, limit: int
) -> tuple[FloatArray, int]:
    """Follow the central path from `start` down to `mu`.

    Parameters
    ----------
    x : ndarray, shape (unknowns,)
        First potentials.
    start, mu : float
        Path parameter at the beginning and at the end, in units of flow.
    tolerance : float
        Of the first linear solves; later ones are up to 30 times as accurate.
    limit : int
        Of steps.

    Returns
    -------
    ndarray, int
        Potentials near the optimum for `mu`, and the number of steps.
    """
    p, q = np.empty_like(system.weight), np.empty_like(system.weight)
    y = system.potential(x)
    capacity = system.capacity
    system.each(lambda k, rows: kernels.central_start(capacity, *rows, y, start, p, q))
    dy = np.zeros_like(y)
    tau = new = start
    step_f = step_z = 0.0
    infeasible = 1.0
    for step in range(limit):
        products, distance = _advance(system, (y, dy, tau, step_f, step_z, new, mu, p, q))
        right = -system.collect()
        y = y + step_z * dy
        x = system.reduce(y)
        tau = new
        if tau == mu and distance < CLOSE**2 and infeasible < 1e-3:
            return x, step
        average = max(products, 0.0) / (2 * system.edges)
        fine = min(1.0, max(FINEST, (average / (ROUGH * system.scale)) ** 0.5))
        dy = system.expand(system.solve(right, fine * tolerance))
        worst_f, worst_z, along, across = _lengths(system, (y, dy, tau, p, q))
        step_f = min(1.0, MARGIN / max(worst_f, 1e-300))
        step_z = min(1.0, MARGIN / max(worst_z, 1e-300))
        infeasible *= 1 - step_f
        # sum of f zl + s zu after the step, from zu - zl = r being linear
        after = products - step_f * along - step_f * step_z * across
        after += step_z * (2 * system.edges * tau - products + along)
        average = max(after, 0.0) / (2 * system.edges)
        reduction = min(0.8, max(0.03, 1 - min(step_f, step_z)))
        new = max(mu, reduction * average)
    return x, limit


def _advance(system: System, arguments: tuple[Any, ...]) -> FloatArray:
    """Take a step and set up the next: sum f zl + s zu, squared distance from the target."""
    sums = system.each(
        lambda k, rows: kernels.advance(
            system.capacity, *rows, *arguments, system.weight, *system.partial[k]
        )
    )
    total: FloatArray = np.sum(sums, axis=0)
    return total


def _lengths(system: System, arguments: tuple[Any, ...]) -> tuple[float, float, float, float]:
    """Largest relative decreases of flows and of multipliers; sums of df r and df dr."""
    found = np.array(
        system.each(lambda k, rows: kernels.step_lengths(system.capacity, *rows, *arguments))
    )
    worst_f, worst_z = found[:, :2].max(axis=0)
    along, across = found[:, 2:].sum(axis=0)
    return float(worst_f), float(worst_z), float(along), float(across)
