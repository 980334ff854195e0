"""How well the surrogate predicts the model: on queries it has not seen, and under removals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg

from flowopt.errors import InputError
from flowopt.methods.slalom.plans import count_tokens
from flowopt.methods.slalom.query import log_odds, logits_of, multi_label

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowopt.methods.slalom.explanation import SlalomExplanation
    from flowopt.methods.slalom.fit import SlalomFit

    Array = NDArray[np.float64]

__all__ = ["FitQuality", "LinearFit", "RemovalErrors", "fit_linear", "measure", "removal_error"]


@dataclass(frozen=True, eq=False)
class LinearFit:
    """The additive surrogate: intercept + counts . coefficients.

    Parameters
    ----------
    coefficients : ndarray (V,)
    intercept : float
    mse : float
        Mean squared error on the samples of the fit.
    """

    coefficients: Array
    intercept: float
    mse: float

    def predict(self, counts: ArrayLike) -> Array:
        """Log odds (n,) of texts given by their counts (n, V)."""
        table = np.atleast_2d(np.asarray(counts, dtype=np.float64))
        found: Array = table @ self.coefficients + self.intercept
        return found


@dataclass(frozen=True)
class FitQuality:
    """Mean squared errors of three surrogates on the same queries.

    Parameters
    ----------
    slalom, linear, constant : float
        Of SLALOM, of least squares on the counts with an intercept, and of the mean log odds of
        the samples of the fit.
    queries : int
        Held-out queries.
    unseen : bool
        Whether none of them was among the samples of the fit. False only for texts so short that
        the plan has too few different queries to do without some.
    """

    slalom: float
    linear: float
    constant: float
    queries: int
    unseen: bool = True

    @property
    def explained(self) -> float:
        """Share of the variance that SLALOM explains: 1 - slalom / constant."""
        return _share(self.slalom, self.constant)

    @property
    def explained_linear(self) -> float:
        """Share of the variance that the linear surrogate explains."""
        return _share(self.linear, self.constant)


def fit_linear(counts: ArrayLike, odds: Array) -> LinearFit:
    """Least squares of log odds (n,) on counts (n, V) and an intercept, of minimum norm.

    Queries of one length leave a constant open that the intercept could hold as well.
    """
    table = np.asarray(counts, dtype=np.float64)
    middle = table.mean(axis=0)
    found = linalg.lstsq(table - middle, odds - odds.mean(), cond=1e-10, lapack_driver="gelsy")[0]
    fit = LinearFit(found, float(odds.mean() - middle @ found), 0.0)
    error = fit.predict(table) - odds
    return LinearFit(fit.coefficients, fit.intercept, float(error @ error) / len(odds))


def measure(
    fit: SlalomFit, linear: LinearFit, mean: float, counts: ArrayLike, odds: Array, unseen: bool
) -> FitQuality:
    """Errors on held-out queries, given as counts (n, V) and log odds (n,)."""
    return FitQuality(
        slalom=float(np.mean((fit.predict(counts) - odds) ** 2)),
        linear=float(np.mean((linear.predict(counts) - odds) ** 2)),
        constant=float(np.mean((mean - odds) ** 2)),
        queries=len(odds),
        unseen=unseen,
    )


def _share(error: float, constant: float) -> float:
    if constant > 0:
        return 1.0 - error / constant
    return 1.0 if error == 0 else -np.inf


@dataclass(frozen=True, eq=False)
class RemovalErrors:
    """Errors of predicted changes of the log odds when several tokens are removed at once.

    Parameters
    ----------
    removed : tuple of int
        How many tokens were removed.
    draws : int
        Random sets of positions for each number.
    errors : mapping of str to ndarray
        For each surrogate its mean squared error by number of tokens removed.
    changes : ndarray
        Mean squared change itself: the error of predicting no change at all.
    """

    removed: tuple[int, ...]
    draws: int
    errors: Mapping[str, Array]
    changes: Array

    def __rich__(self) -> Any:
        """A table, a row for each number of tokens removed."""
        from rich import box
        from rich.table import Table

        table = Table(title="mean squared error of predicted changes", box=box.SIMPLE)
        for name in ("removed", *self.errors, "no change"):
            table.add_column(name, justify="right")
        for row, removed in enumerate(self.removed):
            errors = [f"{values[row]:.4g}" for values in self.errors.values()]
            table.add_row(str(removed), *errors, f"{self.changes[row]:.4g}")
        return table

    def __str__(self) -> str:
        from flowopt.methods.slalom.show import plain

        return plain(self)


def removal_error(
    explanation: SlalomExplanation,
    model: Any,
    *,
    removed: Sequence[int] = tuple(range(1, 11)),
    draws: int = 100,
    scores: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> RemovalErrors:
    """Delete several tokens at once and compare predicted with true changes of the log odds.

    Parameters
    ----------
    explanation : SlalomExplanation
    model : transformers classifier or callable
        The one that was explained.
    removed : sequence of int
        Numbers of positions to delete; those that would leave nothing are left out.
    draws : int
        Random sets of positions for each number.
    scores : mapping of str to array (t,), optional
        Other methods' scores for all t positions of the text: they predict the sum of the removed
        ones. The linear surrogate is always there, as "linear".
    seed : int
        Of the sets.

    Raises
    ------
    InputError
        If the text is too short, or scores do not have its length.
    """
    ids, distinct = explanation.source.ids, explanation.vocabulary_ids
    numbers = tuple(int(m) for m in removed if 0 < m < len(ids))
    if not numbers or draws < 1:
        raise InputError(
            f"removed must hold numbers from 1 to {len(ids) - 1} (the text has {len(ids)} tokens) "
            "and draws must be positive"
        )
    additive = _additive(explanation, scores)
    generator = np.random.default_rng(seed)
    gone = np.zeros((len(numbers) * draws, len(ids)), dtype=bool)
    for row, m in enumerate(np.repeat(numbers, draws)):
        gone[row, generator.choice(len(ids), m, replace=False)] = True
    rests = [tuple(np.array(ids)[~row].tolist()) for row in gone]
    queries = [explanation.source.around(rest) for rest in rests]
    logits = logits_of(model, queries, batch_size=batch_size)
    odds = log_odds(logits, explanation.target.index, multi_label(model))
    true = explanation.log_odds - odds
    whole = explanation.fit.predict(count_tokens([ids], distinct))[0]
    predicted = {"SLALOM": whole - explanation.fit.predict(count_tokens(rests, distinct))}
    predicted |= {name: gone @ values for name, values in additive.items()}
    shape = (len(numbers), draws)
    return RemovalErrors(
        numbers,
        draws,
        {name: ((p - true) ** 2).reshape(shape).mean(axis=1) for name, p in predicted.items()},
        (true**2).reshape(shape).mean(axis=1),
    )


def _additive(
    explanation: SlalomExplanation, scores: Mapping[str, ArrayLike] | None
) -> dict[str, Array]:
    """Scores of the content positions, by name."""
    own = slice(explanation.source.start, explanation.source.stop)
    found = {"linear": explanation.linear.coefficients[explanation.columns]}
    for name, values in (scores or {}).items():
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (len(explanation.tokens),) or not np.isfinite(array).all():
            raise InputError(
                f"the scores {name!r} must be {len(explanation.tokens)} finite numbers, one for "
                f"each token of the text; not shape {array.shape}"
            )
        found[name] = array[own]
    return found
