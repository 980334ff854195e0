"""One text: ask the model, fit the surrogate, and measure it on queries it has not seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError
from flowopt.methods.slalom.explanation import Samples, SlalomExplanation
from flowopt.methods.slalom.fit import fit_counts
from flowopt.methods.slalom.plans import (
    Tokens,
    best_reference,
    count_tokens,
    draw,
    hold_out,
    pairs_with,
)
from flowopt.methods.slalom.quality import fit_linear, measure
from flowopt.methods.slalom.query import (
    is_transformers,
    log_odds,
    logits_of,
    multi_label,
    predicted_class,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowopt.methods.slalom.options import Options, Target
    from flowopt.methods.slalom.texts import Wrapped
    from flowopt.trace.record import Prediction

    Array = NDArray[np.float64]

__all__ = ["surrogate"]


@dataclass(frozen=True, eq=False)
class _Answers:
    """Logits (n, classes) of the whole text, of the samples, and of the held-out queries."""

    whole: Array
    samples: Array
    held_out: Array
    asked: list[Tokens]
    kept: list[Tokens]
    unseen: bool


def surrogate(
    model: Any,
    source: Wrapped,
    options: Options,
    limit: int | None,
    step: Callable[..., object] | None = None,
) -> SlalomExplanation:
    """Explain one text.

    Parameters
    ----------
    model : transformers classifier or callable
    source : Wrapped
        The text.
    options : Options
    limit : int or None
        The most tokens the model reads.
    step : callable, optional
        Told how many queries have been answered.

    Raises
    ------
    InputError, UnsupportedError
        See `flowopt.slalom.explain`.
    """
    _check_length(source, options, limit)
    began = time.perf_counter()
    answers = _ask(model, source, options, step)
    answered = time.perf_counter()
    prediction, target = _classes(model, answers.whole, options.target)
    independent = multi_label(model)
    distinct = tuple(dict.fromkeys(source.ids))
    odds = log_odds(answers.samples, target.index, independent)
    samples = Samples(count_tokens(answers.asked, distinct), odds)
    fit = fit_counts(samples.counts, odds, options.ridge)
    fitted = time.perf_counter()
    linear = fit_linear(samples.counts, odds)
    quality = measure(
        fit,
        linear,
        float(odds.mean()),
        count_tokens(answers.kept, distinct),
        log_odds(answers.held_out, target.index, independent),
        answers.unseen,
    )
    names = dict(zip(source.ids, source.info.tokens[source.start : source.stop], strict=True))
    return SlalomExplanation(
        source=source,
        vocabulary=tuple(names[token] for token in distinct),
        fit=fit,
        linear=linear,
        quality=quality,
        prediction=prediction,
        target=target,
        log_odds=float(log_odds(answers.whole[None], target.index, independent)[0]),
        settings={
            **_settings(model, options),
            "samples": len(answers.asked),
            "distinct_samples": len(set(answers.asked)),
            "seconds": {"queries": answered - began, "fit": fitted - answered},
        },
        samples=samples,
    )


def _ask(
    model: Any, source: Wrapped, options: Options, step: Callable[..., object] | None
) -> _Answers:
    def logits(queries: Sequence[Tokens]) -> Array:
        return logits_of(
            model,
            [source.around(query) for query in queries],
            batch_size=options.batch_size,
            device=options.device,
            step=step,
        )

    ids = source.ids
    if options.plan == "exact":
        return _ask_exactly(model, ids, options, logits)
    pool = draw(ids, options, options.samples + options.n_held_out)
    generator = np.random.default_rng([options.seed, 1])
    asked, kept, unseen = hold_out(pool, options.n_held_out, generator, ids)
    found = logits([ids, *asked, *kept])
    cut = 1 + len(asked)
    return _Answers(found[0], found[1:cut], found[cut:], asked, kept, unseen)


def _ask_exactly(
    model: Any, ids: Tokens, options: Options, logits: Callable[[Sequence[Tokens]], Array]
) -> _Answers:
    """Single tokens, then pairs: which token these share depends on the answers for single ones."""
    distinct = tuple(dict.fromkeys(ids))
    asked: list[Tokens] = [(token,) for token in distinct]
    kept = draw(ids, options, options.n_held_out)
    found = logits([ids, *asked, *kept])
    cut = 1 + len(asked)
    answers = found[1:cut]
    if len(distinct) > 1:
        _, target = _classes(model, found[0], options.target)
        alone = log_odds(answers, target.index, multi_label(model))
        pairs = pairs_with(distinct, best_reference(alone))
        answers = np.concatenate([answers, logits(pairs)])
        asked += pairs
    return _Answers(found[0], answers, found[cut:], asked, kept, not set(kept) & set(asked))


def _check_length(source: Wrapped, options: Options, limit: int | None) -> None:
    around = len(source.info.tokens) - len(source.ids)
    longest = around + (options.length if options.plan == "short" else len(source.ids))
    if limit is not None and longest > limit:
        what = f"length={options.length}" if options.plan == "short" else "this text"
        raise InputError(
            f"{what} makes queries of {longest} tokens, special ones included, but the model reads "
            f"at most {limit}"
        )


def _classes(model: Any, logits: Array, target: Target) -> tuple[Prediction, Prediction]:
    """The most likely class of the whole text, and the class to explain."""
    best = int(logits.argmax())
    if is_transformers(model):
        from flowopt.trace.goals import class_index

        index = class_index(model, target)
    elif target is None or (isinstance(target, (int, np.integer)) and not isinstance(target, bool)):
        index = target
    else:
        raise InputError(f"a function's classes have numbers, no labels: give one, not {target!r}")
    chosen = best if index is None else int(index)
    if not 0 <= chosen < len(logits):
        raise InputError(
            f"target {chosen} is out of range: there are classes 0 to {len(logits) - 1}"
        )
    return predicted_class(model, logits, best), predicted_class(model, logits, chosen)


def _settings(model: Any, options: Options) -> dict[str, Any]:
    name = str(getattr(model, "name_or_path", "") or "")
    name = name or str(getattr(model, "__name__", "") or type(model).__name__)
    settings = {"method": "slalom", "model": name, "plan": options.name, "seed": options.seed}
    if options.plan == "short":
        settings["length"] = options.length
    if options.plan == "deletion":
        settings["max_deletions"] = options.max_deletions
    return {**settings, "ridge": options.ridge}
