"""What a language model goes on with, token by token: one example for each token it emits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, UnsupportedError
from flowopt.trace.families import family_of, max_tokens
from flowopt.trace.goals import emits_tokens
from flowopt.trace.prompts import decoder_prefix
from flowopt.trace.reading import reading_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flowopt.trace import Encoded

__all__ = ["check_generates", "continued", "decoded", "generated", "steps"]

_OURS = (
    "inputs",
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "decoder_input_ids",
    "max_length",
    "num_return_sequences",
    "return_dict_in_generate",
)


def check_generates(model: PreTrainedModel) -> None:
    """Refuse models that do not generate text.

    Raises
    ------
    UnsupportedError
    """
    if family_of(model).kind == "encoder" or not emits_tokens(model):
        raise UnsupportedError(
            f"{type(model).__name__} generates no text: explain its prediction with "
            "explainer(text), or load the model with AutoModelForCausalLM or AutoModelForSeq2SeqLM"
        )


def generated(
    model: PreTrainedModel, encoded: Encoded, max_new_tokens: int, options: dict[str, Any]
) -> tuple[Encoded, list[int]]:
    """Let a model go on, greedily unless the options say otherwise.

    Parameters
    ----------
    model : PreTrainedModel
    encoded : Encoded
        The prompt, or the source.
    max_new_tokens : int
        Most tokens, what the model's decoder is forced to start with apart; fewer where an
        end-of-sequence token comes first, which is kept, or the model reads no further.
    options : dict
        Of the model's ``generate``.

    Returns
    -------
    Encoded
        With what an encoder-decoder's decoder starts with under these options.
    list of int
        The tokens.

    Raises
    ------
    InputError
        If an option cannot be used, or there is no room for one token.
    """
    import torch

    _check_options(max_new_tokens, options)
    encoded = _started(model, encoded, options)
    given = len(encoded if encoded.start is None else encoded.start)
    room = _room(model, given)
    if room < 1:
        raise InputError(
            f"the text has {given} tokens, all that the model reads: shorten it to leave room for "
            "tokens after it"
        )
    forced = 0 if encoded.start is None else given - 1  # generate counts the forced one as new
    settings = {"do_sample": False, "num_beams": 1, **_padding(model, options), **options}
    ids = torch.tensor([encoded.inputs["input_ids"]], device=model.device)
    rest = {
        name: torch.tensor([values], device=model.device)
        for name, values in encoded.inputs.items()
        if name != "input_ids"
    }
    with reading_mode(model, getattr(model.config, "_attn_implementation", "eager")):
        try:
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=min(max_new_tokens, room) + forced,
                **rest,
                **settings,
            )
        except (ValueError, TypeError, ZeroDivisionError) as error:
            if not options:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"generate cannot use {', '.join(map(repr, options))}: {reason}"
            ) from None
    return encoded, _up_to_end(output[0, given:].tolist(), _ends(model, options))


def continued(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Encoded,
    continuation: str | Sequence[int],
) -> list[int]:
    """Tokens of a continuation that the user has given.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Of the model's output.
    encoded : Encoded
        What it continues.
    continuation : str or sequence of int
        A text that follows directly, so with its first blank; for an encoder-decoder, what its
        decoder emits. Or token ids.

    Raises
    ------
    InputError
        If it has no tokens, tokens that the model does not know, or more than it reads.
    """
    if isinstance(continuation, str):
        tokens = _tokenized(model, tokenizer, encoded, continuation)
    else:
        tokens = _as_ids(continuation)
    if not tokens:
        raise InputError(
            f"the continuation {continuation!r} has no tokens; give at least one, or none at all "
            "to let the model generate"
        )
    size = int(model.config.vocab_size)
    wrong = [token for token in tokens if not 0 <= token < size]
    if wrong:
        raise InputError(
            f"the continuation has token ids {wrong[:5]}, but the vocabulary has {size} tokens"
        )
    given = len(encoded)
    if family_of(model).kind == "encoder-decoder":
        given = len(encoded.start or decoder_prefix(model))
    if len(tokens) > _room(model, given):
        raise InputError(
            f"the continuation has {len(tokens)} tokens after {given} given ones; the model reads "
            f"{max_tokens(model)}: give at most {max(_room(model, given), 0)}"
        )
    return tokens


def steps(encoded: Encoded, tokens: Sequence[int]) -> list[Encoded]:
    """One example for each token: what it was emitted after."""
    return [replace(encoded, emitted=tuple(tokens[:place])) for place in range(len(tokens))]


def decoded(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Text of generated tokens, special ones left out."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def _check_options(max_new_tokens: int, options: dict[str, Any]) -> None:
    whole = isinstance(max_new_tokens, (int, np.integer)) and not isinstance(max_new_tokens, bool)
    if not whole or max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be a positive integer, not {max_new_tokens!r}")
    unusable = [name for name in options if name in _OURS]
    if unusable:
        raise InputError(
            f"explain_generation sets {', '.join(unusable)} itself; to explain given tokens use "
            "continuation=, or explain_inputs"
        )


def _started(model: PreTrainedModel, encoded: Encoded, options: dict[str, Any]) -> Encoded:
    """With what an encoder-decoder's decoder starts with; options may name another start."""
    if family_of(model).kind != "encoder-decoder":
        return encoded
    start = list(decoder_prefix(model))
    for place, name in enumerate(("decoder_start_token_id", "forced_bos_token_id")):
        if options.get(name) is not None:
            start[place:] = [int(options[name]), *start[place + 1 :]]
    return replace(encoded, start=tuple(start))


