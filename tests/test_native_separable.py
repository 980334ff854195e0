"""The native solver for Quadratic and Entropy, and the bounds that certify it."""

import networks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowopt as fo
from flowopt.certificate import certified
from flowopt.certificate.separable import edge_shortfall, finite_reading
from flowopt.solvers.native import clipped, clipped_kernels
from flowopt.solvers.native.system import System

OBJECTIVES = (fo.Quadratic, fo.Entropy)
REFUSED = ("mixed_terminals", "parallel_links")
SOLVED = [name for name in networks.FAMILIES if name not in REFUSED]


def agf_like(layers, t, seed, heads=4, spread=0.0):
    """Capacities like head-averaged positive attention x gradient; `spread` decades of scale."""
    rng = np.random.default_rng(seed)
    attention = rng.dirichlet(np.full(t, 0.3), size=(layers, heads, t))
    capacity = np.maximum(attention * rng.normal(size=attention.shape), 0).mean(axis=1)
    return capacity * 10 ** rng.uniform(-spread, 0, size=capacity.shape)


def proved(solution, gap=1e-10, error=1e-5):
    assert solution.status is fo.Status.OPTIMAL
    assert solution.stats["message"] == "converged"
    assert solution.certificate.gap <= gap
    assert solution.certificate.attribution_error.max() <= error * solution.value


