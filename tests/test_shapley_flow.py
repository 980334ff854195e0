"""The maximum flow whose token flows are Shapley values, and its certificate."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from networks import FAMILIES, agf_capacities, dense, half_zeros, mixed_terminals

import flowopt as fo
from flowopt.axioms import RestrictedGame, shapley_values
from flowopt.axioms.strategies import networks
from flowopt.certificate import certified
from flowopt.errors import InputError, UnsupportedError
from flowopt.games.base import memberships
from flowopt.solution import Status

SUPPORTED = sorted(FAMILIES.keys() - {"mixed_terminals"})


@pytest.mark.parametrize("family", SUPPORTED)
def test_token_flows_are_the_shapley_values(family: str) -> None:
    net = FAMILIES[family]()
    found = fo.solve(net, fo.ShapleyFlow())
    exact = shapley_values(RestrictedGame(net))
    assert (found.status, found.solver) == (Status.OPTIMAL, "shapley")
    assert found.value == pytest.approx(net.max_flow, rel=1e-12)
    np.testing.assert_allclose(found.attributions, exact, atol=1e-12 * net.max_flow)
    certificate = found.certificate
    assert certificate.method == "Shapley"
    assert max(certificate.conservation, certificate.bounds) <= 1e-12
    assert certificate.gap is not None
    assert certificate.gap <= 1e-12
    assert certificate.attribution_error is not None
    assert (np.abs(found.attributions - exact) <= certificate.attribution_error).all()
    assert certificate.attribution_error.max() <= 1e-9 * net.max_flow


@settings(max_examples=40, deadline=None)
@given(networks())
def test_it_is_feasible_on_every_network(net: fo.FlowNetwork) -> None:
    found = fo.solve(net, fo.ShapleyFlow())
    assert found.status is Status.OPTIMAL
    flow = found.flow[net.edges.index]
    unit = net.max_flow or 1.0
    assert (flow >= 0).all()
    assert (flow <= net.capacity).all()
    np.testing.assert_allclose(net.incidence() @ flow, 0, atol=1e-13 * unit)
    assert net.value(flow) == pytest.approx(net.max_flow, rel=1e-12)


@pytest.mark.parametrize("family", SUPPORTED)
def test_sampled_values_are_maximum_flows_too(family: str) -> None:
    net = FAMILIES[family]()
    found = fo.solve(net, fo.ShapleyFlow(samples=6, seed=2))
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(net.max_flow, rel=1e-12)
    assert found.certificate.attribution_error is None  # their error is statistical
    assert found.stats["permutations"] == 6
    t = net.n_players
    table = RestrictedGame(net).all_values()
    sums = memberships(np.arange(2**t), t) @ found.attributions
    assert (sums <= table + 1e-12 * net.max_flow).all()  # inside the base polytope


def test_sampled_values_come_with_standard_errors() -> None:
    net = fo.FlowNetwork.layered(agf_capacities(3, 20, 0))
    found = fo.solve(net, fo.ShapleyFlow(precision=5e-3, seed=1))
    objective = found.resolved
    assert isinstance(objective, fo.ShapleyFlow)
    assert objective.values is not None
    assert 0 < objective.values.stderr.max() <= 5e-3 * net.max_flow
    assert found.stats["largest_stderr"] == objective.values.stderr.max()
    np.testing.assert_allclose(found.attributions, objective.target(), atol=1e-12 * net.max_flow)
    low, high = fo.ambiguity(net).T
    assert (low <= found.attributions + 1e-12).all()
    assert (found.attributions <= high + 1e-12).all()


def test_it_is_none_of_the_other_flows() -> None:
    net = half_zeros()
    mine = fo.solve(net, fo.ShapleyFlow()).attributions
    for objective in (fo.MaxFlow(), fo.LogBarrier(mu=1e-5), fo.ProportionalFair()):
        other = fo.solve(net, objective).attributions
        assert np.abs(mine - other).max() > 1e-3 * net.max_flow


def test_symmetric_and_null_tokens() -> None:
    capacities = np.random.default_rng(0).uniform(0.1, 1, (2, 4, 4))
    capacities[0][:, 1] = capacities[0][:, 3]
    capacities[0][:, 2] = 0
    found = fo.solve(fo.FlowNetwork.layered(capacities), fo.ShapleyFlow()).attributions
    assert found[1] == pytest.approx(found[3], rel=1e-12)
    assert found[2] == 0


# --- the certificate is not fooled ----------------------------------------------------------------
def certify(net: fo.FlowNetwork, objective: Any, flow: Any, potential: Any) -> fo.FlowSolution:
    return certified(net, objective, objective, flow, potential, "test", {"message": ""})


def test_the_certificate_refuses_other_flows() -> None:
    net = dense()
    good = fo.solve(net, fo.ShapleyFlow())
    assert certify(net, good.resolved, good.flow, good.potential).status is Status.OPTIMAL
    fair = fo.solve(net, fo.MaxMinFair())  # a maximum flow that is divided otherwise
    other = certify(net, good.resolved, fair.flow, good.potential)
    assert other.status is Status.INACCURATE
    assert other.certificate.gap is not None
    assert other.certificate.gap >= 0.9 * np.abs(fair.attributions - good.attributions).sum() / 13
    less = certify(net, good.resolved, 0.999 * good.flow, good.potential)
    assert less.status is Status.INACCURATE
    wrong_cut = certify(net, good.resolved, good.flow, np.ones_like(good.potential))
    assert wrong_cut.status is Status.INACCURATE


def test_wrong_values_are_found_out() -> None:
    net = dense()
    resolved = fo.ShapleyFlow().resolve(net)
    assert resolved.values is not None
    extreme = replace(resolved.values, values=np.array([net.max_flow, 0, 0, 0, 0]))
    found = fo.solve(net, replace(resolved, values=extreme), throw=False)
    assert found.status is Status.INACCURATE
    with pytest.raises(fo.SolverError, match="shapley"):
        fo.solve(net, replace(resolved, values=extreme))


# --- an objective like the others -----------------------------------------------------------------
def test_values_are_computed_once_per_network(monkeypatch: pytest.MonkeyPatch) -> None:
    net = dense()
    first = fo.ShapleyFlow(samples=10).resolve(net)
    monkeypatch.setattr("flowopt.games.shapley_values", None)
    assert fo.ShapleyFlow(samples=10).resolve(net) is first
    assert first.resolve(net) is first
    with pytest.raises(TypeError):
        fo.ShapleyFlow(samples=12).resolve(net)


def test_it_says_that_cvxpy_cannot_take_it() -> None:
    with pytest.raises(UnsupportedError, match="no CVXPY objective"):
        fo.FlowProblem(dense(), fo.ShapleyFlow()).to_cvxpy()
    with pytest.raises(UnsupportedError, match=r"CLARABEL cannot solve.*Solvers that can: shapley"):
        fo.solve(dense(), fo.ShapleyFlow(), "CLARABEL")
    with pytest.raises(UnsupportedError, match="made for ShapleyFlow"):
        fo.solve(dense(), fo.MaxFlow(), "shapley")
    with pytest.raises(UnsupportedError, match="every path ends in exactly one player"):
        fo.solve(mixed_terminals(), fo.ShapleyFlow())


def test_it_is_listed_compared_and_stored() -> None:
    assert fo.solvers.supporting(dense(), fo.ShapleyFlow()) == ["shapley"]
    rows = {row.solver: row.status for row in fo.compare_solvers(dense(), fo.ShapleyFlow()).rows}
    assert rows.pop("shapley") == "optimal"
    assert set(rows.values()) == {"refused"}
    assert repr(fo.ShapleyFlow()) == "ShapleyFlow()"
    assert repr(fo.ShapleyFlow(samples=8, seed=3)) == "ShapleyFlow(samples=8, seed=3)"
    found = fo.solve(dense(), fo.ShapleyFlow())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).flow, found.flow)
    first, second = fo.solve_batch([dense(), half_zeros()], fo.ShapleyFlow())
    np.testing.assert_array_equal(first.attributions, found.attributions)
    assert second.status is Status.OPTIMAL


def test_it_scales_with_the_capacities() -> None:
    net = half_zeros()
    one, big = (fo.solve(each, fo.ShapleyFlow()) for each in (net, net.scaled(1e9)))
    np.testing.assert_allclose(one.attributions * 1e9, big.attributions, rtol=1e-9)


@pytest.mark.parametrize(
    "options",
    [{"samples": 1}, {"samples": 2.5}, {"samples": True}, {"precision": 0}, {"precision": -1}],
)
def test_what_cannot_be_used_is_refused(options: Any) -> None:
    with pytest.raises(InputError, match="must be"):
        fo.ShapleyFlow(**options)


def test_unresolved_objectives_have_no_values() -> None:
    with pytest.raises(InputError, match="call resolve"):
        fo.ShapleyFlow().target()


# --- the fair flows (method.md section 8c) --------------------------------------------------------
def least_norm_base(table: Any, t: int) -> Any:
    """Least-norm point of the base polytope: a quadratic program over all coalitions."""
    import cvxpy as cp

    rows = memberships(np.arange(1, 2**t), t).astype(float)
    x = cp.Variable(t)
    limits = [x >= 0, rows[:-1] @ x <= table[1:-1], cp.sum(x) == table[-1]]
    cp.Problem(cp.Minimize(cp.sum_squares(x)), limits).solve(solver="CLARABEL")
    return x.value


@pytest.mark.parametrize("family", ["dense", "half_zeros", "cls_only", "node_capacities", "causal"])
def test_fair_flows_are_the_least_norm_base(family: str) -> None:
    net = FAMILIES[family]()
    unit = net.max_flow
    proportional, max_min = fo.solve(net, fo.ProportionalFair()), fo.solve(net, fo.MaxMinFair())
    table = RestrictedGame(net).all_values()
    expected = unit * least_norm_base(table / unit, net.n_players)
    np.testing.assert_allclose(proportional.attributions, max_min.attributions, atol=1e-9 * unit)
    np.testing.assert_allclose(max_min.attributions, expected, atol=1e-5 * unit)
    assert max_min.value == pytest.approx(unit, rel=1e-9)
    # what proves it: the tokens up to any level could not have more between them
    inflow, bits = max_min.attributions, 1 << np.arange(net.n_players)
    for level in inflow:
        members = inflow <= level + 1e-9 * unit
        assert table[members @ bits] == pytest.approx(inflow[members].sum(), rel=1e-8)
