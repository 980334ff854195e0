"""Networks: construction, messages, exact pruning, node capacities, networkx."""

from __future__ import annotations

from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from networks import FAMILIES, dense, extreme_networks, layered_networks

import flowopt as fo


def two_groups(**changes):
    arguments = {
        "groups": {"b": 2, "a": 2},
        "blocks": [fo.Block("b", "a", np.ones((2, 2)))],
        "sources": {"b": [0, 1]},
        "sinks": {"a": [0, 1]},
    }
    return fo.FlowNetwork(**(arguments | changes))


# --- what is refused, and with which words -----------------------------------------------------
@pytest.mark.parametrize(
    ("capacity", "words"),
    [
        ([[[1.0, -1.0], [0, 0]]], "negative"),
        ([[[1.0, np.nan], [0, 0]]], "NaN"),
        ([[[1.0, np.inf], [0, 0]]], "infinite"),
        ([[[1e-300, 1e-300], [0, 0]]], "float64"),
        ([[1.0, 1.0], [0, 0]], "dimension|shape|axes"),
        (np.ones((2, 2, 3)), "square"),
        (np.ones((0, 2, 2)), "L >= 1"),
    ],
)
def test_capacities_that_cannot_be_used(capacity, words):
    with pytest.raises(fo.InputError, match=words):
        fo.FlowNetwork.layered(capacity)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"groups": {}}, "at least one group"),
        ({"groups": {"b": 2, "a": 0}}, "at least 1 node"),
        ({"blocks": [fo.Block("b", "c", np.ones((2, 2)))]}, "Unknown group 'c'.*b, a"),
        ({"blocks": [fo.Block("b", "a", np.ones((2, 3)))]}, "2 and 2 nodes"),
        ({"links": [fo.Link("b", "a", [(0, 5)])]}, "indices must lie in 0..1"),
        ({"sources": {"b": []}}, "at least one node in `sources`"),
        ({"sinks": {}}, "at least one node in `sinks`"),
        ({"sinks": {"a": [7]}}, "sinks in group 'a'"),
        ({"sources": {"z": [0]}}, "Unknown group 'z'"),
        ({"sinks": {"b": [1], "a": [0]}}, "both source and sink"),
        ({"players": "z"}, "Unknown group 'z'"),
        ({"node_capacity": {"a": [1.0]}}, r"shape \(2,\)"),
        ({"node_capacity": {"a": [1.0, -1.0]}}, "NaN or negative"),
        ({"return_capacity": 0.0}, "return_capacity"),
        ({"return_capacity": np.inf}, "return_capacity"),
    ],
)
def test_messages_name_what_is_wrong(changes, words):
    with pytest.raises(fo.InputError, match=words):
        two_groups(**changes)


def test_input_errors_are_value_errors():
    with pytest.raises(ValueError, match="sources must be"):
        fo.FlowNetwork.layered(np.ones((1, 2, 2)), sources="none")
    with pytest.raises(ValueError, match=r"must lie in -2\.\.1"):
        fo.FlowNetwork.layered(np.ones((1, 2, 2)), sources=[2])


def test_links_need_one_capacity_per_pair():
    with pytest.raises(fo.InputError, match="2 pairs but 1 capacities"):
        fo.Link("b", "a", [(0, 0), (1, 1)], [1.0])


def test_cycles_are_refused():
    blocks = [fo.Block("b", "a", np.ones((2, 2))), fo.Block("a", "b", np.ones((2, 2)))]
    with pytest.raises(fo.InputError, match="cycle"):
        _ = two_groups(blocks=blocks).graph


def test_a_cycle_of_groups_without_a_cycle_of_nodes_is_fine():
    net = two_groups(
        links=[fo.Link("a", "b", [(1, 0)])],
        blocks=[fo.Block("b", "a", [[1, 0], [1, 1]])],
        sources={"b": [1]},
        sinks={"a": [0]},
    )
    assert fo.solve(net).value == pytest.approx(2.0)


def test_unlimited_flow_is_refused():
    with pytest.raises(fo.InputError, match="no bound"):
        _ = two_groups(links=[fo.Link("b", "a", [(0, 0)])]).graph
    limited = two_groups(links=[fo.Link("b", "a", [(0, 0)])], node_capacity={"a": [3.0, np.inf]})
    assert fo.solve(limited).value == pytest.approx(5.0)


# --- immutability ------------------------------------------------------------------------------
def test_networks_are_immutable():
    capacities = np.ones((2, 3, 3))
    net = fo.FlowNetwork.layered(capacities)
    capacities[:] = 0  # the network keeps its own copy
    assert net.blocks[0].capacity.min() == 1
    with pytest.raises(ValueError, match="read-only"):
        net.blocks[0].capacity[0, 0] = 2
    with pytest.raises(TypeError):
        net.groups["layer9"] = 1  # type: ignore[index]
    with pytest.raises(AttributeError):
        net.players = "layer1"  # type: ignore[misc]


def test_solving_leaves_the_network_as_it_was():
    net = dense()
    before = [block.capacity.copy() for block in net.blocks]
    fo.solve(net, fo.LogBarrier(mu=1e-2))
    for old, block in zip(before, net.blocks, strict=True):
        np.testing.assert_array_equal(old, block.capacity)


