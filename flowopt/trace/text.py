"""From texts to batches: checking, tokenizing, cutting what is too long, padding."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowopt.errors import FlowoptError, FlowoptWarning, InputError
from flowopt.trace.batch import Batch, batch_of_inputs
from flowopt.trace.families import family_of, max_tokens
from flowopt.trace.goals import Target, emits_tokens
from flowopt.trace.inputs import accepted_inputs, describe_tokens
from flowopt.trace.prompts import decoder_prefix
from flowopt.trace.record import TokenInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Encoded", "collate", "encode_texts", "excerpt", "named_example"]


@dataclass(frozen=True)
class Encoded:
    """One tokenized text.

    Parameters
    ----------
    info : TokenInfo
        Its t tokens.
    inputs : mapping of str to list of int
        The model's inputs, of length t.
    emitted : tuple of int
        Tokens that the model has generated after it, before the explained one.
    start : tuple of int, optional
        What an encoder-decoder's decoder starts with; None: what the model's configuration says.
    """

    info: TokenInfo
    inputs: Mapping[str, list[int]]
    emitted: tuple[int, ...] = ()
    start: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.info.tokens)


def encode_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[Encoded]:
    """Check and tokenize texts; all of them are checked before the first is tokenized.

    Texts longer than the model reads are cut at the end, with a `FlowoptWarning`.

    Raises
    ------
    InputError
        If a text is not a string, is empty, or cannot be encoded. The message has its index.
    """
    for index, text in enumerate(texts):
        _check_text(text, index if len(texts) > 1 else None)
    limits = (max_tokens(model), getattr(tokenizer, "model_max_length", None))
    limit = min((int(n) for n in limits if n is not None), default=None)
    accepted = accepted_inputs(model)
    encoded = []
    for index, text in enumerate(texts):
        where = f"text {index} ({excerpt(text)})" if len(texts) > 1 else f"the text {excerpt(text)}"
        encoded.append(_encode(tokenizer, text, limit, where, accepted))
    return encoded


def collate(
    model: PreTrainedModel,
    encoded: Sequence[Encoded],
    targets: Target | Sequence[Target],
    tokenizer: PreTrainedTokenizerBase,
    *,
    unroll: bool = True,
    contrast: Target = None,
) -> Batch:
    """Pad texts on the right to one length, so that the first position stays the first.

    Parameters
    ----------
    targets, unroll, contrast
        See `flowopt.trace.batch.batch_of_inputs`.
    """
    kind = family_of(model).kind
    sides = {name: [each.inputs[name] for each in encoded] for name in encoded[0].inputs}
    prompts = None
    if kind == "decoder" and any(each.emitted for each in encoded):
        prompts = [len(each) for each in encoded]
        for name, rows in sides.items():  # what else goes with a token goes on as it was
            sides[name] = [
                [*row, *(each.emitted if name == "input_ids" else row[-1:] * len(each.emitted))]
                for row, each in zip(rows, encoded, strict=True)
            ]
    padding = {
        "input_ids": getattr(tokenizer, "pad_token_id", None) or 0,
        "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
    }
    inputs = {name: _padded(rows, padding.get(name, 0)) for name, rows in sides.items()}
    ids = sides["input_ids"]
    inputs["attention_mask"] = _padded([[1] * len(row) for row in ids], 0)
    if kind == "encoder-decoder" and emits_tokens(model):
        starts = [each.start or decoder_prefix(model) for each in encoded]
        prompts = [len(start) for start in starts]
        rows = [[*start, *each.emitted] for start, each in zip(starts, encoded, strict=True)]
        inputs["decoder_input_ids"] = _padded(rows, padding["input_ids"])
        inputs["decoder_attention_mask"] = _padded([[1] * len(row) for row in rows], 0)
    batch = batch_of_inputs(
        model, inputs, targets, tokenizer, prompt_length=prompts, unroll=unroll, contrast=contrast
    )
    infos = []
    for each, row in zip(encoded, ids, strict=True):
        rest = describe_tokens(range(len(each), len(row)), row, tokenizer)
        infos.append(each.info.followed_by(rest) if rest.tokens else each.info)
    return replace(batch, infos=tuple(infos))


def _padded(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
    import torch

    length = max(len(row) for row in rows)
    return torch.tensor(
        [[*row, *[padding] * (length - len(row))] for row in rows], dtype=torch.long
    )


def excerpt(text: str, width: int = 40) -> str:
    """Return the beginning of a text, quoted, for messages."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= width else flat[: width - 3] + "...")


