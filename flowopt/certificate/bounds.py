"""Upper bounds on how far a feasible flow is from optimal (method.md section 7).

Each bound holds for any feasible flow and any potentials, whoever computed them: bad numbers
give a large bound, never a wrong one. Potentials follow `FlowSolution.potentials`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog
from scipy.sparse.linalg import spsolve

from flowopt.certificate.separable import attribution_error, barrier_room, edge_shortfall
from flowopt.network import FloatArray, FlowNetwork, kernels
from flowopt.objectives import (
    LogBarrier,
    MaxFlow,
    MaxMinFair,
    Objective,
    ProportionalFair,
    Separable,
    ShapleyFlow,
    reachable_players,
)

FIT_LIMIT = 200_000  # edges up to which missing potentials are fitted by a sparse factorisation
GOOD_DELTA = 1e-6


class Bound(NamedTuple):
    """The last four fields of a `Certificate`."""

    gap: float | None
    attribution_error: FloatArray | None
    delta: float | None
    method: str


def gap_bound(
    net: FlowNetwork,
    objective: Objective,
    kept: FloatArray,
    potential: FloatArray | None,
    value: float,
) -> tuple[Bound, FloatArray]:
    """Bound for any objective but the barrier.

    Parameters
    ----------
    kept : ndarray, shape (m,)
        A feasible flow over the kept edges.
    potential : ndarray, shape (n_nodes,), or None
        None: found by a linear program.
    value : float
        |f|.

    Returns
    -------
    Bound, ndarray of shape (n_nodes,)
        And the potentials behind it, NaN if there are none.
    """
    nothing = np.full(net.graph.n_nodes, np.nan)
    if isinstance(objective, Separable):
        gap, y = separable_gap(net, objective, kept, potential)
        concave = objective.modulus > 0
        error = attribution_error(net, objective, kept, y, gap) if concave else None
        return Bound(_relative(gap, value), error, None, "dual"), y
    if isinstance(objective, ProportionalFair | MaxMinFair):
        gap, y = fair_gap(net, kept, potential)
        error = net.inflow(kept) * largest_ratio(gap) if np.isfinite(gap) else None
        return Bound(gap, error, None, "fair"), y
    if isinstance(objective, ShapleyFlow):
        return shapley_bound(net, objective, kept, potential, value)
    if objective.constrained:
        return Bound(None, None, None, "none"), nothing
    gradient = objective.gradient(net, kept)
    if not np.isfinite(gradient).all():
        return Bound(None, None, None, "none"), nothing
    y = best_potential(net, gradient)
    gap = linear_gap(net, gradient, kept, y)
    gap = _relative(gap, value) if objective.facts.flow_units else gap
    return Bound(gap, None, None, "Frank-Wolfe"), y


def shapley_bound(
    net: FlowNetwork,
    objective: ShapleyFlow,
    kept: FloatArray,
    potential: FloatArray | None,
    value: float,
) -> tuple[Bound, FloatArray]:
    """What |f| misses of a cut, and the token flows of their values, relative to |f|.

    The attribution error is that of the flow plus what rounding may do to the average of all
    coalitions' values; None for sampled values, whose error is statistical.
    """
    gap, y = separable_gap(net, MaxFlow(), kept, potential)
    apart = np.abs(net.inflow(kept) - objective.target())
    gap = _relative(gap + float(apart.sum()), value)
    assert objective.values is not None  # target
    if objective.values.samples:
        return Bound(gap, None, None, "Shapley"), y
    rounding = np.finfo(np.float64).eps * (2.0**net.n_players + len(kept)) * value
    return Bound(gap, apart + rounding, None, "Shapley"), y


def _relative(gap: float, value: float) -> float:
    return gap / value if value > 0 else (0.0 if gap == 0 else np.inf)


# --- the barrier: distance in the norm of its Hessian ---------------------------------------


def barrier_bound(
    net: FlowNetwork,
    barrier: LogBarrier,
    flow: FloatArray,
    slack: FloatArray,
    potential: FloatArray | None,
    value: float,
) -> tuple[Bound, FloatArray]:
    """Gap and attribution error from the Newton distance delta; flow and slack on every edge."""
    graph, mu = net.graph, barrier.absolute_mu
    if not _interior(net, flow, slack, value):  # the barrier is minus infinity
        nothing = np.full(graph.n_nodes, np.nan)
        delta = np.inf if graph.contractible else None
        return Bound(np.inf, None, delta, "delta"), nothing if potential is None else potential
    if not graph.contractible:  # an unlimited edge may be idle: the duality gap still holds
        gap, y = separable_gap(net, barrier, flow[net.edges.index], potential)
        return Bound(_relative(gap, value), None, None, "dual"), y
    best = (np.inf, np.zeros(net.n_players), np.full(graph.n_nodes, np.nan))
    if potential is not None and np.isfinite(potential[graph.alive]).all():
        y = graph.merged(potential)
        best = (*newton_distance(net, mu, flow, slack, y, value), y)
    if best[0] > GOOD_DELTA and graph.report.kept <= FIT_LIMIT:
        y = fitted_potential(net, mu, flow, slack, value)
        fitted = (*newton_distance(net, mu, flow, slack, y, value), y)
        best = fitted if fitted[0] < best[0] else best
    delta, room, y = best
    if not delta < 1:
        return Bound(np.inf, None, delta, "delta"), y
    # -delta - log(1 - delta), from above where it would cancel
    excess = -delta - np.log1p(-delta) if delta > 1e-4 else delta**2 * (0.5 + delta)
    error = delta / (1 - delta) * np.sqrt(room)
    return Bound(mu * excess / value, error, delta, "delta"), y


def _interior(net: FlowNetwork, flow: FloatArray, slack: FloatArray, value: float) -> bool:
    """Whether every edge with a barrier term is strictly between its bounds."""
    idle = (net.graph.capacity <= 0) | np.isinf(net.graph.capacity)
    inside = ((flow > 0) | idle).all() and ((slack > 0) | idle).all()
    return bool(inside and (net.return_capacity is None or value < net.return_capacity))


def newton_distance(
    net: FlowNetwork, mu: float, flow: FloatArray, slack: FloatArray, y: FloatArray, value: float
) -> tuple[float, FloatArray]:
    """Delta = sqrt(sum_e w_e (r_e/mu + 1/f_e - 1/(u_e-f_e))^2), and sum of w_e by player.

    w_e = (1/f^2 + 1/(u-f)^2)^-1. The sums run over limited edges whose flow is the player's.
    """
    g = net.graph
    total, into, out = kernels.barrier_distance(
        flow, slack, g.capacity, g.row_tail, g.row_head, g.row_start, y, mu, g.n_nodes
    )
    if net.return_capacity is not None:
        rest = net.return_capacity - value
        root = 1 / np.hypot(1 / value, 1 / rest)
        total += (root * ((1 - y[g.source & g.alive].max()) / mu + 1 / value - 1 / rest)) ** 2
    return float(np.sqrt(total)), barrier_room(net, flow, slack, into, out)


def fitted_potential(
    net: FlowNetwork, mu: float, flow: FloatArray, slack: FloatArray, value: float
) -> FloatArray:
    """Potentials (n_nodes,) that make delta least for a given flow: weighted least squares."""
    graph, edges = net.graph, net.edges
    finite = np.isfinite(edges.capacity)
    f, rest = flow[edges.index][finite], slack[edges.index][finite]
    root = 1 / np.hypot(1 / f, 1 / rest)
    design = edges.full_incidence[:, np.flatnonzero(finite)].T @ graph.spread
    offset = edges.full_incidence[:, np.flatnonzero(finite)].T @ graph.fixed
    a = sp.diags_array(root) @ design
    b = root * (mu * (1 / rest - 1 / f) - offset)
    if net.return_capacity is not None:
        back = net.return_capacity - value
        weight = 1 / np.hypot(1 / value, 1 / back)
        source = np.flatnonzero(graph.source & graph.alive)[:1]
        a = sp.vstack([a, -weight * graph.spread[source]])
        b = np.r_[b, weight * (mu * (1 / back - 1 / value) - 1)]
    if not a.shape[1]:
        return graph.fixed
    free = np.atleast_1d(spsolve(sp.csc_array(a.T @ a), a.T @ b))
    return np.asarray(graph.fixed + graph.spread @ free)


# --- duality gaps ------------------------------------------------------------------------------


def separable_gap(
    net: FlowNetwork, objective: Separable, kept: FloatArray, potential: FloatArray | None
) -> tuple[float, FloatArray]:
    """Duality gap sum_e max_x [phi(x) + r x] - [phi(f) + r f], every term nonnegative.

    For plain maximum flow it is the capacity of the (fractional) cut minus |f|.
    """
    edges, graph = net.edges, net.graph
    if potential is None or not np.isfinite(potential[graph.alive]).all():
        gradient = objective.gradient(net, kept)
        if not np.isfinite(gradient).all():  # infinitely steep at an edge without flow
            return np.inf, np.full(graph.n_nodes, np.nan)
        z = best_potential(net, gradient)
        potential = z + graph.source  # linear potentials have the reward of |f| in the gradient
    linear = objective.linear(net)
    y = _admissible(net, potential, linear)
    price = y[edges.tail] - y[edges.head] + linear
    free = np.isinf(edges.capacity)
    if (price[free] > 1e-12).any():
        return np.inf, y
    f, u, r = kept[~free], edges.capacity[~free], price[~free]
    top = y[graph.source & graph.alive]
    level = 1.0 if net.return_capacity is None else float(top.min())
    if net.return_capacity is not None:
        f, u = np.r_[f, net.value(kept)], np.r_[u, net.return_capacity]
        r = np.r_[r, 1 - level]
    term = edge_shortfall(objective, f, u, r)
    leaving = edges.full_incidence @ kept
    idle = -(price[free] @ kept[free])  # unlimited edges priced below cost yet used
    idle += (top - level) @ leaving[graph.source & graph.alive]
    idle += y[graph.sink] @ leaving[graph.sink]
    return float(term.sum() + idle), y


def _admissible(net: FlowNetwork, potential: FloatArray, linear: FloatArray) -> FloatArray:
    """Potentials at which no unlimited edge has a positive price, close to those given."""
    graph, edges = net.graph, net.edges
    unlimited = np.flatnonzero(np.isinf(edges.capacity))
    if graph.contractible and net.return_capacity is None and not linear[unlimited].any():
        return graph.merged(potential)
    y = np.where(graph.alive, potential, 0.0)
    if net.return_capacity is None:
        y[graph.source & graph.alive] = np.maximum(y[graph.source & graph.alive], 1.0)
    rank = np.argsort(graph.order)
    downwards = unlimited[np.argsort(rank[edges.tail[unlimited]], kind="stable")]
    for e in downwards:
        y[edges.head[e]] = max(y[edges.head[e]], y[edges.tail[e]] + linear[e])
    y[graph.sink] = np.minimum(y[graph.sink], 0.0)
    for e in downwards[::-1]:  # and nodes from which an unlimited edge leads to a sink
        y[edges.tail[e]] = min(y[edges.tail[e]], y[edges.head[e]] - linear[e])
    return y


def fair_gap(
    net: FlowNetwork, kept: FloatArray, potential: FloatArray | None
) -> tuple[float, FloatArray]:
    """Frank-Wolfe gap of sum_j log(inflow_j): it bounds sum_j (a*_j / a_j - 1)."""
    reach = reachable_players(net)
    inflow = net.inflow(kept)
    if (inflow[reach] <= 0).any():
        return np.inf, np.full(net.graph.n_nodes, np.nan)
    rate = np.zeros(net.n_players)
    rate[reach] = 1 / inflow[reach]
    gradient = net.edges.player_matrix.T @ rate
    best = (np.inf, np.full(net.graph.n_nodes, np.nan))
    if potential is not None and np.isfinite(potential).all():
        best = (linear_gap(net, gradient, kept, potential), potential)
    if best[0] > GOOD_DELTA:
        z = best_potential(net, gradient)
        gap = linear_gap(net, gradient, kept, z)
        best = (gap, z) if gap < best[0] else best
    return best


def largest_ratio(gap: float) -> float:
    """Largest |x - 1| with x - 1 - log x <= gap.

    With x_j = a*_j / a_j the fair gap bounds sum_j (x_j - 1), and sum_j log x_j >= 0 at the
    optimum, so x_j - 1 - log x_j <= gap for every token j.
    """
    x = 1 + np.sqrt(2 * gap) + gap  # above the root
    for _ in range(60):  # Newton from above on a convex function: monotone
        if x <= 1:
            break
        step = (x - 1 - np.log(x) - gap) / (1 - 1 / x)
        if step <= 1e-12 * (x - 1):
            break
        x -= step
    return float(x - 1)


def linear_gap(net: FlowNetwork, gradient: FloatArray, kept: FloatArray, z: FloatArray) -> float:
    """Upper bound on max over feasible x of gradient @ (x - flow), for any potentials z.

    max_x gradient @ x <= sum_e u_e max(0, gradient_e + z_tail - z_head) + R p, with z >= -p at
    sources and z <= 0 at sinks; p >= 0 is the price of the return edge, 0 if it has no limit R.
    """
    edges, graph = net.edges, net.graph
    if not np.isfinite(z).all():
        return np.inf
    back = 0.0
    if net.return_capacity is not None:
        back = -float(np.minimum(z[graph.source & graph.alive], 0).min(initial=0.0))
    z = np.where(graph.sink, np.minimum(z, 0), np.where(graph.source, np.maximum(z, -back), z))
    price = gradient + z[edges.tail] - z[edges.head]
    free = np.isinf(edges.capacity)
    if (price[free] > 1e-9 * np.abs(gradient).max(initial=1.0)).any():
        return np.inf
    # termwise: u (p)+ - p f = (u - f)(p)+ + f (p)-, nonnegative and free of cancellation
    f, p = kept, price
    room = np.where(free, 0.0, edges.capacity - f)
    terms = room * np.maximum(p, 0) + f * np.maximum(-p, 0)
    leaving = edges.full_incidence @ kept
    ends = graph.alive & (graph.source | graph.sink)
    total = terms.sum() + z[ends] @ leaving[ends]
    if net.return_capacity is not None:
        total += back * net.return_capacity
    return float(total)


def best_potential(net: FlowNetwork, gradient: FloatArray) -> FloatArray:
    """Dual solution z (n_nodes,) of max gradient @ x over feasible flows, by HiGHS; NaN if none."""
    edges, graph = net.edges, net.graph
    inner = graph.alive & ~graph.source & ~graph.sink
    ends = np.flatnonzero(graph.alive & (graph.source | graph.sink))
    sign = np.where(graph.source[ends], -1.0, 1.0)
    unit = graph.largest_capacity or 1.0  # HiGHS's tolerances are absolute
    weight = float(np.abs(gradient).max(initial=0.0)) or 1.0
    upper = np.where(np.isinf(edges.capacity), np.nan, edges.capacity / unit)
    a_ub: Any = sp.diags_array(sign) @ edges.full_incidence[ends]
    b_ub = np.zeros(len(ends))
    if net.return_capacity is not None:
        a_ub = sp.vstack([a_ub, sp.csr_array(edges.value_vector[None])])
        b_ub = np.r_[b_ub, net.return_capacity / unit]
    result: Any = linprog(  # type: ignore[call-overload]
        -gradient / weight,
        A_ub=a_ub,
        b_ub=b_ub,
        A_eq=edges.incidence,
        b_eq=np.zeros(edges.incidence.shape[0]),
        bounds=np.c_[np.zeros(len(gradient)), upper],
        method="highs-ipm" if len(gradient) > 20_000 else "highs",
    )
    z = np.full(graph.n_nodes, np.nan)
    if result.status == 0:
        z[:] = 0.0
        z[inner] = result.eqlin.marginals * weight
        marginals = result.ineqlin.marginals * weight
        z[ends] = sign * marginals[: len(ends)]
        if net.return_capacity is not None:
            z[graph.source & graph.alive] += marginals[-1]
    return z
