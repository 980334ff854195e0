"""What methods compute, against direct computations; every check fails for a sabotaged value."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from method_fixtures import SHORT, TEXT, run, tiny_gpt2, tiny_llama
from model_fixtures import tiny_model

import flowopt as fo
from flowopt import methods
from flowopt.methods import slalom
from flowopt.methods.baselines import default_baseline
from flowopt.methods.gradient_methods import _PREFERRED
from flowopt.methods.perturbation_methods import coalitions
from flowopt.methods.surrogate_methods import LinearSurrogate
from flowopt.trace import encode_texts


def differ(found, sabotaged) -> None:
    """A check that accepts the sabotaged value too would prove nothing."""
    assert not np.allclose(found, sabotaged, rtol=1e-3, atol=1e-6)


def eager(model, tokenizer, text):
    """Attention, hidden states and the explained logit, in one plain graph."""
    model.set_attn_implementation("eager")
    inputs = tokenizer(text, return_tensors="pt")
    out = model(**inputs, output_attentions=True, output_hidden_states=True)
    logits = out.logits[0]
    return out.attentions, out.hidden_states, logits[logits.argmax()]


def arrays(layers) -> np.ndarray:
    return np.stack([layer[0].detach().double().numpy() for layer in layers])


def subject(model, tokenizer, text=SHORT):
    (encoded,) = encode_texts(model, tokenizer, [text])
    return methods.subject_of(model, tokenizer, encoded, None)


# --- attention, and attention times gradient -----------------------------------------------------
@pytest.mark.parametrize("make", [tiny_model, tiny_gpt2, tiny_llama])
def test_cat_and_attcat_by_autograd(tiny_tokenizer, make):
    model = make()
    attention, states, logit = eager(model, tiny_tokenizer, TEXT)
    slopes = torch.autograd.grad(logit, states[:-1])
    pairs = zip(states[:-1], slopes, strict=True)
    blocks = np.stack([(h * g)[0].sum(-1).detach().double().numpy() for h, g in pairs])
    received = arrays(attention).mean(axis=(1, 2))
    cat, attcat = (run(model, tiny_tokenizer, name).scores for name in ("cat", "attcat"))
    np.testing.assert_allclose(cat, blocks.sum(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(attcat, (received * blocks).sum(0), rtol=1e-3, atol=1e-5)
    differ(cat, blocks[1:].sum(0))
    differ(attcat, (arrays(attention).mean(axis=(1, 3)) * blocks).sum(0))
    differ(attcat, (received * np.abs(blocks)).sum(0))


def test_chefer_worked_out_by_hand():
    attention = np.array([[[0.5, 0.5], [0.25, 0.75]], [[0.2, 0.8], [1.0, 0.0]]])
    gradient = np.array([[[2.0, -2.0], [4.0, 0.0]], [[5.0, 2.5], [-1.0, 3.0]]])
    layers = np.maximum(attention * gradient, 0)
    np.testing.assert_allclose(layers, [[[1, 0], [1, 0]], [[1, 2], [0, 0]]])
    # I, then [[2, 0], [1, 1]], then that plus [[1, 2], [0, 0]] times it
    np.testing.assert_allclose(methods.chefer_relevance(layers), [[6, 2], [1, 1]])
    differ(methods.chefer_relevance(layers[::-1]), [[6, 2], [1, 1]])


@pytest.mark.parametrize(("make", "read"), [(tiny_model, 0), (tiny_gpt2, -1)])
def test_attention_gradients_by_autograd(tiny_tokenizer, make, read):
    model = make()
    attention, _, logit = eager(model, tiny_tokenizer, TEXT)
    slope = arrays(torch.autograd.grad(logit, attention))
    product = arrays(attention) * slope
    relevance = np.eye(product.shape[-1])
    for layer in np.maximum(product, 0).mean(axis=1):
        relevance = relevance + layer @ relevance
    expected = (relevance - np.eye(len(relevance)))[read]
    found = run(model, tiny_tokenizer, "chefer").scores
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)
    differ(found, relevance[read])
    own = run(model, tiny_tokenizer, "chefer", zero_own=True).scores
    assert own[read] == 0
    assert np.count_nonzero(own - found) == (found[read] != 0)

    def attgrad(**options):
        return run(model, tiny_tokenizer, "attgrad", **options).scores

    tolerance = {"rtol": 1e-3, "atol": 1e-6}
    np.testing.assert_allclose(attgrad(), product.mean(1).sum((0, 1)), **tolerance)
    np.testing.assert_allclose(attgrad(layers="last"), product[-1].mean(0)[read], **tolerance)
    positive = (arrays(attention) * np.maximum(slope, 0)).mean(1).sum((0, 1))
    np.testing.assert_allclose(attgrad(positive=True), positive, **tolerance)
    differ(attgrad(), product.mean(1).sum((0, 2)))


@pytest.mark.parametrize(("make", "read"), [(tiny_model, 0), (tiny_gpt2, -1)])
def test_attention_alone(tiny_tokenizer, make, read):
    model = make()
    attention = arrays(eager(model, tiny_tokenizer, TEXT)[0])

    def scores(name, **options):
        return run(model, tiny_tokenizer, name, **options).scores

    tolerance = {"rtol": 1e-4, "atol": 1e-7}
    np.testing.assert_allclose(scores("raw-attention"), attention[-1].mean(0)[read], **tolerance)
    first = scores("raw-attention", layer=0, zero_own=True)
    expected = attention[0].mean(0)[read].copy()
    expected[read] = 0
    np.testing.assert_allclose(first, expected, **tolerance)
    rollout = fo.methods.rollout(attention)
    np.testing.assert_allclose(scores("rollout"), rollout[-1][read], **tolerance)
    differ(scores("rollout"), rollout[-2][read])
    flow = fo.methods.attention_flow(attention)[-1][read]
    np.testing.assert_allclose(scores("attention-flow"), flow, rtol=1e-3, atol=1e-6)
    quarter = fo.methods.rollout(attention, alpha=0.25)[-1][read]
    np.testing.assert_allclose(scores("rollout", alpha=0.25), quarter, **tolerance)


def test_heads_that_read_several_positions_get_the_mean_row(tiny_tokenizer):
    from flowopt.methods.attention_methods import read_at

    rows = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(read_at(rows, None), [1.5, 2.5, 3.5])
    np.testing.assert_array_equal(read_at(rows, 0), rows[0])


# --- gradients -----------------------------------------------------------------------------------
def bert_logit(model, ids, embeddings=None):
    """The explained logit by transformers' own way to give embeddings."""
    given = {"inputs_embeds": embeddings} if embeddings is not None else {"input_ids": ids}
    return model(**given).logits[0]


