"""Networks made from a network, such that an axiom says how attributions must change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from flowopt.errors import InputError
from flowopt.network import Block, FloatArray, FlowNetwork, IntArray, Link


class Planted(NamedTuple):
    """A network with tokens of which something is known."""

    network: FlowNetwork
    tokens: tuple[int, ...]


def rebuilt(net: FlowNetwork, **changes: Any) -> FlowNetwork:
    """The network with some of its arguments changed."""
    given: dict[str, Any] = {
        "groups": net.groups,
        "blocks": net.blocks,
        "links": net.links,
        "sources": net.sources,
        "sinks": net.sinks,
        "node_capacity": net.node_capacity,
        "players": net.players,
        "return_capacity": net.return_capacity,
    }
    given |= changes
    return FlowNetwork(given.pop("groups"), **given)


def with_capacities(net: FlowNetwork, capacities: Sequence[FloatArray]) -> FlowNetwork:
    """The network with other capacities of its blocks, in their order."""
    blocks = [
        Block(b.tail, b.head, capacity) for b, capacity in zip(net.blocks, capacities, strict=True)
    ]
    return rebuilt(net, blocks=blocks)


# --- the same network, written differently --------------------------------------------------------
def relabelled(net: FlowNetwork, order: Mapping[str, IntArray]) -> FlowNetwork:
    """The network with the nodes of each group in another order.

    Parameters
    ----------
    order : mapping of str to ndarray of int
        New node k of a group is its old node ``order[group][k]``; groups may be missing.
    """
    whole = {name: np.asarray(order.get(name, np.arange(n))) for name, n in net.groups.items()}
    place = {name: np.argsort(nodes) for name, nodes in whole.items()}
    limits = net.node_capacity or {}
    return rebuilt(
        net,
        blocks=[
            Block(b.tail, b.head, b.capacity[np.ix_(whole[b.tail], whole[b.head])])
            for b in net.blocks
        ],
        links=[
            Link(
                k.tail,
                k.head,
                np.column_stack((place[k.tail][k.pairs[:, 0]], place[k.head][k.pairs[:, 1]])),
                k.capacity,
            )
            for k in net.links
        ],
        sources={name: place[name][list(nodes)] for name, nodes in net.sources.items()},
        sinks={name: place[name][list(nodes)] for name, nodes in net.sinks.items()},
        node_capacity={name: np.asarray(c)[whole[name]] for name, c in limits.items()} or None,
    )


def reordered(net: FlowNetwork, rng: np.random.Generator) -> FlowNetwork:
    """The same network with its groups, blocks and links in another order."""

    def shuffled(items: Sequence[Any]) -> list[Any]:
        return [items[i] for i in rng.permutation(len(items))]

    groups = list(net.groups.items())
    if len(groups) > 1:
        groups = groups[::-1] if rng.random() < 0.5 else shuffled(groups)
    return rebuilt(
        net, groups=dict(groups), blocks=shuffled(net.blocks)[::-1], links=shuffled(net.links)
    )


# --- planted structure ----------------------------------------------------------------------------
def movable(net: FlowNetwork, group: str) -> list[list[int]]:
    """Nodes of a group that no link touches, in classes with the same terminals."""
    touched = {int(i) for k in net.links if k.tail == group for i in k.pairs[:, 0]}
    touched |= {int(i) for k in net.links if k.head == group for i in k.pairs[:, 1]}
    source, sink = set(net.sources.get(group, ())), set(net.sinks.get(group, ()))
    classes: dict[tuple[bool, bool], list[int]] = {}
    for node in range(net.groups[group]):
        if node not in touched:
            classes.setdefault((node in source, node in sink), []).append(node)
    return list(classes.values())


def twins(net: FlowNetwork, rng: np.random.Generator) -> Planted | None:
    """Two tokens with the same edges: the least symmetry there is."""
    assert net.players is not None
    return _symmetrised(net, {net.players: _pair(net, net.players, rng)})


def mirrored(net: FlowNetwork, rng: np.random.Generator) -> Planted | None:
    """Two tokens exchanged by an automorphism that moves two nodes of every group it can."""
    assert net.players is not None
    pairs = {name: _pair(net, name, rng) for name in net.groups if name != net.players}
    return _symmetrised(net, {net.players: _pair(net, net.players, rng), **pairs})


def _pair(net: FlowNetwork, group: str, rng: np.random.Generator) -> tuple[int, int] | None:
    classes = [nodes for nodes in movable(net, group) if len(nodes) > 1]
    if not classes:
        return None
    nodes = classes[rng.integers(len(classes))]
    one, other = rng.choice(nodes, 2, replace=False)
    return int(one), int(other)


def _symmetrised(net: FlowNetwork, pairs: dict[str, tuple[int, int] | None]) -> Planted | None:
    """Mean of the network and its image under the exchange of a pair in some groups."""
    assert net.players is not None
    tokens = pairs[net.players]
    if tokens is None:
        return None
    order = {}
    for name, pair in pairs.items():
        order[name] = np.arange(net.groups[name])
        if pair is not None:
            order[name][list(pair)] = pair[::-1]
    image = relabelled(net, order)
    limits = net.node_capacity or {}
    blocks = [
        Block(b.tail, b.head, (b.capacity + c.capacity) / 2)
        for b, c in zip(net.blocks, image.blocks, strict=True)
    ]
    means = {}
    for name, limit in limits.items():
        assert image.node_capacity is not None
        means[name] = (np.asarray(limit) + np.asarray(image.node_capacity[name])) / 2
    return Planted(rebuilt(net, blocks=blocks, node_capacity=means or None), tokens)


def silenced(net: FlowNetwork, rng: np.random.Generator) -> Planted | None:
    """A token that no flow can reach: no edges into it, or only from a node that gets none."""
    assert net.players is not None
    linked = {int(i) for k in net.links if k.head == net.players for i in k.pairs[:, 1]}
    given = set(net.sources.get(net.players, ()))
    free = [j for j in range(net.n_players) if j not in linked | given]
    if not free:
        return None
    token = int(rng.choice(free))
    starved = _starvable(net) if rng.random() < 0.5 else []
    capacities = [b.capacity.copy() for b in net.blocks]
    above, node = starved[rng.integers(len(starved))] if starved else ("", -1)
    for block, capacity in zip(net.blocks, capacities, strict=True):
        if block.head == net.players:
            kept = capacity[node, token] if block.tail == above else 0.0
            capacity[:, token] = 0.0
            if block.tail == above:
                capacity[node, token] = kept or float(block.capacity.max(initial=0.0)) or 1.0
        if starved and block.head == above:
            capacity[:, node] = 0.0
    return Planted(with_capacities(net, capacities), (token,))


def _starvable(net: FlowNetwork) -> list[tuple[str, int]]:
    """Nodes above the tokens whose inflow comes through blocks alone."""
    found = []
    for name in dict.fromkeys(b.tail for b in net.blocks if b.head == net.players):
        linked = {int(i) for k in net.links if k.head == name for i in k.pairs[:, 1]}
        barred = linked | set(net.sources.get(name, ()))
        if any(b.head == name for b in net.blocks):
            found += [(name, i) for i in range(net.groups[name]) if i not in barred]
    return found


# --- other capacities -----------------------------------------------------------------------------
def raised(net: FlowNetwork, rng: np.random.Generator) -> Planted | None:
    """One edge into a token with more capacity than before."""
    into = [i for i, b in enumerate(net.blocks) if b.head == net.players]
    if not into:
        return None
    capacities = [b.capacity.copy() for b in net.blocks]
    changed = capacities[into[rng.integers(len(into))]]
    tail, token = rng.integers(changed.shape[0]), rng.integers(changed.shape[1])
    top = float(changed.max(initial=0.0)) or 1.0
    changed[tail, token] += top * 10 ** rng.uniform(-2, 0.5)
    return Planted(with_capacities(net, capacities), (int(token),))


def reweighted(net: FlowNetwork, rng: np.random.Generator) -> FlowNetwork:
    """The same edges with other capacities of the same order; limits are left alone."""
    return with_capacities(
        net, [b.capacity * rng.uniform(0.1, 1.9, b.capacity.shape) for b in net.blocks]
    )


def added(one: FlowNetwork, other: FlowNetwork) -> FlowNetwork:
    """Capacities of two networks on the same nodes, added up.

    Raises
    ------
    InputError
        If their blocks differ.
    """
    if [(b.tail, b.head) for b in one.blocks] != [(b.tail, b.head) for b in other.blocks]:
        raise InputError("Capacities can be added on networks of the same blocks only.")
    pairs = zip(one.blocks, other.blocks, strict=True)
    return with_capacities(one, [b.capacity + c.capacity for b, c in pairs])


def nudged(net: FlowNetwork, rng: np.random.Generator, size: float) -> tuple[FlowNetwork, float]:
    """The network with every positive block capacity changed a little, and the sum of changes.

    Parameters
    ----------
    size : float
        Largest change, relative to each capacity.
    """
    capacities, total = [], 0.0
    for block in net.blocks:
        change = block.capacity * size * rng.uniform(-1, 1, block.capacity.shape)
        capacities.append(block.capacity + change)
        total += float(np.abs(change).sum())
    return with_capacities(net, capacities), total


def opened(
    net: FlowNetwork, rng: np.random.Generator, size: float
) -> tuple[FlowNetwork, float] | None:
    """The network with one missing edge given a capacity of `size` times the largest one."""
    shut = [(i, e) for i, b in enumerate(net.blocks) for e in np.argwhere(b.capacity == 0)]
    amount = size * (max(float(b.capacity.max(initial=0.0)) for b in net.blocks) or 1.0)
    for k in rng.permutation(len(shut)):
        at, edge = shut[k]
        capacities = [b.capacity.copy() for b in net.blocks]
        capacities[at][tuple(edge)] = amount
        changed = with_capacities(net, capacities)
        with suppress(InputError):  # the edge may close a cycle
            _ = changed.graph
            return changed, amount
    return None
