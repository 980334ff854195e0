"""Networks that several test files share: seeded families, hand-derived ones, strategies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import flowopt as fo


def agf_capacities(layers: int, t: int, seed: int, heads: int = 3) -> Any:
    """Capacities like those of the agf tensor: mean over heads of (A * G)+, shape (L, t, t)."""
    rng = np.random.default_rng(seed)
    attention = np.exp(2 * rng.normal(size=(layers, heads, t, t)))
    attention /= attention.sum(-1, keepdims=True)
    gradient = rng.normal(size=(layers, heads, t, t)) / 10
    return np.maximum(attention * gradient, 0).mean(axis=1)


def dense() -> fo.FlowNetwork:
    return fo.FlowNetwork.layered(np.random.default_rng(0).uniform(0.1, 1, (3, 5, 5)))


def half_zeros() -> fo.FlowNetwork:
    return fo.FlowNetwork.layered(agf_capacities(4, 7, 1, heads=1))


def cls_only() -> fo.FlowNetwork:
    capacities = agf_capacities(3, 6, 2)
    capacities[-1, 1:] = 0  # the head reads position 0: dead top nodes
    return fo.FlowNetwork.layered(capacities, sources=[0])


def causal() -> fo.FlowNetwork:
    return fo.FlowNetwork.layered(np.tril(agf_capacities(3, 6, 3)), sources=-1)


def encoder_decoder() -> fo.FlowNetwork:
    """Two encoder and two decoder layers, cross-attention, and links of unrolled generation."""
    rng = np.random.default_rng(4)
    s, t = 5, 3
    groups = {"in": s, "enc1": s, "top": s, "dec0": t, "dec1": t, "dec2": t}
    blocks = [
        fo.Block("enc1", "in", rng.uniform(0, 1, (s, s))),
        fo.Block("top", "enc1", rng.uniform(0, 1, (s, s))),
        fo.Block("dec1", "dec0", np.tril(rng.uniform(0, 1, (t, t)))),
        fo.Block("dec2", "dec1", np.tril(rng.uniform(0, 1, (t, t)))),
        fo.Block("dec1", "top", rng.uniform(0, 1, (t, s))),
        fo.Block("dec2", "top", rng.uniform(0, 1, (t, s))),
    ]
    links = [fo.Link("dec0", "dec2", [(k, k - 1) for k in range(1, t)])]
    return fo.FlowNetwork(groups, blocks, links, sources={"dec2": [t - 1]}, sinks={"in": range(s)})


def node_capacities() -> fo.FlowNetwork:
    limits = np.random.default_rng(5).uniform(0.2, 0.6, (4, 4))
    limits[2, 1] = np.inf
    capacities = np.random.default_rng(6).uniform(0, 1, (3, 4, 4))
    return fo.FlowNetwork.layered(capacities, node_capacity=limits)


def gaf() -> fo.FlowNetwork:
    return fo.FlowNetwork.gaf(agf_capacities(2, 4, 7))


def single_token() -> fo.FlowNetwork:
    return fo.FlowNetwork.layered([[[0.5]], [[0.25]]])


def single_layer() -> fo.FlowNetwork:
    return fo.FlowNetwork.layered(agf_capacities(1, 4, 8))


def wide_range() -> fo.FlowNetwork:
    """Capacities over more than ten orders of magnitude."""
    exponents = np.random.default_rng(9).uniform(-9, 2, (3, 5, 5))
    return fo.FlowNetwork.layered(10.0**exponents)


def return_limited() -> fo.FlowNetwork:
    """The limit of the return edge is the minimum cut."""
    return fo.FlowNetwork(
        {"b": 3, "a": 3},
        [fo.Block("b", "a", np.random.default_rng(10).uniform(0.2, 1, (3, 3)))],
        sources={"b": range(3)},
        sinks={"a": range(3)},
        return_capacity=1.5,
    )


def mixed_terminals() -> fo.FlowNetwork:
    """Edges enter a source, and leave a sink; some sinks are no players."""
    rng = np.random.default_rng(11)
    return fo.FlowNetwork(
        {"c": 2, "b": 3, "a": 3},
        [
            fo.Block("c", "b", rng.uniform(0.2, 1, (2, 3))),
            fo.Block("b", "a", rng.uniform(0.2, 1, (3, 3))),
        ],
        sources={"c": [0, 1], "b": [0]},
        sinks={"b": [2], "a": range(3)},
        players="a",
    )


def parallel_links() -> fo.FlowNetwork:
    """Links beside block edges: a limited one and an unlimited one."""
    rng = np.random.default_rng(12)
    return fo.FlowNetwork(
        {"c": 3, "b": 3, "a": 3},
        [
            fo.Block("c", "b", rng.uniform(0.2, 1, (3, 3))),
            fo.Block("b", "a", rng.uniform(0.2, 1, (3, 3))),
        ],
        [fo.Link("c", "b", [(0, 0), (1, 1)], [0.3, 0.7]), fo.Link("b", "a", [(2, 2)])],
        sources={"c": range(3)},
        sinks={"a": range(3)},
    )


FAMILIES: dict[str, Callable[[], fo.FlowNetwork]] = {
    family.__name__: family
    for family in (
        dense,
        half_zeros,
        cls_only,
        causal,
        encoder_decoder,
        node_capacities,
        gaf,
        single_token,
        single_layer,
        wide_range,
        return_limited,
        mixed_terminals,
        parallel_links,
    )
}


# --- small random networks for properties ------------------------------------------------------
@st.composite
def layered_networks(draw: Any, max_layers: int = 3, max_tokens: int = 4) -> fo.FlowNetwork:
    """Layered networks with zeros, equal capacities and a few orders of magnitude."""
    layers = draw(st.integers(1, max_layers))
    t = draw(st.integers(1, max_tokens))
    entry = st.one_of(st.just(0.0), st.sampled_from([1.0, 0.5, 2.0]), st.floats(1e-3, 10))
    flat = draw(st.lists(entry, min_size=layers * t * t, max_size=layers * t * t))
    sources = draw(st.one_of(st.just("all"), st.integers(0, t - 1)))
    return fo.FlowNetwork.layered(np.reshape(flat, (layers, t, t)), sources=sources)


@st.composite
def extreme_networks(draw: Any, decades: int = 14) -> fo.FlowNetwork:
    """Networks of groups, links and terminals, with capacities over many orders of magnitude."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    groups = {f"g{i}": size for i, size in enumerate(sizes)}
    names = list(groups)
    blocks, links = [], []
    density = draw(st.sampled_from([0.4, 0.8, 1.0]))
    for i, tail in enumerate(names):
        for j in range(i + 1, len(names)):
            if j == i + 1 or draw(st.booleans()):
                shape = (sizes[i], sizes[j])
                capacity = 10.0 ** rng.uniform(-decades / 2, decades / 2, shape)
                capacity[rng.random(shape) > density] = 0
                blocks.append(fo.Block(tail, names[j], capacity))
    if len(names) > 2 and draw(st.booleans()):
        pairs = [(rng.integers(sizes[1]), rng.integers(sizes[2]))]
        limit = draw(st.one_of(st.none(), st.floats(1e-6, 1e6)))
        links.append(fo.Link(names[1], names[2], pairs, None if limit is None else [limit]))
    limits = None
    if draw(st.booleans()):
        limits = {names[-1]: 10.0 ** rng.uniform(-decades / 2, decades / 2, sizes[-1])}
    back = draw(st.one_of(st.none(), st.floats(1e-6, 1e6)))
    return fo.FlowNetwork(
        groups,
        blocks,
        links,
        sources={names[0]: range(sizes[0])},
        sinks={names[-1]: range(sizes[-1])},
        node_capacity=limits,
        return_capacity=back,
    )