def bert_inputs(model, tokenizer, text=SHORT, baseline="pad"):
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    empty = ids.clone()
    empty[0, 1:-1] = getattr(tokenizer, f"{baseline}_token_id")
    return ids, empty, int(bert_logit(model, ids).argmax())


def test_saliency_and_input_x_gradient(tiny_bert, tiny_tokenizer):
    ids, _, target = bert_inputs(tiny_bert, tiny_tokenizer)
    own = tiny_bert.get_input_embeddings()(ids).detach().requires_grad_()
    (slope,) = torch.autograd.grad(bert_logit(tiny_bert, ids, own)[target], own)
    g, x = slope[0].double().numpy(), own.detach()[0].double().numpy()

    def scores(name, **options):
        return run(tiny_bert, tiny_tokenizer, name, text=SHORT, **options).scores

    np.testing.assert_allclose(scores("saliency"), np.linalg.norm(g, axis=1), rtol=1e-3)
    np.testing.assert_allclose(scores("saliency", norm="l1"), np.abs(g).sum(1), rtol=1e-3)
    np.testing.assert_allclose(scores("saliency", norm="max"), np.abs(g).max(1), rtol=1e-3)
    product = (g * x).sum(1)
    np.testing.assert_allclose(scores("input-x-gradient"), product, rtol=1e-3, atol=1e-6)
    differ(scores("input-x-gradient"), (g * np.abs(x)).sum(1))


