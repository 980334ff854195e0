"""Least squares of the SLALOM model by variable projection, with Newton's method in float64.

The objective of `flowopt.slalom.fit_counts` is a linear least-squares problem in the values v once
the importances s are fixed. So v is eliminated: it is always the best one for the current s, and
Newton's method with damping runs over s alone. The Hessian of what remains is the Schur complement
of the joint Hessian, whose blocks are five matrices W' diag(d) W (n V^2 work each).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg, sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["Minimum", "minimise"]

_SPARSE_FROM = 64  # columns; below, dense products are faster however few entries they have
_SPARSE_SHARE = 0.1
_REFINEMENTS = 6
_MOST_DAMPING = 1e20  # relative to the Hessian


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the search ended.

    Parameters
    ----------
    values, importances : ndarray (V,)
        Importances centred.
    evaluations : int
        Importances tried.
    converged : bool
        Whether no step promised a decrease worth taking.
    """

    values: Array
    importances: Array
    evaluations: int
    converged: bool


@dataclass(frozen=True, eq=False)
class _Data:
    counts: Any  # (n, V), dense or CSR
    log_odds: Array
    ridge: float
    seen: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Point:
    """Importances with the values that are best for them."""

    s: Array
    v: Array
    weights: Any  # W (n, V): share of each token in each row
    gram: Array  # W'W / n
    factor: Any  # Cholesky factor of the values' Hessian
    residual: Array
    objective: float


def minimise(counts: Array, log_odds: Array, ridge: float, most_evaluations: int = 300) -> Minimum:
    """Minimise mean squared error + ridge (|v - mean v|^2 + |s|^2) over v and centred s.

    Parameters
    ----------
    counts : ndarray (n, V)
        No row all zero.
    log_odds : ndarray (n,)
    ridge : float
        At least 0.
    """
    size = counts.shape[1]
    seen: NDArray[np.bool_] = np.asarray(counts.any(axis=0))
    few = np.count_nonzero(counts) < _SPARSE_SHARE * counts.size
    held = sparse.csr_array(counts) if size >= _SPARSE_FROM and few else counts
    # The model moves with a constant, and numbers near zero cancel least.
    middle = float(log_odds.mean())
    data = _Data(held, log_odds - middle, ridge, seen)
    start = _project(data, np.zeros(size), np.zeros(size))
    assert start is not None  # equal importances give weights in every row
    point, evaluations, converged = _descend(data, start, most_evaluations)
    values = point.v + middle
    values[~seen] = values[seen].mean()
    return Minimum(values, point.s, evaluations, converged)


def _descend(data: _Data, point: _Point, most_evaluations: int) -> tuple[_Point, int, bool]:
    """Levenberg's damping with Nielsen's update; each accepted step lowers the objective."""
    damping, growth, evaluations, exact = None, 2.0, 1, False
    while evaluations < most_evaluations:
        gradient, hessian = _derivatives(data, point, exact)
        size = max(float(np.abs(np.diagonal(hessian)).max()), 1e-290)
        damping = 1e-3 * size if damping is None else damping
        while True:
            step = _damped_step(hessian, gradient, damping)
            if step is None:
                damping = max(4.0 * damping, 1e-12 * size)
                continue
            promised = float(step @ gradient)
            last = promised <= 1e-16 * point.objective or float(np.abs(step).max()) < 1e-9
            tried = _project(data, point.s + step, point.v)
            evaluations += 1
            gain = point.objective - tried.objective if tried else -np.inf
            if tried is not None and gain > 0:
                break
            if last or damping > _MOST_DAMPING * size or evaluations >= most_evaluations:
                return point, evaluations, last
            damping, growth = damping * growth, 2.0 * growth
        # Gauss-Newton is the better model far away, the exact Hessian near the minimum.
        exact = exact or gain < 0.5 * point.objective
        quality = min(gain / (promised + damping * float(step @ step)), 1.0)
        damping *= max(0.1, 1.0 - (2.0 * quality - 1.0) ** 3)
        point, growth = tried, 2.0
        if last:
            return point, evaluations, True
    return point, evaluations, False


