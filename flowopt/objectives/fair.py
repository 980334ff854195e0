"""Fair division of the maximum flow among the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives.base import Facts, Objective

if TYPE_CHECKING:
    import cvxpy as cp


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
