"""Compiled passes of the native barrier solver (method.md section 6).

Arrays are those of `flowopt.graph.Graph`; an edge without capacity, or unlimited, has flow and
weight 0 here (unlimited edges are merged away before).
"""

from __future__ import annotations

import numpy as np

from flowopt.graph_kernels import compiled, compiled_sums


@compiled_sums
def barrier_pass(capacity, row_tail, row_head, row_start, z, mu, weight, residual, diagonal):
    """One read of the capacities: edge weights, and residual and weight sums by node.

    z = y / mu are the potentials. With s = (z_tail - z_head) u, the best flow of an edge is
    f = u g(s), g in (0, 1) the root of s g^2 - (s - 2) g - 1 = 0; df/dy = u^2 h^2 / (mu (1 - 2h)),
    h = g (1 - g).
    The smaller of g and 1 - g is 2 / (2 + |s| + sqrt(s^2 + 4)): no cancellation.
    """
    scale = 1.0 / mu
    residual[:] = 0.0
    diagonal[:] = 0.0
    for r in range(len(row_tail)):
        begin, end = row_start[r], row_start[r + 1]
        head = row_head[r] - begin
        top = z[row_tail[r]]
        leaving = 0.0
        spread = 0.0
        for e in range(begin, end):
            u = capacity[e]
            u = u if u < np.inf else 0.0
            s = (top - z[head + e]) * u
            a = abs(s)
            small = 2.0 / (2.0 + a + np.sqrt(s * s + 4.0))
            g = 1.0 - small if s > 0 else small
            h = small * (1.0 - small)
            f = u * g
            w = (u * h) * (u * h) * scale / (1.0 - 2.0 * h)
            weight[e] = w
            leaving += f
            spread += w
            residual[head + e] -= f
            diagonal[head + e] += w
        residual[row_tail[r]] += leaving
        diagonal[row_tail[r]] += spread


@compiled_sums
def barrier_flow(capacity, row_tail, row_head, row_start, z, flow):
    """Best flow of every edge at potentials mu z, in place."""
    for r in range(len(row_tail)):
        begin, end = row_start[r], row_start[r + 1]
        head = row_head[r] - begin
        top = z[row_tail[r]]
        for e in range(begin, end):
            u = capacity[e]
            u = u if u < np.inf else 0.0
            s = (top - z[head + e]) * u
            small = 2.0 / (2.0 + abs(s) + np.sqrt(s * s + 4.0))
            flow[e] = u * (1.0 - small) if s > 0 else u * small


@compiled_sums
def laplacian(weight, row_tail, row_head, row_start, diagonal, x, out):
    """Weighted graph Laplacian times x, into `out`; every weight is read once."""
    for v in range(len(x)):
        out[v] = diagonal[v] * x[v]
    for r in range(len(row_tail)):
        begin, end = row_start[r], row_start[r + 1]
        head = row_head[r] - begin
        top = x[row_tail[r]]
        total = 0.0
        for e in range(begin, end):
            w = weight[e]
            total += w * x[head + e]
            out[head + e] -= w * top
        out[row_tail[r]] -= total


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
        laplacian(weight, row_tail, row_head, row_start, diagonal, full, image)
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
def assemble(weight, row_tail, row_head, row_start, label, h):
    """Add the merged Laplacian to the dense matrix h, in place."""
    for r in range(len(row_tail)):
        head = row_head[r] - row_start[r]
        i = label[row_tail[r]]
        for e in range(row_start[r], row_start[r + 1]):
            w = weight[e]
            if w > 0:
                j = label[head + e]
                if i >= 0:
                    h[i, i] += w
                if j >= 0:
                    h[j, j] += w
                if i >= 0 and j >= 0:
                    h[i, j] -= w
                    h[j, i] -= w


@compiled
def longest_path(capacity, row_tail, row_head, row_start, node_rows, node_rows_start, order, depth):
    """Longest number of kept edges from the top to each node, in place (depth starts at 0)."""
    for v in order:
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] > 0:
                    depth[head + e] = max(depth[head + e], depth[v] + 1)


@compiled
def longest_path_back(
    capacity, row_tail, row_head, row_start, node_rows, node_rows_start, order, height
):
    """Longest number of kept edges from each node to the bottom, in place (starts at 0)."""
    for i in range(len(order) - 1, -1, -1):
        v = order[i]
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] > 0:
                    height[v] = max(height[v], height[head + e] + 1)


@compiled
def fill_unlimited(
    flow, capacity, row_tail, row_head, row_start, node_rows, node_rows_start, order, source
):
    """Flow of unlimited edges from conservation, in place.

    Such an edge is its tail's only way out, or its head's only way in; both cases are settled
    by working down the order twice: first from what the head passes on, then from the tail.
    """
    n = len(order)
    into, out = np.zeros(n), np.zeros(n)
    for i in range(n - 1, -1, -1):  # heads' outflow, known bottom-up
        v = order[i]
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] == np.inf:
                    flow[e] = out[head + e]
                out[v] += flow[e]
    for v in order:  # where the tail receives something, that is what it must pass on
        finite = unlimited = 0
        passed = 0.0
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] == np.inf:
                    unlimited += 1
                elif capacity[e] > 0:
                    finite += 1
                    passed += flow[e]
        for k in range(node_rows_start[v], node_rows_start[v + 1]):
            r = node_rows[k]
            head = row_head[r] - row_start[r]
            for e in range(row_start[r], row_start[r + 1]):
                if capacity[e] == np.inf and unlimited == 1 and finite == 0 and not source[v]:
                    flow[e] = into[v]
                into[head + e] += flow[e]
