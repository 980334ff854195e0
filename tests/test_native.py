"""The native barrier solver: range, precision, invariances, and limits."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowopt as fo
from flowopt.certificate import certified


def agf_like(layers, t, seed, heads=4, spread=0.0):
    """Capacities like head-averaged positive attention x gradient; `spread` decades of scale."""
    rng = np.random.default_rng(seed)
    attention = rng.dirichlet(np.full(t, 0.3), size=(layers, heads, t))
    capacity = np.maximum(attention * rng.normal(size=attention.shape), 0).mean(axis=1)
    return capacity * 10 ** rng.uniform(-spread, 0, size=capacity.shape)


def native(capacity, objective, **options):
    return fo.solve(fo.FlowNetwork.layered(capacity, **options), objective, "native")


@pytest.mark.parametrize("mu", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8])
@pytest.mark.parametrize(("layers", "t"), [(1, 1), (1, 7), (3, 1), (4, 12), (12, 40), (48, 5)])
def test_certified_over_the_range_of_mu(layers, t, mu):
    solution = native(agf_like(layers, t, seed=layers + t), fo.LogBarrier(mu=mu))
    assert solution.status is fo.Status.OPTIMAL
    if not solution.network.graph.empty:
        assert solution.certificate.delta < 1e-6
        assert solution.certificate.attribution_error.max() < 1e-7 * solution.value
        assert (
            solution.value + 1e-12
            >= solution.max_flow
            - 2 * solution.network.graph.finite_edges * (solution.resolved.absolute_mu)
        )


@pytest.mark.parametrize("mu", [1e-2, 1e-4, 1e-6])
def test_capacities_over_twelve_orders_of_magnitude(mu):
    solution = native(agf_like(6, 16, seed=1, spread=12), fo.LogBarrier(mu=mu))
    assert solution.status is fo.Status.OPTIMAL
    assert solution.certificate.delta < 1e-5


def test_a_gap_is_kept_whatever_the_size():
    for t in (4, 16, 48):
        solution = native(agf_like(6, t, seed=t), fo.LogBarrier(gap=0.05))
        assert 0.95 * solution.max_flow <= solution.value <= solution.max_flow * (1 + 1e-9)


@given(st.integers(0, 10_000), st.sampled_from([1e-2, 1e-4, 1e-6]), st.floats(1e-9, 1e9))
@settings(max_examples=40, deadline=None)
def test_scale_covariance(seed, mu, factor):
    capacity = agf_like(3, 6, seed)
    one = native(capacity, fo.LogBarrier(mu=mu))
    other = native(capacity * factor, fo.LogBarrier(mu=mu))
    np.testing.assert_allclose(
        other.attributions / factor, one.attributions, atol=1e-7 * max(one.value, 1e-300)
    )


@given(st.integers(0, 10_000), st.sampled_from([1e-2, 1e-4, 1e-6]))
@settings(max_examples=40, deadline=None)
def test_permutation_equivariance(seed, mu):
    rng = np.random.default_rng(seed)
    capacity = agf_like(3, 6, seed)
    orders = [rng.permutation(6) for _ in range(4)]
    shuffled = np.stack([capacity[k][np.ix_(orders[k + 1], orders[k])] for k in range(3)])
    one = native(capacity, fo.LogBarrier(mu=mu))
    other = native(shuffled, fo.LogBarrier(mu=mu))
    np.testing.assert_allclose(
        other.attributions, one.attributions[orders[0]], atol=1e-7 * max(one.value, 1e-300)
    )


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_value_rises_to_the_maximum_as_mu_falls(seed):
    net = fo.FlowNetwork.layered(agf_like(3, 6, seed))
    values = [
        fo.solve(net, fo.LogBarrier(mu=mu), "native").value for mu in (1e-2, 1e-3, 1e-5, 1e-7)
    ]
    unit = net.graph.largest_capacity
    assert all(low <= high + 1e-9 * unit for low, high in pairwise(values))
    assert net.max_flow - values[-1] <= 2 * net.graph.finite_edges * 1e-7 * unit + 1e-9 * unit


def test_barrier_tends_to_the_centre_of_the_maximum_flows():
    # two tokens behind one unit bottleneck: by symmetry the analytic centre splits evenly
    capacity = np.zeros((2, 2, 2))
    capacity[1, 0, 0] = 1
    capacity[0, 0] = [1, 1]
    solution = native(capacity, fo.LogBarrier(mu=1e-8), sources=[0])
    np.testing.assert_allclose(solution.attributions, [0.5, 0.5], atol=1e-6)


def test_warm_start_takes_fewer_steps():
    net = fo.FlowNetwork.layered(agf_like(6, 20, seed=3))
    cold = fo.solve(net, fo.LogBarrier(mu=1e-3), "native")
    warm = fo.solve(net, fo.LogBarrier(mu=1e-3), "native", start=cold)
    assert warm.stats["iterations"] < cold.stats["iterations"]
    np.testing.assert_allclose(warm.attributions, cold.attributions, atol=1e-9 * cold.value)


def test_an_undeserved_slack_is_not_trusted():
    net = fo.FlowNetwork.layered(agf_like(3, 6, seed=4))
    objective = fo.LogBarrier(mu=1e-3)
    good = fo.solve(net, objective, "native")
    resolved = good.resolved
    slack = np.full_like(good.flow, 0.5)
    again = certified(net, objective, resolved, good.flow, good.potential, "x", {}, slack)
    assert again.certificate.delta == pytest.approx(good.certificate.delta, abs=1e-6)


@pytest.mark.parametrize("shift", [1e-3, 1e-1])
def test_a_wrong_answer_is_caught(shift):
    """Sabotage: potentials and flows moved off the optimum must cost them the proof."""
    net = fo.FlowNetwork.layered(agf_like(3, 6, seed=5))
    objective = fo.LogBarrier(mu=1e-4)
    good = fo.solve(net, objective, "native")
    rng = np.random.default_rng(0)
    flow = good.flow * (1 + shift * rng.uniform(-1, 1, size=good.flow.shape))
    bad = certified(net, objective, good.resolved, flow, good.potential, "sabotage", {})
    error = np.abs(bad.attributions - good.attributions).max()
    assert error > 1e-6 * good.value
    assert bad.status is not fo.Status.OPTIMAL or (
        bad.certificate.attribution_error.max() >= error * 0.5
    )
