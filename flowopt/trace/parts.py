"""Tensors of one attention layer: what is accepted of them, and how they are cut to size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flowopt.errors import UnsupportedError

__all__ = [
    "check_finite",
    "check_rows",
    "check_weights",
    "in_single",
    "projection_of",
    "repeated",
    "selected",
]

_ROW_TOLERANCE = 1e-4


def projection_of(
    modules: Mapping[str, Any], name: str, path: str | None, heads: int, width: int
) -> Tensor | None:
    """W_O of an attention module as (H, d, model width), where the family says which it is.

    Parameters
    ----------
    modules : mapping of str to Module
        All of the model's, by name.
    name : str
        Of the attention module.
    path : str or None
        See `Family.projection`.
    heads, width : int
        H and d.
    """
    if path is None:
        return None
    parts = name.split(".")
    while path.startswith("../"):
        parts, path = parts[:-1], path[3:]
    layer = modules.get(".".join([*parts, path]))
    weight = getattr(layer, "weight", None)
    if weight is None:
        return None
    matrix: Tensor = weight.detach()
    # transformers' Conv1D stores (in, out), Linear (out, in)
    matrix = matrix if type(layer).__name__ == "Conv1D" else matrix.T
    return matrix.reshape(heads, width, -1)


def repeated(part: Tensor, heads: int) -> Tensor:
    """Keys or values (b, H', k, d) once for each of H heads."""
    return part if part.shape[1] == heads else part.repeat_interleave(heads // part.shape[1], 1)


def check_weights(
    weights: Tensor | None, parts: Sequence[Tensor], place: tuple[str, int]
) -> Tensor:
    """Refuse what an attention function returns unless it is the weights of all pairs.

    Raises
    ------
    UnsupportedError
    """
    query, key, _ = parts
    expected = (*query.shape[:3], key.shape[2])
    if weights is None:
        raise UnsupportedError("the model's attention function returns no weights")
    if weights.shape != expected:
        raise UnsupportedError(
            f"the model's {place[0]} attention of layer {place[1]} is of shape "
            f"{tuple(weights.shape)}; (b, H, queries, keys) = {expected} is needed"
        )
    return weights


def check_rows(attention: Tensor, place: tuple[str, int]) -> None:
    """Refuse attention of one example whose rows do not sum to 1.

    Raises
    ------
    UnsupportedError
    """
    tolerance = max(_ROW_TOLERANCE, 2 * float(torch.finfo(attention.dtype).eps))
    sums = attention.sum(dim=-1)
    errors = (sums - 1.0).abs()
    # Not "error > tolerance": attention with NaN must be refused as well.
    if not float(errors.max()) <= tolerance:
        wrong = ~(errors <= tolerance)
        head, row = (int(i) for i in wrong.nonzero()[0])
        raise UnsupportedError(
            f"attention rows must sum to 1, but {place[0]} layer {place[1]}, head {head}, row "
            f"{row} sums to {float(sums[head, row]):.6g}: dropout or an attention that is no "
            "softmax. Use a model with softmax attention, and one whose dropout obeys model.eval()"
        )


def check_finite(gradient: Tensor) -> None:
    """Refuse gradients that are NaN or infinite.

    Raises
    ------
    UnsupportedError
    """
    if not bool(torch.isfinite(gradient).all()):
        raise UnsupportedError("the gradients are not finite; load the model in float32")


def in_single(part: Tensor) -> Tensor:
    """Half precision is for the model; sums over heads and products deserve better."""
    return part.float() if part.dtype in (torch.float16, torch.bfloat16) else part


def selected(part: Tensor, kept: Sequence[int], axis: int) -> Tensor:
    """Kept positions along an axis; a view where they are a run."""
    if kept[-1] - kept[0] + 1 == len(kept):
        return part.narrow(axis, kept[0], len(kept))
    return part.index_select(axis, torch.tensor(kept, device=part.device))