@pytest.mark.parametrize("baseline", ["pad", "mask"])
def test_integrated_gradients_are_complete(tiny_bert, tiny_tokenizer, baseline):
    ids, empty, target = bert_inputs(tiny_bert, tiny_tokenizer, baseline=baseline)
    with torch.no_grad():
        change = float((bert_logit(tiny_bert, ids) - bert_logit(tiny_bert, empty))[target])

    def found(steps):
        options = {"steps": steps, "baselines": baseline}
        return run(tiny_bert, tiny_tokenizer, "integrated-gradients", text=SHORT, **options)

    good, coarse = found(64), found(2)
    assert good.settings["expected_sum"] == pytest.approx(change, rel=1e-4)
    assert good.scores.sum() == pytest.approx(change, rel=1e-3)
    assert abs(coarse.scores.sum() - change) > 10 * abs(good.scores.sum() - change)
    assert good.scores[[0, -1]].tolist() == [0, 0]
    assert good.settings["baseline"] == [baseline]


def test_integrated_gradients_by_hand(tiny_bert, tiny_tokenizer):
    ids, empty, target = bert_inputs(tiny_bert, tiny_tokenizer)
    start, end = (tiny_bert.get_input_embeddings()(each).detach() for each in (empty, ids))
    nodes, weights = np.polynomial.legendre.leggauss(8)
    expected = np.zeros(ids.shape[1])
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        at = (start + float(node) * (end - start)).requires_grad_()
        (slope,) = torch.autograd.grad(bert_logit(tiny_bert, ids, at)[target], at)
        expected += weight * (slope * (end - start)).sum(-1)[0].double().numpy()
    found = run(tiny_bert, tiny_tokenizer, "integrated-gradients", text=SHORT, steps=8).scores
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    several = [
        run(tiny_bert, tiny_tokenizer, "integrated-gradients", text=SHORT, steps=8, baselines=names)
        for names in ("pad", "mask", ("pad", "mask"))
    ]
    mean = (several[0].scores + several[1].scores) / 2
    np.testing.assert_allclose(several[2].scores, mean, rtol=1e-5, atol=1e-7)


def test_deeplift_is_the_rescale_rule_at_the_pooler(tiny_bert, tiny_tokenizer):
    ids, empty, target = bert_inputs(tiny_bert, tiny_tokenizer)
    start, end = (tiny_bert.get_input_embeddings()(each).detach() for each in (empty, ids))
    dense = tiny_bert.bert.pooler.dense
    with torch.no_grad():
        before = [
            dense(tiny_bert.bert(inputs_embeds=each).last_hidden_state[:, 0])
            for each in (end, start)
        ]
    rescaled = (before[0].tanh() - before[1].tanh()) / (before[0] - before[1])
    leaf = end.clone().requires_grad_()
    pooled = dense(tiny_bert.bert(inputs_embeds=leaf).last_hidden_state[:, 0]) * rescaled
    (slope,) = torch.autograd.grad((pooled @ tiny_bert.classifier.weight[target]).sum(), leaf)
    expected = (slope * (end - start)).sum(-1)[0].double().numpy()
    found = run(tiny_bert, tiny_tokenizer, "deeplift", text=SHORT)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-2, atol=1e-5)
    (plain,) = torch.autograd.grad(bert_logit(tiny_bert, ids, leaf)[target], leaf)
    differ(found.scores, (plain * (end - start)).sum(-1)[0])
    change = (bert_logit(tiny_bert, ids) - bert_logit(tiny_bert, empty))[target].item()
    assert found.settings["change_of_logit"] == pytest.approx(change, rel=1e-3)
    assert "expected_sum" not in found.settings


def test_gradient_shap_is_complete_in_expectation(tiny_bert, tiny_tokenizer):
    def error(**options):
        found = run(tiny_bert, tiny_tokenizer, "gradient-shap", text=SHORT, **options)
        return abs(found.scores.sum() - found.settings["expected_sum"])

    many = error(samples=3000)
    few = [error(samples=4, seed=seed) for seed in range(20)]
    assert many < 0.2 * np.mean(few)


# --- perturbations -------------------------------------------------------------------------------
def game(model, tokenizer, text=SHORT, baseline="mask"):
    """The logit of every set of tokens, the others replaced; by plain calls of a BERT."""
    ids, empty, target = bert_inputs(model, tokenizer, text, baseline)
    players = ids.shape[1] - 2
    values = {}
    for present in itertools.product((0, 1), repeat=players):
        chosen = torch.tensor([1, *present, 1])
        with torch.no_grad():
            mixed = torch.where(chosen == 1, ids, empty)
            values[present] = float(bert_logit(model, mixed)[target])
    return values, players


