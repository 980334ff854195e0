"""Weighted graph Laplacians of a batch of layered networks: conjugate gradients and Cholesky.

Shapes as in `flowopt.solvers.torch_barrier.problem`; `free` is 1 at unknown nodes, else 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHIFT = 1e-15  # added to a unit diagonal: a rounding error's worth
LOOK = 4  # conjugate gradient steps between two looks at who is done: a look waits for the GPU


def image(weight: Tensor, diagonal: Tensor, free: Tensor, x: Tensor) -> Tensor:
    """Laplacian times x, at the free nodes; x is 0 elsewhere."""
    out = diagonal * x
    out[:, 1:] -= torch.matmul(weight, x[:, :-1, :, None]).squeeze(3)
    out[:, :-1] -= torch.matmul(x[:, 1:, None, :], weight).squeeze(2)
    return out.mul_(free)


def solve_iterative(
    weight: Tensor, diagonal: Tensor, free: Tensor, right: Tensor, tolerance: Tensor, limit: int
) -> tuple[Tensor, Tensor]:
    """Jacobi-preconditioned conjugate gradients, each network with steps of its own.

    Returns
    -------
    Tensor, shape (B, L + 1, T), and Tensor of bool, shape (B,)
        Solutions, and whether the preconditioned residual fell by `tolerance` (B,).
    """
    inverse = free / torch.where(free > 0, diagonal, 1.0)
    x, r = torch.zeros_like(right), right.clone()
    p = z = r * inverse
    rz = (r * z).sum((1, 2))
    goal = rz * tolerance.square()
    going = rz > goal
    for step in range(limit):
        if step % LOOK == 0 and not bool(going.any()):
            break
        q = image(weight, diagonal, free, p)
        curvature = (p * q).sum((1, 2))
        going &= curvature > 0
        a = torch.where(going, rz / curvature, 0.0)[:, None, None]
        x += a * p
        r -= a * q
        z = r * inverse
        now = torch.where(going, (r * z).sum((1, 2)), rz)
        p = z + torch.where(going, now / rz, 0.0)[:, None, None] * p
        rz = now
        going &= rz > goal
    return x, rz <= goal


def solve_direct(
    weight: Tensor, diagonal: Tensor, free: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    """Block tridiagonal Cholesky factorisation, from the top layer down, and one solve.

    Returns
    -------
    Tensor, shape (B, L + 1, T), and Tensor of bool, shape (B,)
        Solutions, and whether the factorisation went through.
    """
    layers, t = weight.shape[1:3]
    scale = free / torch.where(free > 0, diagonal, 1.0).clamp_min(1e-300).sqrt()
    b = right * scale
    unit = torch.eye(t, dtype=weight.dtype, device=weight.device) * (1 + SHIFT)
    schur = unit.expand(len(weight), t, t)
    good = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []  # factor, coupling, forward solution
    carried = b[:, layers - 1, :, None]
    for level in range(layers - 1, 0, -1):
        factor, info = torch.linalg.cholesky_ex(schur)
        good &= info == 0
        z = torch.linalg.solve_triangular(factor, carried, upper=False)
        coupling = weight[:, level - 1] * scale[:, level, :, None] * scale[:, level - 1, None, :]
        coupling = torch.linalg.solve_triangular(factor, coupling, upper=False)
        schur = torch.baddbmm(unit.expand_as(schur), coupling.mT, coupling, alpha=-1)
        carried = b[:, level - 1, :, None] + coupling.mT @ z
        steps.append((factor, coupling, z))
    x = torch.zeros_like(right)
    below = torch.zeros_like(carried)
    for level, (factor, coupling, z) in enumerate(reversed(steps), start=1):
        below = torch.linalg.solve_triangular(factor.mT, z + coupling @ below, upper=True)
        x[:, level] = below.squeeze(2)
    return x * scale, good & x.isfinite().flatten(1).all(1)
