"""From traces to networks: every architecture against networkx graphs written out edge by edge."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowopt.capacities import GammaScale, Residual, RowNormalize, Threshold, compose
from flowopt.errors import InputError
from flowopt.explainer.networks import Wiring, network_of
from flowopt.explainer.receptive_field import (
    NORMALISATIONS,
    check_normalisation,
    normalised,
    receptive_field,
    uniform_causal,
)
from flowopt.network import FlowNetwork
from flowopt.objectives import LogBarrier, MaxFlow
from flowopt.solvers import solve
from flowopt.trace import TokenInfo, Trace

SOURCE, PREFIX = 4, 3
ENCODER_LAYERS, DECODER_LAYERS = 2, 2
Edge = tuple[tuple[str, int], tuple[str, int], float | None]


def tensors_of(seed: int, sparse: float = 0.2) -> dict[str, np.ndarray]:
    """Random capacities of an encoder-decoder, some of them zero."""
    rng = np.random.default_rng(seed)
    shapes = {
        "encoder": (ENCODER_LAYERS, SOURCE, SOURCE),
        "decoder": (DECODER_LAYERS, PREFIX, PREFIX),
        "cross": (DECODER_LAYERS, PREFIX, SOURCE),
    }
    found = {
        stage: rng.uniform(0.1, 1, shape) * (rng.random(shape) > sparse)
        for stage, shape in shapes.items()
    }
    found["decoder"] = np.tril(found["decoder"])
    found["cross"][:, -1] *= 0.1  # so that flow must pass through the tokens before
    return found


def seq2seq(readout: int = PREFIX - 1, echo: bool = False) -> Trace:
    positions = TokenInfo.positions
    return Trace(
        positions(range(SOURCE)), readout=readout, prefix=positions(range(PREFIX)), echo=echo
    )


def chain(name: str, layers: np.ndarray) -> list[Edge]:
    """Edges of a stack of attention layers."""
    return [
        ((f"{name}{layer + 1}", i), (f"{name}{layer}", j), float(capacity))
        for layer, block in enumerate(layers)
        for (i, j), capacity in np.ndenumerate(block)
    ]


def written_out(tensors: dict[str, np.ndarray], unroll: bool, echo: bool) -> list[Edge]:
    """Edges of an encoder-decoder with parallel stages (method.md, section 2)."""
    edges = chain("encoder", tensors["encoder"]) + chain("decoder", tensors["decoder"])
    top = f"encoder{len(tensors['encoder'])}"
    edges += [
        ((f"decoder{layer + 1}", i), (top, j), float(capacity))
        for layer, block in enumerate(tensors["cross"])
        for (i, j), capacity in np.ndenumerate(block)
    ]
    layers, tokens = tensors["decoder"].shape[:2]
    if echo:
        edges += [(("decoder0", k), ("encoder0", k - 1), None) for k in range(1, tokens)]
    elif unroll:
        edges += [(("decoder0", k), (f"decoder{layers}", k - 1), None) for k in range(1, tokens)]
    return edges


def in_sequence(tensors: dict[str, np.ndarray], alpha: float) -> list[Edge]:
    """Edges of an encoder-decoder with sequential stages, mixed with the identity."""
    encoder, decoder = (
        alpha * tensors[stage] + (1 - alpha) * np.eye(tensors[stage].shape[1])
        for stage in ("encoder", "decoder")
    )
    edges = chain("encoder", encoder)
    for layer in range(len(decoder)):
        for i, row in enumerate(alpha * tensors["cross"][layer]):
            upper = (f"decoder{layer + 1}", i)
            edges += [(upper, (f"encoder{len(encoder)}", j), float(c)) for j, c in enumerate(row)]
            edges.append((upper, (f"middle{layer}", i), 1 - alpha))
        edges += [
            ((f"middle{layer}", i), (f"decoder{layer}", j), float(capacity))
            for (i, j), capacity in np.ndenumerate(decoder[layer])
        ]
    layers, tokens = decoder.shape[:2]
    return edges + [(("decoder0", k), (f"decoder{layers}", k - 1), None) for k in range(1, tokens)]


def best(edges: list[Edge], top: list[tuple[str, int]], bottom: list[tuple[str, int]]) -> float:
    """Value of a maximum flow from some nodes to others, by networkx."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["source", "sink"])
    for tail, head, capacity in edges:
        options = {} if capacity is None else {"capacity": capacity}
        if capacity is None or capacity > 0:
            graph.add_edge(tail, head, **options)
    graph.add_edges_from([("source", node) for node in top])
    graph.add_edges_from([(node, "sink") for node in bottom])
    return float(nx.maximum_flow_value(graph, "source", "sink"))


