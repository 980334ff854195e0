"""Compiled passes over the edges for the native barrier solver (method.md section 6).

Arrays are those of `flowopt.network.graph.Graph`, with one more row where the return edge is
limited; `reward` is an edge's own objective coefficient by row (1 on the return edge). Edges
without capacity have flow and weight 0. The price of an edge is r = reward + y_tail - y_head.

Rows are sliced (``capacity_`` is one row of ``capacity``) because indices that start at 0 need no
check for negative ones, and only then do the loops run in vector registers.
"""

from __future__ import annotations

import numba
import numpy as np

from flowopt.network.kernels import compiled, compiled_sums

inlined = numba.njit(inline="always")


# --- the dual function: best flows at given potentials ---------------------------------------


@compiled_sums
def dual_pass(
    capacity, row_tail, row_head, row_start, reward, y, mu, weight, residual, diagonal
):  # fmt: skip
    """One read of the capacities: edge weights, and residual and weight sums by node.

    With s = r u / mu, the best flow of an edge is f = u g(s), g in (0, 1) the root of
    s g^2 - (s - 2) g - 1 = 0; df/dr = u^2 h^2 / (mu (1 - 2h)), h = g (1 - g). The smaller of g
    and 1 - g is 2 / (2 + |s| + sqrt(s^2 + 4)): no cancellation.
    """
    residual[:] = 0.0
    diagonal[:] = 0.0
    scale = 1.0 / mu
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        first, last = row_head[k], row_head[k] + end - begin
        capacity_ = capacity[begin:end]
        weight_ = weight[begin:end]
        y_ = y[first:last]
        residual_ = residual[first:last]
        diagonal_ = diagonal[first:last]
        top = y[row_tail[k]] + reward[k]
        leaving = 0.0
        spread = 0.0
        for e in range(end - begin):
            u = capacity_[e]
            r = top - y_[e]
            s = r * (u * scale)
            small = 2.0 / (2.0 + abs(s) + np.sqrt(s * s + 4.0))
            g = 1.0 - small if s > 0 else small
            h = small * (1.0 - small)
            f = u * g
            w = (u * h) * (u * h) * scale / (1.0 - 2.0 * h)
            weight_[e] = w
            leaving += f
            spread += w
            residual_[e] -= f
            diagonal_[e] += w
        residual[row_tail[k]] += leaving
        diagonal[row_tail[k]] += spread


@inlined
def _best(u, r, dr, scale):
    """Best flow and slack of an edge at price r + dr, to first order in dr."""
    s = r * (u * scale)
    small = 2.0 / (2.0 + abs(s) + np.sqrt(s * s + 4.0))
    h = small * (1.0 - small)
    change = dr * ((u * h) * (u * h) * scale / (1.0 - 2.0 * h))
    f = (u * (1.0 - small) if s > 0 else u * small) + change
    return f, (u * small if s > 0 else u * (1.0 - small)) - change


@compiled_sums
def best_flow(capacity, row_tail, row_head, row_start, reward, y, dy, mu, flow, slack):
    """Best flow of every edge at potentials y + dy, and what it leaves free, in place.

    To first order in dy, which so may be far below the rounding of y.
    """
    scale = 1.0 / mu
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        first, last = row_head[k], row_head[k] + end - begin
        capacity_ = capacity[begin:end]
        flow_ = flow[begin:end]
        slack_ = slack[begin:end]
        y_ = y[first:last]
        dy_ = dy[first:last]
        top, dtop = y[row_tail[k]] + reward[k], dy[row_tail[k]]
        for e in range(end - begin):
            flow_[e], slack_[e] = _best(capacity_[e], top - y_[e], dtop - dy_[e], scale)


