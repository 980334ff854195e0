"""Read the text that the scripts of this folder train and measure with."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data"
NATURAL = "sst2.jsonl"
PHRASES = "sst2_glue_phrases.tsv"
REVIEWS = "imdb_sample.jsonl"


class Example(NamedTuple):
    """One labelled text: label 0 is negative, 1 is positive."""

    split: str
    label: int
    text: str


def normalised(text: str) -> str:
    """Letters and digits only, without case and accents, to compare spellings of one sentence."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in decomposed if character.isalnum())


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise SystemExit(f"{name} is not in {folder}: name the folder that holds it with --data")
    return path


def _json_rows(path: Path, split: str) -> list[Example]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Example(r["split"], int(r["label"]), r["text"]) for r in rows if r["split"] == split]


def natural_sentences(folder: Path, split: str) -> list[Example]:
    """Naturally spelt SST-2 sentences of one split ("train" or "dev")."""
    return _json_rows(_existing(folder, NATURAL), split)


def film_reviews(folder: Path, split: str) -> list[Example]:
    """IMDB reviews: "train" tells which words are useful (nothing is trained on it), or "test"."""
    return _json_rows(_existing(folder, REVIEWS), split)


def glue_rows(folder: Path, splits: tuple[str, ...]) -> list[Example]:
    """GLUE rows (lower case, tokenised) of the given splits ("train_a", "train_b", "dev")."""
    with _existing(folder, PHRASES).open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [Example(r["split"], int(r["label"]), r["text"]) for r in rows if r["split"] in splits]


def training_examples(folder: Path) -> list[Example]:
    """All phrases and natural train sentences, less any that equals a dev sentence."""
    dev = natural_sentences(folder, "dev") + glue_rows(folder, ("dev",))
    held_out = {normalised(example.text) for example in dev}
    train = glue_rows(folder, ("train_a", "train_b")) + natural_sentences(folder, "train")
    return [example for example in train if normalised(example.text) not in held_out]


def check_checkpoint(folder: Path) -> None:
    """Stop with advice unless the folder is a checkpoint of train.py."""
    if not (folder / "run.json").is_file():
        raise SystemExit(f"{folder} holds no checkpoint: name a folder that train.py saved")
