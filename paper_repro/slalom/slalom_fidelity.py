"""Whether the surrogate tells what happens when several tokens are removed.

SLALOM beside additive surrogates at the same number of model calls, all of log odds, and all with
tokens deleted (positions close up): least squares on SLALOM's own samples, LIME, KernelSHAP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowopt.methods import slalom
from flowopt.methods.slalom.query import log_odds, logits_of, multi_label

Array = NDArray[np.float64]
Ask = Callable[[NDArray[np.bool_]], Array]
"""Which tokens are kept in each of n texts (n, t) -> log odds (n,)."""

LIME_WIDTH, LIME_RIDGE = 0.25, 1.0
PERTURBED = ("LIME", "KernelSHAP")
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
REMOVED = tuple(range(1, 11))


def asker(model: Any, found: slalom.SlalomExplanation) -> Ask:
    """Ask the model about parts of a text; where nothing is kept only special tokens are read."""
    ids = np.array(found.source.ids)

    def ask(kept: NDArray[np.bool_]) -> Array:
        queries = [found.source.around(ids[row].tolist()) for row in kept]
        return log_odds(logits_of(model, queries), found.target.index, multi_label(model))

    return ask


def lime(ask: Ask, tokens: int, calls: int, rng: np.random.Generator) -> Array:
    """Ridge regression on texts with a uniform number of tokens deleted, near ones weighing more.

    Ribeiro et al. (2016): a text with k of t tokens weighs exp(-d^2 / (2 width^2)),
    d = 1 - sqrt(k/t) the cosine distance; the intercept is free. Scores (t,).
    """
    gone = rng.integers(1, tokens + 1, size=calls)
    gone[0] = 0  # the whole text
    ranks = rng.random((calls, tokens)).argsort(axis=1).argsort(axis=1)
    kept = ranks >= gone[:, None]
    distance = 1 - np.sqrt(kept.mean(axis=1))
    weights = np.exp(-(distance**2) / (2 * LIME_WIDTH**2))
    return ridge_regression(kept, ask(kept), weights, LIME_RIDGE)


def kernel_shap(ask: Ask, tokens: int, calls: int, rng: np.random.Generator) -> Array:
    """Shapley values by least squares under the Shapley kernel (Lundberg & Lee 2017), (t,).

    Sizes are drawn in proportion to the kernel, (t - 1) / (k (t - k)); every second text is the
    complement of the one before. The scores add up to F(text) - F(nothing).
    """
    everything = ask(np.stack([np.ones(tokens, bool), np.zeros(tokens, bool)]))
    total = everything[0] - everything[1]
    if tokens == 1:
        return np.array([total])
    sizes = np.arange(1, tokens)
    chance = 1 / (sizes * (tokens - sizes))
    drawn = rng.choice(sizes, size=(calls - 1) // 2, p=chance / chance.sum())
    ranks = rng.random((len(drawn), tokens)).argsort(axis=1).argsort(axis=1)
    half = ranks < drawn[:, None]
    kept = np.concatenate([half, ~half])[: calls - 2]
    # the last score is the total less the others: least squares without a constraint
    answers = ask(kept) - everything[1]
    last = kept[:, -1:].astype(float)
    found = np.linalg.lstsq(kept[:, :-1] - last, answers - last[:, 0] * total, rcond=None)[0]
    return np.append(found, total - found.sum())


def ridge_regression(table: Any, answers: Array, weights: Array, ridge: float) -> Array:
    """Coefficients (t,) of weighted ridge regression with a free intercept."""
    columns = np.column_stack([table, np.ones(len(answers))])
    penalty = np.diag(np.append(np.full(columns.shape[1] - 1, ridge), 0.0))
    system = columns.T @ (columns * weights[:, None]) + penalty
    return np.linalg.solve(system, columns.T @ (weights * answers))[:-1]


def deletion_curve(ask: Ask, scores: Array, whole: float) -> float:
    """AOPC: mean of p(x) - p(x without the top 10 %..50 % of the tokens), at least one; [-1, 1]."""
    tokens = len(scores)
    order = np.argsort(-scores, kind="stable")
    kept = np.ones((len(LEVELS), tokens), dtype=bool)
    for row, level in enumerate(LEVELS):
        kept[row, order[: max(1, round(level * tokens))]] = False
    chance = 1 / (1 + np.exp(-ask(kept)))
    return float(1 / (1 + np.exp(-whole)) - chance.mean())


def fidelity_of(
    model: Any, tokenizer: Any, text: str, calls: int, draws: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Errors and deletion curves of all surrogates on one text, at equal calls of the model.

    Returns
    -------
    dict of str to dict
        For each surrogate its mean squared error by number of tokens removed ("removal": {m: mse})
        and "aopc"; "no change" and "random" are the references.
    """
    results: dict[str, dict[str, Any]] = {}
    held_out = max(10, calls // 10)
    rng = np.random.default_rng([seed, 11])
    for plan in ("short", "deletion"):
        found = slalom.explain(
            model, tokenizer, text, plan=plan, samples=calls - held_out, held_out=held_out,
            seed=seed,
        )  # fmt: skip
        own = slice(found.source.start, found.source.stop)
        ask = asker(model, found)
        scores = {
            f"SLALOM, {plan}": found.scores("removal")[own],
            f"linear, {plan}": found.linear.coefficients[found.columns],
        }
        if plan == "deletion":
            tokens = len(found.source.ids)
            scores["LIME"] = lime(ask, tokens, calls, rng)
            scores["KernelSHAP"] = kernel_shap(ask, tokens, calls, rng)
            scores["random"] = rng.normal(size=tokens)
        others = {name: spread(found, each) for name, each in scores.items() if name in PERTURBED}
        errors = slalom.removal_error(
            found, model, removed=REMOVED, draws=draws, seed=seed, scores=others
        )
        for name, each in scores.items():
            results[name] = {"aopc": deletion_curve(ask, each, found.log_odds)}
        for name, each in errors.errors.items():
            full = name if name in others else f"{name}, {plan}"
            results[full]["removal"] = dict(zip(errors.removed, each.tolist(), strict=True))
        results["no change"] = {
            "removal": dict(zip(errors.removed, errors.changes.tolist(), strict=True))
        }
    return results


def spread(found: slalom.SlalomExplanation, own: Array) -> Array:
    """Scores of all positions, special tokens 0, from those of the text's own tokens."""
    scores = np.zeros(len(found.tokens))
    scores[found.source.start : found.source.stop] = own
    return scores
