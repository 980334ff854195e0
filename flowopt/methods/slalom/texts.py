"""From a text to its tokens, the tokenizer's special ones apart; any transformers tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowopt.errors import FlowoptError, FlowoptWarning, InputError
from flowopt.methods.slalom.query import is_transformers
from flowopt.trace.record import TokenInfo

__all__ = ["Wrapped", "read_text", "wrap_ids"]


@dataclass(frozen=True)
class Wrapped:
    """A text's tokens, of which those from `start` to before `stop` are its own.

    Parameters
    ----------
    info : TokenInfo
        All t positions.
    start, stop : int
        What lies before and after is put around every query.
    """

    info: TokenInfo
    start: int
    stop: int

    @property
    def ids(self) -> tuple[int, ...]:
        """The text's own token ids."""
        assert self.info.input_ids is not None
        return self.info.input_ids[self.start : self.stop]

    def around(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Token ids of a query between the special tokens."""
        assert self.info.input_ids is not None
        return (*self.info.input_ids[: self.start], *ids, *self.info.input_ids[self.stop :])


def wrap_ids(
    ids: Sequence[int],
    prefix: Sequence[int] = (),
    suffix: Sequence[int] = (),
    tokens: Sequence[str] | None = None,
) -> Wrapped:
    """Tokens given as ids, with what is put around every query.

    Parameters
    ----------
    ids, prefix, suffix : sequence of int
    tokens : sequence of str, optional
        Names of `ids`; by default the ids themselves.

    Raises
    ------
    InputError
        If there are no ids, one is no integer of at least 0, or the names are too few or many.
    """
    whole = _checked_ids((*prefix, *ids, *suffix))
    count, start = len(ids), len(prefix)
    if not count:
        raise InputError("ids is empty; give at least one token")
    if tokens is not None and len(tokens) != count:
        raise InputError(f"{len(tokens)} tokens for {count} ids; give one name for each")
    names = [str(i) for i in whole]
    if tokens is not None:
        names[start : start + count] = map(str, tokens)
    special = tuple(not start <= place < start + count for place in range(len(whole)))
    words = tuple(None if skip else place for place, skip in enumerate(special))
    info = TokenInfo(tuple(names), special, words, whole)
    return Wrapped(info, start, start + count)


def read_text(model: Any, tokenizer: Any, text: str, special_tokens: bool = True) -> Wrapped:
    """Tokenize a text; what exceeds the model's limit is cut off with a `FlowoptWarning`.

    Parameters
    ----------
    special_tokens : bool
        Whether the tokenizer's special tokens stand around every query.

    Raises
    ------
    InputError
        If the text is no string, is empty, or gives no token of its own.
    """
    _check_text(text)
    fast = bool(getattr(tokenizer, "is_fast", False))
    options = {
        "return_special_tokens_mask": True,
        "return_offsets_mapping": fast,
        "verbose": False,
        "add_special_tokens": special_tokens,
    }
    encoding = tokenizer(text, **options)
    total, limit = len(encoding["input_ids"]), length_limit(model, tokenizer)
    if limit is not None and total > limit:
        warnings.warn(
            f"the text has {total} tokens but the model reads at most {limit}: the last "
            f"{total - limit} were cut; shorten the text or explain it in parts",
            FlowoptWarning,
            stacklevel=4,
        )
        encoding = tokenizer(text, truncation=True, max_length=limit, **options)
    ids = _checked_ids(encoding["input_ids"])
    special = tuple(bool(flag) for flag in encoding["special_tokens_mask"])
    own = np.flatnonzero(~np.array(special, dtype=bool))
    if not len(own):
        raise InputError("the text gives no token of its own; give one with a visible character")
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
    return Wrapped(info, int(own[0]), int(own[-1]) + 1)


def length_limit(model: Any, tokenizer: Any) -> int | None:
    """Return the most tokens a query may have, by tokenizer and model; None without a limit."""
    limits = [getattr(tokenizer, "model_max_length", None)]
    if is_transformers(model):
        limits.append(_model_limit(model))
    known = [int(n) for n in limits if n is not None and 0 < n < 10**9]
    return min(known, default=None)


def _model_limit(model: Any) -> int | None:
    from flowopt.trace.families import max_tokens

    try:
        return max_tokens(model)
    except FlowoptError:  # a family without facts: SLALOM needs none
        found = getattr(model.config, "max_position_embeddings", None)
        return found if isinstance(found, int) else None


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise InputError(
            f"the text must be a str, not {type(text).__name__}"
            + ("; decode bytes first: data.decode('utf-8')" if isinstance(text, bytes) else "")
        )
    if not text.strip():
        raise InputError("the text is empty; give one with at least one word")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            "the text holds characters that no tokenizer can encode (lone surrogates); repair it "
            "with text.encode('utf-8', 'replace').decode()"
        ) from None


def _checked_ids(ids: Sequence[Any]) -> tuple[int, ...]:
    whole = []
    for value in ids:
        if isinstance(value, (bool, float)) or not hasattr(value, "__index__") or int(value) < 0:
            raise InputError(f"token ids must be integers of at least 0, not {value!r}")
        whole.append(int(value))
    return tuple(whole)
