"""What an objective is, and the separable ones that allow a bound of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

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


def finite_terms(flow: Any, net: FlowNetwork) -> tuple[Any, FloatArray]:
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


def positive(value: float, name: str) -> float:
    """The value as a float, refused unless positive and finite."""
    if not (isinstance(value, int | float | np.number) and 0 < value < np.inf):
        raise InputError(f"{name} must be a positive finite number, not {value!r}.")
    return float(value)
