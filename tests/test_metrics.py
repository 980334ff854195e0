"""Faithfulness metrics against direct computation and closed forms; sabotaged ones are caught."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_fixtures import TEXT, tiny_gpt2, tiny_t5
from model_fixtures import tiny_model
from scipy.stats import kendalltau

import flowopt as fo
from flowopt.evaluation import metric as registry
from flowopt.evaluation.measure import measure
from flowopt.evaluation.metric import Case, metric_spec, metrics, register_metric
from flowopt.evaluation.perturbation import Perturbations
from flowopt.evaluation.protocol import (
    ERASER_BINS,
    PROTOCOLS,
    REMOVALS,
    Protocol,
    count_at,
    protocol_named,
)
from flowopt.evaluation.truth import planted_model
from flowopt.methods import explain_subject, subject_of
from flowopt.trace import encode_texts

ALL = [each.name for each in metrics("faithfulness")]


def subject(model, tokenizer, text=TEXT, target=None):
    (encoded,) = encode_texts(model, tokenizer, [text])
    return subject_of(model, tokenizer, encoded, target)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return tiny_tokenizer


@pytest.fixture(scope="module")
def bert(tokenizer):
    return subject(tiny_model("bert"), tokenizer)


@pytest.fixture(scope="module")
def scores(bert):
    return np.random.default_rng(1).normal(size=len(bert))


# --- a game in place of a model, for closed forms and properties ------------------------------


class Text:
    """[CLS] and n tokens and [SEP]."""

    def __init__(self, count):
        self.players = tuple(range(1, count + 1))

    def __len__(self):
        return len(self.players) + 2


class Additive:
    """The logit is the sum of the weights that are kept."""

    def __init__(self, weights):
        self.weights = np.array([0.0, *weights, 0.0])

    def logits(self, kept):
        return np.array([self.weights[list(each)].sum() for each in kept])

    def log_probabilities(self, kept):
        return -np.logaddexp(0.0, -self.logits(kept))

    def probabilities(self, kept):
        return np.exp(self.log_probabilities(kept))


def additive_case(weights, scores, protocol="default"):
    padded = np.array([9.0, *scores, 9.0])  # special tokens score highest and must not matter
    return Case(Text(len(weights)), padded, protocol_named(protocol), Additive(weights))


def value(name, case):
    return metric_spec(name).function(case)


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


def test_aopc_and_log_odds_by_hand():
    weights = [3.0, -1.0, 2.0, 0.5]
    case = additive_case(weights, weights)
    # levels 10..50 % of 4 tokens, rounded up: 1, 1, 2, 2, 2 of the order 3, 2, .5, -1
    p = [sigmoid(4.5), sigmoid(1.5), sigmoid(-0.5)]
    assert value("aopc", case) == pytest.approx(p[0] - (2 * p[1] + 3 * p[2]) / 5)
    logs = [math.log(each) for each in p]
    assert value("log-odds", case) == pytest.approx((2 * logs[1] + 3 * logs[2]) / 5 - logs[0])


def test_eraser_by_hand():
    weights = [3.0, -1.0, 2.0, 0.5]
    case = additive_case(weights, weights)
    # bins 1, 5, 10, 20 % are one token, 50 % two
    p = sigmoid(4.5)
    without = (4 * sigmoid(1.5) + sigmoid(-0.5)) / 5
    alone = (4 * sigmoid(3.0) + sigmoid(5.0)) / 5
    assert value("comprehensiveness", case) == pytest.approx(p - without)
    assert value("sufficiency", case) == pytest.approx(p - alone)
    same = additive_case(weights, weights, "attcat")
    assert value("comprehensiveness", same) == value("comprehensiveness", case)


def test_areas_by_hand():
    case = additive_case([1.0, -1.0], [1.0, 0.0])
    # shares 0, .5 (five times, rounded up), 1 (five times): no area between equal shares
    assert case.protocol.fractions == pytest.approx([i / 10 for i in range(11)])
    half, removed, put_in = sigmoid(0.0), sigmoid(-1.0), sigmoid(1.0)
    assert value("deletion-area", case) == pytest.approx(
        (half + removed) / 4 + (removed + half) / 4
    )
    assert value("insertion-area", case) == pytest.approx((half + put_in) / 4 + (put_in + half) / 4)


def test_absolute_differs_where_the_probability_rises():
    weights, scores = [2.0, -3.0, 1.0, 0.5], [0.0, 1.0, 0.0, 0.0]
    signed = additive_case(weights, scores, Protocol("signed", (0.1,)))
    size = additive_case(weights, scores, Protocol("size", (0.1,), absolute=True))
    assert value("aopc", signed) == pytest.approx(sigmoid(0.5) - sigmoid(3.5))
    assert value("aopc", size) == pytest.approx(sigmoid(3.5) - sigmoid(0.5))


weights_of = st.lists(
    st.floats(-4, 4, allow_nan=False).map(lambda x: round(x, 2)), min_size=1, max_size=9
)


@settings(max_examples=60, deadline=None)
@given(weights_of, st.integers(0, 1000), st.sampled_from(sorted(PROTOCOLS)))
def test_values_are_in_the_range_declared(weights, seed, protocol):
    scores = np.random.default_rng(seed).normal(size=len(weights))
    case = additive_case(weights, scores, protocol)
    for name in ALL:
        found, (least, most) = value(name, case), metric_spec(name).range
        assert found is None or least - 1e-12 <= found <= most + 1e-12


@settings(max_examples=60, deadline=None)
@given(weights_of, st.integers(0, 1000))
def test_only_the_order_of_scores_counts(weights, seed):
    scores = np.random.default_rng(seed).integers(-3, 4, len(weights)).astype(float)
    first = additive_case(weights, scores)
    second = additive_case(weights, np.exp(scores) + 7)
    for name in ALL:
        assert value(name, first) == value(name, second)


@settings(max_examples=60, deadline=None)
@given(weights_of)
def test_the_true_order_is_best_in_the_direction_declared(weights):
    true = additive_case(weights, weights)
    reverse = additive_case(weights, [-each for each in weights])
    for name in ALL:
        sign = 1 if metric_spec(name).higher_is_better else -1
        best, worst = value(name, true), value(name, reverse)
        if best is not None and worst is not None:
            assert sign * best >= sign * worst - 1e-12


def test_a_reversed_ranking_is_caught():
    """The check above can fail: with distinct weights the sabotaged order is strictly worse."""
    weights = [2.0, 1.0, 0.1, -0.5, -2.0]
    for name in ALL:
        sign = 1 if metric_spec(name).higher_is_better else -1
        true = value(name, additive_case(weights, weights))
        reverse = value(name, additive_case(weights, [-each for each in weights]))
        assert sign * true > sign * reverse + 0.01, name


def test_ties_are_broken_by_position_and_special_tokens_are_never_ranked():
    case = additive_case([1.0, 2.0, 3.0], [1.0, 1.0, 2.0])
    assert case.ranked == (3, 1, 2)
    assert case.without(2) == (0, 2, 4)
    assert case.only(1) == (0, 3, 4)


def test_tau_loo_is_kendalls_tau_b_of_the_logit():
    weights = np.array([2.0, 1.0, 0.5, -1.0])
    scores = np.array([1.0, 3.0, 0.0, 0.0])
    expected = kendalltau(scores, weights).statistic
    assert value("tau-loo", additive_case(weights, scores)) == pytest.approx(expected)
    assert value("tau-loo", additive_case(weights, [1.0] * 4)) is None
    assert value("tau-loo", additive_case([1.0], [1.0])) is None


# --- real models ------------------------------------------------------------------------------


def direct(model, ids, target, position=None):
    """Probability of a class, or token, from the model itself."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    row = logits if position is None else logits[position]
    return float(torch.softmax(row.double(), dim=0)[target])


