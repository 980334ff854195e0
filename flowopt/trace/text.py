"""From texts to batches: checking, tokenizing, cutting what is too long, padding."""

from __future__ import annotations

import inspect
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowopt.errors import FlowoptError, FlowoptWarning, InputError
from flowopt.trace.batch import Batch
from flowopt.trace.families import max_tokens
from flowopt.trace.record import TokenInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Encoded", "collate", "encode_texts", "excerpt", "named_example"]


@dataclass(frozen=True)
class Encoded:
    """One tokenized text: its tokens, and the model's inputs as lists of length t."""

    info: TokenInfo
    inputs: Mapping[str, list[int]]

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
    accepted = inspect.signature(model.forward).parameters
    encoded = []
    for index, text in enumerate(texts):
        where = f"text {index} ({excerpt(text)})" if len(texts) > 1 else f"the text {excerpt(text)}"
        encoded.append(_encode(tokenizer, text, limit, where, accepted))
    return encoded


def collate(
    encoded: Sequence[Encoded], targets: Sequence[int | None], tokenizer: PreTrainedTokenizerBase
) -> Batch:
    """Pad texts on the right to one length, so that the first position stays the first."""
    import torch

    length = max(len(each) for each in encoded)
    padding = {
        "input_ids": getattr(tokenizer, "pad_token_id", None) or 0,
        "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
    }
    names = encoded[0].inputs.keys()
    inputs = {
        name: torch.tensor(
            [
                [*each.inputs[name], *[padding.get(name, 0)] * (length - len(each))]
                for each in encoded
            ],
            dtype=torch.long,
        )
        for name in names
    }
    inputs["attention_mask"] = torch.tensor(
        [[1] * len(each) + [0] * (length - len(each)) for each in encoded]
    )
    kept = tuple(tuple(range(len(each))) for each in encoded)
    return Batch(inputs, kept, tuple(each.info for each in encoded), tuple(targets))


def excerpt(text: str, width: int = 40) -> str:
    """Return the beginning of a text, quoted, for messages."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= width else flat[: width - 3] + "...")


@contextmanager
def named_example(index: int, text: str | None, alone: bool) -> Iterator[None]:
    """Say in an error's message which example it is about."""
    try:
        yield
    except FlowoptError as error:
        if not alone:
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
