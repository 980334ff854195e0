"""Attention of one example as plain arrays: raw attention, residual attention, rollout."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowopt.capacities import Residual, RowNormalize
from flowopt.errors import InputError

__all__ = ["HeadReduction", "raw_attention", "residual_attention", "rollout"]

Array = NDArray[np.float64]
HeadReduction = Literal["mean", "max", "min"] | int
"""How the heads of a layer become one matrix: a name, or the number of a single head."""

_REDUCTIONS: dict[str, Callable[..., Array]] = {"mean": np.mean, "max": np.max, "min": np.min}


def rollout(attention: ArrayLike, *, alpha: float = 0.5, heads: HeadReduction = "mean") -> Array:
    """Attention rollout: the product of the residual attention of all layers up to each one.

    Parameters
    ----------
    attention : array_like (L, H, t, t), or the sequence of L arrays (1, H, t, t) of a model
        Attention of one example after the softmax; row = query, column = key; layer 0 reads the
        input. Tensors of torch are welcome.
    alpha : float
        Share of the attention against the residual connection, 0 <= alpha <= 1.
    heads : {"mean", "max", "min"} or int
        How the heads become one matrix, before the residual is added; a number picks one head.

    Returns
    -------
    ndarray (L, t, t)
        Entry [l, i, j]: share of token j of the input in node i of layer l + 1. Rows sum to 1.

    Raises
    ------
    InputError
        If attention is not such an array, is negative or not finite; for an unknown reduction,
        a head that does not exist, or alpha outside [0, 1].

    Notes
    -----
    For rollout down to a later layer than the input, leave the layers below away:
    ``rollout(attention[start:])``.

    References
    ----------
    Abnar & Zuidema (2020), Quantifying Attention Flow in Transformers, section 3; method.md,
    section 5.

    Examples
    --------
    >>> rollout([[[[0.0, 1.0], [0.0, 1.0]]], [[[1.0, 0.0], [1.0, 0.0]]]])
    array([[[0.5 , 0.5 ],
            [0.  , 1.  ]],
    <BLANKLINE>
           [[0.5 , 0.5 ],
            [0.25, 0.75]]])
    """
    layers = residual_attention(attention, alpha=alpha, heads=heads)
    product = np.empty_like(layers)
    product[0] = layers[0]
    for layer in range(1, len(layers)):
        product[layer] = layers[layer] @ product[layer - 1]
    return product


def raw_attention(
    attention: ArrayLike,
    layer: int = -1,
    position: int | None = None,
    *,
    heads: HeadReduction = "mean",
) -> Array:
    """Attention of one layer as it is, without residual: the baseline of the flow papers.

    Parameters
    ----------
    attention : array_like (L, H, t, t), or the sequence of L arrays (1, H, t, t) of a model
    layer : int
        Which layer, by default the last; its columns are positions of the layer below, which
        are read as tokens.
    position : int, optional
        The row of one query; by default all rows.
    heads : {"mean", "max", "min"} or int

    Returns
    -------
    ndarray (t, t), or (t,) with a position

    Raises
    ------
    InputError
        As `rollout`; also for a layer or a position that does not exist.
    """
    reduced = reduced_heads(attention, heads)
    matrix = reduced[index(layer, len(reduced), "layer")]
    if position is None:
        return np.array(matrix)
    return np.array(matrix[index(position, len(matrix), "position")])


def residual_attention(
    attention: ArrayLike, *, alpha: float = 0.5, heads: HeadReduction = "mean"
) -> Array:
    """Capacities of the flow papers: ``alpha * A + (1 - alpha) * I``, rows divided by their sums.

    Parameters
    ----------
    attention : array_like (L, H, t, t), or the sequence of L arrays (1, H, t, t) of a model
    alpha : float
        Share of the attention; 1/2 in Abnar & Zuidema (2020), section 3.
    heads : {"mean", "max", "min"} or int
        How the heads become one matrix.

    Returns
    -------
    ndarray (L, t, t)
        Nonnegative; rows sum to 1 (rows of zeros, possible with alpha = 1, stay zero).

    Raises
    ------
    InputError
        As `rollout`.
    """
    reduced = reduced_heads(attention, heads)
    return RowNormalize()(Residual(alpha)(reduced))


def reduced_heads(attention: ArrayLike, heads: HeadReduction) -> Array:
    """Check attention (L, H, t, t), and make one matrix of the heads of every layer."""
    array = checked_attention(attention)
    if isinstance(heads, str):
        if heads not in _REDUCTIONS:
            raise InputError(
                f"heads must be one of {', '.join(map(repr, _REDUCTIONS))} or the number of a "
                f"head, not {heads!r}"
            )
        return _REDUCTIONS[heads](array, axis=1)
    return np.array(array[:, index(heads, array.shape[1], "head")])


def checked_attention(attention: ArrayLike) -> Array:
    """Attention as float64 (L, H, t, t): finite and nonnegative, or an InputError."""
    if isinstance(attention, (tuple, list)) and any(hasattr(a, "detach") for a in attention):
        attention = [_plain(layer) for layer in attention]
    try:
        array = np.asarray(_plain(attention))
        if array.dtype.kind == "c":
            raise TypeError("complex")
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(
            "attention must be an array of numbers of shape (L, H, t, t): layers, heads, "
            "queries, keys; all layers with the same number of heads and tokens"
        ) from None
    if array.ndim == 5 and array.shape[1] == 1:  # layers of a model's batch of one
        array = array[:, 0]
    if array.ndim != 4 or array.shape[2] != array.shape[3] or 0 in array.shape:
        raise InputError(
            "attention must have shape (L, H, t, t): layers, heads, queries, keys; not "
            f"{array.shape}. For heads already averaged pass A[:, None]; of a batch, one example"
        )
    for bad, what in ((~np.isfinite(array), "finite"), (array < 0, "nonnegative")):
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"attention must be {what}; the entry at {where} is {array[where]:.3g}. Pass the "
                "attention after the softmax, not the scores before it"
            )
    return array


def index(number: Any, size: int, what: str) -> int:
    """A position in 0 .. size - 1; negative numbers count from the end."""
    try:
        value = operator.index(number)
    except TypeError:
        raise InputError(f"{what} must be a whole number, not {number!r}") from None
    if isinstance(number, (bool, np.bool_)) or not -size <= value < size:
        raise InputError(f"{what} {number!r} does not exist; there are {size}: 0 .. {size - 1}")
    return value % size


def chosen_of(numbers: Iterable[int] | None, size: int, what: str) -> list[int]:
    """Positions in 0 .. size - 1 in the order given; all of them without any."""
    if numbers is None:
        return list(range(size))
    if not isinstance(numbers, Iterable):
        raise InputError(f"{what}s must be a list of whole numbers, not {numbers!r}")
    chosen = [index(number, size, what) for number in numbers]
    if not chosen:
        raise InputError(f"no {what} is chosen; leave {what}s=None for all of them")
    return chosen


def _plain(values: Any) -> Any:
    # tensors inside a graph or on another device do not convert by themselves
    return values.detach().cpu().double().numpy() if hasattr(values, "detach") else values