def value_to(net: FlowNetwork, sinks: dict[str, list[int]]) -> float:
    """Value of a maximum flow of a network with other sinks."""
    other = FlowNetwork(net.groups, net.blocks, net.links, sources=net.sources, sinks=sinks)
    return float(solve(other, MaxFlow()).value)


def disagreements(
    net: FlowNetwork, edges: list[Edge], absorbing: list[tuple[str, int]]
) -> list[str]:
    """Where a network and a written-out graph have different maximum flows."""
    top = [(group, node) for group, nodes in net.sources.items() for node in nodes]
    found = []
    if solve(net, MaxFlow()).value != pytest.approx(best(edges, top, absorbing), abs=1e-7):
        found.append("all")
    for group, node in absorbing:
        if value_to(net, {group: [node]}) != pytest.approx(
            best(edges, top, [(group, node)]), abs=1e-7
        ):
            found.append(f"{group} {node}")
    return found


def nodes(group: str, count: int) -> list[tuple[str, int]]:
    return [(group, node) for node in range(count)]


def balance(net: FlowNetwork, solution) -> dict[str, np.ndarray]:
    """Outflow minus inflow of every node along blocks; links are left to the caller."""
    total = {group: np.zeros(count) for group, count in net.groups.items()}
    for block, flow in zip(net.blocks, solution.flows, strict=False):
        total[block.tail] += flow.sum(axis=1)
        total[block.head] -= flow.sum(axis=0)
    return total


