"""The SLALOM surrogate: its formula, its scores, and its fit to counted tokens."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import FlowoptWarning, InputError
from flowopt.methods.slalom.newton import minimise

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["SCORES", "SlalomFit", "fit_counts", "predict", "recover_exactly"]

SCORES = ("value", "importance", "linearised", "removal")
"""Kinds of scores; see `SlalomFit.scores`."""

_LARGEST = 1e100


def predict(counts: ArrayLike, values: ArrayLike, importances: ArrayLike) -> Array:
    """Log odds of the SLALOM model: F = (C exp(s)) . v / (C . exp(s)).

    Parameters
    ----------
    counts : array (n, V) or (V,)
        How often each token occurs; no row all zero.
    values, importances : array (V,)
        v, and s, of which only differences matter.

    Returns
    -------
    ndarray (n,)

    Raises
    ------
    InputError
        If shapes do not fit, or a count is negative, not whole or not finite.
    """
    table = _checked_counts(np.atleast_2d(_numbers(counts, "counts")))
    v, s = _numbers(values, "values"), _numbers(importances, "importances")
    if v.shape != (table.shape[1],) or s.shape != v.shape:
        raise InputError(
            f"values and importances must have shape ({table.shape[1]},), one number for each "
            f"column of counts; not {v.shape} and {s.shape}"
        )
    return shares(table, s) @ v


def shares(counts: Array, importances: Array) -> Array:
    """Share of each token in each row, (n, V); however far apart the importances are."""
    # The largest importance *of the row* is taken out: no row underflows.
    present = np.where(counts > 0, importances, -np.inf)
    weights = counts * np.exp(np.minimum(importances - present.max(axis=1, keepdims=True), 0.0))
    found: Array = weights / weights.sum(axis=1, keepdims=True)
    return found


@dataclass(frozen=True, eq=False)
class SlalomFit:
    """A value and an importance for every token of a small vocabulary.

    Parameters
    ----------
    values : ndarray (V,)
        v: the log odds of the token alone, however often it is repeated.
    importances : ndarray (V,)
        s, centred: the softmax of s over a text's tokens is their shares of its log odds.
    mse : float
        Mean squared error on the samples of the fit.
    ridge : float
        Of the penalty that was used.
    evaluations : int
        Importances tried.
    converged : bool
        False if the search was stopped before its end.
    """

    values: Array
    importances: Array
    mse: float
    ridge: float
    evaluations: int = 0
    converged: bool = True

    def __post_init__(self) -> None:
        for name in ("values", "importances"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def penalised(self) -> float:
        """What the fit minimised: mse + ridge (|v - mean v|^2 + |s|^2)."""
        deviation = self.values - self.values.mean()
        size = float(deviation @ deviation + self.importances @ self.importances)
        return self.mse + self.ridge * size

    @property
    def linearised(self) -> Array:
        """Scores v exp(s), (V,): how much a token adds to the log odds, up to a common factor."""
        found: Array = self.values * np.exp(self.importances)
        return found

    def predict(self, counts: ArrayLike) -> Array:
        """Log odds (n,) of texts given by their counts (n, V); see `predict`."""
        return predict(counts, self.values, self.importances)

    def removal(self, counts: ArrayLike | None = None) -> Array:
        """Change of the log odds when one occurrence of a token is removed, (V,).

        a_i (v_i - F) / (1 - a_i), a_i the share of one occurrence of token i: the exact
        leave-one-out value of the surrogate. The log odds of an empty text count as 0.

        Parameters
        ----------
        counts : array (V,), optional
            The text; by default every token once. Tokens that it does not have get 0.
        """
        size = len(self.values)
        text = np.ones(size) if counts is None else _numbers(counts, "counts")
        whole = float(self.predict(text)[0])
        changes = np.zeros(size)
        present = np.flatnonzero(text > 0)
        if text.sum() == 1:
            changes[present] = whole
            return changes
        rest = text - np.eye(size)[present]
        changes[present] = whole - self.predict(rest)
        return changes

    def scores(self, kind: str = "linearised", counts: ArrayLike | None = None) -> Array:
        """Scores of one kind, (V,): "value", "importance", "linearised" or "removal".

        Raises
        ------
        InputError
            If there is no such kind.
        """
        if kind == "removal":
            return self.removal(counts)
        kinds = {"value": self.values, "importance": self.importances}
        if kind == "linearised":
            return self.linearised
        if kind not in kinds:
            raise InputError(f"there are no {kind!r} scores; choose among {', '.join(SCORES)}")
        return kinds[kind].copy()


def fit_counts(counts: ArrayLike, log_odds: ArrayLike, ridge: float = 1e-6) -> SlalomFit:
    """Fit SLALOM to log odds of texts given by their token counts.

    Minimises ``mean squared error + ridge (|v - mean v|^2 + |s|^2)`` over values v and centred
    importances s, by variable projection in float64 (slalom.md; Leemann et al. 2025, equation 6
    without a penalty). Deterministic: no random numbers, no starting point to choose.

    Parameters
    ----------
    counts : array (n, V)
        Whole numbers: how often token j occurs in text i.
    log_odds : array (n,)
        Of the explained class.
    ridge : float
        Weight of the penalty. Texts that differ by a few deletions are nearly collinear; without
        a penalty their values can grow without limit. On noise-free data the penalty biases the
        answer a little: use 1e-12 or 0 there.

    Returns
    -------
    SlalomFit
        A token that occurs in no text gets the mean value and the importance 0.

    Raises
    ------
    InputError
        If shapes do not fit; if a number is not finite; if a count is negative or not whole; if a
        text is empty; if the ridge is negative.

    Warns
    -----
    FlowoptWarning
        If the search was stopped before its end, which only a ridge near 0 can cause.
    """
    table = _checked_counts(_numbers(counts, "counts"))
    odds = _numbers(log_odds, "log_odds")
    if odds.shape != (len(table),):
        raise InputError(
            f"log_odds must have shape ({len(table)},), one number for each row of counts; not "
            f"{odds.shape}"
        )
    if np.abs(odds).max() > _LARGEST:
        raise InputError(f"log_odds beyond {_LARGEST:g} cannot be squared; check the model")
    weight = check_ridge(ridge)
    found = minimise(table, odds, weight)
    if not found.converged:
        warnings.warn(
            f"the SLALOM fit had not settled after {found.evaluations} evaluations: these samples "
            f"hardly determine it with ridge={ridge:g}; use a larger ridge or more samples",
            FlowoptWarning,
            stacklevel=2,
        )
    error = predict(table, found.values, found.importances) - odds
    return SlalomFit(
        found.values,
        found.importances,
        float(error @ error) / len(odds),
        weight,
        found.evaluations,
        found.converged,
    )


def recover_exactly(singles: ArrayLike, pairs: ArrayLike, reference: int) -> tuple[Array, Array]:
    """Values and importances of an exact SLALOM model from 2V - 1 log odds, in closed form.

    The log odds of a token alone are its value; a pair (i, r) gives
    s_i - s_r = log((v_r - F) / (F - v_i)).

    Parameters
    ----------
    singles : array (V,)
        Log odds of each token alone.
    pairs : array (V,)
        Log odds of each token together with the reference; the reference's own entry is ignored.
    reference : int
        Its value must differ from every other one.

    Returns
    -------
    values, importances : ndarray (V,)
        Importances centred.

    Raises
    ------
    InputError
        If a pair's log odds are not strictly between those of its tokens: then the model is no
        SLALOM model, or the reference's value is another token's too. `fit_counts` has an answer.
    """
    v, both = _numbers(singles, "singles"), _numbers(pairs, "pairs")
    if v.ndim != 1 or v.shape != both.shape or not len(v):
        raise InputError(
            f"singles and pairs must both have shape (V,), not {v.shape}, {both.shape}"
        )
    if not 0 <= reference < len(v):
        raise InputError(f"reference must be a column from 0 to {len(v) - 1}, not {reference}")
    others = np.arange(len(v)) != reference
    above, below = v[reference] - both[others], both[others] - v[others]
    bad = np.flatnonzero(others)[~(above * below > 0)]
    if len(bad):
        raise InputError(
            f"the log odds of token {bad[0]} with the reference {reference} are not strictly "
            "between theirs alone: this is no SLALOM model, or both have the same value; choose "
            "another reference, or use fit_counts"
        )
    s = np.zeros(len(v))
    s[others] = np.log(above / below)
    return v, s - s.mean()


def check_ridge(ridge: float) -> float:
    """Return the ridge as a float.

    Raises
    ------
    InputError
        If it is not a finite number of at least 0.
    """
    if isinstance(ridge, bool) or not isinstance(ridge, (int, float, np.number)):
        raise InputError(f"ridge must be a number, not {ridge!r}")
    if not 0 <= ridge < np.inf:
        raise InputError(f"ridge must be finite and at least 0, not {ridge}")
    return float(ridge)


def _numbers(values: ArrayLike, name: str) -> Array:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be an array of numbers") from None
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name} must be finite; the entry at {where} is {array[where]}")
    return array


def _checked_counts(counts: Array) -> Array:
    if counts.ndim != 2 or 0 in counts.shape:
        raise InputError(
            "counts must have shape (n, V), a row for each text and a column for each token, "
            f"neither empty; not {counts.shape}"
        )
    if (counts < 0).any() or (counts != np.floor(counts)).any():
        raise InputError("counts must be whole numbers of at least 0: how often each token occurs")
    empty = np.flatnonzero(~counts.any(axis=1))
    if len(empty):
        raise InputError(f"row {empty[0]} of counts is an empty text; leave such rows out")
    return counts
