"""What passes along the edges of one attention layer, at some points of a path of inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowopt.errors import UnsupportedError
from flowopt.trace.families import family_of
from flowopt.trace.forward_mode import change_of
from flowopt.trace.layer import AttentionLayer, Reduction
from flowopt.trace.parts import repeated
from flowopt.trace.recorder import Call, Recorder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from flowopt.trace.batch import Batch

    Place = tuple[str, int]

__all__ = ["ChangeRecorder", "EdgeRecorder", "check_close", "edge_values", "fading_values"]

_ROUNDING = 1e-7
"""Conductances of logits, below which they are rounding themselves."""

# the recorders below keep sums of their own
_NOTHING = Reduction(lambda layer: layer.attention)


class ChangeRecorder(Recorder):
    """Keeps the changes of keys and values along the path, from a pass with dual numbers."""

    def __init__(self, model: PreTrainedModel, batch: Batch) -> None:
        super().__init__(model, family_of(model), batch, _NOTHING)
        self.changes: dict[Place, tuple[Tensor, Tensor]] = {}

    def attend(
        self,
        module: Any,
        run: Callable[..., tuple[Tensor, Tensor]],
        parts: Sequence[Tensor],
        options: Mapping[str, Any],
    ) -> Tensor:
        """Compute one attention layer with dual numbers."""
        place = self.next_place(module)
        self.changes[place] = (change_of(parts[1]), change_of(parts[2]))
        return run(*parts)[0]


class EdgeRecorder(Recorder):
    """Sums edge values over the points, in the backward pass.

    `sums` has what passes along the edges; `direct`, where tokens fade, what their fading alone
    does at every edge.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batch: Batch,
        changes: Mapping[Place, tuple[Tensor, Tensor]],
    ) -> None:
        super().__init__(model, family_of(model), batch, _NOTHING)
        self.changes = changes
        self.sums: dict[Place, Tensor] = {}
        self.direct: dict[Place, Tensor] = {}

    def finish(
        self,
        call: Call,
        weights: tuple[Tensor, Tensor],
        parts: Sequence[Tensor],
        by_parts: Sequence[Tensor],
        slope: Tensor,
    ) -> None:
        """Sum the edge values of one layer over heads and points, and check them."""
        changes = self.changes[call.place]
        layer = AttentionLayer(
            *call.place, *weights, query=parts[0], output_gradient=slope.transpose(1, 2)
        )
        heads = weights[0].shape[1]
        key_change, value_change = (repeated(change, heads) for change in changes)
        slopes = _score_slopes(call, parts, heads)
        edges = edge_values(layer, key_change, value_change, slopes).sum((0, 1))
        _check_edges(call.place, edges, by_parts[1:], changes)
        self.sums[call.place] = edges
        if call.fading is not None:
            by_score = call.fading.change(call.place[0], *parts[:2])
            self.direct[call.place] = fading_values(layer, by_score).sum((0, 1))


def edge_values(
    layer: AttentionLayer, key_change: Tensor, value_change: Tensor, slopes: Tensor | float
) -> Tensor:
    """What passes along the edges of one attention layer, without the diagonal's other parts.

    Parameters
    ----------
    layer : AttentionLayer
        With a leading axis n of points: attention and gradient (n, H, q, k), query and
        output_gradient (n, H, q, d).
    key_change, value_change : Tensor (n, H, k, d)
        Derivatives by alpha, times the weights of the points.
    slopes : Tensor (n, H, q, k) or float
        Derivative of the scores by the products of queries and keys.

    Returns
    -------
    Tensor (n, H, q, k)
    """
    assert layer.gradient is not None
    assert layer.query is not None
    assert layer.output_gradient is not None
    mean = (layer.attention * layer.gradient).sum(-1, keepdim=True)
    by_key = (layer.query @ key_change.transpose(-1, -2)).mul_(slopes)
    by_key.mul_(layer.gradient - mean)
    by_value = layer.output_gradient @ value_change.transpose(-1, -2)
    return by_value.add_(by_key).mul_(layer.attention)


def fading_values(layer: AttentionLayer, score_change: Tensor) -> Tensor:
    """What the fading of the keys does at the edges of one attention layer: (n, H, q, k).

    Parameters
    ----------
    layer : AttentionLayer
        As in `edge_values`.
    score_change : Tensor (n, 1, q, k)
        Derivatives of the scores by alpha, embeddings and keys held, times the weights.
    """
    assert layer.gradient is not None
    mean = (layer.attention * layer.gradient).sum(-1, keepdim=True)
    return layer.attention * (layer.gradient - mean) * score_change


def _check_edges(
    place: Place,
    edges: Tensor,
    slopes: Sequence[Tensor],
    changes: Sequence[Tensor],
) -> None:
    """Refuse edge values that do not add up to dy/dk_j . dk_j + dy/dv_j . dv_j at every key j."""
    pairs = list(zip(slopes, changes, strict=True))
    expected = sum((g * d).sum((0, 1, 3)) for g, d in pairs)
    size = sum((g.norm(dim=-1) * d.norm(dim=-1)).sum((0, 1)) for g, d in pairs)
    assert isinstance(expected, Tensor)
    assert isinstance(size, Tensor)
    error = float((edges.sum(0) - expected).abs().max())
    check_close(f"{place[0]} layer {place[1]}", error, float(size.max()), edges.dtype)


def check_close(what: str, error: float, size: float, dtype: torch.dtype) -> None:
    """Refuse an error that is more than rounding.

    Raises
    ------
    UnsupportedError
    """
    # many models take the softmax in float32, whatever their own numbers are
    tolerance = min(1e4 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps), 0.05)
    # Not "error > tolerance": NaN must be refused as well. Of a constant only rounding is left.
    if not error <= tolerance * max(size, _ROUNDING):
        raise UnsupportedError(
            f"{what}: edges and nodes disagree by {error:.3g} of {size:.3g}. Edge conductance "
            "needs attention that is a softmax of scaled products of queries and keys plus a "
            "bias, positions that meet nowhere else, and float32 or float64 numbers; use "
            "'agf' for this model"
        )


def _score_slopes(call: Call, parts: Sequence[Tensor], heads: int) -> Tensor | float:
    """Derivative of the scores by products of queries and keys."""
    scaling = call.options.get("scaling")
    query, key = parts[:2]
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    cap = call.options.get("softcap")
    if cap is None:
        return float(scaling)
    scores = query @ repeated(key, heads).transpose(-1, -2)
    slopes: Tensor = scaling * (1.0 - torch.tanh(scores * (scaling / cap)) ** 2)
    return slopes
