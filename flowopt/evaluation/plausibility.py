"""Plausibility: agreement with the words that people marked.

Scores of sub-words are summed to words first. Marks that are shares of annotators count as
marked from one half on. None where all words are marked, or none: there is nothing to tell apart.
ERASER's own token F1 is of a hard choice that the explanation makes; here the choice is the k
highest words with k the number of marked ones, so that precision and recall are the same.
Its IoU counts spans that overlap by half; here it is the overlap of the two sets of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from flowopt.errors import InputError, UnsupportedError
from flowopt.evaluation.metric import Case, register_metric

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowopt.methods import Subject

    Array = NDArray[np.float64]

__all__ = ["auprc", "auroc", "read_words", "token_f1", "token_iou", "word_sums"]

MARKED = 0.5
"""Least share of annotators for a word to count as marked."""


@register_metric(
    "auprc",
    kind="plausibility",
    higher_is_better=True,
    range=(0, 1),
    source="DeYoung et al. (2020)",
)
def auprc(case: Case) -> float | None:
    """Average precision of the words' scores: sum of (R_n - R_{n-1}) P_n over thresholds."""
    found = _marked(case)
    if found is None:
        return None
    marked, scores = found
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(marked[order])
    # equal scores are one threshold
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision = hits[last] / (last + 1)
    gained = np.diff(hits[last], prepend=0) / hits[-1]
    return float(precision @ gained)


@register_metric(
    "auroc",
    kind="plausibility",
    higher_is_better=True,
    range=(0, 1),
    source="Leemann et al. (2024)",
)
def auroc(case: Case) -> float | None:
    """How often a marked word scores above one that is not; equal scores count half."""
    found = _marked(case)
    if found is None:
        return None
    marked, scores = found
    ranks, count = rankdata(scores), int(marked.sum())
    above = ranks[marked].sum() - count * (count + 1) / 2
    return float(above / (count * (len(marked) - count)))


@register_metric(
    "token-f1",
    kind="plausibility",
    higher_is_better=True,
    range=(0, 1),
    source="DeYoung et al. (2020)",
)
def token_f1(case: Case) -> float | None:
    """F1 of the k words that score highest, k the number of marked words."""
    found = _hits(case)
    return None if found is None else found[0] / found[1]


@register_metric(
    "token-iou",
    kind="plausibility",
    higher_is_better=True,
    range=(0, 1),
    source="DeYoung et al. (2020)",
)
def token_iou(case: Case) -> float | None:
    """Overlap of the k words that score highest with the k marked ones: common / all of both."""
    found = _hits(case)
    return None if found is None else found[0] / (2 * found[1] - found[0])


def _marked(case: Case) -> tuple[NDArray[np.bool_], Array] | None:
    """Which words are marked, and their scores; None if that tells no words apart."""
    if case.marks is None or case.word_scores is None:
        return None
    marked = case.marks >= MARKED
    return None if marked.all() or not marked.any() else (marked, case.word_scores)


def _hits(case: Case) -> tuple[int, int] | None:
    """Marked words among the k highest, and k; of equal scores the earlier word is higher."""
    found = _marked(case)
    if found is None:
        return None
    marked, scores = found
    count = int(marked.sum())
    top = np.argsort(-scores, kind="stable")[:count]
    return int(marked[top].sum()), count


def read_words(
    subject: Subject, marks: ArrayLike, words: Sequence[str] | None = None
) -> tuple[Array, list[list[int]]]:
    """Marks and tokens of the words that the model read.

    Words without a token (after the end of what the model reads) are left out. A token belongs
    to the word in which its first character that is no blank lies.

    Parameters
    ----------
    subject : Subject
    marks : array (w,)
    words : sequence of str, length w, optional
        In the order of the text; by default the text between single blanks.

    Returns
    -------
    ndarray (v,)
        Marks of the v words that were read.
    list of list of int
        Positions of the tokens of each.

    Raises
    ------
    InputError
        If marks and words do not fit each other or the text.
    UnsupportedError
        If the tokenizer does not say which characters a token stands for.
    """
    listed = subject.text.split(" ") if words is None else list(words)
    weights = np.asarray(marks, dtype=np.float64)
    if weights.shape != (len(listed),) or not np.isfinite(weights).all():
        raise InputError(
            f"marks of shape {weights.shape} for {len(listed)} words; give one finite number per "
            "word of text.split(' '), or name the words with words="
        )
    word_of = np.full(len(subject.text), -1)
    end = 0
    for number, word in enumerate(listed):
        start = subject.text.find(word, end)
        if start < 0:
            raise InputError(f"the word {word!r} does not follow in the text; give its own words")
        end = start + len(word)
        word_of[start:end] = number
    tokens: list[list[int]] = [[] for _ in listed]
    for position, number in _word_of_tokens(subject, word_of).items():
        tokens[number].append(position)
    read = [number for number, positions in enumerate(tokens) if positions]
    return weights[read], [tokens[number] for number in read]


def _word_of_tokens(subject: Subject, word_of: NDArray[np.int_]) -> dict[int, int]:
    offsets, text = subject.info.offsets, subject.text
    if offsets is None:
        raise UnsupportedError(
            "human marks need a fast tokenizer, which says where in the text its tokens are"
        )
    found = {}
    for position in subject.players:
        start, end = offsets[position]
        inside = [i for i in range(start, end) if not text[i].isspace() and word_of[i] >= 0]
        if inside:
            found[position] = int(word_of[inside[0]])
    return found


def word_sums(scores: Array, tokens: Sequence[Sequence[int]]) -> Array:
    """Scores (v,) of words from those (t,) of their tokens."""
    return np.array([scores[list(positions)].sum() for positions in tokens])
