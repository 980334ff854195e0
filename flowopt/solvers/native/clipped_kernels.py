"""Compiled passes over the edges for objectives that clip edge flows to their capacity.

Everything is in shares of capacity x = f / u, so an edge's term is u times a function of x and of
its price r alone: ``-k x^2 / 2`` for `QUADRATIC`, ``-k x log x`` for `ENTROPY`, k the weight rho
or tau. These two are told apart in `_best` and `_curve` only. Arrays and the slicing of rows are
those of `kernels`.
"""

from __future__ import annotations

import numba
import numpy as np

from flowopt.network.kernels import compiled, compiled_sums

inlined = numba.njit(inline="always")

QUADRATIC, ENTROPY = 0, 1


# --- the two edge functions ---------------------------------------------------------------------


@inlined
def _best(kind, k, r):
    """Best share at price r, and its derivative by r (0 exactly where the share is clipped)."""
    if kind == QUADRATIC:
        v = r / k
        x = v if v > 0.0 else 0.0
        x = x if x < 1.0 else 1.0
        return x, (1.0 / k if x == v else 0.0)
    v = r / k - 1.0
    x = np.exp(v if v < 0.0 else 0.0)
    return x, ((x if x > 1e-20 else 1e-20) / k if v < 0.0 else 0.0)


@inlined
def _curve(kind, k, x):
    """First derivative of the term by x, and minus the second."""
    if kind == QUADRATIC:
        return -k * x, k
    return -k * (np.log(x) + 1.0), k / x


# --- the dual function --------------------------------------------------------------------------


@compiled_sums
def dual_pass(
    capacity, row_tail, row_head, row_start, reward, kind, k, floor, y, weight, residual, diagonal
):
    """Edge weights df/dr, and by node the residual of the best flows and the sum of weights.

    Clipped edges get `floor` u / k, so that a node whose edges are all clipped is not adrift.
    Returns the sum of all flows.
    """
    residual[:] = 0.0
    diagonal[:] = 0.0
    total = 0.0
    for i in range(len(row_tail)):
        begin, end = row_start[i], row_start[i + 1]
        first, last = row_head[i], row_head[i] + end - begin
        capacity_ = capacity[begin:end]
        weight_ = weight[begin:end]
        y_ = y[first:last]
        residual_ = residual[first:last]
        diagonal_ = diagonal[first:last]
        top = y[row_tail[i]] + reward[i]
        leaving = spread = 0.0
        for e in range(end - begin):
            u = capacity_[e]
            x, slope = _best(kind, k, top - y_[e])
            w = u * (slope if slope > 0.0 else floor / k)
            f = u * x
            weight_[e] = w
            leaving += f
            spread += w
            residual_[e] -= f
            diagonal_[e] += w
        residual[row_tail[i]] += leaving
        diagonal[row_tail[i]] += spread
        total += leaving
    return total


@compiled
def best_flow(capacity, row_tail, row_head, row_start, reward, kind, k, y, dy, flow):
    """Best flow of every edge at potentials y + dy, in place; dy may be below y's rounding."""
    for i in range(len(row_tail)):
        begin, end = row_start[i], row_start[i + 1]
        first, last = row_head[i], row_head[i] + end - begin
        capacity_ = capacity[begin:end]
        flow_ = flow[begin:end]
        y_ = y[first:last]
        dy_ = dy[first:last]
        top, dtop = y[row_tail[i]] + reward[i], dy[row_tail[i]]
        for e in range(end - begin):
            x, _ = _best(kind, k, (top - y_[e]) + (dtop - dy_[e]))
            flow_[e] = capacity_[e] * x


# --- the interior path: flows and the multipliers of their two bounds --------------------------


@inlined
def _state(u, share):
    """Flow and slack from the number kept of an edge: the flow, or minus the slack if smaller."""
    p = np.float64(share)
    return (p if p >= 0 else u + p), (u - p if p >= 0 else -p)


@inlined
def _step(kind, k, u, f, s, zl, zu, r, dr, target):
    """Newton steps of an edge's flow and multipliers towards f zl = s zu = target."""
    first, second = _curve(kind, k, f / u)
    inverse = 1.0 / (f * s)
    df = (dr + r + first + target * (s - f) * inverse) / (second / u + (zl * s + zu * f) * inverse)
    dzl = (target - zl * (f + df)) * (s * inverse)
    dzu = (target - zu * (s - df)) * (f * inverse)
    return df, dzl, dzu


