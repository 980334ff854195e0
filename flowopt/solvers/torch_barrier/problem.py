"""A batch of barrier problems as padded tensors, and their weighted graph Laplacians.

Axes: network B, layer L (block l joins layer l + 1 to layer l), tail node T, head node T; node
arrays have shape (B, L + 1, T). Networks with fewer layers or nodes are padded with edges of no
capacity, which carry no flow and no weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from flowopt.network import FloatArray, FlowNetwork
from flowopt.solvers.torch_barrier.laplacian import solve_direct, solve_iterative
from flowopt.solvers.torch_barrier.stack import Stack


@dataclass
class Problem:
    """Barrier problems, and the edge weights that the last pass over them left.

    Attributes
    ----------
    capacity : Tensor, shape (B, L, T, T)
        0 on pruned and padded edges.
    live : Tensor, shape (B, L, T, T)
        1 where there is capacity, else 0.
    free : Tensor, shape (B, L + 1, T)
        1 at nodes whose potential is unknown, else 0.
    falling : Tensor, shape (B, L + 1, T)
        Potentials that fall evenly with depth: 1 at the sources, 0 at the sinks.
    mu, scale, edges : Tensor, shape (B,)
        Barrier weight, largest capacity, number of edges.
    weight, diagonal : Tensor, shapes (B, L, T, T) and (B, L + 1, T)
        Of the Laplacian.
    direct : Tensor of bool, shape (B,)
        Networks whose systems are factorised.
    limit : int
        Conjugate gradient steps after which that happens.
    """

    capacity: Tensor
    live: Tensor
    free: Tensor
    falling: Tensor
    mu: Tensor
    scale: Tensor
    edges: Tensor
    weight: Tensor
    diagonal: Tensor
    direct: Tensor
    limit: int

    def take(self, index: Tensor) -> Self:
        """The problems at some positions."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        chosen: dict[str, Any] = {k: v[index] for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **chosen)

    def set_weight(self, weight: Tensor) -> None:
        """Keep the edge weights, and their sums by node."""
        self.weight = weight
        self.diagonal = node_sums(weight, weight)

    def solve(self, right: Tensor, tolerance: Tensor) -> Tensor:
        """Solve (Laplacian) x = right at the free nodes of every network.

        Conjugate gradients for `limit` steps; networks that need more are factorised, now and
        from then on, as their systems only get harder as mu falls.
        """
        right = right * self.free
        x = torch.zeros_like(right)
        going = (~self.direct).nonzero().squeeze(1)
        if len(going):
            every = len(going) == len(right)
            some = slice(None) if every else going
            x[some], done = solve_iterative(
                self.weight[some], self.diagonal[some], self.free[some], right[some],
                tolerance[some], self.limit,
            )  # fmt: skip
            self.direct[going[~done]] = True
        rest = self.direct.nonzero().squeeze(1)
        if len(rest):
            y, good = solve_direct(
                self.weight[rest], self.diagonal[rest], self.free[rest], right[rest]
            )
            # singular to rounding: what conjugate gradients reached must do
            begun = x[rest].ne(0).flatten(1).any(1)
            jacobi = right[rest] / self.diagonal[rest].clamp_min(1e-300)
            other = torch.where(begun[:, None, None], x[rest], jacobi)
            x[rest] = torch.where(good[:, None, None], y, other)
        return x


def prices(y: Tensor) -> Tensor:
    """y_tail - y_head of every edge."""
    return y[:, 1:, :, None] - y[:, :-1, None, :]


def node_sums(leaving: Tensor, entering: Tensor) -> Tensor:
    """Sums of edge values over the edges out of each node plus those over the edges into it."""
    sums = leaving.new_zeros((len(leaving), leaving.shape[1] + 1, leaving.shape[2]))
    sums[:, 1:] = leaving.sum(3)
    sums[:, :-1] += entering.sum(2)
    return sums


