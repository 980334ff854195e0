"""What a metric is: a function of one attribution on one text, with its direction and range."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from flowopt.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowopt.evaluation.perturbation import Kept, Perturbations
    from flowopt.evaluation.protocol import Protocol
    from flowopt.methods import Subject

    Array = NDArray[np.float64]

__all__ = ["KINDS", "Case", "Metric", "metric_spec", "metrics", "register_metric"]

KINDS = ("faithfulness", "plausibility")
"""To the model, or to people: the two are never in one table."""


@dataclass(frozen=True, eq=False)
class Case:
    """One attribution on one text, and what a metric may ask of it.

    Parameters
    ----------
    subject : Subject
    scores : ndarray (t,)
        One per position; only those of ``subject.players`` are ranked.
    protocol : Protocol
    ask : Perturbations
        Answers what the model says when only some positions are kept.
    marks : ndarray (w,) or None
        Human marks of the words that the model read: 0 or 1, or shares of annotators.
    word_scores : ndarray (w,) or None
        Scores of their sub-words, summed.
    leave_one_out : ndarray (t,) or None
        Drops of the logit when one token is deleted, where they are known.
    """

    subject: Subject
    scores: Array
    protocol: Protocol
    ask: Perturbations
    marks: Array | None = None
    word_scores: Array | None = None
    leave_one_out: Array | None = None

    @property
    def ranked(self) -> tuple[int, ...]:
        """Positions of the players, highest score first; of equal ones the earlier first."""
        players = np.array(self.subject.players)
        order = np.argsort(-self.scores[players], kind="stable")
        return tuple(int(i) for i in players[order])

    def without(self, count: int) -> Kept:
        """Positions left when the `count` highest tokens are removed."""
        gone = set(self.ranked[:count])
        return tuple(i for i in range(len(self.subject)) if i not in gone)

    def only(self, count: int) -> Kept:
        """Positions left when all tokens but the `count` highest are removed."""
        gone = set(self.ranked[count:])
        return tuple(i for i in range(len(self.subject)) if i not in gone)


Function = Callable[[Case], "float | None"]
Needs = Callable[[Case], "Iterable[Kept]"]
F = TypeVar("F", bound=Function)


@dataclass(frozen=True)
class Metric:
    """A metric of attributions.

    Parameters
    ----------
    name, summary : str
    kind : str
        One of `KINDS`.
    higher_is_better : bool
        Its direction.
    range : (float, float)
        Least and greatest value that it can have; infinities where there is none.
    function : callable
        ``Case -> float``, or None where the metric does not apply to the text.
    source : str
        Paper.
    curve : bool
        Whether `measure` returns a curve along with it.
    needs : callable or None
        ``Case -> kept sets`` that the function will ask for. Those of all metrics and
        attributions then go through the model together; what is not announced is asked singly.
    """

    name: str
    summary: str
    kind: str
    higher_is_better: bool
    range: tuple[float, float]
    function: Function
    source: str = ""
    curve: bool = False
    needs: Needs | None = None


_REGISTRY: dict[str, Metric] = {}


def register_metric(
    name: str,
    *,
    kind: str,
    higher_is_better: bool,
    range: tuple[float, float] = (-np.inf, np.inf),
    summary: str | None = None,
    source: str = "",
    curve: bool = False,
    needs: Needs | None = None,
) -> Callable[[F], F]:
    """Register a function of a `Case` as a metric; `measure` then takes it by name.

    Parameters
    ----------
    name : str
    kind, higher_is_better, range, source, curve, needs
        See `Metric`.
    summary : str, optional
        By default the first line of the function's docstring.

    Raises
    ------
    InputError
        If the name is empty or belongs to another function, or the kind or range is wrong.

    Examples
    --------
    >>> @register_metric("share-of-top", kind="faithfulness", higher_is_better=True, range=(0, 1))
    ... def share_of_top(case):
    ...     '''Share of the highest score in the sum of all.'''
    ...     sizes = abs(case.scores)
    ...     return sizes.max() / sizes.sum() if sizes.sum() else None
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a metric's name must be a string that is not empty, not {name!r}")
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}; not {kind!r}")
    least, most = (float(end) for end in range)
    if not least < most:
        raise InputError(f"the range {range} of the metric {name!r} is empty; give (least, most)")

    def add(function: F) -> F:
        held = _REGISTRY.get(name)
        if held is not None and not _same(held.function, function):
            raise InputError(f"the metric name {name!r} is taken; choose another name")
        line = summary
        if line is None:
            line = (inspect.getdoc(function) or "").strip().partition("\n")[0]
        _REGISTRY[name] = Metric(
            name, line, kind, higher_is_better, (least, most), function, source, curve, needs
        )
        return function

    return add


def metrics(kind: str | None = None) -> tuple[Metric, ...]:
    """All metrics, or those of one kind.

    Raises
    ------
    InputError
        If there is no such kind.
    """
    if kind is not None and kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}; not {kind!r}")
    _load()
    return tuple(each for each in _REGISTRY.values() if kind in (None, each.kind))


def metric_spec(metric: str | Metric) -> Metric:
    """Look a metric up by name; a metric is itself.

    Raises
    ------
    InputError
        If there is no such name.
    """
    if isinstance(metric, Metric):
        return metric
    _load()
    if not isinstance(metric, str) or metric not in _REGISTRY:
        close = difflib.get_close_matches(str(metric).lower(), _REGISTRY, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(
            f"there is no metric {metric!r}; {hint}Known names: {', '.join(_REGISTRY)}"
        )
    return _REGISTRY[metric]


def _load() -> None:
    """Let the metrics of this package register themselves."""
    from flowopt.evaluation import faithfulness, plausibility  # noqa: F401


def _same(first: Function, second: Function) -> bool:
    """Whether a notebook cell was simply run again: same function name in the same module."""
    names = [
        (getattr(f, "__module__", None), getattr(f, "__qualname__", None)) for f in (first, second)
    ]
    return first is second or (names[0] == names[1] and names[0] != (None, None))
