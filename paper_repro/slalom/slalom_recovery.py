"""A known SLALOM model, found again from noisy samples and from a transformer that learnt it.

A vocabulary of 20 tokens has known values v and importances s. (1) Log odds of the formula, with
noise, are fitted. (2) A small transformer is trained on such log odds, and explained: what comes
out can be right only if the transformer learnt v and s, so its own error is told beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification

from flowopt.methods import slalom
from flowopt.methods.slalom.plans import count_tokens, deletions, short_sequences

Array = NDArray[np.float64]

TOKENS = 20
LONGEST = 12
PAD, BEGIN = 0, 1
FIRST = 2  # id of token 0


@dataclass(frozen=True)
class Recovery:
    """How near the fitted scores are to the known ones.

    Parameters
    ----------
    source, plan : str
    queries : int
    value_correlation, importance_correlation : float
        Pearson, over the tokens.
    value_rmse, importance_rmse : float
        After centring importances; values have a natural zero.
    model_mse : float
        Mean squared error of the source's own log odds on the queries: noise, or what the
        transformer has not learnt.
    linear_mse, slalom_mse : float
        Of both surrogates on the samples of the fit.
    """

    source: str
    plan: str
    queries: int
    value_correlation: float
    importance_correlation: float
    value_rmse: float
    importance_rmse: float
    model_mse: float
    linear_mse: float
    slalom_mse: float


def known_scores(seed: int) -> tuple[Array, Array]:
    """Values and centred importances of every token."""
    rng = np.random.default_rng(seed)
    v, s = rng.normal(0, 1.5, TOKENS), rng.normal(0, 1, TOKENS)
    return v, s - s.mean()


def drawn(plan: str, queries: int, seed: int) -> list[tuple[int, ...]]:
    """Queries of a text that has every token once."""
    rng = np.random.default_rng([seed, 7])
    draw = short_sequences if plan == "short" else deletions
    return draw(range(TOKENS), queries, rng)


def judged(
    source: str, plan: str, truth: tuple[Array, Array], counts: Any, odds: Array
) -> Recovery:
    """Fit SLALOM and a linear surrogate to samples, and compare with the truth."""
    v, s = truth
    fit = slalom.fit_counts(counts, odds)
    table = np.column_stack([counts, np.ones(len(counts))])
    weights = np.linalg.lstsq(table, odds, rcond=None)[0]
    return Recovery(
        source,
        plan,
        len(odds),
        float(np.corrcoef(fit.values, v)[0, 1]),
        float(np.corrcoef(fit.importances, s)[0, 1]),
        float(np.sqrt(np.mean((fit.values - v) ** 2))),
        float(np.sqrt(np.mean((fit.importances - s) ** 2))),
        float(np.mean((slalom.predict(counts, v, s) - odds) ** 2)),
        float(np.mean((table @ weights - odds) ** 2)),
        fit.mse,
    )


def from_samples(plan: str, noise: float, queries: int, seed: int) -> Recovery:
    """Recovery from the formula's own log odds with normal noise of a standard deviation."""
    truth = known_scores(seed)
    counts = count_tokens(drawn(plan, queries, seed), range(TOKENS))
    odds = slalom.predict(counts, *truth)
    odds = odds + np.random.default_rng([seed, 8]).normal(0, noise, len(odds))
    return judged(f"formula, noise {noise:g}", plan, truth, counts, odds)


def padded(sequences: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Ids and mask of token numbers, after the classification token."""
    longest = 1 + max(map(len, sequences))
    ids = torch.full((len(sequences), longest), PAD)
    for row, sequence in enumerate(sequences):
        ids[row, 0] = BEGIN
        ids[row, 1 : 1 + len(sequence)] = torch.tensor(sequence) + FIRST
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def trained_transformer(layers: int, truth: tuple[Array, Array], steps: int, seed: int) -> Any:
    """A small BERT with one logit, trained by least squares on the formula's log odds."""
    config = BertConfig(
        vocab_size=FIRST + TOKENS,
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=TOKENS + 2,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=PAD,
        num_labels=1,
    )
    rng = np.random.default_rng([seed, 9])
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
        for _ in range(steps):
            sizes = rng.integers(1, LONGEST + 1, 64)
            batch = [rng.integers(TOKENS, size=size) for size in sizes]
            wanted = slalom.predict(count_tokens([tuple(b) for b in batch], range(TOKENS)), *truth)
            found = model(**padded([list(b) for b in batch])).logits[:, 0]
            loss = torch.mean((found - torch.tensor(wanted, dtype=torch.float32)) ** 2)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def from_transformer(layers: int, plan: str, queries: int, seed: int, model: Any) -> Recovery:
    """Recovery from the answers of a transformer that was trained on the formula."""
    truth = known_scores(seed)
    asked = drawn(plan, queries, seed)
    with torch.no_grad():
        odds = model(**padded(asked)).logits[:, 0].double().numpy()
    name = f"transformer of {layers} layer{'s' if layers > 1 else ''}"
    return judged(name, plan, truth, count_tokens(asked, range(TOKENS)), odds)


def recoveries(seeds: int, queries: int, steps: int) -> list[dict[str, Any]]:
    """Everything, averaged over seeds."""
    plans = ("short", "deletion")
    rows = [
        averaged([from_samples(plan, noise, queries, seed) for seed in range(seeds)])
        for plan, noise in product(plans, (0.0, 0.1, 0.5))
    ]
    for layers in (1, 2):
        models = [trained_transformer(layers, known_scores(k), steps, k) for k in range(seeds)]
        for plan in plans:
            case = [
                from_transformer(layers, plan, queries, k, model) for k, model in enumerate(models)
            ]
            rows.append(averaged(case))
    return rows


def from_stored_samples(path: Path) -> dict[str, Any]:
    """Our fit to samples that the authors' code drew from a one-layer BERT, beside their fit."""
    case = json.loads(path.read_text(encoding="utf-8"))["bert_one_layer_cases"]["eff_longer"]
    samples = case["samples"]
    fit = slalom.fit_counts(np.array(samples["counts"]), np.array(samples["log_odds"]))
    return {
        "source": "one-layer BERT, samples of the authors' code",
        "queries": len(samples["log_odds"]),
        "slalom_mse": fit.mse,
        "authors_mse": case["fit_mse"],
        "best_mse": case["best_possible"]["mse"],
        "linear_mse": case["linear_mse"],
        "constant_mse": case["constant_mse"],
    }


def averaged(case: Sequence[Recovery]) -> dict[str, Any]:
    """Mean of the numbers of several seeds, and their count."""
    rows = [asdict(one) for one in case]
    first = rows[0]
    means = {
        name: float(np.mean([row[name] for row in rows])) if isinstance(value, float) else value
        for name, value in first.items()
    }
    return means | {"seeds": len(rows)}