def outflow(flow: Tensor) -> Tensor:
    """Outflow less inflow of every node."""
    sums = flow.new_zeros((len(flow), flow.shape[1] + 1, flow.shape[2]))
    sums[:, 1:] = flow.sum(3)
    sums[:, :-1] -= flow.sum(2)
    return sums


def best_flow(problem: Problem, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Best flow of every edge at potentials y, what it leaves free, and d flow / d price.

    See `flowopt.solvers.native.kernels.dual_pass`.
    """
    u, mu = problem.capacity, problem.mu[:, None, None, None]
    s = prices(y) * (u / mu)
    small = 2 / (2 + s.abs() + (s * s + 4).sqrt())
    h = small * (1 - small)
    weight = (u * h).square() / (mu * (1 - 2 * h))
    near, far, up = u * small, u * (1 - small), s > 0
    return torch.where(up, far, near), torch.where(up, near, far), weight


def packed(
    nets: Sequence[FlowNetwork],
    stacks: Sequence[Stack],
    mu: FloatArray,
    device: torch.device,
    cg_limit: int | None,
) -> Problem:
    """One batch of networks, padded to a common shape, on a device."""
    layers = max(len(stack.blocks) for stack in stacks)
    t = max(stack.widest for stack in stacks)
    capacity = np.zeros((len(nets), layers, t, t))
    free, falling = np.zeros((2, len(nets), layers + 1, t))
    for k, (net, stack) in enumerate(zip(nets, stacks, strict=True)):
        graph = net.graph
        parts = list(graph.blocks_of(graph.capacity))
        for level, number in enumerate(stack.blocks):
            rows, columns = parts[number].shape
            capacity[k, level, :rows, :columns] = parts[number]
        inner = graph.groups_of((graph.alive & ~graph.source & ~graph.sink).astype(np.float64))
        alive = graph.groups_of(graph.alive.astype(np.float64))
        for level, name in enumerate(stack.groups):
            free[k, level, : net.groups[name]] = inner[name]
            falling[k, level, : net.groups[name]] = alive[name] * level / len(stack.blocks)

    def tensor(values: FloatArray) -> Tensor:
        return torch.from_numpy(values).to(device)

    u = tensor(capacity)
    return Problem(
        capacity=u,
        live=(u > 0).to(u.dtype),
        free=tensor(free),
        falling=tensor(falling),
        mu=tensor(mu),
        scale=u.amax((1, 2, 3)),
        edges=(u > 0).sum((1, 2, 3)).to(u.dtype),
        weight=torch.zeros_like(u),
        diagonal=tensor(np.zeros_like(free)),
        direct=torch.zeros(len(nets), dtype=torch.bool, device=device),
        limit=30 + t // 2 if cg_limit is None else cg_limit,
    )


def unpacked(
    nets: Sequence[FlowNetwork], stacks: Sequence[Stack], problem: Problem, y: Tensor, last: Tensor
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Flow and slack of every edge and potentials of every node, network by network.

    To first order in `last`, which so may be far below the rounding of y.
    """
    flow, slack, weight = best_flow(problem, y)
    change = weight * prices(last)
    flows, slacks = (flow + change).cpu().numpy(), (slack - change).cpu().numpy()
    potentials = (y + last).cpu().numpy()
    answers = []
    for k, (net, stack) in enumerate(zip(nets, stacks, strict=True)):
        graph = net.graph
        f, rest = np.empty_like(graph.capacity), np.empty_like(graph.capacity)
        for source, target in ((flows, f), (slacks, rest)):
            parts = list(graph.blocks_of(target))
            for level, number in enumerate(stack.blocks):
                rows, columns = parts[number].shape
                parts[number][:] = source[k, level, :rows, :columns]
        potential = np.zeros(graph.n_nodes)
        parts_of = graph.groups_of(potential)
        for level, name in enumerate(stack.groups):
            parts_of[name][:] = potentials[k, level, : net.groups[name]]
        answers.append((f, rest, np.where(graph.alive, potential, 0.0)))
    return answers
