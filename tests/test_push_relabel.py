"""Maximum flow by waves: against other algorithms, by hand, and the proof of its value."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import FAMILIES, agf_capacities, extreme_networks, layered_networks

import flowopt as fo
from flowopt.solvers import push_relabel
from flowopt.solvers import push_relabel_kernels as kernels
from flowopt.solvers.push_relabel import PushRelabel, maximum_flow, maximum_value


def check(net, tolerance=1e-12):
    """The waves' answer, certified, against scipy's integer rounds."""
    found = fo.solve(net, fo.MaxFlow(), PushRelabel())
    other = fo.solve(net, fo.MaxFlow(), "scipy")
    assert found.status is fo.Status.OPTIMAL
    assert found.certificate.gap <= 1e-12
    assert found.value == pytest.approx(other.value, rel=tolerance)
    assert maximum_value(net) == pytest.approx(other.value, rel=tolerance)


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    check(FAMILIES[name](), 1e-11)


@given(layered_networks(max_layers=4, max_tokens=5))
@settings(max_examples=80, deadline=None)
def test_small_networks_with_ties_and_zeros(net):
    if not net.graph.empty:
        check(net)
    assert maximum_value(net) == pytest.approx(fo.solve(net, fo.MaxFlow(), "scipy").value)


@given(extreme_networks())
@settings(max_examples=60, deadline=None)
def test_links_limits_and_many_orders_of_magnitude(net):
    if not net.graph.empty:
        check(net, 1e-9)


@pytest.mark.parametrize(
    "capacity",
    [
        agf_capacities(12, 70, 0),  # more nodes than bits in a word
        np.tril(agf_capacities(6, 65, 1)),
        agf_capacities(40, 5, 2),
        np.ones((3, 64, 64)),
        np.random.default_rng(3).dirichlet(np.full(66, 0.05), size=(12, 66)),
        10 ** np.random.default_rng(4).uniform(-12, 0, (6, 20, 20)),
        np.random.default_rng(5).integers(0, 3, (8, 30, 30)).astype(float),
    ],
    ids=["agf", "causal", "deep", "ones", "peaked", "decades", "integers"],
)
def test_larger_networks(capacity):
    check(fo.FlowNetwork.layered(capacity))


def test_flow_is_taken_back_from_a_wrong_first_choice():
    # 1 -> 0 and 1 -> 1 share a source; the first choice of the upper path must be undone
    capacity = np.zeros((3, 2, 2))
    capacity[2, 0, 0], capacity[2, 1, 0] = 1, 1
    capacity[2, 0, 1] = 1
    capacity[1, 0, 0], capacity[1, 1, 1] = 1, 1
    capacity[0] = np.eye(2)
    assert maximum_value(fo.FlowNetwork.layered(capacity)) == 2.0


def test_what_rounding_leaves_over_does_not_open_the_cut():
    # 1 + 0.001 - 1 is less than 0.001, so an edge below would keep a little room
    capacity = np.zeros((4, 2, 2))
    capacity[3, 1, 0], capacity[2, 0], capacity[1, :, 1], capacity[0, :, 1] = 2, [1, 1e-3], 1, 2
    found = fo.solve(fo.FlowNetwork.layered(capacity), fo.MaxFlow(), PushRelabel())
    assert found.value == pytest.approx(1.001, rel=1e-15)
    assert found.certificate.gap <= 1e-15


def test_an_unlimited_link_below_a_source():
    net = fo.FlowNetwork(
        {"top": 1, "mid": 1, "low": 2},
        [fo.Block("mid", "low", np.array([[0.25, 0.5]]))],
        [fo.Link("top", "mid", [(0, 0)])],
        sources={"top": [0]},
        sinks={"low": [0, 1]},
    )
    found = maximum_flow(net.graph)
    np.testing.assert_array_equal(found.flow, [0.25, 0.5, 0.75])
    np.testing.assert_array_equal(found.source_side, [True, True, False, False])


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_distances_are_those_of_the_residual_network(seed):
    rng = np.random.default_rng(seed)
    net = fo.FlowNetwork.layered(rng.uniform(0.1, 1, (3, 5, 5)))
    graph = net.graph
    share = rng.choice([0.0, 0.5, 1.0], size=graph.capacity.shape, p=[0.45, 0.1, 0.45])
    flow = share * graph.capacity
    pieces = push_relabel._Pieces.of(graph)
    words = push_relabel._words(np.diff(graph.row_start))
    room, used = np.zeros(words[-1], np.uint64), np.zeros(words[-1], np.uint64)
    kernels.residual_bits(graph.capacity, flow, graph.row_start, words, room, used)
    waiting = graph.alive & ~graph.source
    found, order = kernels.distances(
        room, used, words, pieces.piece, *pieces.segments, waiting, graph.sink
    )
    tail, head = net.edges.tail, net.edges.head
    ahead, back = flow < graph.capacity, flow > 0
    pairs = np.r_[head[ahead], tail[back]], np.r_[tail[ahead], head[back]]
    inner = waiting[pairs[0]] & waiting[pairs[1]]  # from a node to those that can send to it
    n = graph.n_nodes
    matrix = sp.csr_array((np.ones(inner.sum()), (pairs[0][inner], pairs[1][inner])), shape=(n, n))
    apart = sp.csgraph.dijkstra(matrix, indices=np.flatnonzero(graph.sink), unweighted=True)
    wanted = np.where(np.isfinite(apart.min(axis=0)) & waiting, apart.min(axis=0), -1)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found[order], np.sort(found[found >= 0]))


def broken(change):
    real = maximum_flow

    def wrong(graph):
        found = real(graph)
        return change(found)

    return wrong


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f._replace(flow=0.9 * f.flow),  # not maximal
        lambda f: f._replace(flow=1.1 * f.flow),  # beyond the capacities
        lambda f: f._replace(source_side=~f.source_side),  # no cut
        lambda f: f._replace(flow=f.flow * np.linspace(0.9, 1, len(f.flow))),  # not conserved
    ],
)
def test_a_value_without_proof_is_computed_otherwise(change, monkeypatch):
    """Sabotage: a wrong flow or cut must not pass for the maximum."""
    capacity = agf_capacities(4, 9, 6)
    wanted = fo.solve(fo.FlowNetwork.layered(capacity), fo.MaxFlow(), "scipy").value
    monkeypatch.setattr(push_relabel, "maximum_flow", broken(change))
    others = []
    real = fo.solvers.solve
    monkeypatch.setattr(fo.solvers, "solve", lambda *a: others.append(a) or real(*a))
    found = maximum_value(fo.FlowNetwork.layered(capacity))
    assert found == pytest.approx(wanted, rel=1e-12)
    assert len(others) == 1
