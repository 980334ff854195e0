"""The texts that are explained: some of a set's test split, the same ones every time."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from settings import LONGEST, SHORTEST

from flowopt.evaluation.dataset import Dataset, Example

sys.path.append(str(Path(__file__).resolve().parents[1] / "classifiers"))

from splits import examples


def corpus(name: str, data: Path, tokenizer: Any, count: int, split: str = "test") -> Dataset:
    """`count` texts of a set's split, cut to `LONGEST` tokens.

    Those of a smaller count are among those of a larger one.
    """
    dealt = sorted(examples(name, split, data), key=lambda each: _place(each.id))
    chosen: list[Example] = []
    for each in dealt:
        text = cut(each.text, tokenizer, LONGEST)
        if tokens(text, tokenizer) - 2 >= SHORTEST:
            chosen.append(Example(each.id, text, each.label))
        if len(chosen) == count:
            break
    return Dataset(f"{name} {split}", lambda: iter(chosen), len(chosen))


def cut(text: str, tokenizer: Any, longest: int) -> str:
    """The start of a text that has at most `longest` tokens, two special ones among them."""
    inner = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = inner["offset_mapping"]
    if len(offsets) <= longest - 2:
        return text
    return text[: offsets[longest - 3][1]]


def tokens(text: str, tokenizer: Any) -> int:
    """Tokens of a text, special ones among them."""
    return len(tokenizer(text, verbose=False)["input_ids"])


def _place(number: str) -> str:
    """Files hold one class after the other; the order of hashes mixes them."""
    return hashlib.sha256(number.encode()).hexdigest()