@contextmanager
def named_example(
    index: int, text: str | None, alone: bool, what: str | None = None
) -> Iterator[None]:
    """Say in an error's message which example it is about."""
    try:
        yield
    except FlowoptError as error:
        if not alone:
            if what is None:
                what = f"example {index}" if text is None else f"text {index} ({excerpt(text)})"
            error.args = (f"{what}: {error.args[0]}", *error.args[1:])
        raise


def _check_text(text: Any, index: int | None) -> None:
    where = "the text" if index is None else f"text {index}"
    if not isinstance(text, str):
        raise InputError(
            f"{where} must be a str, not {type(text).__name__}"
            + ("; decode bytes first: data.decode('utf-8')" if isinstance(text, bytes) else "")
        )
    if not text.strip():
        raise InputError(f"{where} is empty; give a text with at least one word")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{where} holds characters that no tokenizer can encode (lone surrogates); repair it "
            "with text.encode('utf-8', 'replace').decode()"
        ) from None


def _split_at_blanks(
    words: Sequence[int | None], offsets: Sequence[tuple[int, int]], text: str
) -> list[int | None]:
    """Number words anew, so that none has a blank inside: some tokenizers call all one word."""
    found: list[int | None] = []
    number, before, end = -1, None, 0
    for word, (start, stop) in zip(words, offsets, strict=True):
        if word is None:
            found.append(None)
            continue
        between = text[end : start + 1] if stop > start else text[end:start]
        if word != before or any(letter.isspace() for letter in between):
            number += 1
        found.append(number)
        before, end = word, stop
    return found


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    limit: int | None,
    where: str,
    accepted: Mapping[str, Any],
) -> Encoded:
    fast = bool(getattr(tokenizer, "is_fast", False))
    options = {"return_special_tokens_mask": True, "return_offsets_mapping": fast, "verbose": False}
    encoding = tokenizer(text, **options)
    total = len(encoding["input_ids"])
    if limit is not None and total > limit:
        warnings.warn(
            f"{where} has {total} tokens but the model reads at most {limit}: the last "
            f"{total - limit} were cut; shorten the text or explain it in parts",
            FlowoptWarning,
            stacklevel=4,  # the line that called the explainer
        )
        encoding = tokenizer(text, truncation=True, max_length=limit, **options)
    special = tuple(bool(flag) for flag in encoding["special_tokens_mask"])
    if all(special):
        raise InputError(
            f"{where} gives no token besides special ones; give a text with a visible character"
        )
    ids = tuple(int(i) for i in encoding["input_ids"])
    words = encoding.word_ids() if fast else [None if skip else i for i, skip in enumerate(special)]
    offsets = encoding["offset_mapping"] if fast else None
    if offsets is not None:
        words = _split_at_blanks(words, offsets, text)
    info = TokenInfo(
        tokens=tuple(str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))),
        special=special,
        word_ids=tuple(words),
        input_ids=ids,
        offsets=None if offsets is None else tuple((int(a), int(b)) for a, b in offsets),
        text=text,
    )
    not_inputs = ("special_tokens_mask", "offset_mapping", "attention_mask")
    inputs = {
        name: [int(i) for i in values]
        for name, values in encoding.items()
        if name in accepted and name not in not_inputs
    }
    return Encoded(info, inputs)
