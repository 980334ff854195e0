"""From token scores to word scores: sub-words are summed, which keeps the total."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WordScore", "merge_words"]


@dataclass(frozen=True)
class WordScore:
    """Score of one word.

    Parameters
    ----------
    word : str
        Cut from the original text where offsets are known, else joined from the tokens.
    score : float
        Sum of the scores of its tokens, in units of flow.
    start, end : int or None
        Its characters are ``text[start:end]``; None where unknown, and for special tokens.
    special : bool
        Whether it is a special token such as [CLS].
    """

    word: str
    score: float
    start: int | None
    end: int | None
    special: bool


def merge_words(
    tokens: Sequence[str],
    scores: NDArray[np.float64],
    special: Sequence[bool] | NDArray[np.bool_],
    word_ids: Sequence[int | None],
    offsets: Sequence[tuple[int, int]] | None = None,
    text: str | None = None,
    include_special: bool = False,
) -> list[WordScore]:
    """Sum neighbouring tokens of one word.

    Parameters
    ----------
    tokens, scores, special, word_ids, offsets : length t
        As in `Attribution`. A token without a word is a word of its own.
    text : str, optional
    include_special : bool
        Whether special tokens appear, each on its own; with them the scores sum to |f|.

    Returns
    -------
    list of WordScore
        In the order of the text.
    """
    words = []
    for first, last in _spans(word_ids, special):
        if special[first] and not include_special:
            continue
        start = end = None
        if offsets is not None and not special[first]:
            start, end = offsets[first][0], offsets[last - 1][1]
        word = "".join(_plain(token) for token in tokens[first:last])
        if text is not None and start is not None and end is not None and start < end:
            start, end = _trim(text, start, end)
            word = text[start:end]
        score = float(scores[first:last].sum())
        words.append(WordScore(word, score, start, end, bool(special[first])))
    return words


def _spans(
    word_ids: Sequence[int | None], special: Sequence[bool] | NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """First and past-the-last token of every word."""
    spans: list[tuple[int, int]] = []
    for place, word in enumerate(word_ids):
        continues = (
            place > 0
            and word is not None
            and word == word_ids[place - 1]
            and not special[place]
            and not special[place - 1]
        )
        if continues:
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
    return spans


def _plain(token: str) -> str:
    """Token without the marks of WordPiece (##), byte-level BPE (Ġ) and SentencePiece (▁)."""
    return token.removeprefix("##").lstrip("Ġ▁") or token


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Some tokenizers count the blank before a word as its first character."""
    word = text[start:end]
    if not word.strip():
        return start, end
    return start + len(word) - len(word.lstrip()), end - (len(word) - len(word.rstrip()))
