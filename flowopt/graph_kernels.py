"""Compiled loops over the rows of a graph: order, reachability, sums, repair.

Serial inside one network and free of the interpreter lock, so that threads can work on several
networks at once. The arrays are those of `flowopt.graph.Graph`.
"""

from __future__ import annotations

import numba
import numpy as np

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
# reassociation lets sums over a row run in vector registers; NaN and infinity keep their meaning
compiled_sums = numba.njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}
)

ROUNDING = 8 * np.finfo(np.float64).eps  # relative imbalance of a node taken as conserved


@compiled
def topological_order(capacity, row_tail, row_head, row_start, node_rows, node_rows_start, n):
    """Nodes with every tail before its heads (Kahn); shorter than n if there is a cycle."""
    waiting = np.zeros(n, np.int64)
    for r in range(len(row_tail)):
        head = row_head[r] - row_start[r]
        for e in range(row_start[r], row_start[r + 1]):
            waiting[head + e] += capacity[e] > 0
    order = np.empty(n, np.int64)
    filled = 0
    for v in range(n):
        if waiting[v] == 0:
            order[filled] = v
            filled += 1
    at = 0
    while at < filled:
        v = order[at]
        at += 1
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] > 0:
                    waiting[head + e] -= 1
                    if waiting[head + e] == 0:
                        order[filled] = head + e
                        filled += 1
    return order[:filled].copy()


@compiled
def reachability(capacity, row_head, row_start, node_rows, node_rows_start, order, source, sink):
    """Nodes that the source reaches, nodes that reach the sink, and whether flow is unbounded."""
    reached = source.copy()
    freely = source.copy()  # by unlimited edges alone
    for v in order:
        if not reached[v]:
            continue
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] > 0:
                    reached[head + e] = True
                    if freely[v] and capacity[e] == np.inf:
                        freely[head + e] = True
    leads = sink.copy()
    for i in range(len(order) - 1, -1, -1):
        v = order[i]
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            if leads[v]:
                break
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] > 0 and leads[head + e]:
                    leads[v] = True
                    break
    return reached, leads, np.any(freely & sink)


@compiled
def count_pruned(capacity, row_tail, row_head, row_start, reached, leads):
    """Numbers of edges without capacity, unreachable, and leading to no sink."""
    zero = unreachable = dead_end = 0
    for r in range(len(row_tail)):
        head = row_head[r] - row_start[r]
        for e in range(row_start[r], row_start[r + 1]):
            if capacity[e] == 0:
                zero += 1
            elif not reached[row_tail[r]]:
                unreachable += 1
            elif not leads[head + e]:
                dead_end += 1
    return zero, unreachable, dead_end


@compiled
def zero_pruned(capacity, row_tail, row_head, row_start, reached, leads):
    """Set the capacity of edges on no source-sink path to zero, in place."""
    for r in range(len(row_tail)):
        head = row_head[r] - row_start[r]
        for e in range(row_start[r], row_start[r + 1]):
            if not (reached[row_tail[r]] and leads[head + e]):
                capacity[e] = 0.0


@compiled_sums
def node_sums(row_tail, row_head, row_start, flow, n):
    """Inflow and outflow of every node from its edges, shape (n,) each."""
    into, out = np.zeros(n), np.zeros(n)
    for r in range(len(row_tail)):
        begin, end = row_start[r], row_start[r + 1]
        head = row_head[r] - begin
        total = 0.0
        for e in range(begin, end):
            total += flow[e]
            into[head + e] += flow[e]
        out[row_tail[r]] += total
    return into, out


@compiled
def balance_downwards(
    flow, slack, capacity, row_head, row_start, node_rows, node_rows_start, order, source, sink
):
    """Spread each node's imbalance over its outgoing edges, in place, where they have room.

    From the top down, edge e takes a share proportional to w_e = (1/f^2 + 1/(u-f)^2)^-1, the
    change that costs least in the local norm of the barrier. A node whose edges have no room
    for it is left to `trim`. The slack u - f moves along, so that it keeps its own precision.
    """
    into = np.zeros(len(order))
    for v in order:
        out = room = widest = 0.0
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] > 0:
                    out += flow[e]
                    s = min(flow[e], slack[e])
                    room += s * s
                    widest = max(widest, s)
        missing = into[v] - out
        if source[v]:
            missing = max(missing, 0.0)
        if sink[v]:
            missing = min(missing, 0.0)
        spread = room > 0 and missing != 0 and abs(missing) * widest < 0.5 * room
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] > 0:
                    if spread:
                        s = min(flow[e], slack[e])
                        change = missing * (s * s / room)
                        flow[e] += change
                        slack[e] -= change
                    into[head + e] += flow[e]


