"""Make a counterexample smaller while it stays one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from flowopt.axioms.transforms import rebuilt, with_capacities
from flowopt.errors import FlowoptError
from flowopt.network import Block, FlowNetwork, Link

MOST_TRIES = 150


def shrunk(
    net: FlowNetwork, violates: Callable[[FlowNetwork], bool], tries: int = MOST_TRIES
) -> FlowNetwork:
    """A smaller network that still violates: fewer nodes, then fewer edges, then round numbers.

    Parameters
    ----------
    violates : callable
        Whether a network is a counterexample; errors count as no.
    tries : int
        Most networks to ask about.
    """
    left = tries
    for smaller in (_without_layer, _without_node, _without_edge, _rounder):
        progress = True
        while progress and left > 0:
            progress = False
            for candidate in smaller(net):
                left -= 1
                if _holds(violates, candidate):
                    net, progress = candidate, True
                    break
                if left <= 0:
                    break
    return net


def _holds(violates: Callable[[FlowNetwork], bool], net: FlowNetwork) -> bool:
    try:
        return violates(net)
    except FlowoptError:
        return False


def _without_layer(net: FlowNetwork) -> Iterator[FlowNetwork]:
    """Layered networks without their top layer."""
    names = list(net.groups)
    if (
        len(names) < 3
        or net.links
        or [(b.tail, b.head) for b in net.blocks]
        != [(names[k + 1], names[k]) for k in range(len(names) - 1)]
    ):
        return
    top, next_ = names[-1], names[-2]
    if set(net.sources) != {top} or net.groups[top] != net.groups[next_]:
        return
    limits = {k: v for k, v in (net.node_capacity or {}).items() if k != top} or None
    yield rebuilt(
        net,
        groups={k: net.groups[k] for k in names[:-1]},
        blocks=net.blocks[:-1],
        sources={next_: net.sources[top]},
        node_capacity=limits,
    )


def _without_node(net: FlowNetwork) -> Iterator[FlowNetwork]:
    """One node less in one group, or at the same place in all groups of the same size."""
    assert net.players is not None
    size = net.groups[net.players]
    alike = [name for name, n in net.groups.items() if n == size]
    for names in ([alike] if len(alike) > 1 else []) + [[name] for name in net.groups]:
        for node in range(net.groups[names[0]] - 1, -1, -1):
            try:
                yield _cut(net, set(names), node)
            except FlowoptError:  # no source or no sink would be left
                continue


def _cut(net: FlowNetwork, names: set[str], node: int) -> FlowNetwork:
    kept = {
        name: np.array([i for i in range(n) if name not in names or i != node], dtype=np.int64)
        for name, n in net.groups.items()
    }
    place = {name: np.full(n, -1) for name, n in net.groups.items()}
    for name, nodes in kept.items():
        place[name][nodes] = np.arange(len(nodes))

    def terminals(given: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        return {k: [int(place[k][i]) for i in v if place[k][i] >= 0] for k, v in given.items()}

    links = []
    for k in net.links:
        tail, head = place[k.tail][k.pairs[:, 0]], place[k.head][k.pairs[:, 1]]
        stays = (tail >= 0) & (head >= 0)
        limit = None if k.capacity is None else k.capacity[stays]
        links.append(Link(k.tail, k.head, np.column_stack((tail, head))[stays], limit))
    limits = {k: np.asarray(v)[kept[k]] for k, v in (net.node_capacity or {}).items()} or None
    return rebuilt(
        net,
        groups={name: len(nodes) for name, nodes in kept.items()},
        blocks=[
            Block(b.tail, b.head, b.capacity[np.ix_(kept[b.tail], kept[b.head])])
            for b in net.blocks
        ],
        links=links,
        sources=terminals(net.sources),
        sinks=terminals(net.sinks),
        node_capacity=limits,
    )


def _without_edge(net: FlowNetwork) -> Iterator[FlowNetwork]:
    """One edge less, the smallest first."""
    edges = [
        (float(b.capacity[tuple(e)]), i, tuple(int(k) for k in e))
        for i, b in enumerate(net.blocks)
        for e in np.argwhere(b.capacity > 0)
    ]
    for _, at, edge in sorted(edges):
        capacities = [b.capacity.copy() for b in net.blocks]
        capacities[at][edge] = 0.0
        yield with_capacities(net, capacities)


def _rounder(net: FlowNetwork) -> Iterator[FlowNetwork]:
    """Capacities with one digit, at best all of them 1."""
    ones = [(b.capacity > 0).astype(np.float64) for b in net.blocks]
    tenths = [np.ceil(b.capacity * 10) / 10 for b in net.blocks]
    for capacities in (ones, tenths):
        if any((c != b.capacity).any() for c, b in zip(capacities, net.blocks, strict=True)):
            yield with_capacities(net, capacities)
            if capacities is ones:
                continue
            return
