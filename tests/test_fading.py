"""Tokens that fade out of attention: conserved, complete, and equal to gates on attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from family_fixtures import CASES, PAIRS
from generation_fixtures import language_model
from model_fixtures import tiny_model, wordpiece_tokenizer

import flowopt as fo
from flowopt.errors import InputError, UnsupportedError
from flowopt.tensors import AttentionPath, Conductance
from flowopt.trace import batch_of_inputs, edges
from flowopt.trace.conductance import EdgeConductance, edge_conductance
from flowopt.trace.layer import CROSS, DECODER, DIRECT, ENCODER
from flowopt.trace.path import PathOptions

HEAD = "SequenceClassification"
WITH_TEXT = [
    (name, head)
    for name, head in PAIRS
    if not name.startswith("deberta") and "pixel_values" not in CASES[name].inputs(head)
]


def faded(model: Any, given: dict[str, Any], **options: Any) -> EdgeConductance:
    chosen = PathOptions(**{"tolerance": None, "baselines": "absent", **options})
    ((_, found),) = edge_conductance(model, batch_of_inputs(model, given, None), chosen)
    return found


def leaks(found: EdgeConductance) -> float:
    """Largest difference, relative to all that flows, between what enters and leaves a node."""
    worst = 0.0
    for stage, nodes in found.nodes.items():
        parts = [found.edges[stage], found.direct[stage]]
        if stage == DECODER and CROSS in found.edges:
            parts += [found.edges[CROSS], found.direct[CROSS]]
        leaving = sum(part.sum(axis=2) for part in parts)
        worst = max(worst, np.abs(leaving - nodes[1:]).max())
        worst = max(worst, np.abs(found.edges[stage].sum(axis=1) - nodes[:-1]).max())
    return float(worst / max(np.abs(rows).sum(axis=1).max() for rows in found.nodes.values()))


# --- by hand ----------------------------------------------------------------------------------
def logit_with_gates(model: Any, ids: torch.Tensor, target: int, gates: torch.Tensor) -> Any:
    """A BERT whose tokens (t,) are read by others with weights `gates` (n, t)."""
    t = ids.shape[1]
    others = 1.0 - torch.eye(t, dtype=gates.dtype)
    mask = gates.clamp_min(1e-30).log()[:, None, None, :] * others
    return model(input_ids=ids.expand(len(gates), -1), attention_mask=mask).logits[:, target]


@pytest.fixture(scope="module")
def bert() -> tuple[Any, dict[str, Any]]:
    return CASES["bert"].model(HEAD), CASES["bert"].inputs(HEAD)


def test_scores_are_integrated_gradients_of_the_gates(bert):
    model, given = bert
    ids, steps = given["input_ids"][:1], 8
    found = faded(model, {"input_ids": ids}, steps=steps)
    moves = (ids[0] > 2).double()
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    alpha = torch.tensor((nodes + 1) / 2)[:, None]
    gates = (moves * alpha**3 + (1 - moves)).requires_grad_()
    with torch.no_grad():
        target = int(model(input_ids=ids).logits.argmax())
    total = logit_with_gates(model, ids, target, gates).sum()
    slopes = torch.autograd.grad(total, gates)[0] * moves * 3 * alpha**2
    expected = (torch.tensor(weights / 2)[:, None] * slopes).sum(0).numpy()
    np.testing.assert_allclose(found.inputs[ENCODER], expected, atol=1e-7)
    assert np.abs(expected).max() > 1e-4


def test_change_is_that_of_hiding_the_tokens(bert):
    model, given = bert
    ids = given["input_ids"][:1]
    moves = (ids > 2).double()
    with torch.no_grad():
        target = int(model(input_ids=ids).logits.argmax())
        full, none = logit_with_gates(
            model, ids, target, torch.cat([torch.ones_like(moves), 1 - moves])
        )
    found = faded(model, {"input_ids": ids}, steps=1)
    assert found.change == pytest.approx(float(full - none), abs=1e-7)


def test_embeddings_carry_nothing(bert):
    found = faded(*bert, steps=2)
    assert not found.nodes[ENCODER][0].any()
    assert not found.edges[ENCODER][0].any()
    assert found.direct[ENCODER].any()


def test_a_token_does_not_read_itself_less(bert):
    found = faded(*bert, steps=2)
    assert not np.diagonal(found.direct[ENCODER], axis1=1, axis2=2).any()


# --- every family -----------------------------------------------------------------------------
ROUGH = ("distilbert", "qwen3", "gemma2", "gemma3_text", "t5")
"""ReLU, or norms of what nearly vanishes, in random models: 48 points are not enough."""


@pytest.mark.parametrize(("name", "head"), WITH_TEXT)
def test_conserved_and_complete(name, head):
    model = CASES[name].model(head)
    given = CASES[name].inputs(head)
    assert leaks(faded(model, given, steps=2)) < 1e-6
    found = faded(model, given, steps=48)
    assert found.completeness < (0.05 if name in ROUGH else 2e-3)
    if CASES[name].kind == "decoder":
        assert not np.triu(found.direct[DECODER], 1).any()


def test_leaks_are_seen(bert, monkeypatch):
    """A sabotaged reading, without the mean over keys, breaks conservation and is refused."""

    def careless(layer: Any, change: Any) -> Any:
        return layer.attention * layer.gradient * change

    monkeypatch.setattr(edges, "fading_values", careless)
    with pytest.raises(UnsupportedError, match="disagree"):
        faded(*bert, steps=2)


def test_paths_are_averaged(bert):
    model, given = bert
    one, two = (faded(model, given, baselines=each, steps=4) for each in ("absent", 15))
    both = faded(model, given, baselines=("absent", 15), steps=4)
    np.testing.assert_allclose(
        both.inputs[ENCODER], (one.inputs[ENCODER] + two.inputs[ENCODER]) / 2, atol=1e-9
    )
    np.testing.assert_allclose(both.direct[ENCODER], one.direct[ENCODER] / 2, atol=1e-9)
    assert not two.direct


# --- flow -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def explained() -> fo.Attribution:
    model, tokenizer = tiny_model(), wordpiece_tokenizer()
    tensor = Conductance(steps=8, baselines="absent", tolerance=None)
    return fo.Explainer(model, tokenizer, tensor=tensor)("a gripping film")


def test_flow_ends_at_the_tokens_that_fade(explained):
    assert explained.status == "optimal"
    assert explained.scores[explained.special] == pytest.approx(0.0, abs=1e-9)
    assert explained.scores.sum() == pytest.approx(explained.value, rel=1e-6)
    heads = {block.head for block in explained.solutions[0].network.blocks}
    tails = {b.tail for b in explained.solutions[0].network.blocks if b.head == "layer0"}
    assert "layer0" in heads
    assert len(tails) == len(heads)  # every layer reads the input


def test_maximum_flow_takes_no_more_than_is_there():
    model, tokenizer = tiny_model(), wordpiece_tokenizer()
    tensor = Conductance(steps=8, baselines="absent", tolerance=None)
    explainer = fo.Explainer(model, tokenizer, tensor=tensor, objective=fo.MaxFlow())
    found = explainer("a gripping film")
    for solution in found.solutions:
        into = sum(b.capacity.sum(0) for b in solution.network.blocks if b.head == "layer0")
        assert (solution.attributions <= into + 1e-9).all()


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_generated_text_is_explained(name):
    case = CASES[name]
    head = next(each for each in case.heads if each in ("CausalLM", "Seq2SeqLM"))
    model, given = case.model(head), case.inputs(head)
    explainer = fo.Explainer(model, tensor=Conductance(steps=4, baselines="absent", tolerance=None))
    found = explainer.explain_inputs(**given)
    found = found[0] if isinstance(found, list) else found
    assert np.isfinite(found.scores).all()
    assert found.status == "optimal"


def test_attention_along_the_fading_path(bert):
    model, given = bert
    one = {"input_ids": given["input_ids"][:1]}
    tensor = AttentionPath(steps=4, baselines="absent")
    found = fo.Explainer(model, tensor=tensor).explain_inputs(**one)
    plain = fo.Explainer(model, tensor=AttentionPath(steps=4, baselines=15)).explain_inputs(**one)
    assert found.scores.any()
    assert not np.allclose(found.scores, plain.scores)


@pytest.mark.parametrize("baselines", ["absent", "mixed", 15])
def test_special_tokens_that_the_decoder_echoes_stay(baselines):
    case = CASES["bart"]
    found = faded(case.model(HEAD), case.inputs(HEAD), steps=2, baselines=baselines)
    # the decoder of a classifier reads: a start token, then the text, whose first token is special
    np.testing.assert_array_equal(found.inputs[DECODER][:2], 0.0)
    assert found.inputs[DECODER][2:].any()


# --- what cannot be used ----------------------------------------------------------------------
def test_variants_are_refused():
    model, tokenizer = tiny_model(), wordpiece_tokenizer()
    tensor = Conductance(steps=2, baselines="absent", tolerance=None)
    explainer = fo.Explainer(
        model, tokenizer, tensor=tensor, capacities=fo.capacities.Residual(0.5)
    )
    with pytest.raises(InputError, match="leave capacities empty"):
        explainer("a film")


def test_models_with_attention_of_their_own_are_refused():
    case = CASES[next(name for name in CASES if name.startswith("deberta"))]
    model = case.model(HEAD)
    batch = batch_of_inputs(model, case.inputs(HEAD), None)
    with pytest.raises(UnsupportedError):
        next(edge_conductance(model, batch, PathOptions(baselines="absent")))
    explainer = fo.Explainer(model, tensor=AttentionPath(steps=2, baselines="absent"))
    with pytest.raises(UnsupportedError, match="choose another baseline"):
        explainer.explain_inputs(**case.inputs(HEAD))


def test_images_are_refused():
    case = CASES["vit"]
    head = case.heads[0]
    batch = batch_of_inputs(case.model(head), case.inputs(head), 0)
    with pytest.raises(InputError, match="cannot fade yet"):
        next(edge_conductance(case.model(head), batch, PathOptions(baselines="absent")))


def test_names_of_direct_edges():
    assert set(DIRECT) == {ENCODER, DECODER, CROSS}
    assert not set(DIRECT) & set(DIRECT.values())


# --- half absent, half other tokens -----------------------------------------------------------
def test_mixed_is_half_of_each(bert):
    model, given = bert
    one = {"input_ids": given["input_ids"][:1]}
    absent = faded(model, one, steps=4)
    tokens = faded(model, one, steps=4, baselines=None)
    mixed = faded(model, one, steps=4, baselines="mixed")
    half = (absent.inputs[ENCODER] + tokens.inputs[ENCODER]) / 2
    np.testing.assert_allclose(mixed.inputs[ENCODER], half, atol=1e-9)
    assert mixed.change == pytest.approx((absent.change + tokens.change) / 2)
    assert leaks(mixed) < 1e-6


def test_mixed_stands_alone():
    with pytest.raises(InputError, match="a mixture already"):
        PathOptions(baselines=("mixed", "pad"))


def test_presence_flow_is_a_method():
    found = fo.explain(tiny_model(), wordpiece_tokenizer(), "a gripping film", "presence-flow")
    assert found.status == "optimal"
    assert found.settings["tensor"] == "presence(steps=16)"
    assert found.settings["objective"] == "Entropy(tau=10.0)"
    assert found.settings["options"]["steps"] == 16
    other = fo.explain(
        tiny_model(), wordpiece_tokenizer(), "a gripping film", "presence-flow", steps=4, tau=1.0
    )
    assert other.settings["tensor"] == "presence(steps=4)"


def test_normalising_by_a_receptive_field_is_refused():
    case = CASES["gpt2"]
    tensor = Conductance(steps=2, baselines="absent", tolerance=None)
    explainer = fo.Explainer(case.model("CausalLM"), tensor=tensor, normalise="uniform_reference")
    with pytest.raises(InputError, match="leave normalise"):
        explainer.explain_inputs(**case.inputs("CausalLM"))


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_generated_text_has_a_row_for_every_token(name):
    model, tokenizer = language_model(name)
    tensor = Conductance(steps=2, baselines="absent", tolerance=None)
    matrix = fo.Explainer(model, tokenizer, tensor=tensor).explain_generation(
        "once upon a time", max_new_tokens=2
    )
    assert len(matrix.scores) == 2
    assert np.isfinite(matrix.scores).all()
    assert matrix.scores.any()