# --- pruning -----------------------------------------------------------------------------------
def test_pruning_is_exact_and_says_why():
    capacities = np.ones((3, 3, 3))
    capacities[2, 1:] = 0  # top nodes 1, 2 are dead
    capacities[1, :, 2] = 0  # nothing enters node 2 of layer 1
    capacities[0, 1] = 0  # node 1 of layer 1 leads nowhere
    net = fo.FlowNetwork.layered(capacities)
    report = net.pruned
    assert report.possible == 27
    assert report.zero_capacity == 6 + 3 + 3
    assert report.unreachable == 3  # out of node 2 of layer 1
    assert report.dead_end == 3  # into node 1 of layer 1
    assert report.kept == 27 - 12 - 3 - 3 == len(net.capacity)
    assert report.dropped_nodes == {"layer1": (1, 2), "layer3": (1, 2)}
    assert "3 unreachable" in str(report)
    assert "3 that lead to no sink" in str(report)


@given(layered_networks())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_pruned_edges_are_those_on_no_path(net):
    graph = networkx.DiGraph()
    graph.add_nodes_from(["source", "sink"])
    for block in net.blocks:
        for i, j in np.argwhere(block.capacity > 0):
            graph.add_edge((block.tail, i), (block.head, j))
    for ends, kind in ((net.sources, "source"), (net.sinks, "sink")):
        for name, nodes in ends.items():
            for node in nodes:
                edge = ("source", (name, node)) if kind == "source" else ((name, node), "sink")
                graph.add_edge(*edge)
    useful = networkx.descendants(graph, "source") & networkx.ancestors(graph, "sink")
    expected = sum(1 for a, b in graph.edges if a in useful and b in useful)
    assert net.pruned.kept == expected


@given(layered_networks())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_pruning_does_not_change_the_maximum_flow(net):
    full = networkx.DiGraph()
    for block in net.blocks:
        for (i, j), capacity in np.ndenumerate(block.capacity):
            full.add_edge((block.tail, i), (block.head, j), capacity=capacity)
    for name, nodes in net.sources.items():
        full.add_edges_from(("source", (name, i)) for i in nodes)
    for name, nodes in net.sinks.items():
        full.add_edges_from(((name, i), "sink") for i in nodes)
    expected = networkx.maximum_flow_value(full, "source", "sink")
    solution = fo.solve(net)
    assert solution.value == pytest.approx(expected, rel=1e-9, abs=1e-12)
    for block, flow in zip(net.blocks, solution.flows, strict=True):
        assert flow.shape == block.capacity.shape
        assert (flow[block.capacity == 0] == 0).all()


@pytest.mark.parametrize("objective", [fo.MaxFlow(), fo.LogBarrier(), fo.ProportionalFair()])
@pytest.mark.parametrize("solver", [None, "CLARABEL", "ECOS"])
def test_a_network_without_a_path_has_the_answer_zero(objective, solver):
    capacities = np.ones((2, 3, 3))
    capacities[1] = 0
    solution = fo.solve(fo.FlowNetwork.layered(capacities), objective, solver)
    assert solution.status is fo.Status.OPTIMAL
    assert solution.value == 0
    assert solution.certificate.gap == 0
    np.testing.assert_array_equal(solution.attributions, np.zeros(3))
    assert np.isfinite(solution.potential).all()


# --- the two constructors ----------------------------------------------------------------------
def test_layered_is_short_for_the_general_constructor():
    capacities = np.random.default_rng(0).uniform(0, 1, (2, 3, 3))
    short = fo.FlowNetwork.layered(capacities, sources=[0, -1])
    long = fo.FlowNetwork(
        groups={"layer0": 3, "layer1": 3, "layer2": 3},
        blocks=[
            fo.Block("layer1", "layer0", capacities[0]),
            fo.Block("layer2", "layer1", capacities[1]),
        ],
        sources={"layer2": [0, 2]},
        sinks={"layer0": range(3)},
    )
    assert short.groups == long.groups
    assert short.sources == long.sources
    assert short.players == long.players == "layer0"
    one, other = (fo.solve(net, fo.LogBarrier(mu=1e-2)) for net in (short, long))
    np.testing.assert_array_equal(one.attributions, other.attributions)


def test_node_capacity_limits_the_flow_through_a_node():
    capacities = np.ones((2, 2, 2))
    limits = np.array([[0.5, np.inf], [np.inf, 0.25], [np.inf, np.inf]])
    net = fo.FlowNetwork.layered(capacities, node_capacity=limits)
    solution = fo.solve(net)
    # 0.5 into token 0; 1 + 0.25 into token 1, which both middle nodes reach
    assert solution.value == pytest.approx(1.75)
    for group, limit in zip(("layer0", "layer1"), limits, strict=False):
        assert (solution.node_flows[group] <= limit + 1e-12).all()
    only_tokens = fo.FlowNetwork.layered(capacities, node_capacity=[0.5, 0.25])
    np.testing.assert_allclose(fo.solve(only_tokens).attributions, [0.5, 0.25])


