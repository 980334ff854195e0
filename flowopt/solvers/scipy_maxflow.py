"""Plain maximum flow by scipy's Dinic algorithm, exact to rounding although it counts in int32.

Capacities are measured in units of (a bound on the remaining flow) / 2^30 and rounded down; the
integer maximum flow leaves a cut whose remaining capacity bounds what is still missing, and the
next round solves the residual network in units of that smaller bound. Two or three rounds reach
the rounding of float64, whatever the range of the capacities (method.md section 6).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy
import scipy.sparse as sp

from flowopt.network import FloatArray, FlowNetwork, IntArray
from flowopt.network.kernels import compiled
from flowopt.objectives import MaxFlow, Objective
from flowopt.solvers.arcs import Arcs, network_arcs, terminal_arcs
from flowopt.solvers.base import RawSolution, Solver

UNIT = 2**30 - 2  # bound on the integer flow; int32 must hold capacity minus (negative) flow


class CutFlow(NamedTuple):
    """A maximum flow and the minimum cut that proves it.

    Attributes
    ----------
    flow : ndarray, shape (E,)
    value, missing : float
        |f|, and the cut's capacity minus |f|: what the maximum could be above it.
    source_side : ndarray of bool, shape (n,)
        Nodes on the source side of the cut; the smallest such set, up to rounding.
    rounds : int
        Integer maximum flows that were solved.
    """

    flow: FloatArray
    value: float
    missing: float
    source_side: np.ndarray[Any, np.dtype[np.bool_]]
    rounds: int


def max_flow_arrays(
    tail: IntArray,
    head: IntArray,
    capacity: FloatArray,
    supply: FloatArray,
    demand: FloatArray,
    limit: float | None = None,
    tolerance: float = 0.0,
    rounds: int = 60,
) -> CutFlow:
    """Maximum flow from nodes with supplies to nodes with demands.

    Parameters
    ----------
    tail, head : ndarray of int, shape (E,)
    capacity : ndarray, shape (E,)
        Infinite where unlimited; no unlimited path may join supply and demand.
    supply, demand : ndarray, shape (n,)
        What each node can be given, and can absorb; 0 for none, infinity for no limit.
    limit : float, optional
        Limit on |f|.
    tolerance : float
        Stop when ``missing`` is at most this part of ``value``; by default when rounding keeps it
        from falling, so that small edges have their digits beside large ones.
    rounds : int
        Most integer maximum flows to solve.
    """
    arcs = terminal_arcs(tail, head, capacity, supply, demand, limit)
    return cut_flow(arcs, tolerance, rounds)


def cut_flow(arcs: Arcs, tolerance: float = 0.0, rounds: int = 60) -> CutFlow:
    """Maximum flow between the terminals of arcs; see `max_flow_arrays`."""
    flow, value, missing, side, used = _rounds(arcs, tolerance, rounds)
    return CutFlow(arcs.edge_flow(flow), value, missing, side[: arcs.nodes], used)


def _rounds(arcs: Arcs, tolerance: float, rounds: int) -> tuple[FloatArray, float, float, Any, int]:
    """Flow of every arc (antisymmetric), value, what a cut leaves missing, and the cut."""
    from scipy.sparse.csgraph import maximum_flow

    n, capacity = len(arcs.indptr) - 1, arcs.capacity
    flow = np.zeros(len(capacity))
    residual = capacity.copy()
    side, missing = _cut(arcs.indptr, arcs.indices, np.isinf(residual), residual, arcs.source)
    best = (missing, side)
    value, used = 0.0, 0
    while used < rounds and missing > tolerance * value:
        unit = missing / UNIT
        whole = np.floor(np.minimum(residual, missing) / unit).astype(np.int32)
        whole[residual > missing] = UNIT + 1  # more than can flow, so never full
        matrix = sp.csr_array((whole, arcs.indices, arcs.indptr), shape=(n, n))
        result = maximum_flow(matrix, arcs.source, arcs.sink)
        moved = result.flow.data
        used += 1
        flow += unit * moved
        value += unit * result.flow_value
        residual = np.maximum(capacity - flow, 0.0)
        side, missing = _cut(arcs.indptr, arcs.indices, whole > moved, residual, arcs.source)
        if missing < best[0]:
            best = (missing, side)
        if missing > 0.25 * unit * UNIT:  # nothing but rounding is left
            break
    return flow, value, best[0], best[1], used


@compiled
def _cut(indptr, indices, open_, residual, source):  # type: ignore[no-untyped-def]
    """Nodes reachable from the source through open arcs, and the residual that leaves them."""
    n = len(indptr) - 1
    side = np.zeros(n, np.bool_)
    queue = np.empty(n, np.int32)
    side[source] = True
    queue[0] = source
    filled, at = 1, 0
    while at < filled:
        v = queue[at]
        at += 1
        for p in range(indptr[v], indptr[v + 1]):
            w = indices[p]
            if open_[p] and not side[w]:
                side[w] = True
                queue[filled] = w
                filled += 1
    missing = 0.0
    for v in range(n):
        if side[v]:
            for p in range(indptr[v], indptr[v + 1]):
                if not side[indices[p]]:
                    missing += residual[p]
    return side, missing


@dataclass(frozen=True)
class ScipyMaxFlow(Solver):
    """Combinatorial maximum flow by ``scipy.sparse.csgraph.maximum_flow``.

    Parameters
    ----------
    tolerance : float
        Relative gap at which to stop; 0 goes on to the rounding of float64.
    rounds : int
        Most integer maximum flows to solve; two or three are usual.
    """

    name: ClassVar[str] = "scipy"
    package: ClassVar[str] = "scipy"

    tolerance: float = 1e-13
    rounds: int = 60

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:  # noqa: D102
        if type(objective) is MaxFlow:
            return None
        return "it is a combinatorial algorithm for plain maximum flow (MaxFlow) only"

    def solve(  # noqa: D102
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        began = time.perf_counter()
        arcs = network_arcs(net)
        built = time.perf_counter()
        found = cut_flow(arcs, self.tolerance, self.rounds)
        flow = np.zeros(len(net.graph.capacity))
        flow[net.edges.index] = found.flow
        return RawSolution(
            flow=flow,
            potential=found.source_side.astype(np.float64),
            message=f"{found.rounds} rounds, {found.missing:.1e} missing",
            build_seconds=built - began,
            solve_seconds=time.perf_counter() - built,
            iterations=found.rounds,
            extra={"backend_version": scipy.__version__, "backend_status": "solved"},
        )