@compiled
def start(capacity, row_tail, row_head, row_start, reward, scale, theta, y, p, zl, zu):
    """Edge states with f zl = s zu = theta v at potentials y, in place; balance is not met.

    v = sqrt(u scale). The objective's own term is left out.
    """
    for i in range(len(row_tail)):
        begin, end = row_start[i], row_start[i + 1]
        first, last = row_head[i], row_head[i] + end - begin
        capacity_ = capacity[begin:end]
        p_, zl_, zu_ = p[begin:end], zl[begin:end], zu[begin:end]
        y_ = y[first:last]
        top = y[row_tail[i]] + reward[i]
        for e in range(end - begin):
            u = capacity_[e] if capacity_[e] > 0 else scale
            target = theta * np.sqrt(u * scale)
            r = top - y_[e]
            q = abs(r) * u / target
            small = 2.0 / (2.0 + q + np.sqrt(q * q + 4.0))
            p_[e] = -u * small if r > 0 else u * small
            less, more = target / (u * (1.0 - small)), target / (u * small)
            zl_[e] = less if r > 0 else more
            zu_[e] = more if r > 0 else less


@compiled_sums
def advance(
    capacity, row_tail, row_head, row_start, reward, scale, kind, k, y, dy, theta, step_f, step_z,
    p, zl, zu, weight, balance, tilt, diagonal,
):  # fmt: skip
    """Take a step towards the path's point at `theta`, then set up the next Newton system.

    Its right-hand side by node is `balance` + (next theta) * `tilt`. Returns the sum of
    (f zl + s zu) / v over the edges that have capacity.
    """
    balance[:] = 0.0
    tilt[:] = 0.0
    diagonal[:] = 0.0
    products = 0.0
    for i in range(len(row_tail)):
        begin, end = row_start[i], row_start[i + 1]
        first, last = row_head[i], row_head[i] + end - begin
        capacity_ = capacity[begin:end]
        p_, zl_, zu_ = p[begin:end], zl[begin:end], zu[begin:end]
        weight_ = weight[begin:end]
        y_, dy_ = y[first:last], dy[first:last]
        balance_, tilt_ = balance[first:last], tilt[first:last]
        diagonal_ = diagonal[first:last]
        tail = row_tail[i]
        top, dtop = y[tail] + reward[i], dy[tail]
        sum_push = sum_tilt = sum_weight = 0.0
        for e in range(end - begin):
            live = capacity_[e] > 0
            u = capacity_[e] if live else scale
            v = np.sqrt(u * scale)
            f, s = _state(u, p_[e])
            a, b = np.float64(zl_[e]), np.float64(zu_[e])
            r = top - y_[e]
            dr = dtop - dy_[e]
            df, da, db = _step(kind, k, u, f, s, a, b, r, dr, theta * v)
            move = step_f if live else 0.0
            turn = step_z if live else 0.0
            f += move * df
            s -= move * df
            a += turn * da
            b += turn * db
            r += step_z * dr
            p_[e] = f if f <= s else -s
            zl_[e] = a
            zu_[e] = b
            slope, second = _curve(kind, k, f / u)
            inverse = 1.0 / (f * s)
            w = 1.0 / (second / u + (a * s + b * f) * inverse)
            push = f + w * (r + slope)
            lean = w * v * (s - f) * inverse
            w = w if live else 0.0
            push = push if live else 0.0
            lean = lean if live else 0.0
            weight_[e] = w
            products += (a * f + b * s) / v if live else 0.0
            sum_push += push
            sum_tilt += lean
            sum_weight += w
            balance_[e] -= push
            tilt_[e] -= lean
            diagonal_[e] += w
        balance[tail] += sum_push
        tilt[tail] += sum_tilt
        diagonal[tail] += sum_weight
    return products


@compiled_sums
def step_lengths(
    capacity, row_tail, row_head, row_start, reward, scale, kind, k, y, dy, theta, p, zl, zu
):
    """Largest relative decrease of a flow or slack, and of a multiplier, in a full step."""
    worst_f, worst_z = np.zeros(len(y)), np.zeros(len(y))
    for i in range(len(row_tail)):
        begin, end = row_start[i], row_start[i + 1]
        first, last = row_head[i], row_head[i] + end - begin
        capacity_ = capacity[begin:end]
        p_, zl_, zu_ = p[begin:end], zl[begin:end], zu[begin:end]
        y_, dy_ = y[first:last], dy[first:last]
        worst_f_, worst_z_ = worst_f[first:last], worst_z[first:last]
        tail = row_tail[i]
        top, dtop = y[tail] + reward[i], dy[tail]
        for e in range(end - begin):
            live = capacity_[e] > 0
            u = capacity_[e] if live else scale
            v = np.sqrt(u * scale)
            f, s = _state(u, p_[e])
            a, b = np.float64(zl_[e]), np.float64(zu_[e])
            r, dr = top - y_[e], dtop - dy_[e]
            df, da, db = _step(kind, k, u, f, s, a, b, r, dr, theta * v)
            c, d = -df / f, df / s
            c = d if d > c else c
            c = c if live else 0.0
            worst_f_[e] = c if c > worst_f_[e] else worst_f_[e]
            c, d = -da / a, -db / b
            c = d if d > c else c
            c = c if live else 0.0
            worst_z_[e] = c if c > worst_z_[e] else worst_z_[e]
    return np.max(worst_f), np.max(worst_z)