@compiled_sums
def best_balance(capacity, row_tail, row_head, row_start, reward, y, dy, mu, balance):
    """Outflow less inflow of every node under `best_flow`, in place; no flow is stored."""
    balance[:] = 0.0
    scale = 1.0 / mu
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        first, last = row_head[k], row_head[k] + end - begin
        capacity_ = capacity[begin:end]
        y_ = y[first:last]
        dy_ = dy[first:last]
        balance_ = balance[first:last]
        top, dtop = y[row_tail[k]] + reward[k], dy[row_tail[k]]
        leaving = 0.0
        for e in range(end - begin):
            f, _ = _best(capacity_[e], top - y_[e], dtop - dy_[e], scale)
            leaving += f
            balance_[e] -= f
        balance[row_tail[k]] += leaving


# --- the central path: flows and multipliers move together ------------------------------------


@inlined
def _state(u, p, q, r):
    """Flow, slack and their multipliers from the two numbers kept of an edge.

    p is the flow, or minus the slack if that is smaller; q the smaller multiplier. The others
    follow from f + s = u and zu - zl = r without cancellation.
    """
    f = p if p >= 0 else u + p
    s = u - p if p >= 0 else -p
    zl = q if r >= 0 else q - r
    zu = q + r if r >= 0 else q
    return f, s, zl, zu


@compiled
def central_start(capacity, row_tail, row_head, row_start, reward, y, mu, p, q):
    """Edge states with f zl = s zu = mu at potentials y, in place; conservation is not met."""
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        first, last = row_head[k], row_head[k] + end - begin
        capacity_ = capacity[begin:end]
        p_ = p[begin:end]
        q_ = q[begin:end]
        y_ = y[first:last]
        top = y[row_tail[k]] + reward[k]
        for e in range(end - begin):
            u = capacity_[e] if capacity_[e] > 0 else 1.0
            r = top - y_[e]
            x = abs(r) * u / mu
            share = 2.0 / (2.0 + x + np.sqrt(x * x + 4.0))
            p_[e] = -u * share if r > 0 else u * share
            q_[e] = mu / (u * (1.0 - share))


@compiled_sums
def advance(
    capacity, row_tail, row_head, row_start, reward, y, dy, old, step_f, step_z, new, mu,
    p, q, weight, balance, diagonal,
):  # fmt: skip
    """Step towards the path's point at `old`, then set up the Newton step towards `new`.

    Writes the states p, q, the edge weights, and by node the right-hand side `balance` and the
    sum of weights. Returns sum f zl + s zu, and the squared distance of f zl and s zu from mu.
    """
    balance[:] = 0.0
    diagonal[:] = 0.0
    products = distance = 0.0
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        first, last = row_head[k], row_head[k] + end - begin
        capacity_ = capacity[begin:end]
        p_ = p[begin:end]
        q_ = q[begin:end]
        weight_ = weight[begin:end]
        y_ = y[first:last]
        dy_ = dy[first:last]
        balance_ = balance[first:last]
        diagonal_ = diagonal[first:last]
        tail = row_tail[k]
        top, dtop = y[tail] + reward[k], dy[tail]
        sum_push = sum_weight = 0.0
        for e in range(end - begin):
            live = capacity_[e] > 0
            u = capacity_[e] if live else 1.0
            r = top - y_[e]
            dr = dtop - dy_[e]
            f, s, zl, zu = _state(u, np.float64(p_[e]), np.float64(q_[e]), r)
            inverse = 1.0 / (f * s)
            df = (dr + r + old * (s - f) * inverse) / ((zl * s + zu * f) * inverse)
            move = step_z if live else 0.0
            zl += move * (old - zl * (f + df)) * (s * inverse)
            zu += move * (old - zu * (s - df)) * (f * inverse)
            r += move * dr
            df *= step_f if live else 0.0
            f += df
            s -= df
            p_[e] = f if f <= s else -s
            q_[e] = zl if r >= 0 else zu
            inverse = 1.0 / (f * s)
            w = 1.0 / ((zl * s + zu * f) * inverse)
            push = f + w * (r + new * (s - f) * inverse)
            w = w if live else 0.0
            push = push if live else 0.0
            weight_[e] = w
            a, b = f * zl, s * zu
            products += a + b if live else 0.0
            a, b = a / mu - 1.0, b / mu - 1.0
            distance += a * a + b * b if live else 0.0
            sum_push += push
            sum_weight += w
            balance_[e] -= push
            diagonal_[e] += w
        balance[tail] += sum_push
        diagonal[tail] += sum_weight
    return products, distance