def test_scaling_multiplies_every_finite_limit():
    for family in FAMILIES.values():
        net = family()
        assert fo.solve(net.scaled(8.0)).value == pytest.approx(8 * fo.solve(net).value, rel=1e-9)


# --- networkx ----------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_networkx_agrees_on_the_maximum_flow(family):
    net = FAMILIES[family]()
    value = networkx.maximum_flow_value(net.to_networkx(), "source", "sink")
    limit = np.inf if net.return_capacity is None else net.return_capacity
    assert fo.solve(net).value == pytest.approx(min(value, limit), rel=1e-9)


@given(extreme_networks(decades=6))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_networkx_agrees_on_random_networks(net):
    value = networkx.maximum_flow_value(net.to_networkx(), "source", "sink")
    limit = np.inf if net.return_capacity is None else net.return_capacity
    assert fo.solve(net).value == pytest.approx(min(value, limit), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fo.FlowNetwork.layered(
                np.ones((2, 3, 3)), sources=np.array([True, False, True])
            ),
            "flatnonzero",
        ),
        (lambda: fo.FlowNetwork.layered(np.ones((2, 3, 3)), sources=[0.5]), "whole numbers"),
        (lambda: fo.FlowNetwork.layered(np.ones((2, 3, 3), dtype=complex)), "complex"),
        (lambda: fo.FlowNetwork.layered(np.ones((2, 3, 3)), node_capacity="x"), "numbers"),
        (lambda: fo.Link("a", "b", [[0.7, 1.2]]), "whole numbers"),
        (lambda: fo.Link("a", "b", [1, 2, 3]), r"\(k, 2\)"),
        (lambda: fo.FlowNetwork(3, sources={}, sinks={}), "mapping"),
        (
            lambda: fo.FlowNetwork({"a": 1}, fo.Block("a", "a", [[0.0]]), sources={}, sinks={}),
            "lists",
        ),
        (lambda: fo.solve(np.ones((2, 3, 3))), r"FlowNetwork.layered\(C\)"),
        (lambda: fo.FlowProblem(3), "Give a FlowNetwork"),
        (lambda: fo.solve_batch(fo.FlowNetwork.layered(np.ones((2, 3, 3)))), "use flowopt.solve"),
        (
            lambda: fo.compare_solvers(dense(), solvers=[]),
            "empty",
        ),
        (lambda: fo.LogBarrier(gap=1.5), "below 1"),
    ],
)
def test_the_wrong_kind_of_thing_is_refused(make, message):
    with pytest.raises(fo.InputError, match=message):
        make()


def test_a_solver_refuses_also_where_there_is_no_path():
    net = fo.FlowNetwork.layered(np.zeros((2, 3, 3)))
    with pytest.raises(fo.UnsupportedError, match="scipy cannot solve LogBarrier"):
        fo.solve(net, fo.LogBarrier(mu=1e-3), "scipy")
    assert fo.solve(net, fo.LogBarrier(mu=1e-3), "native").value == 0


def test_network_without_edges_has_value_zero() -> None:
    net = fo.FlowNetwork({"b": 2, "a": 3}, sources={"b": [0]}, sinks={"a": [0]})
    for objective in (fo.MaxFlow(), fo.LogBarrier(gap=0.05), fo.Quadratic(0.1)):
        solution = fo.solve(net, objective)
        assert (solution.status, solution.value) == ("optimal", 0)
        np.testing.assert_array_equal(solution.attributions, np.zeros(3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": {"b": 1.5, "a": 1}},
        {"groups": {"b": "x", "a": 1}},
        {"blocks": [("b", "a", [[1.0]])]},
        {"sources": {"b": 0}},
        {"sinks": [0]},
        {"return_capacity": "x"},
    ],
)
def test_wrong_kinds_of_parts_are_refused(wrong: dict[str, Any]) -> None:
    parts: dict[str, Any] = {"groups": {"b": 1, "a": 1}, "sources": {"b": [0]}, "sinks": {"a": [0]}}
    with pytest.raises(fo.InputError):
        fo.FlowNetwork(**{**parts, **wrong})


@pytest.mark.parametrize("sources", [None, True, 1.5])
def test_layered_refuses_wrong_sources(sources: Any) -> None:
    with pytest.raises(fo.InputError, match="sources"):
        fo.FlowNetwork.layered(np.ones((1, 2, 2)), sources=sources)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_capacities_whose_squares_overflow_are_refused(scale: float) -> None:
    with pytest.raises(fo.InputError, match="rescale"):
        fo.FlowNetwork.layered(np.full((1, 2, 2), scale))
    near = np.array([[[1.0, 0.5], [0.25, 2.0]]])
    exact = fo.solve(fo.FlowNetwork.layered(near), fo.LogBarrier(gap=0.05))
    root = 1e-135 if scale < 1 else 1e135
    found = fo.solve(fo.FlowNetwork.layered(near * root), fo.LogBarrier(gap=0.05))
    np.testing.assert_allclose(found.attributions / root, exact.attributions, rtol=1e-9)
