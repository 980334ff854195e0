"""What every experiment here ends in: rank correlations, means with intervals, files."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from flowopt import provenance
from flowopt.errors import InputError

Array = NDArray[np.float64]

DRAWS = 2000
FEWEST = 3
FLAT = 1e-12


@dataclass(frozen=True)
class Report:
    """One experiment's tables.

    Parameters
    ----------
    name : str
        Of its files.
    title : str
    about : mapping of str to str
        Model, revision, data, split, seed, protocol.
    body : str
        Markdown.
    rows : sequence of mappings
        Every figure, for the .csv file; all with the same keys.
    """

    name: str
    title: str
    about: Mapping[str, str]
    body: str
    rows: Sequence[Mapping[str, Any]] = field(default=())

    def write(self, out: Path, command: str) -> str:
        """Write NAME.md and NAME.csv; gives the markdown."""
        facts = provenance.describe(provenance.facts())
        lines = [f"# {self.title}", "", *(f"- {key}: {said}" for key, said in self.about.items())]
        text = "\n".join([*lines, "", self.body, "", f"Made by `{command}`; {facts}", ""])
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{self.name}.md").write_text(text, encoding="utf-8")
        with (out / f"{self.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return text


def digest(path: Path) -> str:
    """What names weights: the digest of their file."""
    return f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's correlation in [-1, 1]; ties share their mean rank.

    Not a number where one of the two is constant (up to `FLAT` of its size: scores that differ by
    rounding have no order), or where there are fewer than `FEWEST`.

    Raises
    ------
    InputError
        If the two differ in length.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"two lists of one length are compared, not {a.shape} with {b.shape}")
    flat = any(np.ptp(x) <= FLAT * np.abs(x).max() for x in (a, b)) if len(a) else True
    if len(a) < FEWEST or flat:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def partial_correlation(first: ArrayLike, second: ArrayLike, held: ArrayLike) -> float:
    """Rank correlation of two lists with a third held fixed, in [-1, 1].

    (r12 - r13 r23) / sqrt((1 - r13^2) (1 - r23^2)) of the rank correlations. Not a number where
    one of the two follows the third exactly: nothing is left of it then.
    """
    r12, r13, r23 = (
        rank_correlation(*pair) for pair in ((first, second), (first, held), (second, held))
    )
    left = (1 - r13**2) * (1 - r23**2)
    return (r12 - r13 * r23) / left**0.5 if left > FLAT else float("nan")


@dataclass(frozen=True)
class Mean:
    """A mean over texts, with a 95 % bootstrap interval (percentiles, texts redrawn).

    Parameters
    ----------
    mean, low, high : float
    count : int
        Texts that have a value.
    """

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]" if self.count else "none"


def mean_of(texts: Iterable[ArrayLike], seed: int = 0) -> Mean:
    """Mean over texts of each text's mean; NaN and texts without a number are left away.

    Parameters
    ----------
    texts : iterable of arrays or numbers
        The values of each text: those of one text depend on one another, so texts are redrawn.
    seed : int
    """
    each = [np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in texts]
    known = [values[~np.isnan(values)] for values in each]
    means = np.array([values.mean() for values in known if len(values)])
    if not len(means):
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(seed).integers(len(means), size=(DRAWS, len(means)))
    low, high = np.percentile(means[drawn].mean(axis=1), (2.5, 97.5))
    return Mean(float(means.mean()), float(low), float(high), len(means))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown."""
    lines = [" | ".join(head), "|".join("---" for _ in head)]
    lines += [" | ".join(map(str, row)) for row in rows]
    return "\n".join(f"| {line} |" if "---|" not in line else f"|{line}|" for line in lines)