@compiled_sums
def step_lengths(capacity, row_tail, row_head, row_start, reward, y, dy, tau, p, q):
    """How far flows and multipliers may go towards the path's point at tau.

    Returns the largest relative decrease of a flow or slack, and of a multiplier, and the sums
    over edges of df r and df dr, which tell the products after any step.
    """
    # maxima by head node first: elementwise, so in vector registers
    worst_f, worst_z = np.zeros(len(y)), np.zeros(len(y))
    along = across = 0.0
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        first, last = row_head[k], row_head[k] + end - begin
        capacity_ = capacity[begin:end]
        p_ = p[begin:end]
        q_ = q[begin:end]
        y_ = y[first:last]
        dy_ = dy[first:last]
        worst_f_, worst_z_ = worst_f[first:last], worst_z[first:last]
        tail = row_tail[k]
        top, dtop = y[tail] + reward[k], dy[tail]
        for e in range(end - begin):
            live = capacity_[e] > 0
            u = capacity_[e] if live else 1.0
            r = top - y_[e]
            dr = dtop - dy_[e]
            f, s, zl, zu = _state(u, np.float64(p_[e]), np.float64(q_[e]), r)
            inverse = 1.0 / (f * s)
            df = (dr + r + tau * (s - f) * inverse) / ((zl * s + zu * f) * inverse)
            df = df if live else 0.0
            a, b = df * (s * inverse), df * (f * inverse)
            both = tau * inverse / (zl * zu)
            c, d = 1.0 + a - both * (zu * s), 1.0 - b - both * (zl * f)
            c = d if d > c else c
            a = b if b > -a else -a
            c = c if live else 0.0
            worst_f_[e] = a if a > worst_f_[e] else worst_f_[e]
            worst_z_[e] = c if c > worst_z_[e] else worst_z_[e]
            along += df * r
            across += df * dr
    return np.max(worst_f), np.max(worst_z), along, across


# --- the weighted graph Laplacian ---------------------------------------------------------------


@compiled_sums
def laplacian(weight, row_tail, row_head, row_start, x, out):
    """Weighted graph Laplacian times x, into `out`; every weight is read once.

    Summed as w (x_tail - x_head): weights span many orders of magnitude, and a diagonal of their
    sums would drown the small ones.
    """
    out[:] = 0.0
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        first, last = row_head[k], row_head[k] + end - begin
        weight_ = weight[begin:end]
        x_, out_ = x[first:last], out[first:last]
        top = x[row_tail[k]]
        total = 0.0
        for e in range(end - begin):
            difference = weight_[e] * (top - x_[e])
            total += difference
            out_[e] -= difference
        out[row_tail[k]] += total


@compiled_sums
def conjugate_gradients(
    weight, row_tail, row_head, row_start, diagonal, label, right, tolerance, limit, x
):
    """Solve the merged Laplacian system by Jacobi-preconditioned conjugate gradients, in place.

    `label` maps nodes to unknowns (-1: fixed at 0); `right` and `x` have one entry per unknown.
    Returns the number of steps, and whether the preconditioned residual fell by `tolerance`.
    """
    n, nodes = len(right), len(label)
    scale = np.zeros(n)
    for v in range(nodes):
        if label[v] >= 0:
            scale[label[v]] += diagonal[v]
    full, image = np.zeros(nodes), np.zeros(nodes)
    r = right.copy()
    x[:] = 0.0
    z = r / scale
    p = z.copy()
    rz = np.dot(r, z)
    goal = rz * tolerance * tolerance
    steps = 0
    q = np.zeros(n)
    while rz > goal and steps < limit:
        for v in range(nodes):
            full[v] = p[label[v]] if label[v] >= 0 else 0.0
        laplacian(weight, row_tail, row_head, row_start, full, image)
        q[:] = 0.0
        for v in range(nodes):
            if label[v] >= 0:
                q[label[v]] += image[v]
        curvature = np.dot(p, q)
        if not curvature > 0:
            break
        a = rz / curvature
        x += a * p
        r -= a * q
        z = r / scale
        previous = rz
        rz = np.dot(r, z)
        p = z + (rz / previous) * p
        steps += 1
    return steps, rz <= goal


