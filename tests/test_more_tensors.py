"""Further information tensors: their formulas by loops, and what each needs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from family_fixtures import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import flowopt as fo
from flowopt.cli import app
from flowopt.errors import InputError, UnsupportedError
from flowopt.tensors import (
    AttentionPath,
    Conductance,
    TensorSpec,
    available_tensors,
    head_statistic,
    information_tensor,
    register_spec,
    registry,
    tensor_spec,
)
from flowopt.trace import (
    Family,
    batch_of_inputs,
    families,
    known_families,
    trace_batch,
    walk,
)

HEAD, LETTER = "SequenceClassification", 15


def example(seed: int = 0, shape: tuple[int, int, int] = (2, 3, 4)) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    layers, heads, tokens = shape
    attention = rng.dirichlet(np.ones(tokens), size=(layers, heads, tokens))
    return attention, rng.normal(size=attention.shape)


def by_loops(attention, gradient, per_edge) -> np.ndarray:
    """Apply a function of the heads on one edge to all of them."""
    layers, _, rows, columns = attention.shape
    result = np.empty((layers, rows, columns))
    for layer, i, j in np.ndindex(result.shape):
        result[layer, i, j] = per_edge(attention[layer, :, i, j], gradient[layer, :, i, j])
    return result


PER_EDGE = {
    "agf-negative": lambda a, g: sum(max(-x, 0.0) for x in a * g) / len(a),
    "agf-abs": lambda a, g: sum(abs(x) for x in a * g) / len(a),
    "agf-signed": lambda a, g: sum(a * g) / len(a),
    "agf-netted": lambda a, g: max(sum(a * g) / len(a), 0.0),
    "agf-max": lambda a, g: max(0.0, *(a * g)),
    "af-max": lambda a, g: max(a),
    "af-min": lambda a, g: min(a),
}


@pytest.mark.parametrize("name", PER_EDGE)
def test_formulas(name):
    attention, gradient = example()
    expected = by_loops(attention, gradient, PER_EDGE[name])
    np.testing.assert_allclose(information_tensor(name, attention, gradient), expected, atol=1e-15)
    # the formulas tell the tensors apart
    for other, formula in PER_EDGE.items():
        if other != name:
            assert not np.allclose(by_loops(attention, gradient, formula), expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), heads=st.integers(1, 5))
def test_relations(seed, heads):
    attention, gradient = example(seed, (1, heads, 3))
    of = {name: information_tensor(name, attention, gradient) for name in ("agf", *PER_EDGE)}
    np.testing.assert_allclose(of["agf"] + of["agf-negative"], of["agf-abs"], atol=1e-14)
    np.testing.assert_allclose(of["agf"] - of["agf-negative"], of["agf-signed"], atol=1e-14)
    assert (of["agf-netted"] <= of["agf"] + 1e-15).all()
    assert (of["agf"] <= of["agf-max"] + 1e-15).all()
    for name in set(of) - {"agf-signed"}:
        assert (of[name] >= 0).all()


def test_signed_tensors_stay_signed():
    attention, gradient = example()
    signed = information_tensor("agf-signed", attention, gradient)
    assert signed.min() < 0 < signed.max()
    with pytest.raises(InputError, match=r"capacities must be nonnegative|negative"):
        fo.FlowNetwork.layered(signed)
    spec = TensorSpec("wrong", function=lambda trace: trace.gradient.mean(axis=1))
    with pytest.raises(InputError, match="nonnegative"):
        information_tensor(spec, attention, gradient)


# --- statistics of heads ----------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), heads=st.integers(1, 6), q=st.floats(0, 1))
def test_quantiles(seed, heads, q):
    attention, gradient = example(seed, (2, heads, 3))
    positive = np.maximum(attention * gradient, 0)
    found = information_tensor(head_statistic("quantile", q, of="agf"), attention, gradient)
    np.testing.assert_allclose(found, np.quantile(positive, q, axis=1), atol=1e-14)
    median = information_tensor(head_statistic("median"), attention)
    np.testing.assert_allclose(median, np.median(attention, axis=1), atol=1e-14)
    mean = information_tensor(head_statistic("mean", of="gf"), attention, gradient)
    np.testing.assert_allclose(mean, information_tensor("gf", attention, gradient), atol=1e-14)


def test_names_of_statistics():
    assert head_statistic("quantile", 0.9).name == "af-quantile-0.9"
    assert head_statistic("median", of="agf").name == "agf-median"
    assert not head_statistic("max").needs_gradient
    assert head_statistic("max", of="gf").needs_gradient
    assert tensor_spec("af-max").summary == "The max over heads of ``A``."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mode",), "statistic must be one of"),
        (("quantile",), "give q"),
        (("max", 0.5), "give q"),
        (("quantile", 1.5), "from 0 to 1"),
        (("quantile", float("nan")), "from 0 to 1"),
        (("quantile", True), "from 0 to 1"),
        (("max", None, "values"), "of must be one of"),
    ],
)
def test_wrong_statistics(arguments, message):
    with pytest.raises(InputError, match=message):
        head_statistic(*arguments)


# --- entropy ----------------------------------------------------------------------------------
def entropy_by_loops(attention: np.ndarray) -> np.ndarray:
    result = np.empty((len(attention), *attention.shape[2:]))
    for layer, heads in enumerate(attention):
        weights = []
        for head in heads:
            sharp = []
            for i, row in enumerate(head):
                seen = sum((heads[:, i, j] > 0).any() for j in range(len(row)))
                if seen > 1:
                    entropy = -sum(p * np.log(p) for p in row if p > 0)
                    sharp.append(1 - entropy / np.log(seen))
            weights.append(np.mean(sharp))
        result[layer] = np.average(heads, axis=0, weights=weights)
    return result


@pytest.mark.parametrize("causal", [False, True])
def test_entropy_weighs_sharp_heads_more(causal):
    attention, _ = example(3)
    if causal:
        attention = np.tril(attention) / np.tril(attention).sum(axis=-1, keepdims=True)
    found = information_tensor("af-entropy", attention)
    np.testing.assert_allclose(found, entropy_by_loops(attention), atol=1e-14)
    np.testing.assert_allclose(found.sum(axis=-1), 1)
    sharp, flat = np.eye(3), np.full((3, 3), 1 / 3)
    both = information_tensor("af-entropy", np.array([[sharp, flat]]))
    np.testing.assert_allclose(both[0], sharp, atol=1e-12)


def test_entropy_without_sharp_heads_is_the_mean():
    flat = np.full((1, 2, 3, 3), 1 / 3)
    np.testing.assert_allclose(information_tensor("af-entropy", flat), flat[:, 0])
    alone = np.ones((1, 2, 1, 1))
    np.testing.assert_array_equal(information_tensor("af-entropy", alone), alone[:, 0])


# --- values -----------------------------------------------------------------------------------
def value_norms(model: Any, given: dict[str, Any]) -> np.ndarray:
    """||sum_h A_ij V_j W_O|| of a BERT, from its weights and hidden states."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(**given, output_hidden_states=True, output_attentions=True)
        layers = []
        for layer, attention, h in zip(
            model.bert.encoder.layer, out.attentions, out.hidden_states, strict=False
        ):
            heads = attention.shape[1]
            values = layer.attention.self.value(h)[0].unflatten(-1, (heads, -1))
            matrix = layer.attention.output.dense.weight.T.unflatten(0, (heads, -1))
            vectors = torch.einsum("hij,jhd,hdw->ijw", attention[0], values, matrix)
            layers.append(vectors.norm(dim=-1))
    return torch.stack(layers).numpy()


