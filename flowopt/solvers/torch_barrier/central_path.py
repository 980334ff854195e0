"""The primal-dual path of `flowopt.solvers.native.central_path`, for a batch of networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowopt.solvers.torch_barrier.problem import Problem, outflow, prices

MARGIN = 0.99  # share of the way to the boundary that a step may go
CLOSE = 0.3  # distance from the target at which the dual Newton method takes over


@dataclass
class State:
    """Where each network is on its path: flow, slack, their multipliers, potentials, path data.

    Edges without capacity stand still at flow = slack = 1/2 and price 0.
    """

    f: Tensor
    s: Tensor
    zl: Tensor
    zu: Tensor
    y: Tensor
    target: Tensor  # path parameter of the next step
    infeasible: Tensor  # share of the first imbalance that is left
    index: Tensor  # number of the network in the batch

    def take(self, index: Tensor) -> State:
        """The networks at some positions."""
        return State(*(part[index] for part in vars(self).values()))


def follow(
    problem: Problem, y: Tensor, first: Tensor, tolerance: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Follow the central paths from `first` (B,) down to each network's mu.

    Returns
    -------
    Tensor, shape (B, L + 1, T), and Tensor, shape (B,)
        Potentials near the optimum, and the numbers of steps.
    """
    ends, whole = y.clone(), problem
    steps = torch.full_like(problem.mu, limit, dtype=torch.int64)
    state = _start(problem, y, first)
    for step in range(limit):
        low, high = state.f * state.zl, state.s * state.zu
        products = ((low + high) * problem.live).sum((1, 2, 3))
        mu = problem.mu[:, None, None, None]
        away = ((low / mu - 1).square() + (high / mu - 1).square()) * problem.live
        done = (state.target == problem.mu) & (away.sum((1, 2, 3)) < CLOSE**2)
        done &= state.infeasible < 1e-3
        done |= ~products.isfinite()  # lost: the certificate will tell
        if bool(done.any()):
            steps[state.index[done]] = step
            ends[state.index[done]] = state.y[done]
            whole.direct[state.index[done]] = problem.direct[done]
            rest = (~done).nonzero().squeeze(1)
            if not len(rest):
                break
            problem, state, products = problem.take(rest), state.take(rest), products[rest]
        _advance(problem, state, products, tolerance)
    else:
        ends[state.index] = state.y
    return ends, steps


def _start(problem: Problem, y: Tensor, first: Tensor) -> State:
    """States with f zl = s zu = `first` at potentials y; conservation is not met."""
    tau = first[:, None, None, None]
    u = torch.where(problem.live > 0, problem.capacity, 1.0)
    r = prices(y) * problem.live
    x = r.abs() * u / tau
    share = 2 / (2 + x + (x * x + 4).sqrt())
    near, far = u * share, u * (1 - share)
    f, s = torch.where(r > 0, far, near), torch.where(r > 0, near, far)
    index = torch.arange(len(y), device=y.device)
    return State(f, s, tau / f, tau / s, y.clone(), first.clone(), torch.ones_like(first), index)


def _advance(problem: Problem, state: State, products: Tensor, tolerance: float) -> None:
    """One step towards each network's target, in place, and the next target."""
    f, s, zl, zu = state.f, state.s, state.zl, state.zu
    tau = state.target[:, None, None, None]
    r = prices(state.y) * problem.live
    wish = r + tau * (s - f) / (f * s)
    weight = problem.live * (f * s) / (zl * s + zu * f)
    problem.set_weight(weight)
    right = -outflow(f * problem.live + weight * wish)
    dy = problem.solve(right, torch.full_like(problem.mu, tolerance))
    dr = prices(dy)
    df = weight * (wish + dr)
    dzl = (tau - zl * (f + df)) / f * problem.live
    dzu = (tau - zu * (s - df)) / s * problem.live
    step_f = _longest(-df / f, df / s)
    step_z = _longest(-dzl / zl, -dzu / zu)
    along, across = (df * r).sum((1, 2, 3)), (df * dr).sum((1, 2, 3))
    by_f, by_z = step_f[:, None, None, None], step_z[:, None, None, None]
    f += by_f * df
    s -= by_f * df
    zl += by_z * dzl
    zu += by_z * dzu
    state.y = state.y + step_z[:, None, None] * dy
    state.infeasible = state.infeasible * (1 - step_f)
    # sum of f zl + s zu after the step, from zu - zl = r being linear
    after = products - step_f * along - step_f * step_z * across
    after += step_z * (2 * problem.edges * state.target - products + along)
    average = after.clamp_min(0.0) / (2 * problem.edges)
    reduction = (1 - torch.minimum(step_f, step_z)).clamp(0.03, 0.8)
    state.target = torch.maximum(problem.mu, reduction * average)


def _longest(decrease: Tensor, other: Tensor) -> Tensor:
    """Step length (B,) at which no number falls by more than MARGIN of itself."""
    worst = torch.maximum(decrease, other).amax((1, 2, 3))
    return (MARGIN / worst.clamp_min(1e-300)).clamp_max(1.0)
