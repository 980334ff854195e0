"""Flow attributions as a differentiable PyTorch function of the capacities.

The backward pass is one Laplacian solve for each network (`flowopt.sensitivity`), so
attributions can be part of a training loss or be traced back to what the capacities came from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from flowopt.errors import InputError
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import LogBarrier
from flowopt.sensitivity import Sensitivity
from flowopt.solvers import solve


def flow_attributions(
    C: Tensor,
    mu: float,
    relative: bool = False,
    sources: str | int | Iterable[int] = "all",
) -> Tensor:
    """Token flows of the log barrier's optimum, differentiable in the capacities.

    Parameters
    ----------
    C : Tensor, shape (..., L, t, t)
        Capacities as for `FlowNetwork.layered`, floating point; leading dimensions are a batch.
        Solved in double precision on the processor, whatever its type and device.
    mu : float
        Weight of the barrier, in units of flow.
    relative : bool
        Whether mu is in units of each network's largest kept capacity instead; its change with
        that capacity is then part of the derivative (the first one, where several are largest).
    sources : "all", int or iterable of int
        Nodes of the top layer that the super-source feeds.

    Returns
    -------
    Tensor, shape (..., t)
        Of the type and on the device of C. Entries of C that are 0 have gradient 0: such edges
        are pruned, and attributions are not differentiable there. Second derivatives are not
        available.

    Raises
    ------
    InputError
        For a C of another shape or type, or with negative, infinite or NaN entries.
    SolverError
        If no certified optimum was found.
    """
    if not isinstance(C, Tensor) or C.ndim < 3 or not C.is_floating_point():
        raise InputError("C must be a floating-point tensor of shape (..., L, t, t).")
    chosen = sources if isinstance(sources, str | int) else tuple(sources)
    objective = LogBarrier(mu=mu, relative=relative)
    attributions: Tensor = _FlowAttributions.apply(C, objective, chosen)  # type: ignore[no-untyped-call]
    return attributions


class _FlowAttributions(torch.autograd.Function):
    """Solve in forward; the adjoint system in backward."""

    @staticmethod
    def forward(ctx: Any, C: Tensor, objective: LogBarrier, sources: Any) -> Tensor:
        stack = C.detach().to("cpu", torch.float64).numpy()
        flat = stack.reshape(-1, *stack.shape[-3:])
        solutions = [solve(FlowNetwork.layered(c, sources), objective) for c in flat]
        ctx.solutions, ctx.objective, ctx.shape = solutions, objective, C.shape
        found = np.array([s.attributions for s in solutions]).reshape(
            *stack.shape[:-3], stack.shape[-1]
        )
        return torch.from_numpy(found).to(C.device, C.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = outputs
        weights = grad.detach().to("cpu", torch.float64).numpy()
        rows = weights.reshape(len(ctx.solutions), -1)
        found = [
            _gradient(Sensitivity.of(solution), row, ctx.objective)
            for solution, row in zip(ctx.solutions, rows, strict=True)
        ]
        stacked = np.array(found).reshape(ctx.shape)
        return torch.from_numpy(stacked).to(grad.device, grad.dtype), None, None


def _gradient(sensitivity: Sensitivity, weights: FloatArray, objective: LogBarrier) -> FloatArray:
    """Gradient (L, t, t) of weights @ attributions, mu following the capacities if relative."""
    gradient = sensitivity.vjp(weights)
    found = np.array(gradient.blocks)
    if objective.relative and objective.mu is not None:
        capacity = gradient.network.graph.capacity
        found.reshape(-1)[int(np.argmax(capacity))] += gradient.mu * objective.mu
    return found