def shapley(values, players) -> np.ndarray:
    found = np.zeros(players)
    for present, value in values.items():
        for j in range(players):
            if not present[j]:
                size = sum(present)
                weight = math.factorial(size) * math.factorial(players - size - 1)
                with_j = (*present[:j], 1, *present[j + 1 :])
                found[j] += weight / math.factorial(players) * (values[with_j] - value)
    return found


def test_occlusion_by_hand(tiny_bert, tiny_tokenizer):
    values, players = game(tiny_bert, tiny_tokenizer)
    whole = values[(1,) * players]
    without = [values[tuple(int(i != j) for i in range(players))] for j in range(players)]
    found = run(tiny_bert, tiny_tokenizer, "occlusion", text=SHORT).scores
    np.testing.assert_allclose(found[1:-1], whole - np.array(without), rtol=1e-3, atol=1e-5)
    assert found[[0, -1]].tolist() == [0, 0]
    differ(found[1:-1], np.array(without) - whole)
    pairs = [
        values[tuple(int(i not in (j, j + 1)) for i in range(players))] for j in range(players - 1)
    ]
    drops = whole - np.array(pairs)
    expected = [drops[0], drops[:2].mean(), drops[1:].mean(), drops[2]]
    window = run(tiny_bert, tiny_tokenizer, "occlusion", text=SHORT, window=2).scores
    np.testing.assert_allclose(window[1:-1], expected, rtol=1e-3, atol=1e-5)


def plain_logits(model, ids):
    """Logits by a plain call with what the tokenizer gives: GPT-2 embeds token types as well."""
    rows = torch.tensor([ids])
    return model(rows, token_type_ids=0 * rows, attention_mask=0 * rows + 1).logits[0]


@pytest.mark.parametrize("make", [tiny_model, tiny_gpt2])
def test_leave_one_out_by_hand(tiny_tokenizer, make):
    model = make()
    ids = tiny_tokenizer(SHORT)["input_ids"]
    with torch.no_grad():
        row = plain_logits(model, ids)
        target = int(row.argmax())
        cuts = [plain_logits(model, ids[:j] + ids[j + 1 :]) for j in range(1, len(ids) - 1)]
    expected = [float(row[target] - cut[target]) for cut in cuts]
    found = run(model, tiny_tokenizer, "leave-one-out", text=SHORT).scores
    np.testing.assert_allclose(found[1:-1], expected, rtol=1e-3, atol=1e-5)
    differ(found[1:-1], run(model, tiny_tokenizer, "occlusion", text=SHORT).scores[1:-1])


def test_leave_one_out_of_a_language_model_reads_the_new_last_token(tiny_tokenizer):
    model = tiny_gpt2(language=True)
    ids = tiny_tokenizer(SHORT)["input_ids"]
    with torch.no_grad():
        row = plain_logits(model, ids)[-1]
        target = int(row.argmax())
        cut = plain_logits(model, ids[:2] + ids[3:])[-1, target]
    found = run(model, tiny_tokenizer, "leave-one-out", text=SHORT)
    assert found.target.index == target
    assert found.scores[2] == pytest.approx(float(row[target] - cut), rel=1e-3)


def test_shapley_values(tiny_bert, tiny_tokenizer):
    values, players = game(tiny_bert, tiny_tokenizer)
    exact = shapley(values, players)
    total = values[(1,) * players] - values[(0,) * players]
    assert exact.sum() == pytest.approx(total)
    sampled = run(tiny_bert, tiny_tokenizer, "shapley-sampling", text=SHORT, samples=400)
    assert sampled.scores.sum() == pytest.approx(total, rel=1e-4)
    scale = np.abs(exact).max()
    np.testing.assert_allclose(sampled.scores[1:-1], exact, atol=0.15 * scale)
    kernel = run(tiny_bert, tiny_tokenizer, "kernel-shap", text=SHORT, samples=3000)
    np.testing.assert_allclose(kernel.scores[1:-1], exact, atol=0.05 * scale)
    assert kernel.scores.sum() == pytest.approx(total, rel=1e-3)
    assert np.abs(kernel.scores[1:-1] - exact[::-1]).max() > 0.05 * scale
    for found in (sampled, kernel):
        assert found.settings["expected_sum"] == pytest.approx(total, rel=1e-4)


