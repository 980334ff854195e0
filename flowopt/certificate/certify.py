"""Certificates: repair a flow to exact feasibility, then bound what it falls short of (section 7).

Nothing here trusts a solver: the bounds hold for any feasible flow and any potentials, so a bad
answer gets a large bound, never a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowopt.certificate.bounds import Bound, barrier_bound, gap_bound
from flowopt.network import FloatArray, FlowNetwork, kernels
from flowopt.objectives import LogBarrier, MaxMinFair, Objective
from flowopt.solution import Certificate, FlowSolution, Status

FEASIBILITY_TOLERANCE = 1e-7  # conservation and bounds, relative to |f|
GAP_TOLERANCE = 1e-6


def repaired(
    net: FlowNetwork, flow: FloatArray, slack: FloatArray | None = None, in_place: bool = False
) -> tuple[FloatArray, FloatArray]:
    """The nearest feasible flow we can reach cheaply from raw numbers, and its slack.

    Clip to the bounds, balance every node over the edges that have room, then trim what is left
    by only ever reducing flow; last, one factor for the return edge.

    Parameters
    ----------
    flow : ndarray, shape (E,)
        Anything, NaN included.
    slack : ndarray, shape (E,), optional
        Capacity minus flow, if it is known beyond the rounding of the difference; ignored
        unless it is that difference up to rounding.
    in_place : bool
        Whether the arrays may be changed; saves two copies of a large network's flow.
    """
    graph = net.graph
    given = slack is not None and kernels.honest_slack(
        flow, slack, graph.capacity, kernels.ROUNDING
    )
    flow = np.array(flow, dtype=np.float64, copy=None if in_place else True)
    flow = flow if flow.flags.writeable else flow.copy()
    if not given or slack is None:
        slack = np.empty_like(flow)
    elif not in_place:
        slack = slack.copy()
    kernels.clip(flow, slack, graph.capacity, given)
    rows = (graph.row_head, graph.row_start, graph.node_rows, graph.node_rows_start, graph.order)
    ends = (graph.source, graph.sink)
    kernels.balance_downwards(flow, slack, graph.capacity, *rows, *ends)
    kernels.clip(flow, slack, graph.capacity, True)  # rounding of the last step
    kernels.trim(flow, slack, graph.row_tail, *rows, *ends, kernels.ROUNDING)
    if net.return_capacity is not None:
        value = flow_value(net, flow)
        if value > net.return_capacity:
            slack += flow * (1 - net.return_capacity / value)
            flow *= net.return_capacity / value
    return flow, slack


def certified(
    net: FlowNetwork,
    objective: Objective,
    resolved: Objective,
    flow: FloatArray,
    potential: FloatArray | None,
    solver: str,
    stats: Mapping[str, Any],
    slack: FloatArray | None = None,
    in_place: bool = False,
) -> FlowSolution:
    """Turn a solver's raw numbers into a solution with our certificate.

    Parameters
    ----------
    flow : ndarray, shape (E,)
        On every possible edge; may be infeasible or contain NaN.
    potential : ndarray, shape (n_nodes,), or None
        None: best potentials are found by a linear program where the bound needs them.
    slack, in_place
        See `repaired`.
    """
    graph = net.graph
    raw = max(_residual(net, flow), _violation(net, flow))
    flow, slack = repaired(net, flow, slack, in_place)
    value = flow_value(net, flow)
    unit = value if value > 0 else 1.0
    feasibility = (_residual(net, flow) / unit, _violation(net, flow) / unit)
    kept = None if isinstance(resolved, LogBarrier) else flow[graph.edges.index]
    if graph.empty:
        y = np.zeros(graph.n_nodes)
        certificate = Certificate(0.0, 0.0, 0.0, np.zeros(net.n_players), None, "dual")
        objective_value = 0.0
    elif isinstance(resolved, LogBarrier):
        bound, y = barrier_bound(net, resolved, flow, slack, potential, value)
        bound = _with_rounding(net, bound, flow, value)
        certificate = Certificate(*feasibility, **bound._asdict())
        objective_value = _barrier_value(net, resolved, flow, slack, value)
    else:
        assert kept is not None
        bound, y = gap_bound(net, resolved, kept, potential, value)
        bound = _with_rounding(net, bound, flow, value)
        certificate = Certificate(*feasibility, **bound._asdict())
        objective_value = resolved.evaluate(net, kept)
    status = _status(net, resolved, certificate, value, kept)
    flow.setflags(write=False)
    return FlowSolution(
        network=net,
        objective=objective,
        resolved=resolved,
        status=status,
        value=value,
        objective_value=objective_value,
        certificate=certificate,
        flow=flow,
        potential=y,
        solver=solver,
        stats={**stats, "raw_residual": raw},
    )


def failed(
    net: FlowNetwork,
    objective: Objective,
    resolved: Objective,
    solver: str,
    stats: Mapping[str, Any],
) -> FlowSolution:
    """The solution when a solver returned no numbers: a flow of zeros that claims nothing."""
    graph = net.graph
    return FlowSolution(
        network=net,
        objective=objective,
        resolved=resolved,
        status=Status.FAILED,
        value=0.0,
        objective_value=float("nan"),
        certificate=Certificate(0.0, 0.0, float("inf")),
        flow=np.zeros(len(graph.capacity)),
        potential=np.full(graph.n_nodes, np.nan),
        solver=solver,
        stats={**stats, "raw_residual": float("inf")},
    )


def _status(
    net: FlowNetwork,
    objective: Objective,
    certificate: Certificate,
    value: float,
    kept: FloatArray | None,
) -> Status:
    if max(certificate.conservation, certificate.bounds) > FEASIBILITY_TOLERANCE:
        return Status.INACCURATE
    if kept is not None and objective.constrained and not isinstance(objective, MaxMinFair):
        from flowopt.lazy_cvxpy import cp

        for constraint in objective.constraints(cp.Constant(kept), net):
            if np.max(constraint.violation()) > GAP_TOLERANCE * max(value, 1e-300):
                return Status.INACCURATE
    if certificate.gap is None:
        return Status.FEASIBLE
    return Status.OPTIMAL if certificate.gap <= GAP_TOLERANCE else Status.INACCURATE


def _with_rounding(net: FlowNetwork, bound: Bound, flow: FloatArray, value: float) -> Bound:
    """Add to the attributions' bound what the sums of floats themselves may be off.

    The bound speaks of real numbers; the flows are floats that conserve up to rounding. A sum of
    n flows is off by at most n units of rounding, and each layer above adds its own.
    """
    if bound.attribution_error is None:
        return bound
    edges = sum(len(b.capacity) for b in net.blocks if b.head == net.players)
    edges += sum(len(k.pairs) for k in net.links if k.head == net.players)
    through = net.graph.throughput(flow)[net.graph.players]
    units = (edges + 8 * len(net.groups)) * through + value
    error = bound.attribution_error + np.finfo(np.float64).eps * units
    return bound._replace(attribution_error=np.where(through > 0, error, bound.attribution_error))


def flow_value(net: FlowNetwork, flow: FloatArray) -> float:
    """|f| of a flow on every possible edge, shape (E,)."""
    into, out = _sums(net, flow)
    return float((out - into)[net.graph.source].sum())


def _sums(net: FlowNetwork, flow: FloatArray) -> tuple[FloatArray, FloatArray]:
    g = net.graph
    into, out = kernels.node_sums(g.row_tail, g.row_head, g.row_start, flow, g.n_nodes)
    return into, out


def _residual(net: FlowNetwork, flow: FloatArray) -> float:
    """Largest imbalance of a node; sources may only give, sinks may only take."""
    into, out = _sums(net, flow)
    source, sink = net.graph.source, net.graph.sink
    excess = np.where(source, np.maximum(into - out, 0), np.where(sink, out - into, into - out))
    excess[sink] = np.maximum(excess[sink], 0)
    return float(np.abs(excess).max(initial=0.0))


def _violation(net: FlowNetwork, flow: FloatArray) -> float:
    over = float(kernels.excess(flow, net.graph.capacity))
    if net.return_capacity is not None:
        over = max(over, flow_value(net, flow) - net.return_capacity)
    return over


def _barrier_value(
    net: FlowNetwork, barrier: LogBarrier, flow: FloatArray, slack: FloatArray, value: float
) -> float:
    total: float = value + barrier.absolute_mu * kernels.log_sum(flow, slack, net.graph.capacity)
    if net.return_capacity is not None:
        back = np.array([net.return_capacity])
        total += float(barrier.edge_value(np.array([value]), back)[0])
    return total
