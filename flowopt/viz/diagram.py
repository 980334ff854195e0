"""Where the nodes and edges of a flow lie in a picture: rows are groups, columns are tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowopt.network import FlowNetwork
    from flowopt.solution import FlowSolution

__all__ = ["Diagram", "Edge", "Node", "lay_out"]


@dataclass(frozen=True)
class Node:
    """A node at column x and row y (0 is the lowest), with the flow through it."""

    group: str
    index: int
    x: float
    y: int
    flow: float
    player: bool


@dataclass(frozen=True)
class Edge:
    """An edge from its tail down to its head, with its flow."""

    x0: float
    y0: int
    x1: float
    y1: int
    flow: float


@dataclass(frozen=True)
class Diagram:
    """A flow, laid out.

    Parameters
    ----------
    groups : tuple of str
        From the lowest row up.
    columns : int
        Width of the picture, in units of x.
    nodes, edges : tuple
        Only the edges with the largest flows of each layer, least first: the largest lie on top.
    carrying : int
        How many edges carry flow.
    share : float
        Part of all edges' flow that the drawn ones carry.
    """

    groups: tuple[str, ...]
    columns: int
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    carrying: int
    share: float


def lay_out(solution: FlowSolution, max_edges: int = 300) -> Diagram:
    """Place the nodes, and pick the edges with the largest flows in each layer.

    Parameters
    ----------
    solution : FlowSolution
    max_edges : int
        Most edges drawn.
    """
    net = solution.network
    groups = _bottom_up(net)
    row = {name: y for y, name in enumerate(groups)}
    columns = max(net.groups.values())

    def x(group: str, index: int) -> float:
        return (index + 0.5) * columns / net.groups[group]

    nodes = tuple(
        Node(name, i, x(name, i), row[name], float(flow), name == net.players)
        for name in groups
        for i, flow in enumerate(solution.node_flows[name])
    )
    # The same number from every edge set: near the input a flow is spread over many edges, and
    # the largest of all would leave these layers blank.
    sets = len(net.blocks) + len(net.links)
    found = [
        Edge(x(tail, i), row[tail], x(head, j), row[head], flow)
        for tail, head, i, j, flow in _edges(solution, max_edges // max(sets, 1))
    ]
    found.sort(key=lambda edge: edge.flow)
    every = np.concatenate([f.ravel() for f in (*solution.flows, *solution.link_flows)])
    whole = float(every.sum())
    drawn = sum(edge.flow for edge in found)
    return Diagram(
        groups=groups,
        columns=columns,
        nodes=nodes,
        edges=tuple(found),
        carrying=int(np.count_nonzero(every > 0)),
        share=drawn / whole if whole > 0 else 1.0,
    )


def _edges(solution: FlowSolution, limit: int) -> Iterator[tuple[str, str, int, int, float]]:
    """The largest edges of each block and link."""
    net = solution.network
    for block, flows in zip(net.blocks, solution.flows, strict=True):
        for at in _largest(flows.ravel(), limit):
            i, j = divmod(int(at), flows.shape[1])
            yield block.tail, block.head, i, j, float(flows[i, j])
    for link, flows in zip(net.links, solution.link_flows, strict=True):
        for at in _largest(flows, limit):
            i, j = (int(k) for k in link.pairs[at])
            yield link.tail, link.head, i, j, float(flows[at])


def _largest(flows: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    order = np.argsort(-flows, kind="stable")[: max(limit, 0)]
    return order[flows[order] > 0]


def _bottom_up(net: FlowNetwork) -> tuple[str, ...]:
    """Groups sorted so that flow runs downwards wherever the groups allow it.

    A group's height is its longest way down over blocks. Links are left out: those of unrolled
    generation lead back up.
    """
    names = list(net.groups)
    arcs = [(block.tail, block.head) for block in net.blocks if block.tail != block.head]
    height = dict.fromkeys(names, 0)
    for _ in names:
        for tail, head in arcs:
            height[tail] = min(max(height[tail], height[head] + 1), len(names))
    return tuple(sorted(names, key=lambda name: (height[name], names.index(name))))
