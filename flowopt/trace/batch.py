"""A batch of model inputs, what is known of its tokens, and what is explained of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowopt.errors import InputError, UnsupportedError
from flowopt.trace.families import Family, family_of
from flowopt.trace.goals import Goal, Target, emits_tokens, goals_of
from flowopt.trace.inputs import (
    MAIN_AXES,
    Kept,
    accepted_inputs,
    as_tensors,
    check_image_size,
    describe_all,
    kept_positions,
)
from flowopt.trace.prompts import decoder_prefix, given_tokens, prompt_lengths, summed
from flowopt.trace.record import TokenInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["Batch", "batch_of_inputs", "similar_lengths"]

_MASKS = ("[MASK]", "<mask>")
_POSITION_PAIRS = 2**19
"""Most (query, key) pairs in one forward pass, padding included: two texts of 512 tokens."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of one forward pass over b examples.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        Keyword arguments of the model's forward, first axis b, second axis padded positions.
    kept : tuple of tuple of int
        For each example the positions that are no padding, ascending.
    infos : tuple of TokenInfo
        For each example the tokens at these positions.
    goals : tuple of Goal
        For each example what is explained.
    tokenizer : optional
        Names predicted tokens.
    decoder_kept : tuple of tuple of int, optional
        Like `kept`, for the decoder of an encoder-decoder.
    prefixes : tuple of TokenInfo, optional
        Like `infos`, for that decoder's input.
    prompts : tuple of int, optional
        For each example, how many of a decoder's tokens were given rather than generated.
    echo : bool
        Whether the decoder reads the source again, one position later (classifiers).
    grid : (int, int), optional
        Rows and columns of patches of an image.
    """

    inputs: Mapping[str, Tensor]
    kept: Kept
    infos: tuple[TokenInfo, ...]
    goals: tuple[Goal, ...]
    tokenizer: Any = None
    decoder_kept: Kept | None = None
    prefixes: tuple[TokenInfo, ...] | None = None
    prompts: tuple[int, ...] | None = None
    echo: bool = False
    grid: tuple[int, int] | None = None


def similar_lengths(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Group texts of similar length: little padding, and memory that is bounded.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each text.
    size : int
        Most texts in a group.

    Returns
    -------
    list of list of int
        Indices, shortest texts first, each index once.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        longest = lengths[index]
        room = groups and len(groups[-1]) < size
        if room and (len(groups[-1]) + 1) * longest**2 <= _POSITION_PAIRS:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def batch_of_inputs(
    model: PreTrainedModel,
    model_inputs: Mapping[str, ArrayLike],
    target: Target | Sequence[Target] = None,
    tokenizer: Any = None,
    *,
    output_tokenizer: Any = None,
    prompt_length: int | Sequence[int] | None = None,
    unroll: bool = True,
    contrast: Target = None,
) -> Batch:
    """Make a batch of inputs that the user has prepared.

    Parameters
    ----------
    model : PreTrainedModel
    model_inputs : mapping of str to array
        ``input_ids`` (b, t), ``inputs_embeds`` (b, t, d) or ``pixel_values`` (b, c, h, w), and
        what else the model takes, such as ``attention_mask`` (b, t) or ``decoder_input_ids``
        (b, n; by default the start token); the axis b may be left out for one example.
    target : int, str, None, or one of these per example
    tokenizer : optional
        Names the tokens of ``input_ids``; without it tokens are positions "0", "1", ...
    output_tokenizer : optional
        Names the tokens of an encoder-decoder's output, where they have names of their own.
    prompt_length : int, or one per example, optional
        Of a decoder's tokens, how many were given; the others were generated. None: all of a
        decoder's; of an encoder-decoder's those that it starts with.
    unroll : bool
        Whether the explained logits include those of the tokens generated before.
    contrast : int, str or None
        See `flowopt.trace.goals.goals_of`.

    Raises
    ------
    InputError
        If an argument is unknown to the model, or shapes or numbers cannot be right.
    """
    family = family_of(model)
    inputs = as_tensors(model, model_inputs)
    mains = [name for name in MAIN_AXES if name in inputs]
    if len(mains) != 1:
        raise InputError(
            "give either input_ids (b, t) or inputs_embeds (b, t, d), one of the two; "
            "pixel_values (b, channels, height, width) for images"
        )
    if mains[0] == "pixel_values":
        if prompt_length is not None:
            raise InputError("prompt_length goes with models that generate text")
        return _image_batch(model, family, inputs, target, contrast)
    main = inputs[mains[0]]
    examples, length = int(main.shape[0]), int(main.shape[1])
    kept = kept_positions(inputs, "attention_mask", examples, length)
    infos = describe_all(inputs.get("input_ids"), kept, tokenizer)
    if family.kind == "encoder-decoder":
        names = tokenizer if output_tokenizer is None else output_tokenizer
        return _with_decoder(
            model, inputs, kept, infos, target, names, unroll, contrast, prompt_length
        )
    positions = tuple(
        _emitting(model, family, info, row) for info, row in zip(infos, kept, strict=True)
    )
    goals = goals_of(model, target, positions, tokenizer, contrast)
    if family.kind == "decoder":
        inputs = _counted(model, _seen_by_none(inputs, kept), kept)
    if prompt_length is None:
        return Batch(inputs, kept, infos, goals, tokenizer)
    if family.kind != "decoder" or not emits_tokens(model):
        raise InputError("prompt_length goes with models that generate text")
    prompts = prompt_lengths(prompt_length, kept)
    if unroll and "input_ids" in inputs:
        goals = summed(goals, inputs["input_ids"], kept, prompts)
    elif unroll and any(given < len(row) for given, row in zip(prompts, kept, strict=True)):
        raise InputError(
            "embeddings do not say which tokens were generated, whose logits an unrolled network "
            "needs: give input_ids, or leave prompt_length out, or use unroll=False"
        )
    return Batch(inputs, kept, infos, goals, tokenizer, prompts=prompts)


def _seen_by_none(inputs: dict[str, Tensor], kept: Kept) -> dict[str, Tensor]:
    """Without the mask of padding behind causal attention, which sees none of it anyway.

    Masked, padding that is longer than a sliding window sees nothing, and gets no finite output.
    """
    mask = inputs.get("attention_mask")
    if mask is None or any(row != tuple(range(len(row))) for row in kept):
        return inputs
    return {**inputs, "attention_mask": mask.new_ones(mask.shape)}


def _counted(model: PreTrainedModel, inputs: dict[str, Tensor], kept: Kept) -> dict[str, Tensor]:
    """With positions that start behind padding on the left, as ``generate`` counts them.

    Without them a model with learned positions would read other positions than without padding.
    """
    mask = inputs.get("attention_mask")
    if mask is None or "position_ids" in inputs or "position_ids" not in accepted_inputs(model):
        return inputs
    runs = all(row == tuple(range(row[0], row[-1] + 1)) for row in kept)
    if not runs or all(row[0] == 0 for row in kept):
        return inputs
    return {**inputs, "position_ids": (mask.long().cumsum(1) - 1).clamp(min=0)}


def _with_decoder(
    model: PreTrainedModel,
    inputs: dict[str, Tensor],
    kept: Kept,
    infos: tuple[TokenInfo, ...],
    target: Target | Sequence[Target],
    tokenizer: Any,
    unroll: bool,
    contrast: Target,
    prompt_length: int | Sequence[int] | None,
) -> Batch:
    """Batch of an encoder-decoder: its decoder's tokens are those given, or what it starts with."""
    if not emits_tokens(model):
        # a classifier: the decoder reads the source again, one position later
        goals = goals_of(model, target, (None,) * len(kept), tokenizer, contrast)
        shifted = tuple(_shifted(info) for info in infos)
        return Batch(
            inputs, kept, infos, goals, tokenizer, decoder_kept=kept, prefixes=shifted, echo=True
        )
    import torch

    if "decoder_input_ids" not in inputs:
        start = torch.tensor([decoder_prefix(model)] * len(kept))
        inputs = {**inputs, "decoder_input_ids": start}
    ids = inputs["decoder_input_ids"]
    if ids.ndim != 2 or len(ids) != len(kept) or ids.shape[1] == 0:
        raise InputError(
            f"decoder_input_ids must have shape ({len(kept)}, n), n >= 1; not {tuple(ids.shape)}"
        )
    own = kept_positions(inputs, "decoder_attention_mask", *ids.shape)
    prefixes = describe_all(ids, own, tokenizer)
    goals = goals_of(model, target, tuple(row[-1] for row in own), tokenizer, contrast)
    if prompt_length is None:
        prompt_length = [given_tokens(model, info.input_ids or ()) for info in prefixes]
    prompts = prompt_lengths(prompt_length, own)
    if unroll:
        goals = summed(goals, ids, own, prompts)
    return Batch(
        inputs, kept, infos, goals, tokenizer, decoder_kept=own, prefixes=prefixes, prompts=prompts
    )


