"""Compiled loops of `flowopt.solvers.coalitions`; the arrays are those of `PlayerGates`."""

from __future__ import annotations

import numpy as np

from flowopt.network.kernels import ROUNDING, compiled
from flowopt.solvers.dinic import maximum_flow


@compiled
def open_gates(player, first, gate, capacity, residual):  # type: ignore[no-untyped-def]
    """Let a player absorb, in place."""
    for g in range(first[player], first[player + 1]):
        residual[gate[g]] = capacity[gate[g]]


@compiled
def absorbed(player, first, gate, back, residual):  # type: ignore[no-untyped-def]
    """Flow through the gates of a player."""
    total = 0.0
    for g in range(first[player], first[player + 1]):
        total += residual[back[gate[g]]]
    return total


@compiled
def reachable(indptr, indices, residual, source, reach, queue):  # type: ignore[no-untyped-def]
    """Nodes that the source reaches, in place."""
    reach[:] = False
    reach[source] = True
    queue[0] = source
    filled, at = 1, 0
    while at < filled:
        v = queue[at]
        at += 1
        for p in range(indptr[v], indptr[v + 1]):
            w = indices[p]
            if residual[p] > 0 and not reach[w]:
                reach[w] = True
                queue[filled] = w
                filled += 1


@compiled
def coalition_values(  # type: ignore[no-untyped-def]
    indptr, indices, back, source, sink, node, first, gate, capacity, closed, rows, depth
):
    """Maximum flow to each row of memberships; see `PlayerGates.values`.

    Level l of the stack is the network after the first l members of a row. Levels up to `depth`
    keep their residual network, deeper ones share one that is overwritten.
    """
    n, t = len(indptr) - 1, rows.shape[1]
    residual = np.empty((depth + 1, len(closed)))
    reach = np.empty((depth + 1, n), np.bool_)
    place = np.zeros(t + 1, np.int64)  # where each level's residual network is kept
    member, value = np.full(t + 1, -1), np.zeros(t + 1)
    residual[0] = closed
    reachable(indptr, indices, closed, source, reach[0], np.empty(n, np.int32))
    found = np.empty(len(rows))
    top = 0
    for r in range(len(rows)):
        level, same = 0, True
        for p in range(t):
            if not rows[r, p]:
                continue
            if same and level < top and member[level + 1] == p:
                level += 1
                continue
            same = False
            here = place[level]
            level += 1
            member[level], value[level], place[level] = p, value[level - 1], here
            if not reach[here, node[p]]:
                continue
            there = min(level, depth)
            if there != here:
                residual[there] = residual[here]
            place[level] = there
            open_gates(p, first, gate, capacity, residual[there])
            after = maximum_flow(indptr, indices, back, residual[there], source, sink)[0]
            reach[there] = after >= 0
            value[level] += absorbed(p, first, gate, back, residual[there])
        if not same:
            top = level if level <= depth else depth - 1
        found[r] = value[level]
    return found


@compiled
def marginal_flows(  # type: ignore[no-untyped-def]
    indptr, indices, back, source, sink, node, first, gate, capacity, closed, orders
):
    """Marginal flow of every player in every order; see `PlayerGates.marginals`."""
    n = len(indptr) - 1
    queue, start, reach = np.empty(n, np.int32), np.empty(n, np.bool_), np.empty(n, np.bool_)
    reachable(indptr, indices, closed, source, start, queue)
    found = np.zeros(orders.shape)
    for r in range(len(orders)):
        residual = closed.copy()
        reach[:] = start
        for p in orders[r]:
            if not reach[node[p]]:
                continue
            open_gates(p, first, gate, capacity, residual)
            after = maximum_flow(indptr, indices, back, residual, source, sink)[0]
            reach[:] = after >= 0
            found[r, p] = absorbed(p, first, gate, back, residual)
    return found


@compiled
def player_intervals(  # type: ignore[no-untyped-def]
    indptr, indices, back, source, sink, node, first, gate, capacity, whole, players
):
    """Least and greatest flow of some players, from the residual network of a maximum flow."""
    found = np.zeros((len(players), 2))
    for k in range(len(players)):
        j = players[k]
        own = absorbed(j, first, gate, back, whole)
        room = 0.0
        for g in range(first[j], first[j + 1]):
            room += whole[gate[g]]
        found[k] = own
        for side in range(2):
            residual = whole.copy()
            for g in range(first[j], first[j + 1]):
                residual[gate[g]] = residual[back[gate[g]]] = 0.0
            if side == 0:
                found[k, 0] -= min(own, moved(indptr, indices, back, residual, node[j], sink))
            elif room > 0:
                found[k, 1] += min(room, moved(indptr, indices, back, residual, sink, node[j]))
        if found[k, 0] <= ROUNDING * own:
            found[k, 0] = 0.0
    return found


@compiled
def moved(indptr, indices, back, residual, source, sink):  # type: ignore[no-untyped-def]
    """Maximum flow between two nodes of a residual network, in place; out of the first, finite."""
    total = 0.0
    for p in range(indptr[source], indptr[source + 1]):
        total += residual[p]
    maximum_flow(indptr, indices, back, residual, source, sink)
    for p in range(indptr[source], indptr[source + 1]):
        total -= residual[p]
    return total
