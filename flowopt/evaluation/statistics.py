"""How sure a comparison of methods is: bootstrap intervals, paired tests, Holm's correction.

Values come one per text; a missing one is None or nan. Methods are compared on the texts for
which both have a value, text by text: the same texts are easy or hard for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import wilcoxon

from flowopt.errors import InputError
from flowopt.methods.seeds import check_count, check_seed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["Difference", "Interval", "compare_to", "holm", "mean_interval", "paired", "rivals"]

RESAMPLES = 2000
_EXACT = 14
"""Differences up to which all 2^n signs are tried."""
_SIGNS = 10_000
_CELLS = 2**22
"""Most numbers drawn at once: 32 MiB."""


@dataclass(frozen=True)
class Interval:
    """A mean over texts with a percentile bootstrap interval.

    Parameters
    ----------
    mean, low, high : float
        nan without values; the interval has no width with one.
    n : int
        Texts with a value.
    level : float
        Coverage aimed at.
    """

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference:
    """First minus second method on the texts that both have.

    Parameters
    ----------
    mean, low, high : float
        Mean difference and its bootstrap interval; nan without pairs.
    p_value : float
        Two-sided sign-flip test of a mean difference of 0: all 2^n signs for few pairs, else
        random ones, the observed one counted in. 1 without pairs.
    wilcoxon : float
        Two-sided Wilcoxon signed-rank test, which asks about ranks instead of means.
    adjusted : float
        `p_value` after Holm's correction for the comparisons made together.
    n : int
        Pairs.
    level : float
        Of the interval; it is not corrected for several comparisons.
    """

    mean: float
    low: float
    high: float
    p_value: float
    wilcoxon: float
    adjusted: float
    n: int
    level: float = 0.95


def mean_interval(
    values: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean and percentile bootstrap interval (Efron & Tibshirani 1993, section 13.3).

    With few texts, below about 20, such intervals are somewhat too narrow.

    Parameters
    ----------
    values : array (n,)
        Missing ones are None or nan.
    level : float
        Between 0 and 1.
    resamples, seed : int

    Raises
    ------
    InputError
        If values are not numbers, or a level or count cannot be used.
    """
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, not {level!r}")
    check_count(resamples, "resamples")
    found = numbers(values)
    found = found[~np.isnan(found)]
    if not len(found):
        return Interval(np.nan, np.nan, np.nan, 0, level)
    generator = np.random.default_rng(check_seed(seed))
    means = _resampled(found, resamples, generator)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(found.mean()), float(low), float(high), len(found), level)


def paired(
    first: ArrayLike,
    second: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Compare two methods on the same texts.

    Parameters
    ----------
    first, second : array (n,)
        Values of text i at i; texts that miss one are left out.
    level, resamples, seed
        See `mean_interval`.

    Raises
    ------
    InputError
        If the two have different lengths.
    """
    one, other = numbers(first), numbers(second)
    if one.shape != other.shape:
        raise InputError(
            f"{len(one)} values against {len(other)}: give both methods' values of the same texts "
            "in the same order, with None where one is missing"
        )
    differences = one - other
    differences = differences[~np.isnan(differences)]
    interval = mean_interval(differences, level=level, resamples=resamples, seed=seed)
    p_value = _sign_flips(differences, seed)
    return Difference(
        interval.mean,
        interval.low,
        interval.high,
        p_value,
        _signed_ranks(differences),
        p_value,
        interval.n,
        level,
    )


def compare_to(
    reference: str, values: Mapping[str, ArrayLike], *, level: float = 0.95, seed: int = 0
) -> dict[str, Difference]:
    """Every method minus the reference, with Holm's correction over these comparisons.

    Parameters
    ----------
    reference : str
        One of the methods.
    values : mapping of str to array (n,)
        Method -> a value per text, in one order of texts.

    Raises
    ------
    InputError
        If the reference is not among the methods.
    """
    if reference not in values:
        raise InputError(f"there is no method {reference!r} here; known: {', '.join(values)}")
    found = {
        name: paired(each, values[reference], level=level, seed=seed)
        for name, each in values.items()
        if name != reference
    }
    corrected = holm([each.p_value for each in found.values()])
    return {
        name: replace(each, adjusted=float(value))
        for (name, each), value in zip(found.items(), corrected, strict=True)
    }


def rivals(
    values: Mapping[str, ArrayLike],
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    seed: int = 0,
) -> tuple[str, ...]:
    """The method with the best mean, and those that cannot be told from it.

    A method cannot be told from the best if the corrected p-value of their paired difference is
    above `alpha`: that is no proof of their being equal. Means are over the texts that every
    method with any value has, so that none is best for having skipped the hard ones.

    Parameters
    ----------
    values : mapping of str to array (n,)
    higher_is_better : bool
    alpha : float
    seed : int

    Returns
    -------
    tuple of str
        The best first, the others in the order of the mapping; () without common texts.
    """
    tables = {name: numbers(each) for name, each in values.items()}
    tables = {name: each for name, each in tables.items() if not np.isnan(each).all()}
    if not tables:
        return ()
    if len({len(each) for each in tables.values()}) > 1:
        raise InputError("give every method's values of the same texts, None where one is missing")
    common = ~np.isnan(np.stack(list(tables.values()))).any(axis=0)
    if not common.any():
        return ()
    tables = {name: each[common] for name, each in tables.items()}
    sign = 1.0 if higher_is_better else -1.0
    best = max(tables, key=lambda name: sign * tables[name].mean())
    against = compare_to(best, tables, seed=seed)
    return (best, *(name for name, each in against.items() if each.adjusted > alpha))


def holm(p_values: Sequence[float]) -> Array:
    """Adjusted p-values (k,) that control the chance of any false alarm (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def numbers(values: ArrayLike) -> Array:
    """Values as floats (n,), nan for None.

    Raises
    ------
    InputError
        If they are not numbers, or infinite.
    """
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("give one number or None per text") from None
    if found.ndim != 1 or np.isinf(found).any():
        raise InputError("give one finite number or None per text, in one row")
    return found


def _resampled(values: Array, resamples: int, generator: np.random.Generator) -> Array:
    """Means (resamples,) of draws with replacement."""
    n = len(values)
    return np.concatenate(
        [
            values[generator.integers(0, n, (count, n))].mean(axis=1)
            for count in _portions(resamples, n)
        ]
    )


def _portions(rows: int, width: int) -> list[int]:
    """Rows at a time, so that no more than `_CELLS` numbers are held."""
    most = max(1, _CELLS // width)
    return [min(most, rows - start) for start in range(0, rows, most)]


def _sign_flips(differences: Array, seed: int) -> float:
    """Share of sign patterns whose mean is as far from 0 as the observed one."""
    n = len(differences)
    if n == 0:
        return 1.0
    observed = abs(differences.sum())
    # sums of the same numbers in another order differ by rounding
    least = observed - 1e-12 * np.abs(differences).sum()
    if n <= _EXACT:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float((np.abs((2.0 * bits - 1.0) @ differences) >= least).mean())
    generator = np.random.default_rng([check_seed(seed), n])
    hits = 0
    for count in _portions(_SIGNS, n):
        signs = 2.0 * generator.integers(0, 2, (count, n)) - 1.0
        hits += int((np.abs(signs @ differences) >= least).sum())
    return (hits + 1) / (_SIGNS + 1)


def _signed_ranks(differences: Array) -> float:
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, zero_method="wilcox").pvalue)
