"""SLALOM's formula and its fit: golden numbers, exact recovery, invariances, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowopt.errors import FlowoptWarning, InputError
from flowopt.methods import slalom
from flowopt.methods.slalom.fit import shares
from flowopt.methods.slalom.newton import _derivatives, _project, minimise
from flowopt.methods.slalom.plans import best_reference
from flowopt.methods.slalom.quality import fit_linear

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "slalom.json"


@pytest.fixture(scope="module")
def golden() -> Any:
    if not GOLDEN.exists():
        pytest.skip("no golden numbers here")
    return json.loads(GOLDEN.read_text())


def exact_model(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values, and centred importances."""
    rng = np.random.default_rng(seed)
    v, s = rng.normal(0, 1.5, size), rng.normal(0, 1.0, size)
    return v, s - s.mean()


def short_counts(n: int, size: int, seed: int = 0, length: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack(
        [np.bincount(rng.integers(size, size=length), minlength=size) for _ in range(n)]
    )


def deletion_counts(n: int, size: int, seed: int = 0) -> np.ndarray:
    """Every token once or twice, up to five of them deleted."""
    rng = np.random.default_rng(seed)
    text = np.r_[np.arange(size), rng.integers(size, size=size // 3)]
    rows = []
    for _ in range(n):
        gone = rng.choice(len(text), min(rng.integers(0, 6), len(text) - 1), replace=False)
        rows.append(np.bincount(np.delete(text, gone), minlength=size))
    return np.stack(rows)


def rmse(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2)))


def objective(counts: Any, odds: Any, ridge: float, v: np.ndarray, s: np.ndarray) -> float:
    """The definition, written down a second time."""
    weighted = counts * np.exp(s)
    error = weighted @ v / weighted.sum(axis=1) - odds
    return float(
        np.mean(error**2) + ridge * (((v - v.mean()) ** 2).sum() + ((s - s.mean()) ** 2).sum())
    )


# --- golden check 1 ---------------------------------------------------------------------------
def golden_counts(golden: Any) -> np.ndarray:
    case = golden["synthetic"]
    return np.array([[seq.count(t) for t in case["unique_tokens"]] for seq in case["sequences"]])


def check_golden_log_odds(golden: Any, predict: Callable[..., np.ndarray]) -> None:
    case = golden["synthetic"]
    found = predict(golden_counts(golden), case["value"], case["importance_centred"])
    np.testing.assert_allclose(found, case["log_odds"], atol=1e-5)


def test_golden_log_odds(golden: Any) -> None:
    check_golden_log_odds(golden, slalom.predict)
    for sabotaged in (
        lambda c, v, s: c @ np.array(v) / c.sum(axis=1),  # no importances
        lambda c, v, s: slalom.predict(c > 0, v, s),  # repetitions not counted
        lambda c, v, s: slalom.predict(c, v, s) + 1e-4,
    ):
        with pytest.raises(AssertionError):
            check_golden_log_odds(golden, sabotaged)


def test_golden_exact_recovery_from_19_queries(golden: Any) -> None:
    case = golden["synthetic"]
    v, s = np.array(case["value"]), np.array(case["importance_centred"])
    reference = best_reference(v)
    single = np.eye(10)
    pair = single + single[reference]
    singles, pairs = slalom.predict(single, v, s), slalom.predict(pair, v, s)
    found_v, found_s = slalom.recover_exactly(singles, pairs, reference)
    assert rmse(found_v, v) < 1e-6
    assert rmse(found_s, s - s.mean()) < 1e-5
    keep = np.arange(10) != reference
    counts, odds = np.vstack([single, pair[keep]]), np.r_[singles, pairs[keep]]
    assert len(odds) == 19
    fit = slalom.fit_counts(counts, odds, ridge=0)
    np.testing.assert_allclose(fit.values, v, atol=1e-6)
    np.testing.assert_allclose(fit.importances, s - s.mean(), atol=1e-5)


# --- golden checks 2 and 3 --------------------------------------------------------------------
@pytest.mark.parametrize("counts_of", [short_counts, deletion_counts])
def test_golden_scores_from_500_samples(golden: Any, counts_of: Any) -> None:
    case = golden["synthetic"]
    v, s = np.array(case["value"]), np.array(case["importance_centred"])
    counts = counts_of(500, 10)
    odds = slalom.predict(counts, v, s)
    fit = slalom.fit_counts(counts, odds, ridge=1e-12)
    assert rmse(fit.values, v) < 1e-4
    assert rmse(fit.importances, s - s.mean()) < 1e-4
    authors = case["fits"]["eff_readme_long"]
    assert rmse(fit.values, v) < authors["rmse_value"] / 10
    assert fit.mse < authors["fit_mse"] / 10


def check_golden_fit(case: Any, fit: slalom.SlalomFit) -> None:
    counts, odds = np.array(case["samples"]["counts"]), np.array(case["samples"]["log_odds"])
    assert np.mean((fit.predict(counts) - odds) ** 2) <= case["fit_mse"]
    assert fit.mse == pytest.approx(np.mean((fit.predict(counts) - odds) ** 2))
    assert fit.mse <= case["best_possible"]["mse"] * (1 + 1e-6)
    assert fit.importances.mean() == pytest.approx(0, abs=1e-12)


def test_golden_fit_to_a_transformer(golden: Any) -> None:
    case = golden["bert_one_layer_cases"]["eff_longer"]
    counts, odds = case["samples"]["counts"], case["samples"]["log_odds"]
    fit = slalom.fit_counts(counts, odds)
    check_golden_fit(case, fit)
    assert fit.evaluations < 20
    theirs = slalom.SlalomFit(
        np.array(case["value"]), np.array(case["importance_centred"]), case["fit_mse"], 0.0
    )
    with pytest.raises(AssertionError):
        check_golden_fit(case, theirs)
    linear = fit_linear(counts, np.array(odds))
    assert linear.mse == pytest.approx(case["linear_mse"], rel=1e-6)
    assert fit.mse < linear.mse / 3


def test_scores_are_those_of_the_authors(golden: Any) -> None:
    case = golden["bert_one_layer_cases"]["eff_longer"]
    fit = slalom.SlalomFit(np.array(case["value"]), np.array(case["importance_centred"]), 0.0, 0.0)
    np.testing.assert_allclose(fit.scores("linearised"), case["lin_centred"], rtol=1e-5)
    np.testing.assert_allclose(fit.scores("removal"), case["removal"], atol=1e-6)
    np.testing.assert_array_equal(fit.scores("value"), case["value"])
    np.testing.assert_array_equal(fit.scores("importance"), case["importance_centred"])


# --- golden check 4 ---------------------------------------------------------------------------
def test_one_against_the_rest(golden: Any) -> None:
    case = golden["one_vs_rest"]
    found = slalom.log_odds([case["logits"]], case["target_class"])
    assert found[0] == pytest.approx(-1.1035377, abs=1e-7)
    assert found[0] == pytest.approx(case["log_odds"], abs=1e-7)


def test_log_odds_of_two_one_and_independent_classes() -> None:
    z = np.array([[1.0, 3.5], [-2.0, 4.0]])
    np.testing.assert_allclose(slalom.log_odds(z, 1), [2.5, 6.0])
    np.testing.assert_allclose(slalom.log_odds(z, 0), [-2.5, -6.0])
    np.testing.assert_allclose(slalom.log_odds(z[:, :1], 0), [1.0, -2.0])
    np.testing.assert_allclose(slalom.log_odds(z, 1, independent=True), [3.5, 4.0])
    huge = np.array([[1e4, 0.0, -1e4]])
    assert slalom.log_odds(huge, 0)[0] == pytest.approx(1e4)
    for bad, target in ((z, 2), (z, -1), (z[0], 0), (np.full((1, 2), np.nan), 0)):
        with pytest.raises(InputError):
            slalom.log_odds(bad, target)


# --- the model --------------------------------------------------------------------------------
def test_a_repeated_token_has_its_own_value_however_often() -> None:
    v, s = exact_model(4)
    for n in (1, 2, 7, 10**6):
        np.testing.assert_allclose(slalom.predict(n * np.eye(4), v, s), v)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50), offset=st.floats(-50, 50))
