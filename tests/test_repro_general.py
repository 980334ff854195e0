"""paper_repro/general_transformers: logic, measures, and what must be seen on known attention."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowopt import FlowNetwork, MaxFlow, solve
from flowopt.errors import InputError
from flowopt.explainer.receptive_field import uniform_causal

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "paper_repro" / "general_transformers"
if not SCRIPTS.is_dir():
    pytest.skip(f"{SCRIPTS} is not here", allow_module_level=True)
sys.path.insert(0, str(SCRIPTS))

import classification_token  # noqa: E402
import decoder_influence  # noqa: E402
import early_tokens  # noqa: E402
import flow_maps  # noqa: E402
import formulas  # noqa: E402
import general_results  # noqa: E402
import reasoning_influence  # noqa: E402
import train_reasoning  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here")
needs_model = pytest.mark.skipif(
    not (train_reasoning.CHECKPOINT / "model.safetensors").is_file(),
    reason="the reasoning model is not here",
)


# --- formulas ----------------------------------------------------------------------------------
def plain_truth(formula: str, values: dict[str, bool]) -> bool:
    """Recursive reading, one assignment at a time: written apart from the code it checks."""

    def read(rest: str) -> tuple[bool, str]:
        head, rest = rest[0], rest[1:]
        if head in values:
            return values[head], rest
        x, rest = read(rest)
        if head == "!":
            return not x, rest
        y, rest = read(rest)
        return {"&": x and y, "|": x or y, ">": y or not x, "=": x == y, "^": x != y}[head], rest

    answer, rest = read(formula)
    assert not rest
    return answer


def test_truth_tables_agree_with_plain_reading() -> None:
    rng = random.Random(0)
    for _ in range(60):
        formula = formulas.random_formula(rng.randint(1, 13), rng)
        table = formulas.truth_table(formula)
        for row, bits in enumerate(itertools.product((False, True), repeat=4)):
            values = dict(zip("dcba", bits, strict=True))
            assert bool(table >> row & 1) == plain_truth(formula, values), formula


def test_answers_satisfy_and_none_is_shorter() -> None:
    pairs = formulas.random_formulas(lambda _: True, seed=1)
    for formula, answer in itertools.islice(pairs, 60):
        assert formulas.satisfies(answer, formula)
        shorter = [a for a, _ in formulas.partial_assignments() if len(a) < len(answer)]
        assert not any(formulas.satisfies(each, formula) for each in shorter)


@pytest.mark.parametrize("answer", ["a1", "b0", "a0b0", "", "a1b", "a1a0", "xx"])
def test_wrong_answers_satisfy_nothing(answer: str) -> None:
    assert formulas.satisfies("a1b0", "&a!b")
    assert not formulas.satisfies(answer, "&a!b")


@pytest.mark.parametrize("text", ["", "&a", "ab", "x", "!"])
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="formula"):
        formulas.truth_table(text)


def test_only_symbols_that_matter_decide() -> None:
    # |ab is answered a1: with any other first letter, or as a conjunction, no longer
    assert formulas.answer_to("|ab") == "a1"
    operator, first, second = formulas.deciding("|ab", "a1")
    assert first == 1
    assert 0 < operator < 1
    assert second == 0
    assert formulas.edits("!a", 0) == ["a"]


# --- training ----------------------------------------------------------------------------------
def test_training_never_sees_held_out_formulas() -> None:
    held_out = set(train_reasoning.held_out_formulas(50, seed=1))
    pairs = formulas.random_formulas(lambda f: not train_reasoning.is_held_out(f), seed=0)
    assert not held_out & {formula for formula, _ in itertools.islice(pairs, 3000)}
    model, tokenizer = train_reasoning.train_reasoning(steps=2, batch_size=4)
    counts = train_reasoning.accuracy((model, tokenizer), sorted(held_out))
    assert sum(all_ for _, all_ in counts.values()) == 50
    with pytest.raises(InputError, match="at least 1"):
        train_reasoning.train_reasoning(steps=0)


@needs_model
def test_committed_model_satisfies_formulas_and_an_untrained_one_does_not() -> None:
    texts = train_reasoning.held_out_formulas(200, seed=5)
    texts = [text for text in texts if len(text) <= 9]
    loaded = train_reasoning.load_reasoner()
    right = sum(hit for hit, _ in train_reasoning.accuracy(loaded, texts).values())
    assert right / len(texts) > 0.85
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blank = train_reasoning.new_model(loaded[1]).eval()
    blind = sum(hit for hit, _ in train_reasoning.accuracy((blank, loaded[1]), texts).values())
    assert blind / len(texts) < 0.3


# --- measures ----------------------------------------------------------------------------------
def test_rank_correlation() -> None:
    rank = general_results.rank_correlation
    assert rank([1, 2, 3], [10, 20, 21]) == pytest.approx(1)
    assert rank([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank([1, 2, 2, 3], [1, 2, 3, 3]) == pytest.approx(5 / 6)  # mean ranks
    assert np.isnan(rank([1, 1, 1], [1, 2, 3]))
    assert np.isnan(rank([1, 1 + 1e-15, 1], [1, 2, 3]))  # differs by rounding only
    with pytest.raises(InputError, match="one length"):
        rank([1, 2], [1, 2, 3])


def test_agreement_by_place_alone_is_none() -> None:
    partial = general_results.partial_correlation
    rng = np.random.default_rng(0)
    place = np.arange(4000.0)
    first, second = (place + 3000 * rng.random(4000) for _ in range(2))
    assert general_results.rank_correlation(first, second) > 0.5  # both follow the place,
    assert abs(partial(first, second, place)) < 0.05  # and agree in nothing else
    assert partial(first, first + 100 * rng.random(4000), place) > 0.9
    assert np.isnan(partial(place, second, place))


def test_mean_is_over_texts_not_values() -> None:
    found = general_results.mean_of([[0.0] * 9, [1.0], [float("nan")], 1.0])
    assert found.count == 3
    assert found.mean == pytest.approx(2 / 3)
    assert found.low <= found.mean <= found.high
    assert str(general_results.mean_of([[float("nan")]])) == "none"


def test_a_tie_is_no_hit() -> None:
    drops = np.array([[0.0, 2.0], [0.0, 2.0]])
    scores = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert decoder_influence.same_first(scores, drops).tolist() == [False, True]
    own = np.array([[False, True], [False, True]])
    assert reasoning_influence.own_hits(scores, own).tolist() == [0.0, 1.0]


# --- early tokens ------------------------------------------------------------------------------
def test_two_layers_of_uniform_attention_are_the_harmonic_formula() -> None:
    found = early_tokens.shares_by_flow(uniform_causal(2, 9), residual=False)["rollout"]
    np.testing.assert_allclose(found, early_tokens.two_layer_share(9), atol=1e-12)
    three = early_tokens.shares_by_flow(uniform_causal(3, 9), residual=False)["rollout"]
    assert not np.allclose(three, early_tokens.two_layer_share(9))


def test_depth_gathers_flow_in_the_first_token_only_where_attention_is_causal() -> None:
    rows = early_tokens.artificial_rows(tokens=8, draws=1, depths=(1, 4))
    share = {
        (row["layers"], row["flow"]): row["first token"]
        for row in rows
        if row["attention"] == "uniform" and row["residual"] == "no"
    }
    for flow in ("rollout", "barrier"):
        assert share[1, flow] == pytest.approx(1 / 8, abs=1e-6)
        assert share[4, flow] > 4 / 8
    even = np.full((4, 1, 8, 8), 1 / 8)[:, 0]  # both ways: no advantage
    for scores in early_tokens.shares_by_flow(even, residual=False).values():
        assert scores.sum() == pytest.approx(1)
    assert early_tokens.shares_by_flow(even, residual=False)["barrier"][0] == pytest.approx(1 / 8)


def test_random_attention_is_causal_and_sums_to_one() -> None:
    found = early_tokens.random_causal(2, 5, np.random.default_rng(0))
    np.testing.assert_allclose(found.sum(axis=2), 1)
    assert not np.triu(found, k=1).any()


# --- classification token ----------------------------------------------------------------------
def test_nothing_flows_to_the_ends_when_they_are_taken_out() -> None:
    capacities = np.random.default_rng(0).dirichlet(np.ones(5), (3, 5))
    cut = classification_token.WithoutEnds()(capacities)
    assert (capacities[:, :, [0, -1]] > 0).all()  # the original is left as it was
    scores = solve(FlowNetwork.layered(cut, sources=[0]), MaxFlow()).attributions
    assert scores[0] == scores[-1] == 0
    assert scores[1:-1].sum() > 0


# --- maps of decoders --------------------------------------------------------------------------
def test_unrolled_rollout_ends_in_the_prompt() -> None:
    rng = np.random.default_rng(0)
    attention = early_tokens.random_causal(3, 6, rng)[:, None]
    maps = flow_maps.decoder_maps(attention, prompt=3)
    assert maps["rollout"].shape == (4, 3)
    np.testing.assert_allclose(maps["rollout, unrolled"].sum(axis=1), 1)
    assert (maps["rollout"].sum(axis=1)[1:] < 1).all()
    np.testing.assert_allclose(maps["rollout"][0], maps["rollout, unrolled"][0])


@needs_model
def test_gradients_are_those_of_small_steps() -> None:
    model, tokenizer = train_reasoning.load_reasoner()
    source, tokens = tokenizer("&a!b")["input_ids"], tokenizer.convert_tokens_to_ids(list("a1b0"))
    found = flow_maps.gradient_maps(model.double(), source, tokens)["input x gradient"]
    start = model.config.decoder_start_token_id
    table = model.get_input_embeddings()(torch.tensor([source]))

    def logit(scale: float, place: int) -> float:
        changed = table.clone()
        changed[0, place] *= scale
        written = torch.tensor([[start, *tokens[:-1]]])
        with torch.no_grad():
            out: Any = model(inputs_embeds=changed, decoder_input_ids=written)
        return float(out.logits[0, 2, tokens[2]])

    for place in range(len(source)):
        slope = (logit(1 + 1e-4, place) - logit(1 - 1e-4, place)) / 2e-4
        assert found[2, place] == pytest.approx(slope, rel=1e-4, abs=1e-6)


@needs_model
def test_swaps_see_the_symbol_that_decides() -> None:
    model, tokenizer = train_reasoning.load_reasoner()
    drops = reasoning_influence.swap_drops(model, tokenizer, "&a!b", "a1b0")
    assert drops.shape == (4, 4)
    assert drops[3].argmax() == 2  # b0: without the negation it were b1
    assert drops[3, 2] > 2


@needs_model
def test_one_formula_through_all_methods() -> None:
    model, tokenizer = train_reasoning.load_reasoner()
    found = reasoning_influence.solved(model, tokenizer, "&a!b", "a1b0")
    assert all(scores.shape == (4, 4) for scores in found.maps.values())
    assert set(found.proved.values()) == {4}
    rows = {row["scores"]: row for row in reasoning_influence.rows_of([found])}
    assert rows["truth: swaps"]["names: swaps"].mean == pytest.approx(1)
    assert rows["random"]["names: swaps"].mean < 1
    assert rows["a random place"]["names: own variable"].mean == pytest.approx(1 / 4)


@needs_data
def test_deleting_tokens_of_the_prompt_is_asking_the_shorter_prompt() -> None:
    model, tokenizer = decoder_influence.load_stories(DATA / "models" / "stories260K")
    ids = tokenizer("Lily had a red")["input_ids"]
    drops = decoder_influence.deletion_drops(model, ids, ids[-2:])
    assert np.isnan(drops[:, 0]).all()
    shorter = [*ids[:2], *ids[3:]]
    whole = decoder_influence.log_probabilities(model, ids, ids[-2:])
    less = decoder_influence.log_probabilities(model, shorter, ids[-2:])
    np.testing.assert_allclose(drops[:, 2], whole - less)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    assert whole[0] == pytest.approx(float(logits[ids[-2]]), abs=1e-5)