def test_value_norms():
    model, given = CASES["bert"].model(HEAD), CASES["bert"].inputs(HEAD)
    ((trace,), expected) = (read(model, given, "value-norm"), value_norms(model, given))
    np.testing.assert_allclose(trace.tensors["encoder"], expected, rtol=1e-10)
    assert not np.allclose(trace.tensors["encoder"], 2 * expected)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "albert", "vit"])
def test_value_norms_of_other_families(name):
    head = CASES[name].heads[0]
    (trace,) = read(CASES[name].model(head), CASES[name].inputs(head), "value-norm")
    for array in trace.tensors.values():
        assert (array >= 0).all()
        assert array.any()


def read(model: Any, given: dict[str, Any], tensor: Any, target: int | None = None) -> list[Any]:
    return list(tensor_spec(tensor).read(model, batch_of_inputs(model, given, target)))


def test_value_norms_where_they_cannot_be_had(monkeypatch):
    with pytest.raises(InputError, match="read with the model only"):
        information_tensor("value-norm", example()[0])
    model, given = CASES["bert"].model(HEAD), CASES["bert"].inputs(HEAD)
    monkeypatch.setattr(families, "_FAMILIES", {**known_families(), "bert": Family()})
    with pytest.raises(UnsupportedError, match="output matrix"):
        read(model, given, "value-norm")


# --- along a path -----------------------------------------------------------------------------
def along_the_path(model: Any, ids: torch.Tensor, target: int, steps: int) -> np.ndarray:
    """Mean over heads of A * G, averaged over the points, from plain traces."""
    table = model.get_input_embeddings()
    x = table(ids).detach()
    start = table(torch.where(ids > 2, LETTER, ids)).detach()
    total = 0
    points, weights = np.polynomial.legendre.leggauss(steps)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        at = start + point * (x - start)
        (trace,) = trace_batch(model, batch_of_inputs(model, {"inputs_embeds": at}, target))
        total = total + weight * (trace.attention * trace.gradient).mean(axis=1)
    return np.asarray(total)


