"""Every method on every kind of model; seeds, passes, and nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_fixtures import MODELS, SHORT, run, tiny_gpt2, tiny_t5
from model_fixtures import tiny_model

import flowopt as fo
from flowopt import methods
from flowopt.attribution import Attribution
from flowopt.errors import InputError, UnsupportedError

PATHS = ("agf-path-barrier", "conductance-flow")
OTHERS = {  # tensors beside those of the papers have tests of their own
    f"{tensor}-barrier"
    for tensor in fo.tensors.available_tensors()
    if tensor not in ("af", "gf", "agf")
}
ALL = [name for name in methods.available() if name in PATHS or name not in OTHERS]
SEEDED = [name for name in ALL if methods.method_spec(name).seeded]


@pytest.fixture(scope="module")
def kept() -> dict:
    return {name: make() for name, make in MODELS.items()}


# --- every method on every kind of model ---------------------------------------------------------
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", ALL)
def test_every_method_on_every_kind_of_model(kept, tiny_tokenizer, kind, name):
    spec = methods.method_spec(name)
    found = run(kept[kind], tiny_tokenizer, name, text=SHORT)
    assert found.scores.shape == (len(found.tokens),)
    assert np.isfinite(found.scores).all()
    assert np.abs(found.scores).max() > 0
    assert found.tokens[0] == "[CLS]"
    assert found.text == SHORT
    if not spec.signed:
        assert found.scores.min() >= 0
    if spec.family in ("perturbation", "surrogate"):
        assert not found.scores[found.special].any()
    if (found.certificate is None) == (spec.family == "flow" and name != "attention-flow"):
        pytest.fail("flows have certificates, other methods have none")
    settings = found.settings
    assert (settings["method"], settings["family"]) == (name, spec.family)
    assert settings["seconds"]["all"] > 0
    assert settings["passes"]["forward"] >= (name != "random")
    assert found.value == pytest.approx(found.scores.sum(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_every_method_can_be_printed_and_stored(kept, tiny_tokenizer, name):
    found = run(kept["encoder"], tiny_tokenizer, name, text=SHORT)
    again = Attribution.from_json(found.to_json())
    np.testing.assert_array_equal(again.scores, found.scores)
    # how far plain maximum flow determines scores is read off its network, which is not stored
    assert str(again) == str(found) or "Not well defined" in str(found)
    assert name in str(found) or methods.method_spec(name).family == "flow"
    page = found.to_html()
    assert "great" in page
    assert (found.certificate is None) == ("sum of scores" in page)
    assert (found.certificate is None) == ("no certificate" in str(found))


@pytest.mark.parametrize("name", ALL)
def test_targets_are_explained(kept, tiny_tokenizer, name):
    model = kept["three classes"]
    pair = (run(model, tiny_tokenizer, name, SHORT, target=target) for target in ("bad", 2))
    first, second = pair
    assert (first.target.index, second.target.label) == (0, "good")
    assert first.prediction == second.prediction
    blind = {"raw-attention", "rollout", "attention-flow", "random", "af-maxflow", "af-barrier"}
    assert (name in blind) == np.allclose(first.scores, second.scores)


@pytest.mark.parametrize("name", [n for n in ALL if not n.startswith("slalom")])
def test_language_models(tiny_tokenizer, name):
    found = run(tiny_gpt2(language=True), tiny_tokenizer, name, text=SHORT)
    assert found.scores.shape == (len(found.tokens),)
    assert np.isfinite(found.scores).all()
    with pytest.raises(UnsupportedError, match="SLALOM explains classifiers"):
        run(tiny_gpt2(language=True), tiny_tokenizer, "slalom-value", text=SHORT)


def test_encoder_decoders(tiny_tokenizer):
    model = tiny_t5()
    for name in ("agf-barrier", "integrated-gradients", "leave-one-out", "kernel-shap"):
        found = run(model, tiny_tokenizer, name, text=SHORT)
        assert found.scores.shape == (6,)
        assert np.abs(found.scores).max() > 0
    for name in ("rollout", "chefer", "attcat"):
        with pytest.raises(UnsupportedError, match="one stack"):
            run(model, tiny_tokenizer, name, text=SHORT)


def test_a_mask_to_fill_is_no_player(tiny_tokenizer):
    import transformers
    from model_fixtures import _config

    model = transformers.BertForMaskedLM(_config("bert", ("a", "b"))).eval()
    found = run(model, tiny_tokenizer, "leave-one-out", text="the film is [MASK] and good")
    assert found.tokens[4] == "[MASK]"
    assert found.scores[4] == 0
    assert np.count_nonzero(found.scores) == 5


# --- seeds, and nothing left behind --------------------------------------------------------------
@pytest.mark.parametrize("name", SEEDED)
def test_seeds(tiny_bert, tiny_tokenizer, name):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = run(tiny_bert, tiny_tokenizer, name, seed=5).scores
    np.testing.assert_array_equal(torch.rand(2), expected)
    np.testing.assert_array_equal(first, run(tiny_bert, tiny_tokenizer, name, seed=5).scores)
    assert not np.allclose(first, run(tiny_bert, tiny_tokenizer, name, seed=6).scores, rtol=1e-9)
    with pytest.raises(InputError, match="seed"):
        run(tiny_bert, tiny_tokenizer, name, seed=-1)


def test_methods_without_seed_are_deterministic(tiny_bert, tiny_tokenizer):
    assert {"random", "lime", "gradient-shap"} <= set(SEEDED)
    for name in ("deeplift", "attcat", "occlusion", "agf-barrier"):
        first, second = (run(tiny_bert, tiny_tokenizer, name).scores for _ in range(2))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ALL)
def test_the_model_is_left_as_it_was(tiny_tokenizer, name):
    model = tiny_model("bert").train()
    model.bert.pooler.eval()
    model.set_attn_implementation("sdpa")
    model.bert.embeddings.requires_grad_(False)
    # transformers puts hooks of its own on a model that is asked for hidden states, for good
    model(torch.tensor([[1, 2]]), output_hidden_states=True)
    before = _hooks(model)
    with torch.no_grad():
        run(model, tiny_tokenizer, name, text=SHORT)
    assert model.training
    assert not model.bert.pooler.training
    assert model.config._attn_implementation == "sdpa"
    assert all(parameter.grad is None for parameter in model.parameters())
    assert _hooks(model) == before


def _hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return [list(getattr(module, kind)) for module in model.modules() for kind in kinds]


def test_dropout_is_off(tiny_bert, tiny_tokenizer):
    expected = run(tiny_bert, tiny_tokenizer, "integrated-gradients").scores
    found = run(tiny_bert.train(), tiny_tokenizer, "integrated-gradients").scores
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_frozen_models_and_inference_mode(tiny_bert, tiny_tokenizer):
    expected = run(tiny_bert, tiny_tokenizer, "attcat").scores
    tiny_bert.requires_grad_(False)
    with torch.inference_mode():
        found = run(tiny_bert, tiny_tokenizer, "attcat").scores
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# --- passes --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "options", "forward", "backward"),
    [
        ("agf-barrier", {}, 1, 1),
        ("af-maxflow", {}, 1, 0),
        ("rollout", {}, 1, 0),
        ("chefer", {}, 1, 1),
        ("attcat", {}, 1, 1),
        ("saliency", {}, 2, 1),
        ("integrated-gradients", {"steps": 8}, 10, 8),
        ("integrated-gradients", {"steps": 8, "baselines": ["pad", "mask"]}, 19, 16),
        ("deeplift", {}, 4, 2),
        ("gradient-shap", {"samples": 9, "baselines": "pad"}, 11, 9),
        ("occlusion", {}, 5, 0),
        ("leave-one-out", {}, 5, 0),
        ("lime", {"samples": 400}, 16, 0),
        ("kernel-shap", {"samples": 50}, 16, 0),
        ("shapley-sampling", {"samples": 30}, 16, 0),
        ("random", {}, 0, 0),
    ],
)
def test_passes_are_counted(tiny_bert, tiny_tokenizer, name, options, forward, backward):
    found = methods.explain(tiny_bert, tiny_tokenizer, SHORT, name, **options)
    passes = found.settings["passes"]
    assert (passes["forward"], passes["backward"]) == (forward, backward)
    assert 0 <= passes["calls"] <= forward


def test_counting_counts_rows_and_gradients(tiny_bert, tiny_tokenizer):
    inputs = tiny_tokenizer([SHORT] * 3, return_tensors="pt")
    with methods.counting(tiny_bert) as passes:
        logits = tiny_bert(**inputs).logits
        with torch.no_grad():
            tiny_bert(**inputs)
        logits.sum().backward()
    assert passes.to_dict() == {"forward": 6, "backward": 3, "calls": 2}
    tiny_bert(**inputs)
    assert passes.calls == 2
