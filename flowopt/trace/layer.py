"""What a tensor function sees: one attention of one example, while the passes run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CROSS", "DECODER", "DIRECT", "ENCODER", "AttentionLayer", "LayerFunction", "Reduction"]

ENCODER, DECODER, CROSS = "encoder", "decoder", "cross"
"""The stages: self-attention that sees all, causal self-attention, attention to an encoder."""

DIRECT = {stage: f"{stage}, direct" for stage in (ENCODER, DECODER, CROSS)}
"""Edges from every layer of a stage right to the input tokens that its keys stand for."""


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One attention layer of one example, padding removed: torch tensors on the model's device.

    Parameters
    ----------
    stage : str
        "encoder", "decoder" or "cross".
    index : int
        Counted within the stage, 0 next to the input.
    attention : Tensor (H, q, k)
        After the softmax, row = query, column = key.
    gradient : Tensor (H, q, k) or None
        Derivative of what is explained by `attention`; None where no tensor asked for it.
    query : Tensor (H, q, d) or None
        As multiplied with the keys, so after a rotary embedding. None, like the next three,
        where the model returns its attention but does not let others compute it.
    key, value : Tensor (H, k, d) or None
        Repeated where several heads share them.
    output_gradient : Tensor (H, q, d) or None
        Derivative of what is explained by ``attention @ value``.
    projection : Tensor (H, d, width) or None
        The layer's output matrix W_O by head; None where the family does not say where it is.
    """

    stage: str
    index: int
    attention: Tensor
    gradient: Tensor | None = None
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    output_gradient: Tensor | None = None
    projection: Tensor | None = None


LayerFunction = Callable[[AttentionLayer], "Tensor"]


@dataclass(frozen=True)
class Reduction:
    """What is kept of every attention layer, and whether it needs the backward pass.

    Parameters
    ----------
    function : callable
        ``AttentionLayer -> Tensor (..., q, k)``.
    needs_gradient : bool
    """

    function: LayerFunction
    needs_gradient: bool = True