# --- the range -----------------------------------------------------------------------------------
@pytest.mark.parametrize("weight", [10, 1, 0.1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", SOLVED)
def test_certified_on_every_family(family, objective, weight):
    proved(fo.solve(networks.FAMILIES[family](), objective(weight), "native"))


@pytest.mark.parametrize("weight", [10, 0.1, 1e-2, 1e-4])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_capacities_over_ten_orders_of_magnitude(objective, weight):
    for seed in range(3):
        net = fo.FlowNetwork.layered(agf_like(6, 16, seed, spread=10))
        proved(fo.solve(net, objective(weight), "native"))


@pytest.mark.parametrize("weight", [1, 1e-2, 1e-4])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_causal_support_with_many_zeros(objective, weight):
    capacity = np.tril(agf_like(8, 40, seed=1, heads=1))
    proved(fo.solve(fo.FlowNetwork.layered(capacity, sources=-1), objective(weight), "native"))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_large_networks(objective):
    net = fo.FlowNetwork.layered(agf_like(4, 200, seed=2))
    proved(fo.solve(net, objective(0.1)))


def test_native_is_preferred_and_says_what_it_refuses():
    for objective in OBJECTIVES:
        assert fo.solve(networks.dense(), objective(0.1)).solver == "native"
        assert fo.solve(networks.parallel_links(), objective(0.1)).solver == "CLARABEL"
    net = networks.dense()
    flow = fo.solve(net, fo.MaxFlow(), "native")  # the limit of all of them
    assert flow.status == "optimal"
    assert flow.value == pytest.approx(net.max_flow, rel=1e-12)
    with pytest.raises(fo.UnsupportedError, match="made for"):
        fo.solve(networks.dense(), fo.ProportionalFair(), "native")


# --- other solvers and limits --------------------------------------------------------------------
@pytest.mark.parametrize("weight", [1, 0.1, 1e-2, 1e-3])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", SOLVED)
def test_agrees_with_clarabel(family, objective, weight):
    net = networks.FAMILIES[family]()
    ours = fo.solve(net, objective(weight), "native")
    theirs = fo.solve(net, objective(weight), "CLARABEL", throw=False)
    if theirs.status is not fo.Status.OPTIMAL:
        return
    apart = np.abs(ours.attributions - theirs.attributions)
    # two certified answers to one problem: the bounds must overlap, whatever the solvers did
    bound = ours.certificate.attribution_error + theirs.certificate.attribution_error
    assert (apart <= bound + 1e-12 * ours.value).all()
    if theirs.certificate.gap < 1e-9:
        assert apart.max() <= max(1e-5 * ours.value, bound.max())
    assert abs(ours.objective_value - theirs.objective_value) <= 2e-6 * ours.value


def test_most_comparisons_with_clarabel_were_close():
    """The test above is not passed by wide bounds alone."""
    close = 0
    for family in ("dense", "half_zeros", "causal", "encoder_decoder", "node_capacities"):
        for objective in OBJECTIVES:
            net = networks.FAMILIES[family]()
            ours = fo.solve(net, objective(0.1), "native")
            theirs = fo.solve(net, objective(0.1), "CLARABEL", throw=False)
            apart = np.abs(ours.attributions - theirs.attributions).max()
            close += apart <= 1e-5 * ours.value
    assert close >= 9


@pytest.mark.parametrize("family", ["dense", "half_zeros", "causal", "node_capacities"])
def test_small_rho_gives_the_maximum_flow_of_least_norm(family):
    net = networks.FAMILIES[family]()
    one = fo.solve(net, fo.Quadratic(1e-3), "native")
    other = fo.solve(net, fo.Quadratic(1e-4), "native")
    assert one.value == pytest.approx(net.max_flow, rel=1e-9)
    np.testing.assert_allclose(one.attributions, other.attributions, atol=1e-8 * one.value)
    # no maximum flow has a smaller norm: not the one a maximum flow solver returns, nor mixtures
    kept = net.edges.index
    finite = np.isfinite(net.capacity)
    u = net.capacity[finite]
    least = one.flow[kept][finite]
    some = fo.solve(net, fo.MaxFlow()).flow[kept][finite]
    for share in (1e-3, 0.1, 1.0):
        mixed = least + share * (some - least)
        assert (mixed**2 / u).sum() >= (least**2 / u).sum() * (1 - 1e-9)


def test_a_hand_computed_optimum():
    # one unit edge into two: |f| - rho/2 (f^2 + 2 (f/2)^2) is largest at f = min(1, 2/(3 rho))
    capacity = np.zeros((2, 2, 2))
    capacity[1, 0, 0] = 1
    capacity[0, 0] = [1, 1]
    net = fo.FlowNetwork.layered(capacity, sources=[0])
    for rho in (0.1, 0.5, 1.0, 4.0):
        best = min(1.0, 2 / (3 * rho))
        solution = fo.solve(net, fo.Quadratic(rho), "native")
        np.testing.assert_allclose(solution.attributions, [best / 2] * 2, rtol=1e-12)
    # entropy: 1 = tau (log f + 1) + tau (log(f/2) + 1), so f = sqrt(2) exp(1/(2 tau) - 1)
    for tau in (0.5, 1.0, 4.0):
        best = min(1.0, np.sqrt(2) * np.exp(1 / (2 * tau) - 1))
        solution = fo.solve(net, fo.Entropy(tau), "native")
        np.testing.assert_allclose(solution.attributions, [best / 2] * 2, rtol=1e-12)


# --- invariances ---------------------------------------------------------------------------------
WEIGHTS = st.sampled_from([10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4])


@given(networks.layered_networks(), st.sampled_from(OBJECTIVES), WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_any_small_network_is_certified(net, objective, weight):
    solution = fo.solve(net, objective(weight), "native" if not net.graph.empty else None)
    assert solution.status is fo.Status.OPTIMAL
    assert solution.certificate.gap <= 1e-10


@given(networks.extreme_networks(decades=8), st.sampled_from(OBJECTIVES), WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_any_network_of_groups_links_and_limits_is_certified(net, objective, weight):
    if net.graph.contractible:
        solution = fo.solve(net, objective(weight))
        assert solution.status is fo.Status.OPTIMAL
        assert solution.solver in ("native", "none")


@given(st.integers(0, 10_000), st.sampled_from(OBJECTIVES), WEIGHTS, st.floats(1e-9, 1e9))
@settings(max_examples=40, deadline=None)
def test_scale_covariance(seed, objective, weight, factor):
    capacity = agf_like(3, 6, seed)
    one = fo.solve(fo.FlowNetwork.layered(capacity), objective(weight))
    other = fo.solve(fo.FlowNetwork.layered(capacity * factor), objective(weight))
    np.testing.assert_allclose(
        other.attributions / factor, one.attributions, atol=1e-8 * max(one.value, 1e-300)
    )


@given(st.integers(0, 10_000), st.sampled_from(OBJECTIVES), WEIGHTS)
@settings(max_examples=40, deadline=None)
def test_permutation_equivariance(seed, objective, weight):
    rng = np.random.default_rng(seed)
    capacity = agf_like(3, 6, seed)
    orders = [rng.permutation(6) for _ in range(4)]
    shuffled = np.stack([capacity[k][np.ix_(orders[k + 1], orders[k])] for k in range(3)])
    one = fo.solve(fo.FlowNetwork.layered(capacity), objective(weight))
    other = fo.solve(fo.FlowNetwork.layered(shuffled), objective(weight))
    np.testing.assert_allclose(
        other.attributions, one.attributions[orders[0]], atol=1e-8 * max(one.value, 1e-300)
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_warm_start_takes_fewer_steps(objective):
    net = fo.FlowNetwork.layered(agf_like(6, 20, seed=3))
    cold = fo.solve(net, objective(0.1), "native")
    warm = fo.solve(net, objective(0.1), "native", start=cold)
    assert warm.stats["path_steps"] == 0
    assert warm.stats["iterations"] < cold.stats["iterations"]
    np.testing.assert_allclose(warm.attributions, cold.attributions, atol=1e-9 * cold.value)
    far = fo.solve(net, objective(1e-4), "native", start=cold)  # useless, not harmful
    proved(far)


# --- the bounds ----------------------------------------------------------------------------------
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shortfall_is_the_duality_gap_of_an_edge(objective):
    rng = np.random.default_rng(0)
    u = 10.0 ** rng.uniform(-3, 3, 2000)
    f = u * rng.uniform(0, 1, 2000) * (rng.random(2000) > 0.1)
    r = rng.normal(size=2000)
    for weight in (0.01, 0.3, 5.0):
        made = objective(weight)
        best = made.edge_best(r, u)
        plain = r * (best - f) + made.edge_value(best, u) - made.edge_value(f, u)
        found = edge_shortfall(made, f, u, r)
        np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12 * u.max())
        assert (found >= 0).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shortfall_keeps_its_precision(objective):
    made = objective(0.3)
    r = np.linspace(-0.2, 0.25, 50)
    u = np.full(50, 2.0)
    best = made.edge_best(r, u)
    inside = (best > 0) & (best < u)
    for shift in (1e-3, 1e-6, 1e-9):
        found = edge_shortfall(made, best * (1 + shift), u, r)[inside]
        curvature = made.modulus * best / (u if objective is fo.Quadratic else best)
        expected = (curvature * best * shift**2 / 2)[inside]
        np.testing.assert_allclose(found, expected, rtol=2e-3 + 1e-15 / shift * 1e3)


@given(st.integers(0, 10_000), st.sampled_from(OBJECTIVES), st.sampled_from([1.0, 0.1, 1e-2]))
@settings(max_examples=60, deadline=None)
def test_attribution_error_holds_for_any_flow_and_potentials(seed, objective, weight):
    rng = np.random.default_rng(seed)
    net = fo.FlowNetwork.layered(rng.uniform(0, 1, (3, 4, 4)) * (rng.random((3, 4, 4)) < 0.8))
    best = fo.solve(net, objective(weight))
    for size in (1e-6, 1e-3, 0.3):
        flow = best.flow * (1 + size * rng.uniform(-1, 1, best.flow.shape))
        y = best.potential + size * rng.normal(size=best.potential.shape)
        bad = certified(net, objective(weight), objective(weight), flow, y, "sabotage", {})
        error = np.abs(bad.attributions - best.attributions)
        assert (error <= bad.certificate.attribution_error + 1e-12 * best.value + 1e-300).all()
        lost = best.objective_value - bad.objective_value
        assert lost <= bad.certificate.gap * bad.value + 1e-12 * best.value


def test_the_bound_is_not_idle():
    """Where no flow is clipped it is within a factor of thirty of the true error."""
    rng = np.random.default_rng(1)
    net = fo.FlowNetwork.layered(rng.uniform(0.1, 1, (3, 4, 4)))
    for objective in OBJECTIVES:
        best = fo.solve(net, objective(5.0))
        assert (best.flow < 0.99 * net.graph.capacity).all()
        flow = best.flow * (1 + 1e-4 * rng.uniform(-1, 1, best.flow.shape))
        bad = certified(net, objective(5.0), objective(5.0), flow, best.potential, "sabotage", {})
        error = np.abs(bad.attributions - best.attributions).max()
        assert bad.certificate.attribution_error.max() <= 30 * error


def test_readings_avoid_unlimited_links():
    for family in ("encoder_decoder", "dense", "node_capacities"):
        net = networks.FAMILIES[family]()
        reading, known = finite_reading(net)
        assert known.all()
        solution = fo.solve(net, fo.Quadratic(0.1))
        flow = solution.flow[net.edges.index]
        np.testing.assert_allclose(reading @ flow, solution.attributions, rtol=1e-12, atol=1e-14)
    # sinks below an unlimited link: read where the flow is limited
    net = fo.FlowNetwork(
        {"c": 2, "b": 2, "a": 2},
        [fo.Block("c", "b", np.array([[1.0, 2.0], [0.5, 1.0]]))],
        [fo.Link("b", "a", [(0, 0), (1, 1)])],
        sources={"c": [0, 1]},
        sinks={"a": [0, 1]},
    )
    solution = fo.solve(net, fo.Quadratic(0.5), "native")
    reading, known = finite_reading(net)
    assert known.all()
    assert not reading[:, np.isinf(net.capacity)].sum()
    np.testing.assert_allclose(reading @ solution.flow[net.edges.index], solution.attributions)
    # one limited edge feeds two sinks without limit: nothing decides between them
    net = fo.FlowNetwork(
        {"c": 1, "b": 1, "a": 2},
        [fo.Block("c", "b", np.array([[1.0]]))],
        [fo.Link("b", "a", [(0, 0), (0, 1)])],
        sources={"c": [0]},
        sinks={"a": [0, 1]},
    )
    assert not finite_reading(net)[1].any()


# --- sabotage ------------------------------------------------------------------------------------
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_are_the_derivatives_of_the_flows(objective):
    """The compiled weight against differences of the compiled flow; a wrong one is caught."""
    net = fo.FlowNetwork.layered(agf_like(2, 5, seed=7))
    system = System(net.graph)
    system.weight = np.empty(len(system.capacity))
    term = clipped.EdgeFunction.of(objective(1.0))
    x = np.linspace(0.4, 0.6, system.size)
    direction = np.random.default_rng(0).normal(size=system.size)

    def mismatch(gradient):
        base = gradient(x)
        predicted = system.image(direction)
        assert base.shape == predicted.shape
        step = 1e-6
        change = (gradient(x + step * direction) - gradient(x - step * direction)) / (2 * step)
        return np.abs(change - predicted).max() / np.abs(predicted).max()

    assert mismatch(term.gradient(system)) < 1e-6
    wrong = clipped.EdgeFunction(
        clipped_kernels.ENTROPY if objective is fo.Quadratic else clipped_kernels.QUADRATIC, 1.0
    )

    def sabotaged(x):
        found = term.gradient(system)(x)
        wrong.gradient(system)(x)  # leaves its own weights behind
        return found

    assert mismatch(sabotaged) > 1e-2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_solver_of_another_problem_is_caught(objective):
    net = fo.FlowNetwork.layered(agf_like(3, 6, seed=5))
    other = fo.solve(net, objective(2.2), "native")
    claimed = certified(
        net, objective(2.0), objective(2.0), other.flow, other.potential, "sabotage", {}
    )
    best = fo.solve(net, objective(2.0), "native")
    assert np.abs(best.attributions - other.attributions).max() > 1e-6 * best.value
    assert claimed.status is fo.Status.INACCURATE
    assert (
        np.abs(best.attributions - other.attributions) <= claimed.certificate.attribution_error
    ).all()
