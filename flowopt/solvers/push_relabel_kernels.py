"""Compiled passes of the push-relabel method; arrays are those of `Graph` and `_Pieces`."""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import numba
import numpy as np

from flowopt.network.kernels import ROUNDING, compiled, compiled_sums

inlined = numba.njit(inline="always")


@compiled
def flood(
    capacity, row_head, row_start, node_rows, node_rows_start, order, source, sink, flow, excess
):  # fmt: skip
    """Fill the sources' edges, in place, up to twice what the nodes below could pass on.

    That bound is finite even below an unlimited edge, for no unlimited path joins source and
    sink; and a node that receives so much surely keeps some, so that the edge is in no cut.
    """
    ability = np.zeros(len(order))
    for at in range(len(order) - 1, -1, -1):
        v = order[at]
        if sink[v]:
            ability[v] = np.inf
            continue
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            begin, end = row_start[k], row_start[k + 1]
            capacity_, flow_ = capacity[begin:end], flow[begin:end]
            ability_ = ability[row_head[k] : row_head[k] + end - begin]
            excess_ = excess[row_head[k] : row_head[k] + end - begin]
            source_ = source[row_head[k] : row_head[k] + end - begin]
            if source[v]:
                for e in range(end - begin):
                    if not source_[e]:
                        flow_[e] = min(capacity_[e], 2.0 * ability_[e])
                        excess_[e] += flow_[e]
            else:
                total = 0.0
                for e in range(end - begin):
                    total += min(capacity_[e], ability_[e])
                ability[v] += total


# --- residual edges as bits ---------------------------------------------------------------------
#
# One bit per edge tells whether it has room, another whether it has flow; every row has words of
# its own. Sets of nodes are bits too, a segment of nodes having words of its own, so 64 edges are
# looked at in one step.

_ONE = np.uint64(1)
_FACTOR = np.uint64(0x03F79D71B4CB0A89)  # de Bruijn: its 64 runs of 6 bits are all different
_PLACE = np.zeros(64, np.int64)
for _i in range(64):
    _PLACE[((int(_FACTOR) << _i) & (2**64 - 1)) >> 58] = _i


@inlined
def _lowest(bits):
    """Place of the lowest bit that is set."""
    return _PLACE[((bits & (~bits + _ONE)) * _FACTOR) >> np.uint64(58)]


@inlined
def _bit(place):
    return _ONE << np.uint64(place & 63)


@compiled
def residual_bits(capacity, flow, row_start, row_word, room, used):
    """Set the bits of edges with room and with flow, in place."""
    for k in range(len(row_start) - 1):
        begin, word = row_start[k], row_word[k]
        for e in range(row_start[k + 1] - begin):
            if flow[begin + e] < capacity[begin + e]:
                room[word + (e >> 6)] |= _bit(e)
            if flow[begin + e] > 0:
                used[word + (e >> 6)] |= _bit(e)


@compiled
def distances(
    room, used, row_word, piece, node_segment, segment_start, segment_word, waiting, sink
):
    """Distance of every node to the nearest sink along residual edges, and nodes by distance.

    Only nodes `waiting` are looked at; -1 for those that reach no sink. Breadth first, level by
    level.
    """
    n, words = len(waiting), segment_word[-1]
    distance, order = np.full(n, -1, np.int32), np.empty(n, np.int64)
    rest, front = np.zeros(words, np.uint64), np.zeros(words, np.uint64)  # unseen; this level's
    after = np.zeros(words, np.uint64)
    live = np.zeros(len(segment_start) - 1, np.bool_)  # segments with nodes in this level
    filled = 0
    for v in range(n):
        s = node_segment[v]
        at = v - segment_start[s]
        if waiting[v] and sink[v]:
            distance[v] = 0
            front[segment_word[s] + (at >> 6)] |= _bit(at)
            live[s] = True
            order[filled] = v
            filled += 1
        elif waiting[v]:
            rest[segment_word[s] + (at >> 6)] |= _bit(at)
    level, before = 0, -1
    while filled > before:
        before = filled
        level += 1
        for p in range(len(piece)):
            above, below = piece[p, 5], piece[p, 6]
            if not live[above] and not live[below]:
                continue
            tail, head, tails, heads, row = piece[p, :5]
            low = tail - segment_start[above]
            shift = head - segment_start[below]  # not 0 only where rows have one edge
            place = segment_word[below] + (shift >> 6)
            turn = np.uint64(shift & 63)
            for t in range(low >> 6, (low + tails + 63) >> 6):
                open_tails = rest[segment_word[above] + t]
                while open_tails:  # tails of residual edges into this level
                    i = _lowest(open_tails) + 64 * t - low
                    open_tails &= open_tails - _ONE
                    if not 0 <= i < tails:
                        continue
                    word = row_word[row + i]
                    found = np.uint64(0)
                    for j in range((heads + 63) >> 6):
                        found |= (room[word + j] << turn) & front[place + j]
                        if found:
                            break
                    if found:
                        distance[tail + i] = level
                        order[filled] = tail + i
                        filled += 1
                        rest[segment_word[above] + t] &= ~_bit(i + low)
                        after[segment_word[above] + t] |= _bit(i + low)
                here = front[segment_word[above] + t]
                while here:  # this level's nodes whose flow could be taken back
                    i = _lowest(here) + 64 * t - low
                    here &= here - _ONE
                    if not 0 <= i < tails:
                        continue
                    word = row_word[row + i]
                    for j in range((heads + 63) >> 6):
                        found = (used[word + j] << turn) & rest[place + j]
                        rest[place + j] &= ~found
                        after[place + j] |= found
                        while found:
                            v = segment_start[below] + _lowest(found) + 64 * (j + (shift >> 6))
                            found &= found - _ONE
                            distance[v] = level
                            order[filled] = v
                            filled += 1
        front[:] = after
        after[:] = 0
        live[:] = False
        for at in range(before, filled):
            live[node_segment[order[at]]] = True
    return distance, order[:filled]


