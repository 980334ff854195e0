"""From traces and plain arrays to tensors: made, checked, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from flowopt import capacities
from flowopt.errors import InputError
from flowopt.tensors.registry import Specified, TensorFunction, TensorSpec, tensor_spec
from flowopt.trace.layer import AttentionLayer
from flowopt.trace.record import Trace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["capacities_of", "information_tensor", "stages_of"]


def information_tensor(
    tensor: str | TensorFunction | TensorSpec | Specified,
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
        Capacities: finite, nonnegative unless the tensor is signed.

    Raises
    ------
    InputError
        If shapes disagree, numbers are not finite, attention is no attention, the gradient is
        missing, or a function returns something that is not (L, t, t), finite, and
        nonnegative unless it is signed.

    References
    ----------
    GAF's information tensors; method.md, section 1.
    """
    spec = tensor_spec(tensor)
    trace = Trace.from_arrays(attention, gradient)
    _check_attention(trace.attention, row_tolerance)
    return capacities_of(trace, spec)


def capacities_of(trace: Trace, tensor: str | TensorFunction | TensorSpec | Specified) -> Array:
    """Apply a tensor to the only stage of a trace; see `stages_of`.

    Returns
    -------
    ndarray (L, t, t)
        Finite; nonnegative unless the tensor is signed.
    """
    found = stages_of(trace, tensor)
    if len(found) != 1:
        raise InputError(f"the trace has the stages {', '.join(found)}; use stages_of")
    return next(iter(found.values()))


def stages_of(
    trace: Trace, tensor: str | TensorFunction | TensorSpec | Specified
) -> dict[str, Array]:
    """Capacities of every stage of a trace: what was kept of it, or made from its heads; checked.

    Returns
    -------
    dict of str to ndarray (L, q, k)
        Finite; nonnegative unless the tensor is signed.

    Raises
    ------
    InputError
        If a gradient is missing or a result is not such an array.
    """
    spec = tensor_spec(tensor)
    made: Mapping[str, ArrayLike] = trace.tensors or {
        stage: _made(trace.stage(stage), spec) for stage in trace.heads
    }
    what = f"the result of tensor {spec.name!r}"
    found = {
        stage: capacities.checked(array, what, signed=spec.signed) for stage, array in made.items()
    }
    for stage, heads in trace.heads.items():
        layers, _, *tokens = heads.attention.shape
        if found[stage].shape != (layers, *tokens):
            raise InputError(
                f"tensor {spec.name!r} returned shape {found[stage].shape}, expected "
                f"(L, t, t) = {(layers, *tokens)}"
            )
    return found


def _made(trace: Trace, spec: TensorSpec) -> ArrayLike:
    """Apply a tensor to the heads of one stage."""
    if spec.reader is not None:
        raise InputError(
            f"tensor {spec.name!r} is made by passes of its own, not from attention alone: use "
            f"Explainer(model, tokenizer, tensor={spec.name!r})"
        )
    if spec.needs_gradient and trace.gradient is None:
        raise InputError(
            f"tensor {spec.name!r} needs gradients: pass gradient=, the derivative of the "
            "explained logit by the attention (or use 'af', which needs none)"
        )
    if spec.function is not None:
        return spec.function(trace)
    import torch

    assert spec.layer is not None
    (stage,) = trace.heads
    slopes = trace.gradient if spec.needs_gradient else None
    layers = []
    for index, attention in enumerate(trace.attention):
        slope = None if slopes is None else torch.from_numpy(np.array(slopes[index]))
        layer = AttentionLayer(stage, index, torch.from_numpy(np.array(attention)), slope)
        layers.append(torch.as_tensor(spec.layer(layer)).numpy())
    return np.stack(layers)


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
