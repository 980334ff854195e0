"""Attention is reduced to what a tensor keeps of it as the passes run; no heads are held.

The model's own attention function runs, layer by layer, in the forward pass without a graph, and
once more in the backward pass, where the layer's attention, its gradient, queries, keys and values
are at hand for a moment. So the memory of all heads is that of one layer, less than a plain eager
backward pass needs. Models that bring their own attention are read by what they return.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowopt.errors import UnsupportedError
from flowopt.trace.fading import Fading, current_fading
from flowopt.trace.layer import CROSS, DECODER, ENCODER, AttentionLayer, Reduction
from flowopt.trace.parts import (
    check_finite,
    check_rows,
    check_weights,
    in_single,
    projection_of,
    repeated,
    selected,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from flowopt.trace.batch import Batch
    from flowopt.trace.families import Family

__all__ = ["Call", "Recorder", "record_returned", "stage_of"]

_CROSS_NAMES = ("encoder_attn", "encdecattention", "crossattention", "cross_attn")


class Recorder:
    """Collects what a reduction keeps of every attention layer of a batch.

    Parameters
    ----------
    model : PreTrainedModel
    family : Family
    batch : Batch
    reduction : Reduction
    """

    def __init__(
        self, model: PreTrainedModel, family: Family, batch: Batch, reduction: Reduction
    ) -> None:
        self.reduction = reduction
        self.family = family
        self.names = {module: name for name, module in model.named_modules()}
        self.modules = {name: module for module, name in self.names.items()}
        self.kept = {ENCODER: (batch.kept, batch.kept), DECODER: (batch.kept, batch.kept)}
        if batch.decoder_kept is not None:
            self.kept[DECODER] = (batch.decoder_kept, batch.decoder_kept)
            self.kept[CROSS] = (batch.decoder_kept, batch.kept)
        self.calls: dict[str, int] = {}
        self.found: dict[tuple[str, int], list[NDArray[np.floating[Any]]]] = {}

    def next_place(self, module: Any) -> tuple[str, int]:
        """Stage and index of the attention that is being computed."""
        stage = stage_of(self.family.kind, self.names[module])
        index = self.calls.get(stage, 0)
        self.calls[stage] = index + 1
        return stage, index

    def attend(
        self,
        module: Any,
        run: Callable[..., tuple[Tensor, Tensor]],
        parts: Sequence[Tensor],
        options: Mapping[str, Any],
    ) -> Tensor:
        """Compute one attention layer; `run` maps query, key and value to output and weights.

        `options` are those that the model gave its attention function.
        """
        place = self.next_place(module)
        if not self.reduction.needs_gradient:
            output, weights = run(*parts)
            check_weights(weights, parts, place)
            self.record(place, weights, None, self.named(module, weights, parts))
            return output
        call = Call(self, place, run, module, options, current_fading())
        return _Recomputed.apply(call, *parts)  # type: ignore[no-any-return,no-untyped-call]

    def finish(
        self,
        call: Call,
        weights: tuple[Tensor, Tensor],
        parts: Sequence[Tensor],
        by_parts: Sequence[Tensor],
        slope: Tensor,
    ) -> None:
        """Record one layer in the backward pass.

        Parameters
        ----------
        weights : (Tensor, Tensor), each (b, H, q, k)
            Attention, and the gradient by it.
        parts, by_parts : three Tensors each, (b, H, q, d), (b, H', k, d), (b, H', k, d)
            Query, key and value, and the gradients by them.
        slope : Tensor (b, q, H, d)
            The gradient by the output.
        """
        named = self.named(call.module, weights[0], parts)
        named["output_gradient"] = slope.transpose(1, 2)
        self.record(call.place, *weights, named)

    def named(self, module: Any, weights: Tensor, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """Query, key, value and output matrix of a layer, as fields of an `AttentionLayer`."""
        heads, (query, key, value) = weights.shape[1], parts
        found = {"query": query, "key": repeated(key, heads), "value": repeated(value, heads)}
        projection = projection_of(
            self.modules, self.names[module], self.family.projection, heads, value.shape[-1]
        )
        if projection is not None:
            found["projection"] = projection
        return found

    def record(
        self,
        place: tuple[str, int],
        attention: Tensor,
        gradient: Tensor | None = None,
        parts: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Reduce one layer, example by example.

        Parameters
        ----------
        place : (str, int)
            Stage and index.
        attention, gradient : Tensor (b, H, queries, keys)
        parts : mapping of str to Tensor
            Other fields of an `AttentionLayer`; all but the projection by example.
        """
        stage, index = place
        rows, columns = self.kept[stage]
        sides = {"query": rows, "output_gradient": rows, "key": columns, "value": columns}
        shared = {
            name: in_single(part) for name, part in (parts or {}).items() if name not in sides
        }
        kept = []
        for example, (row, column) in enumerate(zip(rows, columns, strict=True)):
            weights = selected(selected(attention[example], row, 1), column, 2)
            check_rows(weights, place)
            slope = None
            if gradient is not None:
                slope = selected(selected(gradient[example], row, 1), column, 2)
            mine = {
                name: in_single(selected(part[example], sides[name][example], 1))
                for name, part in (parts or {}).items()
                if name in sides
            }
            slope = None if slope is None else in_single(slope)
            layer = AttentionLayer(stage, index, in_single(weights), slope, **mine, **shared)
            value = torch.as_tensor(self.reduction.function(layer))
            if slope is not None and not bool(torch.isfinite(value).all()):
                check_finite(slope)
            kept.append(in_single(value.detach()).cpu().numpy())
        self.found[place] = kept

    def stages(self, example: int) -> dict[str, NDArray[np.float64]]:
        """What was kept of one example: by stage, layers first; its parts are given up here."""
        if not self.calls:
            raise UnsupportedError(
                "the model computed no attention that flowopt can see; load it with "
                'attn_implementation="eager"'
            )
        self.check_complete(self.found)
        result = {}
        for stage in (ENCODER, DECODER, CROSS):
            count = self.calls.get(stage, 0)
            if count:
                layers = [self.taken(stage, i, example) for i in range(count)]
                shapes = {layer.shape for layer in layers}
                if len(shapes) > 1:
                    raise UnsupportedError(
                        f"attention of shapes {sorted(shapes)} in one stack of layers; all layers "
                        "must see the same positions"
                    )
                result[stage] = np.stack(layers, dtype=np.float64)
        return result

    def taken(self, stage: str, index: int, example: int) -> NDArray[np.floating[Any]]:
        """What was kept of one layer of one example, which is let go of."""
        layers = self.found[stage, index]
        layer, layers[example] = layers[example], np.empty(0)
        return layer

    def check_complete(self, found: Container[tuple[str, int]]) -> None:
        """Refuse a model of which some layer's attention was computed, but not found.

        Raises
        ------
        UnsupportedError
        """
        for stage, count in self.calls.items():
            missing = [i for i in range(count) if (stage, i) not in found]
            if missing:
                raise UnsupportedError(
                    f"what is explained does not depend on the {stage} attention of layers "
                    f"{missing}: the model does not compute with it, returns a copy of it, or "
                    "cuts the gradient off"
                )