@compiled
def wave(
    capacity, flow, row_head, row_start, node_rows, node_rows_start, room, used, row_word,
    piece, into, into_start, node_segment, segment_start, segment_word, distance, order, excess,
):  # fmt: skip
    """Every node, farthest first, passes its excess on to nodes one step nearer, in place."""
    target = np.zeros(segment_word[-1], np.uint64)
    level, first = -1, len(order)  # nodes order[first:] are farther than `target`'s
    for at in range(len(order) - 1, -1, -1):
        v = order[at]
        x = excess[v]
        if distance[v] == 0:
            break
        if distance[v] != level:
            level = distance[v]
            target[:] = 0
            first = min(first, at)
            while first >= 0 and distance[order[first]] >= level - 1:
                w = order[first]
                if distance[w] == level - 1:
                    s = node_segment[w]
                    place = w - segment_start[s]
                    target[segment_word[s] + (place >> 6)] |= _bit(place)
                first -= 1
            first += 1
        if x <= 0:
            continue
        for i in range(node_rows_start[v], node_rows_start[v + 1]):  # onwards
            if x <= 0:
                break
            k = node_rows[i]
            x = _push_on(
                k, x, capacity, flow, row_head[k], row_start[k], row_start[k + 1] - row_start[k],
                room, used, row_word[k], node_segment, segment_start, segment_word, target, excess,
            )  # fmt: skip
        for i in range(into_start[v], into_start[v + 1]):  # back
            if x <= 0:
                break
            x = _push_back(
                v, x, capacity, flow, row_start, room, used, row_word, piece[into[i]],
                segment_start, segment_word, target, excess,
            )  # fmt: skip
        excess[v] = x


@compiled
def _push_on(
    k, x, capacity, flow, head, start, heads, room, used, word, node_segment, segment_start,
    segment_word, target, excess,
):  # fmt: skip
    """Excess left after sending what row k has room for to the target nodes."""
    s = node_segment[head]
    shift = head - segment_start[s]
    place = segment_word[s] + (shift >> 6)
    turn = np.uint64(shift & 63)
    for j in range((heads + 63) >> 6):
        found = room[word + j] & (target[place + j] >> turn)
        if heads == 1:
            found &= _ONE
        while found:
            i = _lowest(found)
            found &= found - _ONE
            e, w = start + 64 * j + i, head + 64 * j + i
            moved = min(x, capacity[e] - flow[e])
            flow[e] += moved
            used[word + j] |= _bit(i)
            if moved < x or flow[e] >= capacity[e]:
                flow[e] = capacity[e]
                room[word + j] &= ~_bit(i)
            excess[w] += moved
            x -= moved
            if x <= 0:
                return 0.0
    return x


@compiled
def _push_back(
    v, x, capacity, flow, row_start, room, used, row_word, piece, segment_start, segment_word,
    target, excess,
):  # fmt: skip
    """Excess left after taking back flow into v that came from the target nodes."""
    tail, head, tails, _, row, above, _ = piece
    low = tail - segment_start[above]
    j, place = (v - head) >> 6, _bit(v - head)
    for t in range(low >> 6, (low + tails + 63) >> 6):
        here = target[segment_word[above] + t]
        while here:
            i = _lowest(here) + 64 * t - low
            here &= here - _ONE
            if not 0 <= i < tails:
                continue
            word = row_word[row + i] + j
            if used[word] & place:
                e = row_start[row + i] + v - head
                moved = min(x, flow[e])
                flow[e] -= moved
                if flow[e] < capacity[e]:
                    room[word] |= place
                if flow[e] <= 0:
                    used[word] &= ~place
                excess[tail + i] += moved
                x -= moved
                if x <= 0:
                    return 0.0
    return x


# --- from a preflow to a flow --------------------------------------------------------------------


@compiled_sums
def take_back(flow, row_head, row_start, node_rows, node_rows_start, order, below, source):
    """Scale down what nodes above the cut receive to what they pass on, bottom-up, in place.

    Edges from `below` the cut carry nothing up, and nodes there pass on all they receive, so
    the edges of the cut stay full.
    """
    n = len(order)
    into, keep = np.zeros(n), np.ones(n)
    for v in range(n):
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            flow_ = flow[row_start[k] : row_start[k + 1]]
            into_ = into[row_head[k] : row_head[k] + len(flow_)]
            for e in range(len(flow_)):
                into_[e] += flow_[e]
    for at in range(n - 1, -1, -1):
        v = order[at]
        if below[v]:
            continue
        out = 0.0
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            flow_ = flow[row_start[k] : row_start[k + 1]]
            keep_ = keep[row_head[k] : row_head[k] + len(flow_)]
            for e in range(len(flow_)):
                flow_[e] *= keep_[e]
                out += flow_[e]
        if not source[v] and into[v] > out * (1 + ROUNDING):
            keep[v] = out / into[v]


@compiled
def cut_capacity(capacity, row_tail, row_head, row_start, side):
    """Capacity of the edges that leave a side."""
    cut = 0.0
    for k in range(len(row_tail)):
        if side[row_tail[k]]:
            begin, end = row_start[k], row_start[k + 1]
            capacity_, side_ = capacity[begin:end], side[row_head[k] : row_head[k] + end - begin]
            leaving = 0.0  # row by row, so that rounding stays small
            for e in range(end - begin):
                leaving += 0.0 if side_[e] else capacity_[e]
            cut += leaving
    return cut
