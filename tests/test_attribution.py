"""Attribution: words, storage without loss, and what the object refuses."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowopt.attribution import Attribution, CertificateSummary
from flowopt.attribution.words import merge_words
from flowopt.errors import InputError
from flowopt.trace import Prediction

TEXT = "Unbelievable,  great film!"


def example(**changes) -> Attribution:
    fields = {
        "text": TEXT,
        "tokens": ("[CLS]", "un", "##believ", "##able", ",", "great", "film", "!", "[SEP]"),
        "scores": np.array([0.1, 0.2, 1 / 3, 0.05, 0.0, 0.7, 0.3, 1e-17, 0.02]),
        "special": np.array([True, *[False] * 7, True]),
        "word_ids": (None, 0, 0, 0, 1, 2, 3, 4, None),
        "offsets": (
            (0, 0),
            (0, 2),
            (2, 8),
            (8, 12),
            (12, 13),
            (15, 20),
            (21, 25),
            (25, 26),
            (0, 0),
        ),
        "prediction": Prediction("positive", 1, 0.1 + 0.2, 1.7),
        "target": Prediction("negative", 0, 0.7, -1.7),
        "value": 1.7,
        "max_flow": 1.75,
        "status": "optimal",
        "certificate": CertificateSummary(1e-16, 0.0, 3e-9, np.linspace(0, 1e-8, 9)),
        "settings": {"tensor": "agf", "sources": "all", "seconds": {"solve": 0.01}},
    }
    return Attribution(**{**fields, **changes})


def test_words_sum_subwords_and_are_cut_from_the_text():
    words = example().words()
    assert [word.word for word in words] == ["Unbelievable", ",", "great", "film", "!"]
    assert words[0].score == pytest.approx(0.2 + 1 / 3 + 0.05)
    assert all(TEXT[word.start : word.end] == word.word for word in words)
    assert not any(word.special for word in words)


def test_words_with_special_tokens_keep_the_total():
    attribution = example()
    words = attribution.words(include_special=True)
    assert [word.word for word in words if word.special] == ["[CLS]", "[SEP]"]
    assert words[0].start is None
    assert sum(word.score for word in words) == pytest.approx(attribution.scores.sum())


def test_words_without_offsets_or_text():
    assert [word.word for word in example(offsets=None, text=None).words()][:2] == [
        "unbelievable",
        ",",
    ]
    marked = merge_words(("Ġgreat", "er", "▁film", "Ġ"), np.ones(4), [False] * 4, (0, 0, 1, 2))
    assert [word.word for word in marked] == ["greater", "film", "Ġ"]


def test_offsets_that_include_the_blank_before_a_word():
    words = merge_words(
        ("Ġgood", "Ġfilm"), np.ones(2), [False, False], (0, 1), ((0, 4), (4, 9)), "good film"
    )
    assert [(word.word, word.start, word.end) for word in words] == [("good", 0, 4), ("film", 5, 9)]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_merging_keeps_the_total(data):
    count = data.draw(st.integers(1, 12))
    steps = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    special = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    ids = [None if s else int(i) for s, i in zip(special, np.cumsum(steps), strict=True)]
    scores = np.array(data.draw(st.lists(st.floats(-5, 5), min_size=count, max_size=count)))
    tokens = [f"t{i}" for i in range(count)]
    words = merge_words(tokens, scores, special, ids, include_special=True)
    assert sum(word.score for word in words) == pytest.approx(scores.sum(), abs=1e-9)
    assert "".join(word.word for word in words) == "".join(tokens)


def test_top():
    assert [word.word for word in example().top(2)] == ["great", "Unbelievable"]
    assert len(example().top(100)) == 5
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="positive integer"):
            example().top(wrong)


def assert_same(first: Attribution, second: Attribution) -> None:
    for name in (
        "text",
        "tokens",
        "word_ids",
        "offsets",
        "prediction",
        "target",
        "value",
        "max_flow",
        "status",
        "settings",
    ):
        assert getattr(first, name) == getattr(second, name), name
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.special, second.special)
    assert first.special.dtype == second.special.dtype
    one, other = first.certificate, second.certificate
    assert (one.conservation, one.bounds, one.gap) == (other.conservation, other.bounds, other.gap)
    assert (one.attribution_error is None) == (other.attribution_error is None)
    if one.attribution_error is not None:
        np.testing.assert_array_equal(one.attribution_error, other.attribution_error)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text": None, "offsets": None, "max_flow": None},
        {"certificate": CertificateSummary(0.0, 0.0, None, None)},
        {"certificate": CertificateSummary(0.0, 0.0, float("inf"), np.full(9, np.inf))},
        {"text": 'naïve 😀\n"quoted" \ud800'},
        {"scores": np.array([-1e-300, 1e300, -0.0, 5e-324, 0.1, 1 / 3, 2, 3, 4])},
    ],
)
def test_json_round_trip(changes, tmp_path):
    attribution = example(**changes)
    text = attribution.to_json(tmp_path / "a.json")
    assert_same(Attribution.from_json(text), attribution)
    assert_same(Attribution.from_json(tmp_path / "a.json"), attribution)
    assert_same(Attribution.from_json(str(tmp_path / "a.json")), attribution)
    assert Attribution.from_json(text).to_json() == text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not standard JSON"))


def test_json_has_the_documented_keys():
    values = json.loads(example().to_json())
    assert values["schema"] == "flowopt.attribution/1"
    assert {
        "text",
        "tokens",
        "scores",
        "prediction",
        "value",
        "max_flow",
        "status",
        "certificate",
    } <= set(values)
    assert {"label", "index", "probability"} <= set(values["prediction"])


def test_json_drops_solutions_only():
    attribution = example(solutions=(SimpleNamespace(),))
    back = Attribution.from_json(attribution.to_json())
    assert back.solutions == ()
    assert_same(back, replace(attribution, solutions=()))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/file.json", "cannot read an attribution"),
        ("{broken", "not JSON"),
        ("{}", "expected schema"),
        ('{"schema": "flowopt.attribution/99"}', "another version"),
        ('{"schema": "flowopt.attribution/1"}', "damaged"),
    ],
)
def test_json_that_cannot_be_read(source, message):
    with pytest.raises(InputError, match=message):
        Attribution.from_json(source)


def test_json_with_a_wrong_field():
    values = json.loads(example().to_json())
    for name, wrong in (
        ("scores", "text"),
        ("prediction", {}),
        ("value", None),
        ("scores", [1.0]),
        ("offsets", [[1]]),
    ):
        with pytest.raises(InputError):
            Attribution.from_dict({**values, name: wrong})


@pytest.mark.parametrize("name", ["scores", "special", "word_ids", "offsets"])
def test_lengths_must_agree(name):
    short = getattr(example(), name)[:-1]
    with pytest.raises(InputError, match=f"{name} must have one entry for each of the 9 tokens"):
        example(**{name: short})


def test_arrays_are_copied_and_read_only():
    scores = np.ones(9)
    attribution = example(scores=scores)
    scores[0] = 5
    assert attribution.scores[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        attribution.scores[0] = 2


def solution(conservation, gap, error):
    certificate = SimpleNamespace(
        conservation=conservation, bounds=0.0, gap=gap, attribution_error=error
    )
    return SimpleNamespace(certificate=certificate)


def test_certificates_of_several_solutions():
    both = CertificateSummary.of(
        solution(1e-9, 1e-8, np.array([1.0, 2.0])), solution(2e-9, 3e-9, np.array([0.5, 0.0]))
    )
    assert (both.conservation, both.gap) == (2e-9, 1e-8)
    np.testing.assert_array_equal(both.attribution_error, [1.5, 2.0])
    unproved = CertificateSummary.of(solution(0.0, 1e-9, np.ones(2)), solution(0.0, None, None))
    assert unproved.gap is None
    assert unproved.attribution_error is None


def test_pictures_come_from_viz(monkeypatch, tmp_path):
    html, figures, terminal = (
        ModuleType(f"flowopt.viz.{n}") for n in ("html", "figures", "terminal")
    )
    html.to_html = lambda attribution: f"<b>{attribution.value}</b>"
    html.fragment = lambda attribution: f"<i>{attribution.value}</i>"
    figures.plot_attribution = lambda attribution, ax=None: ("axes", ax)
    terminal.render = lambda attribution: f"flow {attribution.value}"
    for module in (html, figures, terminal):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    attribution = example()
    assert attribution.to_html(tmp_path / "a.html") == "<b>1.7</b>"
    assert (tmp_path / "a.html").read_text() == "<b>1.7</b>"
    assert attribution._repr_html_() == "<i>1.7</i>"
    assert attribution.plot(ax=3) == ("axes", 3)
    assert str(attribution) == "flow 1.7"


def test_scores_of_generated_tokens_and_raw_scores_are_stored():
    attribution = example(
        prefix_tokens=("\u0120a", "b"),
        prefix_scores=np.array([1 / 3, -0.0]),
        raw_scores=np.linspace(0, 1, 9),
    )
    back = Attribution.from_json(attribution.to_json())
    assert back.prefix_tokens == attribution.prefix_tokens
    np.testing.assert_array_equal(back.prefix_scores, attribution.prefix_scores)
    np.testing.assert_array_equal(back.raw_scores, attribution.raw_scores)
    assert_same(back, attribution)
    with pytest.raises(InputError, match="prefix_scores must have one entry for each of the 1"):
        example(prefix_tokens=("a",))
    with pytest.raises(InputError, match="prefix_scores must have one entry for each of the 0"):
        example(prefix_scores=np.ones(1))
    with pytest.raises(InputError, match="raw_scores must have one entry"):
        example(raw_scores=np.ones(3))


def test_json_from_before_there_were_generated_tokens_and_images():
    values = json.loads(example().to_json())
    for name in ("prefix_tokens", "prefix_scores", "raw_scores", "grid"):
        del values[name]
    old = Attribution.from_json(json.dumps(values))
    assert_same(old, example())
    assert (old.prefix_tokens, old.prefix_scores, old.raw_scores, old.grid) == (
        (),
        None,
        None,
        None,
    )


def test_plain_text_is_plain_in_a_notebook(monkeypatch):
    from rich import console

    from flowopt.plain import plain_text

    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    assert plain_text("text") == "text"
