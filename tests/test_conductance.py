"""Edge conductance: equal to direct Jacobians, conserved at every node, complete along the path."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from family_fixtures import CASES, MASK, PAIRS
from model_fixtures import tiny_model, wordpiece_tokenizer

import flowopt as fo
from flowopt.errors import FlowoptWarning, InputError, UnsupportedError
from flowopt.tensors import Conductance, tensor_spec
from flowopt.trace import batch_of_inputs, conductance, edges
from flowopt.trace.conductance import EdgeConductance, edge_conductance
from flowopt.trace.path import PathOptions, path_of
from flowopt.trace.reading import embeddings_of

FIRST, OTHER = 15, 16
"""Letters of the tiny vocabulary, taken as baseline tokens."""
HEAD = "SequenceClassification"
SHARED = [name for name in CASES if not name.startswith("deberta")]


def conducted(model: Any, given: dict[str, Any], **options: Any) -> EdgeConductance:
    target = 0 if "pixel_values" in given else None
    options = {"tolerance": None, "baselines": FIRST, **options}
    if "pixel_values" in given and options["baselines"] == FIRST:
        options["baselines"] = "zero"
    batch = batch_of_inputs(model, given, target)
    ((_, found),) = edge_conductance(model, batch, PathOptions(**options))
    return found


# --- the direct computation -------------------------------------------------------------------
def on_the_path(model: Any, given: dict[str, Any], alpha: float) -> dict[str, Any]:
    """What the model is called with at a point, and the change of it along the path."""
    if "pixel_values" in given:
        pixels = given["pixel_values"]
        return {"pixel_values": (alpha * pixels).requires_grad_(), "changes": [pixels]}
    found: dict[str, Any] = {"changes": []}
    sides = {"input_ids": ("inputs_embeds", model)}
    if "decoder_input_ids" in given:
        sides["input_ids"] = ("inputs_embeds", model.get_encoder())
        sides["decoder_input_ids"] = ("decoder_inputs_embeds", model.get_decoder())
    for name, (embeds, part) in sides.items():
        table, ids = part.get_input_embeddings(), given[name]
        x = table(ids).detach()
        start = table(torch.full_like(ids, FIRST)).detach()
        start[ids < 3] = x[ids < 3]  # padding, start and end stay
        found[embeds] = (start + alpha * (x - start)).requires_grad_()
        found["changes"].append(x - start)
    return found


def change_along(state: torch.Tensor, leaves: list, changes: list) -> torch.Tensor:
    """Derivative of a hidden state along the path, by differentiating a derivative."""
    weights = torch.zeros_like(state, requires_grad=True)
    slopes = torch.autograd.grad(state, leaves, weights, create_graph=True, allow_unused=True)
    both = zip(slopes, changes, strict=True)
    total = sum((slope * change).sum() for slope, change in both if slope is not None)
    return torch.autograd.grad(total, weights, retain_graph=True)[0]


def directly(model: Any, given: dict[str, Any], target: int, steps: int) -> dict[str, np.ndarray]:
    """Edge conductances from t vector-Jacobian products per layer and step."""
    model.set_attn_implementation("eager")
    points, weights = np.polynomial.legendre.leggauss(steps)
    sums: dict[str, np.ndarray] = {}
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        called = on_the_path(model, given, float(point))
        changes = called.pop("changes")
        out = model(**called, output_hidden_states=True, return_dict=True)
        logits = out.logits[0] if out.logits.ndim == 2 else out.logits[0, position(given)]
        value = logits[target]
        if "decoder_input_ids" in given:
            emitted = given["decoder_input_ids"][0, 1:].tolist()
            value = value + sum(out.logits[0, at, i] for at, i in enumerate(emitted))
        for stage, rows in stages_at(out, value, list(called.values()), changes):
            sums[stage] = sums.get(stage, 0) + weight * rows
    return sums


def position(given: dict[str, Any]) -> int:
    ids = given.get("decoder_input_ids", given["input_ids"])[0].tolist()
    return ids.index(MASK) if MASK in ids else len(ids) - 1


def stages_at(
    out: Any, value: Any, leaves: list, changes: list
) -> Iterator[tuple[str, np.ndarray]]:
    """Edges at one point of the path, by stage."""
    if "encoder_hidden_states" not in out:
        yield "only", rows_of(out.hidden_states, value, leaves, changes)
        return
    memory = out.encoder_hidden_states[-1]
    yield "encoder", rows_of(out.encoder_hidden_states, value, leaves, changes)
    yield "decoder", rows_of(out.decoder_hidden_states, value, leaves, changes)
    yield "cross", rows_of(out.decoder_hidden_states, value, leaves, changes, memory)


def rows_of(states: Any, value: Any, leaves: list, changes: list, below: Any = None) -> np.ndarray:
    """dy/dh_{l+1,i} . (dh_{l+1,i}/dh_{l,j}) . dh_{l,j}, or by nodes `below` directly."""
    layers = []
    for lower, upper in pairwise(states):
        (slope,) = torch.autograd.grad(value, upper, retain_graph=True)
        change = change_along(lower if below is None else below, leaves, changes)
        rows = []
        for i in range(upper.shape[1]):
            only = torch.zeros_like(slope)
            only[:, i] = slope[:, i]
            (pulled,) = torch.autograd.grad(upper, lower, only, retain_graph=True)
            if below is not None:
                by_lower = torch.autograd.grad(
                    lower, below, pulled, retain_graph=True, allow_unused=True
                )[0]
                (pulled,) = torch.autograd.grad(upper, below, only, retain_graph=True)
                pulled = pulled if by_lower is None else pulled - by_lower
            rows.append((pulled * change).sum(-1)[0])
        layers.append(torch.stack(rows))
    return torch.stack(layers).detach().numpy()


@pytest.mark.parametrize("name", SHARED)
def test_equal_to_direct_jacobians(name):
    head = CASES[name].heads[0]
    model, given = CASES[name].model(head), CASES[name].inputs(head)
    target = 0
    batch = batch_of_inputs(model, given, target)
    baseline = "zero" if "pixel_values" in given else FIRST
    options = PathOptions(steps=3, baselines=baseline, tolerance=None)
    ((_, found),) = edge_conductance(model, batch, options)
    expected = directly(model, given, target, steps=3)
    for stage, edges_of in found.edges.items():
        direct = expected.get(stage, expected.get("only"))
        # many families take the softmax in float32
        np.testing.assert_allclose(edges_of, direct, atol=2e-6 * np.abs(direct).max())


# --- conservation -----------------------------------------------------------------------------
def leaks(found: EdgeConductance) -> float:
    """Largest difference, relative to all that flows, between what enters and leaves a node."""
    worst = 0.0
    for stage, nodes in found.nodes.items():
        own = found.edges[stage]
        above = own.sum(axis=2)
        if stage == "decoder" and "cross" in found.edges:
            above = above + found.edges["cross"].sum(axis=2)
        worst = max(worst, np.abs(above - nodes[1:]).max())
        worst = max(worst, np.abs(own.sum(axis=1) - nodes[:-1]).max())
        if stage == "encoder" and "cross" in found.edges:
            worst = max(worst, np.abs(found.edges["cross"].sum(axis=(0, 1)) - nodes[-1]).max())
    return float(worst / max(np.abs(nodes).sum(axis=1).max() for nodes in found.nodes.values()))


@pytest.mark.parametrize(("name", "head"), [pair for pair in PAIRS if pair[0] in SHARED])
def test_conserved_whatever_the_steps(name, head):
    model = CASES[name].model(head)
    found = conducted(model, CASES[name].inputs(head), steps=2)
    assert leaks(found) < 1e-6
    assert max(np.abs(edges_of).max() for edges_of in found.edges.values()) > 1e-4
    if CASES[name].kind == "decoder":
        assert not np.triu(found.edges["decoder"], 1).any()


ROUGH = ("t5", "pegasus", "llama", "qwen3", "gemma3_text")
"""ReLU, or RMSNorm of embeddings that pass near zero: 32 steps are not always enough."""


@pytest.mark.parametrize("name", SHARED)
def test_complete_along_the_path(name):
    smaller = {"initializer_range": 0.2, "init_std": 0.2}
    head = "MaskedLM" if name == "distilbert" else CASES[name].heads[0]  # not the ReLU one
    model = CASES[name].model(head, **smaller)
    tolerance = 1e-3 if name in ROUGH else None
    found = conducted(model, CASES[name].inputs(head), tolerance=tolerance)
    assert found.steps == 32 or name in ROUGH
    assert found.total == pytest.approx(found.change, rel=1e-3)
    if len(found.nodes) == 1:  # one stack: every layer carries all of it
        np.testing.assert_allclose(
            found.nodes[next(iter(found.nodes))].sum(axis=1), found.total, rtol=1e-5
        )


def test_change_is_that_of_the_logits():
    model, given = CASES["bert"].model(HEAD), CASES["bert"].inputs(HEAD)
    ids, start = given["input_ids"], given["input_ids"].clone()
    start[ids > 2] = FIRST
    with torch.no_grad():
        change = model(input_ids=ids).logits[0, 0] - model(input_ids=start).logits[0, 0]
    assert conducted(model, given, steps=1).change == pytest.approx(float(change), abs=1e-12)


# --- integrated gradients ---------------------------------------------------------------------
def integrated_gradients(model: Any, ids: Any, start: Any, target: int, steps: int) -> np.ndarray:
    table = model.get_input_embeddings()
    x, low = table(ids).detach(), table(start).detach()
    sums = torch.zeros_like(x)
    points, weights = np.polynomial.legendre.leggauss(steps)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        at = (low + point * (x - low)).requires_grad_()
        logit = model(inputs_embeds=at).logits[0, target]
        sums += weight * torch.autograd.grad(logit, at)[0]
    return (sums * (x - low)).sum(-1)[0].double().numpy()


def test_input_nodes_are_integrated_gradients():
    explainer = fo.Explainer.from_pretrained(None)
    model, tokenizer = explainer.model, explainer.tokenizer
    encoded = dict(tokenizer("A warm and funny film.", return_tensors="pt"))
    (trace, found), *_ = edge_conductance(
        model, batch_of_inputs(model, encoded, 1, tokenizer), PathOptions(baselines="mask")
    )
    ids = encoded["input_ids"]
    start = ids.clone()
    start[0, 1:-1] = tokenizer.mask_token_id
    expected = integrated_gradients(model, ids, start, 1, 32)
    for sums in (found.nodes["encoder"][0], trace.tensors["encoder"][0].sum(axis=0)):
        np.testing.assert_allclose(sums, expected, atol=1e-5 * np.abs(expected).sum())
    assert found.total == pytest.approx(found.change, rel=1e-3)
    assert leaks(found) < 1e-5


def test_captum_agrees():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    model, ids = CASES["bert"].model(HEAD), CASES["bert"].inputs(HEAD)["input_ids"]
    start = torch.where(ids > 2, FIRST, ids)
    table = model.get_input_embeddings()
    method = attr.IntegratedGradients(lambda x: model(inputs_embeds=x).logits)
    scores = method.attribute(
        table(ids).detach(), table(start).detach(), target=0, n_steps=32, method="gausslegendre"
    )
    found = conducted(model, {"input_ids": ids})
    np.testing.assert_allclose(found.nodes["encoder"][0], scores.sum(-1)[0].numpy(), atol=1e-9)


# --- options ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bert() -> tuple[Any, dict[str, Any]]:
    return CASES["bert"].model(HEAD), CASES["bert"].inputs(HEAD)


def assert_same(one: EdgeConductance, two: EdgeConductance) -> None:
    for stage, expected in two.edges.items():
        np.testing.assert_allclose(one.edges[stage], expected, atol=1e-12)


def test_baselines(bert):
    model, given = bert
    first, second = (conducted(model, given, steps=4, baselines=b) for b in (FIRST, OTHER))
    both = conducted(model, given, steps=4, baselines=(FIRST, OTHER))
    mean = (first.edges["encoder"] + second.edges["encoder"]) / 2
    np.testing.assert_allclose(both.edges["encoder"], mean, atol=1e-12)
    assert both.change == pytest.approx((first.change + second.change) / 2)
    # the same baseline said in other ways
    ids = given["input_ids"]
    start = torch.where(ids > 2, FIRST, ids)
    for same in (start[0].numpy(), model.get_input_embeddings()(start)[0]):
        assert_same(conducted(model, given, steps=4, baselines=same), first)
    table = model.get_input_embeddings().weight.detach().clone()
    zero = torch.where(ids[0, :, None] > 2, 0.0, table[ids[0]])
    assert_same(
        conducted(model, given, steps=4, baselines="zero"),
        conducted(model, given, steps=4, baselines=zero),
    )


def test_default_baselines_are_the_tokens_there_are(bert):
    model, given = bert
    # the padding token's embedding is zero, and the config names no unknown one
    assert not model.get_input_embeddings().weight[0].any()
    default = conducted(model, given, steps=3, baselines=None)
    assert_same(default, conducted(model, given, steps=3, baselines="mask"))
    assert_same(default, conducted(model, given, steps=3, baselines=MASK))


def test_tokens_that_stay_pass_nothing_at_the_input(bert):
    found = conducted(*bert, steps=3)
    assert not found.edges["encoder"][0][:, [0, -1]].any()
    assert found.edges["encoder"][0][:, 1:-1].all(axis=0).any()
    assert found.edges["encoder"][1][0, [0, -1]].all()


def test_unknown_words_move_and_special_tokens_stay():
    model, tokenizer = tiny_model("bert"), wordpiece_tokenizer()
    encoded = dict(tokenizer("good zebra [MASK]", return_tensors="pt"))
    assert encoded["input_ids"][0, 2] == tokenizer.unk_token_id
    for names in (tokenizer, None):
        batch = batch_of_inputs(model, encoded, 0, names)
        path = path_of(model, batch, PathOptions(baselines="zero"))
        # without a tokenizer only what the config names is known to be special
        stay = [True, False, False, True, True] if names else [False] * 5
        assert path.fixed["source"].tolist() == stay


def test_points_in_parts_and_padded_batches(bert, monkeypatch):
    model, given = bert
    whole = conducted(model, given, steps=5)
    monkeypatch.setattr(conductance, "chunk_size", lambda *_: 2)
    assert_same(conducted(model, given, steps=5), whole)
    ids = given["input_ids"][0].tolist()
    rows = {
        "input_ids": [[1, 9, 2, 0, 0, 0, 0], ids],
        "attention_mask": [[1] * 3 + [0] * 4, [1] * 7],
    }
    batch = batch_of_inputs(model, rows, 0)
    options = PathOptions(steps=5, baselines=FIRST, tolerance=None)
    (_, short), (_, long) = edge_conductance(model, batch, options)
    assert_same(long, whole)
    assert_same(short, conducted(model, {"input_ids": [[1, 9, 2]]}, steps=5))


def test_embeddings_as_inputs(bert):
    model, given = bert
    x = model.get_input_embeddings()(given["input_ids"]).detach()
    found = conducted(model, {"inputs_embeds": x}, steps=4, baselines=FIRST)
    start = torch.full_like(given["input_ids"], FIRST)
    assert_same(found, conducted(model, given, steps=4, baselines=start[0]))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_prefix_that_stays(name):
    model, given = CASES[name].model("Seq2SeqLM"), CASES[name].inputs("Seq2SeqLM")
    moving = conducted(model, given, steps=2)
    staying = conducted(model, given, steps=2, prefix=False)
    assert moving.nodes["decoder"][0][1:].all()
    assert not staying.nodes["decoder"][0].any()
    assert not moving.nodes["decoder"][0][0]  # the start token
    assert staying.edges["decoder"][1].any()
    assert leaks(staying) < 1e-6


def test_a_generated_continuation_that_stays():
    model, given = CASES["gpt2"].model("CausalLM"), CASES["gpt2"].inputs("CausalLM")
    batch = batch_of_inputs(model, given, prompt_length=4)
    for prefix in (True, False):
        options = PathOptions(steps=2, baselines=FIRST, prefix=prefix, tolerance=None)
        ((_, found),) = edge_conductance(model, batch, options)
        assert found.nodes["decoder"][0][1:4].all()
        assert bool(found.nodes["decoder"][0][4:-1].any()) == prefix
        assert leaks(found) < 1e-6


def test_steps_are_doubled_until_the_value_is_right(bert):
    plain = conducted(*bert, steps=2)
    assert plain.steps == 2
    assert plain.completeness > 1e-6
    finer = conducted(*bert, steps=2, tolerance=1e-6)
    assert finer.steps in (4, 8, 16)
    assert finer.completeness <= 1e-6 < plain.completeness
    with pytest.warns(FlowoptWarning, match="even with 8 steps: other baselines"):
        conducted(*bert, steps=1, tolerance=1e-300)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "positive integer"),
        ({"steps": 2.5}, "positive integer"),
        ({"steps": True}, "positive integer"),
        ({"tolerance": 0}, "tolerance must be"),
        ({"tolerance": "much"}, "tolerance must be"),
        ({"baselines": ()}, "at least one baseline"),
        ({"baselines": "nothing"}, "no baseline 'nothing'; known are pad, mask, unknown, zero"),
        ({"baselines": [None]}, "array"),
        ({"baselines": 1.5}, "array"),
        ({"baselines": np.full((7, 12), np.nan)}, "finite"),
        ({"baselines": "unknown"}, "no token for the baseline 'unknown'; it has pad, mask, zero"),
        ({"baselines": 99}, "baseline token 99 is out of range"),
        ({"baselines": -1}, "out of range"),
        ({"baselines": np.zeros((3, 12))}, r"must have shape \(7, 12\) or \(7,\)"),
        ({"baselines": np.zeros(7)}, "integers"),
    ],
)
def test_wrong_options(bert, options, message):
    with pytest.raises(InputError, match=message):
        conducted(*bert, **{"steps": 1, **options})


def test_models_that_cannot_be_followed():
    given = CASES["deberta-v2"].inputs(HEAD)
    with pytest.raises(UnsupportedError, match="agf-path"):
        conducted(CASES["deberta-v2"].model(HEAD), given)
    head = "ImageClassification"
    images, pixels = CASES["vit"].model(head), CASES["vit"].inputs(head)
    with pytest.raises(InputError, match="images have no tokens"):
        conducted(images, pixels, baselines="mask")


def test_the_model_is_left_as_it_was():
    model, given = CASES["bart"].model("Seq2SeqLM"), CASES["bart"].inputs("Seq2SeqLM")
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    implementation = model.config._attn_implementation
    conducted(model, given, steps=1)
    assert model.training
    assert model.config._attn_implementation == implementation
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(table._forward_hooks for table in embeddings_of(model))
    sides = (model.get_encoder(), model.get_decoder())
    assert not any(side._forward_pre_hooks for side in sides)


# --- sabotage ---------------------------------------------------------------------------------
def without_the_keys(layer, key_change, value_change, slopes):
    return layer.attention * (layer.output_gradient @ value_change.transpose(-1, -2))


def without_the_softmax(layer, key_change, value_change, slopes):
    by_key = layer.attention * layer.gradient * (layer.query @ key_change.transpose(-1, -2))
    return without_the_keys(layer, key_change, value_change, slopes) + slopes * by_key


@pytest.mark.parametrize("wrong", [without_the_keys, without_the_softmax])
def test_wrong_edges_are_refused(bert, wrong, monkeypatch):
    monkeypatch.setattr(edges, "edge_values", wrong)
    with pytest.raises(UnsupportedError, match="edges and nodes disagree"):
        conducted(*bert, steps=2)


def test_a_wrong_scale_is_refused(monkeypatch):
    right = edges._score_slopes
    monkeypatch.setattr(edges, "_score_slopes", lambda *a: 1.5 * right(*a))
    model, given = CASES["gemma2"].model("CausalLM"), CASES["gemma2"].inputs("CausalLM")
    with pytest.raises(UnsupportedError, match="decoder layer"):
        conducted(model, given, steps=2)
    # or the soft cap forgotten
    monkeypatch.setattr(edges, "_score_slopes", lambda call, *_: call.options["scaling"])
    with pytest.raises(UnsupportedError, match="decoder layer"):
        conducted(model, given, steps=2)


def test_a_forgotten_residual_leaks(bert):
    found = conducted(*bert, steps=2)
    diagonal = np.arange(found.edges["encoder"].shape[1])
    found.edges["encoder"][:, diagonal, diagonal] = 0.0
    assert leaks(found) > 1e-2
    with pytest.raises(UnsupportedError, match="encoder layer 0: edges and nodes disagree"):
        conductance._check_nodes(found.edges, found.nodes, {}, torch.float64)


def test_positions_that_mix_elsewhere_are_refused(bert, monkeypatch):
    model, given = bert
    dense = model.bert.encoder.layer[0].output.dense
    handle = dense.register_forward_hook(lambda m, a, out: out + out.roll(1, dims=1))
    try:
        with pytest.raises(UnsupportedError, match="positions that meet nowhere else"):
            conducted(model, given, steps=2)
    finally:
        handle.remove()


# --- flow -------------------------------------------------------------------------------------
def test_signed_flow_from_the_readout(bert):
    model, given = bert
    tensor = Conductance(steps=4, baselines=FIRST, tolerance=None)
    found = fo.Explainer(model, tensor=tensor).explain_inputs(target=0, **given)
    expected = conducted(model, given, steps=4).edges["encoder"]
    halves = [
        fo.solve(
            fo.FlowNetwork.layered(np.maximum(sign * expected, 0), sources=[0]),
            fo.LogBarrier(gap=0.05),
        )
        for sign in (1, -1)
    ]
    scores = halves[0].attributions - halves[1].attributions
    np.testing.assert_allclose(found.scores, scores, atol=1e-6 * np.abs(scores).max())
    assert found.settings["sources"] == [0]
    assert found.settings["tensor"] == "conductance(steps=4, baselines=15, tolerance=None)"
    assert found.status == "optimal"
    assert found.value == pytest.approx(found.scores.sum())
    everywhere = fo.Explainer(model, tensor=tensor, sources="all").explain_inputs(target=0, **given)
    assert everywhere.settings["sources"] == "all"


@pytest.mark.parametrize(
    ("name", "head"), [("gpt2", "CausalLM"), ("t5", "Seq2SeqLM"), ("vit", "ImageClassification")]
)
@pytest.mark.parametrize("unroll", [True, False])
def test_flow_of_every_kind(name, head, unroll):
    model, given = CASES[name].model(head), CASES[name].inputs(head)
    tensor = Conductance(steps=2, baselines="zero" if name == "vit" else FIRST, tolerance=None)
    found = fo.Explainer(model, tensor=tensor, unroll=unroll).explain_inputs(**given)
    assert found.status == "optimal"
    assert np.isfinite(found.scores).all()
    assert found.scores.any()
    prefix = 0 if found.prefix_scores is None else found.prefix_scores.sum()
    assert (name == "t5" and not unroll) == (found.prefix_scores is not None)
    assert found.value == pytest.approx(found.scores.sum() + prefix, rel=1e-6)


def test_the_default_options_have_the_plain_name():
    spec = tensor_spec("conductance")
    assert spec.name == Conductance().spec.name == "conductance"
    assert spec.signed
    assert spec.residual
    assert Conductance(baselines=np.zeros(3, int)).spec.name == "conductance(baselines=array)"
    with pytest.raises(InputError, match="use Explainer"):
        fo.information_tensor("conductance", np.full((1, 1, 2, 2), 0.5), np.ones((1, 1, 2, 2)))