def test_invariances_of_the_formula(seed: int, shift: float, offset: float) -> None:
    v, s = exact_model(6, seed)
    counts = short_counts(20, 6, seed)
    odds = slalom.predict(counts, v, s)
    np.testing.assert_allclose(slalom.predict(counts, v, s + shift), odds, atol=1e-9)
    np.testing.assert_allclose(slalom.predict(counts, v + offset, s), odds + offset, atol=1e-9)
    np.testing.assert_allclose(slalom.predict(3 * counts, v, s), odds, atol=1e-12)
    assert odds.min() >= v.min() - 1e-12
    assert odds.max() <= v.max() + 1e-12


def test_importances_of_any_size() -> None:
    s = np.array([0.0, 1e4, -1e4])
    counts = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 2]])
    np.testing.assert_allclose(slalom.predict(counts, [1.0, 2.0, 3.0], s), [2.0, 1.0, 3.0])
    np.testing.assert_allclose(shares(counts.astype(float), s).sum(axis=1), 1.0)


def check_removal(removal: Callable[[slalom.SlalomFit, np.ndarray], np.ndarray]) -> None:
    v, s = exact_model(5, 3)
    fit = slalom.SlalomFit(v, s, 0.0, 0.0)
    for text in (np.ones(5), np.array([3.0, 1.0, 0.0, 2.0, 1.0])):
        expected = np.zeros(5)
        for i in np.flatnonzero(text):
            rest = text.copy()
            rest[i] -= 1
            expected[i] = (fit.predict(text) - fit.predict(rest))[0]
        np.testing.assert_allclose(removal(fit, text), expected, atol=1e-12)


