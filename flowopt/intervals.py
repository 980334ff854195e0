"""What plain maximum flow leaves open: the flow each token may have in some maximum flow.

The token inflows of all maximum flows are the base polytope of a polymatroid, so token j's flow
ranges over [v(N) - v(N minus j), v({j})], v the maximum flow to a set of tokens (method.md
section 8a). Attributions by plain maximum flow are well defined if and only if every interval is
a point, that is if sum_j v({j}) = v(N).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowopt.errors import InputError, SolverError
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import MaxFlow
from flowopt.progress import progress_bar
from flowopt.solution import FlowSolution
from flowopt.solvers.coalitions import PlayerGates
from flowopt.solvers.fair import one_player_per_path

TOLERANCE = 1e-9  # width, relative to the maximum flow, that counts as rounding


def ambiguity(net: FlowNetwork, method: str | None = None, progress: bool = False) -> FloatArray:
    """Least and greatest flow through each token over all maximum flows.

    Parameters
    ----------
    net : FlowNetwork
    method : str, optional
        "flow": combinatorial, exact to rounding, one maximum flow and two small ones per token.
        "lp": two linear programs per token by HiGHS, to about 1e-7 of |f|; slow, but it needs no
        structure. By default "flow" where every path ends in exactly one token, else "lp".
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    ndarray, shape (t, 2)
        In units of flow; both 0 for tokens that no flow can reach.

    Raises
    ------
    InputError
        If `net` is no network, or the method is unknown.
    UnsupportedError
        If "flow" was asked for and some path passes several tokens or none.

    Examples
    --------
    >>> net = fo.FlowNetwork.layered([[[1, 1], [0, 0]]], node_capacity=[[9, 9], [1, 9]])
    >>> fo.ambiguity(net).tolist()  # two tokens behind one node that lets through 1
    [[0.0, 1.0], [0.0, 1.0]]
    """
    if not isinstance(net, FlowNetwork):
        raise InputError(f"ambiguity takes a FlowNetwork, not {type(net).__name__}.")
    if method not in (None, "flow", "lp"):
        raise InputError(f"method must be 'flow', 'lp' or None, not {method!r}.")
    if net.graph.empty:
        return np.zeros((net.n_players, 2))
    if method == "lp" or (method is None and not one_player_per_path(net)):
        return _by_linear_programs(net, progress)
    return PlayerGates.of(net).intervals(progress)


@dataclass(frozen=True, eq=False)
class WellDefined:
    """Whether plain maximum flow determines the attributions of a network.

    Attributes
    ----------
    intervals : ndarray, shape (t, 2)
        See `ambiguity`.
    value : float
        v(N), the maximum flow.
    tokens : tuple of str
    """

    intervals: FloatArray
    value: float
    tokens: tuple[str, ...] = field(default=(), repr=False)

    @property
    def widths(self) -> FloatArray:
        """Length of each interval as a part of the maximum flow, shape (t,)."""
        return np.asarray((self.intervals[:, 1] - self.intervals[:, 0]) / (self.value or 1.0))

    @property
    def determined(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Tokens with one flow in all maximum flows, shape (t,)."""
        return np.asarray(self.widths <= TOLERANCE)

    @property
    def well_defined(self) -> bool:
        """Whether all attributions are determined."""
        return bool(self.determined.all())

    @property
    def excess(self) -> float:
        """(sum_j v({j}) - v(N)) / v(N): 0 if and only if the attributions are well defined."""
        return float((self.intervals[:, 1].sum() - self.value) / (self.value or 1.0))

    def __str__(self) -> str:
        if self.well_defined:
            return "Well defined: every token has the same flow in all maximum flows."
        widest = int(self.widths.argmax())
        name = f"token {widest}"
        if self.tokens:
            name += f" ({self.tokens[widest]!r})"
        low, high = self.intervals[widest] / self.value
        agreed = f"{int(self.determined.sum())} of {len(self.intervals)} tokens"
        return (
            f"Not well defined: maximum flows agree on {agreed}; {name} may have any share from "
            f"{low:.1%} to {high:.1%} of the flow."
        )


def well_defined(net: FlowNetwork, tokens: tuple[str, ...] = ()) -> WellDefined:
    """Say whether plain maximum flow determines the attributions of a network, with numbers.

    Parameters
    ----------
    net : FlowNetwork
    tokens : tuple of str, optional
        Names for the statement.
    """
    intervals = ambiguity(net)
    if tokens and len(tokens) != len(intervals):
        raise InputError(f"{len(tokens)} names for {len(intervals)} tokens.")
    return WellDefined(intervals, net.max_flow, tuple(tokens))


def caveat(solution: FlowSolution, tokens: tuple[str, ...] = ()) -> str | None:
    """What has to be said where a solution's attributions are shown; None where nothing has.

    For plain maximum flow the statement of `WellDefined`: the flow is certified, the attributions
    are whatever the solver happened to return. Other objectives choose by a rule.

    Parameters
    ----------
    solution : FlowSolution
    tokens : tuple of str, optional
        Names for the statement.
    """
    if type(solution.objective) is not MaxFlow or solution.network.graph.empty:
        return None
    found = well_defined(solution.network, tokens)
    return None if found.well_defined else str(found)


def _by_linear_programs(net: FlowNetwork, progress: bool) -> FloatArray:
    """Two linear programs per token over shares of the maximum flow, |f| fixed at it."""
    from scipy.optimize import linprog

    edges, graph, top = net.edges, net.graph, net.max_flow
    scale = np.minimum(edges.capacity, top)
    share = scale / top
    ends = np.flatnonzero(graph.alive & (graph.source | graph.sink))
    sign = np.where(graph.source[ends], -1.0, 1.0)
    terminal = sign[:, None] * (edges.full_incidence[ends] * share).toarray()
    value = edges.value_vector[None] * share
    fixed: dict[str, Any] = {
        "A_ub": np.vstack([-value, value, terminal]),
        # rounding of F* must not make its own flow infeasible
        "b_ub": np.r_[-(1 - 1e-8), 1.0, np.zeros(len(ends))],
        "A_eq": edges.incidence * share,
        "b_eq": np.zeros(edges.incidence.shape[0]),
        "bounds": np.c_[np.zeros(len(scale)), edges.capacity / scale],
        "method": "highs",
    }
    found = np.zeros((net.n_players, 2))
    with progress_bar(net.n_players, progress, "token", "intervals") as advance:
        for j, through in enumerate(edges.player_matrix.toarray() * share):
            for side, direction in enumerate((1.0, -1.0) if through.any() else ()):
                result: Any = linprog(direction * through, **fixed)
                if result.status != 0:
                    raise SolverError(f"HiGHS found no interval for token {j}: {result.message}")
                found[j, side] = direction * result.fun * top
            advance()
    return found
