"""Edges as a user gives them: dense blocks and single links, with checked capacities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowopt.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Block:
    """Dense edges from every node of group `tail` to every node of group `head`.

    Parameters
    ----------
    tail, head : str
        Names of groups. Flow runs from tail to head.
    capacity : array_like, shape (n_tail, n_head)
        Finite and nonnegative; a zero means that there is no edge.
    """

    tail: str
    head: str
    capacity: FloatArray

    def __post_init__(self) -> None:
        name = f"the block {self.tail} -> {self.head}"
        object.__setattr__(self, "capacity", capacity_array(self.capacity, 2, name))


@dataclass(frozen=True, eq=False)
class Link:
    """Single edges between nodes of two groups.

    Parameters
    ----------
    tail, head : str
        Names of groups.
    pairs : array_like of int, shape (k, 2)
        Index in the tail group, index in the head group.
    capacity : array_like, shape (k,), optional
        None: unlimited, with no barrier term.
    """

    tail: str
    head: str
    pairs: IntArray
    capacity: FloatArray | None = None

    def __post_init__(self) -> None:
        what = f"pairs of the link {self.tail} -> {self.head}"
        pairs = index_array(self.pairs, what)
        if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2):
            raise InputError(
                f"{what} must have shape (k, 2): index in the tail group, index in the head "
                f"group; not {pairs.shape}."
            )
        pairs = pairs.reshape(-1, 2)
        pairs.setflags(write=False)
        object.__setattr__(self, "pairs", pairs)
        if self.capacity is not None:
            name = f"the link {self.tail} -> {self.head}"
            capacity = capacity_array(self.capacity, 1, name)
            if len(capacity) != len(pairs):
                raise InputError(f"{name}: {len(pairs)} pairs but {len(capacity)} capacities.")
            object.__setattr__(self, "capacity", capacity)


def capacity_array(values: ArrayLike, ndim: int, name: str) -> FloatArray:
    """Read-only float64 copy of capacities, refused unless finite and nonnegative.

    An array that is already float64, contiguous and read-only is kept without a copy.
    """
    if hasattr(values, "detach"):  # a torch tensor, perhaps on a GPU or with a graph
        values = values.detach().cpu().numpy()
    if np.iscomplexobj(values):
        raise InputError(f"{name} is complex; capacities are real and nonnegative.")
    ours = isinstance(values, np.ndarray) and not values.flags.writeable
    try:
        array = np.array(values, dtype=np.float64, order="C", copy=None if ours else True)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not a numeric array of one shape: {error}.") from None
    if array.ndim != ndim:
        raise InputError(f"{name} must have {ndim} dimensions, not {array.ndim}.")
    if array.size:
        low, high = array.min(), array.max()  # NaN travels through both
        if np.isnan(low):
            raise InputError(f"{name} contains NaN; clean the capacities first (np.nan_to_num).")
        if low < 0:
            raise InputError(
                f"{name} contains negative capacities (least {low:.3g}); take the positive part, "
                "or explain positive and negative parts as two networks."
            )
        if high == np.inf:
            raise InputError(
                f"{name} contains infinite capacities; use a Link for unlimited edges."
            )
        if 0 < high < 1e-140 or high > 1e140:
            raise InputError(f"{name} must lie in 1e-140..1e140 (limits of float64); rescale it.")
    array.setflags(write=False)
    return array


def index_array(values: ArrayLike, what: str) -> IntArray:
    """Copy of whole numbers as int64; anything that is not is refused, booleans too."""
    try:
        array = np.array(values)
    except ValueError as error:
        raise InputError(f"{what}: not an array of one shape ({error}).") from None
    if array.size and array.dtype.kind not in "iu":
        hint = "; give np.flatnonzero(mask) for a mask" if array.dtype.kind == "b" else ""
        raise InputError(f"{what} must be whole numbers, not {array.dtype}{hint}.")
    return array.astype(np.int64)


def check_indices(indices: IntArray, size: int, what: str) -> None:
    """Refuse indices outside 0 .. size - 1."""
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise InputError(f"{what}: indices must lie in 0..{size - 1}.")