def _room(model: PreTrainedModel, given: int) -> int:
    """How many tokens can be emitted after the given ones: the last one is not read again."""
    limit = max_tokens(model)
    return 10**9 if limit is None else limit - given + 1


def _padding(model: PreTrainedModel, options: dict[str, Any]) -> dict[str, int]:
    """A padding token where the model has none: transformers would warn that it chooses one."""
    known = getattr(model.generation_config, "pad_token_id", None)
    ends = _ends(model, options)
    return {"pad_token_id": min(ends)} if known is None and ends else {}


def _ends(model: PreTrainedModel, options: dict[str, Any]) -> set[int]:
    ends = options.get("eos_token_id", getattr(model.generation_config, "eos_token_id", None))
    if ends is None:
        return set()
    return {int(end) for end in np.atleast_1d(np.asarray(ends))}


def _up_to_end(tokens: list[int], ends: set[int]) -> list[int]:
    """Tokens up to the first that ends the sequence; beam search pads behind it."""
    last = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: last + 1]


def _tokenized(
    model: PreTrainedModel, tokenizer: Any, encoded: Encoded, continuation: str
) -> list[int]:
    if family_of(model).kind == "encoder-decoder":
        found = tokenizer(text_target=continuation, add_special_tokens=False)["input_ids"]
        return [int(token) for token in found]
    # Read together, blanks and merges fall where they fall in running text.
    start = list(encoded.inputs["input_ids"])
    text = encoded.info.text or ""
    whole = tokenizer(text + continuation, verbose=False)["input_ids"]
    if whole[: len(start)] == start == tokenizer(text, verbose=False)["input_ids"]:
        return [int(token) for token in whole[len(start) :]]
    found = tokenizer(continuation, add_special_tokens=False, verbose=False)["input_ids"]
    return [int(token) for token in found]


def _as_ids(continuation: Any) -> list[int]:
    try:
        ids = np.asarray(
            continuation.tolist() if hasattr(continuation, "tolist") else list(continuation)
        )
    except (TypeError, ValueError):
        ids = np.empty((1, 1))
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise InputError(
            f"the continuation must be a text, or a list of token ids, not {continuation!r:.60}"
        )
    return [int(token) for token in ids]