def test_lime_is_the_weighted_regression_over_all_sets(tiny_bert, tiny_tokenizer):
    values, players = game(tiny_bert, tiny_tokenizer)

    def regression(width):
        rows = np.array(list(values))
        left = rows.sum(axis=1)
        chance = np.array(
            [1 / (players * math.comb(players, k)) if k < players else 0 for k in left]
        )
        weight = chance * np.exp(-((1 - np.sqrt(left / players)) ** 2) / (2 * width**2))
        design = np.column_stack([rows, np.ones(len(rows))]) * np.sqrt(weight)[:, None]
        answers = np.array(list(values.values())) * np.sqrt(weight)
        return np.linalg.lstsq(design, answers, rcond=None)[0][:-1]

    options = {"samples": 4000, "ridge": 1e-9, "kernel_width": 0.5}
    found = run(tiny_bert, tiny_tokenizer, "lime", text=SHORT, **options).scores[1:-1]
    scale = np.abs(found).max()
    np.testing.assert_allclose(found, regression(0.5), atol=0.05 * scale)
    assert np.abs(found - regression(0.2)).max() > 0.05 * scale
    shrunk = run(tiny_bert, tiny_tokenizer, "lime", text=SHORT, **options | {"ridge": 1e6}).scores
    assert np.abs(shrunk).max() < 0.05 * scale


def test_long_texts_are_sampled_more(tiny_bert, tiny_tokenizer):
    from flowopt.methods.surrogate_methods import _number

    one = subject(tiny_bert, tiny_tokenizer)
    assert (_number(None, one), _number(7, one)) == (500, 7)
    tiny_tokenizer.model_max_length, before = 400, tiny_tokenizer.model_max_length
    tiny_bert.config.max_position_embeddings = 400
    try:
        long = subject(tiny_bert, tiny_tokenizer, "film " * 300)
    finally:
        tiny_tokenizer.model_max_length = before
    assert _number(None, long) == 1200


def test_the_surrogate_solves_its_normal_equations():
    rng = np.random.default_rng(0)
    samples = torch.tensor(rng.integers(0, 2, (40, 5)), dtype=torch.float32)
    answers, weights = (torch.tensor(rng.random(40), dtype=torch.float32) for _ in range(2))
    surrogate = LinearSurrogate(0.7)
    surrogate.fit(
        [(samples[:25], answers[:25], weights[:25]), (samples[25:], answers[25:], weights[25:])]
    )
    x, y, w = (part.double().numpy() for part in (samples, answers, weights))
    residual = w * (x @ surrogate.coefficients + surrogate.constant - y)
    np.testing.assert_allclose(x.T @ residual, -0.7 * surrogate.coefficients, atol=1e-9)
    assert residual.sum() == pytest.approx(0, abs=1e-9)
    assert surrogate.representation().shape == (1, 5)


def test_slalom_scores_are_those_of_slalom(tiny_bert, tiny_tokenizer):
    expected = slalom.explain(tiny_bert, tiny_tokenizer, TEXT, samples=150, seed=3)
    for kind in ("value", "importance", "linearised", "removal"):
        found = run(tiny_bert, tiny_tokenizer, f"slalom-{kind}", seed=3)
        np.testing.assert_allclose(found.scores, expected.scores(kind), rtol=1e-6, atol=1e-9)
        assert found.settings["quality"]["queries"] == expected.quality.queries


def test_random_scores_differ_between_texts(tiny_bert, tiny_tokenizer):
    first, second = (run(tiny_bert, tiny_tokenizer, "random", text=t) for t in ("a film", "a plot"))
    assert not np.allclose(first.scores, second.scores)
    assert first.scores.min() >= 0
    assert first.scores.max() < 1