def _damped_step(hessian: Array, gradient: Array, damping: float) -> Array | None:
    """Centred Newton step; None where the damped Hessian is not positive definite."""
    try:
        factor = linalg.cho_factor(hessian + damping * np.eye(len(gradient)))
    except linalg.LinAlgError:
        return None
    step = linalg.cho_solve(factor, gradient)
    centred: Array = step - step.mean()
    return centred


def _project(data: _Data, s: Array, guess: Array) -> _Point | None:
    """Best values for given importances; None where a row's weights vanish."""
    weights = _weights(data.counts, s)
    if weights is None:
        return None
    n, size = weights.shape
    gram = _gram(weights, np.ones(n))
    hessian = gram - data.ridge / size
    # A little more than the diagonal, so that collinear columns can be factorised; the
    # refinements take its effect out again.
    diagonal = np.diagonal(gram) * (1.0 + 1e-14) + data.ridge * (1.0 - 1.0 / size)
    hessian[np.diag_indices(size)] = np.where(data.seen | (data.ridge > 0), diagonal, 1.0)
    try:
        factor = linalg.cho_factor(hessian)
    except linalg.LinAlgError:
        hessian[np.diag_indices(size)] *= 1.0 + 1e-10
        factor = linalg.cho_factor(hessian)
    v, residual = guess, data.log_odds - weights @ guess
    for _ in range(_REFINEMENTS):
        downhill = weights.T @ residual / n - data.ridge * (v - v.mean())
        change = linalg.cho_solve(factor, downhill)
        v = v + change
        residual = data.log_odds - weights @ v
        if np.abs(change).max() <= 1e-15 * np.abs(v).max():
            break
    deviation = v - v.mean()
    penalty = data.ridge * float(deviation @ deviation + s @ s)
    objective = float(residual @ residual) / n + penalty
    return _Point(s, v, weights, gram, factor, residual, objective)


def _derivatives(data: _Data, point: _Point, exact: bool) -> tuple[Array, Array]:
    """Downhill direction and Hessian by s, v eliminated; both of half the objective.

    With F = W v and G[:, j] = dF/ds_j = W[:, j] (v_j - F), all blocks come from the matrices
    W' diag(d) W with d = 1, F, F^2 and, for the exact Hessian, r and r F (r the residual).
    """
    weights, v, r = point.weights, point.v, point.residual
    n, size = weights.shape
    fitted = weights @ v
    by_fit, by_square = _gram(weights, fitted), _gram(weights, fitted * fitted)
    mixed = v[:, None] * point.gram - by_fit  # G'W / n
    hessian = v[:, None] * (point.gram * v - by_fit) - by_fit * v + by_square  # G'G / n
    slope = v * (weights.T @ r / n) - weights.T @ (r * fitted) / n  # G'r / n
    if exact:
        by_residual = _gram(weights, r)
        curved = v[:, None] * by_residual - _gram(weights, r * fitted)
        hessian += curved + curved.T - np.diag(slope)
        mixed += by_residual - np.diag(weights.T @ r / n)
    hessian -= mixed @ linalg.cho_solve(point.factor, mixed.T)
    hessian = 0.5 * (hessian + hessian.T) + data.ridge * np.eye(size)
    return slope - data.ridge * point.s, hessian


def _weights(counts: Any, s: Array) -> Any:
    """Share of each token in each row; None if a row has no share left in floating point."""
    scale = np.exp(s - s.max())
    if not isinstance(counts, np.ndarray):
        weights = counts.copy()
        weights.data *= scale[weights.indices]
        total = np.asarray(weights.sum(axis=1)).ravel()
        if not (total > 0).all():
            return None
        weights.data /= np.repeat(total, np.diff(weights.indptr))
        return weights
    dense = counts * scale
    total = dense.sum(axis=1)
    if not (total > 0).all():
        return None
    dense /= total[:, None]
    return dense


def _gram(weights: Any, d: Array) -> Array:
    """W' diag(d) W / n, dense."""
    n = weights.shape[0]
    if not isinstance(weights, np.ndarray):
        scaled = weights.copy()
        scaled.data *= np.repeat(d, np.diff(weights.indptr))
        product: Array = (weights.T @ scaled).toarray() / n
        return product
    found: Array = weights.T @ (d[:, None] * weights) / n
    return found
