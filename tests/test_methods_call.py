"""One call for all methods: lists, flows, a user's own function, the registry, bad input."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from method_fixtures import SHORT, TEXT, run, tiny_gpt2
from model_fixtures import tiny_model

import flowopt as fo
from flowopt import methods
from flowopt.errors import FlowoptWarning, InputError, MissingDependencyError, UnsupportedError
from flowopt.methods.registry import _REGISTRY, FAMILIES


@pytest.fixture
def own_method():
    """Registers methods for one test."""
    before = dict(_REGISTRY)
    yield methods.register
    _REGISTRY.clear()
    _REGISTRY.update(before)


# --- one call ------------------------------------------------------------------------------------
def test_lists_keep_their_order_and_show_progress(tiny_bert, tiny_tokenizer, capsys):
    texts = [TEXT, SHORT, "slow"]
    found = methods.explain(tiny_bert, tiny_tokenizer, iter(texts), "attcat", progress=True)
    assert [each.text for each in found] == texts
    assert "attcat" in capsys.readouterr().err
    alone = methods.explain(tiny_bert, tiny_tokenizer, SHORT, "attcat")
    np.testing.assert_allclose(found[1].scores, alone.scores, rtol=1e-5)
    targets = methods.explain(tiny_bert, tiny_tokenizer, texts, "rollout", ["negative", 1, 0])
    assert [each.target.index for each in targets] == [0, 1, 0]
    assert methods.explain(tiny_bert, tiny_tokenizer, [], "rollout") == []


def test_flow_methods_are_the_explainer(tiny_bert, tiny_tokenizer):
    found = methods.explain(tiny_bert, tiny_tokenizer, TEXT)
    expected = fo.Explainer(tiny_bert, tiny_tokenizer)(TEXT)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.status == "optimal"
    assert found.max_flow == expected.max_flow
    assert found.settings["objective"] == "LogBarrier(gap=0.05)"
    options = {"mu": 1e-2, "sources": "cls"}
    found = methods.explain(tiny_bert, tiny_tokenizer, TEXT, "af-barrier", **options)
    assert found.settings["objective"] == "LogBarrier(mu=0.01)"
    assert found.settings["sources"] == [0]
    quadratic = methods.explain(tiny_bert, tiny_tokenizer, TEXT, "gf-quadratic", rho=0.1)
    assert quadratic.settings["objective"].startswith("Quadratic")
    with pytest.raises(InputError, match="'maxflow' has no weight 'mu'"):
        methods.explain(tiny_bert, tiny_tokenizer, TEXT, "agf-maxflow", mu=0.1)


def test_a_registered_tensor_is_a_method(tiny_bert, tiny_tokenizer, monkeypatch):
    from flowopt.tensors import registry

    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    name = "largest-head"
    fo.register_tensor(name, needs_gradient=False)(lambda trace: trace.attention.max(axis=1))
    assert f"{name}-barrier" in methods.available()
    found = methods.explain(tiny_bert, tiny_tokenizer, SHORT, f"{name}-maxflow")
    assert found.settings["tensor"] == name
    assert found.settings["passes"]["backward"] == 0


def test_options_of_tensors_along_a_path(tiny_bert, tiny_tokenizer):
    def total(steps):
        found = methods.explain(
            tiny_bert, tiny_tokenizer, SHORT, "conductance-flow", steps=steps, baselines="mask"
        )
        return found.settings["passes"]["backward"]

    assert total(8) > total(4)
    with pytest.raises(InputError, match="'agf' follows no path of inputs, so it takes no steps"):
        methods.explain(tiny_bert, tiny_tokenizer, SHORT, "agf-barrier", steps=4)


def test_long_texts_are_cut_with_one_warning(tiny_bert, tiny_tokenizer):
    for name in ("agf-barrier", "slalom-value", "occlusion"):
        with pytest.warns(FlowoptWarning, match="were cut") as caught:
            found = run(tiny_bert, tiny_tokenizer, name, text="great film " * 40)
        assert len(caught) == 1
        assert len(found.tokens) == 40


def test_a_decoder_without_padding_token_is_read_one_by_one(tiny_tokenizer):
    padded, bare = tiny_gpt2(), tiny_gpt2(pad_token_id=None)
    for name in ("integrated-gradients", "occlusion", "leave-one-out", "deeplift", "kernel-shap"):
        expected, found = (run(model, tiny_tokenizer, name) for model in (padded, bare))
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3, atol=1e-5)
        assert found.settings["passes"]["forward"] == expected.settings["passes"]["forward"]


def test_one_token(tiny_bert, tiny_tokenizer):
    for name in methods.available():
        found = run(tiny_bert, tiny_tokenizer, name, text="great")
        assert found.scores.shape == (3,)
    bare = _without_special_tokens(tiny_tokenizer)
    with pytest.raises(InputError, match="leave-one-out: nothing is left"):
        run(tiny_gpt2(), bare, "leave-one-out", text="great")
    assert run(tiny_gpt2(), bare, "occlusion", text="great").scores.shape == (1,)


def _without_special_tokens(tokenizer):
    from copy import deepcopy

    from tokenizers import processors

    bare = deepcopy(tokenizer)
    bare._tokenizer.post_processor = processors.Sequence([])
    return bare


# --- the registry --------------------------------------------------------------------------------
def test_every_method_says_what_it_is():
    table = methods.describe()
    assert {row["name"] for row in table.rows()} == set(methods.available())
    for row in table.rows():
        assert row["summary"]
        assert row["cost"]
        assert row["family"] in FAMILIES
        assert ("seed" in row["options"]) >= row["seeded"]
        assert row["source"] or row["name"] == "random"
    families = [row["family"] for row in table.rows()]
    assert families == sorted(families, key=FAMILIES.index)
    lines = str(methods.describe(["lime", "rollout"])).splitlines()
    assert any("lime" in line and "samples forward, at most" in line for line in lines)
    assert "<table>" in table._repr_html_()
    assert list(table.to_pandas()["name"]) == [row["name"] for row in table.rows()]
    assert json.dumps(table.rows())


def test_a_users_function(tiny_bert, tiny_tokenizer, own_method):
    def length(subject, *, power=1):
        """Long tokens matter."""
        return [len(token) ** power for token in subject.info.tokens]

    found = methods.explain(tiny_bert, tiny_tokenizer, SHORT, length, power=2)
    assert list(found.scores) == [25, 9, 1, 25, 16, 25]
    assert found.settings["method"] == "length"
    assert found.settings["options"] == {"power": 2}
    with pytest.raises(InputError, match="no option 'powr'; did you mean 'power'"):
        methods.explain(tiny_bert, tiny_tokenizer, SHORT, length, powr=2)

    own_method("token-length", signed=False, sums_to="letters")(length)
    assert "token-length" in methods.available()
    named = methods.explain(tiny_bert, tiny_tokenizer, SHORT, "token-length")
    assert list(named.scores) == [5, 3, 1, 5, 4, 5]
    assert methods.method_spec("token-length").summary == "Long tokens matter."
    own_method("token-length", signed=False)(length)  # a notebook's cell, run again

    def tensor(subject):
        assert not subject.model.training
        return subject.embeddings.norm(dim=-1)[0]

    found = methods.explain(tiny_bert.train(), tiny_tokenizer, SHORT, tensor)
    rows = tiny_bert.get_input_embeddings().weight[list(tiny_tokenizer(SHORT)["input_ids"])]
    np.testing.assert_allclose(found.scores, rows.detach().norm(dim=-1), rtol=1e-5)


def test_a_promise_is_shown_with_its_number(tiny_bert, tiny_tokenizer, own_method):
    @own_method("half", signed=False, sums_to="one")
    def half(subject):
        return methods.Scores(np.full(len(subject), 0.5 / len(subject)), total=1.0)

    found = methods.explain(tiny_bert, tiny_tokenizer, SHORT, "half")
    assert "the scores sum to 0.5; one is 1" in str(found)
    assert "no certificate" in str(found)
    assert found.settings["expected_sum"] == 1.0


def test_names_that_are_taken(own_method):
    for name in ("rollout", "agf-barrier", "af-quadratic"):
        with pytest.raises(InputError, match="taken"):
            own_method(name, signed=False)(lambda subject: None)
    with pytest.raises(InputError, match="not empty"):
        own_method(" ", signed=False)
    with pytest.raises(InputError, match="family must be one of"):
        own_method("new", signed=False, family="magic")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda subject: np.zeros(2), r"shape \(2,\) for 6 tokens"),
        (lambda subject: [np.nan] * 6, "not finite"),
        (lambda subject: [1, 2, 3, 4, np.inf, 6], "'film' a score that is not finite"),
        (lambda subject: "much", "one number per token, not str"),
        (lambda subject: None, "one number per token|shape"),
        (lambda subject: np.zeros((6, 1)), "shape"),
    ],
)
def test_a_users_mistakes(tiny_bert, tiny_tokenizer, result, message):
    with pytest.raises(InputError, match=message):
        methods.explain(tiny_bert, tiny_tokenizer, SHORT, result)


def test_bad_input(tiny_bert, tiny_tokenizer):
    def fails(message, *arguments, kind=InputError, **options):
        with pytest.raises(kind, match=message):
            methods.explain(*arguments, **options)

    model, tok = tiny_bert, tiny_tokenizer
    fails("did you mean 'agf-barrier'", model, tok, SHORT, "agf-barier")
    fails("Known names: af-barrier|Known names: af-maxflow", model, tok, SHORT, "nonsense!!!")
    fails("method must be a name", model, tok, SHORT, 3)
    fails("method must be a name", model, tok, SHORT, dict)
    fails("empty", model, tok, " ", "rollout")
    fails("text 1", model, tok, [SHORT, ""], "rollout")
    fails("must be a str", model, tok, [SHORT, 3], "rollout")
    fails("give a str, or a list", model, tok, 3, "rollout")
    fails("give a str, or a list", model, tok, b"film", "rollout")
    fails("no label 'neutral'", model, tok, SHORT, "rollout", "neutral")
    fails("1 targets for 2 inputs", model, tok, [SHORT, TEXT], "rollout", [1])
    fails("tokenizer", model, None, SHORT, "rollout")
    fails("transformers model", 3, tok, SHORT, "rollout")
    fails("has no option", model, tok, SHORT, "rollout", alfa=0.5)
    fails("alpha", model, tok, SHORT, "rollout", alpha=2)
    fails("steps must be a whole number", model, tok, SHORT, "integrated-gradients", steps=0)
    fails("steps must be a whole number", model, tok, SHORT, "integrated-gradients", steps=2.5)
    fails("no token for the baseline", model, tok, SHORT, "occlusion", baseline="nothing at all")
    fails("choose among unknown, pad, mask", model, tok, SHORT, "occlusion", baseline="eos")
    fails("at least one baseline", model, tok, SHORT, "integrated-gradients", baselines=[])
    fails("one baseline", model, tok, SHORT, "deeplift", baseline=["pad", "mask"])
    fails("one baseline", model, tok, SHORT, "lime", baseline=("pad", "mask"))
    fails("window", model, tok, SHORT, "occlusion", window=5)
    fails("layer 7 does not exist", model, tok, SHORT, "raw-attention", layer=7)
    fails("'all' or 'last'", model, tok, SHORT, "attgrad", layers="first")
    fails("norm must be", model, tok, SHORT, "saliency", norm="l3")
    fails("kernel_width", model, tok, SHORT, "lime", kernel_width=0)
    fails("ridge", model, tok, SHORT, "lime", ridge=float("nan"))
    fails("noise", model, tok, SHORT, "gradient-shap", noise=-1)
    fails("samples", model, tok, SHORT, "kernel-shap", samples=1)
    fails("there is no method", model, tok, SHORT, "agf-")


def test_deeplift_says_where_it_does_not_apply(tiny_tokenizer):
    model = tiny_model("albert", hidden_act="relu")  # one module for all layers
    with pytest.raises(UnsupportedError, match="DeepLIFT does not apply to AlbertFor"):
        methods.explain(model, tiny_tokenizer, SHORT, "deeplift")
    assert not any(module._forward_hooks for module in model.modules())


def test_a_missing_package_is_named(tiny_bert, tiny_tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setattr("flowopt.methods.registry.find_spec", lambda name: None)
    assert "lime" not in methods.available()
    assert "rollout" in methods.available()
    assert "Needs the package captum" in methods.describe(["lime"])._repr_html_()
    with pytest.raises(MissingDependencyError, match=r"pip install 'flowopt\[captum\]'"):
        methods.explain(tiny_bert, tiny_tokenizer, SHORT, "lime")


# --- the bundled model ---------------------------------------------------------------------------
def test_real_text_on_the_bundled_model():
    from flowopt.assets import load_bundled

    model, tokenizer = load_bundled()
    text = "A gripping, funny film."
    for name in ("integrated-gradients", "leave-one-out", "occlusion", "kernel-shap", "attcat"):
        found = run(model, tokenizer, name, text=text)
        assert found.prediction.label == "positive"
        assert {word.word for word in found.top(3)} & {"gripping", "funny"}
    found = methods.explain(None, None, text, "rollout")
    assert found.settings["model"] == "flowopt/sst2-minilm-int8"