# --- what methods share --------------------------------------------------------------------------
def test_replaced_tokens_leave_positions_alone(tiny_tokenizer):
    """RoBERTa counts positions by the ids that are no padding: a padded id would shift them."""
    model = tiny_model("roberta")
    one = subject(model, tiny_tokenizer)
    ids = one.inputs["input_ids"]
    changed = ids.clone()
    changed[0, 2] = tiny_tokenizer.pad_token_id
    present = torch.tensor([[1, 0, 1, 1]])
    with torch.no_grad():
        places = torch.arange(ids.shape[1])[None] + model.config.pad_token_id + 1
        expected = model(changed, position_ids=places).logits[0, one.target.index]
        shifted = model(changed).logits[0, one.target.index]
    found = one.coalition_logits(present, one.baselines("pad"))
    assert float(found[0]) == pytest.approx(float(expected), rel=1e-4)
    assert float(found[0]) != pytest.approx(float(shifted), rel=1e-4)


def test_replaced_tokens_leave_the_readout_alone(tiny_tokenizer):
    """A decoder's classifier reads the last token that is no padding: it stays the last one."""
    one = subject(tiny_gpt2(), _bare(tiny_tokenizer))
    logits = one.coalition_logits(torch.tensor([[1, 1, 1, 0]]), one.baselines("pad"))
    with torch.no_grad():
        ids = one.inputs["input_ids"][:, :3]
        before = plain_logits(one.model, ids[0].tolist())[one.target.index]
        padded = torch.cat([ids, torch.tensor([[0]])], 1)
        hidden = one.model.transformer(padded, token_type_ids=0 * padded)[0][0, -1]
        expected = one.model.score(hidden)[one.target.index]
    assert float(logits[0]) == pytest.approx(float(expected), rel=1e-4)
    assert float(logits[0]) != pytest.approx(float(before), rel=1e-4)


def _bare(tokenizer):
    from copy import deepcopy

    from tokenizers import processors

    bare = deepcopy(tokenizer)
    bare._tokenizer.post_processor = processors.Sequence([])
    return bare


def test_baselines_keep_special_tokens(tiny_bert, tiny_tokenizer):
    one = subject(tiny_bert, tiny_tokenizer)
    table = tiny_bert.get_input_embeddings().weight.detach()
    found = one.baselines(["pad", "zero", "great", "unknown"])
    assert found.shape == (4, 6, 24)
    own = table[list(one.info.input_ids)]
    for row in found:
        torch.testing.assert_close(row[[0, -1]], own[[0, -1]])
    torch.testing.assert_close(found[0, 1:-1], table[[0] * 4])
    torch.testing.assert_close(found[2, 1:-1], table[[tiny_tokenizer.get_vocab()["great"]] * 4])
    assert not found[1, 1:-1].any()
    assert one.players == (1, 2, 3, 4)
    assert default_baseline(one, "eos", "mask", "pad") == "mask"
    assert default_baseline(one, "eos") == "zero"
    assert "pad" in _PREFERRED


def test_internal_batches_do_not_matter(tiny_bert, tiny_tokenizer, monkeypatch):
    import flowopt.methods.subject as module

    names = ("integrated-gradients", "occlusion", "kernel-shap", "leave-one-out", "lime")
    whole = [run(tiny_bert, tiny_tokenizer, name).scores for name in names]
    monkeypatch.setattr(module, "_MOST_ROWS", 3)
    for name, expected in zip(names, whole, strict=True):
        found = run(tiny_bert, tiny_tokenizer, name)
        np.testing.assert_allclose(found.scores, expected, rtol=1e-3, atol=1e-5)
        assert found.settings["passes"]["calls"] >= found.settings["passes"]["forward"] // 3


def test_no_set_of_tokens_is_asked_for_twice(tiny_bert, tiny_tokenizer):
    one = subject(tiny_bert, tiny_tokenizer)
    with methods.counting(tiny_bert) as passes:
        game, name = coalitions(one, None)
        sets = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 1]])
        first = game(sets)
        second = game(sets.flip(0).float())
    assert name == "mask"
    assert passes.forward == 3  # one for the whole text
    expected = one.coalition_logits(sets, one.baselines("mask")).double()
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second, first.flip(0), rtol=0, atol=0)


def test_a_model_that_goes_round_its_embeddings_is_refused(tiny_bert, tiny_tokenizer, monkeypatch):
    from flowopt.errors import UnsupportedError

    unused = torch.nn.Embedding(64, 24)
    monkeypatch.setattr(tiny_bert, "get_input_embeddings", lambda: unused)
    with pytest.raises(UnsupportedError, match="does not call its embedding layer"):
        run(tiny_bert, tiny_tokenizer, "occlusion")
