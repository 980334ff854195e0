"""How attributions change with the capacities: implicit differentiation of the barrier optimum.

At the optimum every edge has 1/f - 1/(u - f) + r/mu = 0 and flows are conserved. With s = u - f
and W = (1/f^2 + 1/s^2)^-1, differentiating gives

    df = (W/mu) dr + (f^2 / (f^2 + s^2)) du + (W/mu)(1/f - 1/s) dmu,

and conservation of df is a system with the graph Laplacian of the weights W/mu: one solve for
each product with the Jacobian, from either side. mu is held fixed *in units of flow*: where the
objective was given a relative mu or a gap, the rule that makes mu follow the capacities (the
largest one, or the maximum flow, which is not even differentiable everywhere) is left out; the
derivative by mu is returned, for rules of your own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowopt.errors import InputError, UnsupportedError
from flowopt.network import FloatArray, IntArray
from flowopt.objectives import LogBarrier
from flowopt.sensitivity.gradient import CapacityGradient, EdgeEffect, set_changes

BoolArray = NDArray[np.bool_]

if TYPE_CHECKING:
    from flowopt.solution import FlowSolution
    from flowopt.solvers.native.system import System


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives of a barrier optimum's attributions at fixed absolute mu.

    A pruned edge, of capacity 0, stays at flow 0 and has derivative 0 here; attributions are
    not differentiable there.

    Attributes
    ----------
    solution : FlowSolution
    by_price, by_capacity, by_mu : ndarray, shape (E,) or (E + 1,)
        Derivatives of each edge's best flow; the return edge last, where it is limited.
    """

    solution: FlowSolution
    by_price: FloatArray = field(repr=False)
    by_capacity: FloatArray = field(repr=False)
    by_mu: FloatArray = field(repr=False)
    _tail: IntArray = field(repr=False)
    _head: IntArray = field(repr=False)
    _system: System | None = field(repr=False)

    @classmethod
    def of(cls, solution: FlowSolution) -> Sensitivity:
        """See `FlowSolution.sensitivity`."""
        net, barrier = solution.network, solution.resolved
        if not isinstance(barrier, LogBarrier):
            raise UnsupportedError(
                f"The optimum of {solution.objective!r} is not a smooth function of the "
                "capacities (flows are clipped to them, or not unique); sensitivities are for "
                "LogBarrier."
            )
        if solution.status.value != "optimal":
            raise UnsupportedError(
                f"Only a certified optimum can be differentiated; this one is {solution.status}."
            )
        if not net.graph.contractible:
            raise UnsupportedError(
                "An unlimited link is not its node's only way in or out, or edges enter a source "
                "or leave a sink, so some flow may be idle and attributions need not be "
                "differentiable; give the link a capacity."
            )
        if net.graph.empty:
            none = np.zeros(len(net.graph.capacity))
            nowhere = np.zeros(0, dtype=np.int64)
            return cls(solution, none, none, none, nowhere, nowhere, None)
        from flowopt.solvers.native.system import System

        system = System(net.graph)
        tail, head = _ends(system)
        price, capacity, mu = _edge_derivatives(solution, system, tail, head, barrier.absolute_mu)
        system.weight = price
        nodes = net.graph.n_nodes
        sums = np.bincount(tail, price, nodes) + np.bincount(head, price, nodes)
        system.diagonal = np.asarray(sums, dtype=np.float64)
        return cls(solution, price, capacity, mu, tail, head, system)

    def vjp(self, weights: ArrayLike) -> CapacityGradient:
        """Gradient of ``weights @ attributions``.

        Parameters
        ----------
        weights : array_like, shape (n_players,)
        """
        net = self.solution.network
        values = np.asarray(weights, dtype=np.float64)
        if values.shape != (net.n_players,):
            raise InputError(f"weights must have shape ({net.n_players},), not {values.shape}.")
        edges = len(net.graph.capacity)
        if self._system is None:
            return CapacityGradient(net, np.zeros(edges), 0.0, 0.0)
        reading = self._reading(values)
        z = self._solve(-self._balance(self.by_price * reading))
        along = reading + z[self._tail] - z[self._head]
        by_capacity = self.by_capacity * along
        back = float(by_capacity[edges]) if len(by_capacity) > edges else 0.0
        return CapacityGradient(net, by_capacity[:edges], back, float(self.by_mu @ along))

    def jvp(
        self,
        blocks: Sequence[ArrayLike] | ArrayLike | None = None,
        *,
        links: Sequence[ArrayLike] | None = None,
        node_capacity: Mapping[str, ArrayLike] | None = None,
        return_capacity: float = 0.0,
        mu: float = 0.0,
    ) -> FloatArray:
        """Change (n_players,) of the attributions, to first order, for changed capacities.

        Parameters
        ----------
        blocks : sequence of array_like, optional
            Changes of the blocks' capacities, shaped like them; (L, t, t) for a layered network.
        links : sequence of array_like, optional
            Changes of the links' capacities, shape (k,) each.
        node_capacity : mapping of str to array_like, optional
            Changes of node capacities by group, shape (n,).
        return_capacity, mu : float
            Changes of the return edge's limit, and of mu in units of flow.
        """
        from flowopt.solvers.native import kernels

        net, graph = self.solution.network, self.solution.network.graph
        if self._system is None:
            return np.zeros(net.n_players)
        change = CapacityGradient(net, np.zeros(len(graph.capacity)), return_capacity, mu)
        set_changes(change.blocks, blocks, "blocks")
        set_changes(change.links, links, "links")
        limits = change.node_capacity
        for name, values in (node_capacity or {}).items():
            if name not in limits:
                raise InputError(f"The nodes of group {name!r} have no capacities.")
            set_changes([limits[name]], [values], f"node_capacity[{name!r}]")
        flat = change.flat
        if net.return_capacity is not None:
            flat = np.r_[flat, return_capacity]
        flow = self.by_capacity * flat + self.by_mu * mu
        dy = self._solve(-self._balance(flow))
        flow += self.by_price * (dy[self._tail] - dy[self._head])
        flow = flow[: len(graph.capacity)]
        if np.isinf(graph.capacity).any():
            kernels.fill_unlimited(
                flow, graph.capacity, graph.row_head, graph.row_start, graph.node_rows,
                graph.node_rows_start, graph.order, graph.source,
            )  # fmt: skip
        inflow = np.bincount(self._head[: len(flow)], flow, graph.n_nodes)
        outflow = np.bincount(self._tail[: len(flow)], flow, graph.n_nodes)
        through = np.where(graph.sink, inflow, outflow)
        return np.asarray(through[graph.players])

    def elasticity(self, token: int) -> CapacityGradient:
        """Relative change of a token's attribution for relative changes of the capacities.

        u/a da/du; together with those of the return edge and of mu they add up to 1, because
        scaling all capacities and mu scales the flow. All zero for a token without flow.
        """
        net, gradient = self.solution.network, self._of_token(token)
        a = float(self.solution.attributions[token])
        share = 1 / a if a > 0 else 0.0
        barrier = self.solution.resolved
        assert isinstance(barrier, LogBarrier)
        finite = np.where(np.isfinite(net.graph.capacity), net.graph.capacity, 0.0)
        return CapacityGradient(
            net,
            gradient.flat * finite * share,
            gradient.return_capacity * (net.return_capacity or 0.0) * share,
            gradient.mu * barrier.absolute_mu * share,
        )

    def top_edges(self, token: int, count: int = 10) -> list[EdgeEffect]:
        """The block edges whose relative change matters most to a token, largest first."""
        gradient, elasticity = self._of_token(token), self.elasticity(token)
        found: list[EdgeEffect] = []
        for k, (slopes, shares) in enumerate(zip(gradient.blocks, elasticity.blocks, strict=True)):
            best = np.argsort(-np.abs(shares), axis=None, kind="stable")[:count]
            for i, j in zip(*np.unravel_index(best, shares.shape), strict=True):
                effect = float(slopes[i, j]), float(shares[i, j])
                found.append(EdgeEffect(k, int(i), int(j), *effect))
        return sorted(found, key=lambda edge: -abs(edge.elasticity))[:count]

    def _of_token(self, token: int) -> CapacityGradient:
        if not 0 <= token < self.solution.network.n_players:
            raise InputError(f"token must lie in 0..{self.solution.network.n_players - 1}.")
        return self.vjp(np.eye(1, self.solution.network.n_players, token)[0])

    def _reading(self, weights: FloatArray) -> FloatArray:
        """Coefficients (E,) on the limited edges' flows that give weights @ attributions."""
        graph = self.solution.network.graph
        leaving, entering = np.zeros(graph.n_nodes), np.zeros(graph.n_nodes)
        leaving[graph.players] = np.where(graph.sink[graph.players], 0.0, weights)
        entering[graph.players] = np.where(graph.sink[graph.players], weights, 0.0)
        edges = len(graph.capacity)
        reading = np.zeros(len(self._tail))
        reading[:edges] = leaving[self._tail[:edges]] + entering[self._head[:edges]]
        unlimited = np.flatnonzero(np.isinf(graph.capacity))
        if len(unlimited):
            # conservation lets node prices move the reading off the unlimited edges
            ends = graph.source | graph.sink
            tails, heads = self._tail[unlimited], self._head[unlimited]
            price = _prices(tails, heads, reading[unlimited], ends)
            reading += price[self._tail] - price[self._head]
        return reading

    def _balance(self, flow: FloatArray) -> FloatArray:
        """Outflow less inflow of every unknown."""
        assert self._system is not None
        nodes = self._system.graph.n_nodes
        excess = np.bincount(self._tail, flow, nodes) - np.bincount(self._head, flow, nodes)
        return self._system.gather(np.asarray(excess, dtype=np.float64))

    def _solve(self, right: FloatArray) -> FloatArray:
        """Solve with the Laplacian, once refined; values of all nodes."""
        system = self._system
        assert system is not None
        if not system.size:
            return np.zeros(system.graph.n_nodes)
        x = system.solve(right, 1e-12)
        x = x + system.solve(right - system.image(x), 1e-6)
        return system.expand(x)


