"""Information tensors: the formulas of method.md section 1, and what breaks them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowopt.tensors.registry as module
from flowopt.errors import InputError
from flowopt.tensors import available_tensors, capacities_of, information_tensor, register_tensor
from flowopt.trace import Trace

# One layer, two heads, two tokens.
ATTENTION = np.array([[[[0.25, 0.75], [0.5, 0.5]], [[1.0, 0.0], [0.1, 0.9]]]])
GRADIENT = np.array([[[[4.0, -2.0], [1.0, 2.0]], [[-3.0, 8.0], [10.0, -1.0]]]])


def random_example(seed: int, shape=(2, 3, 4)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    layers, heads, tokens = shape
    attention = rng.dirichlet(np.ones(tokens), size=(layers, heads, tokens))
    return attention, rng.normal(size=attention.shape)


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(module, "_REGISTRY", dict(module._REGISTRY))


def test_formulas_by_hand():
    af = information_tensor("af", ATTENTION)
    np.testing.assert_allclose(af, [[[0.625, 0.375], [0.3, 0.7]]])
    gf = information_tensor("gf", ATTENTION, GRADIENT)
    np.testing.assert_allclose(gf, [[[2.0, 4.0], [5.5, 1.0]]])
    agf = information_tensor("agf", ATTENTION, GRADIENT)
    np.testing.assert_allclose(agf, [[[0.5, 0.0], [0.75, 0.5]]])


def violations(tensor) -> list[str]:
    """What a wrong AGF gets wrong, on one random example."""
    attention, gradient = random_example(0)
    result, found = information_tensor(tensor, attention, gradient), []
    expected = np.zeros_like(result)
    for layer, head in np.ndindex(attention.shape[:2]):
        product = attention[layer, head] * gradient[layer, head]
        expected[layer] += np.where(product > 0, product, 0) / attention.shape[1]
    if not np.allclose(result, expected):
        found.append("value")
    shuffled = information_tensor(tensor, attention[:, ::-1], gradient[:, ::-1])
    if not np.allclose(result, shuffled):
        found.append("order of heads")
    return found


def test_broken_agf_is_caught():
    def positive_part_after_the_mean(trace):
        return np.maximum((trace.attention * trace.gradient).mean(axis=1), 0)

    def summed(trace):
        return np.maximum(trace.attention * trace.gradient, 0).sum(axis=1)

    def transposed(trace):
        return np.maximum(trace.attention * trace.gradient, 0).mean(axis=1).transpose(0, 2, 1)

    def first_head(trace):
        return np.maximum(trace.attention * trace.gradient, 0)[:, 0]

    assert not violations("agf")
    for broken in (positive_part_after_the_mean, summed, transposed):
        assert "value" in violations(broken)
    assert "order of heads" in violations(first_head)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["af", "gf", "agf"]))
def test_properties(seed, name):
    attention, gradient = random_example(seed)
    result = information_tensor(name, attention, gradient)
    layers, _, tokens, _ = attention.shape
    assert result.shape == (layers, tokens, tokens)
    assert (result >= 0).all()
    if name == "af":
        np.testing.assert_allclose(result.sum(axis=2), 1)
    else:
        np.testing.assert_allclose(
            information_tensor(name, attention, 3 * gradient), 3 * result, rtol=1e-12
        )
        assert not information_tensor(name, attention, -np.abs(gradient)).any()
    # Relabelling the tokens relabels the tensor.
    order = np.random.default_rng(seed).permutation(tokens)
    moved = information_tensor(
        name, attention[..., order, :][..., order], gradient[..., order, :][..., order]
    )
    np.testing.assert_allclose(moved, result[:, order][:, :, order], rtol=1e-12)


def test_accepts_torch_tensors_in_a_graph():
    import torch

    attention, gradient = random_example(1)
    on_graph = torch.tensor(attention, requires_grad=True) * 1.0
    np.testing.assert_allclose(
        information_tensor("agf", on_graph, torch.tensor(gradient)),
        information_tensor("agf", attention, gradient),
    )


def test_user_functions_and_registry(clean_registry):
    @register_tensor("max-head", needs_gradient=False)
    def largest(trace):
        return trace.attention.max(axis=1)

    assert "max-head" in available_tensors()
    by_name = information_tensor("max-head", ATTENTION)
    np.testing.assert_array_equal(by_name, ATTENTION.max(axis=1))
    np.testing.assert_array_equal(information_tensor(largest, ATTENTION, GRADIENT), by_name)
    register_tensor("max-head", needs_gradient=False)(largest)  # a cell that is run again
    with pytest.raises(InputError, match="taken"):
        register_tensor("agf")(largest)
    with pytest.raises(InputError, match="not empty"):
        register_tensor(" ")


def test_unknown_names_and_wrong_types():
    with pytest.raises(InputError, match=r"did you mean 'agf'\? Known names: af, .*agf, .*gf"):
        information_tensor("AGFF", ATTENTION, GRADIENT)
    with pytest.raises(InputError, match="name"):
        information_tensor(3, ATTENTION)


def test_missing_gradient():
    for name in ("gf", "agf"):
        with pytest.raises(InputError, match="needs gradients"):
            information_tensor(name, ATTENTION)
    with pytest.raises(InputError, match="needs gradients"):
        capacities_of(Trace.from_arrays(ATTENTION), lambda trace: trace.gradient)


@pytest.mark.parametrize(
    ("attention", "gradient", "message"),
    [
        (ATTENTION[0], GRADIENT[0], r"np.stack\(attentions\)\[:, 0\]"),
        (ATTENTION[..., :1], GRADIENT[..., :1], "shape"),
        (ATTENTION, GRADIENT[:, :1], "gradient by this very attention"),
        (ATTENTION, GRADIENT * np.nan, "gradient must be finite"),
        (ATTENTION + np.inf, GRADIENT, "attention must be finite"),
        (ATTENTION - 0.5, GRADIENT, "after the softmax"),
        ("text", GRADIENT, "array of numbers"),
        (np.zeros((0, 1, 2, 2)), None, "shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_wrong_arrays(attention, gradient, message):
    with pytest.raises(InputError, match=message):
        information_tensor("agf", attention, gradient)


def test_row_sums_are_checked_when_asked():
    scaled = information_tensor("af", ATTENTION * 0.9)
    np.testing.assert_allclose(scaled, 0.9 * ATTENTION.mean(axis=1))
    transposed = ATTENTION.swapaxes(2, 3)
    with pytest.raises(InputError, match="layer 0, head"):
        information_tensor("af", transposed, row_tolerance=1e-3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda trace: trace.attention, r"shape \(L, t, t\)"),
        (lambda trace: trace.gradient[:, 1], "nonnegative"),
        (lambda trace: trace.attention.mean(axis=1) * np.inf, "finite"),
        (lambda trace: trace.attention.mean(axis=1)[:, :1, :1], "expected"),
        (lambda trace: None, "shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_wrong_results_of_functions(function, message):
    with pytest.raises(InputError, match=message):
        information_tensor(function, ATTENTION, GRADIENT)