@compiled
def trim(
    flow,
    slack,
    row_tail,
    row_head,
    row_start,
    node_rows,
    node_rows_start,
    order,
    source,
    sink,
    rounding,
):
    """Make a flow within its bounds conserve exactly, in place, by only ever reducing it.

    Bottom-up, a node that receives more than it passes on has its inflow scaled down; then,
    top-down, a node that passes on more than it receives has its outflow scaled down. Bounds
    cannot break, and the value falls by at most the sum of the imbalances.
    """
    n = len(order)
    into = np.zeros(n)
    for r in range(len(row_tail)):
        head = row_head[r] - row_start[r]
        for e in range(row_start[r], row_start[r + 1]):
            into[head + e] += flow[e]
    keep = np.ones(n)
    for i in range(n - 1, -1, -1):
        v = order[i]
        out = 0.0
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if keep[head + e] < 1:
                    slack[e] += flow[e] * (1 - keep[head + e])
                    flow[e] *= keep[head + e]
                out += flow[e]
        if not sink[v] and into[v] > out * (1 + rounding):
            keep[v] = out / into[v]
    into[:] = 0.0
    for v in order:
        out = 0.0
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            for e in range(row_start[r], row_start[r + 1]):
                out += flow[e]
        scale = 1.0
        if not source[v] and out > into[v] * (1 + rounding):
            scale = into[v] / out
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if scale < 1:
                    slack[e] += flow[e] * (1 - scale)
                    flow[e] *= scale
                into[head + e] += flow[e]


@compiled_sums
def barrier_distance(flow, slack, capacity, row_tail, row_head, row_start, potential, mu, n):
    """delta^2 of method section 7, and the sum of w_e over the edges into and out of each node."""
    total = 0.0
    into, out = np.zeros(n), np.zeros(n)
    for r in range(len(row_tail)):
        begin, end = row_start[r], row_start[r + 1]
        head = row_head[r] - begin
        y = potential[row_tail[r]]
        leaving = 0.0
        for e in range(begin, end):
            u = capacity[e]
            if u > 0 and u < np.inf:
                f, rest = flow[e], slack[e]
                # w = (1/f^2 + 1/rest^2)^-1 without overflow for tiny flows
                low, high = min(f, rest), max(f, rest)
                ratio = low / high
                root = low / np.sqrt(1 + ratio * ratio)  # sqrt(w)
                term = (y - potential[head + e]) * (root / mu) + root / f - root / rest
                total += term * term
                into[head + e] += root * root
                leaving += root * root
        out[row_tail[r]] += leaving
    return total, into, out


@compiled
def is_interior(flow, slack, capacity):
    """Whether flow and slack are positive on every kept edge."""
    for e in range(len(flow)):  # noqa: SIM110 (compiled)
        if capacity[e] > 0 and not (flow[e] > 0 and slack[e] > 0):
            return False
    return True


@compiled
def honest_slack(flow, slack, capacity, rounding):
    """Whether slack is capacity - flow up to rounding."""
    for e in range(len(flow)):  # noqa: SIM110 (compiled)
        u = capacity[e]
        if u < np.inf and not abs(u - flow[e] - slack[e]) <= rounding * u:
            return False
    return True


@compiled
def log_sum(flow, slack, capacity):
    """Sum of log f + log(u - f) over the kept edges of finite capacity.

    Factors are multiplied before the logarithm is taken, as long as they stay in range.
    """
    total, product = 0.0, 1.0
    for e in range(len(flow)):
        if 0 < capacity[e] < np.inf:
            product *= flow[e]
            if not 1e-150 < product < 1e150:
                total += np.log(product)
                product = 1.0
            product *= slack[e]
            if not 1e-150 < product < 1e150:
                total += np.log(product)
                product = 1.0
    return total + np.log(product)


@compiled
def degrees(row_tail, row_head, row_start, capacity, n):
    """Numbers of kept edges into and out of every node."""
    into, out = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for r in range(len(row_tail)):
        head = row_head[r] - row_start[r]
        for e in range(row_start[r], row_start[r + 1]):
            if capacity[e] > 0:
                into[head + e] += 1
                out[row_tail[r]] += 1
    return into, out
