"""The two letter-to-letter models, what their maps must show, and how often maps show it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from influence_maps import Array, Setting, attention_maps, attention_of, flow_matrices
from letters import greedy
from numpy.typing import NDArray
from reversal import held_out_strings, load_reversal, random_strings
from transformers import PreTrainedModel
from transliteration import load_transliteration

from flowopt.errors import InputError
from flowopt.progress import progress_bar

NDMask = NDArray[np.bool_]

WORDS = Path(__file__).resolve().parent / "arabic_words.txt"
CONSONANTS = {  # Arabic letter -> Latin letters it is written with; vowels are left away
    "ب": "bp", "ت": "t", "ث": "ts", "ج": "jg", "ح": "h", "خ": "kh", "د": "d", "ذ": "dz",
    "ر": "r", "ز": "z", "س": "sc", "ش": "sch", "ص": "s", "ض": "d", "ط": "t", "ظ": "zd",
    "غ": "g", "ف": "fv", "ق": "qkc", "ك": "kc", "ل": "l", "م": "m", "ن": "n", "ه": "h",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Task:
    """A model, its texts, and where the influence on each output letter must lie.

    Parameters
    ----------
    name : str
    model : PreTrainedModel
    tokenizers : (source, target)
        One token for each letter.
    aim : callable
        ``(n, t) -> (n,)``: the place among t source letters that output letter k comes from.
    development, reporting : tuple of str
        Texts to choose settings on, and texts to report on; none in both.
    """

    name: str
    model: PreTrainedModel
    tokenizers: tuple[Any, Any]
    aim: Callable[[int, int], Array]
    development: tuple[str, ...] = ()
    reporting: tuple[str, ...] = ()


def reversed_places(n: int, t: int) -> Array:
    """Place of the source letter of each output letter of a reversed string, (n,)."""
    return np.arange(t - 1, t - 1 - n, -1, dtype=np.float64)


def scaled_diagonal(n: int, t: int) -> Array:
    """Middle of output letter k, scaled to the source: ``(k + 1/2) t / n - 1/2``, (n,)."""
    return (np.arange(n) + 0.5) * t / n - 0.5


def checksum(text: str) -> int:
    """A number that splits and shuffles texts the same way everywhere."""
    return zlib.crc32(text.encode())


def reversal_task(development: int, reporting: int) -> Task:
    """Strings that the model was trained to reverse; those reported on it never saw."""
    model, tokenizer = load_reversal()
    chosen = tuple(islice(random_strings(held_out=False, seed=2), development))
    unseen = tuple(held_out_strings(reporting, seed=3))
    return Task("reversal", model, (tokenizer, tokenizer), reversed_places, chosen, unseen)


def transliteration_task(data: Path, development: int, reporting: int) -> Task:
    """Arabic names; the halves of `WORDS`, and the order in each, are those of `checksum`."""
    loaded = load_transliteration(data / "aren_transliteration")
    halves: tuple[list[str], list[str]] = ([], [])
    for word in sorted(WORDS.read_text(encoding="utf-8").split(), key=checksum):
        halves[checksum(word) % 2].append(word)
    return Task(
        "transliteration",
        loaded.model,
        (loaded.source, loaded.target),
        scaled_diagonal,
        tuple(halves[0][:development]),
        tuple(halves[1][:reporting]),
    )


@dataclass(frozen=True)
class Tally:
    """How often the largest entry of a row is where it should be.

    A row without one largest entry (nothing flows, or a tie) counts as a miss.

    Parameters
    ----------
    rows, exact, within : int
        Rows; those whose largest entry is at most 1/2 from the aim; at most 1.
    named, own : int
        Rows of consonants whose source letter the alphabets tell (some source letters can be
        written so, others not); those whose largest entry is at such a letter.
    certified : int
        Rows whose flow is proved.
    """

    rows: int = 0
    exact: int = 0
    within: int = 0
    named: int = 0
    own: int = 0
    certified: int = 0

    def __add__(self, other: Tally) -> Tally:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Tally(*(a + b for a, b in pairs))

    def share(self, count: str) -> float:
        """A count over the rows that it is of; NaN without any."""
        whole = self.named if count == "own" else self.rows
        return float(getattr(self, count)) / whole if whole else float("nan")

    @property
    def merit(self) -> float:
        """What settings are chosen by: the mean of the shares `exact` and `within`."""
        return (self.share("exact") + self.share("within")) / 2


def tally(scores: Array, aim: Array, own: NDMask | None = None, certified: int = 0) -> Tally:
    """Count the rows of one map.

    Parameters
    ----------
    scores : ndarray (n, t)
    aim : ndarray (n,)
    own : ndarray of bool (n, t), optional
        Source letters that can be written as the output letter.
    certified : int

    Raises
    ------
    InputError
        If there is no map, or not one aim for each row.
    """
    if scores.ndim != 2 or 0 in scores.shape or aim.shape != scores.shape[:1]:
        raise InputError(f"a map (n, t) needs n aims; these are {scores.shape} and {aim.shape}")
    place = scores.argmax(axis=1)
    single = (scores == scores.max(axis=1, keepdims=True)).sum(axis=1) == 1
    off = np.where(single, np.abs(place - aim), np.inf)
    mask = np.zeros(scores.shape, dtype=bool) if own is None else own
    named = mask.any(axis=1) & ~mask.all(axis=1)
    hit = named & single & mask[np.arange(len(place)), place]
    counts = (off <= 0.5, off <= 1, named, hit)
    return Tally(len(aim), *(int(count.sum()) for count in counts), certified)


def own_letters(answer: str, text: str) -> NDMask:
    """Which source letters (t) can be written as each output letter (n): (n, t)."""
    return np.array(
        [[letter in CONSONANTS.get(given, "") for given in text] for letter in answer], dtype=bool
    )


@dataclass(frozen=True, eq=False)
class Maps:
    """All maps of one text: output letters by source letters, special tokens left away.

    Parameters
    ----------
    text, answer : str
    maps : dict of str to ndarray (n, t)
    certified : dict of str to int
        For flows the number of rows that are proved.
    """

    text: str
    answer: str
    maps: dict[str, Array]
    certified: dict[str, int] = field(default_factory=dict)


def maps_of(task: Task, settings: Sequence[Setting], text: str) -> Maps:
    """Explain the model's greedy answer to one text."""
    source, target = task.tokenizers
    (answer,) = greedy(task.model, source, target, [text])
    tokens = target.convert_tokens_to_ids(list(answer))
    matrices = flow_matrices(task.model, task.tokenizers, text, tokens, settings)
    maps = {name: matrix.scores for name, matrix in matrices.items()}
    maps |= attention_maps(attention_of(task.model, source(text)["input_ids"], tokens))
    return Maps(
        text,
        answer,
        {name: scores[:, : len(text)] for name, scores in maps.items()},
        {name: sum(row.status == "optimal" for row in matrix) for name, matrix in matrices.items()},
    )


