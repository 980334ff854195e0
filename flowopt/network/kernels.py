"""Compiled loops over the rows of a graph: order, reachability, sums, repair, distances.

Serial inside one network and free of the interpreter lock, so that threads can work on several
networks at once. The arrays are those of `flowopt.network.graph.Graph`. Rows are sliced
(``flow_`` is one row of ``flow``) because indices that start at 0 need no check for negative
ones, and only then do the loops run in vector registers.
"""

from __future__ import annotations

import numba
import numpy as np

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
# reassociation lets sums over a row run in vector registers; NaN and infinity keep their meaning
compiled_sums = numba.njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}
)

ROUNDING = 32 * np.finfo(np.float64).eps  # relative imbalance of a node taken as conserved


# --- order and pruning --------------------------------------------------------------------------


@compiled
def topological_order(capacity, row_tail, row_head, row_start, node_rows, node_rows_start, n):
    """Nodes with every tail before its heads (Kahn); shorter than n if there is a cycle."""
    waiting = np.zeros(n, np.int64)
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        capacity_ = capacity[begin:end]
        waiting_ = waiting[row_head[k] : row_head[k] + end - begin]
        for e in range(end - begin):
            waiting_[e] += capacity_[e] > 0
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
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            head = row_head[k] - row_start[k]
            for e in range(row_start[k], row_start[k + 1]):
                if capacity[e] > 0:
                    waiting[head + e] -= 1
                    if waiting[head + e] == 0:
                        order[filled] = head + e
                        filled += 1
    return order[:filled].copy()


@compiled
def reachability(capacity, row_head, row_start, node_rows, node_rows_start, order, source, sink):
    """Nodes that the source reaches, and nodes that reach the sink."""
    reached = source.copy()
    for v in order:
        if not reached[v]:
            continue
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            begin, end = row_start[k], row_start[k + 1]
            capacity_ = capacity[begin:end]
            reached_ = reached[row_head[k] : row_head[k] + end - begin]
            for e in range(end - begin):
                reached_[e] |= capacity_[e] > 0
    leads = sink.copy()
    for at in range(len(order) - 1, -1, -1):
        v = order[at]
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            if leads[v]:
                break
            k = node_rows[i]
            head = row_head[k] - row_start[k]
            for e in range(row_start[k], row_start[k + 1]):
                if capacity[e] > 0 and leads[head + e]:
                    leads[v] = True
                    break
    return reached, leads


@compiled
def count_pruned(capacity, row_tail, row_head, row_start, reached, leads):
    """Numbers of edges without capacity, unreachable, and leading to no sink."""
    kept = with_capacity = unreachable = 0
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        capacity_ = capacity[begin:end]
        leads_ = leads[row_head[k] : row_head[k] + end - begin]
        here = good = 0
        for e in range(end - begin):
            here += capacity_[e] > 0
            good += (capacity_[e] > 0) & leads_[e]
        with_capacity += here
        if reached[row_tail[k]]:
            kept += good
        else:
            unreachable += here
    return len(capacity) - with_capacity, unreachable, with_capacity - unreachable - kept


@compiled
def zero_pruned(capacity, row_tail, row_head, row_start, reached, leads):
    """Set the capacity of edges on no source-sink path to zero, in place."""
    for k in range(len(row_tail)):
        head = row_head[k] - row_start[k]
        for e in range(row_start[k], row_start[k + 1]):
            if not (reached[row_tail[k]] and leads[head + e]):
                capacity[e] = 0.0


@compiled
def degrees(row_tail, row_head, row_start, capacity, n):
    """Numbers of kept edges into and out of every node."""
    into, out = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        capacity_ = capacity[begin:end]
        into_ = into[row_head[k] : row_head[k] + end - begin]
        total = 0
        for e in range(end - begin):
            into_[e] += capacity_[e] > 0
            total += capacity_[e] > 0
        out[row_tail[k]] += total
    return into, out


@compiled
def depths(capacity, row_head, row_start, node_rows, node_rows_start, order):
    """Longest number of kept edges from the top to every node."""
    depth = np.zeros(len(order))
    for v in order:
        below = depth[v] + 1
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            begin, end = row_start[k], row_start[k + 1]
            capacity_ = capacity[begin:end]
            depth_ = depth[row_head[k] : row_head[k] + end - begin]
            for e in range(end - begin):
                depth_[e] = below if capacity_[e] > 0 and below > depth_[e] else depth_[e]
    return depth


# --- sums ---------------------------------------------------------------------------------------


@compiled_sums
def node_sums(row_tail, row_head, row_start, flow, n):
    """Inflow and outflow of every node from its edges, shape (n,) each."""
    into, out = np.zeros(n), np.zeros(n)
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        flow_ = flow[begin:end]
        into_ = into[row_head[k] : row_head[k] + end - begin]
        total = 0.0
        for e in range(end - begin):
            total += flow_[e]
            into_[e] += flow_[e]
        out[row_tail[k]] += total
    return into, out


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
def excess(flow, capacity):
    """Largest violation of 0 <= flow <= capacity; NaN counts as infinite."""
    worst = 0.0
    for e in range(len(flow)):
        over = max(flow[e] - capacity[e], -flow[e])
        if not over <= worst:
            worst = over if over == over else np.inf
    return worst


# --- repair -------------------------------------------------------------------------------------


