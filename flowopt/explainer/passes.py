"""Forward and backward passes over many inputs: what fits together goes together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowopt.explainer.images import pixels_of, seen
from flowopt.progress import progress_bar
from flowopt.tensors import tensor_spec
from flowopt.trace import batch_of_inputs, collate, family_of
from flowopt.trace.batch import similar_lengths
from flowopt.trace.goals import emits_tokens
from flowopt.trace.text import named_example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from flowopt.attribution import Attribution
    from flowopt.explainer.explainer import Explainer
    from flowopt.trace import Batch, Encoded, Target

__all__ = ["explain_batch", "explain_encoded", "explain_images"]


def explain_encoded(
    explainer: Explainer,
    encoded: Sequence[Encoded],
    targets: Sequence[Target],
    *,
    alone: bool = False,
    progress: bool = False,
    labels: Sequence[str] | None = None,
) -> list[Attribution]:
    """Explain tokenized texts, those of similar length together; in their order.

    Parameters
    ----------
    explainer : Explainer
    encoded : sequence of Encoded
    targets : sequence
        One class or token for each.
    alone : bool
        Whether there is one only: then errors do not say which.
    progress : bool
    labels : sequence of str, optional
        What errors call each of them, instead of its text.
    """
    found: dict[int, Attribution] = {}
    lengths = [len(each) + len(each.emitted) for each in encoded]
    size = explainer.batch_size if _can_pad(explainer.model) else 1
    unit = "text" if labels is None else "token"
    with progress_bar(len(encoded), progress, unit) as advance:
        for group in similar_lengths(lengths, size):
            batch = collate(
                explainer.model,
                [encoded[i] for i in group],
                [targets[i] for i in group],
                explainer.names,
                unroll=explainer.unroll,
                contrast=explainer.contrast,
            )
            done = explain_batch(explainer, batch, group, alone, labels)
            for index, attribution in zip(group, done, strict=True):
                found[index] = attribution
                advance()
    return [found[index] for index in range(len(encoded))]


def explain_images(
    explainer: Explainer,
    pictures: Sequence[Any],
    targets: Sequence[Target],
    *,
    alone: bool = False,
    progress: bool = False,
) -> list[Attribution]:
    """Explain images, `Explainer.batch_size` of them together, in their order."""
    found: list[Attribution] = []
    size = explainer.batch_size
    with progress_bar(len(pictures), progress, unit="image") as advance:
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            pixels = pixels_of(explainer.model, explainer.tokenizer, part, first=start)
            batch = batch_of_inputs(
                explainer.model,
                {"pixel_values": pixels},
                targets[start : start + size],
                contrast=explainer.contrast,
            )
            done = explain_batch(explainer, batch, range(start, start + len(part)), alone)
            for read, attribution in zip(pixels, done, strict=True):
                found.append(replace(attribution, image=seen(read, explainer.tokenizer)))
                advance()
    return found


def explain_batch(
    explainer: Explainer,
    batch: Batch,
    indices: Sequence[int],
    alone: bool,
    labels: Sequence[str] | None = None,
) -> Iterator[Attribution]:
    """Explain a batch; each example's trace is dropped before the next one is made.

    Parameters
    ----------
    explainer : Explainer
    batch : Batch
    indices : sequence of int
        Number of each example among all that are explained, for errors.
    alone, labels
        As in `explain_encoded`.
    """
    spec = tensor_spec(explainer.tensor)
    traces = spec.read(explainer.model, batch)
    together = spec.reader is None
    shared = 0.0
    for place, (index, info) in enumerate(zip(indices, batch.infos, strict=True)):
        label = None if labels is None else labels[index]
        with named_example(index, info.text, alone, label):
            start = time.perf_counter()
            trace = next(traces)
            seconds = time.perf_counter() - start
            if place == 0 and together:
                # The first trace of a batch includes the forward and backward pass of all.
                shared = seconds / len(indices)
            attribution = explainer.explain_trace(
                trace, shared + (0.0 if place == 0 and together else seconds)
            )
        yield attribution


def _can_pad(model: PreTrainedModel) -> bool:
    """Whether texts may be padded: transformers' decoder classifiers look for the padding token."""
    if family_of(model).kind == "encoder" or emits_tokens(model):
        return True
    return getattr(model.config, "pad_token_id", None) is not None
