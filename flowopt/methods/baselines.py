"""Texts that say nothing: every player of a subject replaced by another token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowopt.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from flowopt.methods.subject import Subject

__all__ = ["ZERO", "baseline_embeddings", "default_baseline"]

ZERO = "zero"
"""The baseline of zero vectors."""

_SPECIAL = {"unknown": "unk"} | {n: n for n in ("pad", "mask", "eos", "bos", "sep", "cls")}
"""Name of a baseline -> how the tokenizer calls the token."""


def baseline_embeddings(subject: Subject, names: str | Sequence[str]) -> Tensor:
    """Embeddings (k, t, d) in which players have another token's, and special tokens their own.

    Parameters
    ----------
    subject : Subject
    names : str or sequence of str
        One for each of the k: "pad", "mask", "unknown", "eos", "bos", "sep", "cls" (the
        tokenizer's), "zero" (zero vectors), or any other token of the vocabulary.

    Raises
    ------
    InputError
        If the tokenizer has no such token.
    """
    import torch

    listed = (names,) if isinstance(names, str) else tuple(names)
    if not listed:
        raise InputError('name at least one baseline, such as "pad"')
    players = list(subject.players)
    found = []
    for name in listed:
        row = subject.embeddings.clone()
        if name == ZERO:
            row[:, players] = 0.0
        else:
            token = torch.tensor([[_token(subject, name)]], device=row.device)
            row[:, players] = subject.embedded(token)
        found.append(row)
    return torch.cat(found)


def default_baseline(subject: Subject, *preferred: str) -> str:
    """The first of these names that the tokenizer has a token for; "zero" if it has none."""
    return next((name for name in preferred if _special_id(subject, name) is not None), ZERO)


def _token(subject: Subject, name: str) -> int:
    token = _special_id(subject, name)
    if token is None and isinstance(name, str):
        token = subject.tokenizer.get_vocab().get(name)
    if token is None:
        known = [each for each in _SPECIAL if _special_id(subject, each) is not None]
        raise InputError(
            f"the tokenizer has no token for the baseline {name!r}; choose among "
            f"{', '.join([*known, ZERO])}, or any token of its vocabulary"
        )
    return int(token)


def _special_id(subject: Subject, name: str) -> int | None:
    own = _SPECIAL.get(name) if isinstance(name, str) else None
    token = getattr(subject.tokenizer, f"{own}_token_id", None) if own else None
    rows = getattr(subject.embedding, "num_embeddings", None)
    # a padding token that was added to the tokenizer and not to the model
    return None if token is None or (rows is not None and token >= rows) else int(token)
