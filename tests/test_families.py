"""Every family of models: right numbers, right networks, and a model that is left as it was."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from family_fixtures import CASES, CAUSAL, CLASSIFIER, END, MASK, PAD, PAIRS, START

from flowopt.errors import InputError, UnsupportedError
from flowopt.explainer import Explainer
from flowopt.trace import (
    AttentionLayer,
    Family,
    Reduction,
    Trace,
    batch_of_inputs,
    family_of,
    known_families,
    register_family,
    trace_batch,
)
from flowopt.trace import families as families_module
from flowopt.trace.families import guess_family

ONE_EACH = [(name, case.heads[0]) for name, case in CASES.items()]
RETURNED = ("deberta-v2", "deberta-v3")
"""They compute their attention by themselves; flowopt reads what they return."""


@functools.cache
def model_of(name: str, head: str) -> Any:
    """A model for all tests: they must leave it as it is, which is a test of its own."""
    return CASES[name].model(head)


def read(model: Any, inputs: Any, gradient: bool = True, **options: Any) -> Trace:
    batch = batch_of_inputs(model, inputs, unroll=False, **options)
    (trace,) = trace_batch(model, batch, gradient)
    return trace


def plain(model: Any, inputs: Any, trace: Trace) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Attention and its gradient as plain eager attention and autograd have them."""
    before = model.get_encoder().config if model.config.is_encoder_decoder else model.config
    assert before._attn_implementation in ("sdpa", "eager")
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        outputs = model(**inputs, output_attentions=True, return_dict=True)
    finally:
        model.set_attn_implementation(implementation)
    names = {"encoder": "encoder_attentions", "decoder": "decoder_attentions"}
    names = {**names, "cross": "cross_attentions"}
    if not model.config.is_encoder_decoder:
        names = {next(iter(trace.heads)): "attentions"}
    row = outputs.logits[0]
    if row.ndim == 2:
        tokens = inputs["input_ids"][0].tolist()
        row = row[tokens.index(MASK) if MASK in tokens else -1]
    assert trace.target is not None
    assert int(row.argmax()) == trace.target.index
    found = {}
    for stage, name in names.items():
        layers = outputs[name]
        slopes = torch.autograd.grad(row[trace.target.index], layers, retain_graph=True)
        found[stage] = tuple(
            torch.stack([each[0] for each in tensors]).detach().numpy()
            for tensors in (layers, slopes)
        )
    return found