@compiled
def assemble_blocks(
    weight, row_tail, row_head, row_start, label, part, local, sizes, offset, scale, flat
):  # fmt: skip
    """Subtract scale_i w scale_j at the merged Laplacian's entries (i, j), i != j, in place.

    Unknown x is number local[x] of part[x]; its block (i, j), i >= j, starts at offset[i, j] of
    the flat array, row-major. Diagonal blocks are filled on both sides; on the diagonal itself,
    what an edge between two nodes of one unknown adds to its sum of weights is taken off.
    """
    for k in range(len(row_tail)):
        begin, end = row_start[k], row_start[k + 1]
        weight_ = weight[begin:end]
        label_ = label[row_head[k] : row_head[k] + end - begin]
        i = label[row_tail[k]]
        if i < 0:
            continue
        a, x, own = part[i], local[i], scale[i]
        for e in range(end - begin):
            j = label_[e]
            if j < 0:
                continue
            w = weight_[e] * own * scale[j]
            b, y = part[j], local[j]
            if b < a:
                flat[offset[a, b] + x * sizes[b] + y] -= w
            elif b > a:
                flat[offset[b, a] + y * sizes[a] + x] -= w
            elif i != j:
                flat[offset[a, a] + x * sizes[a] + y] -= w
                flat[offset[a, a] + y * sizes[a] + x] -= w
            else:
                flat[offset[a, a] + x * sizes[a] + y] -= 2.0 * w


# --- unlimited edges --------------------------------------------------------------------------


@compiled
def fill_unlimited(flow, capacity, row_head, row_start, node_rows, node_rows_start, order, source):
    """Flow of unlimited edges from conservation, in place.

    Each is its head's only way in or its tail's only way out: bottom-up it takes what the head
    passes on, then top-down what the tail receives, where the tail has nothing else to do.
    """
    n = len(order)
    into, out = np.zeros(n), np.zeros(n)
    for at in range(n - 1, -1, -1):
        v = order[at]
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            head = row_head[k] - row_start[k]
            for e in range(row_start[k], row_start[k + 1]):
                if capacity[e] == np.inf:
                    flow[e] = out[head + e]
                out[v] += flow[e]
    for v in order:
        finite = unlimited = 0
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            for e in range(row_start[k], row_start[k + 1]):
                if capacity[e] == np.inf:
                    unlimited += 1
                elif capacity[e] > 0:
                    finite += 1
        for i in range(node_rows_start[v], node_rows_start[v + 1]):
            k = node_rows[i]
            head = row_head[k] - row_start[k]
            for e in range(row_start[k], row_start[k + 1]):
                if capacity[e] == np.inf and unlimited == 1 and finite == 0 and not source[v]:
                    flow[e] = into[v]
                into[head + e] += flow[e]


@compiled
def least_positive(capacity):
    """Smallest positive entry, infinity if there is none."""
    least = np.full(16, np.inf)  # elementwise, so in vector registers
    for start in range(0, len(capacity) - 15, 16):
        chunk = capacity[start : start + 16]
        for e in range(16):
            u = chunk[e] if chunk[e] > 0 else np.inf
            least[e] = u if u < least[e] else least[e]
    found = np.min(least)
    for u in capacity[len(capacity) - len(capacity) % 16 :]:
        if 0 < u < found:
            found = u
    return found