def brute_aopc(subject, scores, probability):
    """The definition, written again with other means; BERT-like texts."""
    ids = list(subject.info.input_ids)
    players = [i for i, special in enumerate(subject.info.special) if not special]
    order = sorted(players, key=lambda i: (-scores[i], i))
    drops = []
    for tenth in (1, 2, 3, 4, 5):
        gone = order[: -(-tenth * len(players) // 10)]
        rest = [each for i, each in enumerate(ids) if i not in gone]
        drops.append(probability(ids) - probability(rest))
    return sum(drops) / len(drops)


def test_deletion_equals_the_model_on_shorter_ids(bert, scores):
    found = measure(bert, {"mine": scores}, ["aopc"])["mine"].values["aopc"]
    expected = brute_aopc(bert, scores, lambda ids: direct(bert.model, ids, bert.prediction.index))
    assert found == pytest.approx(expected, abs=1e-6)
    sabotaged = brute_aopc(
        bert, -scores, lambda ids: direct(bert.model, ids, bert.prediction.index)
    )
    assert found != pytest.approx(sabotaged, abs=1e-3)


def test_replacement_equals_the_model_on_replaced_ids(bert, scores):
    tokenizer, ids = bert.tokenizer, list(bert.info.input_ids)
    kept = (0, 3, 4, len(ids) - 1)
    for removal, token in (("mask", "mask"), ("unknown", "unk"), ("pad", "pad")):
        other = getattr(tokenizer, f"{token}_token_id")
        changed = [each if i in kept else other for i, each in enumerate(ids)]
        with torch.no_grad():  # the padding token stays visible: it stands for a word
            logits = bert.model(
                input_ids=torch.tensor([changed]), attention_mask=torch.ones(1, len(ids))
            ).logits[0]
        expected = float(torch.softmax(logits.double(), 0)[bert.target.index])
        assert Perturbations(bert, removal).probabilities([kept])[0] == pytest.approx(
            expected, abs=1e-6
        )


def test_closed_form_of_a_model_built_by_hand():
    model, tokenizer = planted_model()
    text = subject(model, tokenizer, "amber the cedar of fjord", "planted")

    def probability(weights):
        mean = 4 * sum(weights) / (len(weights) + 2)
        first = mean / math.sqrt(1 + mean**2 / 8)
        second = first / math.sqrt(1 + first**2 / 8)
        return sigmoid(2 * math.tanh(second))

    scores = np.array([0.0, 5, 1, 4, 2, 3, 0])  # amber, cedar, fjord, of, the
    found = measure(text, {"mine": scores}, ["aopc", "sufficiency"])["mine"]
    p = probability([1, 0, 1, 0, -1])
    one, two, three = probability([0, 1, 0, -1]), probability([0, 0, -1]), probability([0, 0])
    assert found.values["aopc"] == pytest.approx(p - (2 * one + 2 * two + three) / 5, abs=1e-6)
    alone = (4 * probability([1]) + probability([1, 1, -1])) / 5
    assert found.values["sufficiency"] == pytest.approx(p - alone, abs=1e-6)
    assert found.curves["deletion"] == pytest.approx([p, one, one, two, two, three], abs=1e-6)


def test_several_attributions_at_once_equal_each_alone(bert, scores):
    many = {"a": scores, "b": -scores, "c": np.abs(scores)}
    together = measure(bert, many, ALL)
    for name, each in many.items():
        alone = measure(bert, {name: each}, ALL)[name]
        assert together[name].values == pytest.approx(alone.values, abs=1e-6)
        assert together[name].curves["insertion"] == pytest.approx(
            alone.curves["insertion"], abs=1e-6
        )


def test_equal_sets_are_asked_once_and_lengths_go_together(bert, scores):
    ask = Perturbations(bert)
    whole = tuple(range(len(bert)))
    kept = [whole, whole[:-2] + whole[-1:], whole, whole[:1] + whole[2:]]
    with fo.methods.counting(bert.model) as passes:
        ask.prepare(kept)
        ask.probabilities(kept)
        ask.logits(kept)
    assert ask.asked == 3
    assert (passes.forward, passes.calls) == (3, 2)
    with fo.methods.counting(bert.model) as passes:
        measure(bert, {"a": scores, "same": scores.copy()}, ["aopc", "log-odds"])
    assert passes.forward == 1 + len(
        {count_at(x, len(bert.players)) for x in (0.1, 0.2, 0.3, 0.4, 0.5)}
    )


def test_leave_one_out_handed_in_saves_the_passes(bert, scores):
    known = explain_subject(bert, "leave-one-out").scores
    with fo.methods.counting(bert.model) as passes:
        found = measure(bert, {"a": scores, "b": known}, ["tau-loo"], leave_one_out=known)
    assert passes.forward == 0
    asked = measure(bert, {"a": scores}, ["tau-loo"])
    assert found["a"].values["tau-loo"] == pytest.approx(asked["a"].values["tau-loo"])
    assert found["b"].values["tau-loo"] == pytest.approx(1.0)
    masked = Protocol("masked", removal="mask")
    with fo.methods.counting(bert.model) as passes:  # those drops are of deletion
        measure(bert, {"a": scores}, ["tau-loo"], protocol=masked, leave_one_out=known)
    assert passes.forward == len(bert.players) + 1


@pytest.mark.parametrize("made", [lambda: tiny_gpt2(), lambda: tiny_gpt2(language=True), tiny_t5])
def test_decoders_and_language_models(made, tokenizer):
    text = subject(made(), tokenizer)
    found = measure(text, {"a": np.arange(len(text), dtype=float)}, ALL)["a"].values
    assert all(each is not None for each in found.values())


def test_one_logit_and_rivals_by_sigmoid(tokenizer):
    for model in (
        tiny_model("bert", labels=("score",)),
        tiny_model("bert", problem_type="multi_label_classification"),
    ):
        text = subject(model, tokenizer)
        whole = [tuple(range(len(text)))]
        assert Perturbations(text).probabilities(whole)[0] == pytest.approx(
            text.target.probability, abs=1e-6
        )
        logs = Perturbations(text).log_probabilities(whole)[0]
        assert logs == pytest.approx(-math.log1p(math.exp(-text.target.logit)), abs=1e-6)


def test_nothing_left_is_no_value(bert, scores):
    ask = Perturbations(bert)
    assert np.isnan(ask.probabilities([()])[0])
    case = Case(bert, scores, protocol_named("default"), ask)
    object.__setattr__(case, "without", lambda count: ())
    assert value("aopc", case) is None
    assert value("deletion-area", case) is None


def test_a_model_in_training_mode_is_measured_without_dropout(bert, scores):
    expected = measure(bert, {"a": scores}, ["aopc"])["a"].values
    bert.model.train()
    try:
        assert measure(bert, {"a": scores}, ["aopc"])["a"].values == expected
        assert bert.model.training
    finally:
        bert.model.eval()


# --- protocols and the registry ---------------------------------------------------------------


def test_protocols_are_those_of_the_papers():
    assert protocol_named("default").levels == (0.1, 0.2, 0.3, 0.4, 0.5)
    attcat = protocol_named("attcat")
    assert attcat.levels == pytest.approx(np.linspace(0, 1, 10)[1:])
    assert (attcat.absolute, attcat.target, attcat.least_tokens) == (True, "label", 10)
    assert protocol_named("attcat-pad").removal == "pad"
    assert protocol_named("eraser").levels == ERASER_BINS == (0.01, 0.05, 0.1, 0.2, 0.5)
    assert attcat.fractions == (0.0, *attcat.levels)
    assert protocol_named("eraser").fractions == pytest.approx(
        [0, 0.01, 0.05, 0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    )


def test_counts_round_up_without_rounding_errors():
    assert [count_at(level, 10) for level in (0.0, 0.01, 0.1, 0.11, 0.3, 1.0)] == [
        0, 1, 1, 2, 3, 10,
    ]  # fmt: skip
    assert 0.07 * 100 > 7
    assert count_at(0.07, 100) == 7
    assert [count_at(i / 9, 9) for i in range(1, 10)] == list(range(1, 10))


def test_short_texts_are_not_measured_and_say_why(tokenizer):
    text = subject(tiny_model("bert"), tokenizer, "a great film")
    scores = np.arange(len(text), dtype=float)
    names = ["aopc", "auroc"]
    found = measure(text, {"a": scores}, names, protocol="attcat", marks=[0, 1, 0])["a"]
    assert found.values == {"aopc": None, "auroc": 0.5}
    assert "at least 10" in found.reason
    assert found.curves == {}
    assert measure(text, {"a": scores}, ["aopc"])["a"].reason is None
    just = Protocol("three", least_tokens=3)
    assert measure(text, {"a": scores}, ["aopc"], protocol=just)["a"].values["aopc"] is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": (0.5, 0.1)}, "ascending"),
        ({"levels": ()}, "ascending"),
        ({"levels": (0.0, 0.5)}, "above 0"),
        ({"levels": (0.5, 1.5)}, "at most 1"),
        ({"levels": "abc"}, "shares"),
        ({"removal": "swap"}, "delete"),
        ({"target": "gold"}, "predicted"),
        ({"least_tokens": 0}, "at least 1"),
    ],
)
def test_protocols_refuse_nonsense(options, words):
    with pytest.raises(fo.InputError, match=words):
        Protocol("mine", **options)


def test_wrong_names_and_scores_say_what_to_do(bert, scores):
    with pytest.raises(fo.InputError, match="did you mean 'aopc'"):
        measure(bert, {"a": scores}, ["aopcc"])
    with pytest.raises(fo.InputError, match="did you mean 'attcat'"):
        measure(bert, {"a": scores}, ["aopc"], protocol="atcat")
    for bad in (scores[:-1], scores * np.nan, "no"):
        with pytest.raises(fo.InputError, match="'a'"):
            measure(bert, {"a": bad}, ["aopc"])
    bare = copy.deepcopy(bert.tokenizer)
    bare.mask_token = None
    ask = Perturbations(subject(bert.model, bare), "mask")
    with pytest.raises(fo.InputError, match="no token for the baseline"):
        ask.prepare([(0,)])


def test_every_metric_declares_itself():
    assert {"aopc", "log-odds", "comprehensiveness", "sufficiency", "tau-loo"} <= set(ALL)
    for each in metrics():
        assert each.summary
        assert each.source
        assert each.range[0] < each.range[1]
    assert not {*metrics("faithfulness")} & {*metrics("plausibility")}
    assert "delete" in REMOVALS


def test_a_metric_of_ones_own(bert, scores, monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @register_metric("top-drop", kind="faithfulness", higher_is_better=True)
    def top_drop(case):
        """Fall of p without the first."""
        p = case.ask.probabilities([case.without(0), case.without(1)])
        return p[0] - p[1]

    found = measure(bert, {"a": scores}, ["top-drop", metric_spec("top-drop")])["a"].values
    assert found["top-drop"] != 0
    with pytest.raises(fo.InputError, match="taken"):
        register_metric("aopc", kind="faithfulness", higher_is_better=True)(lambda case: 0.0)
    with pytest.raises(fo.InputError, match="kind must be"):
        register_metric("x", kind="beauty", higher_is_better=True)
    with pytest.raises(fo.InputError, match="empty"):
        register_metric("x", kind="faithfulness", higher_is_better=True, range=(1, 0))
    with pytest.raises(fo.InputError, match="kind must be"):
        metrics("beauty")
