"""Certificates: repair makes any flow feasible, bounds hold, and corrupted answers are caught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import FAMILIES, dense, extreme_networks, half_zeros, layered_networks

import flowopt as fo
from flowopt.certificate import certified, certify, repaired
from flowopt.certificate.bounds import largest_ratio
from flowopt.solvers.base import RawSolution, Solver


def conservation(net, flow):
    """Largest imbalance of an inner node relative to what passes through it, by a plain sum."""
    edges = net.edges
    kept = flow[edges.index]
    into = np.bincount(edges.head, kept, minlength=net.graph.n_nodes)
    out = np.bincount(edges.tail, kept, minlength=net.graph.n_nodes)
    inner = net.graph.alive & ~net.graph.source & ~net.graph.sink
    through = np.maximum(into, out)
    return np.max((np.abs(into - out) / np.where(through > 0, through, 1))[inner], initial=0.0)


def garbage(net, seed):
    """Raw numbers as no solver should return them."""
    rng = np.random.default_rng(seed)
    size = len(net.graph.capacity)
    flow = rng.normal(size=size) * 10.0 ** rng.uniform(-12, 12, size)
    for worst in (np.nan, np.inf, -np.inf, 0.0):
        flow[rng.random(size) < 0.05] = worst
    return flow


# --- repair ------------------------------------------------------------------------------------
@given(st.one_of(layered_networks(), extreme_networks()), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_garbage_becomes_exactly_feasible(net, seed):
    raw = garbage(net, seed)
    kept = raw.copy()
    flow, _ = repaired(net, raw)
    np.testing.assert_array_equal(raw, kept)  # the input is left alone
    assert np.isfinite(flow).all()
    assert (flow >= 0).all()
    assert (flow <= net.graph.capacity).all()
    assert conservation(net, flow) < 1e-12
    edges = net.edges
    leaving = edges.full_incidence @ flow[edges.index]
    unit = np.abs(leaving).max(initial=0.0)
    assert (leaving[net.graph.source] >= -1e-12 * unit).all()
    assert (leaving[net.graph.sink] <= 1e-12 * unit).all()
    if net.return_capacity is not None:
        assert net.value(flow[edges.index]) <= net.return_capacity * (1 + 1e-12)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_a_feasible_flow_is_left_alone(family):
    net = FAMILIES[family]()
    flow = fo.solve(net).flow
    again, _ = repaired(net, flow)
    np.testing.assert_allclose(again, flow, rtol=1e-12, atol=1e-13 * flow.max())


@given(layered_networks(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_repairing_small_errors_changes_little(net, seed):
    if net.graph.empty:
        return
    solution = fo.solve(net, fo.LogBarrier(mu=1e-2))
    noise = np.random.default_rng(seed).uniform(-1, 1, len(solution.flow))
    flow, _ = repaired(net, solution.flow * (1 + 1e-9 * noise))
    assert np.abs(flow - solution.flow).max() <= 1e-7 * solution.value


# --- the bounds hold ---------------------------------------------------------------------------
OBJECTIVES = [
    fo.MaxFlow(),
    fo.LogBarrier(mu=1e-2),
    fo.Quadratic(0.1),
    fo.Entropy(0.1),
    fo.ProportionalFair(),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "wide_range"], ids=str)
def test_bounds_hold_for_any_flow_and_any_potentials(family, objective):
    net = FAMILIES[family]()
    best = fo.solve(net, objective)
    rng = np.random.default_rng(0)
    scale = 1.0 if not objective.facts.flow_units else best.value
    for size in (1e-6, 1e-4, 1e-2, 0.3):
        noise = size * rng.uniform(-1, 1, len(best.flow))
        flow = best.flow * (1 + noise) + size * rng.uniform(0, 0.1, len(best.flow)) * np.where(
            np.isfinite(net.graph.capacity), net.graph.capacity, best.value
        )
        potentials = [None, best.potential + size * rng.normal(size=net.graph.n_nodes)]
        for potential in potentials:
            found = certified(net, objective, best.resolved, flow, potential, "test", {})
            gap, error = found.certificate.gap, found.certificate.attribution_error
            true_gap = (best.objective_value - found.objective_value) / scale
            assert gap >= true_gap - 1e-9
            if error is not None:
                assert (
                    np.abs(found.attributions - best.attributions) <= error + 1e-7 * best.value
                ).all()


def test_the_delta_bound_is_not_much_larger_than_the_error():
    net, objective = half_zeros(), fo.LogBarrier(mu=1e-2)
    best = fo.solve(net, objective)
    flow = best.flow * (1 + 1e-5 * np.random.default_rng(0).uniform(-1, 1, len(best.flow)))
    found = certified(net, objective, best.resolved, flow, best.potential, "test", {})
    true = np.abs(found.attributions - best.attributions)
    assert (true <= found.certificate.attribution_error).all()
    assert found.certificate.attribution_error.max() < 300 * true.max()


@given(st.floats(1e-300, 1e3))
@settings(derandomize=True)
def test_the_ratio_of_the_fair_bound_solves_its_equation(gap):
    x = 1 + largest_ratio(gap)
    assert x - 1 - np.log(x) >= gap * (1 - 1e-3) - 1e-15
    assert largest_ratio(2 * gap) >= largest_ratio(gap)


# --- sabotage: a backend that lies is caught ---------------------------------------------------
@dataclass(frozen=True)
class Liar(Solver):
    """Takes another solver's answer, corrupts it, and calls it optimal."""

    name: ClassVar[str] = "liar"
    package: ClassVar[str] = "numpy"
    how: str = "nothing"

    def refusal(self, net, objective):
        return None

    def solve(self, net, objective, start=None):
        honest = fo.solve(net, objective)
        flow, potential = honest.flow.copy(), honest.potential.copy()
        rng = np.random.default_rng(0)
        if self.how == "noise":
            flow *= 1 + 1e-2 * rng.uniform(-1, 1, len(flow))
        elif self.how == "half":
            flow *= 0.5
        elif self.how == "twice":
            flow *= 2.0
        elif self.how == "zeros":
            flow[:] = 0
        elif self.how == "nan":
            flow[:] = np.nan
        elif self.how == "leak":
            flow[net.edges.index[0]] = 0
        elif self.how == "other":
            flow = fo.solve(net, fo.LogBarrier(mu=0.5)).flow.copy()
        return RawSolution(flow, potential, "optimal", 0.0, 0.0)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("how", ["noise", "half", "zeros", "nan", "leak", "other"])
