"""Number of verbs: the agreement sentences, more examples found in other text, and the words.

The agreement data (Linzen et al. 2016) is split here by prefix, so that no prefix of the test part
is trained on. As in the original data, any sentence is an example up to a verb whose form tells its
number: from the other texts (and from the rest of the agreement training sentences) prefixes before
is/are, was/were and has/have are taken, where a noun can be the subject.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from flowopt.errors import InputError

DEFAULT_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
AGREEMENT = "linzen_agreement.jsonl"
TRAIN_TEXTS = (  # file, and the split to take; None takes all
    ("eraser_movies.jsonl", "train"),
    ("imdb_sample.jsonl", "train"),
    ("ag_news.jsonl", "train"),
    ("subj.jsonl", None),
    ("sst2.jsonl", "train"),
    ("yelp_hat.jsonl", None),
)
TEST_SHARE, DEV_SHARE = 0.28, 0.05
LONGEST = 48  # words of a prefix; more are cut at its beginning
PAD, UNKNOWN, BEGIN, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"

NUMBER = {"is": 0, "was": 0, "has": 0, "are": 1, "were": 1, "have": 1}
NO_SUBJECT = frozenset(
    ("i", "you", "he", "she", "it", "they", "we", "there", "here", "where", "how", "why", "when",
     "what", "to", "and", "or", "but", "not", "n't", "never", "nor", "so", "as", "than", "if",
     "ever", "always", "also", "still", "often", "would", "could", "should", "will", "might", "may",
     "must", "can", "cannot", "wo", "ca", "do", "does", "did", "'d", "'ll", "''", "``", ",", ";",
     ":", "-", "--", "(", ")", ".", "!", "?", "yes", "no", "only")
)  # fmt: skip
WORD = re.compile(
    r"[a-z]+(?:-[a-z]+)*(?=n't)|n't|'(?:s|re|ve|ll|d|m)\b|[a-z0-9]+(?:[-.][a-z0-9]+)*|\S"
)
SENTENCE_END = frozenset(".!?")


class Example(NamedTuple):
    """Words before a verb, and its number: 0 singular, 1 plural."""

    words: tuple[str, ...]
    label: int
    attractors: int | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """The agreement data in three parts, and further training examples."""

    train: list[Example]
    more: list[Example]
    dev: list[Example]
    test: list[Example]


def rows_of(path: Path, split: str | None = None) -> Iterator[dict[str, object]]:
    """Rows of a file of JSON lines, of one split.

    Raises
    ------
    InputError
        If there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path.name} is not in {path.parent}: name its folder with --data")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if split is None or row.get("split") == split:
                yield row


def part_of(prefix: str) -> str:
    """Which part a prefix belongs to: a fixed function of its words."""
    share = zlib.crc32(prefix.encode()) / 2**32
    if share < TEST_SHARE:
        return "test"
    return "dev" if share < TEST_SHARE + DEV_SHARE else "train"


def verb_prefixes(words: list[str]) -> Iterator[Example]:
    """Every prefix of a sentence before a verb that tells its number and follows a noun."""
    for place, word in enumerate(words):
        if place >= 2 and word in NUMBER and words[place - 1] not in NO_SUBJECT:
            yield Example(tuple(words[max(0, place - LONGEST) : place]), NUMBER[word])


def sentences(text: str) -> Iterator[list[str]]:
    """Sentences of running text, as lower-case words."""
    found: list[str] = []
    for word in WORD.findall(text.lower().replace("<br />", " ")):
        found.append(word)
        if word in SENTENCE_END:
            yield found
            found = []
    yield found


def agreement_parts(folder: Path) -> Parts:
    """Read and split the agreement data, and find more training examples in the other texts.

    Files of other texts that are absent are left out.

    Raises
    ------
    InputError
        If the agreement data is not in the folder.
    """
    parts: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    more: list[Example] = []
    for row in rows_of(folder / AGREEMENT):
        words = tuple(str(row["prefix"]).split())
        part = part_of(str(row["prefix"]))
        attractors = int(str(row["n_attractors"]))
        parts[part].append(Example(words[-LONGEST:], int(str(row["label"])), attractors))
        if part == "train":
            found = verb_prefixes(str(row["sentence"]).split())
            more += [one for one in found if len(one.words) != len(words)]
    for name, split in TRAIN_TEXTS:
        if (folder / name).is_file():
            for row in rows_of(folder / name, split):
                for sentence in sentences(str(row["text"])):
                    more += verb_prefixes(sentence)
    held_out = {example.words for part in ("dev", "test") for example in parts[part]}
    more = [example for example in more if example.words not in held_out]
    return Parts(parts["train"], more, parts["dev"], parts["test"])


def word_tokenizer(parts: Parts, size: int, least: int = 2) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words: all of the training rows first, then the commonest others.

    Parameters
    ----------
    parts : Parts
        Only its training examples are read.
    size : int
        Number of tokens, with the five special ones.
    least : int
        Rarer words of the agreement training rows are left to the unknown token.
    """
    own = Counter(word for example in parts.train for word in example.words)
    other = Counter(word for example in parts.more for word in example.words)
    ranked = [word for word, count in own.most_common() if count >= least]
    seen = set(ranked)
    ranked += [word for word, _ in other.most_common() if word not in seen]
    names = [PAD, UNKNOWN, BEGIN, END, MASK, *ranked][:size]
    vocabulary = {name: number for number, name in enumerate(names)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(BEGIN, vocabulary[BEGIN]), (END, vocabulary[END])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token=UNKNOWN,
        pad_token=PAD,
        cls_token=BEGIN,
        sep_token=END,
        mask_token=MASK,
        model_max_length=LONGEST + 2,
    )