def differences(trace: Trace, expected: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """What of a trace is not as expected."""
    found = [] if set(trace.heads) == set(expected) else ["stages"]
    for stage, (attention, gradient) in expected.items():
        heads = trace.heads[stage]
        size = np.abs(gradient).max()
        assert size > 1e-6  # otherwise this is no test
        if not np.allclose(heads.attention, attention, atol=1e-10):
            found.append(f"{stage} attention")
        if heads.gradient is None or not np.allclose(heads.gradient, gradient, atol=1e-9 * size):
            found.append(f"{stage} gradient")
    return found


# --- the numbers ---------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_against_plain_attention_and_autograd(name, head):
    model, inputs = model_of(name, head), CASES[name].inputs(head)
    trace = read(model, inputs)
    assert not differences(trace, plain(model, inputs, trace))
    without = read(model, inputs, gradient=False)
    for stage, heads in without.heads.items():
        assert heads.gradient is None
        np.testing.assert_allclose(heads.attention, trace.heads[stage].attention, atol=1e-12)


def test_wrong_traces_are_caught():
    model, inputs = model_of("llama", CAUSAL), CASES["llama"].inputs(CAUSAL)
    trace = read(model, inputs)
    expected = plain(model, inputs, trace)
    right = trace.heads["decoder"]
    for wrong, message in (
        (SimpleNamespace(attention=right.attention[::-1], gradient=right.gradient), "attention"),
        (SimpleNamespace(attention=right.attention, gradient=right.gradient[::-1]), "gradient"),
        (SimpleNamespace(attention=right.attention[:, ::-1], gradient=right.gradient), "attention"),
        (SimpleNamespace(attention=right.attention, gradient=2 * right.gradient), "gradient"),
        (SimpleNamespace(attention=right.attention, gradient=None), "gradient"),
    ):
        found = differences(SimpleNamespace(heads={"decoder": wrong}), expected)
        assert found == [f"decoder {message}"]
    other = read(model, inputs, target=(trace.target.index + 1) % 20)
    assert differences(other, expected) == ["decoder gradient"]


def padded(case: Any, head: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two examples of different length: together, and each alone."""
    alone = [case.inputs(head, letters) for letters in ((5, 9, 7, 6, 8), (11, 4, 12))]
    together = {}
    for name in alone[0]:
        rows = [each[name][0].tolist() for each in alone]
        length = max(map(len, rows))
        together[name] = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
        mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
        together[name.replace("input_ids", "attention_mask")] = torch.tensor(mask)
    return together, alone


@pytest.mark.parametrize(
    ("name", "head"), [pair for pair in PAIRS if CASES[pair[0]].kind != "vision"]
)
def test_a_padded_batch_equals_its_examples_alone(name, head):
    model, case = model_of(name, head), CASES[name]
    together, alone = padded(case, head)
    batch = batch_of_inputs(model, together)
    for trace, inputs in zip(trace_batch(model, batch), alone, strict=True):
        (expected,) = trace_batch(model, batch_of_inputs(model, inputs))
        assert trace.readout == expected.readout
        assert trace.target.index == expected.target.index
        assert trace.target.logit == pytest.approx(expected.target.logit, abs=1e-9)
        for stage, heads in expected.heads.items():
            found = trace.heads[stage]
            np.testing.assert_allclose(found.attention, heads.attention, atol=1e-9)
            scale = np.abs(heads.gradient).max()
            np.testing.assert_allclose(found.gradient, heads.gradient, atol=1e-8 * scale)


def test_padding_that_is_not_masked_is_caught():
    """The comparison above is one that a missing mask would fail."""
    model, case = model_of("bert", CLASSIFIER), CASES["bert"]
    together, alone = padded(case, CLASSIFIER)
    del together["attention_mask"]
    _, trace = trace_batch(model, batch_of_inputs(model, together))
    expected = read(model, alone[1])
    size = expected.attention.shape[-1]
    assert not np.allclose(trace.attention[..., :size, :size], expected.attention, atol=1e-3)


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_attributions_are_certified_and_sum_to_the_flow(name, head):
    model, case = model_of(name, head), CASES[name]
    attribution = Explainer(model).explain_inputs(**case.inputs(head))
    assert attribution.status == "optimal"
    assert attribution.value > 0
    assert attribution.scores.sum() == pytest.approx(attribution.value, rel=1e-9)
    assert (attribution.scores >= 0).all()
    assert attribution.certificate.conservation <= 1e-9
    assert np.isfinite(attribution.certificate.attribution_error).all()
    assert len(attribution.scores) == len(attribution.tokens)
    if case.kind == "vision":
        assert attribution.grid == (3, 2)
        assert attribution.tokens[-1] == "2,1"


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_no_capacity_where_the_model_does_not_look(name, head):
    case = CASES[name]
    model, tokens = model_of(name, head), 7
    trace = read(model, case.inputs(head))
    if case.kind == "decoder" or "decoder" in trace.heads:
        heads = trace.heads["decoder"]
        assert heads.attention.shape[2] > 3
        assert not np.triu(heads.attention, 1).any()
        assert not np.triu(heads.attention * heads.gradient, 1).any()
    else:
        assert np.triu(trace.attention, 1).any()
    for layer, window in enumerate(case.windows):
        back = np.subtract.outer(np.arange(tokens), np.arange(tokens))
        seen = (back >= 0) & (back < (window or tokens))
        attention = trace.attention[layer]
        assert (attention[:, seen] > 0).all()
        assert not attention[:, ~seen].any()
    if case.windows:  # what lies beyond all windows gets no flow
        attribution = Explainer(model).explain_inputs(**case.inputs(head))
        reach = sum((window or tokens) - 1 for window in case.windows)
        assert not attribution.scores[: max(tokens - 1 - reach, 0)].any()


def test_heads_and_what_they_read():
    expected = {
        ("bert", CLASSIFIER): 0,
        ("bert", "MaskedLM"): 2,
        ("modernbert", CLASSIFIER): 0,
        ("modernbert-mean", CLASSIFIER): None,
        ("llama", CAUSAL): 6,
        ("llama", CLASSIFIER): 6,
        ("t5", "Seq2SeqLM"): 4,
        ("bart", CLASSIFIER): 6,
        ("vit", "ImageClassification"): 0,
        ("deit", "DeiTForImageClassification"): 0,
        ("deit", "DeiTForImageClassificationWithTeacher"): None,
    }
    for (name, head), readout in expected.items():
        trace = read(model_of(name, head), CASES[name].inputs(head))
        assert trace.readout == readout, name
    for name, head in PAIRS:  # the gradient of the last layer shows what is read
        trace = read(model_of(name, head), CASES[name].inputs(head))
        top = trace.heads.get("decoder") or trace.heads["encoder"]
        alive = np.flatnonzero(np.abs(top.gradient[-1]).sum(axis=(0, 2)))
        assert trace.readout is None or alive.tolist() == [trace.readout], name
        assert trace.readout is not None or len(alive) > 1, name


# --- the model is left alone ---------------------------------------------------------------------
def state_of(model: Any) -> dict[str, Any]:
    """All that could be changed by reading a model."""
    modules = list(model.modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "attention": [
            module.config._attn_implementation
            for module in modules
            if hasattr(getattr(module, "config", None), "_attn_implementation")
        ],
        "outputs": [
            module.config.output_attentions for module in modules if hasattr(module, "config")
        ],
        "hooks": [len(getattr(module, hook)) for module in modules for hook in hooks],
        "training": [module.training for module in modules],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grad": [parameter.grad is None for parameter in model.parameters()],
        "weights": [float(parameter.detach().sum()) for parameter in model.parameters()],
    }


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_the_model_is_left_as_it_was(name, head):
    model, inputs = model_of(name, head), CASES[name].inputs(head)
    before = state_of(model)
    read(model, inputs)
    assert state_of(model) == before
    model.train()
    next(iter(model.children())).eval()
    changed = state_of(model)
    try:
        first, second = (read(model, inputs) for _ in range(2))
        assert state_of(model) == changed != before
    finally:
        model.eval()
    for stage, heads in first.heads.items():  # no dropout
        np.testing.assert_array_equal(heads.gradient, second.heads[stage].gradient)


def test_changes_of_a_model_are_seen():
    """The check above fails for a reader that leaves something behind."""
    model = CASES["bert"].model(CLASSIFIER)
    before, block = state_of(model), model.bert.encoder.layer[0]
    for change in (
        lambda: model.set_attn_implementation("eager"),
        lambda: block.register_forward_hook(lambda *_: None),
        lambda: block.train(),
        lambda: model.classifier.requires_grad_(False),
        lambda: model.classifier.weight.data.add_(1.0),
    ):
        change()
        after = state_of(model)
        assert after != before
        before = after


def test_parts_with_attention_of_their_own_keep_it():
    model = CASES["t5"].model("Seq2SeqLM")
    model.get_encoder().set_attn_implementation("eager")
    before = state_of(model)
    assert set(before["attention"]) == {"eager", "sdpa"}
    read(model, CASES["t5"].inputs("Seq2SeqLM"))
    assert state_of(model) == before


@pytest.mark.parametrize(("name", "head"), ONE_EACH)
def test_frozen_parameters_without_grad(name, head):
    case = CASES[name]
    expected = read(model_of(name, head), case.inputs(head))
    model = case.model(head).requires_grad_(False)
    with torch.no_grad():
        found = read(model, case.inputs(head))
    with torch.inference_mode():
        again = read(model, case.inputs(head))
    for stage, heads in expected.heads.items():
        for trace in (found, again):
            np.testing.assert_allclose(trace.heads[stage].gradient, heads.gradient, atol=1e-9)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "head"), ONE_EACH)
def test_half_precision(name, head, dtype):
    case = CASES[name]
    model = case.model(head).to(dtype)
    exact = case.model(head)  # of the same rounded weights
    exact.load_state_dict(
        {key: each.to(dtype).double() for key, each in exact.state_dict().items()}
    )
    target = read(exact, case.inputs(head)).target.index
    expected = read(exact, case.inputs(head), target=target)
    found = read(model, case.inputs(head), target=target)
    for stage, heads in expected.heads.items():
        assert np.abs(found.heads[stage].attention - heads.attention).max() < 0.1
        assert np.isfinite(found.heads[stage].gradient).all()


# --- values and what becomes of them -------------------------------------------------------------
PROJECTED = [pair for pair in ONE_EACH if pair[0] not in RETURNED]


def blocks_of(model: Any, inputs: Any, gradient: bool, spoil: Any = None) -> list[tuple[Any, Any]]:
    """For each attention: sum over heads of A V W_O, and what its projection returned."""
    from flowopt.trace.recorder import Recorder, stage_of

    layers: dict[tuple[str, int], Any] = {}

    def keep(layer: AttentionLayer) -> Any:
        layers[layer.stage, layer.index] = layer
        return layer.attention

    batch = batch_of_inputs(model, inputs, unroll=False)
    family = family_of(model)
    recorder = Recorder(model, family, batch, Reduction(keep, gradient))
    outputs: dict[tuple[str, int], Any] = {}
    calls: dict[str, int] = {}
    handles = []
    for name in sorted({n for n, m in model.named_modules() if is_projection(n, family)}):
        module = model.get_submodule(name)

        def listen(module: Any, _: Any, output: Any, name: str = name) -> None:
            stage = stage_of(family.kind, name)
            index = calls.get(stage, 0)
            calls[stage] = index + 1
            bias = 0 if module.bias is None else module.bias.detach()
            outputs[stage, index] = (output[0].detach() - bias).numpy()

        handles.append(module.register_forward_hook(listen))
    list(trace_batch(model, batch, gradient, reduction=recorder.reduction))
    for handle in handles:
        handle.remove()
    found = []
    for place, layer in layers.items():
        projection = layer.projection if spoil is None else spoil(layer.projection)
        heads = torch.einsum("hqk,hkd,hdw->qw", layer.attention, layer.value, projection)
        found.append((heads.detach().numpy(), outputs[place]))
    return found


def is_projection(name: str, family: Family) -> bool:
    """Whether a module of that name is the layer behind attention heads."""
    path = family.projection.removeprefix("../")
    return name.endswith("attention." + path) or (
        name.rsplit(".", 1)[-1] == path and "att" in name.lower()
    )


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize(("name", "head"), PROJECTED)
def test_projections(name, head, gradient):
    model = model_of(name, head)
    found = blocks_of(model, CASES[name].inputs(head), gradient)
    trace = read(model, CASES[name].inputs(head), gradient=False)
    assert len(found) == sum(len(heads.attention) for heads in trace.heads.values())
    for heads, output in found:
        np.testing.assert_allclose(heads, output, atol=1e-9)


def test_wrong_projections_are_caught():
    model, inputs = model_of("llama", CAUSAL), CASES["llama"].inputs(CAUSAL)
    for spoil in (lambda p: p.flip(0), lambda p: p.flip(1), lambda p: p.flip(2), lambda p: 2 * p):
        for heads, output in blocks_of(model, inputs, True, spoil):
            assert not np.allclose(heads, output, atol=1e-3)


@pytest.mark.parametrize(("name", "head"), PROJECTED)
def test_queries_and_keys_make_the_gradient(name, head):
    """G = dO V^T, and queries are as multiplied with the keys."""
    layers: list[AttentionLayer] = []

    def keep(layer: AttentionLayer) -> Any:
        layers.append(layer)
        return layer.attention

    model, inputs = model_of(name, head), CASES[name].inputs(head)
    list(trace_batch(model, batch_of_inputs(model, inputs), reduction=Reduction(keep)))
    assert layers
    for layer in layers:
        product = layer.output_gradient @ layer.value.transpose(1, 2)
        np.testing.assert_allclose(product.numpy(), layer.gradient.numpy(), atol=1e-6)
        assert layer.query.shape == layer.output_gradient.shape[:2] + layer.key.shape[2:]
        if name in ("t5", "gemma2"):  # a bias, or a cap, on the scores
            continue
        scores = layer.query @ layer.key.transpose(1, 2)
        seen = layer.attention > 0
        logs = torch.where(seen, layer.attention.clamp(min=1e-300).log(), 0)
        # the scores are the logarithms up to a factor for all, and a constant for each row
        counts = seen.sum(-1, keepdim=True)
        centred = [
            torch.where(seen, each - (each * seen).sum(-1, keepdim=True) / counts, 0)
            for each in (scores, logs)
        ]
        factor = (centred[0] * centred[1]).sum() / (centred[0] ** 2).sum()
        # (many models take the softmax in single precision)
        np.testing.assert_allclose(factor * centred[0], centred[1], atol=1e-5)


# --- generated tokens ----------------------------------------------------------------------------
def unrolled(name: str, head: str, earlier: bool) -> Any:
    """Explain the token after some generated ones, with all their logits or the last one's."""
    model, inputs = model_of(name, head), CASES[name].inputs(head)
    explainer = Explainer(model)
    given = {"prompt_length": 4} if head == CAUSAL else {}
    batch = batch_of_inputs(model, inputs, unroll=earlier, **given)
    assert bool(batch.goals[0].earlier) == earlier
    spec = Explainer(model).tensor
    assert spec == "agf"
    from flowopt.tensors import tensor_spec

    (trace,) = trace_batch(model, batch, reduction=tensor_spec("agf").reduction)
    return explainer.explain_trace(trace)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "t5", "bart", "marian"])
