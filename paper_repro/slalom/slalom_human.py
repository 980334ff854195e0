"""Whether value, importance and linearised score find the words that people marked.

Yelp reviews with human attention (Sen et al. 2020): a word counts as marked where at least half of
the annotators marked it; ROC-AUC over the words of one review, then the mean over reviews.
This is plausibility, not faithfulness.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from flowopt.errors import InputError
from flowopt.methods import slalom

Array = NDArray[np.float64]

FILE = "yelp_hat.jsonl"
CLASSIFIERS = Path(__file__).resolve().parents[1] / "classifiers"
# Mean AUROC of value, importance and linearised score in Leemann et al. (2025).
PUBLISHED = {
    "BERT": (0.786, 0.807, 0.801),
    "DistilBERT": (0.688, 0.681, 0.686),
    "GPT-2": (0.674, 0.685, 0.683),
}
SCORES = ("value", "importance", "linearised", "absolute value", "removal", "linear, same queries")


@dataclass(frozen=True, eq=False)
class Review:
    """One review: its words, what people marked (share of annotators), and its label."""

    words: tuple[str, ...]
    marks: Array
    label: int


def reviews(folder: Path, split: str = "all") -> list[Review]:
    """Reviews of one split of paper_repro/classifiers, or all.

    A classifier that was trained on some of these reviews is explained on "test" alone.

    Raises
    ------
    InputError
        If the file is not there.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{FILE} is not in {folder}: name the folder that holds it with --data")
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if split != "all":
        kept = ids_of(folder, split)
        rows = [row for row in rows if row["id"] in kept]
    return [Review(tuple(r["tokens"]), np.array(r["mean_mask"]), int(r["label"])) for r in rows]


def ids_of(folder: Path, split: str) -> set[str]:
    """Ids of a split, as the classifiers' training has it."""
    sys.path.insert(0, str(CLASSIFIERS))
    try:
        from splits import examples
    finally:
        sys.path.remove(str(CLASSIFIERS))
    return {example.id for example in examples("yelp", split, folder)}


def auroc(scores: Array, marked: NDArray[np.bool_]) -> float:
    """Chance that a marked word scores above an unmarked one, ties counting half; in [0, 1].

    Not a number where all or none are marked.

    Raises
    ------
    InputError
        If the two differ in shape.
    """
    if scores.shape != marked.shape:
        raise InputError(f"{scores.shape} scores do not fit {marked.shape} marks")
    positive = int(marked.sum())
    negative = len(marked) - positive
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[marked].sum() - positive * (positive + 1) / 2) / (positive * negative))


def by_words(offsets: Sequence[tuple[int, int]], scores: Array, words: Sequence[str]) -> Array:
    """Sum the scores of sub-words over the words of ``" ".join(words)``."""
    word_at = np.repeat(np.arange(len(words)), [len(word) + 1 for word in words])
    found = np.zeros(len(words))
    for (start, stop), score in zip(offsets, scores, strict=True):
        if stop > start:
            found[word_at[start]] += score
    return found


def aurocs_of(
    model: Any, tokenizer: Any, review: Review, queries: int, plan: str, seed: int
) -> dict[str, Any] | None:
    """AUROC of every score on one review; None where people marked all words or none.

    The class explained is the predicted one. Words cut off at the model's limit are left out.
    """
    held_out = max(10, queries // 10)
    found = slalom.explain(
        model, tokenizer, " ".join(review.words), plan=plan, samples=queries - held_out,
        held_out=held_out, seed=seed,
    )  # fmt: skip
    own = slice(found.source.start, found.source.stop)
    offsets = (found.source.info.offsets or ())[own]
    marked = review.marks >= 0.5
    token_scores = {
        kind: found.scores(kind)[own] for kind in ("value", "importance", "linearised", "removal")
    }
    token_scores["absolute value"] = np.abs(token_scores["value"])
    token_scores["linear, same queries"] = found.linear.coefficients[found.columns]
    read = by_words(offsets, np.ones(len(offsets)), review.words) > 0
    values = {
        name: auroc(by_words(offsets, scores, review.words)[read], marked[read])
        for name, scores in token_scores.items()
    }
    if np.isnan(values["value"]):
        return None
    return {
        **values,
        "correct": found.prediction.index == review.label,
        "fit": found.quality.explained,
        "linear fit": found.quality.explained_linear,
    }
