"""Small random networks to test axioms on, from small to large."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from flowopt.comparison.problem_sets import Problem, available_problem_sets, problem_set
from flowopt.errors import InputError
from flowopt.network import Block, FloatArray, FlowNetwork, Link

Named = tuple[str, FlowNetwork]
MOST_TOKENS, MOST_LAYERS = 6, 4


def random_networks(count: int = 50, seed: int = 0) -> list[Named]:
    """Seeded networks of eight kinds, 2 to 6 tokens and 1 to 4 layers, smallest first.

    Parameters
    ----------
    count : int
    seed : int
        Network k depends on the seed and k alone.

    Returns
    -------
    list of (name, FlowNetwork)
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise InputError(f"The number of networks must be a positive whole number, not {count!r}.")
    made = [_network(seed, k) for k in range(int(count))]
    return sorted(made, key=lambda each: sum(b.capacity.size for b in each[1].blocks))


def networks_of(networks: object, seed: int = 0) -> list[Named]:
    """Named networks from what a user gives.

    Parameters
    ----------
    networks : None, int, str, FlowNetwork, or iterable
        None: 50 random ones; a number of random ones; the name of a problem set ("sentences":
        read through the bundled model); networks, problems or (name, network) pairs.

    Raises
    ------
    InputError
    """
    if networks is None:
        return random_networks(seed=seed)
    if isinstance(networks, int | np.integer) and not isinstance(networks, bool):
        return random_networks(int(networks), seed)
    if isinstance(networks, str):
        if networks == "random":
            return random_networks(seed=seed)
        if networks not in available_problem_sets():
            known = ", ".join(("random", *available_problem_sets()))
            raise InputError(f"There are no networks {networks!r}; known ones: {known}.")
        networks = problem_set(networks)
    if isinstance(networks, FlowNetwork | Problem):
        networks = [networks]
    if not isinstance(networks, Iterable):
        raise InputError(f"Give networks, a name or a number of them, not {networks!r}.")
    found = [_named(each, k) for k, each in enumerate(networks)]
    if not found:
        raise InputError("There are no networks to check; give at least one.")
    return found


def _named(given: object, number: int) -> Named:
    if isinstance(given, FlowNetwork):
        return f"network {number}", given
    if isinstance(given, Problem):
        return given.name, given.make()
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], FlowNetwork):
        return str(given[0]), given[1]
    raise InputError(
        f"Networks are FlowNetworks, problems or (name, network) pairs, not {given!r}."
    )


# --- kinds: (t, layers, generator) -> network -----------------------------------------------------
def _dense(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    return FlowNetwork.layered(rng.uniform(0.1, 1, (layers, t, t)))


def _sparse(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    return FlowNetwork.layered(_zeros(rng.uniform(0.1, 1, (layers, t, t)), rng))


def _ties(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    return FlowNetwork.layered(rng.integers(0, 3, (layers, t, t)))


def _stochastic(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    return FlowNetwork.layered(rng.dirichlet(np.ones(t), (layers, t)), sources=[0])


def _causal(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    return FlowNetwork.layered(np.tril(rng.uniform(0.1, 1, (layers, t, t))), sources=-1)


def _limited(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    limits = rng.uniform(0.2, 1.5, (layers + 1, t))
    return FlowNetwork.layered(rng.uniform(0, 1, (layers, t, t)), node_capacity=limits)


def _decades(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    return FlowNetwork.layered(10 ** rng.uniform(-3, 1, (layers, t, t)))


def _linked(t: int, layers: int, rng: np.random.Generator) -> FlowNetwork:
    """An encoder, a decoder above it, and links that feed the decoder's outputs back."""
    outputs = max(t // 2, 2)
    fed = np.arange(1, outputs)
    return FlowNetwork(
        {"in": t, "top": t, "low": outputs, "high": outputs},
        [
            Block("top", "in", _zeros(rng.uniform(0.1, 1, (t, t)), rng)),
            Block("high", "low", np.tril(rng.uniform(0.1, 1, (outputs, outputs)))),
            Block("high", "top", rng.uniform(0.1, 1, (outputs, t))),
        ],
        [Link("low", "high", np.column_stack((fed, fed - 1)))],
        sources={"high": [outputs - 1]},
        sinks={"in": range(t)},
    )


KINDS: tuple[Callable[[int, int, np.random.Generator], FlowNetwork], ...] = (
    _dense,
    _sparse,
    _ties,
    _stochastic,
    _causal,
    _limited,
    _decades,
    _linked,
)  # networks depend on the order: add at the end


def _zeros(capacity: FloatArray, rng: np.random.Generator) -> FloatArray:
    capacity[rng.random(capacity.shape) < 0.4] = 0
    return capacity


def _network(seed: int, k: int) -> Named:
    rng = np.random.default_rng([seed, k])
    t = int(rng.integers(2, MOST_TOKENS + 1))
    layers = int(rng.integers(1, MOST_LAYERS + 1))
    kind = KINDS[k % len(KINDS)]
    return f"random {seed}.{k} ({kind.__name__[1:]}, t={t})", kind(t, layers, rng)
