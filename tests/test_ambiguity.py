"""What plain maximum flow leaves open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from networks import (
    FAMILIES,
    agf_capacities,
    dense,
    extreme_networks,
    mixed_terminals,
    single_layer,
)
from test_games import bottleneck

import flowopt as fo
from flowopt.axioms import RestrictedGame, well_defined
from flowopt.axioms.strategies import networks
from flowopt.errors import InputError, UnsupportedError
from flowopt.intervals import caveat


def polytope_bounds(net: fo.FlowNetwork) -> Any:
    """[v(N) - v(N minus j), v({j})] from the game itself."""
    game, t = RestrictedGame(net), net.n_players
    alone = np.eye(t, dtype=bool)
    return np.column_stack((net.max_flow - game.values(~alone), game.values(alone)))


@pytest.mark.parametrize("family", FAMILIES)
def test_intervals_agree_with_linear_programs(family: str) -> None:
    net = FAMILIES[family]()
    np.testing.assert_allclose(fo.ambiguity(net), fo.ambiguity(net, "lp"), atol=1e-6 * net.max_flow)


@settings(max_examples=60, deadline=None)
@given(networks())
def test_intervals_are_the_bounds_of_the_base_polytope(net: fo.FlowNetwork) -> None:
    found = fo.ambiguity(net)
    unit = net.max_flow or 1.0
    assert found.shape == (net.n_players, 2)
    np.testing.assert_allclose(found, polytope_bounds(net), atol=1e-12 * unit)
    assert (found[:, 0] <= found[:, 1] + 1e-15 * unit).all()
    assert (found >= 0).all()


@settings(max_examples=60, deadline=None)
@given(extreme_networks())
def test_capacities_may_span_many_orders_of_magnitude(net: fo.FlowNetwork) -> None:
    unit = net.max_flow or 1.0
    np.testing.assert_allclose(fo.ambiguity(net), polytope_bounds(net), atol=1e-12 * unit)
    found = fo.solve(net, fo.ShapleyFlow())
    assert found.status is fo.Status.OPTIMAL
    assert isinstance(found.resolved, fo.ShapleyFlow)
    np.testing.assert_allclose(found.attributions, found.resolved.target(), atol=1e-12 * unit)


def test_every_solver_stays_inside_and_they_disagree() -> None:
    net = fo.FlowNetwork.layered(agf_capacities(4, 8, 0))
    low, high = fo.ambiguity(net).T
    answers = [fo.solve(net, fo.MaxFlow(), s).attributions for s in ("dinic", "HIGHS", "CLARABEL")]
    answers += [fo.solve(net, o).attributions for o in (fo.MaxMinFair(), fo.ShapleyFlow())]
    for answer in answers:
        assert (low - 1e-6 * net.max_flow <= answer).all()
        assert (answer <= high + 1e-6 * net.max_flow).all()
    assert np.ptp(answers, axis=0).max() > 0.05 * net.max_flow
    assert (high - low).max() > 0.05 * net.max_flow


def test_the_ends_of_an_interval_are_attained() -> None:
    net = dense()
    found = fo.ambiguity(net)
    for j in range(net.n_players):
        for end, sign in ((0, 1.0), (1, -1.0)):
            cost = np.zeros(net.n_players)
            cost[j] = sign * 0.5  # half of what a unit of flow is worth: |f| stays the maximum
            extreme = fo.solve(net, fo.MinCost(cost))
            assert extreme.value == pytest.approx(net.max_flow, rel=1e-7)
            assert extreme.attributions[j] == pytest.approx(found[j, end], rel=1e-6)


def test_statements() -> None:
    loose = well_defined(bottleneck(), ("good", "film"))
    assert not loose.well_defined
    assert loose.excess == pytest.approx(1.0)
    assert loose.widths.tolist() == [1, 1]
    text = str(loose)
    assert "agree on 0 of 2 tokens" in text
    assert "'good'" in text
    assert "from 0.0% to 100.0%" in text
    tight = well_defined(single_layer())  # one layer: every edge is full
    assert tight.well_defined
    assert tight.excess == pytest.approx(0, abs=1e-12)
    assert "same flow in all maximum flows" in str(tight)


def test_only_plain_maximum_flow_needs_a_caveat() -> None:
    net = bottleneck()
    said = caveat(fo.solve(net, fo.MaxFlow()), ("good", "film"))
    assert said == str(well_defined(net, ("good", "film")))
    for objective in (fo.LogBarrier(), fo.ShapleyFlow(), fo.MaxMinFair()):
        assert caveat(fo.solve(net, objective)) is None
    assert caveat(fo.solve(single_layer(), fo.MaxFlow())) is None
    assert caveat(fo.solve(fo.FlowNetwork.layered([[[0.0]]]), fo.MaxFlow())) is None


def test_well_defined_if_and_only_if_single_flows_add_up() -> None:
    for make in FAMILIES.values():
        net = make()
        if net.blocks and make is not mixed_terminals:
            found = well_defined(net)
            assert found.well_defined == (abs(found.excess) < 1e-9)


def test_tokens_out_of_reach_have_no_flow() -> None:
    capacities = agf_capacities(3, 4, 0)
    capacities[0][:, 2] = 0
    assert fo.ambiguity(fo.FlowNetwork.layered(capacities))[2].tolist() == [0, 0]
    assert not fo.ambiguity(fo.FlowNetwork.layered(np.zeros((2, 3, 3)))).any()


def test_sentence_sizes_take_moments() -> None:
    net = fo.FlowNetwork.layered(agf_capacities(12, 64, 1))
    low, high = fo.ambiguity(net).T
    some = [3, 40]
    rows = np.zeros((4, 64), dtype=bool)
    rows[:2, some] = np.eye(2, dtype=bool)
    rows[2:] = ~rows[:2]
    one, other = np.split(RestrictedGame(net).values(rows), 2)
    np.testing.assert_allclose(high[some], one, rtol=1e-10)
    np.testing.assert_allclose(low[some], net.max_flow - other, atol=1e-12 * net.max_flow)


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("flow", "lp"):
        fo.ambiguity(dense(), method, progress=True)
        assert "5/5" in capsys.readouterr().err
    fo.ambiguity(dense())
    assert capsys.readouterr().err == ""


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(InputError, match="takes a FlowNetwork"):
        fo.ambiguity(np.ones((2, 2, 2)))
    with pytest.raises(InputError, match="'flow', 'lp'"):
        fo.ambiguity(dense(), "guess")
    with pytest.raises(UnsupportedError, match="every path ends in exactly one"):
        fo.ambiguity(mixed_terminals(), "flow")
    assert fo.ambiguity(mixed_terminals()).shape == (3, 2)
    with pytest.raises(InputError, match="1 names for 5 tokens"):
        well_defined(dense(), ("a",))