def tallies_of(task: Task, settings: Sequence[Setting], text: str) -> dict[str, Tally]:
    """Count the rows of all maps of one text."""
    found = maps_of(task, settings, text)
    aim, own = task.aim(len(found.answer), len(text)), own_letters(found.answer, text)
    return {
        name: tally(scores, aim, own, found.certified.get(name, 0))
        for name, scores in found.maps.items()
    }


def measured(
    make: partial[Task], part: str, settings: Sequence[Setting], workers: int = 1
) -> dict[str, Tally]:
    """Count over the texts of one part of a task.

    Parameters
    ----------
    make : partial
        Makes the task; every process makes its own.
    part : "development" or "reporting"
    settings : sequence of Setting
    workers : int
        Processes.
    """
    task = make()
    texts: Sequence[str] = getattr(task, part)
    if not texts:
        raise InputError(f"the task {task.name} has no texts for {part}")
    totals: dict[str, Tally] = {}
    with progress_bar(len(texts), True, label=f"{task.name}, {part}") as advance:
        for counts in _all_tallies(make, task, settings, texts, workers):
            for name, count in counts.items():
                totals[name] = totals.get(name, Tally()) + count
            advance()
    return totals


def _all_tallies(
    make: partial[Task], task: Task, settings: Sequence[Setting], texts: Sequence[str], workers: int
) -> Iterable[dict[str, Tally]]:
    if workers == 1:
        yield from (tallies_of(task, settings, text) for text in texts)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (make, tuple(settings))) as pool:
        yield from pool.map(_one, texts)


_STATE: dict[str, Any] = {}


def _start(make: partial[Task], settings: tuple[Setting, ...]) -> None:
    torch.set_num_threads(1)
    _STATE.update(task=make(), settings=settings)


def _one(text: str) -> dict[str, Tally]:
    return tallies_of(_STATE["task"], _STATE["settings"], text)


def chance(task: Task, part: str) -> dict[str, float]:
    """Shares that a random place in every row would give; the model's answers are read."""
    source, target = task.tokenizers
    texts: Sequence[str] = getattr(task, part)
    found: dict[str, list[float]] = {"exact": [], "within": [], "own": []}
    for text, answer in zip(texts, greedy(task.model, source, target, list(texts)), strict=True):
        off = np.abs(np.arange(len(text)) - task.aim(len(answer), len(text))[:, None])
        own = own_letters(answer, text)
        named = own.any(axis=1) & ~own.all(axis=1)
        found["exact"] += (off <= 0.5).mean(axis=1).tolist()
        found["within"] += (off <= 1).mean(axis=1).tolist()
        found["own"] += own[named].mean(axis=1).tolist()
    return {name: float(np.mean(values)) if values else float("nan")
            for name, values in found.items()}  # fmt: skip
