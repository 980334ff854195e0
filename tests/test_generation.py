"""Generated text, token by token: what is explained, in which batches, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from generation_fixtures import (
    DECODERS,
    TRANSLATORS,
    VOCABULARY,
    decoder,
    language_model,
    translator,
    word_tokenizer,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import flowopt.explainer.flow as flow_module
import flowopt.explainer.passes as passes
from flowopt.attribution import Attribution, AttributionMatrix
from flowopt.capacities import Residual
from flowopt.errors import InputError, SolverError, UnsupportedError
from flowopt.explainer import Explainer
from flowopt.explainer.generation import generated, steps
from flowopt.explainer.receptive_field import normalised, normalised_error
from flowopt.objectives import MaxFlow
from flowopt.trace import collate, encode_texts
from flowopt.trace.prompts import decoder_prefix

TEXT = "once upon a time"
COUNT = 4
ALL = (*DECODERS, *TRANSLATORS)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: language_model(name) for name in ALL}


def explained(models: dict[str, Any], name: str, **options: Any) -> AttributionMatrix:
    # plain attention: with random weights, attention times gradient often leaves no path
    chosen = {"tensor": "af", **options}
    return Explainer(*models[name], **chosen).explain_generation(TEXT, max_new_tokens=COUNT)


def same(first: Attribution, second: Attribution, rtol: float = 1e-6) -> None:
    assert first.tokens == second.tokens
    assert first.target.index == second.target.index
    atol = 1e-9 * max(abs(first.value), 1e-30)
    np.testing.assert_allclose(first.scores, second.scores, rtol=rtol, atol=atol)
    assert first.value == pytest.approx(second.value, rel=rtol, abs=atol)
    assert (first.prefix_scores is None) == (second.prefix_scores is None)
    if first.prefix_scores is not None:
        np.testing.assert_allclose(first.prefix_scores, second.prefix_scores, rtol=rtol, atol=atol)


# --- what is explained -----------------------------------------------------------------------
@pytest.mark.parametrize("name", ALL)
def test_the_continuation_is_what_generate_gives(models, name):
    model, tokenizer = models[name]
    matrix = explained(models, name)
    inputs = tokenizer(TEXT, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=COUNT, do_sample=False)[0].tolist()
    tokens = output[len(inputs["input_ids"][0]) if name in DECODERS else 1 :]
    assert [row.target.index for row in matrix] == tokens
    assert matrix.output_tokens == tuple(tokenizer.convert_ids_to_tokens(tokens))
    assert matrix.output == tokenizer.decode(tokens, skip_special_tokens=True)
    assert matrix.text == TEXT
    assert matrix.source_tokens == tuple(tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]))
    # greedy: the model predicts each of them after those before
    assert all(row.prediction == row.target for row in matrix)


@pytest.mark.parametrize("name", ALL)
def test_unrolled_flow_ends_in_the_prompt(models, name):
    matrix = explained(models, name)
    assert matrix.scores.shape == (COUNT, len(matrix.source_tokens))
    assert matrix.prefix_scores is None
    assert matrix.status == "optimal"
    assert (matrix.values > 0).all()
    np.testing.assert_allclose(matrix.scores.sum(axis=1), matrix.values, rtol=1e-9)
    np.testing.assert_allclose(matrix.normalised().sum(axis=1), 1)
    for row in matrix:
        assert row.settings["output"] == "token"
        assert row.settings["unroll"] is True


@pytest.mark.parametrize("name", ALL)
def test_without_unrolling_generated_tokens_have_scores_of_their_own(models, name):
    matrix = explained(models, name, unroll=False)
    assert matrix.prefix_scores is not None
    sums = matrix.scores.sum(axis=1) + [scores.sum() for scores in matrix.prefix_scores]
    np.testing.assert_allclose(sums, matrix.values, rtol=1e-9)
    given_ones = 0 if name in DECODERS else 1
    for place, row in enumerate(matrix):
        before = matrix.output_tokens[:place]
        assert row.prefix_tokens[given_ones:] == before
        assert len(matrix.prefix_scores[place]) == given_ones + place
    assert matrix.prefix_scores[-1][given_ones:].max() > 0
    unrolled = explained(models, name).scores
    assert np.abs(unrolled[1:] - matrix.scores[1:]).max() > 1e-3 * matrix.values.max()


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_a_row_is_the_explanation_of_the_extended_prompt(models, name, unroll):
    model, tokenizer = models[name]
    explainer = Explainer(model, tokenizer, tensor="agf", unroll=unroll)
    matrix = explainer.explain_generation(TEXT, max_new_tokens=COUNT)
    prompt = tokenizer(TEXT)["input_ids"]
    tokens = [row.target.index for row in matrix]
    for place in (0, COUNT - 1):
        if name in DECODERS:
            ids = [prompt + tokens[:place]]
            one = explainer.explain_inputs(
                tokens[place], input_ids=torch.tensor(ids), prompt_length=len(prompt)
            )
        else:
            start = [model.config.decoder_start_token_id, *tokens[:place]]
            one = explainer.explain_inputs(
                tokens[place],
                input_ids=torch.tensor([prompt]),
                decoder_input_ids=torch.tensor([start]),
            )
        same(matrix[place], one, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_the_first_row_is_the_prediction_itself(models, name):
    explainer = Explainer(*models[name], tensor="af")
    matrix = explainer.explain_generation(TEXT, max_new_tokens=2)
    same(matrix[0], explainer(TEXT))
    other = explainer(TEXT, target="\u2581dog")
    assert other.target.label == "\u2581dog"
    assert explainer(TEXT, target="dog").target == other.target
    assert explainer(TEXT, target=VOCABULARY.index("\u2581dog")).target == other.target


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_batches_equal_singles(models, name, unroll):
    together = explained(models, name, tensor="gf", unroll=unroll)
    alone = explained(models, name, tensor="gf", unroll=unroll, batch_size=1)
    for first, second in zip(together, alone, strict=True):
        same(first, second, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_continuations_of_different_prompts_share_a_batch(models, name):
    model, tokenizer = models[name]
    explainer = Explainer(model, tokenizer, tensor="agf")
    short, long = encode_texts(model, tokenizer, ["the dog", "once upon a time there was"])
    examples = [replace(short, emitted=(9, 10, 11)), replace(long, emitted=(8,)), long]
    targets = [7, 8, 9]
    together = passes.explain_encoded(explainer, examples, targets)
    for example, target, found in zip(examples, targets, together, strict=True):
        (alone,) = passes.explain_encoded(explainer, [example], [target])
        same(found, alone, rtol=1e-4)
        assert len(found.tokens) == len(example)


def test_gradients_of_earlier_steps_are_in_the_goal(models):
    """The goal sums the logits of what was emitted; with one alone the links reach dead nodes."""
    model, tokenizer = models["llama"]
    (encoded,) = encode_texts(model, tokenizer, [TEXT])
    batch = collate(model, steps(encoded, [7, 8, 9]), [7, 8, 9], tokenizer)
    assert [goal.position for goal in batch.goals] == [4, 5, 6]
    assert [goal.earlier for goal in batch.goals] == [(), ((4, 7),), ((4, 7), (5, 8))]
    assert batch.prompts == (5, 5, 5)
    explainer = Explainer(model, tokenizer, tensor="gf")
    right = list(passes.explain_batch(explainer, batch, range(3), alone=False))
    alone = replace(batch, goals=tuple(replace(goal, earlier=()) for goal in batch.goals))
    sabotaged = list(passes.explain_batch(explainer, alone, range(3), alone=False))
    same(right[0], sabotaged[0])
    links = [each.solutions[0].link_flows for each in (right[2], sabotaged[2])]
    assert all(flow.sum() > 0 for flow in links[0])
    assert all(flow.sum() == 0 for flow in links[1])


# --- how the model generates -----------------------------------------------------------------
@pytest.mark.parametrize("name", ["llama", "bart"])
def test_generation_stops_at_the_end_of_the_sequence(name):
    model, tokenizer = language_model(name)
    tokens = [
        r.target.index
        for r in Explainer(model, tokenizer, tensor="af").explain_generation(TEXT, max_new_tokens=6)
    ]
    end = tokens[2]
    model.generation_config.eos_token_id = [end, 19]
    expected = tokens[: tokens.index(end) + 1]
    matrix = Explainer(model, tokenizer, tensor="af").explain_generation(TEXT, max_new_tokens=6)
    assert [row.target.index for row in matrix] == expected
    model.generation_config.eos_token_id = None
    matrix = Explainer(model, tokenizer, tensor="af").explain_generation(
        TEXT, max_new_tokens=6, eos_token_id=end
    )
    assert [row.target.index for row in matrix] == expected


def test_options_of_generate(models):
    model, tokenizer = models["bart"]
    explainer = Explainer(model, tokenizer, tensor="af")
    beam = explainer.explain_generation(TEXT, max_new_tokens=3, num_beams=3)
    output = model.generate(
        **tokenizer(TEXT, return_tensors="pt"), max_new_tokens=3, num_beams=3, do_sample=False
    )
    assert [row.target.index for row in beam] == output[0, 1:].tolist()
    banned = explainer.explain_generation(
        TEXT, max_new_tokens=1, suppress_tokens=[beam[0].target.index]
    )
    assert banned[0].target.index != beam[0].target.index
    for name in ("max_length", "decoder_input_ids", "num_return_sequences"):
        with pytest.raises(InputError, match=f"sets {name} itself"):
            explainer.explain_generation(TEXT, **{name: 3})
    for wrong in (0, -1, 1.5, True, "4"):
        with pytest.raises(InputError, match="max_new_tokens must be a positive integer"):
            explainer.explain_generation(TEXT, max_new_tokens=wrong)


def test_a_forced_language_code_is_given_not_generated():
    model, tokenizer = translator("mbart")
    model.generation_config.forced_bos_token_id = 7
    assert decoder_prefix(model) == (1, 7)
    explainer = Explainer(model, tokenizer, tensor="af")
    matrix = explainer.explain_generation(TEXT, max_new_tokens=3)
    output = model.generate(**tokenizer(TEXT, return_tensors="pt"), max_new_tokens=4)
    assert output[0, :2].tolist() == [1, 7]
    assert [row.target.index for row in matrix] == output[0, 2:].tolist()
    same(matrix[0], explainer(TEXT))
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    same(
        matrix[1],
        explainer.explain_inputs(int(output[0, 3]), input_ids=ids, decoder_input_ids=output[:, :3]),
    )
    # given tokens are neither summed into the goal nor linked to a position that emits them
    (encoded,) = encode_texts(model, tokenizer, [TEXT])
    started, tokens = generated(model, encoded, 3, {})
    assert started.start == (1, 7)
    batch = collate(model, steps(started, tokens), tokens, tokenizer)
    assert [goal.earlier for goal in batch.goals] == [
        (),
        ((1, tokens[0]),),
        ((1, tokens[0]), (2, tokens[1])),
    ]
    (link,) = matrix[1].solutions[0].network.links
    np.testing.assert_array_equal(link.pairs, [[2, 1]])


def test_options_may_name_another_start():
    model, tokenizer = translator("mbart")
    explainer = Explainer(model, tokenizer, tensor="af", unroll=False)
    matrix = explainer.explain_generation(TEXT, max_new_tokens=2, forced_bos_token_id=8)
    assert matrix[0].prefix_tokens == ("<s>", VOCABULARY[8])
    matrix = explainer.explain_generation(TEXT, max_new_tokens=2, decoder_start_token_id=9)
    assert matrix[0].prefix_tokens == (VOCABULARY[9],)
    output = model.generate(
        **tokenizer(TEXT, return_tensors="pt"), max_new_tokens=2, decoder_start_token_id=9
    )
    assert [row.target.index for row in matrix] == output[0, 1:].tolist()


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_the_model_is_left_as_it_was(name):
    model, tokenizer = language_model(name)
    model.train()
    before = model.generation_config.to_dict()
    Explainer(model, tokenizer, tensor="af").explain_generation(TEXT, max_new_tokens=2)
    assert model.training
    assert model.generation_config.to_dict() == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_more_is_generated_than_the_model_reads():
    model, tokenizer = decoder("gpt2")
    explainer = Explainer(model, tokenizer, tensor="af")
    prompt = " ".join(["dog"] * 20)  # 21 tokens of 24
    assert len(explainer.explain_generation(prompt, max_new_tokens=10)) == 4
    with pytest.raises(InputError, match="21 given ones; the model reads 24: give at most 4"):
        explainer.explain_generation(prompt, continuation=[6] * 5)
    assert len(explainer.explain_generation(prompt, continuation=[6] * 4)) == 4


# --- given continuations ---------------------------------------------------------------------
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_a_continuation_as_text_or_as_ids(models, name):
    explainer = Explainer(*models[name], tensor="af")
    ids = [VOCABULARY.index(f"\u2581{word}") for word in ("there", "was", "dog")]
    text = explainer.explain_generation(TEXT, continuation=" there was dog")
    for same_ids in (ids, tuple(ids), np.array(ids), torch.tensor(ids)):
        other = explainer.explain_generation(TEXT, continuation=same_ids)
        for first, second in zip(text, other, strict=True):
            same(first, second)
    assert text.output == "there was dog"
    assert text.output_tokens == ("\u2581there", "\u2581was", "\u2581dog")
    assert any(row.prediction.index != row.target.index for row in text)


def test_what_continues_is_read_in_running_text(models):
    explainer = Explainer(*models["gpt2"], tensor="af")
    # read alone, the tokenizer would put a blank before it: "\u2581!" is no word
    assert explainer.explain_generation(TEXT, continuation="!").output_tokens == ("!",)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
@pytest.mark.parametrize(
    ("continuation", "message"),
    [
        ("", "has no tokens"),
        ([], "has no tokens"),
        ([3, 20], r"token ids \[20\].*20 tokens"),
        ([-1], r"token ids \[-1\]"),
        ([1.5], "a text, or a list of token ids"),
        ([[1, 2]], "a text, or a list of token ids"),
        ([True], "a text, or a list of token ids"),
        ([10**30], "a text, or a list of token ids"),
        (5, "a text, or a list of token ids"),
    ],
)
def test_wrong_continuations(models, name, continuation, message):
    with pytest.raises(InputError, match=message):
        Explainer(*models[name]).explain_generation(TEXT, continuation=continuation)


def test_what_cannot_be_generated_from(models, tiny_bert, tiny_tokenizer):
    explainer = Explainer(*models["gpt2"])
    for text, message in ((["a", "b"], "one text"), ("", "empty"), (None, "one text")):
        with pytest.raises(InputError, match=message):
            explainer.explain_generation(text)
    with pytest.raises(InputError, match="no tokenizer"):
        Explainer(models["gpt2"][0]).explain_generation(TEXT)
    with pytest.raises(InputError, match="num_beams: options of generate go without"):
        explainer.explain_generation(TEXT, continuation=[5], num_beams=2)
    with pytest.raises(UnsupportedError, match="generates no text"):
        Explainer(tiny_bert, tiny_tokenizer).explain_generation("a film")
    with pytest.raises(InputError, match=r"several|2 tokens"):
        explainer(TEXT, target="dog cat")


def test_an_output_vocabulary_of_its_own():
    model, source = translator("bart")
    names = [f"out{i}" if i > 4 else token for i, token in enumerate(VOCABULARY)]
    target = word_tokenizer(begin=False, vocabulary=names)
    explainer = Explainer(model, source, output_tokenizer=target, tensor="af", unroll=False)
    matrix = explainer.explain_generation(TEXT, max_new_tokens=3)
    assert all(token.startswith("out") for token in matrix.output_tokens)
    assert matrix[2].prefix_tokens == ("<s>", *matrix.output_tokens[:2])
    assert matrix.source_tokens[0] == "\u2581once"
    plain = Explainer(model, source, tensor="af", unroll=False).explain_generation(
        TEXT, max_new_tokens=3
    )
    np.testing.assert_array_equal(plain.scores, matrix.scores)
    one = explainer.explain_inputs(input_ids=torch.tensor([source(TEXT)["input_ids"]]))
    assert one.target.label == matrix.output_tokens[0]


# --- options of the explainer ----------------------------------------------------------------
def test_errors_name_the_generated_token(models, monkeypatch):
    real = flow_module.solve

    def fails_late(net, *arguments, **options):
        if net.groups["layer0"] >= 7:
            raise SolverError("no answer")
        return real(net, *arguments, **options)

    monkeypatch.setattr(flow_module, "solve", fails_late)
    with pytest.raises(SolverError, match=r"^generated token 2 \('.*'\): no answer"):
        explained({"gpt2": decoder("gpt2")}, "gpt2")


def test_progress(models, capsys):
    explainer = Explainer(*models["gpt2"], tensor="af")
    explainer.explain_generation(TEXT, max_new_tokens=2)
    assert capsys.readouterr().err == ""
    explainer.explain_generation(TEXT, max_new_tokens=2, progress=True)
    assert "2/2" in capsys.readouterr().err


def test_contrast_and_sequential_stages(models):
    plain = explained(models, "bart", tensor="gf")
    against = explained(models, "bart", tensor="gf", contrast="runner-up")
    assert np.abs(plain.scores - against.scores).max() > 0
    options = {"capacities": Residual(0.5), "unroll": False}
    stages = [explained(models, "bart", stages=s, **options) for s in ("parallel", "sequential")]
    assert all(matrix.status == "optimal" for matrix in stages)
    assert stages[1][0].settings["stages"] == "sequential"


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("name", ["inverse_receptive_field", "uniform_reference"])
def test_normalisation_keeps_the_sum_and_the_raw_scores(models, name, unroll):
    plain = explained(models, "gpt2", unroll=unroll)
    matrix = explained(models, "gpt2", normalise=name, unroll=unroll)
    for raw, row in zip(plain, matrix, strict=True):
        np.testing.assert_allclose(row.raw_scores, raw.scores, rtol=1e-9)
        prefix = 0.0 if row.prefix_scores is None else row.prefix_scores.sum()
        assert row.scores.sum() + prefix == pytest.approx(row.value, rel=1e-9)
        ratio = row.scores / np.where(raw.scores > 0, raw.scores, np.nan)
        assert np.nanargmax(ratio) > np.nanargmin(ratio)  # late tokens gain
        bound = row.certificate.attribution_error
        assert (bound >= 0).all()
        assert bound.max() < 1e-6 * row.value


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 0.2))
def test_the_error_of_normalised_scores_is_bounded(seed, size):
    rng = np.random.default_rng(seed)
    scores, reference = rng.uniform(0.5, 2, 6), rng.uniform(0.5, 2, 6)
    error, doubt = size * rng.uniform(0, 0.5, (2, 6))
    bound = normalised_error(scores, error, reference, doubt)
    middle = normalised(scores, reference)
    signs = rng.choice([-1.0, 1.0], (2, 6))
    moved = normalised(scores + signs[0] * error, reference + signs[1] * doubt)
    assert (np.abs(moved - middle) <= bound + 1e-12).all()
    # what forgets the common factor and the reference is no bound
    if seed % 7 == 0 and size > 0.01:
        shift = normalised(scores, reference + doubt * np.where(np.arange(6) < 3, -1, 1))
        assert (np.abs(shift - middle) > 1e-9).all()


def test_unknown_errors_of_normalised_scores():
    ones = np.ones(3)
    assert normalised_error(ones, None, ones, ones) is None
    assert normalised_error(ones, ones, ones, None) is None
    assert normalised_error(-ones, ones, ones, ones) is None
    assert np.isinf(normalised_error(ones, 2 * ones, ones, 0 * ones)).all()
    assert np.isinf(normalised_error(ones, 0.1 * ones, ones, 2 * ones)).all()
    zero = normalised_error(ones, 0.1 * ones, np.array([1.0, 1.0, 0.0]), 0 * ones)
    assert zero[2] == 0


def test_generation_with_maximum_flow(models):
    matrix = explained(models, "gpt2", objective=MaxFlow())
    for row in matrix:
        assert row.value == pytest.approx(row.max_flow)


# --- words -----------------------------------------------------------------------------------
def test_words_of_a_tokenizer_that_calls_all_one_word(models):
    from tokenizers import normalizers, pre_tokenizers

    model, tokenizer = decoder("gpt2")
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    found = Explainer(model, tokenizer, tensor="af")("x once upon a time")
    assert [word.word for word in found.words()] == ["x", "once", "upon", "a", "time"]
