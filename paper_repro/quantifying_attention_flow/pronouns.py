"""Pronoun resolution with a masked language model: which of two people the mask looks at.

    python paper_repro/quantifying_attention_flow/pronouns.py                  # a hub name
    python paper_repro/quantifying_attention_flow/pronouns.py --model FOLDER

Sentences with two people and a masked pronoun. For every layer the share of the two people in the
mask's row of raw attention, rollout and flow, beside their share of the blank-out change of the
likelier pronoun's probability (each person's mention replaced by the unknown token). The model has
to be pretrained; offline it must be in the local cache or a folder.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from correlations import Comparison, compare

from flowopt import provenance
from flowopt.errors import InputError
from flowopt.explainer.loading import load_model

HERE = Path(__file__).resolve().parent
DEFAULT_MODEL = "distilbert-base-uncased"
MASK = "{mask}"


@dataclass(frozen=True)
class Case:
    """A sentence with a place for the mask, its two people, and the pronouns that may stand there.

    Parameters
    ----------
    sentence : str
    people : (str, str)
        Words of the sentence.
    pronouns : (str, str)
        Pronouns of the first and of the second person.
    """

    sentence: str
    people: tuple[str, str]
    pronouns: tuple[str, str] = ("his", "her")


CASES = (
    Case("David asked Anna about {mask} sister.", ("David", "Anna")),
    Case("Peter wrote to Maria because {mask} letter was late.", ("Peter", "Maria")),
    Case("Robert thanked Julia for {mask} advice.", ("Robert", "Julia")),
    Case("Paul visited Laura in {mask} new house.", ("Paul", "Laura")),
    Case("The waiter told the actress that {mask} table was ready.", ("waiter", "actress")),
)


@dataclass(frozen=True, eq=False)
class Resolution:
    """What was found for one sentence.

    Parameters
    ----------
    case : Case
    chances : ndarray (2,)
        Probability of the two pronouns at the mask.
    changes : ndarray (2,)
        Blank-out change of the likelier pronoun's probability, by person.
    shares : dict of str to ndarray (L, 2)
        Scores of the two people by method and layer, divided by their sum.
    """

    case: Case
    chances: np.ndarray
    changes: np.ndarray
    shares: dict[str, np.ndarray]


def pronoun_probability(position: int, token: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Probability of one token at the mask of every text."""
    return lambda logits: logits[:, position].softmax(-1)[:, token]


def resolve(model: Any, tokenizer: Any, case: Case) -> Resolution:
    """Read one sentence.

    Raises
    ------
    InputError
        If the tokenizer has no mask, does not know a pronoun, or a person is not in the sentence.
    """
    if tokenizer.mask_token is None:
        raise InputError("pronouns need a masked language model: this tokenizer has no mask")
    text = case.sentence.replace(MASK, tokenizer.mask_token)
    encoding = tokenizer(text, return_offsets_mapping=True)
    ids = list(encoding["input_ids"])
    position = ids.index(tokenizer.mask_token_id)
    tokens = [one_token(tokenizer, pronoun) for pronoun in case.pronouns]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, position]
    chances = logits.softmax(-1)[tokens].double().numpy()
    outcome = pronoun_probability(position, tokens[int(chances.argmax())])
    found = compare(model, tokenizer, ids, outcome, position)
    places = [places_of(text, person, encoding["offset_mapping"]) for person in case.people]
    return Resolution(
        case,
        chances,
        np.array([found.references["blank-out"][place].sum() for place in places]),
        shares_of(found, places),
    )


def shares_of(found: Comparison, places: Sequence[list[int]]) -> dict[str, np.ndarray]:
    """Scores of the people's tokens, summed and divided by the sum over both, (L, 2)."""
    shares = {}
    for method, rows in found.rows.items():
        sums = np.stack([rows[:, place].sum(axis=1) for place in places], axis=1)
        total = sums.sum(axis=1, keepdims=True)
        shares[method] = np.divide(sums, total, out=np.full_like(sums, 0.5), where=total > 0)
    return shares


def one_token(tokenizer: Any, word: str) -> int:
    """The word's only token.

    Raises
    ------
    InputError
        If the tokenizer needs several, or knows none.
    """
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise InputError(f"the tokenizer has no token {word!r}: choose a model that knows it")
    return int(ids[0])


def places_of(text: str, word: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Positions of a word's tokens.

    Raises
    ------
    InputError
        If the word is not in the text.
    """
    start = text.find(word)
    if start < 0:
        raise InputError(f"{word!r} is not in {text!r}")
    stop = start + len(word)
    return [i for i, (a, b) in enumerate(offsets) if b > a and a < stop and b > start]


def table(found: Sequence[Resolution]) -> list[list[str]]:
    """A row for each sentence and method: share of the first person by layer."""
    rows = []
    for one in found:
        first, second = one.case.people
        total = one.changes.sum()
        blank = one.changes[0] / total if total > 0 else float("nan")
        for method, shares in one.shares.items():
            rows.append(
                [
                    one.case.sentence,
                    f"{first} / {second}",
                    "{:.3f} / {:.3f}".format(*one.chances),
                    f"{blank:.3f}",
                    method,
                    *(f"{share:.3f}" for share in shares[:, 0]),
                ]
            )
    return rows


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="hub name or folder (%(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for results")
    return parser.parse_args()


def main() -> None:
    """Read all sentences, print and write."""
    chosen = arguments()
    try:
        model, tokenizer = load_model(chosen.model)
        rows = table([resolve(model, tokenizer, case) for case in CASES])
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    layers = len(rows[0]) - 5
    heads = ["sentence", "people", "pronouns", "blank-out", "method"]
    heads += [f"layer {layer + 1}" for layer in range(layers)]
    lines = ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    revision = getattr(model.config, "_commit_hash", None)
    foot = (
        f"{Path(chosen.model).name}, revision {revision}; {provenance.describe(provenance.facts())}"
    )
    text = "\n".join(["# Share of the first person", "", *lines, "", foot, ""])
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "pronouns.md").write_text(text, encoding="utf-8")
    with (chosen.out / "pronouns.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([heads, *rows])
    print(text)


if __name__ == "__main__":
    main()