def test_the_prefix_does_not_drop_out_of_an_unrolled_network(name):
    head = CASES[name].heads[0]
    whole, last_only = (unrolled(name, head, earlier) for earlier in (True, False))
    for attribution in (whole, last_only):
        assert attribution.status == "optimal"
        assert attribution.scores.sum() == pytest.approx(attribution.value)
    # With the last logit alone every top node but one is dead, and so is every link to it.
    links = [flow_of_links(attribution) for attribution in (whole, last_only)]
    assert links[0] > 1e-3 * whole.value
    assert links[1] == 0


def flow_of_links(attribution: Any) -> float:
    """Flow that passes from generated tokens to the positions that emitted them."""
    (solution,) = attribution.solutions
    (link,) = solution.network.links
    inflow = solution.node_flows[link.head][link.pairs[:, 1]]
    return float(inflow.sum())


def test_goals_of_generated_tokens():
    model, inputs = model_of("gpt2", CAUSAL), CASES["gpt2"].inputs(CAUSAL)
    ids = inputs["input_ids"][0].tolist()
    (goal,) = batch_of_inputs(model, inputs, prompt_length=4).goals
    assert goal.position == 6
    assert goal.earlier == ((3, ids[4]), (4, ids[5]), (5, ids[6]))
    model, inputs = model_of("t5", "Seq2SeqLM"), CASES["t5"].inputs("Seq2SeqLM")
    (goal,) = batch_of_inputs(model, inputs).goals
    decoder = inputs["decoder_input_ids"][0].tolist()
    assert goal.earlier == tuple(enumerate(decoder[1:]))