@compiled
def clip(flow, slack, capacity, given):
    """Clip flow to its bounds and NaN to 0, in place, and set its slack where none is `given`."""
    for e in range(len(flow)):
        u = capacity[e]
        f = flow[e]
        f = f if f > 0.0 else 0.0  # NaN too
        f = f if f < u else u
        f = 0.0 if f == np.inf else f
        flow[e] = f
        rest = slack[e] if given else u - f
        slack[e] = rest if rest > 0.0 else 0.0


@compiled
def honest_slack(flow, slack, capacity, rounding):
    """Whether slack is capacity - flow up to rounding."""
    wrong = 0
    for e in range(len(flow)):
        u = capacity[e]
        difference = abs(u - flow[e] - slack[e])
        wrong += (u < np.inf) and not (difference <= rounding * u)
    return wrong == 0


@compiled_sums
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
        out = room = 0.0
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            begin, end = row_start[k], row_start[k + 1]
            flow_, slack_ = flow[begin:end], slack[begin:end]
            for e in range(end - begin):
                out += flow_[e]
                s = flow_[e] if flow_[e] < slack_[e] else slack_[e]
                room += s * s
        missing = into[v] - out
        if source[v]:
            missing = max(missing, 0.0)
        if sink[v]:
            missing = min(missing, 0.0)
        # an edge changes by missing s^2 / room <= |missing| s / sqrt(room): keep that below s / 2;
        # the rounding of a node's large full edges is not put on its small ones, where it shows
        share = 0.0
        if ROUNDING * into[v] < abs(missing) < 0.5 * np.sqrt(room):
            share = missing / room
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            begin, end = row_start[k], row_start[k + 1]
            flow_, slack_ = flow[begin:end], slack[begin:end]
            into_ = into[row_head[k] : row_head[k] + end - begin]
            if share == 0.0:
                for e in range(end - begin):
                    into_[e] += flow_[e]
            else:
                for e in range(end - begin):
                    s = flow_[e] if flow_[e] < slack_[e] else slack_[e]
                    change = share * (s * s)
                    flow_[e] += change
                    slack_[e] -= change
                    into_[e] += flow_[e]


@compiled_sums
def trim(
    flow, slack, row_tail, row_head, row_start, node_rows, node_rows_start, order, source, sink,
    rounding,
):  # fmt: skip
    """Make a flow within its bounds conserve exactly, in place, by only ever reducing it.

    Bottom-up, a node that receives more than it passes on has its inflow scaled down; then,
    top-down, a node that passes on more than it receives has its outflow scaled down. Bounds
    cannot break, and the value falls by at most the sum of the imbalances.
    """
    n = len(order)
    into, out = node_sums(row_tail, row_head, row_start, flow, n)
    keep = np.ones(n)
    reduced = False
    for at in range(n - 1, -1, -1):
        v = order[at]
        if reduced:
            out[v] = 0.0
            for i in range(node_rows_start[v], node_rows_start[v + 1]):
                k = node_rows[i]
                begin, end = row_start[k], row_start[k + 1]
                flow_, slack_ = flow[begin:end], slack[begin:end]
                keep_ = keep[row_head[k] : row_head[k] + end - begin]
                total = 0.0
                for e in range(end - begin):
                    slack_[e] += flow_[e] * (1.0 - keep_[e])
                    flow_[e] *= keep_[e]  # as a product: a small rest keeps its digits
                    total += flow_[e]
                out[v] += total
        if not sink[v] and into[v] > out[v] * (1 + rounding):
            keep[v] = out[v] / into[v]
            reduced = True
    into[:] = 0.0
    for v in order:
        total = 0.0
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            flow_ = flow[row_start[k] : row_start[k + 1]]
            for e in range(len(flow_)):
                total += flow_[e]
        scale = 1.0
        if not source[v] and total > into[v] * (1 + rounding):
            scale = into[v] / total
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            begin, end = row_start[k], row_start[k + 1]
            flow_, slack_ = flow[begin:end], slack[begin:end]
            into_ = into[row_head[k] : row_head[k] + end - begin]
            if scale == 1.0:
                for e in range(end - begin):
                    into_[e] += flow_[e]
            else:
                for e in range(end - begin):
                    slack_[e] += flow_[e] * (1.0 - scale)
                    flow_[e] *= scale
                    into_[e] += flow_[e]


# --- the certificate of the barrier ---------------------------------------------------------------


@compiled_sums
def barrier_distance(flow, slack, capacity, row_tail, row_head, row_start, potential, mu, n):
    """delta^2 of method section 7, and the sum of w_e over the edges into and out of each node.

    Infinite where an edge has no flow or no slack left.
    """
    total = 0.0
    into, out = np.zeros(n), np.zeros(n)
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        first, last = row_head[k], row_head[k] + end - begin
        flow_, slack_, capacity_ = flow[begin:end], slack[begin:end], capacity[begin:end]
        potential_, into_ = potential[first:last], into[first:last]
        top = potential[row_tail[k]]
        leaving = away = 0.0
        for e in range(end - begin):
            u = capacity_[e]
            live = (u > 0) & (u < np.inf)
            f, rest = flow_[e], slack_[e]
            low = f if f < rest else rest
            high = rest if f < rest else f
            ratio = low / high
            root = low / np.sqrt(1.0 + ratio * ratio)  # sqrt(w), without overflow for tiny flows
            root = root if low > 0 else 0.0
            price = (top - potential_[e]) / mu
            term = root * price + root / f - root / rest
            term = term if low > 0 else np.inf
            term = term if live else 0.0
            root = root if live else 0.0
            away += term * term
            into_[e] += root * root
            leaving += root * root
        total += away
        out[row_tail[k]] += leaving
    return total, into, out
