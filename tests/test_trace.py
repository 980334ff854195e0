"""Reading models: right numbers, for every family, and a model that is left as it was found."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import torch
import transformers
from model_fixtures import tiny_model, wordpiece_tokenizer
from transformers.models.bert import modeling_bert

from flowopt.errors import FlowoptWarning, InputError, UnsupportedError
from flowopt.trace import (
    Family,
    Trace,
    batch_of_inputs,
    collate,
    encode_texts,
    family_of,
    known_families,
    register_family,
    trace_batch,
)
from flowopt.trace import families as families_module
from flowopt.trace.families import max_tokens
from flowopt.trace.goals import class_index

FAMILIES = ("bert", "roberta", "distilbert", "electra", "albert", "xlm-roberta", "camembert")
TEXT = "The film is not very good, but the actor was great!"
TEXTS = [TEXT, "great", "it was unbelievable and slow"]


def traces(model, tokenizer, texts, targets=None, gradient=True) -> list[Trace]:
    encoded = encode_texts(model, tokenizer, texts)
    batch = collate(model, encoded, targets or [None] * len(texts), tokenizer)
    return list(trace_batch(model, batch, gradient))


def perturbed_logit(model, inputs, where, change: float, target: int) -> float:
    """The logit when one attention probability of one layer is moved by hand."""
    import transformers.modeling_utils as modeling

    layer, head, row, column = where
    calls = iter(range(100))

    def attend(module, query, key, value, mask, scaling=None, dropout=0.0, **_):
        weights = torch.softmax(query @ key.transpose(2, 3) * scaling, dim=-1)
        if next(calls) == layer:
            weights = weights.clone()
            weights[0, head, row, column] += change
        return (weights @ value).transpose(1, 2).contiguous(), weights

    functions = modeling.ALL_ATTENTION_FUNCTIONS
    functions.register("nudged", attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = "nudged"
    try:
        with torch.no_grad():
            return float(model(**inputs).logits[0, target])
    finally:
        model.config._attn_implementation = before


@pytest.mark.parametrize("model_type", FAMILIES)
def test_gradient_against_finite_differences(model_type, tiny_tokenizer):
    model = tiny_model(model_type).double()
    (trace,) = traces(model, tiny_tokenizer, [TEXT])
    inputs = {"input_ids": torch.tensor([trace.input_ids])}
    assert trace.gradient is not None
    assert trace.target is not None
    assert model(**inputs).logits[0, trace.target.index].item() == pytest.approx(
        trace.target.logit, abs=1e-12
    )
    rng = np.random.default_rng(0)
    size = np.abs(trace.gradient).max()
    for _ in range(12):
        where = tuple(int(rng.integers(n)) for n in trace.gradient.shape)
        step = 1e-5
        up, down = (
            perturbed_logit(model, inputs, where, sign * step, trace.target.index)
            for sign in (1, -1)
        )
        slope = (up - down) / (2 * step)
        assert trace.gradient[where] == pytest.approx(slope, rel=1e-6, abs=1e-8 * size)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_attention_against_the_model_itself(model_type, tiny_tokenizer):
    model = tiny_model(model_type)
    (trace,) = traces(model, tiny_tokenizer, [TEXT])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        outputs = model(input_ids=torch.tensor([trace.input_ids]), output_attentions=True)
    expected = torch.stack(outputs.attentions)[:, 0].double().numpy()
    assert trace.attention.dtype == np.float64
    np.testing.assert_allclose(trace.attention, expected, atol=1e-6)
    np.testing.assert_allclose(trace.attention.sum(axis=-1), 1, atol=1e-5)


def test_head_reads_one_position(tiny_bert, tiny_tokenizer):
    (trace,) = traces(tiny_bert, tiny_tokenizer, [TEXT])
    assert trace.readout == 0
    assert not trace.gradient[-1, :, 1:].any()
    assert trace.gradient[-1, :, 0].any()
    assert trace.gradient[0].any(axis=(0, 2)).all()


@pytest.mark.parametrize("model_type", ["bert", "roberta", "albert"])
def test_a_batch_equals_its_examples_alone(model_type, tiny_tokenizer):
    model = tiny_model(model_type)
    together = traces(model, tiny_tokenizer, TEXTS)
    for text, trace in zip(TEXTS, together, strict=True):
        (alone,) = traces(model, tiny_tokenizer, [text])
        assert trace.tokens == alone.tokens
        assert trace.text == text
        assert trace.prediction.index == alone.prediction.index
        assert trace.prediction.logit == pytest.approx(alone.prediction.logit, abs=1e-5)
        np.testing.assert_allclose(trace.attention, alone.attention, atol=1e-5)
        np.testing.assert_allclose(trace.gradient, alone.gradient, atol=1e-5)


def test_padding_changes_nothing(tiny_bert, tiny_tokenizer):
    tiny_bert = tiny_bert.double()
    (trace,) = traces(tiny_bert, tiny_tokenizer, ["great film"])
    ids = [*trace.input_ids, 0, 0, 0, 0]
    mask = [1] * len(trace.input_ids) + [0] * 4
    batch = batch_of_inputs(tiny_bert, {"input_ids": [ids], "attention_mask": [mask]})
    (padded,) = trace_batch(tiny_bert, batch)
    assert padded.attention.shape == trace.attention.shape
    np.testing.assert_allclose(padded.attention, trace.attention, atol=1e-12)
    np.testing.assert_allclose(padded.gradient, trace.gradient, atol=1e-12)
    assert padded.tokens == ("0", "1", "2", "3")


def test_targets_by_index_and_label(tiny_bert, tiny_tokenizer):
    first, second = traces(tiny_bert, tiny_tokenizer, [TEXT, TEXT], targets=[0, 1])
    assert (first.target.label, second.target.label) == ("negative", "positive")
    assert first.prediction == second.prediction
    assert first.target.probability + second.target.probability == pytest.approx(1)
    assert not np.allclose(first.gradient, second.gradient)
    assert class_index(tiny_bert, "positive") == class_index(tiny_bert, "POSITIVE") == 1
    assert class_index(tiny_bert, np.int64(1)) == 1
    for wrong, message in (
        (2, "classes 0 to 1"),
        (-1, "out of range"),
        ("positiv", "did you mean 'positive'"),
        (True, "index"),
        (0.5, "index"),
    ):
        with pytest.raises(InputError, match=message):
            class_index(tiny_bert, wrong)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(implementation, training, tiny_tokenizer):
    model = tiny_model("bert")
    model.set_attn_implementation(implementation)
    model.train(training)
    model.classifier.eval()  # a part that is kept in evaluation mode
    modes = [module.training for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    needs = [parameter.requires_grad for parameter in model.parameters()]
    (first,) = traces(model, tiny_tokenizer, [TEXT])
    (second,) = traces(model, tiny_tokenizer, [TEXT])
    np.testing.assert_array_equal(first.gradient, second.gradient)  # no dropout
    assert model.config._attn_implementation == implementation
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.config.output_attentions
    assert not model.get_input_embeddings()._forward_hooks
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_the_model_is_left_as_it_was_after_an_error(tiny_bert, tiny_tokenizer, monkeypatch):
    tiny_bert.train()

    def broken(*_, **__):
        raise RuntimeError("no luck")

    encoded = encode_texts(tiny_bert, tiny_tokenizer, [TEXT])
    batch = collate(tiny_bert, encoded, [None], tiny_tokenizer)
    monkeypatch.setattr(tiny_bert, "forward", broken)
    with pytest.raises(RuntimeError, match="no luck"):
        list(trace_batch(tiny_bert, batch))
    assert tiny_bert.training
    assert tiny_bert.config._attn_implementation == "sdpa"
    assert not tiny_bert.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "albert"])
def test_frozen_parameters_and_no_grad(model_type, tiny_tokenizer):
    model = tiny_model(model_type)
    (expected,) = traces(model, tiny_tokenizer, [TEXT])
    model.requires_grad_(False)
    with torch.no_grad():
        (trace,) = traces(model, tiny_tokenizer, [TEXT])
    np.testing.assert_allclose(trace.gradient, expected.gradient, atol=1e-6)
    with torch.inference_mode():
        (trace,) = traces(model, tiny_tokenizer, [TEXT])
    np.testing.assert_allclose(trace.gradient, expected.gradient, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_existing_parameter_gradients_survive(tiny_bert, tiny_tokenizer):
    marker = torch.full_like(tiny_bert.classifier.bias, 7.0)
    tiny_bert.classifier.bias.grad = marker.clone()
    traces(tiny_bert, tiny_tokenizer, [TEXT])
    assert torch.equal(tiny_bert.classifier.bias.grad, marker)


def test_without_gradient_no_backward_pass(tiny_bert, tiny_tokenizer, monkeypatch):
    def never(*_, **__):
        raise AssertionError("backward pass")

    monkeypatch.setattr(torch.autograd, "grad", never)
    (trace,) = traces(tiny_bert, tiny_tokenizer, [TEXT], gradient=False)
    assert trace.gradient is None
    with pytest.raises(AssertionError, match="backward"):
        traces(tiny_bert, tiny_tokenizer, [TEXT])


def test_one_forward_and_one_backward_pass_for_a_batch(tiny_bert, tiny_tokenizer, monkeypatch):
    calls = []
    forward, grad = tiny_bert.forward, torch.autograd.grad
    encoded = encode_texts(tiny_bert, tiny_tokenizer, TEXTS)
    batch = collate(tiny_bert, encoded, [None] * 3, tiny_tokenizer)
    monkeypatch.setattr(
        tiny_bert, "forward", lambda **given: calls.append("forward") or forward(**given)
    )
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: calls.append("backward") or grad(*a, **k)
    )
    assert len(list(trace_batch(tiny_bert, batch))) == 3
    # the model's own backward pass, and inside it one per layer, of that layer alone
    assert calls == ["forward", *["backward"] * 4]


def test_single_logit_and_multi_label_heads(tiny_tokenizer):
    model = tiny_model("bert", labels=("score",))
    (trace,) = traces(model, tiny_tokenizer, [TEXT])
    expected = 1 / (1 + np.exp(-trace.prediction.logit))
    assert trace.prediction.label == "score"
    assert trace.prediction.probability == pytest.approx(expected)
    assert trace.target == trace.prediction
    assert np.abs(trace.gradient).max() > 0
    several = tiny_model("bert", labels=("a", "b", "c"), problem_type="multi_label_classification")
    (trace,) = traces(several, tiny_tokenizer, [TEXT], targets=[2])
    assert trace.target.probability == pytest.approx(1 / (1 + np.exp(-trace.target.logit)))


def test_half_precision_models(tiny_tokenizer):
    (expected,) = traces(tiny_model("bert"), tiny_tokenizer, [TEXT])
    (trace,) = traces(tiny_model("bert").to(torch.bfloat16), tiny_tokenizer, [TEXT])
    np.testing.assert_allclose(trace.attention, expected.attention, atol=0.05)


def test_inputs_embeds(tiny_bert, tiny_tokenizer):
    (expected,) = traces(tiny_bert, tiny_tokenizer, [TEXT])
    tiny_bert.requires_grad_(False)
    embeddings = tiny_bert.get_input_embeddings()(torch.tensor([expected.input_ids]))
    for given in (embeddings, embeddings[0]):
        (trace,) = trace_batch(tiny_bert, batch_of_inputs(tiny_bert, {"inputs_embeds": given}))
        np.testing.assert_allclose(trace.gradient, expected.gradient, atol=1e-6)
        assert trace.input_ids is None
        assert trace.tokens[:3] == ("0", "1", "2")
    assert not embeddings.requires_grad


def test_given_ids_with_a_tokenizer_have_names(tiny_bert, tiny_tokenizer):
    (expected,) = traces(tiny_bert, tiny_tokenizer, [TEXT])
    given = {"input_ids": np.array(expected.input_ids)}
    (trace,) = trace_batch(tiny_bert, batch_of_inputs(tiny_bert, given, "positive", tiny_tokenizer))
    assert trace.tokens == expected.tokens
    assert trace.special == expected.special
    assert trace.target.label == "positive"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either input_ids"),
        ({"input_ids": [[1, 2]], "inputs_embeds": np.zeros((1, 2, 24))}, "one of the two"),
        ({"input_ids": [[]]}, "none of them empty"),
        ({"input_ids": [[[1]]]}, "2 axes"),
        ({"input_ids": [[1, 2], [3]]}, "array of numbers"),
        ({"input_ids": [[1.5, 2.0]]}, "integers"),
        ({"input_ids": [[1, 999]]}, "tokenizer that belongs to the model"),
        ({"input_ids": [[1, -1]]}, "tokenizer that belongs to the model"),
        ({"input_ids": [[1] * 49]}, "at most 48"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "shape"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 2]]}, "ones"),
        ({"input_ids": [[1, 2]], "attention_mask": [[0, 0]]}, "example 0 has no tokens"),
        ({"input_ids": [[1, 2]], "attention_mask": [[0, 1]]}, "pad on the right"),
        ({"input_ids": [[1, 2]], "pixel_values": [[1]]}, "takes no input 'pixel_values'"),
    ],
)
def test_wrong_inputs(tiny_bert, given, message):
    with pytest.raises(InputError, match=message):
        list(trace_batch(tiny_bert, batch_of_inputs(tiny_bert, given)))


def test_tokens_of_a_text(tiny_bert, tiny_tokenizer):
    (encoded,) = encode_texts(tiny_bert, tiny_tokenizer, ["Unbelievable, great film!"])
    info = encoded.info
    assert info.tokens == ("[CLS]", "un", "##believ", "##able", ",", "great", "film", "!", "[SEP]")
    assert info.special == (True, *[False] * 7, True)
    assert info.word_ids == (None, 0, 0, 0, 1, 2, 3, 4, None)
    assert info.offsets[1:4] == ((0, 2), (2, 8), (8, 12))
    assert set(encoded.inputs) == {"input_ids", "token_type_ids"}
    (short,) = encode_texts(tiny_model("distilbert"), tiny_tokenizer, ["great"])
    assert set(short.inputs) == {"input_ids"}  # DistilBERT takes no token types


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("\u200b", "no token besides special ones"),
        (b"good", "decode bytes first"),
        (None, "must be a str, not NoneType"),
        (3, "must be a str, not int"),
        ("good \ud800", "lone surrogates"),
    ],
)
def test_texts_that_cannot_be_used(tiny_bert, tiny_tokenizer, text, message):
    with pytest.raises(InputError, match=f"the text.*{message}"):
        encode_texts(tiny_bert, tiny_tokenizer, [text])
    with pytest.raises(InputError, match=f"text 1.*{message}"):
        encode_texts(tiny_bert, tiny_tokenizer, ["good", text])


@pytest.mark.parametrize(("tokenizer_limit", "limit"), [(20, 20), (10**30, 48)])
def test_long_texts_are_cut_with_a_warning(tiny_bert, tokenizer_limit, limit):
    tokenizer = wordpiece_tokenizer(tokenizer_limit)
    text = "good " * 60
    with pytest.warns(
        FlowoptWarning, match=rf"62 tokens .* at most {limit}: the last {62 - limit}"
    ):
        (encoded,) = encode_texts(tiny_bert, tokenizer, [text])
    assert len(encoded) == limit
    assert encoded.info.tokens[-1] == "[SEP]"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_texts(tiny_bert, tokenizer, ["good " * (limit - 2)])
    with pytest.warns(FlowoptWarning, match="text 1"):
        encode_texts(tiny_bert, tokenizer, ["good", text])


def test_the_longest_input_fits(tiny_tokenizer):
    for model_type in FAMILIES:
        model = tiny_model(model_type)
        limit = max_tokens(model)
        assert limit == (47 if "roberta" in model_type or model_type == "camembert" else 48)
        given = {"input_ids": [[7] * limit]}
        (trace,) = trace_batch(model, batch_of_inputs(model, given))
        assert len(trace.tokens) == limit


def test_models_that_cannot_be_explained(tiny_bert, tiny_tokenizer):
    encoded = encode_texts(tiny_bert, tiny_tokenizer, [TEXT])
    batch = collate(tiny_bert, encoded, [None], tiny_tokenizer)
    headless = transformers.BertModel(tiny_bert.config)
    with pytest.raises(UnsupportedError, match="AutoModelForSequenceClassification"):
        list(trace_batch(headless, batch))
    masked = transformers.BertForMaskedLM(tiny_bert.config)
    with pytest.raises(InputError, match="token behind one mask; there are 0"):
        collate(masked, encoded, [None], tiny_tokenizer)
    per_token = transformers.BertForTokenClassification(tiny_bert.config)
    with pytest.raises(UnsupportedError, match="one prediction per position"):
        list(trace_batch(per_token, batch))
    for nonsense in ("bert", None, torch.nn.Linear(2, 2)):
        with pytest.raises(InputError, match="must be a transformers model"):
            family_of(nonsense)
    tiny_bert.config.is_decoder = True
    with pytest.raises(UnsupportedError, match="decoder"):
        family_of(tiny_bert)


def changed_attention(monkeypatch, change) -> None:
    """Let BERT's own attention function return changed weights."""
    eager = modeling_bert.eager_attention_forward

    def changed(*args, **given):
        output, weights = eager(*args, **given)
        return output, change(weights)

    monkeypatch.setattr(modeling_bert, "eager_attention_forward", changed)


