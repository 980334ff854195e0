"""Games of flows and models, and their Shapley values."""

from __future__ import annotations

from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import FAMILIES, agf_capacities, dense, half_zeros, mixed_terminals

import flowopt as fo
from flowopt.axioms import (
    BarrierGame,
    FunctionGame,
    Game,
    LayerGame,
    ModelGame,
    RestrictedGame,
    banzhaf_values,
    interaction_values,
    shapley_values,
)
from flowopt.axioms.strategies import networks
from flowopt.errors import FlowoptWarning, InputError, SolverError, UnsupportedError
from flowopt.games import shapley as shapley_module
from flowopt.games.base import memberships
from flowopt.games.network import restricted_network
from flowopt.solvers import coalitions as coalitions_module

RESTRICTED = sorted(FAMILIES.keys() - {"mixed_terminals"})


def table_game(values: Any) -> FunctionGame:
    """A game of given values, bit j of the index for player j."""
    table = np.asarray(values, dtype=float)
    t = int(np.log2(len(table)))
    return FunctionGame(lambda rows: table[rows @ (1 << np.arange(t))], t)


def random_game(t: int, seed: int) -> FunctionGame:
    return table_game(np.random.default_rng(seed).normal(size=2**t))


def by_definition(game: Game) -> Any:
    """Mean marginal gain over all orders of the players, one coalition at a time."""
    total = np.zeros(game.n_players)
    for order in permutations(range(game.n_players)):
        for k, player in enumerate(order):
            total[player] += game(order[: k + 1]) - game(order[:k])
    return total / factorial(game.n_players)


def bottleneck() -> fo.FlowNetwork:
    """Two tokens behind one node that lets one unit through (method.md, section 8)."""
    return fo.FlowNetwork.layered([[[1, 1], [0, 0]], [[1, 0], [0, 0]]], sources=[0])


# --- values ---------------------------------------------------------------------------------------
def test_the_bottleneck_of_the_text() -> None:
    game = RestrictedGame(bottleneck())
    assert game.all_values().tolist() == [0, 1, 1, 1]
    assert np.asarray(shapley_values(game)).tolist() == [0.5, 0.5]
    assert fo.axioms.per_pair(bottleneck()).tolist() == [1, 1]


@pytest.mark.parametrize("family", RESTRICTED)
def test_restricted_values_are_maximum_flows_of_restricted_networks(family: str) -> None:
    net = FAMILIES[family]()
    game, t = RestrictedGame(net), net.n_players
    masks = np.random.default_rng(0).choice(2**t, min(2**t, 12), replace=False)
    rows = memberships(masks, t)
    expected = [
        restricted_network(net, np.flatnonzero(row)).max_flow if row.any() else 0.0 for row in rows
    ]
    np.testing.assert_allclose(game.values(rows), expected, atol=1e-12 * net.max_flow)
    np.testing.assert_allclose(game.all_values()[masks], expected, atol=1e-12 * net.max_flow)


@settings(max_examples=40, deadline=None)
@given(networks(max_tokens=4), st.integers(0, 99))
def test_restricted_values_are_a_polymatroid(net: fo.FlowNetwork, seed: int) -> None:
    game, t = RestrictedGame(net), net.n_players
    table = game.all_values()
    masks = np.arange(2**t)
    tolerance = 1e-12 * (net.max_flow or 1)
    assert table[0] == 0
    assert table[-1] == pytest.approx(net.max_flow, rel=1e-12)
    for j in range(t):
        assert (table[masks | 1 << j] >= table - tolerance).all()
    a, b = np.random.default_rng(seed).integers(2**t, size=(2, 50))
    assert (table[a] + table[b] >= table[a | b] + table[a & b] - tolerance).all()


def test_values_do_not_depend_on_how_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    net = half_zeros()
    table = RestrictedGame(net).all_values()
    rows = memberships(np.random.default_rng(1).integers(2**7, size=40), 7)
    expected = table[rows @ (1 << np.arange(7))]
    np.testing.assert_array_equal(RestrictedGame(net).values(rows), expected)
    # a stack of two residual networks instead of seven
    monkeypatch.setattr(
        coalitions_module, "STACK_BYTES", 2 * RestrictedGame(net).gates.closed.nbytes
    )
    np.testing.assert_allclose(RestrictedGame(net).values(rows), expected, rtol=1e-12)
    np.testing.assert_allclose(RestrictedGame(net).all_values(), table, rtol=1e-12)


def test_marginals_are_differences_of_values() -> None:
    game = RestrictedGame(dense())
    orders = np.array([np.random.default_rng(k).permutation(5) for k in range(6)])
    np.testing.assert_allclose(game.marginals(orders), Game.marginals(game, orders), atol=1e-12)


