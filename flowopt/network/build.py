"""From a network to its graph: flatten, check, prune exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import networkx
import numpy as np

from flowopt.errors import InputError
from flowopt.network import kernels
from flowopt.network.graph import Graph, PruneReport
from flowopt.network.model import FlowNetwork
from flowopt.network.parts import Block, FloatArray, IntArray


class _Layout(NamedTuple):
    """Where each group's nodes begin: as heads, and as tails (second halves of split nodes)."""

    start: dict[str, int]
    out: dict[str, int]
    n_nodes: int


class _Rows(NamedTuple):
    """See `flowopt.network.graph.Graph`."""

    tail: IntArray
    head: IntArray
    start: IntArray


def build_graph(net: FlowNetwork) -> Graph:
    """Flatten and prune a network.

    Raises
    ------
    InputError
        If edges form a directed cycle, or unlimited links alone join source and sink.
    """
    layout = _layout(net)
    n = layout.n_nodes
    rows, extra = _rows(net, layout)
    capacity = _flat_capacity(net.blocks, extra)
    node_rows = np.argsort(rows.tail, kind="stable")
    node_rows_start = np.searchsorted(rows.tail[node_rows], np.arange(n + 1)).astype(np.int64)
    source, sink = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for name, indices in net.sources.items():
        source[layout.start[name] + np.array(indices)] = True
    for name, indices in net.sinks.items():
        sink[layout.out[name] + np.array(indices)] = True
    order = _node_order(net, layout)
    if order is None:
        order = kernels.topological_order(capacity, *rows, node_rows, node_rows_start, n)
    if len(order) < n:
        raise InputError(
            "The network has a directed cycle; flow networks of attention run from the output "
            "down to the input, so check the tails and heads of the blocks and links."
        )
    walk = (rows.head, rows.start, node_rows, node_rows_start, order, source, sink)
    if extra:
        _refuse_unbounded(capacity, walk)
    reached, leads = kernels.reachability(capacity, *walk)
    capacity, report = _pruned(net, layout, capacity, rows, reached, leads)
    assert net.players is not None
    return Graph(
        network=net,
        n_nodes=n,
        capacity=capacity,
        row_tail=rows.tail,
        row_head=rows.head,
        row_start=rows.start,
        node_rows=node_rows,
        node_rows_start=node_rows_start,
        source=source,
        sink=sink,
        alive=reached & leads,
        order=order,
        players=layout.out[net.players] + np.arange(net.groups[net.players]),
        group_start=layout.start,
        report=report,
    )


def _layout(net: FlowNetwork) -> _Layout:
    """Number the nodes: groups in order, then the second halves of nodes with a limit."""
    start: dict[str, int] = {}
    n = 0
    for name, size in net.groups.items():
        start[name] = n
        n += size
    out = dict(start)
    for name in net.node_capacity or {}:
        out[name] = n
        n += net.groups[name]
    return _Layout(start, out, n)


def _rows(net: FlowNetwork, layout: _Layout) -> tuple[_Rows, list[FloatArray]]:
    """Rows of all blocks, links and split nodes, and the capacities of the latter two."""
    none = np.zeros(0, dtype=np.int64)
    tails, heads, lengths, extra = [none], [none], [none], []
    for block in net.blocks:
        rows, columns = block.capacity.shape
        tails.append(layout.out[block.tail] + np.arange(rows))
        heads.append(np.full(rows, layout.start[block.head]))
        lengths.append(np.full(rows, columns))
    for link in net.links:
        tails.append(layout.out[link.tail] + link.pairs[:, 0])
        heads.append(layout.start[link.head] + link.pairs[:, 1])
        extra.append(np.full(len(link.pairs), np.inf) if link.capacity is None else link.capacity)
    for name, limit in (net.node_capacity or {}).items():
        nodes = np.arange(net.groups[name])
        tails.append(layout.start[name] + nodes)
        heads.append(layout.out[name] + nodes)
        extra.append(np.asarray(limit))
    lengths += [np.ones(len(single), dtype=np.int64) for single in extra]
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return _Rows(
        np.concatenate(tails).astype(np.int64),
        np.concatenate(heads).astype(np.int64),
        starts.astype(np.int64),
    ), extra


def _refuse_unbounded(capacity: FloatArray, walk: tuple[Any, ...]) -> None:
    sink = walk[-1]
    unlimited = np.where(np.isinf(capacity), 1.0, 0.0)
    freely, _ = kernels.reachability(unlimited, *walk)
    if (freely & sink).any():
        raise InputError(
            "Unlimited links alone join source and sink, so the flow has no bound; give the "
            "links or the nodes a capacity."
        )


def _pruned(
    net: FlowNetwork, layout: _Layout, capacity: FloatArray, rows: _Rows, reached: Any, leads: Any
) -> tuple[FloatArray, PruneReport]:
    """Capacities with 0 on edges that no flow can use, and the account of them."""
    zero, unreachable, dead_end = kernels.count_pruned(capacity, *rows, reached, leads)
    if unreachable or dead_end:
        capacity = capacity.copy()
        kernels.zero_pruned(capacity, *rows, reached, leads)
        capacity.setflags(write=False)
    dropped = {
        name: tuple(int(i) for i in np.flatnonzero(~(reached & leads)[at : at + net.groups[name]]))
        for name, at in layout.start.items()
    }
    return capacity, PruneReport(
        possible=len(capacity),
        kept=len(capacity) - zero - unreachable - dead_end,
        zero_capacity=zero,
        unreachable=unreachable,
        dead_end=dead_end,
        dropped_nodes={name: nodes for name, nodes in dropped.items() if nodes},
    )


def _node_order(net: FlowNetwork, layout: _Layout) -> IntArray | None:
    """Nodes group by group, tails before heads; None if the graph of groups has a cycle."""
    groups: networkx.DiGraph[str] = networkx.DiGraph()
    groups.add_nodes_from(net.groups)
    groups.add_edges_from((block.tail, block.head) for block in net.blocks)
    groups.add_edges_from((link.tail, link.head) for link in net.links)
    try:
        sorted_groups = list(networkx.topological_sort(groups))
    except networkx.NetworkXUnfeasible:
        return None
    parts = []
    for name in sorted_groups:
        size = net.groups[name]
        parts.append(layout.start[name] + np.arange(size))
        if layout.out[name] != layout.start[name]:
            parts.append(layout.out[name] + np.arange(size))
    return np.concatenate(parts)


def _flat_capacity(blocks: Sequence[Block], extra: list[FloatArray]) -> FloatArray:
    """All capacities in one array, without a copy when the blocks are slices of one array."""
    base = blocks[0].capacity.base if blocks and not extra else None
    if base is not None and base.size == sum(b.capacity.size for b in blocks):
        flat = base.reshape(-1)
        position = flat.__array_interface__["data"][0]
        for block in blocks:
            if block.capacity.__array_interface__["data"][0] != position:
                break
            position += block.capacity.nbytes
        else:
            return flat
    flat = np.concatenate([np.zeros(0), *(b.capacity.ravel() for b in blocks), *extra])
    flat.setflags(write=False)
    return flat
