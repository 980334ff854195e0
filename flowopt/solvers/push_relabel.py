"""Plain maximum flow by a push-relabel method in waves, on a network's own rows.

Every wave labels all nodes with their exact distance to the sinks in the residual network and
lets them pass their excess on, farthest first (Goldberg and Tarjan 1988; distances for all nodes
at once: Cherkassky and Goldberg 1997). Attention networks are dense and shallow, so about twenty
waves do, each a fraction of a read of the capacities; no arcs are stored but the flow itself.

Pushes fill or empty an edge exactly whatever the rounding, so the method ends as it does on
integers, with a cut of which every edge is full. Excess that cannot reach a sink is then taken
back from the top side of that cut.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from flowopt.network import FloatArray, FlowNetwork
from flowopt.network import kernels as graph_kernels
from flowopt.network.graph import Graph
from flowopt.objectives import MaxFlow, Objective
from flowopt.solvers import push_relabel_kernels as kernels
from flowopt.solvers.base import RawSolution, Solver

PROVEN = 1e-9  # largest share of the cut by which a value may fall short of it


class MaximumFlow(NamedTuple):
    """A maximum flow and the minimum cut that proves it.

    Attributes
    ----------
    flow : ndarray, shape (E,)
        On every possible edge of the graph.
    source_side : ndarray of bool, shape (n_nodes,)
        Nodes from which no residual path leads to a sink; none if the return edge is the cut.
    waves : int
    """

    flow: FloatArray
    source_side: np.ndarray[Any, np.dtype[np.bool_]]
    waves: int


@dataclass(frozen=True)
class PushRelabel(Solver):
    """Combinatorial maximum flow; exact to rounding."""

    name: ClassVar[str] = "push-relabel"
    package: ClassVar[str] = "numba"

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:  # noqa: D102
        if type(objective) is MaxFlow:
            return None
        return "it is a combinatorial algorithm for plain maximum flow (MaxFlow) only"

    def solve(  # noqa: D102
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        began = time.perf_counter()
        graph = net.graph
        built = time.perf_counter()
        found = maximum_flow(graph)
        return RawSolution(
            flow=found.flow,
            potential=found.source_side.astype(np.float64),
            message=f"{found.waves} waves",
            build_seconds=built - began,
            solve_seconds=time.perf_counter() - built,
            iterations=found.waves,
        )


def maximum_flow(graph: Graph) -> MaximumFlow:
    """Maximum flow of a pruned network, conserved and within its bounds to rounding."""
    source, sink = graph.source & graph.alive, graph.sink & graph.alive
    flow = np.zeros(len(graph.capacity))
    excess = np.zeros(graph.n_nodes)
    rows = (graph.row_head, graph.row_start, graph.node_rows, graph.node_rows_start)
    kernels.flood(graph.capacity, *rows, graph.order, source, sink, flow, excess)
    pieces, row_word = _Pieces.of(graph), _words(np.diff(graph.row_start))
    room, used = np.zeros(row_word[-1], np.uint64), np.zeros(row_word[-1], np.uint64)
    kernels.residual_bits(graph.capacity, flow, graph.row_start, row_word, room, used)
    bits = (room, used, row_word)
    waiting = graph.alive & ~source
    waves = 0
    while True:
        distance, order = kernels.distances(*bits, pieces.piece, *pieces.segments, waiting, sink)
        waiting &= distance >= 0  # a node cut off from the sinks stays so
        if not (excess[waiting & ~sink] > 0).any():
            break
        waves += 1
        kernels.wave(
            graph.capacity, flow, *rows, *bits, pieces.piece, pieces.into, pieces.into_start,
            *pieces.segments, distance, order, excess,
        )  # fmt: skip
    kernels.take_back(flow, *rows, graph.order, waiting, source)
    limit = graph.network.return_capacity
    value = float(excess[sink].sum())
    if limit is not None and value > limit:
        flow *= limit / value
        return MaximumFlow(flow, np.zeros(graph.n_nodes, dtype=bool), waves)
    return MaximumFlow(flow, graph.alive & ~waiting, waves)


def maximum_value(net: FlowNetwork) -> float:
    """F*: the capacity of a minimum cut, proven by a flow of that value.

    As exact as solving for `MaxFlow`, but without the list of edges that its certificate reads.
    Reducing a flow within its bounds until it is conserved takes at most the sum of its
    imbalances, so |f| less that sum is a value that can be had, and the cut bounds all values.
    """
    from flowopt.solvers import solve

    graph, limit = net.graph, net.return_capacity
    if graph.empty:
        return 0.0
    found = maximum_flow(graph)
    rows = (graph.row_tail, graph.row_head, graph.row_start)
    into, out = graph_kernels.node_sums(*rows, found.flow, graph.n_nodes)
    ends = graph.source | graph.sink
    value = float((into - out)[graph.sink].sum())
    lost = float(np.abs(into - out)[~ends].sum())
    side, source = found.source_side, graph.source & graph.alive
    if limit is not None and not side.any():
        cut, apart = limit, True
    else:
        cut = float(kernels.cut_capacity(graph.capacity, *rows, side))
        apart = bool(side[source].all()) and not side[graph.sink].any()
    within = graph_kernels.excess(found.flow, graph.capacity) == 0
    if apart and within and abs(cut - value) + lost <= PROVEN * cut:
        return cut
    return solve(net, MaxFlow()).value


def _words(bits: Any) -> Any:
    """Where each of several runs of bits begins, in words of 64, and their end."""
    return np.concatenate([[0], np.cumsum((bits + 63) >> 6)]).astype(np.int64)


class _Pieces(NamedTuple):
    """Rows gathered into dense pieces, and the nodes into segments that pieces do not cross.

    Attributes
    ----------
    piece : ndarray of int64, shape (P, 7)
        First tail, first head, numbers of tails and of heads, first row, and the segments of
        tails and heads. Heads are all of their segment, or one node.
    into, into_start : ndarray
        Pieces with a node among their heads: into[into_start[v] : into_start[v + 1]].
    segments : tuple of ndarray
        Segment of each node; where each segment begins, among nodes and among words of bits.
    """

    piece: Any
    into: Any
    into_start: Any
    segments: tuple[Any, Any, Any]

    @classmethod
    def of(cls, graph: Graph) -> _Pieces:
        tail, head = graph.row_tail, graph.row_head
        length = np.diff(graph.row_start)
        net = graph.network
        sizes = [*net.groups.values(), *(net.groups[g] for g in net.node_capacity or {})]
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        segment = np.repeat(np.arange(len(sizes)), sizes)
        first = np.ones(len(tail), dtype=bool)
        first[1:] = (np.diff(tail) != 1) | (np.diff(head) != 0) | (np.diff(length) != 0)
        first[1:] |= np.diff(segment[tail]) != 0
        at = np.flatnonzero(first)
        count = np.diff(np.append(at, len(tail)))
        piece = np.column_stack(
            [tail[at], head[at], count, length[at], at, segment[tail[at]], segment[head[at]]]
        ).astype(np.int64)
        number = np.repeat(np.arange(len(at)), length[at])
        offset = np.arange(len(number)) - np.repeat(np.cumsum(length[at]) - length[at], length[at])
        node = np.repeat(head[at], length[at]) + offset
        by_node = np.argsort(node, kind="stable")
        into_start = np.searchsorted(node[by_node], np.arange(graph.n_nodes + 1)).astype(np.int64)
        return cls(piece, number[by_node], into_start, (segment, start, _words(np.array(sizes))))
