# mypy: disable-error-code="untyped-decorator"
"""Maximum flow from one node of a layer stack to one input token, on bit sets, compiled.

Dinic's algorithm as in `flowopt.solvers.dinic`, made for thousands of pairs on one dense stack:
which residual edges are open is kept as one bit per edge, by rows and by columns. A search then
handles 64 edges with one instruction, finding the next edge of a path takes no scan, and undoing
a flow costs what the flow has touched. Layer 0 holds the input tokens; block b joins layer b + 1
to layer b, ``capacity[b, upper, lower]``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowopt.network.kernels import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_NONE, _ONE = np.uint64(0), np.uint64(1)
# The top six bits of (power of two) * this number differ for all 64 powers (a de Bruijn sequence).
_DE_BRUIJN = 0x03F79D71B4CB0A89
_FACTOR, _SHIFT = np.uint64(_DE_BRUIJN), np.uint64(58)
_POSITION = np.zeros(64, np.int64)
for _bit in range(64):
    _POSITION[((_DE_BRUIJN << _bit) & (2**64 - 1)) >> 58] = _bit


class Workspace(NamedTuple):
    """Arrays of one thread; W = ceil(t / 64) words per set of nodes.

    `room` and `flow` are (L, t, t) like `capacity`. The sets hold, for edges with room, the
    lower ends by upper node and the upper ends by lower node (`open_down`, `open_up`), and for
    edges with flow the same (`used_down`, `used_up`), shape (L, t, W) each. `at` holds the nodes
    of each layer at each distance from the sink, `unseen` those no search has reached.
    """

    capacity: Floats
    room: Floats
    flow: Floats
    open_down: Words
    open_up: Words
    used_down: Words
    used_up: Words
    at: Words
    unseen: Words
    everyone: Words
    path_layer: Ints
    path_node: Ints
    touched: Ints
    is_touched: NDArray[np.bool_]
    balance: Floats


def workspace(capacity: Floats) -> Workspace:
    """Arrays for flows on capacities (L, t, t), none of them sent yet."""
    layers, t, _ = capacity.shape
    words, nodes = (t + 63) // 64, (layers + 1) * t
    everyone = np.zeros(words, np.uint64)
    for k in range(t):
        everyone[k >> 6] |= np.uint64(1 << (k & 63))
    sets = [np.zeros((layers, t, words), np.uint64) for _ in range(4)]
    open_down, open_up, used_down, used_up = sets
    work = Workspace(
        capacity=capacity,
        room=capacity.copy(),
        flow=np.zeros_like(capacity),
        open_down=open_down,
        open_up=open_up,
        used_down=used_down,
        used_up=used_up,
        at=np.zeros((nodes + 2, layers + 1, words), np.uint64),
        unseen=np.zeros((layers + 1, words), np.uint64),
        everyone=everyone,
        path_layer=np.zeros(nodes + 1, np.int64),
        path_node=np.zeros(nodes + 1, np.int64),
        touched=np.zeros(capacity.size, np.int64),
        is_touched=np.zeros(capacity.shape, np.bool_),
        balance=np.zeros((layers + 1, t)),
    )
    open_all(work)
    return work


@compiled
def first(word: Any) -> Any:
    """Position of the lowest bit of a word that is not zero."""
    return _POSITION[((word & (~word + _ONE)) * _FACTOR) >> _SHIFT]


@compiled
def add(nodes: Words, k: int) -> None:
    """Put node k into a set."""
    nodes[k >> 6] |= _ONE << np.uint64(k & 63)


@compiled
def drop(nodes: Words, k: int) -> None:
    """Take node k out of a set."""
    nodes[k >> 6] &= ~(_ONE << np.uint64(k & 63))


@compiled
def holds(nodes: Words, k: int) -> bool:
    """Whether node k is in a set."""
    return bool((nodes[k >> 6] >> np.uint64(k & 63)) & _ONE != _NONE)


@compiled
def open_all(work: Workspace) -> None:
    """Enter every edge with capacity among the open ones."""
    layers, t, _ = work.capacity.shape
    for b in range(layers):
        for i in range(t):
            for j in range(t):
                if work.capacity[b, i, j] > 0:
                    add(work.open_down[b, i], j)
                    add(work.open_up[b, j], i)


@compiled
def distances(work: Workspace, top: int, source: int, sink: int) -> int:
    """Search from the sink against the residual edges; the source's distance, -1 if unreached.

    Leaves the nodes at each distance in `at`, and those that cannot reach the sink in `unseen`.
    """
    at, unseen = work.at, work.unseen
    words = len(work.everyone)
    for layer in range(top):
        unseen[layer] = work.everyone
    unseen[0] = _NONE
    unseen[top] = _NONE
    add(unseen[top], source)
    at[0, : top + 1] = _NONE
    add(at[0, 0], sink)
    distance = 0
    while True:
        here, following = at[distance], at[distance + 1]
        following[: top + 1] = _NONE
        found = False
        for layer in range(top):
            for q in range(words):
                rest = here[layer, q]
                while rest != _NONE:
                    k = (q << 6) + first(rest)
                    rest &= rest - _ONE
                    for p in range(words):
                        new = work.open_up[layer, k, p] & unseen[layer + 1, p]
                        following[layer + 1, p] |= new
                        unseen[layer + 1, p] &= ~new
                        found |= new != _NONE
                        if layer > 0:
                            new = work.used_down[layer - 1, k, p] & unseen[layer - 1, p]
                            following[layer - 1, p] |= new
                            unseen[layer - 1, p] &= ~new
                            found |= new != _NONE
        distance += 1
        if holds(following[top], source):
            return distance
        if not found:
            return -1


@compiled
def step(work: Workspace, top: int, layer: int, k: int, distance: int) -> tuple[int, int]:
    """A node at the given distance that a residual edge leads to: layer (-1: none) and number."""
    at = work.at[distance]
    for p in range(len(work.everyone)):
        if layer > 0:
            down = work.open_down[layer - 1, k, p] & at[layer - 1, p]
            if down != _NONE:
                return layer - 1, (p << 6) + first(down)
        if layer < top:
            up = work.used_up[layer, k, p] & at[layer + 1, p]
            if up != _NONE:
                return layer + 1, (p << 6) + first(up)
    return -1, 0


@compiled
def augment(work: Workspace, length: int, touched: int) -> tuple[int, int]:
    """Send what fits along the path; position of its first edge then full, edges touched."""
    layers, nodes = work.path_layer, work.path_node
    amount = np.inf
    for s in range(length):
        if layers[s + 1] < layers[s]:
            limit = work.room[layers[s + 1], nodes[s], nodes[s + 1]]
        else:
            limit = work.flow[layers[s], nodes[s + 1], nodes[s]]
        amount = min(amount, limit)
    full = length
    for s in range(length - 1, -1, -1):
        if layers[s + 1] < layers[s]:
            b, i, j = layers[s + 1], nodes[s], nodes[s + 1]
            if not work.is_touched[b, i, j]:
                work.is_touched[b, i, j] = True
                work.touched[touched] = (b * len(work.capacity[0]) + i) * len(work.capacity[0]) + j
                touched += 1
            work.flow[b, i, j] += amount
            work.room[b, i, j] -= amount
            add(work.used_down[b, i], j)
            add(work.used_up[b, j], i)
            if work.room[b, i, j] <= 0:
                drop(work.open_down[b, i], j)
                drop(work.open_up[b, j], i)
                full = s
        else:
            b, i, j = layers[s], nodes[s + 1], nodes[s]
            work.flow[b, i, j] -= amount
            work.room[b, i, j] += amount
            add(work.open_down[b, i], j)
            add(work.open_up[b, j], i)
            if work.flow[b, i, j] <= 0:
                drop(work.used_down[b, i], j)
                drop(work.used_up[b, j], i)
                full = s
    return full, touched


@compiled
def send(work: Workspace, top: int, source: int, sink: int) -> int:
    """Send a maximum flow from node `source` of layer `top` to token `sink`; edges touched.

    `unseen` then holds the source side of a minimum cut (in layers 1 .. top). `take_back` has to
    follow before the next flow.
    """
    layers, nodes = work.path_layer, work.path_node
    touched = 0
    while True:
        length = distances(work, top, source, sink)
        if length < 0:
            return touched
        depth, layers[0], nodes[0] = 0, top, source
        while depth >= 0:
            if depth == length:
                depth, touched = augment(work, length, touched)
            layer, k = step(work, top, layers[depth], nodes[depth], length - depth - 1)
            if layer >= 0:
                depth += 1
                layers[depth], nodes[depth] = layer, k
            else:  # a dead end: out of the way
                drop(work.at[length - depth, layers[depth]], nodes[depth])
                depth -= 1


@compiled
def cut_capacity(work: Workspace, top: int, source: int, sink: int) -> float:
    """Capacity of all edges from the nodes in `unseen` to the others; token `sink` is another."""
    words = len(work.everyone)
    total = 0.0
    for b in range(top):
        for q in range(words):
            rest = work.unseen[b + 1, q]
            while rest != _NONE:
                i = (q << 6) + first(rest)
                rest &= rest - _ONE
                if b == 0:
                    total += work.capacity[0, i, sink]
                    continue
                for p in range(words):
                    cut = work.everyone[p] & ~work.unseen[b, p]
                    while cut != _NONE:
                        total += work.capacity[b, i, (p << 6) + first(cut)]
                        cut &= cut - _ONE
    return total if holds(work.unseen[top], source) else np.inf


@compiled
def take_back(work: Workspace, touched: int, top: int, source: int, sink: int) -> float:
    """Undo the flow, and return a value that a feasible flow provably has.

    What leaves the source, less all imbalances of inner nodes (reducing the flow to one that
    conserves exactly costs no more), divided by the largest excess over a capacity.
    """
    t = len(work.capacity[0])
    balance = work.balance
    balance[: top + 1] = 0.0
    excess = 1.0
    for n in range(touched):
        e = work.touched[n]
        b, i, j = e // (t * t), (e // t) % t, e % t
        flow, capacity = work.flow[b, i, j], work.capacity[b, i, j]
        balance[b + 1, i] += flow
        balance[b, j] -= flow
        if not 0 <= flow <= excess * capacity:
            excess = flow / capacity if flow > 0 else np.inf
        work.flow[b, i, j], work.room[b, i, j] = 0.0, capacity
        work.is_touched[b, i, j] = False
        add(work.open_down[b, i], j)
        add(work.open_up[b, j], i)
        drop(work.used_down[b, i], j)
        drop(work.used_up[b, j], i)
    value = 2 * balance[top, source]  # once for the sum below
    for layer in range(1, top + 1):
        for k in range(t):
            value -= abs(balance[layer, k])
    return float(max(value, 0.0) / excess)
