"""Does an attribution depend on what the model has learnt? Adebayo et al. (2018).

The model's weights are shuffled and the text is explained again. Scores that come out in the
same order do not show what the model learnt, however convincing they look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.stats import spearmanr

from flowopt.errors import InputError
from flowopt.evaluation.printed import Printed
from flowopt.evaluation.randomise import HEAD, cascade, randomise
from flowopt.evaluation.statistics import Interval, mean_interval
from flowopt.methods.answer import explain_subject, loaded
from flowopt.methods.registry import MethodSpec, method_spec
from flowopt.methods.subject import subject_of

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flowopt.methods.registry import Method

    Array = NDArray[np.float64]

__all__ = ["LIMIT", "SanityRow", "SanityTable", "cascade", "randomise", "sanity_check"]

LIMIT = 0.8
"""Rank correlation from which on a method is said to ignore the model."""


@dataclass(frozen=True)
class SanityRow:
    """One method at one stage of randomisation.

    Parameters
    ----------
    method, stage : str
    signed, absolute : Interval
        Spearman's correlation of the scores, and of their sizes, before and after; mean over
        texts. Scores that do not change at all count as 1, also where they are all equal.
    ignores_model : bool
        Whether one of the two means is at least the limit.
    """

    method: str
    stage: str
    signed: Interval
    absolute: Interval
    ignores_model: bool


@dataclass(frozen=True)
class SanityTable(Printed):
    """What `sanity_check` found; prints as a table.

    Parameters
    ----------
    rows : tuple of SanityRow
    limit : float
    """

    rows: tuple[SanityRow, ...]
    limit: float = LIMIT
    columns: ClassVar[tuple[str, ...]] = ("method", "shuffled", "Spearman", "Spearman of sizes", "")

    @property
    def flagged(self) -> tuple[str, ...]:
        """Methods that ignore the model at the last stage, when most of it is random."""
        last = {row.method: row for row in self.rows}
        return tuple(name for name, row in last.items() if row.ignores_model)

    def to_pandas(self) -> pandas.DataFrame:
        """A row per method and stage."""
        import pandas

        return pandas.DataFrame(
            [
                {
                    "method": row.method,
                    "stage": row.stage,
                    "signed": row.signed.mean,
                    "absolute": row.absolute.mean,
                    "n": row.signed.n,
                    "ignores model": row.ignores_model,
                }
                for row in self.rows
            ]
        )

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as text."""
        return [
            (
                row.method,
                row.stage,
                _short(row.signed),
                _short(row.absolute),
                "ignores the model" if row.ignores_model else "",
            )
            for row in self.rows
        ]


def sanity_check(
    model: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: Iterable[str],
    methods: Sequence[str | Method] | Mapping[str, str | Method],
    *,
    what: str = "all",
    seed: int = 0,
    limit: float = LIMIT,
) -> SanityTable:
    """Compare attributions before and after randomisation of the model.

    The class explained stays the one that the trained model predicts. Special tokens are left
    out: their scores are large and never move, and would look like agreement.

    Parameters
    ----------
    model, tokenizer
        As for `flowopt.explain`.
    texts : iterable of str
    methods : sequence of names or functions, or mapping of label to these
    what : str
        "all", "head" or "cascade".
    seed : int
    limit : float
        See `LIMIT`.

    Returns
    -------
    SanityTable
        Method by method, stage by stage.

    Raises
    ------
    InputError
        If a text, method or `what` cannot be used.
    """
    specs = _named(methods)
    model, tokenizer = loaded(model, tokenizer)
    listed = [texts] if isinstance(texts, str) else list(texts)
    if what not in ("all", HEAD, "cascade"):
        raise InputError(f'what must be "all", "head" or "cascade", not {what!r}')
    targets: list[int] = []
    before = _explained(model, tokenizer, listed, specs, targets)
    stages = cascade(model, seed) if what == "cascade" else [(what, randomise(model, seed, what))]
    found: dict[str, list[SanityRow]] = {name: [] for name in specs}
    for stage, changed in stages:
        after = _explained(changed, tokenizer, listed, specs, targets)
        for name, rows in found.items():
            rows.append(_row(name, stage, before[name], after[name], limit))
    return SanityTable(tuple(row for rows in found.values() for row in rows), limit)


def _named(methods: Sequence[str | Method] | Mapping[str, str | Method]) -> dict[str, MethodSpec]:
    if isinstance(methods, Mapping):
        return {name: method_spec(each) for name, each in methods.items()}
    specs = [method_spec(each) for each in ([methods] if isinstance(methods, str) else methods)]
    return {spec.name: spec for spec in specs}


def _explained(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    specs: Mapping[str, MethodSpec],
    targets: list[int],
) -> dict[str, list[Array]]:
    """Scores of the players by method and text; fills in the targets the first time."""
    from flowopt.trace import encode_texts

    found: dict[str, list[Array]] = {name: [] for name in specs}
    for number, encoded in enumerate(encode_texts(model, tokenizer, texts)):
        target = targets[number] if number < len(targets) else None
        subject = subject_of(model, tokenizer, encoded, target)
        if target is None:
            targets.append(subject.target.index)
        for name, spec in specs.items():
            scores = explain_subject(subject, spec).scores
            found[name].append(scores[list(subject.players)])
    return found


def _row(name: str, stage: str, before: list[Array], after: list[Array], limit: float) -> SanityRow:
    pairs = list(zip(before, after, strict=True))
    signed = mean_interval([_correlation(a, b) for a, b in pairs])
    absolute = mean_interval([_correlation(abs(a), abs(b)) for a, b in pairs])
    ignores = max(signed.mean, absolute.mean) >= limit
    return SanityRow(name, stage, signed, absolute, bool(ignores))


def _correlation(before: Array, after: Array) -> float:
    """Spearman's rho; 1 for equal scores, 0 if one side ranks nothing, nan for one token."""
    if len(before) < 2:
        return float("nan")
    if np.array_equal(before, after):
        return 1.0
    if np.ptp(before) == 0 or np.ptp(after) == 0:
        return 0.0
    return float(spearmanr(before, after).statistic)


def _short(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
