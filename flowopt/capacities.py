"""Capacity variants: maps from capacities (L, q, k) to capacities of the same shape.

q = k = t in self-attention; in attention to an encoder they are the tokens of either side.

Every variant is a frozen dataclass that is called with an array and returns a new one. Variants
are applied one after the other: ``compose(Residual(0.5), RowNormalize())(C)``. Any callable with
the same signature can stand in their place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from flowopt.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = [
    "CapacityVariant",
    "Composed",
    "GammaScale",
    "Residual",
    "Round",
    "RowNormalize",
    "Temperature",
    "Threshold",
    "TopK",
    "adds_residual",
    "compose",
]

CapacityVariant = Callable[[Any], "Array"]
"""A callable ``(L, t, t) -> (L, t, t)``: nonnegative, finite capacities in and out."""


@dataclass(frozen=True)
class Residual:
    """Mix every layer with the identity: ``alpha * C + (1 - alpha) * I``.

    Abnar & Zuidema (2020), section 3, use alpha = 1/2 and then divide rows by their sums: for
    capacities whose rows do not already sum to 1 add `RowNormalize` before or after.

    Parameters
    ----------
    alpha : float
        Weight of the capacities, 0 <= alpha <= 1.
    """

    alpha: float = 0.5
    adds_residual: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"Residual: alpha must lie in [0, 1], not {self.alpha!r}")

    def __call__(self, capacities: ArrayLike) -> Array:
        """Mix nonnegative capacities (L, t, t) with the identity."""
        array = checked(capacities, square=True)
        mixed: Array = self.alpha * array + (1 - self.alpha) * np.eye(array.shape[1])
        return mixed

    def across(self, capacities: ArrayLike) -> Array:
        """Weigh attention to an encoder (L, q, k); its residual runs beside it, not in it."""
        weighed: Array = self.alpha * checked(capacities)
        return weighed

    def past(self, capacities: ArrayLike) -> Array:
        """Weigh attention to an encoder (L, q, k + 1) whose last column is the way past it."""
        weighed = self.across(capacities)
        weighed[:, :, -1] += 1 - self.alpha
        return weighed


@dataclass(frozen=True)
class RowNormalize:
    """Divide every row by its sum; rows of zeros stay zero."""

    def __call__(self, capacities: ArrayLike) -> Array:
        """Divide the rows of capacities (L, t, t) by their sums."""
        # A first division by the largest entry keeps sums of very large or tiny rows in range.
        array = _over_row_maximum(checked(capacities))
        return _divide(array, array.sum(axis=2, keepdims=True))


@dataclass(frozen=True)
class GammaScale:
    """Multiply by a power of ten, ``10 ** beta``.

    GAF's scaling (method.md, section 4): by default beta = -floor(log10(smallest positive
    entry)), so the smallest positive capacity lands in [1, 10). Zeros alone stay as they are.

    Parameters
    ----------
    beta : int, float or None
        The exponent; None derives it from the capacities.
    """

    beta: float | None = None

    def __post_init__(self) -> None:
        if self.beta is not None and not math.isfinite(self.beta):
            raise InputError(f"GammaScale: beta must be a finite number or None, not {self.beta!r}")

    def __call__(self, capacities: ArrayLike) -> Array:
        """Scale capacities (L, t, t); InputError where they would overflow."""
        array = checked(capacities)
        positive = array[array > 0]
        if not positive.size:
            return array.copy()
        beta = self.fitted([array]).beta
        assert beta is not None
        with np.errstate(over="ignore"):
            scaled: Array = array * np.float64(10.0) ** beta
        if not np.isfinite(scaled).all():
            raise InputError(
                f"GammaScale: 10**{beta} makes capacities overflow; drop tiny entries first with "
                "Threshold(minimum), or give a smaller beta"
            )
        return scaled

    def fitted(self, arrays: Sequence[Array]) -> GammaScale:
        """The same scaling with its exponent read off several arrays together."""
        least = min((array[array > 0].min() for array in arrays if (array > 0).any()), default=1.0)
        return self if self.beta is not None else GammaScale(-math.floor(math.log10(least)))


@dataclass(frozen=True)
class Round:
    """Round to the nearest integer (halves to the even one); usually after `GammaScale`."""

    def __call__(self, capacities: ArrayLike) -> Array:
        """Round capacities (L, t, t)."""
        return np.rint(checked(capacities))


@dataclass(frozen=True)
class Temperature:
    """Raise to the power ``1 / T`` and rescale every row to the sum it had before.

    For softmax rows this is the softmax at temperature T times the former one: T > 1 flattens,
    T < 1 sharpens, T = 1 changes nothing.

    Parameters
    ----------
    T : float
        Temperature, T > 0.
    """

    T: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.T) and self.T > 0):
            raise InputError(f"Temperature: T must be a positive finite number, not {self.T!r}")

    def __call__(self, capacities: ArrayLike) -> Array:
        """Flatten or sharpen the rows of capacities (L, t, t)."""
        array = checked(capacities)
        # Relative to the row's largest entry, so that small T cannot make a whole row underflow.
        powered = _over_row_maximum(array) ** (1 / self.T)
        shares = _divide(powered, powered.sum(axis=2, keepdims=True))
        rescaled: Array = shares * array.sum(axis=2, keepdims=True)
        return rescaled


@dataclass(frozen=True)
class Threshold:
    """Set entries below a minimum to zero.

    Parameters
    ----------
    minimum : float
        Smallest capacity kept, in the units of the capacities; nonnegative.
    """

    minimum: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.minimum) and self.minimum >= 0):
            raise InputError(
                f"Threshold: minimum must be a nonnegative finite number, not {self.minimum!r}"
            )

    def __call__(self, capacities: ArrayLike) -> Array:
        """Drop small entries of capacities (L, t, t)."""
        array = checked(capacities)
        return np.where(array < self.minimum, 0.0, array)


@dataclass(frozen=True)
class TopK:
    """Keep the k largest entries of every row, zero the others (of equal ones, the first stay).

    Parameters
    ----------
    k : int
        Entries kept per row, k >= 1; rows with fewer are left alone.
    """

    k: int

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise InputError(f"TopK: k must be an integer of at least 1, not {self.k!r}")

    def __call__(self, capacities: ArrayLike) -> Array:
        """Keep the largest entries of each row of capacities (L, t, t)."""
        array = checked(capacities)
        # A stable sort of the negated entries keeps the first of equal ones.
        kept = np.argsort(-array, axis=2, kind="stable")[:, :, : self.k]
        result = np.zeros_like(array)
        np.put_along_axis(result, kept, np.take_along_axis(array, kept, axis=2), axis=2)
        return result


@dataclass(frozen=True)
class Composed:
    """Several variants, applied from the first to the last; made by `compose`."""

    variants: tuple[CapacityVariant, ...] = field(default=())

    @property
    def adds_residual(self) -> bool:
        """Whether one of the variants adds a residual edge."""
        return adds_residual(self.variants)

    def __call__(self, capacities: ArrayLike) -> Array:
        """Apply the variants in turn to capacities (L, t, t), and check each result."""
        return self.stages({"self": checked(capacities, square=True)})["self"]

    def stages(
        self,
        capacities: Mapping[str, ArrayLike],
        across: Collection[str] = (),
        past: Collection[str] = (),
    ) -> dict[str, Array]:
        """Apply the variants in turn to the capacities of several stages, and check each result.

        Parameters
        ----------
        capacities : mapping of str to array (L, q, k)
        across : collection of str
            Stages that attend to another group of tokens; their residual is not among the keys.
        past : collection of str
            Such stages whose last column is the residual edge beside the attention.

        Raises
        ------
        InputError
            If a variant returns another shape or negative or non-finite numbers.
        """
        arrays = {stage: checked(array).copy() for stage, array in capacities.items()}
        for variant in self.variants:
            name = getattr(variant, "__name__", None) or repr(variant)
            # what a variant reads off the capacities it reads off all of them together
            fitted = (
                variant.fitted(list(arrays.values())) if hasattr(variant, "fitted") else variant
            )
            for stage, array in arrays.items():
                part = "past" if stage in past else "across" if stage in across else "__call__"
                step = getattr(fitted, part, fitted)
                changed = checked(step(array), what=f"the result of capacity variant {name}")
                if changed.shape != array.shape:
                    raise InputError(
                        f"capacity variant {name} returned shape {changed.shape} for "
                        f"{array.shape}; it must keep the shape"
                    )
                arrays[stage] = changed
        return arrays


def compose(*variants: CapacityVariant) -> Composed:
    """Return one variant that applies the given ones from the first to the last.

    Parameters
    ----------
    *variants : callables (L, t, t) -> (L, t, t)
        None at all gives the identity.

    Raises
    ------
    InputError
        If one of them cannot be called, or, when applied, returns another shape or negative or
        non-finite numbers.

    Examples
    --------
    >>> compose(Residual(0.5), RowNormalize())([[[0.0, 1.0], [0.0, 0.0]]])
    array([[[0.5, 0.5],
            [0. , 1. ]]])
    """
    for variant in variants:
        if isinstance(variant, type) or not callable(variant):
            raise InputError(
                f"a capacity variant must be a callable such as Residual(0.5), not {variant!r}"
            )
    # one after the other is associative; flat, each of them meets all stages of a network
    nested = [each.variants if isinstance(each, Composed) else (each,) for each in variants]
    return Composed(tuple(itertools.chain.from_iterable(nested)))


def adds_residual(variants: tuple[CapacityVariant, ...]) -> bool:
    """Whether one of the variants adds residual edges, which revive dead top nodes."""
    return any(getattr(variant, "adds_residual", False) for variant in variants)


def checked(
    capacities: ArrayLike, what: str = "capacities", *, square: bool = False, signed: bool = False
) -> Array:
    """Return capacities as a float64 array, not copied where it already is one.

    Parameters
    ----------
    square : bool
        Whether queries and keys must be the same tokens.
    signed : bool
        Whether negative entries may stand.

    Raises
    ------
    InputError
        If the shape is not (L, t, t), or an entry is negative or not finite.
    """
    try:
        array = np.asarray(capacities, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what} must be an array of numbers of shape (L, t, t)") from None
    wrong = square and array.ndim == 3 and array.shape[1] != array.shape[2]
    if array.ndim != 3 or 0 in array.shape or wrong:
        raise InputError(
            f"{what} must have shape (L, t, t) with L, t >= 1, not {array.shape}; "
            "one layer alone is C[None]"
        )
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{what} must be finite; the entry at {where} is {array[where]}")
    if not signed and (array < 0).any():
        where = tuple(int(i) for i in np.argwhere(array < 0)[0])
        raise InputError(
            f"{what} must be nonnegative; the entry at {where} is {array[where]:.3g}; "
            "take positive and negative parts apart, np.maximum(C, 0) and np.maximum(-C, 0)"
        )
    return array


def _over_row_maximum(array: Array) -> Array:
    return _divide(array, array.max(axis=2, keepdims=True))


def _divide(array: Array, by: Array) -> Array:
    """Divide where the divisor is positive; elsewhere zero."""
    return np.divide(array, by, out=np.zeros_like(array), where=by > 0)