def test_gradients_are_of_the_sum_of_logits():
    model, inputs = model_of("llama", CAUSAL), CASES["llama"].inputs(CAUSAL)
    (trace,) = trace_batch(model, batch_of_inputs(model, inputs, prompt_length=5))
    ids = inputs["input_ids"][0]
    parts = []
    for length, token in ((7, trace.target.index), (6, int(ids[6])), (5, int(ids[5]))):
        one = read(model, {"input_ids": ids[None, :length]}, target=token)
        whole = np.zeros_like(trace.gradient)
        whole[:, :, :length, :length] = one.gradient
        parts.append(whole)
    # above the diagonal, where attention cannot be, a shorter text has no gradient to compare
    causal = np.tril(trace.gradient)
    np.testing.assert_allclose(causal, np.tril(sum(parts)), atol=1e-6)
    assert not np.allclose(causal, np.tril(parts[0]), atol=1e-3)


# --- classifiers that read the last token --------------------------------------------------------
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_classifiers_without_a_padding_token(name):
    case = CASES[name]
    model = case.model(CLASSIFIER, pad_token_id=None)
    trace = read(model, case.inputs(CLASSIFIER))
    assert trace.readout == 6
    together, _ = padded(case, CLASSIFIER)
    with pytest.raises(InputError, match="pad_token_id, which is not set"):
        list(trace_batch(model, batch_of_inputs(model, together)))


