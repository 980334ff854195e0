"""paper_repro/slalom: recovery, additive surrogates, fidelity, and human attention."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowopt.assets import load_bundled
from flowopt.errors import InputError
from flowopt.methods import slalom
from flowopt.methods.slalom.plans import count_tokens

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "paper_repro" / "slalom"
if not SCRIPTS.is_dir():
    pytest.skip(f"{SCRIPTS} is not here", allow_module_level=True)
sys.path.insert(0, str(SCRIPTS))

import slalom_fidelity as fidelity  # noqa: E402
import slalom_human as human  # noqa: E402
import slalom_recovery as recovery  # noqa: E402
import slalom_report as report  # noqa: E402

spec = importlib.util.spec_from_file_location("slalom_run", SCRIPTS / "run.py")
assert spec is not None
assert spec.loader is not None
run = importlib.util.module_from_spec(spec)
sys.modules["slalom_run"] = run  # its dataclass looks itself up
spec.loader.exec_module(run)

TEXT = "A gripping, funny film."


# --- recovery ----------------------------------------------------------------------------------
def test_noise_free_scores_are_recovered() -> None:
    found = recovery.from_samples("short", 0.0, 500, seed=0)
    assert found.model_mse == 0
    assert found.value_correlation > 0.9999
    assert found.importance_correlation > 0.9999
    assert found.value_rmse < 0.01
    assert found.slalom_mse < 1e-6 < 1e-2 < found.linear_mse


def test_wrong_scores_are_noticed() -> None:
    v, s = recovery.known_scores(0)
    counts = count_tokens(recovery.drawn("short", 500, 0), range(recovery.TOKENS))
    odds = slalom.predict(counts, v, s)
    found = recovery.judged("formula", "short", (v[::-1], s[::-1]), counts, odds)
    assert found.value_correlation < 0.5
    assert found.importance_rmse > 0.5
    assert found.model_mse > 0.5


def test_noise_makes_recovery_worse() -> None:
    exact, noisy = (recovery.from_samples("short", noise, 500, 0) for noise in (0.0, 0.5))
    assert noisy.value_rmse > 10 * exact.value_rmse
    assert noisy.model_mse == pytest.approx(0.25, rel=0.2)


def test_a_trained_transformer_is_nearer_to_the_formula_than_an_untrained_one() -> None:
    truth = recovery.known_scores(0)
    models = [recovery.trained_transformer(1, truth, steps, 0) for steps in (1, 60)]
    before, after = (recovery.from_transformer(1, "short", 200, 0, model) for model in models)
    assert after.model_mse < 0.5 * before.model_mse
    assert after.value_correlation > max(0.8, before.value_correlation)


def test_means_over_seeds() -> None:
    rows = [recovery.from_samples("short", 0.1, 200, seed) for seed in (0, 1)]
    mean = recovery.averaged(rows)
    assert mean["seeds"] == 2
    assert mean["value_rmse"] == pytest.approx((rows[0].value_rmse + rows[1].value_rmse) / 2)


# --- additive surrogates -----------------------------------------------------------------------
WEIGHTS = np.array([2.0, -1.0, 0.5, 0.0, 3.0])


def additive(kept: Any) -> Any:
    return 0.7 + kept @ WEIGHTS


def with_pair(kept: Any) -> Any:
    return additive(kept) + 4.0 * (kept[:, 0] & kept[:, 1]) - 2.0 * (kept[:, 2] & ~kept[:, 4])


def shapley(ask: Any, players: int) -> Any:
    values = np.zeros(players)
    for order in itertools.permutations(range(players)):
        kept = np.zeros((players + 1, players), dtype=bool)
        for place, player in enumerate(order):
            kept[place + 1 :, player] = True
        values[list(order)] += np.diff(ask(kept))
    return values / math.factorial(players)


def test_kernel_shap_finds_shapley_values() -> None:
    found = fidelity.kernel_shap(with_pair, 5, 40_000, np.random.default_rng(0))
    np.testing.assert_allclose(found, shapley(with_pair, 5), atol=0.03)
    exact = fidelity.kernel_shap(additive, 5, 60, np.random.default_rng(0))
    np.testing.assert_allclose(exact, WEIGHTS, atol=1e-8)


def test_lime_finds_additive_weights_and_counts_its_calls() -> None:
    asked = []

    def ask(kept: Any) -> Any:
        asked.append(len(kept))
        return additive(kept)

    found = fidelity.lime(ask, 5, 3000, np.random.default_rng(0))
    np.testing.assert_allclose(found, WEIGHTS, atol=0.1)
    fidelity.kernel_shap(ask, 5, 101, np.random.default_rng(0))
    assert asked[0] == 3000
    assert sum(asked[1:]) in (100, 101)


def test_deletion_curve_is_best_for_the_true_order() -> None:
    weights = np.linspace(3, -3, 10)

    def ask(kept: Any) -> Any:
        return kept @ weights + 3.0

    best, worst = (fidelity.deletion_curve(ask, sign * weights, 3.0) for sign in (1, -1))
    assert best > 0.3
    assert worst < 0 < best  # the reversed order is noticed


def test_fidelity_of_a_text_has_every_surrogate() -> None:
    model, tokenizer = load_bundled()
    found = fidelity.fidelity_of(model, tokenizer, TEXT, calls=60, draws=4, seed=0)
    again = fidelity.fidelity_of(model, tokenizer, TEXT, calls=60, draws=4, seed=0)
    assert found == again
    names = {f"{kind}, {plan}" for kind in ("SLALOM", "linear") for plan in ("short", "deletion")}
    assert set(found) == names | {"LIME", "KernelSHAP", "random", "no change"}
    assert all("removal" in found[name] for name in (*names, "LIME", "KernelSHAP"))
    assert all(-1 <= found[name]["aopc"] <= 1 for name in set(found) - {"no change"})
    assert report.relative_error(found, "no change") == 1
    assert len(report.fidelity_table([found])) == 2 + len(found)


def test_relative_error_is_that_of_the_numbers() -> None:
    text = {"a": {"removal": {1: 1.0, 2: 3.0}}, "no change": {"removal": {1: 4.0, 2: 4.0}}}
    assert report.relative_error(text, "a") == pytest.approx(0.5)
    assert report.relative_error(text, "random") is None


# --- human attention ---------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_ordered_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, marked = rng.integers(0, 5, 15).astype(float), rng.random(15) < 0.4
    marked[:2] = True, False
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[marked] for b in scores[~marked]
    ]
    assert human.auroc(scores, marked) == pytest.approx(np.mean(pairs))
    assert human.auroc(-scores, marked) == pytest.approx(1 - np.mean(pairs))


def test_auroc_of_one_kind_of_words_is_no_number() -> None:
    assert np.isnan(human.auroc(np.arange(3.0), np.ones(3, dtype=bool)))
    with pytest.raises(InputError, match="do not fit"):
        human.auroc(np.arange(3.0), np.ones(2, dtype=bool))


def test_sub_words_are_summed_to_words() -> None:
    offsets = [(0, 2), (2, 5), (6, 9), (9, 10)]
    found = human.by_words(offsets, np.array([1.0, 2.0, 4.0, 8.0]), ["gripp", "film", "x"])
    assert found.tolist() == [3.0, 12.0, 0.0]


def review(words: str, marked: str, label: int) -> dict[str, Any]:
    listed = words.split()
    marks = [float(word in marked.split()) for word in listed]
    return {"tokens": listed, "mean_mask": marks, "label": label}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"id": f"r{number}", "split": "part", "text": " ".join(row["tokens"])} | row
        for number, row in enumerate(made_up())
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / human.FILE).write_text(lines, encoding="utf-8")
    return tmp_path


def made_up() -> list[dict[str, Any]]:
    return [
        review("The soup was wonderful and we loved it .", "wonderful loved", 1),
        review("Terrible service and the room was dirty .", "Terrible dirty", 0),
        review("Nothing is marked here", "", 0),
    ]


def test_marked_words_of_sentiment_score_high(folder: Path) -> None:
    model, tokenizer = load_bundled()
    found = [
        human.aurocs_of(model, tokenizer, one, 300, "short", 0) for one in human.reviews(folder)
    ]
    assert found[2] is None
    assert found[0] is not None
    assert found[1] is not None
    assert min(found[0]["value"], found[1]["value"]) > 0.7
    assert found[0]["correct"]
    assert found[1]["correct"]


def test_run_writes_a_table(folder: Path, tmp_path: Path) -> None:
    options = argparse.Namespace(
        model=None, data=folder, plan="short", split="all", seed=0, out=tmp_path / "results"
    )
    size = run.Size(1, 1, 1, 60, 2, 3, 60)
    text = run.written("human", size, options)
    assert "2 with marked" in text
    assert "sha256" in text
    assert "| linearised |" in text
    stored = json.loads((options.out / "human.json").read_text(encoding="utf-8"))
    assert len(stored["rows"]) == 2


def test_missing_data_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        human.reviews(tmp_path)
    with pytest.raises(InputError, match="--data"):
        run.sentences(tmp_path, 1, 0)


def test_reviews_of_a_split_are_some_of_all(folder: Path) -> None:
    if not human.CLASSIFIERS.is_dir():
        pytest.skip(f"{human.CLASSIFIERS} is not here")
    by_split = [human.reviews(folder, split) for split in ("train", "dev", "test")]
    assert sum(map(len, by_split)) == len(human.reviews(folder)) == 3


def test_interval_holds_the_mean() -> None:
    mean, low, high = report.interval([0.0, 1.0, 1.0, 0.0, 1.0])
    assert low < mean < high
    assert report.interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