# --- encoder-decoders ----------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(4))
def test_unrolled(seed):
    tensors = tensors_of(seed)
    net = network_of(tensors, seq2seq(), Wiring())
    assert not disagreements(net, written_out(tensors, True, False), nodes("encoder0", SOURCE))
    solution = solve(net, LogBarrier(gap=0.01))
    # all of it ends in source tokens, though it passes through generated ones
    assert solution.attributions.sum() == pytest.approx(solution.value)
    assert solution.node_flows["encoder0"] == pytest.approx(solution.attributions)
    assert solution.node_flows["decoder0"][0] == 0  # the start token leads nowhere
    (link,) = net.links
    assert [tuple(pair) for pair in link.pairs] == [(1, 0), (2, 1)]
    left = balance(net, solution)
    passed = solution.node_flows["decoder0"][1:]
    assert passed.sum() > 0
    np.testing.assert_allclose(left["decoder0"][1:], -passed, atol=1e-9)
    # inside, what comes in goes out; the links bring it to the top again
    top = np.zeros(PREFIX)
    top[: PREFIX - 1] = passed
    top[PREFIX - 1] = solution.value
    np.testing.assert_allclose(left[f"decoder{DECODER_LAYERS}"], top, atol=1e-9)
    for group in ("decoder1", "encoder1", "encoder2"):
        np.testing.assert_allclose(left[group], 0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_not_unrolled(seed):
    tensors = tensors_of(seed)
    net = network_of(tensors, seq2seq(), Wiring(unroll=False))
    absorbing = nodes("encoder0", SOURCE) + nodes("decoder0", PREFIX)
    assert not disagreements(net, written_out(tensors, False, False), absorbing)
    solution = solve(net, LogBarrier(gap=0.01))
    prefix = solution.node_flows["decoder0"]
    assert prefix.sum() > 0  # the start token absorbs flow now, as the others do
    assert solution.attributions.sum() + prefix.sum() == pytest.approx(solution.value)
    assert not net.links


def test_networks_that_are_wired_wrongly_are_caught():
    tensors, absorbing = tensors_of(0, sparse=0.0), nodes("encoder0", SOURCE)
    edges = written_out(tensors, True, False)
    wrong_tops = {**tensors, "cross": tensors["cross"][::-1]}
    transposed = {**tensors, "encoder": tensors["encoder"].transpose(0, 2, 1)}
    for wrong in (wrong_tops, transposed):
        assert disagreements(network_of(wrong, seq2seq(), Wiring()), edges, absorbing)
    without_links = network_of(tensors, seq2seq(), Wiring(unroll=False))
    assert disagreements(without_links, edges, absorbing)
    elsewhere = network_of(tensors, seq2seq(readout=0), Wiring())
    right = network_of(tensors, seq2seq(), Wiring())
    assert solve(elsewhere, MaxFlow()).value != pytest.approx(solve(right, MaxFlow()).value)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_stages_in_sequence(seed, alpha):
    tensors = tensors_of(seed)
    net = network_of(tensors, seq2seq(), Wiring(variants=(Residual(alpha),), stages="sequential"))
    edges = in_sequence(tensors, alpha)
    assert not disagreements(net, edges, nodes("encoder0", SOURCE))
    assert disagreements(net, in_sequence(tensors, 0.9), nodes("encoder0", SOURCE))


def test_stages_in_sequence_need_a_way_past_the_encoder():
    for variants in ((), (GammaScale(),)):
        with pytest.raises(InputError, match=r"need a residual edge.*Residual"):
            Wiring(variants=variants, stages="sequential")
    Wiring(variants=(compose(Residual()),), stages="sequential")
    with pytest.raises(InputError, match="parallel, sequential"):
        Wiring(stages="both")
    # without that edge nothing would reach the self-attention
    tensors = tensors_of(0)
    cut = Wiring(variants=(Residual(1.0),), stages="sequential")
    solution = solve(network_of(tensors, seq2seq(), cut), MaxFlow())
    assert not solution.node_flows["middle1"].any()
    whole = Wiring(variants=(Residual(0.5),), stages="sequential")
    assert solve(network_of(tensors, seq2seq(), whole), MaxFlow()).node_flows["middle1"].any()


@pytest.mark.parametrize("seed", range(3))
def test_a_decoder_that_reads_the_source_again(seed):
    rng = np.random.default_rng(seed)
    tensors = {stage: rng.uniform(0.1, 1, (2, SOURCE, SOURCE)) for stage in ("encoder", "cross")}
    tensors["decoder"] = np.tril(rng.uniform(0.1, 1, (2, SOURCE, SOURCE)))
    positions = TokenInfo.positions(range(SOURCE))
    trace = Trace(positions, readout=SOURCE - 1, prefix=positions, echo=True)
    net = network_of(tensors, trace, Wiring())
    assert not disagreements(net, written_out(tensors, True, True), nodes("encoder0", SOURCE))
    solution = solve(net, LogBarrier(gap=0.01))
    # a source token is reached through the encoder and, one position later, through the decoder
    assert solution.attributions.sum() == pytest.approx(solution.value)
    through_encoder = solution.flows[0].sum(axis=0)
    again = np.append(solution.node_flows["decoder0"][1:], 0)
    assert (again[:-1] > 0).all()
    np.testing.assert_allclose(solution.attributions, through_encoder + again, atol=1e-9)


def test_one_token_in_the_decoder():
    tensors = tensors_of(0)
    tensors = {
        **tensors,
        "decoder": tensors["decoder"][:, :1, :1],
        "cross": tensors["cross"][:, :1],
    }
    trace = Trace(TokenInfo.positions(range(SOURCE)), readout=0, prefix=TokenInfo.positions([0]))
    net = network_of(tensors, trace, Wiring())
    assert not net.links
    assert not disagreements(net, written_out(tensors, True, False), nodes("encoder0", SOURCE))


# --- decoders and encoders -----------------------------------------------------------------------
def test_generated_tokens_of_a_decoder():
    rng = np.random.default_rng(0)
    capacities = np.tril(rng.uniform(0.1, 1, (3, 5, 5)))
    capacities[:, 3:, :3] *= 0.02  # so that flow must pass through the tokens before
    trace = Trace(TokenInfo.positions(range(5)), readout=4, prompt=3)
    net = network_of({"decoder": capacities}, trace, Wiring())
    edges = chain("layer", capacities)
    links: list[Edge] = [(("layer0", k), ("layer3", k - 1), None) for k in (3, 4)]
    assert not disagreements(net, edges + links, nodes("layer0", 3))
    assert disagreements(net, edges, nodes("layer0", 3))
    solution = solve(net, LogBarrier(gap=0.01))
    assert solution.attributions[:3].sum() == pytest.approx(solution.value)
    assert solution.attributions[3:].any()  # they are passed through, not absorbed
    apart = network_of({"decoder": capacities}, trace, Wiring(unroll=False))
    assert not disagreements(apart, edges, nodes("layer0", 5))
    assert solve(apart, LogBarrier(gap=0.01)).attributions.sum() == pytest.approx(
        solve(apart, LogBarrier(gap=0.01)).value
    )


@pytest.mark.parametrize("prompt", [None, 5])
def test_a_prompt_alone(prompt):
    capacities = np.tril(np.random.default_rng(0).uniform(0.1, 1, (3, 5, 5)))
    trace = Trace(TokenInfo.positions(range(5)), readout=3, prompt=prompt)
    net = network_of({"decoder": capacities}, trace, Wiring())
    assert not net.links
    assert dict(net.sources) == {"layer3": (3,)}
    assert not solve(net, MaxFlow()).attributions[4]  # after the position that is read
    assert not disagreements(net, chain("layer", capacities), nodes("layer0", 5))


def test_sources():
    encoder = np.random.default_rng(0).uniform(0.1, 1, (2, 4, 4))
    causal = np.tril(encoder)
    info = TokenInfo.positions(range(4))

    def fed(stage, capacities, readout, sources, variants=()) -> tuple[int, ...]:
        trace, wiring = Trace(info, readout=readout), Wiring(sources, variants)
        (found,) = network_of({stage: capacities}, trace, wiring).sources.values()
        return found

    everything = (0, 1, 2, 3)
    assert fed("encoder", encoder, 0, None) == everything
    assert fed("encoder", encoder, 0, None, (Residual(),)) == (0,)
    assert fed("encoder", encoder, 0, None, (compose(Residual(), RowNormalize()),)) == (0,)
    assert fed("encoder", encoder, None, None, (Residual(),)) == everything
    assert fed("encoder", encoder, 0, "cls") == (0,)
    assert fed("encoder", encoder, 0, [-1, 1]) == (1, 3)
    assert fed("decoder", causal, 2, None) == (2,)
    assert fed("decoder", causal, 2, "all") == everything
    assert fed("decoder", causal, 2, "cls") == (2,)
    assert fed("decoder", causal, None, None) == everything
    assert fed("decoder", causal, 2, -4) == (0,)
    for stage in ("encoder", "decoder"):
        with pytest.raises(InputError, match="out of range"):
            fed(stage, causal, 0, 4)
        with pytest.raises(InputError, match="several positions"):
            fed(stage, causal, None, "cls")
    tensors = tensors_of(0)
    for sources, expected in (("all", (0, 1, 2)), ([0, -1], (0, 2)), (None, (2,))):
        net = network_of(tensors, seq2seq(), Wiring(sources))
        assert dict(net.sources) == {"decoder2": expected}


def test_stages_that_make_no_network():
    tensors = tensors_of(0)
    for names in (("cross",), ("encoder", "decoder"), ("encoder", "cross")):
        with pytest.raises(InputError, match="no network is known for the stages"):
            network_of({name: tensors[name] for name in names}, seq2seq(), Wiring())
    uneven = {**tensors, "cross": tensors["cross"][:1]}
    with pytest.raises(InputError, match="2 layers of decoder self-attention, but 1"):
        network_of(uneven, seq2seq(), Wiring())


def test_nothing_flows_where_there_is_no_path():
    tensors = {stage: np.zeros_like(array) for stage, array in tensors_of(0).items()}
    solution = solve(network_of(tensors, seq2seq(), Wiring()), LogBarrier(gap=0.05))
    assert solution.value == 0
    assert not solution.attributions.any()
    assert solution.status == "optimal"


# --- capacity variants ---------------------------------------------------------------------------
def block(net: FlowNetwork, tail: str, head: str) -> np.ndarray:
    (found,) = [each for each in net.blocks if (each.tail, each.head) == (tail, head)]
    return found.capacity


def test_variants_on_attention_to_the_encoder():
    tensors = tensors_of(1)
    parallel = network_of(tensors, seq2seq(), Wiring(variants=(Residual(0.25),)))
    np.testing.assert_allclose(block(parallel, "decoder1", "encoder2"), 0.25 * tensors["cross"][0])
    np.testing.assert_allclose(
        block(parallel, "decoder2", "decoder1"),
        0.25 * tensors["decoder"][1] + 0.75 * np.eye(PREFIX),
    )
    cut = network_of(tensors, seq2seq(), Wiring(variants=(Threshold(0.5),)))
    cross = block(cut, "decoder1", "encoder2")
    assert ((cross == 0) | (cross >= 0.5)).all()
    assert cross.any()


def test_gamma_scale_is_read_off_all_stages_together():
    tensors = {stage: 0.5 * (array > 0) for stage, array in tensors_of(0).items()}
    tensors["cross"][0, 0, 0] = 0.003
    net = network_of(tensors, seq2seq(), Wiring(variants=(GammaScale(),)))
    for tail, head in (
        ("decoder1", "encoder2"),
        ("decoder1", "decoder0"),
        ("encoder1", "encoder0"),
    ):
        assert block(net, tail, head).max() == pytest.approx(500.0)
    plain = solve(network_of(tensors, seq2seq(), Wiring()), LogBarrier(gap=0.05))
    scaled = solve(net, LogBarrier(gap=0.05))
    np.testing.assert_allclose(scaled.attributions, 1000 * plain.attributions, rtol=1e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_rows_with_their_residual_edge_sum_to_one(order):
    tensors = tensors_of(2, sparse=0.0)
    variants = (Residual(0.4), RowNormalize())[::order]
    net = network_of(tensors, seq2seq(), Wiring(variants=variants, stages="sequential"))
    for layer in range(DECODER_LAYERS):
        cross = block(net, f"decoder{layer + 1}", "encoder2")
        (link,) = [each for each in net.links if each.head == f"middle{layer}"]
        np.testing.assert_allclose(cross.sum(axis=1) + link.capacity, 1)
        share = 0.4 * tensors["cross"][layer].sum(axis=1)
        expected = 0.6 / (share + 0.6) if order == 1 else np.full(PREFIX, 0.6)
        np.testing.assert_allclose(link.capacity, expected)
        np.testing.assert_allclose(block(net, f"middle{layer}", f"decoder{layer}").sum(axis=1), 1)


def test_scaling_covers_the_residual_edge():
    tensors = tensors_of(2)
    one, scaled = (
        network_of(tensors, seq2seq(), Wiring(variants=variants, stages="sequential"))
        for variants in ((Residual(),), (Residual(), GammaScale(2)))
    )
    for first, second in zip(one.links, scaled.links, strict=True):
        if first.capacity is not None:
            np.testing.assert_allclose(second.capacity, 100 * first.capacity)
    assert solve(scaled, MaxFlow()).value == pytest.approx(100 * solve(one, MaxFlow()).value)


# --- receptive fields ----------------------------------------------------------------------------
def test_receptive_field_by_hand():
    np.testing.assert_array_equal(receptive_field(5, 3, residual=False), [4, 3, 2, 1, 0])
    np.testing.assert_array_equal(receptive_field(5, 3, residual=True), [5, 4, 3, 2, 0])
    for position in range(4):  # the edges themselves, counted
        support = np.tril(np.ones((4, 4)))[: position + 1]
        np.testing.assert_array_equal(receptive_field(4, position, False), support.sum(axis=0))


def test_normalised_scores_by_hand():
    found = normalised(np.array([4.0, 3.0, 2.0, 0.0]), np.array([4.0, 3.0, 2.0, 0.0]))
    np.testing.assert_allclose(found, [3, 3, 3, 0])
    np.testing.assert_array_equal(normalised(np.zeros(3), np.ones(3)), 0)
    np.testing.assert_allclose(normalised(np.array([1.0, -1.0]), np.array([1.0, 2.0])).sum(), 0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), tokens=st.integers(1, 8), residual=st.booleans())
def test_normalising_keeps_the_sum_and_the_sign(seed, tokens, residual):
    rng = np.random.default_rng(seed)
    scores, reference = rng.random(tokens), receptive_field(tokens, tokens - 1, residual)
    found = normalised(scores, reference)
    assert found.sum() == pytest.approx(scores.sum())
    assert (found >= 0).all()
    # two tokens keep the ratio of their scores per edge
    np.testing.assert_allclose(
        found * (scores[-1] / reference[-1]), (scores / reference) * found[-1]
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_uniform_attention_gets_constant_scores(layers):
    uniform = uniform_causal(layers, 6)
    np.testing.assert_allclose(uniform.sum(axis=2), 1)
    assert not np.triu(uniform, 1).any()
    trace = Trace(TokenInfo.positions(range(6)), readout=4)
    flow = solve(network_of({"decoder": uniform}, trace, Wiring()), LogBarrier(gap=0.05))
    found = normalised(flow.attributions, flow.attributions)
    np.testing.assert_allclose(found[:5], flow.value / 5)
    assert found[5] == 0
    if layers > 1:  # the bias to early tokens that the reference takes out
        assert flow.attributions[0] > 1.5 * flow.attributions[4]


def test_normalisations_are_for_causal_models():
    for name in NORMALISATIONS:
        check_normalisation(name, "decoder")
    check_normalisation("none", "encoder")
    for kind in ("encoder", "encoder-decoder"):
        with pytest.raises(InputError, match="causal attention; use 'none'"):
            check_normalisation("uniform_reference", kind)
    with pytest.raises(InputError, match="must be one of none, inverse_receptive_field"):
        check_normalisation("receptive", "decoder")
