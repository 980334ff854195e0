"""Joint attention flow: one flow from the output to all tokens at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from flowopt.methods.rollout import HeadReduction, chosen_of, index, residual_attention

if TYPE_CHECKING:
    from flowopt.objectives import Objective
    from flowopt.solution import FlowSolution
    from flowopt.solvers import Solver

__all__ = ["joint_flow"]


def joint_flow(
    attention: ArrayLike,
    position: int | Iterable[int] | None = None,
    objective: Objective | None = None,
    *,
    layer: int = -1,
    alpha: float = 0.5,
    heads: HeadReduction = "mean",
    solver: str | Solver | None = None,
) -> FlowSolution:
    """Joint attention flow: one flow from the output to all tokens of the input at once.

    On the same residual attention as `attention_flow`, but tokens compete for the edges: the
    attributions add up to the value of one flow. With `MaxFlow` they are in general not unique,
    and the returned ones depend on the solver (rollout gives others, of the same value, from one
    position); a regularised objective such as `LogBarrier` determines them.

    Parameters
    ----------
    attention : array_like (L, H, t, t), or the sequence of L arrays (1, H, t, t) of a model
        As for `attention_flow`.
    position : int or iterable of int, optional
        Node or nodes above the layer from which the flow starts; by default all of them.
    objective : Objective, optional
        Plain maximum flow by default.
    layer : int
        The layer above which the flow starts, by default the last.
    alpha, heads
        As for `attention_flow`.
    solver : str, Solver, optional
        As for `flowopt.solve`.

    Returns
    -------
    FlowSolution
        Its `attributions` (t,) are the flow through each token; they sum to its `value`.

    Raises
    ------
    InputError
        As `attention_flow`.
    SolverError
        As `flowopt.solve`.

    References
    ----------
    Ethayarajh & Jurafsky (2021), Attention Flows are Shapley Value Explanations; Metzger et al.
    (2022); method.md, sections 5 and 8.
    """
    from flowopt.network import FlowNetwork
    from flowopt.objectives import MaxFlow
    from flowopt.solvers import solve

    capacity = residual_attention(attention, alpha=alpha, heads=heads)
    top = index(layer, len(capacity), "layer") + 1
    if position is not None and not isinstance(position, Iterable):
        position = [position]
    nodes = sorted(set(chosen_of(position, capacity.shape[1], "position")))
    net = FlowNetwork.layered(capacity[:top], sources=nodes)
    return solve(net, MaxFlow() if objective is None else objective, solver)
