"""Capacity variants: hand-computed cases, properties, and broken variants that must be caught."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flowopt.capacities import (
    GammaScale,
    Residual,
    Round,
    RowNormalize,
    Temperature,
    Threshold,
    TopK,
    adds_residual,
    compose,
)
from flowopt.errors import InputError

EXAMPLE = np.array([[[0.2, 0.0, 0.6], [0.0, 0.0, 0.0], [3.0, 1.0, 0.5]]])
ALL = [
    Residual(0.3),
    RowNormalize(),
    GammaScale(),
    GammaScale(2),
    Round(),
    Temperature(2.0),
    Temperature(0.1),
    Threshold(0.4),
    TopK(2),
    compose(Residual(), RowNormalize()),
]


@st.composite
def capacity_arrays(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5)))
    entries = st.one_of(st.just(0.0), st.floats(1e-6, 1e3))
    return draw(arrays(np.float64, (shape[0], shape[1], shape[1]), elements=entries))


def test_residual_by_hand():
    result = Residual(0.5)(EXAMPLE)
    expected = [[[0.6, 0.0, 0.3], [0.0, 0.5, 0.0], [1.5, 0.5, 0.75]]]
    np.testing.assert_allclose(result, expected, rtol=1e-15)


def test_row_normalize_keeps_zero_rows():
    expected = [[[0.25, 0.0, 0.75], [0.0, 0.0, 0.0], [2 / 3, 2 / 9, 1 / 9]]]
    np.testing.assert_allclose(RowNormalize()(EXAMPLE), expected, rtol=1e-15)


@pytest.mark.parametrize(("smallest", "beta"), [(0.2, 1), (0.01, 2), (1.0, 0), (37.0, -1)])
def test_gamma_scale_exponent(smallest: float, beta: int):
    capacities = np.full((1, 2, 2), smallest)
    capacities[0, 0, 1] = 0.0
    np.testing.assert_allclose(GammaScale()(capacities), capacities * 10.0**beta, rtol=1e-15)


def test_gamma_scale_given_exponent_and_zeros():
    np.testing.assert_allclose(GammaScale(3)(EXAMPLE), EXAMPLE * 1000)
    assert not GammaScale()(np.zeros((1, 2, 2))).any()
    with pytest.raises(InputError, match="overflow"):
        GammaScale(308)(EXAMPLE * 1e3)


def test_gamma_scale_then_round_gives_positive_integers():
    result = compose(GammaScale(), Round())(EXAMPLE)
    np.testing.assert_array_equal(result, [[[2, 0, 6], [0, 0, 0], [30, 10, 5]]])


def test_temperature_by_hand():
    result = Temperature(0.5)(np.array([[[1.0, 3.0], [0.0, 0.0]]]))
    np.testing.assert_allclose(result, [[[0.4, 3.6], [0.0, 0.0]]])


def test_temperature_is_the_softmax_at_that_temperature():
    scores = np.random.default_rng(0).normal(size=(2, 4, 4))

    def softmax(x):
        weights = np.exp(x - x.max(axis=2, keepdims=True))
        return weights / weights.sum(axis=2, keepdims=True)

    np.testing.assert_allclose(Temperature(3.0)(softmax(scores)), softmax(scores / 3), rtol=1e-12)


def test_sharp_temperature_does_not_underflow():
    result = Temperature(1e-4)(np.array([[[1e-3, 2e-3], [1e-9, 1e-9]]]))
    np.testing.assert_allclose(result, [[[0.0, 3e-3], [1e-9, 1e-9]]])


def test_threshold_and_top_k_by_hand():
    expected = [[[0, 0, 0.6], [0, 0, 0], [3, 1, 0.5]]]
    np.testing.assert_array_equal(Threshold(0.5)(EXAMPLE), expected)
    np.testing.assert_array_equal(TopK(1)(EXAMPLE), [[[0, 0, 0.6], [0, 0, 0], [3, 0, 0]]])
    ties = np.ones((1, 3, 3))
    np.testing.assert_array_equal(TopK(2)(ties)[0, 1], [1, 1, 0])
    np.testing.assert_array_equal(TopK(9)(EXAMPLE), EXAMPLE)


@settings(max_examples=40, deadline=None)
@given(capacities=capacity_arrays(), variant=st.sampled_from(ALL))
def test_every_variant_keeps_shape_sign_and_its_argument(capacities, variant):
    before = capacities.copy()
    result = variant(capacities)
    np.testing.assert_array_equal(capacities, before)
    assert result.shape == capacities.shape
    assert result.dtype == np.float64
    assert not np.shares_memory(result, capacities)
    assert np.isfinite(result).all()
    assert (result >= 0).all()


def violations(variant, capacities) -> list[str]:
    """The rules that a row-sum-keeping, zero-keeping variant must obey, and breaks."""
    result, found = variant(capacities), []
    sums, before = result.sum(axis=2), capacities.sum(axis=2)
    if not np.allclose(sums, before, rtol=1e-9, atol=0):
        found.append("row sums")
    if ((capacities == 0) & (result != 0)).any():
        found.append("zeros")
    if (
        np.argsort(result, axis=2, kind="stable") != np.argsort(capacities, axis=2, kind="stable")
    ).any():
        found.append("order")
    return found


@settings(max_examples=40, deadline=None)
@given(capacities=capacity_arrays(), heat=st.floats(0.5, 4.0))
def test_temperature_keeps_row_sums_and_zeros(capacities, heat):
    assert not set(violations(Temperature(heat), capacities)) & {"row sums", "zeros"}
    np.testing.assert_allclose(Temperature(1.0)(capacities), capacities, rtol=1e-12)


def test_broken_temperatures_are_caught():
    def forgot_rescaling(capacities):
        return capacities**0.5

    def rescaled_columns(capacities):
        return capacities**0.5 * (capacities.sum(1) / (capacities**0.5).sum(1))[:, None]

    def softmax_of_entries(capacities):
        weights = np.exp(capacities)
        return weights / weights.sum(2, keepdims=True) * capacities.sum(2, keepdims=True)

    full = EXAMPLE + np.array([0.1, 0.0, 0.2])
    assert not violations(Temperature(2.0), full)
    assert "row sums" in violations(forgot_rescaling, full)
    assert "row sums" in violations(rescaled_columns, EXAMPLE + 0.1)
    assert "zeros" in violations(softmax_of_entries, EXAMPLE)


@settings(max_examples=30, deadline=None)
@given(capacities=capacity_arrays())
def test_row_sums_after_normalising_are_one_or_zero(capacities):
    sums = RowNormalize()(capacities).sum(axis=2)
    np.testing.assert_allclose(sums, capacities.any(axis=2), rtol=1e-12)


def test_row_normalize_of_extreme_rows():
    tiny = np.array([[[1e-320, 3e-320], [1e308, 1e308]]])
    np.testing.assert_allclose(RowNormalize()(tiny), [[[0.25, 0.75], [0.5, 0.5]]], rtol=1e-3)


def test_compose_applies_from_first_to_last_and_nests():
    both = compose(Residual(0.5), RowNormalize())
    np.testing.assert_array_equal(both(EXAMPLE), RowNormalize()(Residual(0.5)(EXAMPLE)))
    np.testing.assert_array_equal(
        compose(both, TopK(1))(EXAMPLE), TopK(1)(RowNormalize()(Residual(0.5)(EXAMPLE)))
    )
    np.testing.assert_array_equal(compose()(EXAMPLE), EXAMPLE)
    assert adds_residual((RowNormalize(), compose(Residual())))
    assert not adds_residual((RowNormalize(),))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda c: c[:1, :1, :1], "keep the shape"),
        (lambda c: -c, "nonnegative"),
        (lambda c: c / 0, "finite"),
        (lambda c: "text", "array of numbers"),
        (lambda c: None, "shape"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_compose_catches_broken_variants(broken, message):
    with pytest.raises(InputError, match=message):
        compose(Residual(), broken)(EXAMPLE)


def test_compose_refuses_what_is_no_variant():
    for wrong in ("residual", Residual, 3):
        with pytest.raises(InputError, match=r"such as Residual\(0.5\)"):
            compose(wrong)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Residual(1.5), "alpha"),
        (lambda: Residual(float("nan")), "alpha"),
        (lambda: GammaScale(float("inf")), "beta"),
        (lambda: Temperature(0.0), "T must"),
        (lambda: Temperature(float("nan")), "T must"),
        (lambda: Threshold(-1.0), "minimum"),
        (lambda: TopK(0), "k must"),
        (lambda: TopK(1.5), "k must"),
        (lambda: TopK(True), "k must"),
    ],
)
def test_wrong_parameters(make, name):
    with pytest.raises(InputError, match=name):
        make()


@pytest.mark.parametrize(
    ("capacities", "message"),
    [
        (np.ones((2, 2)), r"C\[None\]"),
        (np.ones((0, 2, 2)), "shape"),
        (np.full((1, 2, 2), np.nan), "finite"),
        (-np.ones((1, 2, 2)), "positive and negative parts"),
        ([[["a"]]], "numbers"),
    ],
)
@pytest.mark.parametrize("variant", ALL, ids=repr)
def test_wrong_capacities(variant, capacities, message):
    with pytest.raises(InputError, match=message):
        variant(capacities)


def test_attention_to_other_tokens():
    """Rectangular capacities: all but the identity of `Residual` has a meaning for them."""
    across = np.concatenate([EXAMPLE, EXAMPLE[:, :, ::-1]], axis=2)
    for variant in ALL:
        residual = isinstance(variant, Residual) or adds_residual((variant,))
        if residual:
            with pytest.raises(InputError, match="shape"):
                variant(across)
        elif not hasattr(variant, "variants"):
            assert variant(across).shape == across.shape
    np.testing.assert_allclose(Residual(0.3).across(across), 0.3 * across)


def test_stages_together():
    small, large = np.full((1, 2, 2), 0.03), np.full((1, 2, 3), 5.0)
    scaled = compose(GammaScale()).stages({"decoder": small, "cross": large}, across=("cross",))
    np.testing.assert_allclose(scaled["decoder"], 3.0)
    np.testing.assert_allclose(scaled["cross"], 500.0)  # one exponent for all
    apart = GammaScale()(large)
    assert not np.allclose(apart, scaled["cross"])
    # the residual edge past the cross-attention is one more column of its rows
    beside = np.concatenate([large / 15, np.zeros((1, 2, 1))], axis=2)
    for order in ((Residual(0.25), RowNormalize()), (RowNormalize(), Residual(0.25))):
        for variants in (compose(*order), compose(compose(order[0]), order[1])):
            found = variants.stages({"cross": beside}, across=("cross",), past=("cross",))["cross"]
            np.testing.assert_allclose(found[0, 0], [0.25 / 3] * 3 + [0.75])
    with pytest.raises(InputError, match="keep the shape"):
        compose(lambda c: c[:, :, :2]).stages({"decoder": small, "cross": large})