@pytest.mark.parametrize("name", ["bert", "deberta-v2"])
def test_attention_gradient_along_a_path(name):
    model, given = CASES[name].model(HEAD), CASES[name].inputs(HEAD)
    expected = along_the_path(model, given["input_ids"], 1, 3)
    options = {"steps": 3, "baselines": LETTER}
    (signed,) = read(model, given, AttentionPath(signed=True, **options), 1)
    (positive,) = read(model, given, AttentionPath(**options), 1)
    np.testing.assert_allclose(signed.tensors["encoder"], expected, atol=1e-9)
    np.testing.assert_allclose(positive.tensors["encoder"], np.maximum(expected, 0), atol=1e-9)
    # not simply the value at the input
    (plain,) = read(model, given, "agf-signed", 1)
    assert not np.allclose(plain.tensors["encoder"], expected, atol=1e-3)


def test_points_in_parts(monkeypatch):
    model, given = CASES["t5"].model("Seq2SeqLM"), CASES["t5"].inputs("Seq2SeqLM")
    tensor = AttentionPath(steps=3, baselines=LETTER, signed=True)
    (whole,) = read(model, given, tensor)
    monkeypatch.setattr(walk, "chunk_size", lambda *_: 2)
    (parts,) = read(model, given, tensor)
    assert set(whole.tensors) == {"encoder", "decoder", "cross"}
    for stage, array in whole.tensors.items():
        np.testing.assert_allclose(parts.tensors[stage], array, atol=1e-14)


def test_names_along_a_path():
    assert tensor_spec("agf-path").name == AttentionPath().spec.name == "agf-path"
    assert tensor_spec("agf-path-signed").signed
    assert not tensor_spec("agf-path").signed
    named = AttentionPath(signed=True, steps=8).spec.name
    assert named == "agf-path-signed(steps=8)"
    with pytest.raises(InputError, match="use Explainer"):
        information_tensor("agf-path", *example())


# --- explained --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", available_tensors())
def test_every_tensor_is_explained(name):
    model, given = CASES["bert"].model(HEAD), CASES["bert"].inputs(HEAD)
    few = {"steps": 2, "baselines": LETTER, "tolerance": None}
    cheaper = {
        "conductance": Conductance(**few),
        "agf-path": AttentionPath(**few),
        "agf-path-signed": AttentionPath(**few, signed=True),
    }
    tensor = cheaper.get(name, name)
    found = fo.Explainer(model, tensor=tensor).explain_inputs(**given)
    assert found.status == "optimal"
    assert found.settings["signed"] == tensor_spec(name).signed
    assert len(found.solutions) == 1 + tensor_spec(name).signed
    assert found.value == pytest.approx(found.scores.sum(), abs=1e-9)
    assert found.certificate.conservation <= 1e-9


def test_contrast_with_the_runner_up():
    model, given = CASES["bert"].model(HEAD), CASES["bert"].inputs(HEAD)
    with torch.no_grad():
        first, second, _ = model(**given).logits[0].argsort(descending=True).tolist()
    gradients = {}
    for target in (first, second):
        (trace,) = trace_batch(model, batch_of_inputs(model, given, target))
        gradients[target] = trace.gradient
    expected = (trace.attention * (gradients[first] - gradients[second])).mean(axis=1)
    batch = batch_of_inputs(model, given, contrast="runner-up")
    (found,) = tensor_spec("agf-signed").read(model, batch)
    np.testing.assert_allclose(found.tensors["encoder"], expected, atol=1e-12)
    # along a path the rival is the one at the input, whatever the model says on the way
    (contrast,) = AttentionPath(steps=2, baselines=LETTER, signed=True).spec.read(model, batch)
    apart = [
        read(model, given, AttentionPath(steps=2, baselines=LETTER, signed=True), t)[0]
        for t in (first, second)
    ]
    difference = apart[0].tensors["encoder"] - apart[1].tensors["encoder"]
    np.testing.assert_allclose(contrast.tensors["encoder"], difference, atol=1e-12)
    with_contrast = fo.Explainer(model, tensor="agf", contrast="runner-up").explain_inputs(**given)
    plain = fo.Explainer(model, tensor="agf").explain_inputs(**given)
    assert not np.allclose(with_contrast.scores, plain.scores)


# --- the registry -----------------------------------------------------------------------------
def test_every_tensor_says_what_it_is_and_where_it_comes_from():
    for name in available_tensors():
        spec = tensor_spec(name)
        assert spec.summary.endswith(".")
        assert spec.reference


def test_the_command_line_lists_them():
    done = CliRunner().invoke(app, ["tensors", "--json"])
    assert done.exit_code == 0
    listed = {each["name"]: each for each in json.loads(done.stdout)}
    assert set(listed) == set(available_tensors())
    assert "Kobayashi" in listed["value-norm"]["reference"]
    assert listed["conductance"]["summary"].startswith("Edge conductance")


def test_register_spec(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    register_spec(head_statistic("median"))
    assert "af-median" in available_tensors()
    with pytest.raises(InputError, match="taken"):
        register_spec(TensorSpec("agf", function=lambda trace: trace.attention.mean(axis=1)))
    with pytest.raises(InputError, match="not empty"):
        register_spec(TensorSpec("", function=lambda trace: trace.attention.mean(axis=1)))
