"""SLALOM on models: queries, log odds of every kind of head, quality, pictures, storage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
import transformers
from model_fixtures import tiny_model

from flowopt.errors import FlowoptWarning, InputError, UnsupportedError
from flowopt.methods import slalom
from flowopt.methods.slalom.options import Options
from flowopt.methods.slalom.plans import (
    count_tokens,
    deletions,
    draw,
    hold_out,
    short_sequences,
)
from flowopt.methods.slalom.query import logits_of

mpl.use("Agg")

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "slalom.json"
TEXT = "The film is not very good, but the actor was great!"
FEW = {"samples": 300, "held_out": 60}
VALUES = torch.tensor([0.0, 1.5, -2.0, 0.7, 3.0, -0.4, 1.0, 2.2], dtype=torch.float64)
IMPORTANCES = torch.tensor([0.0, 0.5, 1.5, -1.0, -0.3, 0.8, 0.0, 0.2], dtype=torch.float64)


def exact_slalom(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A plain function that is a SLALOM model of the ids 1 to 7."""
    weights = (torch.exp(IMPORTANCES[ids]) * mask) / (torch.exp(IMPORTANCES[ids]) * mask).sum(
        1, keepdim=True
    )
    odds = (weights * VALUES[ids]).sum(1)
    return torch.stack([torch.zeros_like(odds), odds], dim=1)


