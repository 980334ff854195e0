"""Objectives: expressions, closed forms, facts, and objectives of a researcher's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import FAMILIES, agf_capacities, dense, gaf, half_zeros, parallel_links

import flowopt as fo


def costs(net):
    return fo.MinCost(np.linspace(0, 0.6, net.n_players))


OBJECTIVES = {
    "MaxFlow": lambda net: fo.MaxFlow(),
    "LogBarrier": lambda net: fo.LogBarrier(mu=1e-2),
    "LogBarrier-gap": lambda net: fo.LogBarrier(gap=0.05),
    "Quadratic": lambda net: fo.Quadratic(0.1),
    "Entropy": lambda net: fo.Entropy(0.1),
    "MinCost": costs,
    "ProportionalFair": lambda net: fo.ProportionalFair(),
    "MaxMinFair": lambda net: fo.MaxMinFair(),
}


def interior_flow(net):
    """A feasible flow over the kept edges, strictly between the bounds."""
    return fo.solve(net, fo.LogBarrier(mu=0.1)).flow[net.edges.index]


# --- the expression says what evaluate says ----------------------------------------------------
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_expression_and_evaluate_agree(family, objective):
    net = FAMILIES[family]()
    resolved = OBJECTIVES[objective](net).resolve(net)
    flow = interior_flow(net)
    expression = resolved.expression(cp.Constant(flow), net)
    value = resolved.evaluate(net, flow)
    assert float(expression.value) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert expression.is_concave()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_is_the_derivative(objective):
    net = half_zeros()
    resolved = OBJECTIVES[objective](net).resolve(net)
    flow = interior_flow(net)
    gradient = resolved.gradient(net, flow)
    for edge in range(0, len(flow), 7):
        step = 1e-4 * min(flow[edge], net.capacity[edge] - flow[edge])
        ahead, behind = flow.copy(), flow.copy()
        ahead[edge] += step
        behind[edge] -= step
        slope = (resolved.evaluate(net, ahead) - resolved.evaluate(net, behind)) / (2 * step)
        assert gradient[edge] == pytest.approx(slope, rel=1e-5, abs=1e-6)


@given(
    st.sampled_from(["MaxFlow", "LogBarrier", "Quadratic", "Entropy"]),
    st.floats(-3, 3),
    st.floats(1e-3, 1e3),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_edge_best_is_the_argmax(name, price, capacity):
    objective = OBJECTIVES[name](dense()).resolve(dense())
    u = np.array([capacity])
    best = objective.edge_best(np.array([price]), u)
    assert 0 <= best[0] <= capacity
    # fine near the ends, where the barrier's optimum may lie
    grid = np.r_[np.geomspace(1e-12, 0.5, 400), 1 - np.geomspace(1e-12, 0.5, 400)] * capacity
    values = objective.edge_value(grid, np.full(len(grid), capacity)) + price * grid
    reached = objective.edge_value(best, u)[0] + price * best[0]
    assert reached >= values.max() - 1e-9 * (1 + abs(values.max()))


# --- facts -------------------------------------------------------------------------------------
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("factor", [1e-6, 1e5])
def test_scale_covariance_is_as_stated(objective, factor):
    net = half_zeros()
    asked = OBJECTIVES[objective](net)
    assert asked.facts.scale_covariant
    one, other = fo.solve(net, asked), fo.solve(net.scaled(factor), asked)
    assert other.value == pytest.approx(factor * one.value, rel=1e-7)
    if asked.facts.unique_attributions:
        tolerance = 1e-6 * one.value
        np.testing.assert_allclose(other.attributions / factor, one.attributions, atol=tolerance)


def test_an_absolute_barrier_rescales_its_mu():
    net, factor = half_zeros(), 1e3
    objective = fo.LogBarrier(mu=1e-4, relative=False)
    one = fo.solve(net, objective)
    other = fo.solve(net.scaled(factor), objective.rescaled(factor))
    np.testing.assert_allclose(other.attributions / factor, one.attributions, rtol=1e-9)
    unscaled = fo.solve(net.scaled(factor), objective)
    assert np.abs(unscaled.attributions / factor - one.attributions).max() > 1e-3 * one.value


@pytest.mark.parametrize("name", ["LogBarrier", "Quadratic", "Entropy", "ProportionalFair"])
def test_unique_attributions_do_not_depend_on_the_order_of_edges(name):
    capacities = agf_capacities(3, 6, 0)
    permutation = np.random.default_rng(1).permutation(6)
    net = fo.FlowNetwork.layered(capacities)
    relabelled = fo.FlowNetwork.layered(capacities[:, permutation][:, :, permutation])
    objective = OBJECTIVES[name](net)
    assert objective.facts.unique_attributions
    one, other = fo.solve(net, objective), fo.solve(relabelled, objective)
    np.testing.assert_allclose(
        other.attributions, one.attributions[permutation], atol=1e-6 * one.value
    )
    if objective.facts.unique_flow:
        for mine, theirs in zip(one.flows, other.flows, strict=True):
            expected = mine[permutation][:, permutation]
            np.testing.assert_allclose(theirs, expected, atol=1e-4 * one.value)


def test_maximum_flow_alone_is_not_unique():
    """Two tokens behind one unit bottleneck: every split is a maximum flow (method section 8)."""
    net = fo.FlowNetwork(
        {"top": 1, "in": 2},
        [fo.Block("top", "in", [[1.0, 1.0]])],
        sources={"top": [0]},
        sinks={"in": [0, 1]},
        node_capacity={"top": [1.0]},
    )
    assert not fo.MaxFlow().facts.unique_attributions
    left = fo.solve(net, fo.MinCost([0.0, 0.1]))
    right = fo.solve(net, fo.MinCost([0.1, 0.0]))
    np.testing.assert_allclose(left.attributions, [1, 0], atol=1e-9)
    np.testing.assert_allclose(right.attributions, [0, 1], atol=1e-9)
    for objective in (fo.LogBarrier(), fo.Quadratic(), fo.Entropy(), fo.ProportionalFair()):
        share = fo.solve(net, objective).attributions
        assert share[0] == pytest.approx(share[1], rel=1e-5)


# --- parameters --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fo.LogBarrier(mu=0.0), "mu must be a positive"),
        (lambda: fo.LogBarrier(mu=np.nan), "mu must be a positive"),
        (lambda: fo.LogBarrier(gap=-1.0), "gap must be a positive"),
        (lambda: fo.LogBarrier(mu=1.0, gap=0.1), "either mu or gap"),
        (lambda: fo.LogBarrier(gap=0.1, relative=False), "relative"),
        (lambda: fo.Quadratic(0), "rho must be a positive"),
        (lambda: fo.Quadratic("much"), "rho must be a positive"),
        (lambda: fo.Entropy(np.inf), "tau must be a positive"),
        (lambda: fo.MinCost([np.nan, 1]), "finite costs"),
        (lambda: fo.MinCost("cheap"), "array of costs"),
        (lambda: fo.MinCost(3.0), "array of costs"),
    ],
)
def test_bad_parameters_are_refused(make, words):
    with pytest.raises(fo.InputError, match=words):
        make()


def test_costs_must_fit_the_network():
    with pytest.raises(fo.InputError, match="2 token costs for 5 players"):
        fo.solve(dense(), fo.MinCost([0.0, 1.0]))
    with pytest.raises(fo.InputError, match="one array per block"):
        fo.solve(dense(), fo.MinCost(np.zeros((3, 4, 4))))


def test_a_barrier_must_be_resolved_before_its_mu_is_read():
    with pytest.raises(fo.InputError, match="resolve"):
        _ = fo.LogBarrier(mu=0.1).absolute_mu


# --- what the optima are -----------------------------------------------------------------------
def test_the_barrier_of_one_edge_by_hand():
    """|f| + mu (log f + log(1 - f)) has f = (1 - 2 mu + sqrt(1 + 4 mu^2)) / 2."""
    for mu in (1e-4, 1e-2, 1.0):
        solution = fo.solve(fo.FlowNetwork.layered([[[1.0]]]), fo.LogBarrier(mu=mu))
        expected = (1 - 2 * mu + np.sqrt(1 + 4 * mu**2)) / 2
        assert solution.value == pytest.approx(expected, rel=1e-12)


def test_a_barrier_given_by_its_gap_stays_within_it():
    for family in FAMILIES.values():
        net = family()
        solution = fo.solve(net, fo.LogBarrier(gap=0.05))
        assert 0.95 * net.max_flow <= solution.value <= net.max_flow


@pytest.mark.parametrize("family", ["dense", "half_zeros", "cls_only", "node_capacities"])
def test_a_small_rho_gives_the_maximum_flow_of_least_norm(family):
    net = FAMILIES[family]()
    solution = fo.solve(net, fo.Quadratic(1e-3))
    assert solution.value == pytest.approx(net.max_flow, rel=1e-7)
    flow = cp.Variable(len(net.capacity), nonneg=True)
    finite = np.flatnonzero(np.isfinite(net.capacity))
    norm = cp.sum_squares(cp.multiply(1 / np.sqrt(net.capacity[finite]), flow[finite]))
    problem = cp.Problem(
        cp.Minimize(norm),
        [
            net.incidence() @ flow == 0,
            flow[finite] <= net.capacity[finite],
            net.value(flow) == net.max_flow,
        ],
    )
    problem.solve(solver="CLARABEL")
    np.testing.assert_allclose(
        solution.attributions, net.inflow(flow.value), atol=1e-3 * net.max_flow
    )


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "mixed_terminals"], ids=str)
def test_proportional_and_max_min_fairness_coincide(family):
    """And they attain the maximum flow (method.md section 8c)."""
    net = FAMILIES[family]()
    one, other = fo.solve(net, fo.ProportionalFair()), fo.solve(net, fo.MaxMinFair())
    assert one.value == pytest.approx(net.max_flow, rel=1e-9)
    np.testing.assert_allclose(one.attributions, other.attributions, rtol=1e-7)
    least_norm = fo.solve(net, fo.ProportionalFair(), "CLARABEL", throw=False)
    np.testing.assert_allclose(least_norm.attributions, one.attributions, atol=1e-4 * one.value)


def test_max_min_fairness_by_hand():
    """Tokens 0, 1 share 1 unit, token 2 has 5 of its own: levels 1/2, 1/2, 5."""
    net = fo.FlowNetwork(
        {"top": 2, "in": 3},
        [fo.Block("top", "in", [[1.0, 1.0, 0.0], [0.0, 0.0, 5.0]])],
        sources={"top": [0, 1]},
        sinks={"in": range(3)},
        node_capacity={"top": [1.0, np.inf]},
    )
    for objective in (fo.MaxMinFair(), fo.ProportionalFair()):
        np.testing.assert_allclose(fo.solve(net, objective).attributions, [0.5, 0.5, 5.0])


def test_min_cost_shifts_flow_away_from_dear_tokens_and_edges():
    net = dense()
    plain = fo.solve(net, fo.MinCost(np.zeros(5)))
    assert plain.value == pytest.approx(net.max_flow)
    dear = fo.solve(net, fo.MinCost([2.0, 0, 0, 0, 0]))
    assert dear.attributions[0] == pytest.approx(0, abs=1e-9)
    per_edge = np.zeros((3, 5, 5))
    per_edge[0, :, 0] = 2.0  # the same, said by edges
    edges = fo.solve(net, fo.MinCost(per_edge))
    assert edges.objective_value == pytest.approx(dear.objective_value, rel=1e-9)


def test_costs_on_unlimited_links_are_priced():
    net = parallel_links()
    for solver in ("HIGHS", "CLARABEL"):
        solution = fo.solve(net, fo.MinCost([0.0, 0.1, 0.9]), solver)
        assert solution.status is fo.Status.OPTIMAL


# --- a researcher's own objectives -------------------------------------------------------------
class LeastSquares(fo.Objective):
    """A few lines: an expression is enough."""

    def expression(self, flow: Any, net: fo.FlowNetwork) -> Any:
        return net.value(flow) - 0.05 * cp.sum_squares(flow)


@dataclass(frozen=True)
class Capped(fo.Objective):
    """With constraints of its own."""

    limit: float = 0.1

    def expression(self, flow: Any, net: fo.FlowNetwork) -> Any:
        return net.value(flow)

    def constraints(self, flow: Any, net: fo.FlowNetwork) -> list[Any]:
        return [net.inflow(flow) <= self.limit]


class Convex(fo.Objective):
    def expression(self, flow: Any, net: fo.FlowNetwork) -> Any:
        return cp.sum_squares(flow)


class Logarithm(fo.Objective):
    def expression(self, flow: Any, net: fo.FlowNetwork) -> Any:
        return cp.sum(cp.log(1 + flow))


class Weakest(fo.Objective):
    """Not differentiable: the least inflow of a token."""

    def expression(self, flow: Any, net: fo.FlowNetwork) -> Any:
        return cp.min(net.inflow(flow))


@pytest.mark.parametrize("family", ["dense", "gaf", "encoder_decoder", "return_limited"])
@pytest.mark.parametrize("own", [LeastSquares(), Logarithm()], ids=lambda o: type(o).__name__)
def test_an_own_objective_is_certified_by_frank_wolfe(family, own):
    net = FAMILIES[family]()
    solution = fo.solve(net, own)
    assert solution.status is fo.Status.OPTIMAL
    assert solution.certificate.method == "Frank-Wolfe"
    assert solution.certificate.gap <= 1e-6
    other = fo.solve(net, own, "ECOS", throw=False)
    assert other.objective_value == pytest.approx(solution.objective_value, rel=1e-5)


def test_an_own_objective_that_is_written_like_a_built_in_one_agrees_with_it():
    class Same(fo.Objective):
        def expression(self, flow, net):
            return net.value(flow) - 0.05 * cp.sum(cp.square(flow) / net.capacity)

    net = half_zeros()
    own, built_in = fo.solve(net, Same()), fo.solve(net, fo.Quadratic(0.1))
    np.testing.assert_allclose(own.attributions, built_in.attributions, atol=1e-4 * own.value)


def test_constraints_of_ones_own_are_kept_and_make_the_status_feasible():
    solution = fo.solve(gaf(), Capped(1.5))
    assert solution.status is fo.Status.FEASIBLE
    assert solution.certificate.gap is None
    assert (solution.attributions <= 1.5 * (1 + 1e-6)).all()
    assert solution.value == pytest.approx(4 * 1.5, rel=1e-6)
    assert fo.solve(gaf(), Capped(1.5), "HIGHS").value == pytest.approx(6.0, rel=1e-9)


def test_an_objective_that_is_not_concave_is_refused_with_the_rules_named():
    with pytest.raises(fo.InputError, match="DCP"):
        fo.solve(dense(), Convex())
    with pytest.raises(fo.InputError, match="DCP"):
        fo.solve(dense(), Convex(), "HIGHS")


def test_backends_are_chosen_by_the_class_of_the_own_problem():
    with pytest.raises(fo.UnsupportedError, match=r"exponential-cone.*HIGHS|HIGHS.*exponential"):
        fo.solve(dense(), Logarithm(), "HIGHS")
    assert fo.solve(dense(), LeastSquares(), "OSQP", throw=False).solver == "OSQP"


def test_an_objective_with_a_kink_still_gets_an_answer():
    solution = fo.solve(dense(), Weakest(), throw=False)
    fair = fo.solve(dense(), fo.MaxMinFair())
    assert solution.objective_value == pytest.approx(fair.attributions.min(), rel=1e-6)


def test_what_is_no_objective_is_refused():
    with pytest.raises(fo.InputError, match="must be an Objective"):
        fo.solve(dense(), fo.MaxFlow)  # type: ignore[arg-type]


# --- the declarative problem -------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_cvxpy_problem_is_ordinary_and_has_the_same_optimum(family):
    net = FAMILIES[family]()
    problem = fo.FlowProblem(net, fo.Quadratic(0.1)).to_cvxpy()
    assert [variable.name() for variable in problem.variables()] == ["flow"]
    assert problem.is_qp()
    problem.solve(solver="CLARABEL", warm_start=False)
    solution = fo.FlowProblem(net, fo.Quadratic(0.1)).solve()
    assert problem.value == pytest.approx(solution.objective_value, rel=1e-5)


def test_the_cvxpy_problem_of_an_empty_network():
    problem = fo.FlowProblem(fo.FlowNetwork.layered(np.zeros((1, 2, 2)))).to_cvxpy()
    assert problem.solve(solver="CLARABEL") == pytest.approx(0)