def test_a_corrupted_answer_is_never_optimal(how, objective):
    net = dense()
    solution = fo.solve(net, objective, Liar(how), throw=False)
    assert solution.status is fo.Status.INACCURATE
    assert solution.certificate.conservation < 1e-9  # what is returned is feasible all the same
    assert solution.certificate.gap > 1e-6
    assert solution.objective_value <= fo.solve(net, objective).objective_value
    with pytest.raises(fo.SolverError, match="liar did not reach") as caught:
        fo.solve(net, objective, Liar(how))
    assert caught.value.solution.status is fo.Status.INACCURATE


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_an_idle_flow_without_potentials_proves_nothing(family, objective):
    net = FAMILIES[family]()
    flow = np.zeros(len(net.graph.capacity))
    resolved = objective.resolve(net)
    found = certified(net, objective, resolved, flow, None, "test", {})
    assert found.status is fo.Status.INACCURATE
    assert found.certificate.gap > 1e-6


def test_an_uncorrupted_answer_is_optimal():
    for objective in OBJECTIVES:
        assert fo.solve(dense(), objective, Liar()).status is fo.Status.OPTIMAL


@dataclass(frozen=True)
class Silent(Solver):
    """Returns nothing."""

    name: ClassVar[str] = "silent"
    package: ClassVar[str] = "numpy"

    def refusal(self, net, objective):
        return None

    def solve(self, net, objective, start=None):
        return RawSolution(None, None, "crashed", 0.0, 0.0)


def test_no_answer_is_failed():
    with pytest.raises(fo.SolverError, match=r"crashed.*try another solver"):
        fo.solve(dense(), fo.MaxFlow(), Silent())
    solution = fo.solve(dense(), fo.MaxFlow(), Silent(), throw=False)
    assert solution.status is fo.Status.FAILED
    assert solution.value == 0
    assert solution.stats["message"] == "crashed"