def test_values_are_computed_once() -> None:
    asked: list[int] = []

    def function(rows: Any) -> Any:
        asked.append(len(rows))
        return rows.sum(axis=1)

    game = FunctionGame(function, 3)
    rows = memberships(np.array([1, 2, 1, 7]), 3)
    assert game.values(rows).tolist() == [1, 1, 1, 3]
    assert game.values(rows).tolist() == [1, 1, 1, 3]
    assert asked == [3]
    game.all_values()
    game.all_values()
    assert asked == [3, 8]


def test_a_network_without_paths_is_worth_nothing() -> None:
    game = RestrictedGame(fo.FlowNetwork.layered(np.zeros((2, 3, 3))))
    assert game.all_values().tolist() == [0] * 8
    assert np.asarray(shapley_values(game, samples=8, precision=0.1)).tolist() == [0, 0, 0]


def test_layer_games_are_additive_whatever_the_flow() -> None:
    for objective in (fo.MaxFlow(), fo.LogBarrier(), fo.Entropy()):
        solution = fo.solve(dense(), objective)
        game = LayerGame(solution)
        exact = shapley_values(game, exact=True)
        np.testing.assert_allclose(exact, solution.attributions, rtol=1e-12)
        np.testing.assert_array_equal(shapley_values(game), solution.attributions)
        assert game([0, 3]) == pytest.approx(solution.attributions[[0, 3]].sum())
    middle = LayerGame(solution, "layer2")
    np.testing.assert_array_equal(shapley_values(middle), solution.node_flows["layer2"])
    assert sum(shapley_values(middle)) == pytest.approx(solution.value)


def test_barrier_games_keep_one_mu() -> None:
    net = dense()
    game = BarrierGame(net, fo.LogBarrier(mu=1e-2))
    whole = fo.solve(net, fo.LogBarrier(mu=1e-2))
    assert game([]) == 0
    assert game(range(5)) == pytest.approx(whole.value, rel=1e-9)
    part = fo.solve(restricted_network(net, [1, 4]), whole.resolved)
    assert game([1, 4]) == pytest.approx(part.value, rel=1e-12)
    values = shapley_values(game)
    assert values.method == "exact"
    assert sum(values) == pytest.approx(whole.value, rel=1e-9)


def test_barrier_games_say_which_coalition_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise SolverError("no proof")

    monkeypatch.setattr("flowopt.games.network.solve", broken)
    game = BarrierGame(dense(), fo.LogBarrier(mu=1e-2))
    with pytest.raises(SolverError, match=r"coalition \[2\]: no proof"):
        game([2])


# --- Shapley values -------------------------------------------------------------------------------
@pytest.mark.parametrize("t", [1, 2, 3, 5])
def test_exact_values_are_means_over_all_orders(t: int) -> None:
    game = random_game(t, t)
    np.testing.assert_allclose(shapley_values(game), by_definition(game), atol=1e-12)


def test_known_games() -> None:
    # one left glove (player 0), two right ones: a pair is worth 1
    gloves = FunctionGame(lambda rows: (rows[:, 0] & rows[:, 1:].any(axis=1)).astype(float), 3)
    np.testing.assert_allclose(shapley_values(gloves), [2 / 3, 1 / 6, 1 / 6], rtol=1e-14)
    np.testing.assert_allclose(banzhaf_values(gloves), [3 / 4, 1 / 4, 1 / 4], rtol=1e-14)
    both = FunctionGame(lambda rows: rows.all(axis=1).astype(float), 2)
    assert interaction_values(both).tolist() == [[0, 1], [1, 0]]
    assert interaction_values(both, "banzhaf").tolist() == [[0, 1], [1, 0]]


def test_tokens_of_a_network_stand_in_for_one_another() -> None:
    game = RestrictedGame(half_zeros())
    assert (interaction_values(game) <= 1e-15).all()
    assert (interaction_values(game) < -1e-6).any()


def test_agrees_with_shapiq() -> None:
    shapiq = pytest.importorskip("shapiq", reason="shapiq is not installed")
    t = 8
    for game in (random_game(t, 3), RestrictedGame(half_zeros())):
        n = game.n_players
        other = shapiq.ExactComputer(game.values, n)
        for ours, index in ((shapley_values(game).values, "SV"), (banzhaf_values(game), "BV")):
            theirs = other(index, order=1)
            np.testing.assert_allclose(ours, [theirs[(j,)] for j in range(n)], atol=1e-8)
        for kind, index in (("shapley", "SII"), ("banzhaf", "BII")):
            theirs = other(index, order=2)
            ours = interaction_values(game, kind)
            for i in range(n):
                for j in range(i):
                    assert ours[i, j] == pytest.approx(theirs[(j, i)], abs=1e-8)


