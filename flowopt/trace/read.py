"""One forward and one backward pass over a batch, whatever the architecture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowopt.errors import InputError, UnsupportedError
from flowopt.trace.batch import Batch
from flowopt.trace.families import Family, family_of, max_tokens
from flowopt.trace.goals import describe, explained
from flowopt.trace.inputs import accepted_inputs, check_vocabulary
from flowopt.trace.layer import CROSS, DECODER, ENCODER, AttentionLayer, Reduction
from flowopt.trace.reading import differentiable_inputs, reading_mode
from flowopt.trace.readout import check_readouts, readout
from flowopt.trace.record import Heads, Trace

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from flowopt.trace.recorder import Recorder

__all__ = ["trace_batch", "traces_of"]


def trace_batch(
    model: PreTrainedModel,
    batch: Batch,
    gradient: bool = True,
    *,
    reduction: Reduction | None = None,
) -> Iterator[Trace]:
    """Read a batch: attention, and the gradient of what is explained of each example.

    Examples do not interact, so the gradient of the *sum* of what is explained holds the gradient
    of each: one backward pass serves the batch. The parameters' ``grad`` and ``requires_grad``
    are not touched.

    Parameters
    ----------
    model : PreTrainedModel
    batch : Batch
    gradient : bool
        False leaves the backward pass out.
    reduction : Reduction, optional
        What to keep of every layer; its own `needs_gradient` replaces `gradient`. None keeps all
        heads of all layers, which needs memory for them: L H t t numbers, twice with gradients.

    Yields
    ------
    Trace
        One per example, in order, padding removed; `heads` or `tensors` by stage.

    Raises
    ------
    InputError
        If the inputs do not fit the model.
    UnsupportedError
        If the model's attention or logits cannot be read; the message says why.
    """
    chosen = _all_heads(gradient) if reduction is None else reduction
    family = family_of(model)
    check_inputs(model, family, batch)
    from flowopt.trace.recorder import Recorder

    recorder = Recorder(model, family, batch, chosen)
    targets, rows = _passes(model, batch, recorder)
    for example, trace in enumerate(traces_of(model, batch, targets, rows)):
        stages = recorder.stages(example)
        if reduction is not None:
            yield replace(trace, tensors=stages)
            continue
        heads = {
            stage: Heads(both[:, 0], both[:, 1] if gradient else None)
            for stage, both in stages.items()
        }
        yield replace(trace, heads=heads)


def _all_heads(gradient: bool) -> Reduction:
    import torch

    def both(layer: AttentionLayer) -> Tensor:
        parts = [layer.attention] if layer.gradient is None else [layer.attention, layer.gradient]
        return torch.stack(parts)

    return Reduction(both, gradient)


def traces_of(
    model: PreTrainedModel, batch: Batch, targets: list[int], rows: list[Tensor]
) -> Iterator[Trace]:
    """Traces of a batch, without heads or tensors, from the chosen targets and their logits."""
    family = family_of(model)
    for example, info in enumerate(batch.infos):
        logits = rows[example].detach().double().cpu().numpy()
        prediction, target = (
            describe(model, logits, index, batch.tokenizer)
            for index in (int(logits.argmax()), targets[example])
        )
        yield Trace(
            info=info,
            prediction=prediction,
            target=target,
            readout=readout(model, family, batch, example),
            prefix=None if batch.prefixes is None else batch.prefixes[example],
            prompt=None if batch.prompts is None else batch.prompts[example],
            echo=batch.echo,
            grid=batch.grid,
        )


def check_inputs(model: PreTrainedModel, family: Family, batch: Batch) -> None:
    """Refuse a batch that does not fit its model.

    Raises
    ------
    InputError
    """
    for name in ("input_ids", "decoder_input_ids"):
        if name in batch.inputs:
            check_vocabulary(model, batch.inputs[name], name)
    limit = None if batch.grid is not None else max_tokens(model)
    for kept in (batch.kept, batch.decoder_kept or ()):
        length = max((k[-1] + 1 for k in kept), default=0)
        if limit is not None and length > limit:
            raise InputError(f"the input has {length} positions, the model reads at most {limit}")
    check_readouts(model, family, batch)


def _passes(
    model: PreTrainedModel, batch: Batch, recorder: Recorder
) -> tuple[list[int], list[Tensor]]:
    """Run both passes while the recorder listens; chosen targets, and the logits they are of."""
    import torch

    from flowopt.trace.shared import ATTENTION, recording, shares_attention

    gradient, shared = recorder.reduction.needs_gradient, shares_attention(model)
    with (
        reading_mode(model, ATTENTION if shared else "eager"),
        recording(recorder),
        torch.inference_mode(False),
        torch.set_grad_enabled(gradient),
        differentiable_inputs(model, batch.inputs, gradient) as (inputs, leaves),
    ):
        outputs = model(**inputs, **call_options(model, attentions=not shared))
        if not shared:
            record_outputs(recorder, outputs)
        total, targets, rows = explained(logits_of(model, outputs), batch.goals)
        if gradient:
            if not total.requires_grad:
                raise UnsupportedError(
                    f"the logits of {type(model).__name__} are cut off from its graph (detached, "
                    "or computed without gradients)"
                )
            if not leaves():
                raise UnsupportedError(
                    f"{type(model).__name__} has no token embeddings that it calls; give "
                    "inputs_embeds instead of input_ids"
                )
            torch.autograd.grad(total, leaves(), allow_unused=True)
    return targets, rows


def call_options(model: PreTrainedModel, attentions: bool = False, **more: Any) -> dict[str, Any]:
    """Arguments that keep a model from caching, and make it return what is wanted."""
    options = {"output_attentions": attentions, "return_dict": True, **more}
    if "use_cache" in accepted_inputs(model):
        options["use_cache"] = False
    return options


def record_outputs(recorder: Recorder, outputs: Any) -> None:
    """Record the attention that a model returns, stage by stage."""
    from flowopt.trace.recorder import record_returned

    names = {recorder.family.kind: "attentions"}
    if recorder.family.kind == "encoder-decoder":
        names = {
            ENCODER: "encoder_attentions",
            DECODER: "decoder_attentions",
            CROSS: "cross_attentions",
        }
    for stage, name in names.items():
        record_returned(recorder, stage, getattr(outputs, name, None))


def logits_of(model: PreTrainedModel, outputs: Any) -> Tensor:
    """Logits of a classifier (b, classes) or of a language model (b, positions, vocabulary).

    Raises
    ------
    UnsupportedError
        If there are none, or they are not finite.
    """
    import torch

    logits = getattr(outputs, "logits", None)
    if logits is None or logits.ndim not in (2, 3):
        found = "no logits" if logits is None else f"logits of shape {tuple(logits.shape)}"
        raise UnsupportedError(
            f"{type(model).__name__} returns {found}; load it with a head: "
            "AutoModelForSequenceClassification, AutoModelForCausalLM, AutoModelForSeq2SeqLM or "
            "AutoModelForImageClassification"
        )
    if not bool(torch.isfinite(logits).all()):
        raise UnsupportedError(
            "the model's logits are not finite; load it in float32 and check its weights"
        )
    return logits  # type: ignore[no-any-return]
