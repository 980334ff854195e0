"""Faithfulness: what the model says when the tokens ranked highest are removed, or put in first.

p is the probability of the class explained, which stays the same along a curve. Special tokens
are neither ranked nor removed, so that removing everything leaves them. Where nothing at all is
left (all tokens of a decoder without special tokens deleted) a metric does not apply: None.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import kendalltau

from flowopt.evaluation.metric import Case, register_metric
from flowopt.evaluation.protocol import ERASER_BINS, count_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowopt.evaluation.perturbation import Kept

    Array = NDArray[np.float64]

__all__ = [
    "CURVES",
    "aopc",
    "comprehensiveness",
    "deletion_area",
    "insertion_area",
    "log_odds",
    "sufficiency",
    "tau_loo",
]

_ERASER = "DeYoung et al. (2020)"


def _removed(case: Case, levels: Sequence[float]) -> list[Kept]:
    """The whole text, then what is left of it at each level."""
    players = len(case.subject.players)
    return [case.without(count_at(level, players)) for level in (0.0, *levels)]


def _inserted(case: Case, levels: Sequence[float]) -> list[Kept]:
    """The highest tokens alone, at each level."""
    players = len(case.subject.players)
    return [case.only(count_at(level, players)) for level in levels]


def _at_levels(case: Case) -> list[Kept]:
    return _removed(case, case.protocol.levels)


def _at_bins(case: Case) -> list[Kept]:
    return _removed(case, ERASER_BINS)


def _alone(case: Case) -> list[Kept]:
    return [*_removed(case, ()), *_inserted(case, ERASER_BINS)]


def _deleting(case: Case) -> list[Kept]:
    return _removed(case, case.protocol.fractions[1:])


def _inserting(case: Case) -> list[Kept]:
    return _inserted(case, case.protocol.fractions)


CURVES = {
    "aopc": ("deletion", _at_levels),
    "deletion-area": ("deletion", _deleting),
    "insertion-area": ("insertion", _inserting),
}
"""Metric -> the curve that it rests on, and the kept sets along it."""


def _value(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


@register_metric(
    "aopc",
    kind="faithfulness",
    higher_is_better=True,
    range=(-1, 1),
    source="Samek et al. (2017); Qiang et al. (2022)",
    curve=True,
    needs=_at_levels,
)
def aopc(case: Case) -> float | None:
    """Mean fall of p over the protocol's levels, the tokens ranked highest removed.

    Under protocols with ``absolute`` the mean size of its change, whatever the direction.
    """
    p = case.ask.probabilities(_at_levels(case))
    drops = p[0] - p[1:]
    return _value(np.abs(drops).mean() if case.protocol.absolute else drops.mean())


@register_metric(
    "log-odds",
    kind="faithfulness",
    higher_is_better=False,
    range=(-np.inf, np.inf),
    source="Shrikumar et al. (2017); Qiang et al. (2022)",
    needs=_at_levels,
)
def log_odds(case: Case) -> float | None:
    """Mean of ln(p without the tokens ranked highest / p) over the protocol's levels."""
    logs = case.ask.log_probabilities(_at_levels(case))
    return _value((logs[1:] - logs[0]).mean())


@register_metric(
    "comprehensiveness",
    kind="faithfulness",
    higher_is_better=True,
    range=(-1, 1),
    source=_ERASER,
    needs=_at_bins,
)
def comprehensiveness(case: Case) -> float | None:
    """Mean fall of p without the highest 1, 5, 10, 20 and 50 % of the tokens.

    ERASER's bins whatever the protocol's levels are, and never absolute values.
    """
    p = case.ask.probabilities(_at_bins(case))
    return _value((p[0] - p[1:]).mean())


@register_metric(
    "sufficiency",
    kind="faithfulness",
    higher_is_better=False,
    range=(-1, 1),
    source=_ERASER,
    needs=_alone,
)
def sufficiency(case: Case) -> float | None:
    """Mean fall of p when the highest 1, 5, 10, 20 and 50 % of the tokens are all there is."""
    p = case.ask.probabilities(_alone(case))
    return _value((p[0] - p[1:]).mean())


@register_metric(
    "deletion-area",
    kind="faithfulness",
    higher_is_better=False,
    range=(0, 1),
    source="Petsiuk et al. (2018)",
    curve=True,
    needs=_deleting,
)
def deletion_area(case: Case) -> float | None:
    """Area under p against the share of the highest tokens removed, from none to all."""
    return _area(case, _deleting(case))


@register_metric(
    "insertion-area",
    kind="faithfulness",
    higher_is_better=True,
    range=(0, 1),
    source="Petsiuk et al. (2018)",
    curve=True,
    needs=_inserting,
)
def insertion_area(case: Case) -> float | None:
    """Area under p against the share of the highest tokens put in, from none to all."""
    return _area(case, _inserting(case))


def _area(case: Case, kept: list[Kept]) -> float | None:
    """Trapezoids over the shares that are really removed, which whole tokens round up."""
    players = len(case.subject.players)
    shares = np.array([count_at(level, players) / players for level in case.protocol.fractions])
    p = case.ask.probabilities(kept)
    return _value((np.diff(shares) * (p[1:] + p[:-1])).sum() / 2)


def _singles(case: Case) -> Iterable[Kept]:
    if _known(case) is not None:
        return []
    everything = range(len(case.subject))
    whole = tuple(everything)
    return [whole, *(tuple(i for i in everything if i != gone) for gone in case.subject.players)]


def _known(case: Case) -> Array | None:
    """The leave-one-out drops handed in, if they are of the protocol's kind."""
    return case.leave_one_out if case.protocol.removal == "delete" else None


@register_metric(
    "tau-loo",
    kind="faithfulness",
    higher_is_better=True,
    range=(-1, 1),
    source="Jain & Wallace (2019)",
    needs=_singles,
)
def tau_loo(case: Case) -> float | None:
    """Kendall's tau-b of the scores with the drops of the logit when one token is removed.

    Of the logit, not of p, which hardly moves where the model is sure. None where the scores or
    the drops are all equal, or there is one token.
    """
    players = list(case.subject.players)
    drops = _known(case)
    if drops is None:
        logits = case.ask.logits(list(_singles(case)))
        drops = logits[0] - logits[1:]
    else:
        drops = drops[players]
    scores = case.scores[players]
    if np.isnan(drops).any() or len({*drops}) < 2 or len({*scores}) < 2:
        return None
    return float(kendalltau(scores, drops, variant="b").statistic)
