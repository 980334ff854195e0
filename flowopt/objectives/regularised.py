"""Maximum flow with a strictly concave term on every edge: the optimum is unique."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives.base import Facts, Separable, finite_terms, positive

if TYPE_CHECKING:
    import cvxpy as cp


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
            positive(self.mu, "mu")
        elif self.gap is None:
            object.__setattr__(self, "gap", 0.05)
        else:
            if positive(self.gap, "gap") >= 1:
                raise InputError(
                    f"gap is a share of the maximum flow below 1, not {self.gap!r}; use mu for a "
                    "stronger barrier."
                )
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
        share, capacity = finite_terms(flow, net)
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
        positive(self.rho, "rho")

    @property
    def modulus(self) -> float:  # type: ignore[override]
        """Strong concavity: phi'' = -rho / u."""
        return self.rho

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:  # noqa: D102
        from flowopt.lazy_cvxpy import cp

        share, capacity = finite_terms(flow, net)
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
        positive(self.tau, "tau")

    @property
    def modulus(self) -> float:  # type: ignore[override]
        """Strong concavity: phi'' = -tau / f <= -tau / u."""
        return self.tau

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:  # noqa: D102
        from flowopt.lazy_cvxpy import cp

        share, capacity = finite_terms(flow, net)
        return net.value(flow) + self.tau * capacity @ cp.entr(share)

    def edge_value(self, flow: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        from scipy.special import entr

        return np.asarray(self.tau * capacity * entr(flow / capacity))

    def edge_best(self, price: FloatArray, capacity: FloatArray) -> FloatArray:  # noqa: D102
        return capacity * np.exp(np.minimum(price / self.tau - 1, 0.0))