def changed_outputs(model, monkeypatch, change) -> None:
    forward = model.forward

    @functools.wraps(forward)
    def changed(*args, **given):
        outputs = forward(*args, **given)
        for name, value in change(outputs).items():
            outputs[name] = value
        return outputs

    monkeypatch.setattr(model, "forward", changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: None, "returns no weights"),
        (lambda a: a.detach(), "cut off from its graph"),
        (lambda a: a.clone(), "returns a copy"),
        (lambda a: a[:, :, :2], "of shape"),
        (lambda a: a[0], "of shape"),
    ],
)
def test_attention_functions_that_cannot_be_read(
    tiny_bert, tiny_tokenizer, monkeypatch, change, message
):
    changed_attention(monkeypatch, change)
    with pytest.raises(UnsupportedError, match=message):
        traces(tiny_bert, tiny_tokenizer, [TEXT])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: None, "returns no weights"),
        (lambda a: a[:, :, :2], "of shape"),
        (lambda a: a * 0.9, r"rows must sum to 1, but encoder layer 0.*dropout"),
        (lambda a: a * np.nan, r"rows must sum to 1, but encoder layer 0.*dropout"),
    ],
)
def test_attention_that_is_no_softmax(tiny_bert, tiny_tokenizer, monkeypatch, change, message):
    changed_attention(monkeypatch, change)
    with pytest.raises(UnsupportedError, match=message):
        traces(tiny_bert, tiny_tokenizer, [TEXT], gradient=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: {"attentions": ()}, 'attn_implementation="eager"'),
        (lambda o: {"attentions": (None,) * 3}, "returns no encoder attention"),
        (lambda o: {"attentions": tuple(a.detach() for a in o.attentions)}, "cut off"),
        (lambda o: {"attentions": tuple(a.clone() for a in o.attentions)}, "returns a copy"),
        (lambda o: {"attentions": tuple(a[:, :, :2] for a in o.attentions)}, "of shape"),
        (lambda o: {"attentions": tuple(a[0] for a in o.attentions)}, "of shape"),
        (lambda o: {"logits": o.logits * np.inf}, "logits are not finite"),
        (lambda o: {"logits": o.logits.detach()}, "logits .* cut off"),
    ],
)
def test_returned_attention_that_cannot_be_right(tiny_tokenizer, monkeypatch, change, message):
    """DeBERTa computes its attention itself; it is read by what it returns."""
    model = tiny_model("deberta-v2")
    batch = collate(model, encode_texts(model, tiny_tokenizer, [TEXT]), [0], tiny_tokenizer)
    changed_outputs(model, monkeypatch, change)
    with pytest.raises(UnsupportedError, match=message):
        list(trace_batch(model, batch))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a * 0.9, "sum to 1"),
        (lambda a: a * np.nan, "sum"),
        (lambda a: a[:, :, :2], "shape"),
    ],
)
def test_returned_attention_that_is_no_softmax(tiny_tokenizer, monkeypatch, change, message):
    model = tiny_model("deberta-v2")
    batch = collate(model, encode_texts(model, tiny_tokenizer, [TEXT]), [0], tiny_tokenizer)
    changed_outputs(
        model, monkeypatch, lambda o: {"attentions": tuple(change(a) for a in o.attentions)}
    )
    with pytest.raises(UnsupportedError, match=message):
        list(trace_batch(model, batch, gradient=False))