def _ends(system: System) -> tuple[IntArray, IntArray]:
    """Tail and head of every edge of a system."""
    tails, heads, starts = system.rows[:3]
    lengths = np.diff(starts)
    first = np.repeat(heads - starts[:-1], lengths)
    return np.repeat(tails, lengths), first + np.arange(int(starts[-1]))


def _edge_derivatives(
    solution: FlowSolution, system: System, tail: IntArray, head: IntArray, mu: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Derivatives of each edge's best flow by its price, its capacity, and mu."""
    net, y = solution.network, solution.potential
    capacity = system.capacity
    live = capacity > 0
    u = np.where(live, capacity, 1.0)
    flow, reward = solution.flow, np.zeros(len(u))
    if net.return_capacity is not None:
        flow = np.r_[flow, solution.value]
        reward[-1] = 1.0
    f = np.where(live, flow, 0.5)
    r = y[tail] - y[head] + reward
    # near its capacity an edge's slack is known better from its price than from u - f
    with np.errstate(divide="ignore"):
        priced = 1 / np.maximum(1 / f + r / mu, 1 / u)
    s = np.where(f > 0.5 * u, priced, u - f)
    square = f**2 + s**2
    by_price = np.where(live, (f * s) ** 2 / square / mu, 0.0)
    by_capacity = np.where(live, f**2 / square, 0.0)
    return by_price, by_capacity, np.where(live, by_price * (1 / f - 1 / s), 0.0)


def _prices(tails: IntArray, heads: IntArray, reading: FloatArray, ends: BoolArray) -> FloatArray:
    """Node prices p, 0 at the ends, with reading + p_tail - p_head = 0 on unlimited edges."""
    price = np.zeros(len(ends))
    known = ends.copy()
    waiting = list(zip(tails.tolist(), heads.tolist(), reading.tolist(), strict=True))
    while waiting:
        rest = []
        for tail, head, value in waiting:
            if known[tail] and known[head]:
                if abs(value + price[tail] - price[head]) > 1e-12 * max(1.0, abs(value)):
                    raise UnsupportedError(
                        "Unlimited links leave it open how flow is shared between tokens, so "
                        "attributions have no derivative; give the links a capacity."
                    )
            elif known[tail]:
                price[head], known[head] = value + price[tail], True
            elif known[head]:
                price[tail], known[tail] = price[head] - value, True
            else:
                rest.append((tail, head, value))
        if len(rest) == len(waiting):  # links joined to no end: any level will do
            known[rest[0][0]] = True
        waiting = rest
    return price
