"""Quadratic and Entropy: duality gaps without cancellation, and what they say about tokens.

With f a feasible flow and b the best flows at given potentials, the gap of an edge is a distance
between f and b. Written as one it keeps its relative precision down to the rounding of f, which
matters because the error of an attribution is about its square root.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import Entropy, Quadratic, Separable

ROUNDING = 4 * float(np.finfo(np.float64).eps)  # relative, of a best flow as it is computed


def edge_shortfall(
    objective: Separable, flow: FloatArray, capacity: FloatArray, price: FloatArray
) -> FloatArray:
    """Largest phi(x) + r x over x, less phi(f) + r f, by edge; all arrays of shape (k,).

    Quadratic: rho/2 (f - b)^2 / u + (b - f)(r - rho b / u), the second factor zero unless b is
    clipped. Entropy: tau KL(f, b) + (b - f) max(r - tau, 0), KL(f, b) = f log(f/b) - f + b. Both
    are sums of nonnegative terms. Where f and b are close, their distance is taken larger by what
    rounding may have moved b.
    """
    best = objective.edge_best(price, capacity)
    if isinstance(objective, Quadratic):
        rho = objective.rho
        beyond = np.where(price > rho, price - rho, np.minimum(price, 0.0))
        apart = np.abs(flow - best) + ROUNDING * best
        return rho / 2 * apart**2 / capacity + (best - flow) * beyond
    if isinstance(objective, Entropy):
        tau = objective.tau
        return tau * _divergence(flow, best, capacity, np.minimum(price / tau - 1, 0.0)) + (
            best - flow
        ) * np.maximum(price - tau, 0.0)
    value = objective.edge_value
    term = price * (best - flow) + value(best, capacity) - value(flow, capacity)
    return np.maximum(term, 0.0)


def _divergence(
    flow: FloatArray, best: FloatArray, capacity: FloatArray, exponent: FloatArray
) -> FloatArray:
    """KL(f, b) for b = u exp(exponent), from above where it is small; b may underflow to 0."""
    with np.errstate(over="ignore"):
        shift = (flow - best) / np.maximum(best, 1e-300)
    close = (np.abs(shift) < 1e-4) & (best > 1e-300)
    shift = np.where(close, np.abs(shift) + ROUNDING * (1 - exponent), 0.0)
    # (1 + d) log(1 + d) - d <= d^2 / 2 (1 + |d|) for |d| < 1
    near = best * shift**2 / 2 * (1 + shift)
    ratio = np.where(flow > 0, flow, capacity) / capacity
    far = np.where(flow > 0, flow * (np.log(ratio) - exponent), 0.0) - flow + best
    return np.where(close, near, np.maximum(far, 0.0))


def attribution_error(
    net: FlowNetwork, objective: Separable, kept: FloatArray, y: FloatArray, gap: float
) -> FloatArray:
    """Upper bound (n_players,) on the distance of each attribution from the optimum's.

    Parameters
    ----------
    objective : Separable
        With positive `modulus`.
    kept : ndarray, shape (m,)
        The feasible flow f.
    y : ndarray, shape (n_nodes,)
        Potentials that prove `gap`.
    gap : float
        In units of flow.

    Notes
    -----
    f* is the optimum, P the objective, D(y) the dual bound, gap = D(y) - P(f), and S_j the edges
    of finite capacity whose flow adds up to a_j. Strong concavity of modulus m gives
    m/2 sum_e (f_e - f*_e)^2 / u_e <= P(f*) - P(f) <= gap, and Cauchy-Schwarz over S_j

        |a_j - a*_j| <= sqrt(2 gap / m * sum_{S_j} u_e).

    *Quadratic.* With |d|^2 = rho sum d_e^2 / u_e also |f* - b|^2 / 2 <= D(y) - P(f*). The sum of
    the two is |f* - c|^2 + |f - b|^2 / 4 <= gap with c = (f + b) / 2 (Prager and Synge's
    hypercircle), so |a_j - a*_j| <= |sum_{S_j} (f - b)| / 2 + sqrt((gap - |f - b|^2 / 4) / rho *
    sum_{S_j} u_e): half the bound above, and less.

    *Entropy.* P(f) = P(f*) + P'(f*)(f - f*) - tau sum_e KL(f_e, f*_e), and the middle term is not
    positive at the optimum, so sum_e KL(f_e, f*_e) <= gap / tau = c. By the log-sum inequality
    KL(a_j, a*_j) <= c; with a*_j = (1 + d) a_j that is d - log(1 + d) <= c / a_j, hence
    |a_j - a*_j| <= sqrt(2 c a_j) + c. The smaller of this and the first bound is taken: it sees
    the flow of the token where the first sees its capacity.
    """
    if not np.isfinite(gap):
        return np.full(net.n_players, np.inf)
    reading, known = finite_reading(net)
    finite = np.isfinite(net.capacity)
    capacity = np.where(finite, net.capacity, 0.0)
    room = reading @ capacity
    gap = max(gap, 0.0)
    error = np.sqrt(2 * gap / objective.modulus * room)
    if isinstance(objective, Quadratic):
        edges = net.edges
        price = y[edges.tail] - y[edges.head]
        apart = np.zeros_like(kept)
        apart[finite] = kept[finite] - objective.edge_best(price[finite], capacity[finite])
        square = objective.rho * float((apart[finite] ** 2 / capacity[finite]).sum())
        rest = max(gap - square / 4, 0.0)
        error = np.abs(reading @ apart) / 2 + np.sqrt(rest / objective.rho * room)
    elif isinstance(objective, Entropy):
        share = gap / objective.tau
        error = np.minimum(error, np.sqrt(2 * share * (reading @ kept)) + share)
    return np.where(known, error, np.inf)


def barrier_room(
    net: FlowNetwork, flow: FloatArray, slack: FloatArray, into: FloatArray, out: FloatArray
) -> FloatArray:
    """Sum (n_players,) of w_e = (1/f^2 + 1/(u-f)^2)^-1 over edges whose flow is the player's.

    Only edges of finite capacity have a barrier term and so a w_e; where an unlimited edge is
    part of what a player receives, the limited edges that carry the same flow stand for it.

    Parameters
    ----------
    flow, slack : ndarray, shape (E,)
    into, out : ndarray, shape (n_nodes,)
        Sums of w_e over the limited edges into and out of every node.
    """
    graph = net.graph
    gives = graph.source[graph.players]  # what leaves a source is its flow, whatever comes in
    unlimited = np.flatnonzero(np.isinf(graph.capacity))
    if len(unlimited):
        row = np.searchsorted(graph.row_start, unlimited, side="right") - 1
        head = graph.row_head[row] + unlimited - graph.row_start[row]
        near = np.where(
            gives, np.isin(graph.players, graph.row_tail[row]), np.isin(graph.players, head)
        )
        if near.any():
            reading, known = finite_reading(net)
            edges = net.edges
            f, rest = flow[edges.index], slack[edges.index]
            finite = np.isfinite(edges.capacity)
            weight = np.zeros(len(f))
            weight[finite] = np.hypot(1 / f[finite], 1 / rest[finite]) ** -2
            return np.where(known, reading @ weight, np.inf)
    return np.where(gives, out[graph.players], into[graph.players])


def finite_reading(net: FlowNetwork) -> tuple[sp.csr_array, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Sets of edges of finite capacity whose flow is each player's attribution.

    Returns
    -------
    csr_array, shape (n_players, m)
        Zeros and ones; a row of zeros where there is no such set.
    ndarray of bool, shape (n_players,)
        Whether there is one.
    """
    edges, graph = net.edges, net.graph
    known = np.ones(net.n_players, dtype=bool)
    unlimited = np.isinf(edges.capacity)
    if not unlimited.any():
        return edges.player_matrix, known
    leaving = sp.csr_array(edges.full_incidence.maximum(0))
    entering = sp.csr_array((-edges.full_incidence).maximum(0))
    terminal = graph.source | graph.sink
    rows = []
    for player in range(net.n_players):
        node = int(graph.players[player])
        sides = [edges.player_matrix[[player]].indices]
        if not terminal[node]:
            sides.append(entering[[node]].indices)
        found = [_expanded(net, set(side.tolist()), leaving, entering) for side in sides]
        best = next((f for f in found if f is not None), None)
        known[player] = best is not None
        rows.append(sorted(best or ()))
    starts = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.concatenate([np.array(row, dtype=np.int64) for row in rows])
    shape = (net.n_players, len(edges.capacity))
    return sp.csr_array((np.ones(len(columns)), columns, starts), shape=shape), known


def _expanded(
    net: FlowNetwork, chosen: set[int], leaving: sp.csr_array, entering: sp.csr_array
) -> set[int] | None:
    """Replace unlimited edges by the limited ones that must carry the same flow; None if none."""
    edges, graph = net.edges, net.graph
    terminal = graph.source | graph.sink
    for _ in range(graph.n_nodes):
        free = [e for e in chosen if np.isinf(edges.capacity[e])]
        if not free:
            return chosen
        e = free[0]
        tail, head = int(edges.tail[e]), int(edges.head[e])
        # all that enters the tail leaves by e, or all that leaves the head came by e
        before, after = entering[[tail]].indices, leaving[[head]].indices
        if not terminal[tail] and len(leaving[[tail]].indices) == 1:
            more = set(before.tolist())
        elif not terminal[head] and len(entering[[head]].indices) == 1:
            more = set(after.tolist())
        else:
            return None
        if more & chosen:
            return None
        chosen = (chosen - {e}) | more
    return None
