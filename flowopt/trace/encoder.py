"""Reading encoder classifiers (BERT and its kin): one forward, one backward pass per batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, UnsupportedError
from flowopt.trace.batch import check_vocabulary
from flowopt.trace.families import max_tokens
from flowopt.trace.reading import differentiable_embeddings, reading_mode
from flowopt.trace.record import Prediction, Trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    from flowopt.trace.batch import Batch
    from flowopt.trace.families import Family

    Array = NDArray[np.float64]

__all__ = ["trace_encoder"]

_ROW_TOLERANCE = 1e-4


def trace_encoder(
    model: PreTrainedModel, family: Family, batch: Batch, gradient: bool = True
) -> Iterator[Trace]:
    """Read a batch: attention, and the gradient of each example's explained logit.

    Examples do not interact, so the gradient of the *sum* of the explained logits holds the
    gradient of each: one backward pass serves the batch. Gradients are taken by the attentions
    alone; the parameters' ``grad`` and ``requires_grad`` are not touched.

    Parameters
    ----------
    model : PreTrainedModel
        With a sequence classification head: ``logits`` of shape (b, classes).
    family : Family
    batch : Batch
    gradient : bool
        False leaves the backward pass out.

    Yields
    ------
    Trace
        One per example, in order, padding removed; made one at a time because the float64
        arrays of a whole batch would be large.

    Raises
    ------
    InputError
        If the inputs do not fit the model.
    UnsupportedError
        If the model returns no attention, attention whose rows do not sum to 1, no logits, or
        gradients that are missing or not finite.
    """
    _check_inputs(model, family, batch)
    with reading_mode(model):
        logits, attentions, slopes, chosen = _forward_backward(model, batch, gradient)
    table = logits.detach().double().cpu().numpy()
    tolerance = max(_ROW_TOLERANCE, 2 * _resolution(attentions[0]))
    for example, (kept, info) in enumerate(zip(batch.kept, batch.infos, strict=True)):
        attention = _strip(attentions, example, kept)
        _check_attention(attention, tolerance)
        slope = None if slopes is None else _strip(slopes, example, kept)
        if slope is not None and not np.isfinite(slope).all():
            raise UnsupportedError("the gradients are not finite; load the model in float32")
        prediction, target = (
            describe_class(model, table[example], index)
            for index in (int(table[example].argmax()), chosen[example])
        )
        yield Trace(attention, slope, info, prediction, target, family.readout)


def describe_class(model: PreTrainedModel, logits: Array, index: int) -> Prediction:
    """One class of one example: probability by softmax, or sigmoid where classes are not rivals."""
    label = (model.config.id2label or {}).get(index, f"LABEL_{index}")
    independent = getattr(model.config, "problem_type", None) == "multi_label_classification"
    logit = float(logits[index])
    if logits.size == 1 or independent:
        # Half the tangent instead of 1/(1 + exp(-x)): no overflow.
        probability = 0.5 * (1.0 + np.tanh(0.5 * logit))
    else:
        weights = np.exp(logits - logits.max())
        probability = weights[index] / weights.sum()
    return Prediction(str(label), index, float(probability), logit)


def _check_inputs(model: PreTrainedModel, family: Family, batch: Batch) -> None:
    if "input_ids" in batch.inputs:
        check_vocabulary(model, batch.inputs["input_ids"])
    length, limit = max(k[-1] + 1 for k in batch.kept), max_tokens(model)
    if limit is not None and length > limit:
        raise InputError(f"the input has {length} positions, the model reads at most {limit}")
    for example, kept in enumerate(batch.kept):
        if family.readout is not None and family.readout not in kept:
            raise InputError(
                f"position {family.readout} of example {example} is masked, but the model's head "
                "reads it: pad on the right (tokenizer.padding_side = 'right')"
            )


def _forward_backward(
    model: PreTrainedModel, batch: Batch, gradient: bool
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor] | None, list[int]]:
    import torch

    inputs = {name: tensor.to(model.device) for name, tensor in batch.inputs.items()}
    if "inputs_embeds" in inputs:
        # The hook on the token embeddings is not called for these.
        embeddings = inputs["inputs_embeds"].detach().to(model.dtype)
        inputs["inputs_embeds"] = embeddings.requires_grad_(gradient)
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(gradient),
        differentiable_embeddings(model),
    ):
        outputs = model(**inputs, output_attentions=True, return_dict=True)
        logits = _logits(model, outputs)
        attentions = _attentions(model, outputs)
        best = logits.argmax(dim=1).tolist()
        chosen = [
            b if target is None else target for b, target in zip(best, batch.targets, strict=True)
        ]
        if not gradient:
            return logits, attentions, None, chosen
        explained = logits[torch.arange(len(chosen)), torch.tensor(chosen, device=logits.device)]
        return logits, attentions, _gradients(explained.sum(), attentions), chosen


def _logits(model: PreTrainedModel, outputs: Any) -> Tensor:
    import torch

    logits = getattr(outputs, "logits", None)
    if logits is None or logits.ndim != 2:
        found = "no logits" if logits is None else f"logits of shape {tuple(logits.shape)}"
        raise UnsupportedError(
            f"{type(model).__name__} returns {found}, not one row of class logits per text; load "
            "it with AutoModelForSequenceClassification"
        )
    if not bool(torch.isfinite(logits).all()):
        raise UnsupportedError(
            "the model's logits are not finite; load it in float32 and check its weights"
        )
    return logits  # type: ignore[no-any-return]


def _attentions(model: PreTrainedModel, outputs: Any) -> Sequence[Tensor]:
    attentions = getattr(outputs, "attentions", None)
    if not attentions or any(layer is None for layer in attentions):
        raise UnsupportedError(
            f"{type(model).__name__} returns no attention; load it with "
            'attn_implementation="eager", or use a model that supports output_attentions=True'
        )
    shapes = {tuple(layer.shape) for layer in attentions}
    if len(shapes) > 1 or attentions[0].ndim != 4 or len(set(attentions[0].shape[-2:])) > 1:
        raise UnsupportedError(
            f"{type(model).__name__} returns attention of shapes {sorted(shapes)}; full "
            "self-attention (b, H, t, t) in every layer is needed"
        )
    return tuple(attentions)


def _gradients(explained: Tensor, attentions: Sequence[Tensor]) -> Sequence[Tensor]:
    import torch

    unreached = [i for i, layer in enumerate(attentions) if not layer.requires_grad]
    if not explained.requires_grad or unreached:
        raise UnsupportedError(
            f"the attention of layers {unreached} is cut off from the graph (detached, or "
            "computed without gradients); flowopt needs the tensors the model computes with"
        )
    slopes = torch.autograd.grad(explained, attentions, allow_unused=True)
    for layer, slope in enumerate(slopes):
        if slope is None:
            raise UnsupportedError(
                f"the logit does not depend on the attention returned by layer {layer}: the model "
                'returns a copy; load it with attn_implementation="eager"'
            )
    return slopes


def _strip(layers: Sequence[Tensor], example: int, kept: tuple[int, ...]) -> Array:
    """One example, (L, H, t, t) in float64, without the rows and columns of padding."""
    import torch

    stacked = torch.stack([layer[example].detach() for layer in layers])
    if len(kept) != stacked.shape[-1]:
        index = torch.tensor(kept, device=stacked.device)
        stacked = stacked.index_select(2, index).index_select(3, index)
    array: Array = stacked.double().cpu().numpy()
    return array


def _resolution(tensor: Tensor) -> float:
    import torch

    return float(torch.finfo(tensor.dtype).eps)


def _check_attention(attention: Array, tolerance: float) -> None:
    error = np.abs(attention.sum(axis=-1) - 1.0)
    # Not "error > tolerance": attention with NaN must be refused as well.
    if not (error <= tolerance).all():
        layer, head, row = (int(i) for i in np.argwhere(~(error <= tolerance))[0])
        raise UnsupportedError(
            f"attention rows must sum to 1, but layer {layer}, head {head}, row {row} sums to "
            f"{attention[layer, head, row].sum():.6g}: dropout or an attention that is no softmax. "
            "Use a model with softmax attention, and one whose dropout obeys model.eval()"
        )
