"""Networks for other libraries."""

from __future__ import annotations

from typing import Any

import networkx
import numpy as np

from flowopt.network.model import FlowNetwork


def to_networkx(net: FlowNetwork) -> networkx.DiGraph[Any]:
    """See `FlowNetwork.to_networkx`."""
    graph, edges = net.graph, net.edges
    names: list[tuple[Any, ...]] = [(g, i) for g, n in net.groups.items() for i in range(n)]
    for group in net.node_capacity or {}:
        names += [(group, i, "out") for i in range(net.groups[group])]
    result: networkx.DiGraph[Any] = networkx.DiGraph()
    result.add_nodes_from(["source", "sink"])
    for node in np.flatnonzero(graph.alive):
        result.add_node(names[node])
        if graph.source[node]:
            result.add_edge("source", names[node])
        if graph.sink[node]:
            result.add_edge(names[node], "sink")
    for tail, head, capacity in zip(edges.tail, edges.head, edges.capacity, strict=True):
        limit = {} if np.isinf(capacity) else {"capacity": float(capacity)}
        old = result.get_edge_data(names[tail], names[head])
        if old is not None and "capacity" in old and limit:  # parallel edges add up
            limit["capacity"] += old["capacity"]
        elif old is not None:
            limit = {}
            old.pop("capacity", None)
        result.add_edge(names[tail], names[head], **limit)
    return result
