"""Randomised models and planted words: methods that know nothing must be found out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_fixtures import SHORT, TEXT, tiny_gpt2, tiny_llama, tiny_t5
from model_fixtures import tiny_model

import flowopt as fo
from flowopt.evaluation.randomise import cascade, randomise
from flowopt.evaluation.sanity import sanity_check
from flowopt.evaluation.truth import planted_model, planted_texts, recovery


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return tiny_tokenizer


def length(subject):
    """Long tokens matter, whatever the model says."""
    return [len(token) for token in subject.info.tokens]


def changed(model, other):
    """Names of the weights that differ."""
    new = dict(other.named_parameters())
    return {name for name, part in model.named_parameters() if not torch.equal(part, new[name])}


def scattered(model):
    """The model with no two equal weights in a tensor, so that shuffling shows."""
    with torch.no_grad():
        for part in model.parameters():
            part.add_(0.01 * torch.linspace(0, 1, part.numel()).reshape(part.shape))
    return model


@pytest.mark.parametrize("made", [tiny_model, tiny_gpt2, tiny_llama, tiny_t5])
def test_shuffling_changes_a_copy_and_keeps_each_tensors_entries(made):
    model = scattered(made())
    before = {name: part.clone() for name, part in model.named_parameters()}
    other = randomise(model, seed=1)
    assert all(torch.equal(part, before[name]) for name, part in model.named_parameters())
    # two entries may well fall back into their places
    assert changed(model, other) >= {n for n, part in before.items() if part.numel() > 2}
    for name, part in other.named_parameters():
        assert torch.equal(part.flatten().sort().values, before[name].flatten().sort().values)
    assert not changed(other, randomise(model, seed=1))
    assert changed(other, randomise(model, seed=2))


def test_the_head_is_what_comes_after_the_last_layer():
    model = scattered(tiny_model("bert"))
    head = changed(model, randomise(model, what="head"))
    assert head == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight",
        "classifier.bias",
    }  # fmt: skip
    model = scattered(tiny_gpt2())
    assert changed(model, randomise(model, what="head")) == {
        "transformer.ln_f.weight", "transformer.ln_f.bias", "score.weight",
    }  # fmt: skip


def test_the_cascade_goes_down_to_the_embeddings():
    model = scattered(tiny_model("bert"))
    sizes, names = [], []
    for name, other in cascade(model):
        names.append(name)
        sizes.append(len(changed(model, other)))
    layers = [f"encoder.layer.{i}" for i in (2, 1, 0)]
    assert names == ["head", *layers, "embeddings"]
    assert sizes == sorted(sizes)
    assert sizes[-1] == len(list(model.parameters()))


def test_methods_that_ignore_the_model_are_flagged(tokenizer):
    model = tiny_model("bert", initializer_range=0.3)
    methods = {"input x gradient": "input-x-gradient", "length": length, "random": "random"}
    found = sanity_check(model, tokenizer, [TEXT, SHORT, TEXT + " never"], methods)
    assert found.flagged == ("length", "random")
    rows = {row.method: row for row in found.rows}
    assert rows["length"].signed.mean == 1.0
    assert abs(rows["input x gradient"].signed.mean) < 0.8
    assert "ignores the model" in str(found)
    assert "ignores the model" in found._repr_html_()
    assert len(found.to_pandas()) == 3


def test_a_model_left_as_it_was_flags_everybody(tokenizer, monkeypatch):
    """The check measures the randomisation: without one, all scores stay."""
    monkeypatch.setattr("flowopt.evaluation.sanity.randomise", lambda model, seed, what: model)
    found = sanity_check(tiny_model("bert"), tokenizer, [TEXT], ["input-x-gradient"])
    assert found.flagged == ("input-x-gradient",)


def test_the_class_explained_stays_through_the_cascade(tokenizer):
    seen = []

    def watch(subject):
        seen.append(subject.target.index)
        return np.arange(len(subject.info.tokens))

    model = tiny_model("bert", labels=("bad", "fair", "good"), initializer_range=0.5)
    found = sanity_check(model, tokenizer, [TEXT], [watch], what="cascade")
    assert len(found.rows) == 5
    assert len(set(seen)) == 1


def test_wrong_kinds_of_randomisation(tokenizer):
    with pytest.raises(fo.InputError, match="cascade"):
        sanity_check(tiny_model(), tokenizer, [TEXT], [length], what="some")
    with pytest.raises(fo.InputError, match="what must be"):
        randomise(tiny_model(), what="tail")


# --- ground truth -----------------------------------------------------------------------------


def test_the_planted_logit_is_an_increasing_function_of_the_mean_weight():
    model, tokenizer = planted_model()
    logits = []
    for text in ("fjord the", "the of", "amber fjord the the", "amber the", "amber cedar"):
        found = fo.explain(model, tokenizer, text, method="random", target="planted")
        logits.append(found.target.logit)
    assert logits == pytest.approx(sorted(logits), abs=1e-6)
    assert logits[0] < -0.1 < 0.1 < logits[3] < logits[4]
    assert logits[1] == pytest.approx(logits[2], abs=1e-6)
    assert logits[1] == pytest.approx(0, abs=1e-6)


def test_methods_that_read_the_gradient_find_the_planted_words():
    found = recovery(["agf-maxflow", "attcat", "leave-one-out", "random", "rollout"], texts=12)
    for name in ("agf-maxflow", "attcat", "leave-one-out"):
        assert found[name].mean == 1.0
    assert found["random"].low < found.chance < found["random"].high
    assert found["rollout"].mean < 0.5
    assert "no better than chance" in str(found)


def test_attention_on_other_words_does_not_mislead_gradients():
    found = recovery({"rollout": "rollout", "AttCAT": "attcat"}, texts=8, attends="decoys")
    assert found["AttCAT"].mean == 1.0
    assert found["rollout"].mean < found.chance
    assert recovery(["rollout"], texts=8, attends="planted")["rollout"].mean == 1.0


def test_recovery_can_fail():
    def backwards(subject):
        return -fo.methods.explain_subject(subject, "attcat").scores

    assert recovery([backwards], texts=6)["backwards"].mean == 0.0
    nothing = recovery(["leave-one-out"], texts=12, weight=0.0)
    assert nothing["leave-one-out"].mean < 0.6


def test_planted_texts_are_drawn_from_the_seed():
    texts = planted_texts(5, seed=3)
    assert texts == planted_texts(5, seed=3) != planted_texts(5, seed=4)
    supports = {"amber", "birch", "cedar", "delta", "ember"}
    for each in texts:
        words = each.text.split()
        assert [i for i, word in enumerate(words) if word in supports] == list(each.planted)
        assert len(each.planted) == 3


def test_wrong_options_of_the_planted_model():
    with pytest.raises(fo.InputError, match="attends"):
        planted_model("nothing")
    with pytest.raises(fo.InputError, match="weight"):
        planted_model(weight=2.0)