def test_padding_that_the_model_would_read():
    case = CASES["llama"]
    model, ids = model_of("llama", CLASSIFIER), [START, 5, 9, END]
    mask = {"attention_mask": [[1, 1, 1, 1, 0, 0]]}
    trace = read(model, {"input_ids": [[*ids, PAD, PAD]], **mask})
    assert trace.readout == 3
    with pytest.raises(InputError, match=r"position 5 of example 0 is masked.*pad_token_id"):
        read(model, {"input_ids": [[*ids, 7, 7]], **mask})
    left = read(model, {"input_ids": [[PAD, PAD, *ids]], "attention_mask": [[0, 0, 1, 1, 1, 1]]})
    assert left.readout == 3
    embedded = model.get_input_embeddings()(torch.tensor([[*ids, PAD, PAD]]))
    with pytest.raises(InputError, match="position 5 of example 0 is masked"):
        read(model, {"inputs_embeds": embedded, **mask})
    assert read(model, {"inputs_embeds": embedded}).readout == 5
    with pytest.raises(InputError, match="prompt_length"):
        read(model, case.inputs(CLASSIFIER), prompt_length=3)


@pytest.mark.parametrize("name", ["t5", "bart", "mbart"])
def test_classifiers_that_read_the_end_of_a_text(name):
    model = model_of(name, CLASSIFIER)
    trace = read(model, {"input_ids": [[START, 5, END, 9, 7]]})
    assert trace.readout == 2
    assert trace.echo
    with pytest.raises(InputError, match=f"no end-of-text token {END}"):
        read(model, {"input_ids": [[START, 5, 9, 7]]})


