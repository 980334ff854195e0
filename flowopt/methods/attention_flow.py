"""Attention flow per pair: the maximum flow from every node to every token on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowopt.errors import InputError, SolverError
from flowopt.methods.rollout import HeadReduction, chosen_of, residual_attention
from flowopt.progress import progress_bar
from flowopt.provenance import cores

__all__ = ["PairFlows", "attention_flow", "pair_flows"]

Array = NDArray[np.float64]

TOLERANCE = 1e-9  # largest relative gap between the bounds of a pair that counts as proved


@dataclass(frozen=True, eq=False)
class PairFlows:
    """Maximum flows of many pairs, each between a lower and an upper bound that flowopt proves.

    Attributes
    ----------
    lower : ndarray (a, p, t)
        Entry [n, m, j]: value of a feasible flow from node ``positions[m]`` of layer
        ``layers[n] + 1`` to token j of the input.
    upper : ndarray (a, p, t)
        Capacity of a cut between the two.
    layers, positions : tuple of int
        What the first two axes stand for.
    solved : int
        Pairs for which a flow had to be sent; for the others the bounds met before.
    """

    lower: Array = field(repr=False)
    upper: Array = field(repr=False)
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    solved: int

    @property
    def values(self) -> Array:
        """The values of the flows, (a, p, t): `lower`."""
        return self.lower

    @property
    def shares(self) -> Array:
        """The values with every row divided by its sum, (a, p, t); rows of zeros stay zero."""
        # a first division by the largest entry keeps rows of tiny values in range
        scaled = _over(self.lower, self.lower.max(axis=2, keepdims=True))
        return _over(scaled, scaled.sum(axis=2, keepdims=True))

    @property
    def gap(self) -> Array:
        """(upper - lower) / upper of every pair, (a, p, t); 0 where nothing can flow."""
        return _over(np.maximum(self.upper - self.lower, 0.0), self.upper)

    @property
    def worst_gap(self) -> float:
        """The largest entry of `gap`: no value is further than this from the maximum flow."""
        return float(self.gap.max())

    def __str__(self) -> str:
        return (
            f"{self.lower.size} flows from {len(self.positions)} nodes in each of "
            f"{len(self.layers)} layers; relative gap at most {self.worst_gap:.1e}"
        )


def attention_flow(
    attention: ArrayLike,
    *,
    alpha: float = 0.5,
    heads: HeadReduction = "mean",
    layers: Iterable[int] | None = None,
    positions: Iterable[int] | None = None,
    normalise: bool = True,
    workers: int | None = None,
    progress: bool = False,
) -> Array:
    """Attention flow per pair: from every node to every token of the input on its own.

    Capacities are the residual attention. For each pair of a node and a token, entry [l, i, j] is
    the *value* of the maximum flow with node i of layer l + 1 as the only source and token j as
    the only sink; at the end every row is divided by its sum. The flows of two tokens may use the
    same edges, so their values do not add up to one flow; for all tokens at once see
    `joint_flow`. A pair's value is the most that any joint maximum flow could give that token.

    Parameters
    ----------
    attention : array_like (L, H, t, t), or the sequence of L arrays (1, H, t, t) of a model
        Attention of one example after the softmax; row = query, column = key; layer 0 reads the
        input. Causal attention has zeros above the diagonal, and needs nothing else.
    alpha : float
        Share of the attention against the residual connection, 0 <= alpha <= 1.
    heads : {"mean", "max", "min"} or int
        How the heads become one matrix, before the residual is added; a number picks one head.
    layers : iterable of int, optional
        Compute only the flows from the nodes above these layers, in this order; by default all.
        The flows of a layer bound those of the next, so leaving layers away saves less than
        their share of the time.
    positions : iterable of int, optional
        Compute only the flows from these nodes of every layer, in this order; by default all.
    normalise : bool
        Whether rows are divided by their sums; False gives the values of the flows.
    workers : int, optional
        Threads; by default one for each core that this process may use.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    ndarray (L, t, t), or (len(layers), len(positions), t)
        Entry 0 is the residual attention itself.

    Raises
    ------
    InputError
        If attention is not such an array, is negative or not finite; for an unknown head, layer
        or position, or alpha outside [0, 1].
    SolverError
        If a value is not proved to a relative 1e-9 by a cut.

    References
    ----------
    Abnar & Zuidema (2020), Quantifying Attention Flow in Transformers, section 3; method.md,
    section 5.

    Examples
    --------
    >>> attention_flow([[[[0.0, 1.0], [0.0, 1.0]]], [[[1.0, 0.0], [1.0, 0.0]]]])[1]
    array([[0.5       , 0.5       ],
           [0.33333333, 0.66666667]])
    """
    flows = pair_flows(
        attention, alpha=alpha, heads=heads, layers=layers, positions=positions,
        workers=workers, progress=progress,
    )  # fmt: skip
    if flows.worst_gap > TOLERANCE:
        raise SolverError(
            f"an attention flow is proved only to a relative {flows.worst_gap:.1e}; look at "
            "flowopt.methods.pair_flows(...).gap, or drop tiny entries of the attention first"
        )
    return flows.shares if normalise else flows.values


def pair_flows(
    attention: ArrayLike,
    *,
    alpha: float = 0.5,
    heads: HeadReduction = "mean",
    layers: Iterable[int] | None = None,
    positions: Iterable[int] | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> PairFlows:
    """The flows of `attention_flow` with their proofs.

    Parameters
    ----------
    attention, alpha, heads, layers, positions, workers, progress
        As for `attention_flow`.

    Returns
    -------
    PairFlows
        Values, the capacity of a cut for every pair, and the gap between the two.

    Raises
    ------
    InputError
        As `attention_flow`.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, or None for one per core; not {workers}")
    capacity = residual_attention(attention, alpha=alpha, heads=heads)
    depth, t, _ = capacity.shape
    chosen = chosen_of(layers, depth, "layer")
    nodes = chosen_of(positions, t, "position")
    # computed in ascending order and once each, then put into the order asked for
    rows, row_of = np.unique(chosen, return_inverse=True)
    starts, start_of = np.unique(nodes, return_inverse=True)
    lower = np.zeros((len(rows), len(starts), t))
    upper = np.zeros_like(lower)
    with progress_bar(t, progress, "token", "attention flow") as tick:
        solved = _fill(capacity, rows, starts, lower, upper, min(workers or cores(), t), tick)
    picked = np.ix_(row_of, start_of)
    return PairFlows(lower[picked], upper[picked], tuple(chosen), tuple(nodes), solved)


def _fill(
    capacity: Array,
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    lower: Array,
    upper: Array,
    workers: int,
    tick: Callable[[], object],
) -> int:
    """Fill both bounds in place, tokens over threads; the number of flows sent."""
    from flowopt.methods.layered_dinic import workspace
    from flowopt.methods.token_flows import flows_to

    top = int(rows.max()) + 1
    wanted = np.full(top, -1)
    wanted[rows] = np.arange(len(rows))
    below = np.ascontiguousarray(capacity[:top])

    def share(first: int) -> int:
        work = workspace(below)
        sent = 0
        for sink in range(first, below.shape[1], workers):
            sent += flows_to(work, sink, wanted, starts, lower, upper)
            tick()
        return sent

    if workers == 1:
        return share(0)
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(share, range(workers)))


def _over(array: Array, by: Array) -> Array:
    """Divide where the divisor is positive; elsewhere zero."""
    return np.divide(array, by, out=np.zeros_like(array), where=by > 0)
