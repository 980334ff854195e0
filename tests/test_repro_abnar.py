"""paper_repro/quantifying_attention_flow: its data, its training, and what it correlates."""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

import flowopt as fo
from flowopt.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "paper_repro" / "quantifying_attention_flow"
if not SCRIPTS.is_dir():
    pytest.skip(f"{SCRIPTS} is not here", allow_module_level=True)
sys.path.insert(0, str(SCRIPTS))

import agreement_data as data  # noqa: E402
import agreement_phrases as templates  # noqa: E402
import correlation_report as report  # noqa: E402
import correlations  # noqa: E402
import pronouns  # noqa: E402


def script(name: str) -> Any:
    """A script whose name other folders use as well."""
    spec = importlib.util.spec_from_file_location(f"abnar_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train, run = script("train"), script("run")

NOUNS = (("cat", "cats"), ("city", "cities"), ("dog", "dogs"), ("bus", "buses"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up agreement rows."""
    rng = random.Random(0)
    phrases = templates.Phrases(NOUNS)
    rows = []
    for number in range(160):
        words, label = phrases.prefix(rng)
        prefix = " ".join((f"w{number}", *words))
        verb = ("is", "are")[label]
        rows.append(
            {"id": str(number), "split": "test", "label": label, "prefix": prefix,
             "sentence": f"{prefix} {verb} here , and the other dogs were away .",
             "n_attractors": number % 3}
        )  # fmt: skip
    path = tmp_path_factory.mktemp("agreement")
    text = "\n".join(json.dumps(row) for row in rows)
    (path / data.AGREEMENT).write_text(text, encoding="utf-8")
    review = {"split": "train", "text": "I'm sure the actors are good. Isn't it? The film was bad."}
    (path / "imdb_sample.jsonl").write_text(json.dumps(review), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def parts(folder: Path) -> data.Parts:
    return data.agreement_parts(folder)


# --- data --------------------------------------------------------------------------------------
def test_parts_share_no_prefix(parts: data.Parts) -> None:
    train_words = {one.words for one in (*parts.train, *parts.more)}
    assert len(parts.train) + len(parts.dev) + len(parts.test) == 160
    assert min(len(parts.train), len(parts.dev), len(parts.test)) > 0
    assert not train_words & {one.words for one in (*parts.dev, *parts.test)}


def test_more_examples_are_found_before_verbs_that_tell_their_number(parts: data.Parts) -> None:
    found = {(" ".join(one.words[-2:]), one.label) for one in parts.more}
    assert ("the actors", 1) in found
    assert ("the film", 0) in found
    assert ("other dogs", 1) in found
    assert not any(words.endswith(("i", "it")) for words, _ in found)


def test_a_verb_without_a_noun_before_it_is_no_example() -> None:
    sentence = "there are cats , and you were to have what the dog has"
    words = sentence.split()
    assert [" ".join(one.words) for one in data.verb_prefixes(words)] == [" ".join(words[:-1])]


def test_tokenizer_has_one_token_for_each_known_word(parts: data.Parts) -> None:
    tokenizer = data.word_tokenizer(parts, 60)
    ids = tokenizer("the dogs zebra")["input_ids"]
    assert len(tokenizer) == 60
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "the", "dogs", "[UNK]", "[SEP]"]


def test_missing_data_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        data.agreement_parts(tmp_path)


def test_nouns_are_found_in_both_numbers_only() -> None:
    texts = [["the", "city", "many", "cities", "a", "box", "the", "walks"]] * 2
    assert templates.nouns_of(texts) == (("city", "cities"),)


def test_phrases_have_the_number_of_their_head() -> None:
    rng = random.Random(1)
    phrases = templates.Phrases(NOUNS)
    drawn = [phrases.prefix(rng) for _ in range(400)]
    assert 120 < sum(label for _, label in drawn) < 280
    plural = {many for _, many in NOUNS}
    short = [(words, label) for words, label in drawn if len(words) <= 2]
    assert len(short) > 5
    assert all((words[-1] in plural) == bool(label) for words, label in short)


# --- training ----------------------------------------------------------------------------------
def test_training_is_repeatable_and_learns(parts: data.Parts) -> None:
    before = torch.random.get_rng_state()
    first, tokenizer, history = train.train(parts, steps=12, batch_size=16, vocabulary=200)
    again, _, _ = train.train(parts, steps=12, batch_size=16, vocabulary=200)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert history[-1]["step"] == 12
    assert not first.training
    found = train.measured(first, tokenizer, parts.test)
    by_count = [v for k, v in found.items() if "attractors" in k]
    assert len(by_count) == 3
    assert min(by_count) <= found["accuracy"] <= max(by_count)


def test_accuracy_is_of_each_example(parts: data.Parts) -> None:
    tokenizer = data.word_tokenizer(parts, 200)
    model = train.new_model(tokenizer).eval()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 50.0]))  # always plural
    share = np.mean([one.label for one in parts.test])
    assert train.measured(model, tokenizer, parts.test)["accuracy"] == pytest.approx(share)


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(InputError, match="training needs"):
        train.train(data.Parts([], [], [], []))


# --- what is correlated ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def classifier(parts: data.Parts) -> tuple[Any, Any]:
    tokenizer = data.word_tokenizer(parts, 200)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=200, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval(), tokenizer


def test_rows_are_those_of_whole_maps(classifier: tuple[Any, Any]) -> None:
    model, tokenizer = classifier
    ids = tokenizer("the dogs of the city")["input_ids"]
    found = correlations.compare(model, tokenizer, ids)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = model(torch.tensor([ids]), output_attentions=True).attentions
    attention = np.stack([layer[0].double().numpy() for layer in layers])
    np.testing.assert_allclose(found.rows["rollout"], fo.rollout(attention)[:, 0], atol=1e-6)
    np.testing.assert_allclose(found.rows["flow"], fo.attention_flow(attention)[:, 0], atol=1e-6)
    np.testing.assert_allclose(found.rows["raw"], attention.mean(axis=1)[:, 0], atol=1e-6)
    assert found.words.tolist() == [False, *[True] * 5, False]


def test_blank_out_and_gradient_are_what_the_model_does(classifier: tuple[Any, Any]) -> None:
    model, tokenizer = classifier
    ids = tokenizer("the dogs of the city")["input_ids"]
    found = correlations.compare(model, tokenizer, ids)

    def probability(changed: list[int]) -> float:
        with torch.no_grad():
            return float(model(torch.tensor([changed])).logits.softmax(-1)[0, 1])

    for place in range(len(ids)):
        changed = [tokenizer.unk_token_id if i == place else x for i, x in enumerate(ids)]
        by_hand = abs(probability(changed) - probability(ids))
        assert found.references["blank-out"][place] == pytest.approx(by_hand, abs=1e-6)
    gradient = correlations.gradients(model, ids, correlations.class_probability(1))
    embeddings = model.get_input_embeddings()(torch.tensor([ids])).detach()
    step = torch.zeros_like(embeddings)
    step[0, 2, 3] = 1e-2
    with torch.no_grad():
        ends = [model(inputs_embeds=embeddings + k * step).logits.softmax(-1) for k in (-1, 1)]
    assert gradient[2, 3] == pytest.approx(float(ends[1][0, 1] - ends[0][0, 1]) / 2e-2, abs=1e-3)
    assert np.abs(gradient).max() > 1e-2
    np.testing.assert_allclose(
        np.linalg.norm(gradient, axis=1), found.references["gradient"], rtol=1e-4
    )


@pytest.mark.parametrize("seed", range(5))
def test_spearman_is_scipys_also_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 4, 12).astype(float), rng.exponential(size=12) ** 4
    expected = spearmanr(first, second).statistic
    assert correlations.spearman(first, second) == pytest.approx(expected)
    # a product-moment correlation in its place would be noticed
    assert abs(np.corrcoef(first, second)[0, 1] - expected) > 1e-3


def test_constant_and_unequal_vectors() -> None:
    assert np.isnan(correlations.spearman(np.ones(4), np.arange(4.0)))
    with pytest.raises(InputError, match="one length"):
        correlations.spearman(np.ones(4), np.ones(3))


def test_special_tokens_count_only_where_every_position_does() -> None:
    reference = np.array([9.0, 1.0, 2.0, 3.0])
    rows = {"raw": np.array([[0.0, 1.0, 2.0, 3.0]])}
    words = np.array([False, True, True, True])
    found = correlations.Comparison(rows, {"blank-out": reference}, words)
    key = ("blank-out", "raw", 1)
    assert correlations.correlations(found, words_only=True)[key] == pytest.approx(1.0)
    assert correlations.correlations(found, words_only=False)[key] < 0.5
    short = correlations.Comparison(
        rows, {"blank-out": reference}, np.array([True, True, False, False])
    )
    assert correlations.correlations(short, words_only=True) == {}


# --- the command -------------------------------------------------------------------------------
def test_run_writes_tables_from_a_saved_model(
    folder: Path, classifier: tuple[Any, Any], tmp_path: Path
) -> None:
    model, tokenizer = classifier
    model.save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    options = argparse.Namespace(
        model=str(tmp_path / "small"), data=folder, samples=5, quick=True, seed=0,
        out=tmp_path / "results",
    )  # fmt: skip
    text = run.written("agreement", options)
    assert "flow, published" in text
    assert "sha256" in text
    rows = (tmp_path / "results" / "agreement.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 2 * 3 * 3 * 3  # protocols, references, methods, layers
    assert (tmp_path / "results" / "agreement.png").stat().st_size > 0


def test_run_without_the_verb_number_model_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"train\.py"):
        run.written("agreement", argparse.Namespace(model=None))


def test_summary_is_mean_and_spread() -> None:
    found = report.Summary.of(("p", "r", "raw", 1), [0.0, 1.0])
    assert (found.mean, found.std, found.texts) == (0.5, 0.5, 2)
    assert found.error == pytest.approx(0.5 / 2**0.5)


# --- pronouns ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def masked() -> tuple[Any, Any]:
    words = " ".join(case.sentence for case in pronouns.CASES).replace(pronouns.MASK, "his her")
    known = data.Parts([data.Example(tuple(words.split()), 0)], [], [], [])
    tokenizer = data.word_tokenizer(known, 200, least=1)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    return BertForMaskedLM(config).eval(), tokenizer


def test_pronouns_are_resolved_at_the_mask(masked: tuple[Any, Any]) -> None:
    model, tokenizer = masked
    case = pronouns.CASES[0]
    found = pronouns.resolve(model, tokenizer, case)
    ids = tokenizer(case.sentence.replace(pronouns.MASK, "[MASK]"))["input_ids"]
    with torch.no_grad():
        chances = (
            model(torch.tensor([ids])).logits[0, ids.index(tokenizer.mask_token_id)].softmax(-1)
        )
    wanted = chances[tokenizer.convert_tokens_to_ids(["his", "her"])].numpy()
    np.testing.assert_allclose(found.chances, wanted, rtol=1e-4)
    assert set(found.shares) == {"raw", "rollout", "flow"}
    for shares in found.shares.values():
        np.testing.assert_allclose(shares.sum(axis=1), 1)
    rows = pronouns.table([found])
    assert [len(row) for row in rows] == [5 + 2] * 3


def test_a_pronoun_that_is_no_token_is_an_error(masked: tuple[Any, Any]) -> None:
    case = pronouns.Case("David met {mask} aunt Anna", ("David", "Anna"), ("hers", "his"))
    with pytest.raises(InputError, match="'hers'"):
        pronouns.resolve(*masked, case)


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> Any:
        raise InputError(f"cannot load {name}: the hub cannot be reached")

    monkeypatch.setattr(pronouns, "load_model", unreachable)
    monkeypatch.setattr(sys, "argv", ["pronouns.py"])
    with pytest.raises(SystemExit, match="hub cannot be reached"):
        pronouns.main()
