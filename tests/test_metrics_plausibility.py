"""Agreement with human marks: against scikit-learn where it is installed, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from model_fixtures import tiny_model

import flowopt as fo
from flowopt.evaluation.measure import measure
from flowopt.evaluation.metric import Case, metric_spec, metrics
from flowopt.evaluation.plausibility import read_words, word_sums
from flowopt.evaluation.protocol import protocol_named
from flowopt.methods import subject_of
from flowopt.trace import encode_texts

NAMES = [each.name for each in metrics("plausibility")]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return tiny_tokenizer


def value(name, marks, scores):
    case = Case(
        None, None, protocol_named("default"), None, np.asarray(marks, float),
        np.asarray(scores, float),
    )  # fmt: skip
    return metric_spec(name).function(case)


def subject(tokenizer, text):
    model = tiny_model("bert")
    (encoded,) = encode_texts(model, tokenizer, [text])
    return subject_of(model, tokenizer, encoded, None)


marked_scores = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=14)


@settings(max_examples=80, deadline=None)
@given(marked_scores)
def test_curves_equal_scikit_learn(pairs):
    sklearn = pytest.importorskip("sklearn.metrics")
    marks, scores = (np.array(each, float) for each in zip(*pairs, strict=True))
    assume(0 < marks.sum() < len(marks))
    assert value("auprc", marks, scores) == pytest.approx(
        sklearn.average_precision_score(marks, scores)
    )
    assert value("auroc", marks, scores) == pytest.approx(sklearn.roc_auc_score(marks, scores))


@settings(max_examples=80, deadline=None)
@given(marked_scores)
def test_ranges_and_invariance(pairs):
    marks, scores = (np.array(each, float) for each in zip(*pairs, strict=True))
    for name in NAMES:
        found = value(name, marks, scores)
        assert found is None or 0 <= found <= 1
        assert found == value(name, marks, np.exp(scores))


def test_by_hand():
    marks, scores = [1, 0, 1, 0], [4.0, 3.0, 2.0, 1.0]
    assert value("auprc", marks, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert value("auroc", marks, scores) == pytest.approx(3 / 4)
    assert value("token-f1", marks, scores) == 0.5
    assert value("token-iou", marks, scores) == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_reversed_explanation_is_caught(name):
    marks, scores = [1, 0, 0, 1, 0], np.array([5.0, 1, 2, 4, 3])
    assert value(name, marks, scores) == 1.0
    assert value(name, marks, -scores) < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_tell_apart(name):
    assert value(name, [1, 1, 1], [1, 2, 3]) is None
    assert value(name, [0, 0, 0], [1, 2, 3]) is None


def test_shares_of_annotators_count_from_one_half():
    scores = [2.0, 1.0, 3.0]
    assert value("auroc", [0.5, 0.49, 0.0], scores) == value("auroc", [1, 0, 0], scores)
    assert value("auroc", [0.5, 0.49, 0.0], scores) != value("auroc", [1, 1, 0], scores)


def test_sub_words_are_summed_to_the_words_that_are_marked(tokenizer):
    text = subject(tokenizer, "the unbelievable film, watched")
    assert "##believ" in text.info.tokens
    weights, tokens = read_words(text, [0, 1, 0, 1])
    assert weights.tolist() == [0, 1, 0, 1]
    read = [[text.info.tokens[i] for i in each] for each in tokens]
    assert read == [["the"], ["un", "##believ", "##able"], ["film", ","], ["watch", "##ed"]]
    scores = np.arange(len(text), dtype=float)
    assert word_sums(scores, tokens).tolist() == [1, 2 + 3 + 4, 5 + 6, 7 + 8]
    # summed, the long word (.9) beats the film (.8); by its largest piece it would not
    scores = np.array([9, 0, 0.3, 0.3, 0.3, 0.8, 0, 0, 0, 9])
    found = measure(text, {"a": scores}, ["auroc"], marks=[0, 1, 0, 0])["a"]
    assert found.values["auroc"] == 1.0


def test_words_may_be_named_and_those_cut_off_are_left_out(tokenizer):
    text = subject(tokenizer, "a good  film !")
    weights, tokens = read_words(text, [0, 1, 1], words=["good", "film", "!"])
    assert [text.info.tokens[each[0]] for each in tokens] == ["good", "film", "!"]
    with pytest.warns(fo.errors.FlowoptWarning):
        long = subject(tokenizer, "film " * 60 + "end")
    weights, tokens = read_words(long, [0.0] * 60 + [1.0])
    assert len(weights) == len(tokens) == len(long) - 2


def test_without_marks_there_is_no_plausibility(tokenizer):
    text = subject(tokenizer, "a good film")
    found = measure(text, {"a": np.ones(len(text))}, NAMES)["a"]
    assert found.values == dict.fromkeys(NAMES)


def test_marks_that_do_not_fit_are_refused(tokenizer):
    text = subject(tokenizer, "a good film")
    with pytest.raises(fo.InputError, match="3 words"):
        read_words(text, [0, 1])
    with pytest.raises(fo.InputError, match="3 words"):
        read_words(text, [0, 1, np.nan])
    with pytest.raises(fo.InputError, match="'bad' does not follow"):
        read_words(text, [0, 1], words=["a", "bad"])
