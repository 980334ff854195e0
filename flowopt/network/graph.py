"""A network flattened for computing: row-compressed edges, exact pruning, topological order.

All edges live in one flat array. A *row* is a run of edges from one tail node to consecutive
head nodes: each row of a dense block is one, and so is every link (of length 1). Loops over a
row touch memory in order, whatever the architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flowopt.lazy import lazy
from flowopt.network import kernels
from flowopt.network.model import FlowNetwork
from flowopt.network.parts import FloatArray, IntArray


@dataclass(frozen=True)
class PruneReport:
    """What exact pruning dropped; every dropped edge has flow 0 in every feasible flow.

    Attributes
    ----------
    possible, kept : int
        Number of edges that the blocks and links could hold, and that remain.
    zero_capacity : int
        Edges without capacity.
    unreachable : int
        Edges with capacity whose tail no flow from the source can reach.
    dead_end : int
        Edges with capacity, reachable, from whose head no path leads to the sink.
    dropped_nodes : dict of str to tuple of int
        Nodes on no path from source to sink, by group.
    """

    possible: int
    kept: int
    zero_capacity: int
    unreachable: int
    dead_end: int
    dropped_nodes: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        nodes = sum(len(dropped) for dropped in self.dropped_nodes.values())
        return (
            f"{self.kept} of {self.possible} edges kept; dropped {self.zero_capacity} without "
            f"capacity, {self.unreachable} unreachable from the source, {self.dead_end} that "
            f"lead to no sink; {nodes} nodes on no path"
        )


@dataclass(frozen=True, eq=False)
class Edges:
    """The kept edges as flat arrays, block after block, row-major, then links.

    Attributes
    ----------
    index : ndarray, shape (m,)
        Position of each kept edge in the graph's flat arrays.
    tail, head : ndarray, shape (m,)
        Node numbers.
    capacity : ndarray, shape (m,)
        Infinite for unlimited links.
    value_vector : ndarray, shape (m,)
        |f| = value_vector @ flow.
    player_matrix : csr_array, shape (n_players, m)
        Flow through each player = player_matrix @ flow.
    incidence : csr_array, shape (inner nodes, m)
        Conservation at the inner nodes.
    """

    index: IntArray
    tail: IntArray
    head: IntArray
    capacity: FloatArray
    value_vector: FloatArray
    player_matrix: sp.csr_array
    incidence: sp.csr_array
    full_incidence: sp.csr_array


@dataclass(frozen=True, eq=False)
class Graph:
    """Flat arrays of a pruned network.

    Attributes
    ----------
    n_nodes : int
        Nodes of the groups in order, then the second halves of split nodes.
    capacity : ndarray, shape (E,)
        Capacity of every possible edge, 0 where pruned, infinite on unlimited links.
    row_tail, row_head, row_start : ndarray, shape (R,), (R,), (R + 1,)
        Row r holds the edges row_start[r] : row_start[r+1] from node row_tail[r] to the
        consecutive nodes from row_head[r] on.
    node_rows, node_rows_start : ndarray
        Rows of each node: node_rows[node_rows_start[v] : node_rows_start[v+1]].
    source, sink : ndarray of bool, shape (n_nodes,)
        Nodes joined to the super-source and to the super-sink.
    alive : ndarray of bool, shape (n_nodes,)
        Nodes on a path from source to sink.
    order : ndarray
        All nodes, tails before heads.
    players : ndarray
        Node number whose throughput is each player's attribution.
    """

    network: FlowNetwork
    n_nodes: int
    capacity: FloatArray
    row_tail: IntArray
    row_head: IntArray
    row_start: IntArray
    node_rows: IntArray
    node_rows_start: IntArray
    source: np.ndarray[Any, np.dtype[np.bool_]]
    sink: np.ndarray[Any, np.dtype[np.bool_]]
    alive: np.ndarray[Any, np.dtype[np.bool_]]
    order: IntArray
    players: IntArray
    group_start: dict[str, int]
    report: PruneReport

    @lazy
    def edges(self) -> Edges:
        """Kept edges, for solvers that want a list."""
        index = np.flatnonzero(self.capacity)
        lengths = np.diff(self.row_start)
        row = np.searchsorted(self.row_start, index, side="right") - 1
        assert lengths.min(initial=1) > 0
        tail = self.row_tail[row]
        head = self.row_head[row] + index - self.row_start[row]
        m = len(index)
        columns = np.arange(m)
        full = sp.csr_array(
            (np.r_[np.ones(m), -np.ones(m)], (np.r_[tail, head], np.r_[columns, columns])),
            shape=(self.n_nodes, m),
        )
        inner = self.alive & ~self.source & ~self.sink
        value = self.source[tail].astype(float) - self.source[head].astype(float)
        return Edges(
            index=index,
            tail=tail,
            head=head,
            capacity=self.capacity[index],
            value_vector=value,
            player_matrix=self._player_matrix(full),
            incidence=full[np.flatnonzero(inner)],
            full_incidence=full,
        )

    def _player_matrix(self, full: sp.csr_array) -> sp.csr_array:
        """Throughput: what leaves a node; for a sink what enters it."""
        rows = full[self.players]
        leaving = rows.maximum(0)
        entering = (-rows).maximum(0)
        is_sink = self.sink[self.players].astype(float)
        return sp.csr_array(
            sp.diags_array(1 - is_sink) @ leaving + sp.diags_array(is_sink) @ entering
        )

    @lazy
    def finite_edges(self) -> int:
        """m, the number of kept edges with finite capacity, the return edge included."""
        kept = int(np.count_nonzero(self.capacity)) - int(np.isinf(self.capacity).sum())
        return kept + (self.network.return_capacity is not None)

    @lazy
    def largest_capacity(self) -> float:
        """Largest finite capacity among the kept edges (0 in an empty network)."""
        finite = (
            self.capacity
            if not np.isinf(self.capacity).any()
            else self.capacity[np.isfinite(self.capacity)]
        )
        return float(finite.max(initial=0.0))

    @lazy
    def _labels(self) -> tuple[IntArray, FloatArray, bool]:
        """Class of each node under merging, fixed potentials, and whether merging is exact."""
        edges = np.flatnonzero(np.isinf(self.capacity))
        row = np.searchsorted(self.row_start, edges, side="right") - 1
        tail, head = self.row_tail[row], self.row_head[row] + edges - self.row_start[row]
        into, out = kernels.degrees(
            self.row_tail, self.row_head, self.row_start, self.capacity, self.n_nodes
        )
        source, sink = self.source & self.alive, self.sink & self.alive
        if not len(edges) and self.network.return_capacity is None:  # nothing to merge
            free = self.alive & ~source & ~sink
            exact = not into[source].any() and not out[sink].any()
            return np.where(free, np.cumsum(free) - 1, -1), source.astype(np.float64), exact
        ends = source | sink  # which may take any share of the flow
        passes = ((into[head] == 1) & ~ends[head]) | ((out[tail] == 1) & ~ends[tail])
        exact = bool(passes.all()) and not into[source].any() and not out[sink].any()
        top, bottom, n = self.n_nodes, self.n_nodes + 1, self.n_nodes + 2
        sources, sinks = np.flatnonzero(source), np.flatnonzero(sink)
        a = np.r_[tail, sources, sinks]
        b = np.r_[head, np.full(len(sources), top), np.full(len(sinks), bottom)]
        links = sp.csr_array((np.ones(len(a)), (a, b)), shape=(n, n))
        component = sp.csgraph.connected_components(links, directed=False)[1]
        fixed = np.zeros(self.n_nodes)
        given = component[:-2] == component[bottom]
        if self.network.return_capacity is None:
            fixed[component[:-2] == component[top]] = 1.0
            given |= component[:-2] == component[top]
        label = np.full(self.n_nodes, -1)
        free = self.alive & ~given
        label[free] = np.unique(component[:-2][free], return_inverse=True)[1]
        return label, np.where(self.alive, fixed, 0.0), exact

    @property
    def contractible(self) -> bool:
        """Whether every unlimited edge must carry flow, so that its two ends act as one node.

        True when each link is its tail's only way out or its head's only way in (and that end
        is no source or sink), and nothing enters a source or leaves a sink.
        """
        return self._labels[2]

    @property
    def label(self) -> IntArray:
        """Unknown potential of each node after merging unlimited edges, -1 where it is fixed."""
        return self._labels[0]

    @property
    def fixed(self) -> FloatArray:
        """Fixed potentials: 1 at sources (free if a return edge is limited), 0 at sinks."""
        return self._labels[1]

    @lazy
    def spread(self) -> sp.csr_array:
        """Matrix (n_nodes, unknowns) with potential = fixed + spread @ unknowns."""
        free = np.flatnonzero(self.label >= 0)
        shape = (self.n_nodes, int(self.label.max(initial=-1)) + 1)
        return sp.csr_array((np.ones(len(free)), (free, self.label[free])), shape=shape)

    def merged(self, potential: FloatArray) -> FloatArray:
        """Potentials made equal (by their mean) across unlimited edges, and fixed at the ends."""
        free = np.flatnonzero(self.label >= 0)
        label = self.label[free]
        sums = np.bincount(label, np.nan_to_num(potential[free]))
        merged = self.fixed.copy()
        merged[free] = (sums / np.bincount(label))[label]
        return merged

    @property
    def empty(self) -> bool:
        """Whether no path joins source and sink, so that the only flow is zero."""
        return self.report.kept == 0

    def blocks_of(self, flat: FloatArray) -> Iterator[FloatArray]:
        """Views of a flat edge array, one per block of the network, shaped like it."""
        start = 0
        for block in self.network.blocks:
            stop = start + block.capacity.size
            yield flat[start:stop].reshape(block.capacity.shape)
            start = stop

    def groups_of(self, nodes: FloatArray) -> dict[str, FloatArray]:
        """Views of a node array, one per group."""
        sizes = self.network.groups
        return {g: nodes[at : at + sizes[g]] for g, at in self.group_start.items()}

    def throughput(self, flat: FloatArray) -> FloatArray:
        """Flow through every node, shape (n_nodes,): the larger of in- and outflow."""
        into, out = kernels.node_sums(
            self.row_tail, self.row_head, self.row_start, flat, self.n_nodes
        )
        return np.asarray(np.maximum(into, out))