def expected_scores(vocabulary: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    ids = list(vocabulary)
    s = IMPORTANCES[ids].numpy()
    return VALUES[ids].numpy(), s - s.mean()


# --- golden checks 3 and 5 --------------------------------------------------------------------
@pytest.fixture(scope="module")
def golden() -> Any:
    if not GOLDEN.exists():
        pytest.skip("no golden numbers here")
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def golden_bert(golden: Any) -> Any:
    """One layer, positions zeroed, the stored weights."""
    case = golden["bert_one_layer"]
    config = transformers.BertConfig(**case["config"], attn_implementation="eager")
    model = transformers.BertForSequenceClassification(config).eval()
    weights = {
        name: torch.tensor(stored["data"]).reshape(stored["shape"])
        for name, stored in case["weights"].items()
    }
    assert not model.load_state_dict(weights, strict=False).missing_keys
    return model


def golden_odds(model: Any, sequences: Any) -> np.ndarray:
    return slalom.log_odds(logits_of(model, sequences), 1)


def test_golden_model_outputs(golden: Any, golden_bert: Any) -> None:
    samples = golden["bert_one_layer_cases"]["eff_longer"]["samples"]
    np.testing.assert_allclose(
        golden_odds(golden_bert, samples["input_ids"]), samples["log_odds"], atol=1e-5
    )
    case = golden["bert_one_layer"]
    tokens, wrap = case["tokens"], lambda ids: [101, *ids, 102]
    singles = golden_odds(golden_bert, [wrap([int(i)]) for i in case["log_odds_single"]])
    np.testing.assert_allclose(singles, list(case["log_odds_single"].values()), atol=1e-5)
    rest = [wrap(tokens[:i] + tokens[i + 1 :]) for i in range(len(tokens))]
    np.testing.assert_allclose(
        golden_odds(golden_bert, [wrap(tokens), *rest]),
        [case["log_odds_full"], *case["log_odds_leave_one_out"]],
        atol=1e-5,
    )


@pytest.mark.parametrize("plan", ["short", "deletion"])
def test_golden_slalom_beats_linear_threefold(golden: Any, golden_bert: Any, plan: str) -> None:
    tokens = golden["bert_one_layer"]["tokens"]
    found = slalom.explain_ids(
        golden_bert, tokens, prefix=[101], suffix=[102], plan=plan, samples=1000, target=1
    )
    assert found.log_odds == pytest.approx(golden["bert_one_layer"]["log_odds_full"], abs=1e-5)
    assert found.quality.unseen
    assert found.quality.slalom < found.quality.linear / 3
    assert found.fit.mse < found.linear.mse / 3
    assert found.quality.explained > found.quality.explained_linear > 0


def test_golden_repeated_token_is_constant_without_special_ones(
    golden: Any, golden_bert: Any
) -> None:
    odds = golden_odds(golden_bert, [[110] * n for n in range(1, 7)])
    stored = golden["bert_one_layer"]["log_odds_repeat_110_without_cls_sep"]
    np.testing.assert_allclose(odds, stored, atol=1e-5)
    assert np.ptp(odds) < 1e-5


# --- query plans ------------------------------------------------------------------------------
IDS = (5, 7, 5, 9, 4, 8)


def test_short_sequences_are_even() -> None:
    drawn = short_sequences(IDS, 6000, np.random.default_rng(0), 4)
    assert {len(query) for query in drawn} == {4}
    times = Counter(token for query in drawn for token in query)
    assert set(times) == {5, 7, 9, 4, 8}
    # Each of 24000 tokens is one of 5: standard deviation 62.
    assert all(abs(times[token] - 4800) < 5 * 62 for token in times)


def check_deletions(draw: Callable[..., Any]) -> None:
    drawn = draw(IDS, 12000, np.random.default_rng(0), 3)
    lengths = Counter(len(query) for query in drawn)
    assert set(lengths) == {3, 4, 5, 6}
    assert all(abs(count - 3000) < 5 * 50 for count in lengths.values())
    once = Counter(query for query in drawn if len(query) == 5)
    expected = {IDS[:i] + IDS[i + 1 :] for i in range(6)}
    assert set(once) == expected
    assert min(once.values()) > 0.8 * max(once.values())


def test_deletions_are_even_in_number_and_place() -> None:
    check_deletions(deletions)
    with pytest.raises(AssertionError):
        check_deletions(lambda ids, n, rng, most: deletions(ids, n, rng, most + 1))
    with pytest.raises(AssertionError):
        check_deletions(
            lambda ids, n, rng, most: [ids[: len(ids) - rng.integers(most + 1)] for _ in range(n)]
        )


def test_deletions_drop_empty_texts() -> None:
    drawn = deletions((3, 4), 400, np.random.default_rng(0), 5)
    assert set(drawn) == {(3, 4), (3,), (4,)}
    assert len(drawn) < 400


def test_counts() -> None:
    counts = count_tokens([(5, 5, 4), (), (7,)], (4, 5, 7))
    np.testing.assert_array_equal(counts, [[1, 2, 0], [0, 0, 0], [0, 0, 1]])
    with pytest.raises(InputError, match="not in the text"):
        count_tokens([(6,)], (4, 5))


def test_held_out_queries_are_apart_and_the_text_stays() -> None:
    queries = deletions(IDS, 2000, np.random.default_rng(0), 3)
    fitted, held, unseen = hold_out(queries, 200, np.random.default_rng(1), IDS)
    assert unseen
    assert not set(fitted) & set(held)
    assert sorted([*fitted, *held]) == sorted(queries)
    assert IDS in fitted
    assert 100 < len(held) < 500
    same, again, unseen = hold_out([(5,)] * 30, 10, np.random.default_rng(1), (5,))
    assert (same, again, unseen) == ([(5,)] * 30, [(5,)] * 30, False)


# --- functions --------------------------------------------------------------------------------
def check_function(explain: Callable[..., Any], **options: Any) -> None:
    found = explain(exact_slalom, [1, 2, 3, 2, 5, 4, 7], ridge=0, target=1, **options)
    v, s = expected_scores(found.vocabulary_ids)
    np.testing.assert_allclose(found.fit.values, v, atol=1e-4)
    np.testing.assert_allclose(found.fit.importances, s, atol=1e-4)
    assert found.quality.slalom < 1e-12 < found.quality.linear


@pytest.mark.parametrize(
    "options",
    [
        {"plan": "exact"},
        {"plan": "short", "samples": 400},
        {"plan": "short", "samples": 400, "length": 5},
        {"plan": "deletion", "samples": 400},
        {"plan": "deletion", "samples": 400, "max_deletions": 2},
    ],
)
def test_an_exact_function_is_recovered(options: dict[str, Any]) -> None:
    check_function(slalom.explain_ids, **options)


def test_recovery_notices_a_wrong_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowopt.methods.slalom import surrogate as module

    options = {"plan": "short", "samples": 200}
    with monkeypatch.context() as patched:
        patched.setattr(module, "log_odds", lambda z, target, _: z[:, target] - z.mean(axis=1))
        with pytest.raises(AssertionError):
            check_function(slalom.explain_ids, **options)
    with monkeypatch.context() as patched:
        patched.setattr(module, "count_tokens", lambda q, d: count_tokens(q, d[::-1]))
        with pytest.raises(AssertionError):
            check_function(slalom.explain_ids, **options)


def test_the_exact_plan_asks_two_v_minus_one_queries() -> None:
    asked: list[int] = []

    def counting(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        asked.extend(mask.sum(1).tolist())
        return exact_slalom(ids, mask)

    found = slalom.explain_ids(counting, [1, 2, 3, 4, 5], plan="exact", held_out=1)
    assert found.settings["samples"] == 9
    assert Counter(asked)[1] == 5
    assert Counter(asked)[2] == 4


def test_a_plan_of_the_users_own() -> None:
    def halves(ids: Any, samples: int, generator: np.random.Generator) -> list[Any]:
        return [
            [i for i, keep in zip(ids, generator.random(len(ids)) < 0.5, strict=True) if keep]
            for _ in range(samples)
        ]

    check_function(slalom.explain_ids, plan=halves, samples=300)
    found = slalom.explain_ids(exact_slalom, [1, 2, 3], plan=halves, **FEW)
    assert found.settings["plan"] == "halves"
    with pytest.raises(InputError, match="not in the text"):
        slalom.explain_ids(exact_slalom, [1, 2], plan=lambda ids, n, rng: [[6]] * n, **FEW)
    with pytest.raises(InputError, match="no query"):
        slalom.explain_ids(exact_slalom, [1, 2], plan=lambda ids, n, rng: [[]], **FEW)


def test_special_tokens_stand_around_every_query() -> None:
    seen: list[tuple[int, ...]] = []

    def spy(ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        assert bool((mask == 1).all())
        seen.extend(map(tuple, ids.tolist()))
        return ids.sum(1).double().numpy()  # one logit, and numpy

    found = slalom.explain_ids(spy, [3, 4, 5], prefix=[1, 2], suffix=[9], **FEW)
    assert all(row[:2] == (1, 2) and row[-1] == 9 for row in seen)
    assert len(seen) == len(set(seen))
    assert found.tokens == ("1", "2", "3", "4", "5", "9")
    assert found.special.tolist() == [True, True, False, False, False, True]
    assert found.log_odds == 24.0
    assert found.target.label == "class 0"


def test_seeds() -> None:
    def fit(seed: int) -> np.ndarray:
        spread = lambda ids, mask: ids.double().std(1)  # noqa: E731
        return slalom.explain_ids(spread, [1, 2, 3, 4], seed=seed, length=4, **FEW).fit.values

    np.testing.assert_array_equal(fit(3), fit(3))
    assert not np.array_equal(fit(3), fit(4))


# --- transformers models ----------------------------------------------------------------------
def tiny_decoder(labels: int = 2, pad: int | None = None) -> Any:
    config = transformers.GPT2Config(
        vocab_size=60, n_positions=48, n_embd=24, n_layer=2, n_head=3, num_labels=labels,
        pad_token_id=pad, bos_token_id=2, eos_token_id=3, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.GPT2ForSequenceClassification(config).eval()


MODELS: dict[str, Callable[[], Any]] = {
    "bert": lambda: tiny_model("bert"),
    "roberta": lambda: tiny_model("roberta"),
    "distilbert": lambda: tiny_model("distilbert"),
    "one logit": lambda: tiny_model("bert", labels=("score",)),
    "three classes": lambda: tiny_model("bert", labels=("bad", "mixed", "good")),
    "decoder without padding": tiny_decoder,
    "decoder": lambda: tiny_decoder(3, pad=0),
    "decoder, one logit": lambda: tiny_decoder(1),
}


def odds_by_hand(model: Any, ids: tuple[int, ...], target: int) -> float:
    """One text at a time, as a user would call the model."""
    with torch.no_grad():
        (z,) = model(input_ids=torch.tensor([ids])).logits.double()
    if len(z) == 1:
        return float(z[0])
    others = torch.cat([z[:target], z[target + 1 :]])
    return float(z[target] - torch.logsumexp(others, 0))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("plan", ["short", "deletion"])
def test_answers_are_the_models_own(name: str, plan: str, tiny_tokenizer: Any) -> None:
    model = MODELS[name]()
    found = slalom.explain(model, tiny_tokenizer, TEXT, plan=plan, samples=120, held_out=20)
    assert found.samples is not None
    index = found.target.index
    assert found.log_odds == pytest.approx(
        odds_by_hand(model, found.source.info.input_ids, index), abs=1e-4
    )
    probability = 1 / (1 + np.exp(-found.log_odds))
    assert found.target.probability == pytest.approx(probability, abs=1e-6)
    assert found.target == found.prediction
    # Every query again, alone: padding, batches and modes have changed nothing.
    options = Options(plan, 120, 3, 5, 0, 1e-6, None, 20, None, None)
    pool = draw(found.source.ids, options, 140)
    fitted, _, _ = hold_out(pool, 20, np.random.default_rng([0, 1]), found.source.ids)
    for query, odds in list(zip(fitted, found.samples.log_odds, strict=True))[::10]:
        assert odds == pytest.approx(
            odds_by_hand(model, found.source.around(query), index), abs=1e-4
        )


def test_two_classes_mirror_each_other(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    first, second = (
        slalom.explain(tiny_bert, tiny_tokenizer, TEXT, target=target, **FEW)
        for target in ("negative", 1)
    )
    assert (first.target.label, second.target.label) == ("negative", "positive")
    assert first.log_odds == pytest.approx(-second.log_odds)
    np.testing.assert_allclose(first.fit.values, -second.fit.values, atol=1e-6)
    np.testing.assert_allclose(first.fit.importances, second.fit.importances, atol=1e-6)


def test_independent_classes_use_their_own_logit(tiny_tokenizer: Any) -> None:
    model = tiny_model("bert", labels=("a", "b", "c"))
    model.config.problem_type = "multi_label_classification"
    found = slalom.explain(model, tiny_tokenizer, TEXT, target="b", **FEW)
    assert found.log_odds == pytest.approx(found.target.logit)


def test_the_model_is_left_as_it_was(tiny_tokenizer: Any) -> None:
    model = tiny_decoder()
    model.train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = slalom.explain(model, tiny_tokenizer, TEXT, device="cpu", **FEW)
    assert [module.training for module in model.modules()] == modes
    assert model.config.pad_token_id is None
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    again = slalom.explain(model, tiny_tokenizer, TEXT, **FEW)
    np.testing.assert_array_equal(found.fit.values, again.fit.values)  # dropout was off
    with pytest.raises(InputError, match="device"):
        slalom.explain(model, tiny_tokenizer, TEXT, device="no such device", **FEW)
    assert [module.training for module in model.modules()] == modes


def test_several_texts_are_each_as_if_alone(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    texts = [TEXT, "it was unbelievable and slow"]
    found = slalom.explain(tiny_bert, tiny_tokenizer, iter(texts), **FEW)
    for text, each in zip(texts, found, strict=True):
        alone = slalom.explain(tiny_bert, tiny_tokenizer, text, batch_size=7, **FEW)
        assert each.text == text
        np.testing.assert_allclose(each.fit.values, alone.fit.values, atol=1e-3)
    assert slalom.explain(tiny_bert, tiny_tokenizer, [], **FEW) == []
    both = slalom.explain(tiny_bert, tiny_tokenizer, texts, target=["positive", 0], **FEW)
    assert [each.target.index for each in both] == [1, 0]
    with pytest.raises(InputError, match="1 targets for 2 texts"):
        slalom.explain(tiny_bert, tiny_tokenizer, texts, target=[1], **FEW)
    with pytest.raises(InputError, match="text 1: the text is empty"):
        slalom.explain(tiny_bert, tiny_tokenizer, ["good", " "], **FEW)


def test_scores_by_position(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    found = slalom.explain(tiny_bert, tiny_tokenizer, TEXT, **FEW)
    tokens = tiny_tokenizer.tokenize(TEXT)
    assert found.tokens == ("[CLS]", *tokens, "[SEP]")
    assert found.vocabulary == tuple(dict.fromkeys(tokens))
    assert found.counts[found.vocabulary.index("the")] == 2
    for kind in slalom.SCORES:
        scores, own = found.scores(kind), found.token_scores(kind)
        assert scores.shape == (len(tokens) + 2,)
        assert scores[0] == scores[-1] == 0
        for token, score in zip(tokens, scores[1:-1], strict=True):
            assert score == own[found.vocabulary.index(token)]
    np.testing.assert_allclose(
        found.token_scores("removal"), found.fit.removal(found.counts), atol=1e-12
    )


def test_without_special_tokens(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    found = slalom.explain(tiny_bert, tiny_tokenizer, TEXT, special_tokens=False, **FEW)
    assert not found.special.any()
    assert found.source.around((7,)) == (7,)


def test_slow_tokenizers_and_long_texts() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]

    class Words(transformers.PythonBackend):  # type: ignore[misc, name-defined]
        def __init__(self, **options: Any) -> None:
            self.table = {word: i for i, word in enumerate(words)}
            super().__init__(unk_token="[UNK]", pad_token="[PAD]", **options)

        @property
        def vocab_size(self) -> int:
            return len(words)

        def get_vocab(self) -> dict[str, int]:
            return dict(self.table)

        def _tokenize(self, text: str) -> list[str]:
            return text.split()

        def _convert_token_to_id(self, token: str) -> int:
            return self.table.get(token, 1)

        def _convert_id_to_token(self, index: int) -> str:
            return words[index]

    tokenizer = Words(model_max_length=6)
    assert not tokenizer.is_fast
    found = slalom.explain(tiny_model("bert"), tokenizer, "good bad good film", **FEW)
    assert found.vocabulary == ("good", "bad", "film")
    with pytest.warns(FlowoptWarning, match="8 tokens but the model reads at most 6"):
        cut = slalom.explain(tiny_model("bert"), tokenizer, "good bad " * 4, **FEW)
    assert len(cut.source.ids) == 6


def test_texts_of_one_token(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    for plan in slalom.PLANS:
        found = slalom.explain(tiny_bert, tiny_tokenizer, "great", plan=plan, **FEW)
        assert found.vocabulary == ("great",)
        np.testing.assert_allclose(found.fit.importances, 0.0)
        if plan != "short":  # one query: the text itself
            assert found.fit.values[0] == pytest.approx(found.log_odds, abs=1e-6)
        str(found)


# --- quality ----------------------------------------------------------------------------------
def check_honest(found: Any) -> None:
    """Held-out errors are those of fresh queries, here of a function without any structure."""
    quality = found.quality
    assert quality.unseen
    assert quality.slalom > 1.5 * found.fit.mse
    assert quality.constant == pytest.approx(1.0, rel=0.5)


def test_quality_is_measured_on_queries_the_fit_has_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flowopt.methods.slalom import surrogate as module

    def noise(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        mixed = torch.sin(
            (ids.double() * torch.arange(1, ids.shape[1] + 1) ** 2 * 37.7).sum(1) * 91
        )
        return 1.41 * mixed

    ids = list(range(1, 31))
    options = {"samples": 90, "held_out": 90, "length": 6, "ridge": 0}
    check_honest(slalom.explain_ids(noise, ids, **options))
    cheating = lambda q, n, rng, keep: (q[:90], q[:90], True)  # noqa: E731
    monkeypatch.setattr(module, "hold_out", cheating)
    with pytest.raises(AssertionError):
        check_honest(slalom.explain_ids(noise, ids, **options))


def test_removal_errors(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    found = slalom.explain_ids(exact_slalom, [1, 2, 3, 4, 5, 7], plan="exact", ridge=0, target=1)
    errors = slalom.removal_error(
        found, exact_slalom, draws=20, scores={"removal": found.scores("removal")}
    )
    assert errors.removed == (1, 2, 3, 4, 5)
    assert max(errors.errors["SLALOM"]) < 1e-10
    assert errors.errors["removal"][0] < 1e-10  # exact for one token ...
    assert errors.errors["removal"][3] > 1e-3  # ... and not additive
    assert (errors.changes > 0).all()
    assert "no change" in str(errors)
    wrong = replace(found, fit=slalom.SlalomFit(-found.fit.values, found.fit.importances, 0, 0))
    assert max(slalom.removal_error(wrong, exact_slalom).errors["SLALOM"]) > 1e-3
    with pytest.raises(InputError, match="6 finite numbers"):
        slalom.removal_error(found, exact_slalom, scores={"short": [1.0]})
    with pytest.raises(InputError, match="from 1 to 5"):
        slalom.removal_error(found, exact_slalom, removed=[6])


# --- shown, stored ----------------------------------------------------------------------------
def test_printed_drawn_and_in_a_notebook(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    import matplotlib.pyplot as plt

    found = slalom.explain(tiny_bert, tiny_tokenizer, TEXT, **FEW)
    text = str(found)
    assert all(token in text for token in found.vocabulary)
    assert f"SLALOM {found.quality.slalom:.4g}" in text
    assert found._repr_html_().count("<tr>") == len(found.vocabulary) + 1
    assert len(repr(found)) < 100
    assert repr(found.target.label) in repr(found)
    ax = found.plot()
    labels = [note.get_text() for note in ax.texts]
    assert sorted(labels) == sorted(found.vocabulary)
    (dots,) = ax.collections
    np.testing.assert_allclose(
        dots.get_offsets(), np.stack([found.fit.importances, found.fit.values], axis=1)
    )
    assert len(found.plot(plt.subplots()[1], max_labels=2).texts) == 2
    with pytest.raises(InputError, match="max_labels"):
        found.plot(max_labels=-1)
    plt.close("all")


def test_hostile_tokens_are_shown_as_text() -> None:
    found = slalom.explain_ids(exact_slalom, [1, 2], tokens=["<b>", "[red]$x$\x1b[31m"], **FEW)
    assert "<b>" not in found._repr_html_()
    assert "\x1b" not in str(found)
    assert "[red]" in str(found)
    import matplotlib.pyplot as plt

    found.plot().figure.canvas.draw()
    plt.close("all")


def test_stored_and_read_again(tiny_bert: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    found = slalom.explain(tiny_bert, tiny_tokenizer, TEXT, **FEW)
    path = tmp_path / "found.json"
    text = found.to_json(path)
    for again in (slalom.SlalomExplanation.from_json(text), found.from_json(path)):
        assert again.samples is None
        assert again.to_dict() == found.to_dict()
        np.testing.assert_array_equal(again.scores("removal"), found.scores("removal"))
        assert str(again) == str(found)
        with pytest.raises(InputError, match="samples are gone"):
            again.refit(1e-3)
    damaged = json.loads(text)
    del damaged["values"]
    for bad in ("{}", "{", json.dumps(damaged), tmp_path / "nothing.json"):
        with pytest.raises(InputError):
            slalom.SlalomExplanation.from_json(bad)


def test_refit(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    found = slalom.explain(tiny_bert, tiny_tokenizer, TEXT, ridge=1e-6, **FEW)
    np.testing.assert_array_equal(found.refit(1e-6).fit.values, found.fit.values)
    stronger = found.refit(1.0)
    assert np.ptp(stronger.fit.values) < np.ptp(found.fit.values)
    assert stronger.settings["ridge"] == 1.0


def test_progress(tiny_bert: Any, tiny_tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    slalom.explain(tiny_bert, tiny_tokenizer, TEXT, progress=True, **FEW)
    assert "361/361" in capsys.readouterr().err
    slalom.explain(tiny_bert, tiny_tokenizer, [TEXT], progress=True, **FEW)
    assert "1/1" in capsys.readouterr().err
    slalom.explain(tiny_bert, tiny_tokenizer, TEXT, **FEW)
    assert capsys.readouterr().err == ""


# --- bad input --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": "fidelity"}, "short, deletion, exact"),
        ({"samples": 0}, "samples"),
        ({"samples": 1.5}, "samples"),
        ({"length": 0}, "length"),
        ({"length": 100}, "length=100 makes queries of 102 tokens"),
        ({"max_deletions": 0}, "max_deletions"),
        ({"held_out": 0}, "held_out"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"ridge": -1}, "ridge"),
        ({"target": 2}, "classes 0 to 1"),
        ({"target": "neutral"}, "negative, positive"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], message: str, tiny_bert: Any, tiny_tokenizer: Any
) -> None:
    with pytest.raises(InputError, match=message):
        slalom.explain(tiny_bert, tiny_tokenizer, TEXT, **{**FEW, **options})


def test_bad_texts_and_models_are_refused(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    for text, message in (
        ("", "empty"),
        (b"good", "decode"),
        (3, "str or several"),
        ("\ud800", "surrogates"),
        ("\u200b", "no token"),
    ):
        with pytest.raises(InputError, match=message):
            slalom.explain(tiny_bert, tiny_tokenizer, text, **FEW)
    with pytest.raises(InputError, match="tokenizer"):
        slalom.explain(tiny_bert, None, TEXT, **FEW)
    with pytest.raises(InputError, match="function"):
        slalom.explain(3, tiny_tokenizer, TEXT, **FEW)
    with pytest.raises(UnsupportedError, match="AutoModelForSequenceClassification"):
        slalom.explain(tiny_bert.bert, tiny_tokenizer, TEXT, **FEW)
    nan = lambda ids, mask: torch.full((len(ids), 2), torch.nan)  # noqa: E731
    with pytest.raises(UnsupportedError, match="not finite"):
        slalom.explain_ids(nan, [1, 2], **FEW)
    flat = lambda ids, mask: torch.zeros(1, 2)  # noqa: E731
    with pytest.raises(UnsupportedError, match="shape"):
        slalom.explain_ids(flat, [1, 2], **FEW)
    with pytest.raises(InputError, match="device"):
        slalom.explain_ids(exact_slalom, [1, 2], device="no such device", **FEW)
    with pytest.raises(InputError, match="numbers, no labels"):
        slalom.explain_ids(exact_slalom, [1, 2], target="good", **FEW)
    with pytest.raises(InputError, match="classes 0 to 1"):
        slalom.explain_ids(exact_slalom, [1, 2], target=5, **FEW)
    for ids, message in (([], "empty"), ([1.5], "integers"), ([-1], "integers")):
        with pytest.raises(InputError, match=message):
            slalom.explain_ids(exact_slalom, ids, **FEW)
    with pytest.raises(InputError, match="embeddings"):
        slalom.explain_ids(tiny_bert, [1, 10**6], **FEW)
    with pytest.raises(InputError, match="1 tokens for 2"):
        slalom.explain_ids(exact_slalom, [1, 2], tokens=["a"], **FEW)


def test_the_bundled_model() -> None:
    found = slalom.explain(None, None, "a gripping , funny film", samples=400, held_out=40)
    assert found.target.label == "positive"
    assert found.quality.slalom < min(found.quality.linear, found.quality.constant) / 2
    assert found.fit.values[found.vocabulary.index("funny")] > 1