def _emitting(
    model: PreTrainedModel, family: Family, info: TokenInfo, kept: Sequence[int]
) -> int | None:
    """Position whose output is explained; None for classifiers."""
    if not emits_tokens(model):
        return None
    if family.kind == "decoder":
        return kept[-1]
    mask = getattr(model.config, "mask_token_id", None)
    masks = [at for at, token in zip(kept, info.tokens, strict=True) if token in _MASKS]
    if info.input_ids is not None and mask is not None:
        masks = [at for at, i in zip(kept, info.input_ids, strict=True) if i == mask]
    if len(masks) != 1:
        raise InputError(
            f"a masked language model explains the token behind one mask; there are {len(masks)}"
        )
    return masks[0]


def _shifted(info: TokenInfo) -> TokenInfo:
    """Tokens of a decoder that reads the source again, one position later."""
    return TokenInfo(
        ("<start>", *info.tokens[:-1]), (True, *info.special[:-1]), (None, *info.word_ids[:-1])
    )


def _image_batch(
    model: PreTrainedModel,
    family: Family,
    inputs: dict[str, Tensor],
    target: Target | Sequence[Target],
    contrast: Target,
) -> Batch:
    """Batch of images: one position per patch, after the family's own tokens."""
    if family.patches is None:
        raise UnsupportedError(
            f"{type(model).__name__} takes pixel_values, but its family names no patches; "
            "declare it with flowopt.trace.register_family(..., Family(patches=(...)))"
        )
    height, width = (int(n) for n in inputs["pixel_values"].shape[2:])
    size = model.config.patch_size
    high, wide = (size, size) if isinstance(size, int) else size
    check_image_size(model, height, width)
    grid = (height // high, width // wide)
    info = TokenInfo.patches(family.patches, grid)
    count = len(inputs["pixel_values"])
    goals = goals_of(model, target, (None,) * count, None, contrast)
    kept = (tuple(range(len(info.tokens))),) * count
    return Batch(inputs, kept, (info,) * count, goals, grid=grid)
