"""Networks as arcs in both directions between one source and one sink, for maximum flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flowopt.network import FloatArray, FlowNetwork, IntArray


@dataclass(frozen=True, eq=False)
class Arcs:
    """Arcs of a network between super-source and super-sink, in both directions, as CSR.

    Attributes
    ----------
    indptr, indices : ndarray of int32
        Arcs by tail, heads ascending; every arc has its reverse.
    capacity : ndarray
        Of every arc; 0 against the direction of the given edges.
    slot : ndarray, shape (E,)
        Position of each given edge; parallel edges share one.
    part : ndarray, shape (E,)
        Part of the flow in its slot that each given edge takes.
    source, sink : int
        The super-source and super-sink.
    nodes : int
        Number of given nodes; they come first.
    """

    indptr: Any
    indices: Any
    capacity: FloatArray
    slot: IntArray
    part: FloatArray
    source: int
    sink: int
    nodes: int

    def edge_flow(self, flow: FloatArray) -> FloatArray:
        """Flow of the given edges (E,) from the flow of the arcs."""
        return np.asarray(flow[self.slot] * self.part)


def terminal_arcs(
    tail: IntArray,
    head: IntArray,
    capacity: FloatArray,
    supply: FloatArray,
    demand: FloatArray,
    limit: float | None = None,
) -> Arcs:
    """Arcs of a network whose nodes are given flow and absorb it.

    Parameters
    ----------
    tail, head : ndarray of int, shape (E,)
    capacity : ndarray, shape (E,)
        Infinite where unlimited; no unlimited path may join supply and demand.
    supply, demand : ndarray, shape (n,)
        What each node can be given, and can absorb; 0 for none, infinity for no limit.
    limit : float, optional
        Limit on |f|.
    """
    n = len(supply)
    feeds, drains = np.flatnonzero(supply), np.flatnonzero(demand)
    start = n if limit is None else n + 2
    tails = [tail, np.full(len(feeds), n), drains]
    heads = [head, feeds, np.full(len(drains), n + 1)]
    capacities = [capacity, supply[feeds], demand[drains]]
    if limit is not None:
        tails.append(np.array([start]))
        heads.append(np.array([n]))
        capacities.append(np.array([limit]))
    indptr, indices, slot = _both_ways(np.concatenate(tails), np.concatenate(heads), start, n + 1)
    given = np.concatenate(capacities)
    total, part = np.zeros(len(indices)), np.ones(len(tail))
    if len(indices) == 2 * len(slot):
        total[slot] = given
        slot = slot[: len(tail)]
    else:  # parallel edges share in proportion to their capacities
        np.add.at(total, slot, given)
        slot = slot[: len(tail)]
        unlimited = np.isinf(capacity)
        many = np.bincount(slot, unlimited, minlength=len(indices))[slot]
        finite = np.where(unlimited, 1.0, capacity) / np.where(many > 0, 1.0, total[slot])
        part = np.where(many > 0, unlimited / np.maximum(many, 1), finite)
    return Arcs(indptr, indices, total, slot, part, start, n + 1, n)


def network_arcs(net: FlowNetwork) -> Arcs:
    """Arcs of the kept edges of a network, for its plain maximum flow."""
    graph, edges = net.graph, net.edges
    supply = np.where(graph.source & graph.alive, np.inf, 0.0)
    demand = np.where(graph.sink & graph.alive, np.inf, 0.0)
    ends = (supply, demand, net.return_capacity)
    return terminal_arcs(edges.tail, edges.head, edges.capacity, *ends)


def _both_ways(
    tail: IntArray, head: IntArray, source: int, sink: int
) -> tuple[IntArray, IntArray, IntArray]:
    """indptr, indices and slot of `Arcs`."""
    n = max(source, sink) + 1
    k = len(tail)
    number = np.arange(1, k + 1)
    rows, columns = np.r_[tail, head], np.r_[head, tail]
    matrix = sp.csr_array((np.r_[number, -number], (rows, columns)), shape=(n, n))
    slot = np.empty(k, dtype=np.int64)
    if matrix.nnz == 2 * k:
        forward = np.flatnonzero(matrix.data > 0)
        slot[matrix.data[forward] - 1] = forward
    else:  # parallel arcs were summed; arcs in one place share the position of their key
        at = np.repeat(np.arange(n), np.diff(matrix.indptr)) * n + matrix.indices
        slot[:] = np.searchsorted(at, tail * n + head)
    return matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), slot
