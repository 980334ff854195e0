"""Plain maximum flow by Dinic's algorithm in float64, compiled.

Every augmentation fills an edge exactly (its residual capacity becomes 0, whatever the rounding),
so the algorithm ends as it does on integers, and with a cut of which every edge is full. One
pass replaces the two or three integer rounds of scipy's algorithm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowopt.network import FloatArray, FlowNetwork
from flowopt.network.kernels import compiled
from flowopt.objectives import MaxFlow, Objective
from flowopt.solvers.arcs import network_arcs
from flowopt.solvers.base import RawSolution, Solver


@dataclass(frozen=True)
class Dinic(Solver):
    """Combinatorial maximum flow; exact to rounding."""

    name: ClassVar[str] = "dinic"
    package: ClassVar[str] = "numba"

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:  # noqa: D102
        if type(objective) is MaxFlow:
            return None
        return "it is a combinatorial algorithm for plain maximum flow (MaxFlow) only"

    def solve(  # noqa: D102
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        began = time.perf_counter()
        arcs = network_arcs(net)
        back = reverses(arcs.indptr, arcs.indices)
        residual = arcs.capacity.copy()
        built = time.perf_counter()
        level, phases, paths = maximum_flow(
            arcs.indptr, arcs.indices, back, residual, arcs.source, arcs.sink
        )
        # a full edge carries its capacity to the last bit; others what their reverse has gained
        sent = np.where(residual > 0, residual[back], arcs.capacity)
        flow = np.zeros(len(net.graph.capacity))
        flow[net.edges.index] = arcs.edge_flow(sent)
        return RawSolution(
            flow=flow,
            potential=(level[: arcs.nodes] >= 0).astype(np.float64),
            message=f"{paths} augmenting paths in {phases} phases",
            build_seconds=built - began,
            solve_seconds=time.perf_counter() - built,
            iterations=phases,
            extra={"augmenting_paths": paths},
        )


@compiled
def reverses(indptr, indices):  # type: ignore[no-untyped-def]
    """Position of the reverse of every arc; arcs are sorted and each has one."""
    back = np.empty(len(indices), np.int32)
    following = indptr[:-1].copy()
    for v in range(len(indptr) - 1):
        for p in range(indptr[v], indptr[v + 1]):  # tails ascend, so w's arcs are met in order
            w = indices[p]
            back[p] = following[w]
            following[w] += 1
    return back


@compiled
def levels(indptr, indices, residual, source, sink, level, queue):  # type: ignore[no-untyped-def]
    """Whether the source reaches the sink; breadth-first distances in place, -1 if unreachable."""
    level[:] = -1
    level[source] = 0
    queue[0] = source
    filled, at = 1, 0
    while at < filled and level[sink] < 0:
        v = queue[at]
        at += 1
        for p in range(indptr[v], indptr[v + 1]):
            w = indices[p]
            if residual[p] > 0 and level[w] < 0:
                level[w] = level[v] + 1
                queue[filled] = w
                filled += 1
    return level[sink] >= 0


@compiled
def maximum_flow(indptr, indices, back, residual, source, sink):  # type: ignore[no-untyped-def]
    """Dinic's algorithm on residual capacities, in place.

    Returns the levels after the last search (-1: sink side of the minimum cut), and the numbers
    of phases and of augmenting paths.
    """
    n = len(indptr) - 1
    level, queue = np.empty(n, np.int32), np.empty(n, np.int32)
    current, path = np.empty(n, np.int32), np.empty(n, np.int32)
    phases = paths = 0
    while levels(indptr, indices, residual, source, sink, level, queue):
        phases += 1
        current[:] = indptr[:-1]
        v, depth = source, 0
        while True:
            if v == sink:
                paths += 1
                depth = augment(path, depth, residual, back)
                v = indices[back[path[depth]]]
            elif current[v] < indptr[v + 1]:
                p = current[v]
                if residual[p] > 0 and level[indices[p]] == level[v] + 1:
                    path[depth] = p
                    depth += 1
                    v = indices[p]
                else:
                    current[v] += 1
            elif v == source:
                break
            else:  # a dead end: out of the way, and step back past the arc that led here
                level[v] = -1
                depth -= 1
                v = indices[back[path[depth]]]
                current[v] += 1
    return level, phases, paths


@compiled
def augment(path, depth, residual, back):  # type: ignore[no-untyped-def]
    """Send what fits along a path, in place; position of its first arc that is then full."""
    amount = np.inf
    for i in range(depth):
        amount = min(amount, residual[path[i]])
    first = depth
    for i in range(depth - 1, -1, -1):
        p = path[i]
        residual[p] -= amount
        residual[back[p]] += amount
        if residual[p] <= 0:
            first = i
    return first
