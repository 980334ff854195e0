"""Correcting the advantage of early tokens in causal models (method.md, section 2).

Every later position attends to an early token, and through many layers most paths end there:
Abnar & Zuidema (2020) warn of it, Metzger et al. (2022) divide it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = [
    "NORMALISATIONS",
    "check_normalisation",
    "normalised",
    "normalised_error",
    "receptive_field",
    "uniform_causal",
]

NORMALISATIONS = ("none", "inverse_receptive_field", "uniform_reference")
"""No correction; by the number of edges into a token; by the flow under uniform attention."""


def check_normalisation(name: str, kind: str) -> None:
    """Refuse unknown names, and a correction for models that are not causal.

    Raises
    ------
    InputError
    """
    if name not in NORMALISATIONS:
        raise InputError(f"normalise must be one of {', '.join(NORMALISATIONS)}; not {name!r}")
    if name != "none" and kind != "decoder":
        raise InputError(
            f"normalise={name!r} corrects for causal attention; use 'none' with an {kind}"
        )


def receptive_field(tokens: int, position: int, residual: bool) -> Array:
    """Edges of one layer that lead from positions x..p down to x, for every token x.

    Parameters
    ----------
    tokens : int
        Number of tokens t.
    position : int
        The position p from which flow starts.
    residual : bool
        Whether there is a residual edge beside the attention.

    Returns
    -------
    ndarray (t,)
        p - x + 1, one more with a residual edge; 0 for tokens after p.
    """
    counts = position - np.arange(tokens) + 1 + int(residual)
    return np.where(np.arange(tokens) <= position, counts, 0).astype(np.float64)


def uniform_causal(layers: int, tokens: int) -> Array:
    """Attention (L, t, t) in which every position attends equally to itself and those before."""
    one = np.tril(np.ones((tokens, tokens))) / np.arange(1, tokens + 1)[:, None]
    return np.broadcast_to(one, (layers, tokens, tokens)).copy()


def normalised(scores: Array, reference: Array) -> Array:
    """Divide scores by a reference, and rescale them to their former sum.

    Parameters
    ----------
    scores, reference : ndarray (t,)
        Where the reference is 0, so is the result.
    """
    shares = np.divide(scores, reference, out=np.zeros_like(scores), where=reference > 0)
    total = shares.sum()
    # signed scores may cancel: then there is no sum to keep, and only the division remains
    small = abs(total) <= 1e-12 * np.abs(shares).sum()
    return shares if small else np.asarray(shares * (scores.sum() / total))


def normalised_error(
    scores: Array, error: Array | None, reference: Array, doubt: Array | None
) -> Array | None:
    """Bound the error of normalised scores, from bounds on what they are made of.

    Parameters
    ----------
    scores : ndarray (t,)
        Before the normalisation.
    error : ndarray (t,) or None
        Bound on their error.
    reference, doubt : ndarray (t,)
        What they are divided by, and a bound on its error.

    Returns
    -------
    ndarray (t,) or None
        By interval arithmetic; None for signed scores, and where a bound is not known.
    """
    if error is None or doubt is None or (scores < 0).any():
        return None
    seen = reference > 0
    low, high, most = np.zeros_like(scores), np.zeros_like(scores), scores + error
    np.divide(np.maximum(scores - error, 0.0), reference + doubt, out=low, where=seen)
    np.divide(most, np.maximum(reference - doubt, 0.0), out=high, where=seen & (reference > doubt))
    high[seen & (reference <= doubt)] = np.inf
    if low.sum() <= 0:
        return np.where(seen & (most > 0), np.inf, 0.0)
    least_sum, most_sum = max(scores.sum() - error.sum(), 0.0), most.sum()
    middle = normalised(scores, reference)
    with np.errstate(invalid="ignore"):
        above = high * most_sum / low.sum() - middle
        below = middle - low * least_sum / high.sum()
    largest = np.maximum(np.maximum(above, below), 0.0)
    return np.asarray(np.nan_to_num(largest, nan=np.inf, posinf=np.inf))
