"""Information tensors: from attention and gradients to the capacities of a network.

A tensor function takes a `Trace` and returns nonnegative capacities (L, t, t); row = query
(upper layer), column = key (lower layer). Register your own with `register_tensor`, or pass the
function itself wherever a name is accepted.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowopt import capacities
from flowopt.errors import InputError
from flowopt.trace.record import Trace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = [
    "TensorFunction",
    "TensorSpec",
    "available_tensors",
    "capacities_of",
    "information_tensor",
    "register_tensor",
    "tensor_spec",
]

TensorFunction = Callable[[Trace], "ArrayLike"]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor function with its name, and whether it reads ``trace.gradient``."""

    name: str
    function: TensorFunction
    needs_gradient: bool = True


_REGISTRY: dict[str, TensorSpec] = {}


def register_tensor(
    name: str, *, needs_gradient: bool = True
) -> Callable[[TensorFunction], TensorFunction]:
    """Register a function ``trace -> (L, t, t)`` under a name.

    Parameters
    ----------
    name : str
        The name that `information_tensor` and `Explainer` accept from now on.
    needs_gradient : bool
        False spares the backward pass; ``trace.gradient`` may then be None.

    Raises
    ------
    InputError
        If the name is empty or belongs to another function.

    Examples
    --------
    >>> @register_tensor("max-head", needs_gradient=False)
    ... def largest_head(trace):
    ...     return trace.attention.max(axis=1)
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a tensor's name must be a string that is not empty, not {name!r}")

    def register(function: TensorFunction) -> TensorFunction:
        if name in _REGISTRY and not _same_source(_REGISTRY[name].function, function):
            raise InputError(f"the tensor name {name!r} is taken; choose another name")
        _REGISTRY[name] = TensorSpec(name, function, needs_gradient)
        return function

    return register


def available_tensors() -> tuple[str, ...]:
    """Names of all registered tensors, sorted."""
    return tuple(sorted(_REGISTRY))


def tensor_spec(tensor: str | TensorFunction) -> TensorSpec:
    """Look a tensor up by name; a function is its own tensor.

    A function without the attribute ``needs_gradient`` is assumed to need the gradient.

    Raises
    ------
    InputError
        If there is no such name, or the argument is neither a name nor a function.
    """
    if isinstance(tensor, str):
        if tensor not in _REGISTRY:
            close = difflib.get_close_matches(tensor.lower(), _REGISTRY, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join(available_tensors())
            raise InputError(f"there is no tensor {tensor!r}; {hint}Known names: {known}")
        return _REGISTRY[tensor]
    if not callable(tensor):
        raise InputError(
            f"tensor must be a name ({', '.join(available_tensors())}) or a function "
            f"trace -> (L, t, t), not {tensor!r}"
        )
    name = getattr(tensor, "__name__", type(tensor).__name__)
    return TensorSpec(name, tensor, getattr(tensor, "needs_gradient", True))


def information_tensor(
    tensor: str | TensorFunction,
    attention: ArrayLike,
    gradient: ArrayLike | None = None,
    *,
    row_tolerance: float | None = None,
) -> Array:
    """Compute an information tensor from plain arrays.

    Parameters
    ----------
    tensor : str or callable
        "af", "gf", "agf", another registered name, or a function ``Trace -> (L, t, t)``.
    attention : array (L, H, t, t)
        Attention of one example after the softmax: nonnegative, rows sum to 1.
    gradient : array (L, H, t, t), optional
        Derivative of the explained logit by `attention`; "af" does not need it.
    row_tolerance : float or None
        Largest accepted |row sum - 1|, to catch e.g. a transposed array; None accepts any
        nonnegative attention, also one with masked heads.

    Returns
    -------
    ndarray (L, t, t)
        Capacities: nonnegative and finite.

    Raises
    ------
    InputError
        If shapes disagree, numbers are not finite, attention is no attention, the gradient is
        missing, or a function returns something that is not (L, t, t), nonnegative and finite.

    References
    ----------
    GAF's information tensors; method.md, section 1.
    """
    spec = tensor_spec(tensor)
    trace = Trace.from_arrays(attention, gradient)
    _check_attention(trace.attention, row_tolerance)
    return capacities_of(trace, spec)


def capacities_of(trace: Trace, tensor: str | TensorFunction | TensorSpec) -> Array:
    """Apply a tensor to a trace, and check the result.

    Returns
    -------
    ndarray (L, t, t)
        Nonnegative, finite.

    Raises
    ------
    InputError
        If the gradient is missing or the result is not such an array.
    """
    spec = tensor if isinstance(tensor, TensorSpec) else tensor_spec(tensor)
    if spec.needs_gradient and trace.gradient is None:
        raise InputError(
            f"tensor {spec.name!r} needs gradients: pass gradient=, the derivative of the "
            "explained logit by the attention (or use 'af', which needs none)"
        )
    result = capacities.checked(spec.function(trace), what=f"the result of tensor {spec.name!r}")
    layers, _, tokens, _ = trace.attention.shape
    if result.shape != (layers, tokens, tokens):
        raise InputError(
            f"tensor {spec.name!r} returned shape {result.shape}, expected "
            f"(L, t, t) = {(layers, tokens, tokens)}"
        )
    return result


@register_tensor("af", needs_gradient=False)
def attention_tensor(trace: Trace) -> Array:
    """Attention, averaged over heads: ``mean_h A`` (GAF's AF)."""
    averaged: Array = trace.attention.mean(axis=1)
    return averaged


@register_tensor("gf")
def gradient_tensor(trace: Trace) -> Array:
    """Positive gradients, averaged over heads: ``mean_h max(G, 0)`` (GAF's GF)."""
    return np.stack([np.maximum(slope, 0.0).mean(axis=0) for slope in _gradient(trace)])


@register_tensor("agf")
def attention_gradient_tensor(trace: Trace) -> Array:
    """Positive attention times gradient, averaged over heads: ``mean_h max(A * G, 0)`` (AGF).

    The positive part comes before the mean: heads that speak against the class do not cancel
    those that speak for it.
    """
    layers = zip(trace.attention, _gradient(trace), strict=True)
    # Layer by layer the intermediate arrays stay in the cache: five times faster at t = 128.
    return np.stack([np.maximum(weight * slope, 0.0).mean(axis=0) for weight, slope in layers])


def _gradient(trace: Trace) -> Array:
    assert trace.gradient is not None  # capacities_of has checked it
    return trace.gradient


def _check_attention(attention: Array, row_tolerance: float | None) -> None:
    if (attention < 0).any():
        raise InputError(
            f"attention must be nonnegative, its least entry is {attention.min():.3g}; "
            "pass the attention after the softmax, not the scores before it"
        )
    if row_tolerance is None:
        return
    error = np.abs(attention.sum(axis=-1) - 1.0)
    if error.max() > row_tolerance:
        layer, head, row = (int(i) for i in np.unravel_index(error.argmax(), error.shape))
        raise InputError(
            f"rows of attention must sum to 1; layer {layer}, head {head}, row {row} sums to "
            f"{attention[layer, head, row].sum():.6g}. Pass [layer, head, query, key] after the "
            "softmax and without dropout (model.eval()), or row_tolerance=None to accept it"
        )


def _same_source(first: TensorFunction, second: TensorFunction) -> bool:
    """Whether a notebook cell was simply run again: same function name in the same module."""
    names = [
        (getattr(f, "__module__", None), getattr(f, "__qualname__", None)) for f in (first, second)
    ]
    return first is second or (names[0] == names[1] and names[0] != (None, None))
