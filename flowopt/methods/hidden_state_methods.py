"""CAT and AttCAT: gradient times hidden state in every block, alone or weighted by attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import UnsupportedError
from flowopt.methods.registry import register
from flowopt.trace.layer import Reduction

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from flowopt.methods.subject import Subject
    from flowopt.trace import AttentionLayer, Batch

    Array = NDArray[np.float64]

__all__ = ["Blocks", "attcat", "cat", "read_blocks"]


@dataclass(frozen=True, eq=False)
class Blocks:
    """What CAT and AttCAT read of a text.

    Parameters
    ----------
    products : ndarray (L, t)
        Of every block, the sum over dimensions of dy/dh * h, h the hidden state fed into it.
    attention : ndarray (L, t)
        Attention that every position receives, mean over heads and query positions.
    """

    products: Array
    attention: Array


@register(
    "cat", family="attention", source="Qiang et al. (2022)", cost="1 forward, 1 backward",
    signed=True,
)  # fmt: skip
def cat(subject: Subject) -> ArrayLike:
    """Gradient times hidden state, summed over the states fed into all blocks."""
    found: Array = read_blocks(subject).products.sum(axis=0)
    return found


@register(
    "attcat", family="attention", source="Qiang et al. (2022)", cost="1 forward, 1 backward",
    signed=True,
)  # fmt: skip
def attcat(subject: Subject) -> ArrayLike:
    """CAT of every block, weighted by the attention that a position receives there."""
    blocks = read_blocks(subject)
    found: Array = (blocks.attention * blocks.products).sum(axis=0)
    return found


def read_blocks(subject: Subject) -> Blocks:
    """Read hidden states, their gradients and the attention in one pass each way.

    Raises
    ------
    UnsupportedError
        If the model is an encoder-decoder, or does not return the hidden states it computes with.
    """
    import torch

    from flowopt.trace.goals import explained
    from flowopt.trace.read import call_options, logits_of, record_outputs
    from flowopt.trace.reading import differentiable_inputs, reading_mode
    from flowopt.trace.recorder import Recorder
    from flowopt.trace.shared import ATTENTION, recording, shares_attention

    if subject.kind == "encoder-decoder":
        raise UnsupportedError(
            "CAT and AttCAT follow one stack of blocks, and an encoder-decoder has two; use a "
            "flow method such as 'agf-barrier', or one of gradients or perturbations"
        )
    model, batch = subject.model, subject.batch
    recorder = _recorder(subject, batch, Recorder)
    shared = shares_attention(model)
    with (
        reading_mode(model, ATTENTION if shared else "eager"),
        recording(recorder),
        differentiable_inputs(model, batch.inputs) as (inputs, _),
    ):
        options = call_options(model, attentions=not shared, output_hidden_states=True)
        outputs = model(**inputs, **options)
        if not shared:
            record_outputs(recorder, outputs)
        total, _, _ = explained(logits_of(model, outputs), batch.goals)
        states = tuple(getattr(outputs, "hidden_states", None) or ())[:-1]
        slopes = _slopes(total, states)
    attention = next(iter(recorder.stages(0).values()))
    if len(states) != len(attention):
        raise UnsupportedError(
            f"the model returns {len(states)} hidden states below its last one, and has "
            f"{len(attention)} attention layers; CAT needs one for each"
        )
    kept = list(batch.kept[0])
    pairs = zip(states, slopes, strict=True)
    products = [(state * slope)[0, kept].sum(dim=-1).detach() for state, slope in pairs]
    return Blocks(torch.stack(products).double().cpu().numpy(), attention)


def _recorder(subject: Subject, batch: Batch, made: Any) -> Any:
    from flowopt.trace import family_of

    family = family_of(subject.model)
    return made(subject.model, family, batch, Reduction(_received))


def _slopes(total: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradients of the explained logit by the hidden states."""
    import torch

    graph = [state for state in states if state.requires_grad]
    found = torch.autograd.grad(total, graph, allow_unused=True) if graph else ()
    if len(found) != len(states) or not states or any(slope is None for slope in found):
        raise UnsupportedError(
            "the model returns no hidden states that its logits depend on (copies, or none)"
        )
    return found


def _received(layer: AttentionLayer) -> Tensor:
    return layer.attention.mean(dim=(0, 1))
