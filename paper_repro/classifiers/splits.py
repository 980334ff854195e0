"""The five sequence classification sets, and which texts train, choose and report.

train: the classifier learns from it. dev: settings are chosen on it. test: results are reported
on it, and nothing is ever chosen on it.

| set | train | dev | test |
|---|---|---|---|
| sst2 | file's train sentences | half of the file's dev sentences | the other half |
| imdb | file's train reviews | half of the file's test reviews | the other half |
| ag_news | file's train articles | half of the file's test articles | the other half |
| subj | 80 % | 10 % | 10 % |
| yelp | 50 % | 20 % | 30 % |

Where a file does not split, a hash of the text does, so equal texts stay together; a training text
that also occurs in dev or test is left out of train.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DEFAULT_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SPLITS = ("train", "dev", "test")
HALVES = (0.0, 0.5, 0.5)


@dataclass(frozen=True)
class Source:
    """Where a set is, and how its texts are dealt.

    Attributes
    ----------
    file : str
        In the data folder: one JSON object a line, with id, split, label, label_name, text.
    shares : dict of str to (float, float, float)
        For a value of the file's `split` ("*": any other), the shares of train, dev and test.
    """

    file: str
    shares: dict[str, tuple[float, float, float]]


SOURCES = {
    "sst2": Source("sst2.jsonl", {"train": (1, 0, 0), "*": HALVES}),
    "imdb": Source("imdb_sample.jsonl", {"train": (1, 0, 0), "*": HALVES}),
    "ag_news": Source("ag_news.jsonl", {"train": (1, 0, 0), "*": HALVES}),
    "subj": Source("subj.jsonl", {"*": (0.8, 0.1, 0.1)}),
    "yelp": Source("yelp_hat.jsonl", {"*": (0.5, 0.2, 0.3)}),
}


@dataclass(frozen=True)
class Example:
    """One labelled text; where people marked its words, those words and the mean of their marks."""

    id: str
    text: str
    label: int
    words: tuple[str, ...] | None = None
    marks: tuple[float, ...] | None = None


def examples(name: str, split: str, data: Path = DEFAULT_DATA) -> list[Example]:
    """Texts of one split ("train", "dev" or "test") of a set of `SOURCES`, in the file's order.

    Raises
    ------
    SystemExit
        If the set, the split or the file is unknown: the message names what there is.
    """
    if split not in SPLITS:
        raise SystemExit(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
    return [_example(row) for row, where in _dealt(name, data) if where == split]


def label_names(name: str, data: Path = DEFAULT_DATA) -> list[str]:
    """Names of the classes, by label."""
    names = {int(row["label"]): str(row["label_name"]) for row in _rows(name, data)}
    return [names[label] for label in range(len(names))]


@cache
def _rows(name: str, data: Path) -> list[dict[str, Any]]:
    if name not in SOURCES:
        raise SystemExit(f"there is no set {name!r}: choose one of {', '.join(SOURCES)}")
    path = Path(data) / SOURCES[name].file
    if not path.is_file():
        raise SystemExit(f"{path.name} is not in {data}: name the folder that holds it with --data")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@cache
def _dealt(name: str, data: Path) -> list[tuple[dict[str, Any], str | None]]:
    """Rows and their splits; None for a training text that is held out elsewhere."""
    keyed = [(row, _key(row["text"])) for row in _rows(name, data)]
    dealt = [(row, key, _split_of(name, row["split"], key)) for row, key in keyed]
    held_out = {key for _, key, where in dealt if where != "train"}
    return [
        (row, None if where == "train" and key in held_out else where) for row, key, where in dealt
    ]


def _example(row: dict[str, Any]) -> Example:
    number, label = str(row["id"]), int(row["label"])
    if "mean_mask" not in row:
        return Example(number, row["text"], label)
    words = tuple(row["tokens"])  # the file's text differs in white space alone
    return Example(number, " ".join(words), label, words, tuple(row["mean_mask"]))


def _split_of(name: str, named: str, key: str) -> str:
    """Split of a row: as the file's split says, else where the hash of its text falls."""
    shares = SOURCES[name].shares
    train, dev, _ = shares.get(named, shares["*"])
    place = _place(key)
    if place < train:
        return "train"
    return "dev" if place < train + dev else "test"


def _key(text: str) -> str:
    """Letters and digits alone, so that spellings of one text are one text."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _place(key: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