@pytest.mark.parametrize("antithetic", [True, False])
def test_sampled_values_are_within_their_errors(antithetic: bool) -> None:
    game = RestrictedGame(dense())
    exact = shapley_values(game)
    sampled = shapley_values(game, samples=600, seed=5, antithetic=antithetic)
    assert (sampled.samples, sampled.method) == (600, "sampled")
    assert (np.abs(exact.values - sampled.values) <= 5 * sampled.stderr).all()
    assert (sampled.stderr > 0).all()
    assert sum(sampled) == pytest.approx(sum(exact), rel=1e-12)
    again = shapley_values(game, samples=600, seed=5, antithetic=antithetic)
    np.testing.assert_array_equal(sampled, again)
    other = shapley_values(game, samples=600, seed=6, antithetic=antithetic)
    assert (sampled.values != other.values).any()


def test_standard_errors_are_the_spread_of_estimates() -> None:
    game = random_game(5, 9)
    runs = [shapley_values(game, samples=40, seed=s) for s in range(300)]
    spread = np.std([run.values for run in runs], axis=0)
    claimed = np.sqrt(np.mean([run.stderr**2 for run in runs], axis=0))
    np.testing.assert_allclose(claimed, spread, rtol=0.15)


def test_antithetic_pairs_help_on_networks() -> None:
    game = RestrictedGame(dense())
    paired = shapley_values(game, samples=400).stderr
    single = shapley_values(game, samples=400, antithetic=False).stderr
    assert paired.max() < single.max()


def test_sampling_stops_at_the_wanted_precision() -> None:
    game = RestrictedGame(dense())
    found = shapley_values(game, precision=2e-3, exact=False)
    assert found.converged
    assert found.stderr.max() <= 2e-3 * sum(found)
    assert 64 <= found.samples < shapley_module.MOST_SAMPLES
    with pytest.warns(FlowoptWarning, match="allow more samples"):
        rough = shapley_values(game, precision=1e-6, samples=100)
    assert (rough.converged, rough.samples) == (False, 100)


def test_many_players_are_sampled_without_being_told() -> None:
    net = fo.FlowNetwork.layered(agf_capacities(2, 20, 0))
    found = shapley_values(RestrictedGame(net), precision=0.02)
    assert found.method == "sampled"
    assert sum(found) == pytest.approx(net.max_flow, rel=1e-12)


def test_progress_is_shown_when_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    shapley_values(RestrictedGame(dense()), samples=10, progress=True)
    shapley_values(RestrictedGame(dense()), exact=True, progress=True)
    shown = capsys.readouterr()
    assert "10/10" in shown.err
    assert "coalitions" in shown.err
    shapley_values(RestrictedGame(dense()), samples=10)
    assert capsys.readouterr().err == ""


def test_results_are_arrays_and_print() -> None:
    found = shapley_values(FunctionGame(lambda rows: rows @ [1.0, 2.0], 2, ("a", "bee")))
    assert (np.asarray(found) + 1).tolist() == [2, 3]
    assert (len(found), found[1], list(found)) == (2, 2.0, [1.0, 2.0])
    assert str(found).splitlines() == ["Shapley values (exact), sum 3", "  a   1", "  bee 2"]
    assert found.to_dict()["players"] == ["a", "bee"]
    assert "+-" in str(shapley_values(RestrictedGame(dense()), samples=8))


# --- the game of a model --------------------------------------------------------------------------
TEXT = "a gripping film"


def logit(model: Any, tokenizer: Any, text: str, target: int) -> float:
    import torch

    with torch.inference_mode():
        return float(model(**tokenizer(text, return_tensors="pt")).logits[0, target])