def test_removal_is_leave_one_out_and_its_closed_form() -> None:
    check_removal(lambda fit, text: fit.removal(text))

    def closed(fit: slalom.SlalomFit, text: np.ndarray, one: bool = True) -> np.ndarray:
        a = np.exp(fit.importances) / (text @ np.exp(fit.importances))
        a = a * (text > 0) if one else a * text
        return a * (fit.values - fit.predict(text)[0]) / (1 - a)

    check_removal(closed)
    with pytest.raises(AssertionError):
        check_removal(lambda fit, text: closed(fit, text, one=False))  # all occurrences at once
    with pytest.raises(AssertionError):
        check_removal(lambda fit, text: fit.linearised)


def test_removal_of_the_only_token_is_its_value() -> None:
    fit = slalom.SlalomFit(np.array([2.5]), np.array([0.0]), 0.0, 0.0)
    np.testing.assert_allclose(fit.removal(), [2.5])


def test_linearised_and_unknown_kinds() -> None:
    v, s = exact_model(5)
    fit = slalom.SlalomFit(v, s, 0.0, 0.0)
    np.testing.assert_allclose(fit.linearised, v * np.exp(s))
    with pytest.raises(InputError, match="value, importance, linearised, removal"):
        fit.scores("lin")
    with pytest.raises(ValueError, match="read-only"):
        fit.values[0] = 1.0


# --- the fit ----------------------------------------------------------------------------------
def check_recovery(fit: Callable[..., slalom.SlalomFit], size: int, counts: np.ndarray) -> None:
    v, s = exact_model(size, 1)
    found = fit(counts, slalom.predict(counts, v, s), ridge=0)
    assert rmse(found.values, v) < 1e-4
    assert rmse(found.importances, s) < 1e-4
    assert found.mse < 1e-15


@pytest.mark.parametrize("size", [2, 10, 40, 100])
def test_an_exact_model_is_recovered(size: int) -> None:
    # From 64 tokens on, short queries are held as sparse matrices.
    for counts in (short_counts(1500, size), deletion_counts(1500, size)):
        check_recovery(slalom.fit_counts, size, counts)


def test_recovery_notices_a_bad_fit() -> None:
    counts = short_counts(300, 6)

    def linear(counts: Any, odds: Any, ridge: float) -> slalom.SlalomFit:
        found = fit_linear(counts, odds)
        return slalom.SlalomFit(3 * found.coefficients, np.zeros(6), found.mse, ridge)

    def early(counts: Any, odds: Any, ridge: float) -> slalom.SlalomFit:
        found = minimise(counts.astype(float), odds, ridge, most_evaluations=3)
        return slalom.SlalomFit(found.values, found.importances, 0.0, ridge)

    for sabotaged in (linear, early):
        with pytest.raises(AssertionError):
            check_recovery(sabotaged, 6, counts)


@pytest.mark.parametrize("ridge", [1e-8, 1e-6, 1e-2, 10.0])
@pytest.mark.parametrize("counts_of", [short_counts, deletion_counts])
def test_no_other_point_is_better(counts_of: Any, ridge: float) -> None:
    from scipy.optimize import minimize

    size, rng = 7, np.random.default_rng(5)
    counts = counts_of(400, size)
    v, s = exact_model(size, 2)
    odds = slalom.predict(counts, v, s) + 0.3 * rng.normal(size=len(counts))
    fit = slalom.fit_counts(counts, odds, ridge)
    found = objective(counts, odds, ridge, fit.values, fit.importances)
    assert fit.penalised == pytest.approx(found, rel=1e-12)
    for _ in range(3):
        other = minimize(
            lambda x: objective(counts, odds, ridge, x[:size], x[size:]),
            rng.normal(size=2 * size),
            method="L-BFGS-B",
            options={"maxiter": 2000, "maxfun": 10**5},
        )
        assert found <= other.fun * (1 + 1e-9)
    for _ in range(20):
        near = objective(counts, odds, ridge, fit.values + 1e-3 * rng.normal(size=size),
                         fit.importances + 1e-3 * rng.normal(size=size))  # fmt: skip
        assert found < near


