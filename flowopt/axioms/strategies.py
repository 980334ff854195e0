"""Hypothesis strategies for property tests of attributions; the only module that needs hypothesis.

Examples
--------
>>> @given(symmetric_pairs())
... def test_equal_tokens_get_equal_scores(planted):
...     net, (one, other) = planted
...     scores = my_method(net)
...     assert scores[one] == pytest.approx(scores[other])
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flowopt.axioms.samples import KINDS
from flowopt.axioms.transforms import Planted, mirrored, silenced, twins
from flowopt.errors import MissingDependencyError
from flowopt.network import FloatArray, FlowNetwork

try:
    from hypothesis import assume
    from hypothesis import strategies as st
except ImportError as error:
    raise MissingDependencyError(
        "flowopt.axioms.strategies needs hypothesis: pip install hypothesis."
    ) from error

__all__ = ["capacities", "networks", "null_players", "symmetric_pairs"]


@st.composite
def capacities(
    draw: Any, max_layers: int = 3, max_tokens: int = 4, positive: bool = False
) -> FloatArray:
    """Capacities (L, t, t): zeros, ties and a few orders of magnitude; they shrink well.

    Parameters
    ----------
    max_layers, max_tokens : int
    positive : bool
        Whether zeros are left out.
    """
    layers = draw(st.integers(1, max_layers))
    t = draw(st.integers(1, max_tokens))
    ties = st.sampled_from([1.0, 0.5, 2.0])
    kinds = [ties, st.floats(1e-3, 10)] if positive else [st.just(0.0), ties, st.floats(1e-3, 10)]
    size = layers * t * t
    flat = draw(st.lists(st.one_of(kinds), min_size=size, max_size=size))
    return np.reshape(np.array(flat, dtype=np.float64), (layers, t, t))


@st.composite
def networks(
    draw: Any, max_layers: int = 3, max_tokens: int = 4, positive: bool = False
) -> FlowNetwork:
    """Layered networks, fed at all top nodes or at one."""
    array = draw(capacities(max_layers, max_tokens, positive))
    sources = draw(st.one_of(st.just("all"), st.integers(0, array.shape[1] - 1)))
    return FlowNetwork.layered(array, sources=sources)


@st.composite
def symmetric_pairs(draw: Any, max_layers: int = 3, max_tokens: int = 4) -> Planted:
    """(network, (i, j)): an automorphism of the network exchanges the tokens i and j."""
    net, rng = draw(_any_network(max_layers, max_tokens)), draw(_generators())
    planted = (twins if draw(st.booleans()) else mirrored)(net, rng)
    assume(planted is not None)
    assert planted is not None  # assume
    return planted


@st.composite
def null_players(draw: Any, max_layers: int = 3, max_tokens: int = 4) -> Planted:
    """(network, (j,)): no flow can reach token j."""
    net, rng = draw(_any_network(max_layers, max_tokens)), draw(_generators())
    planted = silenced(net, rng)
    assume(planted is not None)
    assert planted is not None  # assume
    return planted


@st.composite
def _any_network(draw: Any, max_layers: int, max_tokens: int) -> FlowNetwork:
    """Drawn ones that shrink, and seeded ones of other kinds: links, limits on nodes."""
    if draw(st.booleans()):
        net: FlowNetwork = draw(networks(max_layers, max_tokens))
        return net
    kind = draw(st.sampled_from(KINDS))
    t, layers = draw(st.integers(2, max(max_tokens, 2))), draw(st.integers(1, max_layers))
    made: FlowNetwork = kind(t, layers, draw(_generators()))
    return made


def _generators() -> Any:
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)