# --- models that are not in the table ------------------------------------------------------------
def test_unknown_models_are_guessed():
    config = transformers.OPTConfig(
        vocab_size=20, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, ffn_dim=10,
        word_embed_proj_dim=12, max_position_embeddings=24, dropout=0.0, init_std=0.4,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.OPTForCausalLM(config).double().eval()
    assert "opt" not in known_families()
    assert family_of(model) == Family("decoder", readout="last")
    inputs = {"input_ids": torch.tensor([[2, 5, 9, 7, 6]])}
    trace = read(model, inputs)
    assert not differences(trace, plain(model, inputs, trace))
    attribution = Explainer(model).explain_inputs(**inputs)
    assert attribution.status == "optimal"
    assert attribution.settings["sources"] == [4]


def test_models_that_bring_their_own_attention():
    config = transformers.BloomConfig(
        vocab_size=20, hidden_size=12, n_layer=2, n_head=2, initializer_range=0.4
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BloomForCausalLM(config).double().eval()
    inputs = {"input_ids": torch.tensor([[2, 5, 9, 7, 6]])}
    trace = read(model, inputs)
    assert not differences(trace, plain(model, inputs, trace))


def test_unknown_models_are_refused_with_advice(monkeypatch):
    config = SimpleNamespace(model_type="roberta-like", is_encoder_decoder=False)
    with pytest.raises(UnsupportedError) as caught:
        guess_family(config, "MyForSequenceClassification")
    message = str(caught.value)
    for part in (
        "models of type 'roberta-like' are not known",
        "closest known one is 'roberta'",
        "flowopt.trace.register_family('roberta-like'",
    ):
        assert part in message
    monkeypatch.setattr(families_module, "_FAMILIES", dict(families_module._FAMILIES))
    register_family("roberta-like", Family(readout=3))
    assert guess_family(config, "MyForSequenceClassification").readout == 3
    seq2seq = SimpleNamespace(model_type="new", is_encoder_decoder=True)
    assert guess_family(seq2seq, "Anything").kind == "encoder-decoder"
    with pytest.raises(InputError, match="kind must be one of"):
        Family("transducer")


def test_images_of_models_without_patches(monkeypatch):
    monkeypatch.setitem(families_module._FAMILIES, "vit", Family())
    with pytest.raises(UnsupportedError, match="names no patches"):
        read(model_of("vit", "ImageClassification"), CASES["vit"].inputs("ImageClassification"))


def test_every_family_of_the_table_is_tested():
    assert set(known_families()) == {case.model_type for case in CASES.values()}
