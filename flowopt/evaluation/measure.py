"""Measure attributions of one text, those of several methods at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError
from flowopt.evaluation.faithfulness import CURVES
from flowopt.evaluation.metric import Case, Metric, metric_spec
from flowopt.evaluation.perturbation import Perturbations
from flowopt.evaluation.plausibility import read_words, word_sums
from flowopt.evaluation.protocol import Protocol, protocol_named
from flowopt.trace.reading import reading_mode

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowopt.methods import Subject

    Array = NDArray[np.float64]

__all__ = ["Measured", "measure"]


@dataclass(frozen=True)
class Measured:
    """What was measured of one attribution on one text.

    Parameters
    ----------
    values : dict of str to (float or None)
        Metric -> value; None where it does not apply to the text.
    curves : dict of str to list of float
        "deletion" and "insertion": the probability when the share ``protocol.fractions[i]`` of
        the highest tokens is removed, or is all that is there. A deletion curve ends at the last
        level of the protocol unless its area is asked for.
    reason : str or None
        Why faithfulness was not measured: the protocol excludes the text.
    """

    values: dict[str, float | None]
    curves: dict[str, list[float]] = field(default_factory=dict)
    reason: str | None = None


def measure(
    subject: Subject,
    attributions: Mapping[str, ArrayLike],
    metrics: Sequence[str | Metric],
    *,
    protocol: str | Protocol = "default",
    marks: ArrayLike | None = None,
    words: Sequence[str] | None = None,
    leave_one_out: ArrayLike | None = None,
) -> dict[str, Measured]:
    """Measure several attributions of one text.

    What all metrics ask of the model for all attributions is collected first: equal sets of
    tokens are asked once, and sets of one length go through the model together.

    Parameters
    ----------
    subject : Subject
        Text, model and the class explained; the caller chooses the class as the protocol says.
    attributions : mapping of str to array (t,)
        A score per position, special tokens included (they are neither ranked nor removed).
        Equal scores are ranked by position, earlier ones higher.
    metrics : sequence of str or Metric
        `flowopt.evaluation.metrics()` lists them.
    protocol : str or Protocol
    marks : array (w,), optional
        Human marks per word: 0 or 1, or the share of annotators who marked it.
    words : sequence of str, optional
        The words that are marked; by default the text between single blanks.
    leave_one_out : array (t,), optional
        Drops of the explained logit when one token is deleted, if they are known; used by
        "tau-loo" under protocols that delete.

    Returns
    -------
    dict of str to Measured
        In the order of the attributions.

    Raises
    ------
    InputError
        If scores are not t finite numbers, a metric or protocol does not exist, or words and
        marks do not fit the text.
    """
    specs = [metric_spec(each) for each in metrics]
    chosen = protocol_named(protocol)
    ask = Perturbations(subject, chosen.removal)
    known = None if leave_one_out is None else _checked(subject, "leave_one_out", leave_one_out)
    weights, tokens = (None, None) if marks is None else read_words(subject, marks, words)
    cases = {}
    for name, values in attributions.items():
        scores = _checked(subject, name, values)
        sums = None if tokens is None else word_sums(scores, tokens)
        cases[name] = Case(subject, scores, chosen, ask, weights, sums, known)
    reason = _excluded(subject, chosen)
    used = [each for each in specs if reason is None or each.kind != "faithfulness"]
    attention = getattr(subject.model.config, "_attn_implementation", None) or "eager"
    with reading_mode(subject.model, attention):
        needs = [each.needs(case) for case in cases.values() for each in used if each.needs]
        ask.prepare(kept for every in needs for kept in every)
        return {name: _measured(case, specs, used, reason) for name, case in cases.items()}


def _measured(
    case: Case, specs: Sequence[Metric], used: Sequence[Metric], reason: str | None
) -> Measured:
    values: dict[str, float | None] = {each.name: None for each in specs}
    values |= {each.name: _number(each, each.function(case)) for each in used}
    curves: dict[str, list[float]] = {}
    for each in used:
        if each.name not in CURVES:
            continue
        name, kept_of = CURVES[each.name]
        points = case.ask.probabilities(kept_of(case))
        if len(points) > len(curves.get(name, ())) and not np.isnan(points).any():
            curves[name] = points.tolist()
    return Measured(values, curves, reason)


def _number(metric: Metric, value: object) -> float | None:
    """What a metric gave; one that is not finite is no value."""
    if value is None:
        return None
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.ndim:
        raise InputError(f"the metric {metric.name!r} gave {value!r}; return a number or None")
    return float(found) if np.isfinite(found) else None


def _excluded(subject: Subject, protocol: Protocol) -> str | None:
    count = len(subject.players)
    if count >= protocol.least_tokens:
        return None
    return (
        f"{count} tokens, and the protocol {protocol.name!r} measures texts of at least "
        f"{protocol.least_tokens}"
    )


def _checked(subject: Subject, name: str, values: ArrayLike) -> Array:
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"the scores of {name!r} must be one number per token") from None
    if scores.shape != (len(subject),) or not np.isfinite(scores).all():
        raise InputError(
            f"the scores of {name!r} have shape {scores.shape}; give a finite one for each of the "
            f"{len(subject)} tokens, special ones included"
        )
    return scores
