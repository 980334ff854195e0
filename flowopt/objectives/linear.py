"""Linear objectives: plain maximum flow, and maximum flow with costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from flowopt.errors import InputError
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives.base import Facts, Separable

if TYPE_CHECKING:
    import cvxpy as cp


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


def _as_sequence(cost: Any) -> Sequence[Any]:
    if isinstance(cost, dict | str) or np.isscalar(cost):
        raise InputError("MinCost needs an array of costs: (t,) for tokens or one per block.")
    return list(cost)
