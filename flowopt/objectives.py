"""Objectives over the feasible flows of a network: what each maximises, and facts about it.

An objective is a small frozen value object. It gives a CVXPY expression to maximise (and, if it
likes, constraints); that alone is enough to be solved. Objectives of the form

    |f| + sum_e phi(f_e; u_e)

are `Separable`: they also give phi and the best flow of one edge at a given price, from which
follow the native solver and an error bound that no solver has to be trusted for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from flowopt.errors import InputError
from flowopt.network import FloatArray, FlowNetwork

if TYPE_CHECKING:
    import cvxpy as cp


@dataclass(frozen=True)
class Facts:
    """What is known about an objective's optimum.

    Attributes
    ----------
    unique_flow, unique_attributions : bool
        Whether the optimum determines every edge flow, and every token flow.
    scale_covariant : bool
        Whether multiplying all capacities by k multiplies an optimal flow by k.
    flow_units : bool
        Whether the objective is measured in units of flow, so that its gap is relative to |f|.
    """

    unique_flow: bool
    unique_attributions: bool
    scale_covariant: bool
    flow_units: bool = True


class Objective(ABC):
    """Base of all objectives; a researcher's own needs only `expression`.

    Examples
    --------
    >>> class LeastSquares(Objective):
    ...     def expression(self, flow, net):
    ...         return net.value(flow) - 0.1 * cp.sum_squares(flow)
    """

    facts: ClassVar[Facts] = Facts(
        unique_flow=False, unique_attributions=False, scale_covariant=False
    )

    @abstractmethod
    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:
        """Concave expression to maximise.

        Parameters
        ----------
        flow : cvxpy.Expression, shape (m,)
            Flow over the kept edges, in the order of ``net.edges``.
        net : FlowNetwork
            ``net.capacity`` (m,), ``net.value(flow)`` = |f| and ``net.inflow(flow)`` (t,) help.
        """

    def constraints(self, flow: Any, net: FlowNetwork) -> list[Any]:
        """Constraints beyond 0 <= flow <= capacity and conservation; none by default."""
        return []

    @property
    def constrained(self) -> bool:
        """Whether the objective adds constraints of its own."""
        return type(self).constraints is not Objective.constraints

    def resolve(self, net: FlowNetwork) -> Objective:
        """The same objective with all parameters absolute for this network."""
        return self

    def rescaled(self, factor: float) -> Objective | None:
        """Objective whose optimum on ``net.scaled(factor)`` is `factor` times this one's.

        None if there is none, or it is not known: then solvers work in the network's own units.
        """
        return self if self.facts.scale_covariant else None

    def evaluate(self, net: FlowNetwork, flow: FloatArray) -> float:
        """Value of the objective at a flow over the kept edges."""
        from flowopt.lazy_cvxpy import cp

        value = self.expression(cp.Constant(flow), net).value
        return float(np.asarray(value).item())

    def gradient(self, net: FlowNetwork, flow: FloatArray) -> FloatArray:
        """Gradient (m,) of the objective at a flow, by CVXPY; not finite where it has none."""
        from flowopt.lazy_cvxpy import cp

        variable = cp.Variable(len(flow), value=flow)
        with np.errstate(divide="ignore", invalid="ignore"):  # a logarithm at flow 0
            gradient = self.expression(variable, net).grad[variable]
        if gradient is None:
            return np.full(len(flow), np.nan)
        dense = gradient.toarray() if hasattr(gradient, "toarray") else np.asarray(gradient)
        return np.asarray(dense, dtype=np.float64).reshape(-1)


class Separable(Objective):
    """|f| + sum_e [c_e f_e + phi(f_e; u_e)], phi concave; phi only where u_e is finite.

    Terminal edges carry no term.
    """

    modulus: float = 0.0  # phi'' <= -modulus / u everywhere: strong concavity, 0 if none

    def linear(self, net: FlowNetwork) -> FloatArray:
        """c_e of each kept edge, shape (m,); zeros by default."""
        return np.zeros(len(net.capacity))

    @abstractmethod
    def edge_value(self, flow: FloatArray, capacity: FloatArray) -> FloatArray:
        """phi(f; u) for each edge."""

    @abstractmethod
    def edge_best(self, price: FloatArray, capacity: FloatArray) -> FloatArray:
        """Argmax over 0 <= f <= u of phi(f; u) + price * f, for each edge."""

    def evaluate(self, net: FlowNetwork, flow: FloatArray) -> float:
        """Value of the objective at a flow over the kept edges."""
        finite = np.isfinite(net.capacity)
        value = float(net.value(flow))
        total = value + float(self.linear(net) @ flow)
        total += float(self.edge_value(flow[finite], net.capacity[finite]).sum())
        if net.return_capacity is not None:
            back = np.array([net.return_capacity])
            total += float(self.edge_value(np.array([value]), back).sum())
        return total


def _finite_terms(flow: Any, net: FlowNetwork) -> tuple[Any, FloatArray]:
    """Flows as shares of capacity, and capacities, of every edge that carries a term."""
    from flowopt.lazy_cvxpy import cp

    finite = np.flatnonzero(np.isfinite(net.capacity))
    capacity = net.capacity[finite]
    edge_flow = flow if len(finite) == len(net.capacity) else flow[finite]
    share = cp.multiply(1 / capacity, edge_flow)
    if net.return_capacity is not None:
        share = cp.hstack([share, net.value(flow) / net.return_capacity])
        capacity = np.r_[capacity, net.return_capacity]
    return share, capacity


def _positive(value: float, name: str) -> float:
    if not (isinstance(value, int | float | np.number) and 0 < value < np.inf):
        raise InputError(f"{name} must be a positive finite number, not {value!r}.")
    return float(value)


@dataclass(frozen=True)
class MaxFlow(Separable):
    """Plain maximum flow: |f|. A linear program; its optimum is generally not unique."""

    facts = Facts(unique_flow=False, unique_attributions=False, scale_covariant=True)

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:  # noqa: D102
        return net.value(flow)

    def edge_value(self, flow: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        return np.zeros_like(flow)

    def edge_best(self, price: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        return np.where(price > 0, capacity, 0.0)


@dataclass(frozen=True)
class LogBarrier(Separable):
    """|f| + mu * sum_e [log f_e + log(u_e - f_e)], strictly concave (GAF, eq. 12).

    Parameters
    ----------
    mu : float, optional
        Weight of the barrier; with `relative` in units of the largest finite kept capacity.
    gap : float, optional
        Instead of `mu`: mu = gap * F* / (2 m), F* the maximum flow and m the number of kept
        edges with finite capacity, so that |f| >= (1 - gap) F* whatever the network's size.
        Default 0.05 when neither is given.
    relative : bool
        Whether `mu` is relative.
    """

    facts = Facts(unique_flow=True, unique_attributions=True, scale_covariant=True)

    mu: float | None = None
    gap: float | None = None
    relative: bool = True

    def __post_init__(self) -> None:
        if self.mu is not None and self.gap is not None:
            raise InputError("Give LogBarrier either mu or gap, not both.")
        if self.mu is not None:
            _positive(self.mu, "mu")
        elif self.gap is None:
            object.__setattr__(self, "gap", 0.05)
        else:
            _positive(self.gap, "gap")
            if not self.relative:
                raise InputError("gap is relative by its nature; relative=False goes with mu.")

    def __repr__(self) -> str:
        if self.gap is not None:
            return f"LogBarrier(gap={self.gap})"
        return f"LogBarrier(mu={self.mu}{'' if self.relative else ', relative=False'})"

    @property
    def absolute_mu(self) -> float:
        """Mu in units of flow, of a resolved objective."""
        if self.mu is None or self.relative:
            raise InputError("This barrier is relative to a network; call resolve(net) first.")
        return self.mu

    def resolve(self, net: FlowNetwork) -> LogBarrier:  # noqa: D102
        if self.mu is not None and not self.relative:
            return self
        if net.graph.empty:
            return LogBarrier(mu=1.0, relative=False)
        if self.mu is not None:
            return LogBarrier(mu=self.mu * net.graph.largest_capacity, relative=False)
        assert self.gap is not None
        scale = net.max_flow / (2 * net.graph.finite_edges)
        return LogBarrier(mu=self.gap * scale, relative=False)

    def rescaled(self, factor: float) -> LogBarrier:  # noqa: D102
        absolute = self.mu is not None and not self.relative
        return replace(self, mu=self.mu * factor) if absolute and self.mu is not None else self

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:  # noqa: D102
        from flowopt.lazy_cvxpy import cp

        mu = self.resolve(net).absolute_mu
        share, capacity = _finite_terms(flow, net)
        constant = 2 * float(np.log(capacity).sum())
        barrier = cp.sum(cp.log(share)) + cp.sum(cp.log(1 - share)) + constant
        return net.value(flow) + mu * barrier

    def edge_value(self, flow: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        with np.errstate(divide="ignore"):
            return self.absolute_mu * (np.log(flow) + np.log(capacity - flow))

    def edge_best(self, price: FloatArray, capacity: FloatArray) -> FloatArray:
        """U * g(s), s = price * u / mu, g the root of s g^2 - (s - 2) g - 1 = 0 in (0, 1)."""
        s = price * capacity / self.absolute_mu
        small = 2 / (2 + np.abs(s) + np.hypot(s, 2))  # the smaller of g and 1 - g
        return capacity * np.where(s > 0, 1 - small, small)


@dataclass(frozen=True)
class Quadratic(Separable):
    """|f| - rho/2 * sum_e f_e^2 / u_e: unique, a quadratic program.

    For small enough rho the optimum is the maximum flow of least norm.
    """

    facts = Facts(unique_flow=True, unique_attributions=True, scale_covariant=True)
    rho: float = 0.1

    def __post_init__(self) -> None:
        _positive(self.rho, "rho")

    @property
    def modulus(self) -> float:  # type: ignore[override]
        """Strong concavity: phi'' = -rho / u."""
        return self.rho

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:  # noqa: D102
        from flowopt.lazy_cvxpy import cp

        share, capacity = _finite_terms(flow, net)
        return net.value(flow) - self.rho / 2 * cp.sum_squares(
            cp.multiply(np.sqrt(capacity), share)
        )

    def edge_value(self, flow: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        return -self.rho / 2 * flow * (flow / capacity)

    def edge_best(self, price: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        return np.clip(price / self.rho, 0.0, 1.0) * capacity


@dataclass(frozen=True)
class Entropy(Separable):
    """|f| - tau * sum_e f_e log(f_e / u_e): unique."""

    facts = Facts(unique_flow=True, unique_attributions=True, scale_covariant=True)
    tau: float = 0.1

    def __post_init__(self) -> None:
        _positive(self.tau, "tau")

    @property
    def modulus(self) -> float:  # type: ignore[override]
        """Strong concavity: phi'' = -tau / f <= -tau / u."""
        return self.tau

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:  # noqa: D102
        from flowopt.lazy_cvxpy import cp

        share, capacity = _finite_terms(flow, net)
        return net.value(flow) + self.tau * capacity @ cp.entr(share)

    def edge_value(self, flow: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        from scipy.special import entr

        return np.asarray(self.tau * capacity * entr(flow / capacity))

    def edge_best(self, price: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        return capacity * np.exp(np.minimum(price / self.tau - 1, 0.0))


@dataclass(frozen=True, eq=False)
class MinCost(Separable):
    """|f| - sum_e cost_e f_e: a linear program, priors on edges or tokens.

    Parameters
    ----------
    cost : array_like, or sequence of array_like
        Shape (t,): a cost of each token, charged on the flow into it. Otherwise one array per
        block, shaped like it (for a layered network a (L, t, t) array). Finite; dimensionless.
    """

    facts = Facts(unique_flow=False, unique_attributions=False, scale_covariant=True)
    cost: ArrayLike | Sequence[ArrayLike]

    def __post_init__(self) -> None:
        parts = [np.asarray(part, dtype=np.float64) for part in _as_sequence(self.cost)]
        if not parts or not all(np.isfinite(part).all() for part in parts):
            raise InputError("MinCost needs finite costs: (t,) for tokens or one array per block.")

    def edge_cost(self, net: FlowNetwork) -> FloatArray:
        """Cost of each kept edge, shape (m,); 0 on links."""
        parts = [np.asarray(part, dtype=np.float64) for part in _as_sequence(self.cost)]
        graph, edges = net.graph, net.edges
        if all(part.ndim == 0 for part in parts):
            token = np.array(parts)
            if len(token) != net.n_players:
                raise InputError(
                    f"MinCost has {len(token)} token costs for {net.n_players} players."
                )
            return np.asarray(edges.player_matrix.T @ token)
        shapes = [block.capacity.shape for block in net.blocks]
        if [part.shape for part in parts] != shapes:
            raise InputError(
                f"MinCost needs one array per block with shapes {shapes}, "
                f"not {[part.shape for part in parts]}."
            )
        flat = np.zeros(len(graph.capacity))
        for view, part in zip(graph.blocks_of(flat), parts, strict=True):
            view[...] = part
        return flat[edges.index]

    def linear(self, net: FlowNetwork) -> FloatArray:  # noqa: D102
        return -self.edge_cost(net)

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:  # noqa: D102
        return net.value(flow) - self.edge_cost(net) @ flow

    def edge_value(self, flow: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        return np.zeros_like(flow)

    def edge_best(self, price: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        return np.where(price > 0, capacity, 0.0)


@dataclass(frozen=True, eq=False)
class ProportionalFair(Objective):
    """sum_j log(inflow of token j), over the tokens that flow can reach.

    Token inflows are unique and, being those of the least-norm base of the polymatroid of
    token inflows, sum to the maximum flow (method.md section 8c). Its gap is absolute.
    """

    facts = Facts(
        unique_flow=False, unique_attributions=True, scale_covariant=True, flow_units=False
    )

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:  # noqa: D102
        from flowopt.lazy_cvxpy import cp

        return cp.sum(cp.log(net.inflow(flow)[np.flatnonzero(reachable_players(net))]))

    def evaluate(self, net: FlowNetwork, flow: FloatArray) -> float:  # noqa: D102
        with np.errstate(divide="ignore"):
            return float(np.log(net.inflow(flow)[reachable_players(net)]).sum())


@dataclass(frozen=True, eq=False)
class MaxMinFair(Objective):
    """Lexicographic max-min of the token inflows.

    The optimum has the same token inflows as `ProportionalFair` (method.md section 8c), which is
    how it is computed and certified. As one CVXPY problem it is the maximum flow whose token
    inflows have least norm: maximise -1/2 sum_j inflow_j^2 subject to |f| = F*.
    """

    facts = Facts(
        unique_flow=False, unique_attributions=True, scale_covariant=True, flow_units=False
    )

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:  # noqa: D102
        from flowopt.lazy_cvxpy import cp

        return -0.5 * cp.sum_squares(net.inflow(flow))

    def constraints(self, flow: Any, net: FlowNetwork) -> list[Any]:  # noqa: D102
        return [net.value(flow) == net.max_flow]

    def evaluate(self, net: FlowNetwork, flow: FloatArray) -> float:  # noqa: D102
        return float(-0.5 * np.sum(net.inflow(flow) ** 2))


def reachable_players(net: FlowNetwork) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Players that some flow can reach, shape (n_players,)."""
    return net.graph.alive[net.graph.players]


def _as_sequence(cost: Any) -> Sequence[Any]:
    if isinstance(cost, dict | str) or np.isscalar(cost):
        raise InputError("MinCost needs an array of costs: (t,) for tokens or one per block.")
    return list(cost)
