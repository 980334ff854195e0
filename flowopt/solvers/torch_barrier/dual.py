"""Newton's method on the dual, as in `flowopt.solvers.native.dual`, for a batch of networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowopt.solvers.torch_barrier.problem import Problem, best_flow, outflow, prices


@dataclass(frozen=True)
class Report:
    """How each network's iteration ended, shape (B,): at its goal?, at which decrement, steps."""

    converged: Tensor
    decrement: Tensor
    steps: Tensor


def gradient(problem: Problem, y: Tensor) -> Tensor:
    """Conservation residual of the best flows at y; the weights stay in the problem."""
    flow, _, weight = best_flow(problem, y)
    problem.set_weight(weight)
    return outflow(flow) * problem.free


def minimise(problem: Problem, y: Tensor, goal: float, limit: int) -> tuple[Tensor, Tensor, Report]:
    """Minimise the dual functions.

    Returns
    -------
    Tensor, Tensor, Report
        Potentials (B, L + 1, T), and the last Newton steps, kept apart: at small mu a step can
        matter to the flows that would be lost in rounding if it were added to the potentials.
    """
    ends, last = y.clone(), torch.zeros_like(y)
    converged = torch.zeros_like(problem.mu, dtype=torch.bool)
    sizes = torch.full_like(problem.mu, torch.inf)
    steps = torch.full_like(problem.mu, limit, dtype=torch.int64)
    index = torch.arange(len(y), device=y.device)
    slope = gradient(problem, y)
    decrement = torch.full_like(problem.mu, torch.inf)
    for step in range(1, limit + 1):
        direction = -problem.solve(slope, (0.1 * decrement).clamp(1e-8, 0.1))
        previous, descent = decrement, (slope * direction).sum((1, 2))
        decrement = ((-descent).clamp_min(0.0) / problem.mu).sqrt()
        stalled = (decrement < 1e-5) & (decrement > 0.5 * previous)  # rounding of the potentials
        good = (decrement.square() <= goal) | stalled  # a full step squares the decrement
        done = good | ~decrement.isfinite()
        sizes[index] = torch.where(good, decrement.square(), decrement)
        if bool(done.any()):
            here = done.nonzero().squeeze(1)
            ends[index[here]], steps[index[here]] = y[here], step
            converged[index[here]] = good[here]
            last[index[here]] = _refined(problem.take(here), slope[here], direction[here])
            rest = (~done).nonzero().squeeze(1)
            if not len(rest):
                break
            problem, index, y = problem.take(rest), index[rest], y[rest]
            slope, direction, descent = slope[rest], direction[rest], descent[rest]
            decrement = decrement[rest]
        y, slope = _line_search(problem, y, direction, descent)
    else:
        ends[index] = y
    return ends, last, Report(converged, sizes, steps)


def _refined(problem: Problem, slope: Tensor, direction: Tensor) -> Tensor:
    """The Newton direction after one step of iterative refinement."""
    # the Laplacian as a sum over differences: exact where potentials almost agree
    image = outflow(problem.weight * prices(direction)) * problem.free
    residual = slope + image
    return direction - problem.solve(residual, torch.full_like(problem.mu, 1e-4))


def _line_search(
    problem: Problem, y: Tensor, direction: Tensor, descent: Tensor
) -> tuple[Tensor, Tensor]:
    """Steps along descent directions until each slope has clearly not turned upwards.

    Each trial is one pass over all networks; those that have their step stay where they are.
    """
    step = torch.ones_like(descent)
    for _ in range(40):
        trial = y + step[:, None, None] * direction
        new = gradient(problem, trial)
        end = (new * direction).sum((1, 2))
        good = end.isfinite() & (end <= 0.5 * descent.abs() + 1e-300)
        if bool(good.all()):
            break
        # secant between the falling slope at 0 and the rising one at the trial
        share = torch.where(end.isfinite(), -descent / (end - descent), 0.1)
        step = torch.where(good, step, step * share.clamp(0.1, 0.7))
    return trial, new