@dataclass(frozen=True, eq=False)
class Call:
    """One attention layer of a forward pass, to be computed again in the backward pass."""

    recorder: Recorder
    place: tuple[str, int]
    run: Callable[..., Any]
    module: Any
    options: Mapping[str, Any]
    fading: Fading | None = None  # the backward pass may run in another thread


class _Recomputed(torch.autograd.Function):
    """Attention that saves queries, keys and values, and no weights."""

    @staticmethod
    def forward(ctx: Any, call: Call, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(query, key, value)
        output: Tensor = call.run(query, key, value)[0]
        return output

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        query, key, value = (part.detach().requires_grad_() for part in ctx.saved_tensors)
        with torch.enable_grad():
            output, weights = call.run(query, key, value)
        check_weights(weights, (query, key, value), call.place)
        if not weights.requires_grad:
            raise UnsupportedError("the model's attention weights are cut off from its graph")
        wanted = (weights, query, key, value)
        by_weights, *by_parts = torch.autograd.grad(output, wanted, slope, allow_unused=True)
        if by_weights is None:
            raise UnsupportedError("the model's attention function returns a copy of its weights")
        parts = [part.detach() for part in (query, key, value)]
        both = (weights.detach(), by_weights)
        call.recorder.finish(call, both, parts, by_parts, slope)
        return (None, *by_parts)


def record_returned(recorder: Recorder, stage: str, attentions: Any) -> None:
    """Record attention that a model has returned, now or when its gradient is known.

    Raises
    ------
    UnsupportedError
        If there is none.
    """
    if not attentions or any(layer is None for layer in attentions):
        raise UnsupportedError(
            f"the model returns no {stage} attention; load it with "
            'attn_implementation="eager", or use a model that supports output_attentions=True'
        )
    recorder.calls[stage] = len(attentions)
    for index, weights in enumerate(attentions):
        place = (stage, index)
        rows, columns = (max(kept[-1] + 1 for kept in side) for side in recorder.kept[stage])
        if weights.ndim != 4 or weights.shape[2] < rows or weights.shape[3] < columns:
            raise UnsupportedError(
                f"the model returns {stage} attention of shape {tuple(weights.shape)}; "
                "(b, H, queries, keys) is needed"
            )
        if not recorder.reduction.needs_gradient:
            recorder.record(place, weights.detach())
            continue
        if not weights.requires_grad:
            raise UnsupportedError(
                f"the {stage} attention of layer {index} is cut off from the graph (detached, or "
                "computed without gradients); flowopt needs the tensors the model computes with"
            )

        def keep(slope: Tensor, place: tuple[str, int] = place, weights: Tensor = weights) -> None:
            recorder.record(place, weights.detach(), slope)

        weights.register_hook(keep)


def stage_of(kind: str, name: str) -> str:
    """Stage of an attention module, from the kind of its model and its name there."""
    if kind != "encoder-decoder":
        return kind
    lower = name.lower()
    if any(part in lower for part in _CROSS_NAMES):
        return CROSS
    return DECODER if "decoder" in lower.split(".") else ENCODER