@dataclass(frozen=True)
class Frozen(Liar):
    """Returns an array that cannot be written to, and of another type."""

    name: ClassVar[str] = "frozen"

    def solve(self, net, objective, start=None):
        flow = fo.solve(net, objective).flow.astype(np.float32)
        flow.setflags(write=False)
        return RawSolution(flow, None, "optimal", 0.0, 0.0)


def test_backends_may_return_read_only_arrays():
    solution = fo.solve(dense(), fo.MaxFlow(), Frozen(), throw=False)
    assert solution.certificate.conservation < 1e-12
    assert solution.certificate.gap < 1e-5
    read_only = fo.solve(dense(), fo.MaxFlow()).flow
    again = certified(dense(), fo.MaxFlow(), fo.MaxFlow(), read_only, None, "t", {}, in_place=True)
    assert again.status is fo.Status.OPTIMAL


@pytest.mark.parametrize(("unit", "mu"), [(1.0, 1e-3), (0.7, 1e-4), (0.3, 1e-2), (1e30, 1e-3)])
def test_the_bound_holds_down_to_rounding(unit, mu):
    """Against 50 digits: every edge carries the root of 1 + 3 mu (1/x - 1/(u - x)) = 0."""
    from decimal import Decimal, getcontext

    getcontext().prec = 50
    solution = fo.solve(fo.FlowNetwork.layered(np.full((3, 4, 4), unit)), fo.LogBarrier(mu=mu))
    u, weight = Decimal(unit), 3 * Decimal(solution.resolved.absolute_mu)
    # x (u - x) + weight (u - 2 x) = 0
    b = u - 2 * weight
    exact = 4 * (b + (b * b + 4 * weight * u).sqrt()) / 2
    for score, bound in zip(
        solution.attributions, solution.certificate.attribution_error, strict=True
    ):
        assert abs(Decimal(float(score)) - exact) <= Decimal(float(bound))
        assert bound < 1e-13 * score


def test_the_rounding_check_can_fail(monkeypatch):
    """Sabotage: without its rounding term the bound is below the spacing of the floats."""
    monkeypatch.setattr(certify, "_with_rounding", lambda net, bound, flow, value: bound)
    solution = fo.solve(fo.FlowNetwork.layered(np.full((3, 4, 4), 0.7)), fo.LogBarrier(mu=1e-4))
    assert (solution.certificate.attribution_error < np.spacing(solution.attributions)).any()


@pytest.mark.parametrize("barrier", [fo.LogBarrier(mu=1e-3), fo.LogBarrier(gap=0.05)])
def test_attribution_error_reads_through_unlimited_nodes(barrier: fo.LogBarrier) -> None:
    """A player reached by an unlimited edge alone is bounded by the limited ones above it."""
    blocks = [fo.Block("b", "a", [[1.0, 0.5], [0.3, 0.7]])]
    ends = {"sources": {"b": [0, 1]}, "sinks": {"a": [0, 1]}}
    net = fo.FlowNetwork({"b": 2, "a": 2}, blocks, node_capacity={"a": [np.inf] * 2}, **ends)
    exact = fo.solve(fo.FlowNetwork({"b": 2, "a": 2}, blocks, **ends), barrier)
    near = exact.flow + 1e-6
    flow = np.concatenate([near, near.reshape(2, 2).sum(axis=0)])
    found = certified(net, barrier, barrier.resolve(net), flow, None, "test", {})
    apart = np.abs(found.attributions - exact.attributions)
    error = found.certificate.attribution_error
    assert error is not None
    assert (apart > 1e-8).all()
    assert (apart <= error).all()
    assert (error < 1e-2).all()


def test_a_source_without_paths_does_not_spoil_the_return_edge() -> None:
    capacity = np.array([[0.6, 0.8], [0.7, 0.9], [0.0, 0.0]])
    ends = {"sinks": {"a": [0, 1]}, "return_capacity": 1.0}
    parts = ({"b": 3, "a": 2}, [fo.Block("b", "a", capacity)])
    alone = fo.solve(fo.FlowNetwork(*parts, sources={"b": [0, 1]}, **ends), fo.LogBarrier(0.01))
    found = fo.solve(fo.FlowNetwork(*parts, sources={"b": [0, 1, 2]}, **ends), fo.LogBarrier(0.01))
    assert found.certificate.gap < 1e-12
    np.testing.assert_allclose(found.attributions, alone.attributions, rtol=1e-9)
