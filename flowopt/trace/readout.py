"""The top position from which a model's head reads what is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowopt.errors import InputError
from flowopt.trace.goals import emits_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from flowopt.trace.batch import Batch
    from flowopt.trace.families import Family

__all__ = ["check_readouts", "readout"]


def readout(model: PreTrainedModel, family: Family, batch: Batch, example: int) -> int | None:
    """Place, among the kept top positions of an example, that its logit is read from.

    Returns
    -------
    int or None
        None if the head reads several.
    """
    at = _position(model, family, batch, example)
    kept = batch.kept if batch.decoder_kept is None else batch.decoder_kept
    return None if at is None else kept[example].index(at)


def check_readouts(model: PreTrainedModel, family: Family, batch: Batch) -> None:
    """Refuse a batch in which the head reads padding.

    Raises
    ------
    InputError
        If a position that the head reads is masked, or the model cannot find it.
    """
    count = len(batch.kept)
    last = family.readout == "last" and not emits_tokens(model)
    decodes = last and family.kind == "decoder"
    if decodes and count > 1 and _token(model, "pad_token_id") is None:
        raise InputError(
            "a classifier that reads the last token finds it by model.config.pad_token_id, which "
            "is not set: set it, or explain one example at a time"
        )
    kept = batch.kept if batch.decoder_kept is None else batch.decoder_kept
    for example in range(count):
        at = _position(model, family, batch, example)
        if at is None or at in kept[example]:
            continue
        side = "fill it with model.config.pad_token_id" if last else "pad on the right"
        raise InputError(
            f"position {at} of example {example} is masked, but the model's head reads it: {side} "
            "(tokenizer.padding_side = 'right')"
        )


def _position(model: PreTrainedModel, family: Family, batch: Batch, example: int) -> int | None:
    """The position, padding included; None if there are several."""
    goal = batch.goals[example]
    if goal.position is not None:
        return goal.position
    if family.readout == "pooling":
        return 0 if getattr(model.config, "classifier_pooling", "cls") == "cls" else None
    if family.readout != "last":
        return None if family.readout is None else int(family.readout)
    # transformers' decoders look for the last token that is no padding, its encoder-decoders for
    # the last end-of-text token; what they cannot find is the last position, or the first
    length = max(int(part.shape[1]) for name, part in batch.inputs.items() if part.ndim > 1)
    encodes = family.kind == "encoder-decoder"
    token = _token(model, "eos_token_id" if encodes else "pad_token_id")
    if token is None or "input_ids" not in batch.inputs:
        return length - 1
    row = batch.inputs["input_ids"][example].tolist()
    found = [at for at, each in enumerate(row) if (each == token) == encodes]
    if encodes and not found:
        raise InputError(
            f"example {example} has no end-of-text token {token}, from which the model's head "
            "reads; add it to input_ids"
        )
    return found[-1] if found else 0


def _token(model: PreTrainedModel, name: str) -> int | None:
    value: Any = getattr(model.config, name, None)
    return value if isinstance(value, int) else None
