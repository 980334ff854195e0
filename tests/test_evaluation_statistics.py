"""Intervals and tests: coverage, closed forms, scipy, and what must not be significant."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

import flowopt as fo
from flowopt.evaluation import statistics
from flowopt.evaluation.statistics import compare_to, holm, mean_interval, paired, rivals


def covered(interval, runs=300, n=40):
    """Share of samples from a skewed distribution of mean 1 whose interval holds 1."""
    draw = np.random.default_rng(5)
    found = [interval(draw.exponential(size=n), run) for run in range(runs)]
    return np.mean([each.low <= 1 <= each.high for each in found])


def test_intervals_cover_as_often_as_they_say():
    assert 0.88 <= covered(lambda x, s: mean_interval(x, seed=s, resamples=400)) <= 0.98
    assert 0.70 <= covered(lambda x, s: mean_interval(x, level=0.8, seed=s, resamples=400)) <= 0.86


def test_coverage_catches_a_sabotaged_interval():
    def spread_of_values(x, seed):  # forgets to take means: far too wide
        low, high = np.quantile(x, [0.025, 0.975])
        return statistics.Interval(float(x.mean()), float(low), float(high), len(x))

    def too_few(x, seed):  # resamples ten times as many values as there are: far too narrow
        return mean_interval(np.tile(x, 10), seed=seed, resamples=200)

    assert covered(spread_of_values) > 0.98
    assert covered(too_few) < 0.88


def test_interval_is_close_to_the_normal_one_and_seeded():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    found = mean_interval(values, seed=3)
    error = values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx(
        [found.mean - 1.96 * error, found.mean + 1.96 * error], abs=0.2 * error
    )
    assert found == mean_interval(values, seed=3) != mean_interval(values, seed=4)
    assert str(found).startswith(f"{found.mean:.3f} [")


def test_portions_do_not_change_the_shape(monkeypatch):
    values = np.random.default_rng(0).normal(size=30)
    whole = mean_interval(values)
    monkeypatch.setattr(statistics, "_CELLS", 100)
    parts = mean_interval(values)
    assert (parts.mean, parts.n) == (whole.mean, whole.n)
    assert parts.low == pytest.approx(whole.low)


def test_missing_values():
    assert mean_interval([1.0, None, 3.0]).n == 2
    assert mean_interval([1.0, np.nan, 3.0]).mean == 2.0
    empty = mean_interval([None, None])
    assert empty.n == 0
    assert np.isnan(empty.mean)
    one = mean_interval([2.0])
    assert (one.low, one.high) == (2.0, 2.0)
    found = paired([1.0, None, 3.0, 4.0], [0.0, 1.0, None, 2.0])
    assert (found.n, found.mean) == (2, 1.5)
    assert paired([None], [1.0]).p_value == 1.0


def all_signs(differences):
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return np.mean([each >= observed - 1e-9 for each in sums])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_sign_flips_are_exact_for_few_pairs(differences):
    zeros = [0.0] * len(differences)
    assert paired(differences, zeros, resamples=10).p_value == pytest.approx(all_signs(differences))


def test_sampled_sign_flips_agree_with_all_of_them(monkeypatch):
    values = np.random.default_rng(2).normal(0.4, 1.0, 12)
    exact = paired(values, values * 0).p_value
    monkeypatch.setattr(statistics, "_EXACT", 2)
    assert paired(values, values * 0).p_value == pytest.approx(exact, abs=0.02)


def test_false_alarms_are_as_rare_as_promised():
    draw = np.random.default_rng(7)
    p = [paired(*draw.normal(size=(2, 10)), resamples=2).p_value for _ in range(300)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.09
    one_sided = [each / 2 for each in p]  # the sabotage: half of the two-sided value
    assert np.mean(np.array(one_sided) <= 0.05) > 0.07


def test_pairing_finds_what_two_separate_means_hide():
    draw = np.random.default_rng(0)
    hard = draw.normal(0, 5, 40)
    first, second = hard + 0.5 + draw.normal(0, 0.3, 40), hard
    found = paired(first, second)
    assert found.p_value < 0.001
    assert found.low > 0
    assert found.wilcoxon == pytest.approx(wilcoxon(first - second).pvalue)
    assert paired(first, draw.permutation(second)).p_value > 0.05  # pairs torn apart
    back = paired(second, first)
    assert back.mean == pytest.approx(-found.mean)
    assert back.p_value == pytest.approx(found.p_value, abs=0.01)


def test_equal_methods_are_equal():
    found = paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.mean, found.p_value, found.wilcoxon) == (0.0, 1.0, 1.0)


def test_holm_by_hand():
    # sorted .01 .02 .03 .5, times 4 3 2 1, never falling
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]).max() == 1.0
    assert holm([0.012, 0.01]) == pytest.approx([0.02, 0.02])  # 1 * .012 would be below 2 * .01
    assert len(holm([])) == 0


def test_compare_to_corrects_for_the_comparisons_made():
    draw = np.random.default_rng(1)
    values = {"reference": draw.normal(size=12), "same": draw.normal(size=12)}
    values["better"] = values["reference"] + 1 + 0.1 * draw.normal(size=12)
    found = compare_to("reference", values)
    assert set(found) == {"same", "better"}
    assert found["better"].adjusted == pytest.approx(2 * found["better"].p_value)
    assert found["better"].adjusted < 0.01 < found["same"].adjusted
    with pytest.raises(fo.InputError, match="no method 'none'"):
        compare_to("none", values)


def test_rivals_of_the_best():
    draw = np.random.default_rng(1)
    base = draw.normal(0, 3, 60)
    values = {
        "worse": base - 1 + 0.2 * draw.normal(size=60),
        "best": base + 0.02,
        "close": base + 0.3 * draw.normal(size=60),
        "empty": [None] * 60,
    }
    assert rivals(values) == ("best", "close")
    assert rivals(values, higher_is_better=False) == ("worse",)
    assert rivals({"empty": [None]}) == ()
    # skipping the hard texts does not make a method best
    lucky = [value if value > 0 else None for value in base - 1]
    assert rivals({"lucky": lucky, "best": base})[0] == "best"
    with pytest.raises(fo.InputError, match="same texts"):
        rivals({"a": [1.0], "b": [1.0, 2.0]})


@pytest.mark.parametrize("bad", [["x"], [[1.0]], [np.inf]])
def test_values_that_are_no_numbers(bad):
    with pytest.raises(fo.InputError, match="per text"):
        mean_interval(bad)


def test_wrong_options():
    with pytest.raises(fo.InputError, match="level"):
        mean_interval([1.0], level=95)
    with pytest.raises(fo.InputError, match="resamples"):
        mean_interval([1.0], resamples=0)
    with pytest.raises(fo.InputError, match="same order"):
        paired([1.0], [1.0, 2.0])