def test_model_games_keep_and_remove_tokens(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    text = "the film was not good"
    games = {
        removal: ModelGame.from_text(tiny_bert, tiny_tokenizer, text, removal=removal)
        for removal in ("mask", "attention", "delete")
    }
    for game in games.values():
        assert game.players == ("the", "film", "was", "not", "good")
        assert game.positions == (1, 2, 3, 4, 5)
        assert game(range(5)) == pytest.approx(
            logit(tiny_bert, tiny_tokenizer, text, game.target or 0), abs=1e-5
        )
    masked, deleted = games["mask"], games["delete"]
    assert masked([0, 1, 2, 4]) == pytest.approx(
        logit(tiny_bert, tiny_tokenizer, "the film was [MASK] good", masked.target or 0), abs=1e-5
    )
    assert deleted([0, 1, 2, 4]) == pytest.approx(
        logit(tiny_bert, tiny_tokenizer, "the film was good", deleted.target or 0), abs=1e-5
    )
    assert len({round(game([0]), 6) for game in games.values()}) == 3


def test_model_games_do_not_depend_on_batches(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    tiny_bert.train()
    one, many = (
        ModelGame.from_text(
            tiny_bert, tiny_tokenizer, "a warm film", special=True, target=1, batch_size=size
        )
        for size in (1, 64)
    )
    assert tiny_bert.training  # left as it was found, yet without dropout:
    np.testing.assert_allclose(one.all_values(), many.all_values(), atol=1e-5)
    assert one.n_players == 5
    assert shapley_values(one).values.sum() == pytest.approx(one(range(5)) - one([]), abs=1e-9)


def test_model_games_have_other_outputs(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    games = {
        output: ModelGame.from_text(tiny_bert, tiny_tokenizer, "good film", output=output, target=1)
        for output in ("logit", "log_odds", "probability")
    }
    odds, probability = games["log_odds"]([1]), games["probability"]([1])
    assert probability == pytest.approx(1 / (1 + np.exp(-odds)))
    other = ModelGame.from_text(tiny_bert, tiny_tokenizer, "good film", target=0)
    assert odds == pytest.approx(games["logit"]([1]) - other([1]), abs=1e-6)


def test_model_games_of_functions() -> None:
    game = ModelGame(lambda kept: kept @ np.array([3.0, -1.0]), ["good", "bad"])
    assert game.players == ("good", "bad")
    np.testing.assert_allclose(shapley_values(game), [3, -1])


# --- what is refused ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: RestrictedGame(mixed_terminals()), "every path ends in exactly one player"),
        (lambda: RestrictedGame(np.ones((2, 2, 2))), "takes a FlowNetwork"),
        (lambda: BarrierGame(mixed_terminals()), "every path"),
        (lambda: BarrierGame(dense(), fo.MaxFlow()), "takes a LogBarrier"),
        (lambda: LayerGame(dense()), "takes a FlowSolution"),
        (lambda: LayerGame(fo.solve(dense()), "no"), "the groups are"),
        (lambda: FunctionGame(len, 0), "at least one player"),
        (lambda: FunctionGame(len, True), "whole number"),
        (lambda: FunctionGame(len, 2, ("a",)), "1 names for 2 players"),
        (lambda: FunctionGame(lambda rows: rows[:, 0] * np.nan, 2)([0]), "NaN"),
        (lambda: FunctionGame(lambda rows: rows, 2)([0]), "one per coalition"),
        (lambda: random_game(3, 0)([3]), "0 to 2"),
        (lambda: random_game(3, 0)([-1]), "0 to 2"),
        (lambda: random_game(3, 0)([True]), "0 to 2"),
        (lambda: random_game(3, 0).values(np.ones((1, 3))), "booleans of shape"),
        (lambda: random_game(3, 0).values([True, False, True]), "booleans of shape"),
        (lambda: shapley_values(dense()), "Give a game"),
        (lambda: shapley_values(random_game(3, 0), samples=1), "at least 2"),
        (lambda: shapley_values(random_game(3, 0), samples=2.5), "at least 2"),
        (lambda: shapley_values(random_game(3, 0), precision=0), "positive"),
        (lambda: shapley_values(random_game(3, 0), precision=np.nan), "positive"),
        (lambda: shapley_values(random_game(3, 0), samples=4, exact=True), "leave samples out"),
        (lambda: shapley_values(FunctionGame(len, 25), exact=True), "sample permutations"),
        (lambda: banzhaf_values(FunctionGame(len, 25)), "sample permutations"),
        (lambda: interaction_values(random_game(3, 0), "other"), "'shapley' or 'banzhaf'"),
        (lambda: ModelGame(len, []), "at least one"),
        (lambda: ModelGame(len, ["a"], positions=(1, 2)), "2 positions for 1"),
        (lambda: restricted_network(dense(), []), "at least one player"),
    ],
)
def test_what_cannot_be_used_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": " "}, "at least one word"),
        ({"removal": "eat"}, "removal"),
        ({"output": "gradient"}, "output"),
        ({"target": 2}, "class from 0 to 1"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_model_games_refuse(
    tiny_bert: Any, tiny_tokenizer: Any, options: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ModelGame.from_text(tiny_bert, tiny_tokenizer, **({"text": TEXT} | options))


def test_a_tokenizer_without_mask_has_other_ways(tiny_bert: Any) -> None:
    from model_fixtures import wordpiece_tokenizer

    tokenizer = wordpiece_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(UnsupportedError, match="no mask token"):
        ModelGame.from_text(tiny_bert, tokenizer, TEXT)
    assert ModelGame.from_text(tiny_bert, tokenizer, TEXT, removal="delete").n_players == 3
