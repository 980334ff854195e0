"""The maximum flow that divides itself among the tokens by their Shapley values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from flowopt.errors import InputError, UnsupportedError
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives.base import Facts, Objective

if TYPE_CHECKING:
    import cvxpy as cp

    from flowopt.games import ShapleyValues


@dataclass(frozen=True)
class ShapleyFlow(Objective):
    """A maximum flow whose token inflows are the Shapley values of the restricted game.

    v(S) is the maximum flow when only the tokens in S may absorb. Its Shapley value lies in the
    base polytope of v, so some maximum flow has it as its token inflows (method.md section 8b).
    Edge flows are not determined, token flows are: exactly where `samples` and `precision` are
    None and the network has at most 16 tokens; else sampled, with standard errors in
    ``solution.resolved.values.stderr``. Every sampled order gives the inflows of a maximum flow,
    so their mean is one too, whatever the number of samples.

    It is no CVXPY objective: there is no expression over edge flows alone whose maximum it is.

    Parameters
    ----------
    samples : int, optional
        Permutations to draw; 2,000 where the tokens are too many for exact values.
    precision : float, optional
        Sample until every standard error is at most this part of |f|.
    seed : int
    progress : bool
        Whether to show a progress bar.

    Attributes
    ----------
    values : ShapleyValues or None
        Of the network it was resolved for.
    """

    facts = Facts(unique_flow=False, unique_attributions=True, scale_covariant=True)

    samples: int | None = None
    precision: float | None = None
    seed: int = 0
    progress: bool = field(default=False, compare=False)
    values: ShapleyValues | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        samples, precision = self.samples, self.precision
        whole = isinstance(samples, int | np.integer) and not isinstance(samples, bool)
        if samples is not None and not (whole and samples >= 2):
            raise InputError(f"samples must be a whole number of at least 2, not {samples!r}.")
        if precision is not None and not 0 < precision < np.inf:
            raise InputError(f"precision must be a positive number, not {precision!r}.")

    def __repr__(self) -> str:
        given = {"samples": self.samples, "precision": self.precision, "seed": self.seed or None}
        shown = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        return f"ShapleyFlow({shown})"

    def resolve(self, net: FlowNetwork) -> ShapleyFlow:
        """The objective with the Shapley values of a network, which are computed once.

        Raises
        ------
        UnsupportedError
            If a path may pass several tokens, or none: then there is no such game.
        """
        if self.values is not None:
            return self
        known = _RESOLVED.setdefault(net, {})
        if self not in known:
            from flowopt.games import RestrictedGame, shapley_values

            values = shapley_values(
                RestrictedGame(net),
                samples=self.samples,
                precision=self.precision,
                seed=self.seed,
                progress=self.progress,
            )
            known[self] = replace(self, values=values)
        return known[self]

    def target(self) -> FloatArray:
        """Token inflows to attain, shape (t,), of a resolved objective."""
        if self.values is None:
            raise InputError("This objective has no values yet; call resolve(net) first.")
        return self.values.values

    def rescaled(self, factor: float) -> None:
        """None: the values belong to one network."""
        return

    def expression(self, flow: Any, net: FlowNetwork) -> cp.Expression:
        """Refused, always.

        Raises
        ------
        UnsupportedError
        """
        raise UnsupportedError(
            "ShapleyFlow is no CVXPY objective: its token flows are Shapley values, averages over "
            'all orders of the tokens. Solve it with fo.solve(net, fo.ShapleyFlow()), solver "'
            'shapley".'
        )

    def evaluate(self, net: FlowNetwork, flow: FloatArray) -> float:
        """|f|."""
        return float(net.value(flow))

    def gradient(self, net: FlowNetwork, flow: FloatArray) -> FloatArray:
        """Gradient of |f|."""
        return net.edges.value_vector


_RESOLVED: WeakKeyDictionary[FlowNetwork, dict[ShapleyFlow, ShapleyFlow]] = WeakKeyDictionary()