@pytest.mark.parametrize("size", [8, 70])
def test_derivatives_are_those_of_the_reduced_objective(size: int) -> None:
    from flowopt.methods.slalom import newton

    rng = np.random.default_rng(0)
    counts, ridge = short_counts(300, size), 1e-3
    data = newton._Data(counts.astype(float), rng.normal(size=300), ridge, np.ones(size, bool))
    s = rng.normal(size=size)
    s -= s.mean()

    def value(at: np.ndarray) -> float:
        point = _project(data, at, np.zeros(size))
        assert point is not None
        return 0.5 * point.objective

    point = _project(data, s, np.zeros(size))
    assert point is not None
    downhill, hessian = _derivatives(data, point, exact=True)
    step = 1e-4
    for _ in range(3):
        way = rng.normal(size=size)
        way = (way - way.mean()) / np.linalg.norm(way)
        up, here, down = value(s + step * way), value(s), value(s - step * way)
        assert (up - down) / (2 * step) == pytest.approx(-downhill @ way, rel=1e-5, abs=1e-9)
        bend = (up - 2 * here + down) / step**2
        assert bend == pytest.approx(way @ hessian @ way, rel=1e-3, abs=1e-6)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), offset=st.floats(-100, 100))
def test_symmetries_of_the_fit(seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    counts, odds = short_counts(120, 5, seed), rng.normal(size=120)
    fit = slalom.fit_counts(counts, odds, 1e-3)
    moved = slalom.fit_counts(counts, odds + offset, 1e-3)
    np.testing.assert_allclose(moved.values, fit.values + offset, atol=1e-5)
    np.testing.assert_allclose(moved.importances, fit.importances, atol=1e-5)
    columns, rows = rng.permutation(5), rng.permutation(120)
    mixed = slalom.fit_counts(counts[rows][:, columns], odds[rows], 1e-3)
    np.testing.assert_allclose(mixed.values, fit.values[columns], atol=1e-5)
    twice = slalom.fit_counts(np.vstack([counts, counts]), np.r_[odds, odds], 1e-3)
    np.testing.assert_allclose(twice.values, fit.values, atol=1e-5)
    again = slalom.fit_counts(counts, odds, 1e-3)
    np.testing.assert_array_equal(again.values, fit.values)


def test_sparse_and_dense_sums_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowopt.methods.slalom import newton

    rng = np.random.default_rng(0)
    counts, odds = short_counts(400, 80), rng.normal(size=400)
    sparse = slalom.fit_counts(counts, odds)
    monkeypatch.setattr(newton, "_SPARSE_FROM", 10**9)
    dense = slalom.fit_counts(counts, odds)
    np.testing.assert_allclose(sparse.values, dense.values, atol=1e-6)
    assert sparse.penalised == pytest.approx(dense.penalised, rel=1e-12)


def test_extreme_but_valid_input() -> None:
    v, s = exact_model(5)
    counts = short_counts(300, 5)
    odds = slalom.predict(counts, v, s)
    for scale in (1e-9, 1e9):
        fit = slalom.fit_counts(counts, scale * odds, ridge=0)
        np.testing.assert_allclose(fit.values, scale * v, rtol=1e-5)
        np.testing.assert_allclose(fit.importances, s, atol=1e-5)
    constant = slalom.fit_counts(counts, np.full(300, 2.5))
    np.testing.assert_allclose(constant.values, 2.5)
    np.testing.assert_allclose(constant.importances, 0.0, atol=1e-12)
    one = slalom.fit_counts([[1]], [3.0])
    np.testing.assert_allclose([one.values[0], one.importances[0], one.mse], [3.0, 0.0, 0.0])
    few = slalom.fit_counts(np.eye(4), [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(few.values, [1, 2, 3, 4], atol=1e-4)
    large = slalom.fit_counts(counts * 10**6, odds, ridge=0)
    np.testing.assert_allclose(large.values, v, atol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 1e-6])
def test_a_token_that_never_occurs_gets_the_mean(ridge: float) -> None:
    v, s = exact_model(4)
    counts = np.insert(short_counts(200, 4), 2, 0, axis=1)
    fit = slalom.fit_counts(counts, slalom.predict(np.delete(counts, 2, axis=1), v, s), ridge)
    others = np.delete(fit.values, 2)
    assert fit.values[2] == pytest.approx(others.mean())
    assert fit.importances[2] == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(others, v, atol=1e-3)


def test_one_dominant_token() -> None:
    v, s = np.array([1.0, -2.0, 0.5, 3.0]), np.array([12.0, -4.0, -4.0, -4.0])
    counts = deletion_counts(500, 4)
    counts = counts[counts.any(axis=1)]
    fit = slalom.fit_counts(counts, slalom.predict(counts, v, s), ridge=0)
    np.testing.assert_allclose(fit.values, v, atol=1e-3)
    np.testing.assert_allclose(fit.importances, s, atol=1e-2)


def test_an_unsettled_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowopt.methods.slalom import fit as module

    rng = np.random.default_rng(0)
    stopped = lambda counts, odds, ridge: minimise(counts, odds, ridge, most_evaluations=2)  # noqa: E731
    monkeypatch.setattr(module, "minimise", stopped)
    with pytest.warns(FlowoptWarning, match="larger ridge"):
        fit = slalom.fit_counts(short_counts(200, 6), rng.normal(size=200))
    assert not fit.converged


def test_a_larger_ridge_gives_smaller_scores_and_more_error() -> None:
    rng = np.random.default_rng(0)
    counts = deletion_counts(400, 8)
    odds = slalom.predict(counts, *exact_model(8)) + 0.2 * rng.normal(size=400)
    fits = [slalom.fit_counts(counts, odds, ridge) for ridge in (0, 1e-6, 1e-4, 1e-2, 1.0)]
    errors = [fit.mse for fit in fits]
    sizes = [float(np.var(fit.values) + np.var(fit.importances)) for fit in fits]
    assert errors == sorted(errors)
    assert sizes == sorted(sizes, reverse=True)


GOOD = np.array([[1, 1], [2, 0], [0, 1]])


@pytest.mark.parametrize(
    ("counts", "odds", "ridge", "message"),
    [
        (GOOD[0], [1.0], 1e-6, "shape"),
        (np.empty((0, 2)), [], 1e-6, "empty"),
        (GOOD, [1.0, 2.0], 1e-6, "one number for each row"),
        (GOOD, [1.0, 2.0, np.nan], 1e-6, "finite"),
        (GOOD, [1.0, 2.0, 1e200], 1e-6, "squared"),
        (GOOD * 0.5, [1.0, 2.0, 3.0], 1e-6, "whole"),
        (-GOOD, [1.0, 2.0, 3.0], 1e-6, "at least 0"),
        (np.array([[1, 1], [0, 0], [0, 1]]), [1.0, 2.0, 3.0], 1e-6, "row 1"),
        ("words", [1.0], 1e-6, "array of numbers"),
        (GOOD, [1.0, 2.0, 3.0], -1.0, "ridge"),
        (GOOD, [1.0, 2.0, 3.0], np.nan, "ridge"),
        (GOOD, [1.0, 2.0, 3.0], "small", "ridge"),
    ],
)
def test_bad_input_is_refused(counts: Any, odds: Any, ridge: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        slalom.fit_counts(counts, odds, ridge)


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="one number for each"):
        slalom.predict(GOOD, [1.0], [1.0])
    with pytest.raises(InputError, match="token 0 with the reference 1"):
        slalom.recover_exactly([1.0, 2.0], [3.0, 2.0], 1)
    with pytest.raises(InputError, match="reference must be a column"):
        slalom.recover_exactly([1.0, 2.0], [1.5, 2.0], 2)
    with pytest.raises(InputError, match="must both have shape"):
        slalom.recover_exactly([1.0, 2.0], [1.5], 0)


def test_tensors_are_read_too() -> None:
    import torch

    counts = torch.tensor(short_counts(100, 4))
    odds = torch.randn(100, generator=torch.Generator().manual_seed(0), requires_grad=True)
    fit = slalom.fit_counts(counts, odds)
    plain = slalom.fit_counts(counts.numpy(), odds.detach().numpy())
    np.testing.assert_array_equal(fit.values, plain.values)
