"""Methods that read attention, and attention times its gradient, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError, UnsupportedError
from flowopt.methods.attention_flow import attention_flow
from flowopt.methods.registry import Scores, register
from flowopt.methods.rollout import index
from flowopt.methods.rollout import rollout as rollout_of
from flowopt.trace import Reduction

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from flowopt.methods.subject import Subject
    from flowopt.trace import AttentionLayer

    Array = NDArray[np.float64]

__all__ = [
    "attention_flow_method",
    "attention_gradient",
    "chefer",
    "chefer_relevance",
    "mean_heads",
    "only_stage",
    "raw_attention_method",
    "read_at",
    "rollout_method",
]


def mean_heads(subject: Subject) -> tuple[Array, int | None]:
    """Attention averaged over heads (L, t, t), and the top position that the head reads."""
    return only_stage(subject, Reduction(_mean, needs_gradient=False))


def only_stage(subject: Subject, reduction: Reduction) -> tuple[Array, int | None]:
    """What a reduction keeps of every layer, layers first, and the position that is read.

    Raises
    ------
    UnsupportedError
        If the model is an encoder-decoder, whose layers are no single stack.
    """
    if subject.kind == "encoder-decoder":
        raise UnsupportedError(
            "this method follows one stack of attention layers, and an encoder-decoder has "
            "three; use a flow method such as 'agf-barrier', or one of gradients or perturbations"
        )
    trace = subject.trace(reduction)
    (tensor,) = trace.tensors.values()
    return tensor, trace.readout


def read_at(rows: Array, readout: int | None) -> Array:
    """The row of the position that the head reads; the mean row where it reads several."""
    found: Array = rows.mean(axis=0) if readout is None else rows[readout]
    return np.array(found)


def without_own(scores: Array, readout: int | None, wanted: bool) -> Array:
    """Scores with the entry of the position itself set to zero, where that is wanted."""
    if wanted and readout is not None:
        scores[readout] = 0.0
    return scores


@register(
    "raw-attention",
    family="attention",
    source="Abnar & Zuidema (2020)",
    cost="1 forward",
    signed=False,
    sums_to="1",
)
def raw_attention_method(subject: Subject, *, layer: int = -1, zero_own: bool = False) -> Scores:
    """Attention of the last layer from the position that the head reads, mean of heads.

    Parameters
    ----------
    subject : Subject
    layer : int
        Negative numbers count from the top.
    zero_own : bool
        Whether the position's attention to itself counts as nothing.
    """
    attention, readout = mean_heads(subject)
    row = read_at(attention[index(layer, len(attention), "layer")], readout)
    return Scores(without_own(row, readout, zero_own), None if zero_own else 1.0)


@register(
    "rollout",
    family="attention",
    source="Abnar & Zuidema (2020)",
    cost="1 forward",
    signed=False,
    sums_to="1",
)
def rollout_method(subject: Subject, *, alpha: float = 0.5, zero_own: bool = False) -> Scores:
    """Product over layers of attention mixed with the residual connection.

    Parameters
    ----------
    subject : Subject
    alpha : float
        Share of the attention.
    zero_own : bool
        Whether the share of the position that is read counts as nothing.
    """
    attention, readout = mean_heads(subject)
    row = read_at(rollout_of(attention[:, None], alpha=alpha)[-1], readout)
    return Scores(without_own(row, readout, zero_own), None if zero_own else 1.0)


@register(
    "attention-flow",
    family="flow",
    source="Abnar & Zuidema (2020)",
    cost="1 forward",
    signed=False,
    sums_to="1",
)
def attention_flow_method(subject: Subject, *, alpha: float = 0.5) -> Scores:
    """Maximum flow per pair: to each token on its own, through attention and residual.

    Parameters
    ----------
    subject : Subject
    alpha : float
        Share of the attention against the residual connection.
    """
    attention, readout = mean_heads(subject)
    positions = None if readout is None else [readout]
    (top,) = attention_flow(attention[:, None], alpha=alpha, layers=[-1], positions=positions)
    return Scores(read_at(top, 0 if readout is not None else None), total=1.0)


@register(
    "attgrad",
    family="attention",
    source="Barkan et al. (2021)",
    cost="1 forward, 1 backward",
    signed=True,
)
def attention_gradient(
    subject: Subject, *, layers: str = "all", positive: bool = False
) -> ArrayLike:
    """Attention times its gradient: mean of heads, sum over query positions and layers.

    Parameters
    ----------
    subject : Subject
    layers : "all" or "last"
        Sum over all layers, or the last one only, where the gradient is zero in every row but
        that of the position the head reads.
    positive : bool
        Whether negative gradients count as zero (Grad-SAM).

    Raises
    ------
    InputError
        If layers is something else.
    """
    if layers not in ("all", "last"):
        raise InputError(f"layers must be 'all' or 'last', not {layers!r}")

    def columns(layer: AttentionLayer) -> Tensor:
        assert layer.gradient is not None
        slope = layer.gradient.clamp(min=0) if positive else layer.gradient
        return (layer.attention * slope).mean(dim=0).sum(dim=0)

    by_layer, _ = only_stage(subject, Reduction(columns))
    found: Array = by_layer.sum(axis=0) if layers == "all" else by_layer[-1]
    return found


@register(
    "chefer",
    family="attention",
    source="Chefer et al. (2021b), generic attention explainability",
    cost="1 forward, 1 backward",
    signed=False,
)
def chefer(subject: Subject, *, zero_own: bool = False) -> ArrayLike:
    """Relevance through R = R + mean of heads of (A * G)+ @ R, layer by layer, from R = I.

    Parameters
    ----------
    subject : Subject
    zero_own : bool
        Whether the position that is read gets 0 rather than its relevance for itself, of which
        the identity that R starts from is left away.
    """
    layers, readout = only_stage(subject, Reduction(_positive_product))
    row = read_at(chefer_relevance(layers) - np.eye(layers.shape[-1]), readout)
    return without_own(row, readout, zero_own)


def chefer_relevance(layers: Array) -> Array:
    """Relevance of inputs (columns) for top positions (rows), (t, t).

    Parameters
    ----------
    layers : ndarray (L, t, t)
        Mean over heads of the positive part of attention times gradient, layer 0 next to the
        input.

    References
    ----------
    Chefer, Gur & Wolf (2021), Generic Attention-model Explainability, equations 5 and 6.
    """
    relevance = np.eye(layers.shape[-1])
    for layer in layers:
        relevance = relevance + layer @ relevance
    return relevance


def _mean(layer: AttentionLayer) -> Tensor:
    return layer.attention.mean(dim=0)


def _positive_product(layer: AttentionLayer) -> Tensor:
    assert layer.gradient is not None
    return (layer.attention * layer.gradient).clamp(min=0).mean(dim=0)
