"""Named sets of flow problems to measure solvers on: seeded families, and real sentences.

A problem is a name and the means to make its network, so that a set costs nothing until it is
used, and finished work can be recognised by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError
from flowopt.network import Block, FloatArray, FlowNetwork, Link

if TYPE_CHECKING:
    from flowopt.explainer import Explainer

__all__ = ["Problem", "available_problem_sets", "problem_set"]

SIZES = ((4, 2), (8, 4), (16, 6), (32, 8), (48, 12))  # tokens t, layers L
SENTENCES = (
    "Good fun.",
    "A gripping, funny film.",
    "The jokes are stale and the ending is worse.",
    "I laughed twice, both times at the wrong moment.",
    "It is hard not to like a comedy that likes its own characters so much.",
    "Nothing happens for an hour, and then, to nobody's surprise, nothing happens again.",
    "The lead actress is wonderful, but not even she can save a script without a single idea.",
    "What begins as a small family quarrel becomes, almost without our noticing it, a sharp and "
    "moving portrait of a whole town.",
    "I do not regret the two hours, although I would have regretted three, and the director was "
    "kind enough to know the difference.",
    "Loud, long and pleased with itself, this sequel mistakes speed for suspense and noise for "
    "feeling, and it leaves the audience tired rather than thrilled.",
    "The camera stays close to the old fisherman while he mends his nets, argues with his "
    "daughter and waits for rain, and out of these plain moments grows one of the warmest films "
    "of the year.",
    "Those who loved the novel will miss its humour, those who never read it will wonder what "
    "the fuss was about, and both will agree that the music, which never stops to let anyone "
    "think, is far too loud for a story about silence.",
)


@dataclass(frozen=True)
class Problem:
    """A network to solve on, by name.

    Attributes
    ----------
    name : str
        Unique within its collection.
    family : str
        Problems of one family differ in size only, from small to large.
    make : callable
        Returns the network; the same one each time.
    collection : str
        The set it belongs to.
    identity : str or None
        What tells it from another problem of the same name, such as the set's version; None
        for a digest of the network itself.
    """

    name: str
    family: str
    make: Callable[[], FlowNetwork]
    collection: str = "own"
    identity: str | None = None


def available_problem_sets() -> tuple[str, ...]:
    """Names that `problem_set` knows."""
    return tuple(_SETS)


def problem_set(name: str) -> tuple[Problem, ...]:
    """A set of problems by name, families together, each from small to large.

    Parameters
    ----------
    name : str
        "synthetic": 8 seeded families in 5 sizes, from 4 tokens and 2 layers to 48 tokens and 12
        layers. "sentences": 12 English sentences read through the bundled model, capacities from
        attention and gradients (agf).

    Raises
    ------
    InputError
        For an unknown name.

    Examples
    --------
    >>> [problem.name for problem in problem_set("synthetic")[:2]]
    ['dense t=4 L=2', 'dense t=8 L=4']
    """
    if name not in _SETS:
        known = ", ".join(_SETS)
        raise InputError(f"There is no problem set {name!r}; known ones: {known}.")
    return _SETS[name]()


# --- synthetic families: (t, layers, generator) -> network ---------------------------------------
def dense(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    """Every edge, capacities of one order of magnitude."""
    return FlowNetwork.layered(rng.uniform(0.1, 1, (layers, t, t)))


def half_zeros(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    """Attention times gradient of one head, positive part: half of the edges have no capacity."""
    return FlowNetwork.layered(_agf_like(t, layers, rng, heads=1))


def causal(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    """A decoder's triangles, read at the last position."""
    return FlowNetwork.layered(np.tril(_agf_like(t, layers, rng)), sources=-1)


def one_position(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    """A classifier that reads position 0."""
    return FlowNetwork.layered(_agf_like(t, layers, rng), sources=[0])


def bottleneck(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    """All flow passes two nodes in the middle, through edges a thousand times thinner."""
    capacities = _agf_like(t, layers, rng)
    middle = capacities[layers // 2]
    middle *= 1e-3
    middle[:, 2:] = 0
    return FlowNetwork.layered(capacities)


def wide_range(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    """Capacities over more than ten orders of magnitude."""
    return FlowNetwork.layered(10.0 ** rng.uniform(-9, 1.5, (layers, t, t)))


def linked(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    """Encoder and decoder with cross-attention, and links that feed outputs back as inputs."""
    half, outputs = layers // 2, max(t // 2, 2)
    groups = {f"encoder{i}": t for i in range(half + 1)}
    groups |= {f"decoder{i}": outputs for i in range(half + 1)}
    blocks = []
    for i in range(1, half + 1):
        own = rng.uniform(0, 1, (outputs, outputs))
        blocks += [
            Block(f"encoder{i}", f"encoder{i - 1}", rng.uniform(0, 1, (t, t))),
            Block(f"decoder{i}", f"decoder{i - 1}", np.tril(own)),
            Block(f"decoder{i}", f"encoder{half}", rng.uniform(0, 1, (outputs, t))),
        ]
    fed = np.arange(1, outputs)
    back = Link("decoder0", f"decoder{half}", np.column_stack((fed, fed - 1)))
    return FlowNetwork(
        groups,
        blocks,
        [back],
        sources={f"decoder{half}": [outputs - 1]},
        sinks={"encoder0": range(t)},
    )


def node_limits(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    """Dense, with limits on nodes that are tighter than those on edges."""
    limits = t * rng.uniform(0.05, 0.4, (layers + 1, t))
    return FlowNetwork.layered(rng.uniform(0, 1, (layers, t, t)), node_capacity=limits)


FAMILIES = (
    dense,
    half_zeros,
    causal,
    one_position,
    bottleneck,
    wide_range,
    linked,
    node_limits,
)  # seeds follow the order: add at the end


def _agf_like(t: int, layers: int, rng: np.random.Generator, heads: int = 4) -> FloatArray:
    """Mean over heads of the positive part of attention times gradient, (layers, t, t)."""
    attention = np.exp(2 * rng.normal(size=(layers, heads, t, t)))
    attention /= attention.sum(axis=-1, keepdims=True)
    product = np.maximum(attention * rng.normal(size=attention.shape), 0)
    capacities: FloatArray = product.mean(axis=1)
    return capacities


def _made(family: int, t: int, layers: int) -> FlowNetwork:
    return FAMILIES[family](t, layers, np.random.default_rng([family, t, layers]))


def _synthetic() -> tuple[Problem, ...]:
    return tuple(
        Problem(
            f"{family.__name__} t={t} L={layers}",
            family.__name__,
            partial(_made, number, t, layers),
            "synthetic",
            "1",
        )
        for number, family in enumerate(FAMILIES)
        for t, layers in SIZES
    )


# --- sentences -----------------------------------------------------------------------------------
@cache
def _bundled_explainer() -> Explainer:
    from flowopt.explainer import Explainer
    from flowopt.objectives import MaxFlow

    # Plain maximum flow is the fastest way to the network itself.
    return Explainer.from_pretrained(None, tensor="agf", objective=MaxFlow())


def _read(sentence: str) -> FlowNetwork:
    return _bundled_explainer()(sentence).solutions[0].network


def _sentences() -> tuple[Problem, ...]:
    return tuple(
        Problem(
            f"sentence {number:02d}, {len(sentence.split())} words",
            "sentences",
            partial(_read, sentence),
            "sentences",
            "1",
        )
        for number, sentence in enumerate(SENTENCES, start=1)
    )


_SETS: dict[str, Callable[[], tuple[Problem, ...]]] = {
    "synthetic": _synthetic,
    "sentences": _sentences,
}
