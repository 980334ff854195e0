"""What a model that generates text was given, and what it has emitted since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError
from flowopt.trace.goals import Goal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from flowopt.trace.inputs import Kept

__all__ = ["decoder_prefix", "given_tokens", "prompt_lengths", "summed"]


def decoder_prefix(model: PreTrainedModel) -> tuple[int, ...]:
    """Tokens that ``generate`` puts first: the decoder's start, and a forced language code.

    Raises
    ------
    InputError
        If the configuration names no start token.
    """
    first = [_configured(model, "decoder_start_token_id", "bos_token_id")]
    if first == [None]:
        raise InputError(
            "the model's configuration has no decoder_start_token_id: give decoder_input_ids"
        )
    forced = _configured(model, "forced_bos_token_id")
    return tuple(token for token in (*first, forced) if token is not None)


def given_tokens(model: PreTrainedModel, ids: Sequence[int]) -> int:
    """How many of a decoder's tokens are those that it starts with; at least one."""
    count = 1
    for token, first in zip(ids[1:], decoder_prefix(model)[1:], strict=False):
        count += int(token == first)
    return count


def prompt_lengths(length: int | Sequence[int], kept: Kept) -> tuple[int, ...]:
    """Number of given tokens of each example."""
    if hasattr(length, "tolist"):  # an array, a tensor or a number of theirs
        length = length.tolist()
    lengths = list(length) if isinstance(length, Iterable) else [length] * len(kept)
    if len(lengths) != len(kept):
        raise InputError(f"{len(lengths)} prompt lengths for {len(kept)} examples")
    for given, row in zip(lengths, kept, strict=True):
        if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
            raise InputError(f"prompt_length must be a whole number, not {given!r}")
        if not 1 <= given <= len(row):
            raise InputError(
                f"prompt_length={given} must be at least 1 and at most the {len(row)} tokens given"
            )
    return tuple(int(given) for given in lengths)


def summed(
    goals: tuple[Goal, ...], ids: Tensor, kept: Kept, prompts: tuple[int, ...]
) -> tuple[Goal, ...]:
    """The same goals with the logits of the tokens generated before."""
    rows = ids.tolist()
    return tuple(
        replace(goal, earlier=_earlier(rows[b], row, given))
        for b, (goal, row, given) in enumerate(zip(goals, kept, prompts, strict=True))
    )


def _earlier(ids: Sequence[int], kept: Sequence[int], given: int) -> tuple[tuple[int, int], ...]:
    """Positions that emitted the tokens after the `given` first ones, and these tokens."""
    return tuple((before, int(ids[at])) for before, at in zip(kept[given - 1 :], kept[given:]))  # noqa: B905


def _configured(model: PreTrainedModel, *names: str) -> int | None:
    """The first of these tokens that the model's generation or its configuration names."""
    for config in (getattr(model, "generation_config", None), model.config):
        for name in names:
            value = getattr(config, name, None)
            if isinstance(value, int):
                return value
    return None