def test_models_without_attention(tiny_bert, tiny_tokenizer, monkeypatch):
    batch = collate(tiny_bert, encode_texts(tiny_bert, tiny_tokenizer, [TEXT]), [0], tiny_tokenizer)
    monkeypatch.setattr(tiny_bert.bert.encoder, "layer", torch.nn.ModuleList())
    for gradient in (True, False):
        with pytest.raises(UnsupportedError, match="no attention that flowopt can see"):
            list(trace_batch(tiny_bert, batch, gradient))


def test_gradients_that_are_not_finite(tiny_bert, tiny_tokenizer, monkeypatch):
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: tuple(g * float("nan") for g in grad(*a, **k))
    )
    with pytest.raises(UnsupportedError, match="not finite; load the model in float32"):
        traces(tiny_bert, tiny_tokenizer, [TEXT])


def test_families_can_be_registered(monkeypatch):
    monkeypatch.setattr(families_module, "_FAMILIES", dict(families_module._FAMILIES))
    register_family("my-encoder", Family(readout=None))
    assert known_families()["my-encoder"].readout is None
    register_family("my-encoder", Family(readout=None))
    with pytest.raises(InputError, match="other facts"):
        register_family("bert", Family(readout=3))
    with pytest.raises(InputError, match="Family"):
        register_family("other", {"readout": 0})
