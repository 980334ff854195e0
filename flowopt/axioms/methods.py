"""Methods that axioms can be asked of: objectives, named ones, and a user's function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowopt.errors import InputError
from flowopt.games import RestrictedGame
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import (
    Entropy,
    LogBarrier,
    MaxFlow,
    MaxMinFair,
    Objective,
    ProportionalFair,
    Quadratic,
    ShapleyFlow,
)
from flowopt.solution import FlowSolution
from flowopt.solvers import solve, supporting

RIVAL_EDGES = 3_000  # above this, other solvers take too long for a check
FIRST_ORDER = ("SCS", "OSQP")  # take longest, and mostly end without a certificate
_OBJECTIVES: dict[str, type[Objective]] = {
    "maxflow": MaxFlow,
    "barrier": LogBarrier,
    "quadratic": Quadratic,
    "entropy": Entropy,
    "fair": ProportionalFair,
    "maxminfair": MaxMinFair,
    "shapley-flow": ShapleyFlow,
}


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method says of a network.

    Attributes
    ----------
    attributions : ndarray, shape (t,)
    total : float or None
        What they should sum to by the method's own account (|f| of its flow); None if it has
        none, and then it is the maximum flow.
    error : ndarray, shape (t,)
        Certified errors of the attributions; 0 where the method certifies nothing.
    """

    attributions: FloatArray
    total: float | None
    error: FloatArray


@dataclass(frozen=True, eq=False)
class Method:
    """A way from a network to attributions.

    Parameters
    ----------
    name : str
    function : callable
        FlowNetwork to (t,) attributions, or to a FlowSolution. It may take a keyword `payoff`,
        shape (t,): what a unit of flow is worth at each token.
    objective : Objective, optional
        If it is a flow problem that any backend may solve.
    """

    name: str
    function: Callable[..., ArrayLike | FlowSolution]
    objective: Objective | None = field(default=None)

    def __call__(self, net: FlowNetwork) -> Answer:
        """The method's answer, checked.

        Raises
        ------
        InputError
            If it is no array of one finite number per token.
        """
        return _checked(self.name, self.function(net), net)

    def paid(self, net: FlowNetwork, payoff: FloatArray) -> FloatArray:
        """Attributions when a unit of flow at token j is worth payoff[j], shape (t,)."""
        if _takes_payoff(self.function):
            return _checked(self.name, self.function(net, payoff=payoff), net).attributions
        return self(net).attributions * payoff

    def rivals(self, net: FlowNetwork) -> list[Method]:
        """The same flow problem by every backend; none where they would take too long."""
        if self.objective is None or net.graph.empty or net.graph.report.kept > RIVAL_EDGES:
            return []
        resolved = self.objective.resolve(net)
        names = [name for name in supporting(net, resolved) if name not in FIRST_ORDER]
        return [_by(self.objective, name, f"{self.name}@{name}") for name in names]


def as_method(method: Any, name: str | None = None) -> Method:
    """A method from an objective, a name, or a function.

    Parameters
    ----------
    method : Objective, str, callable or Method
        Names: maxflow, barrier, quadratic, entropy, fair, maxminfair, shapley-flow, with a weight
        as in "barrier:mu=0.01", and a solver as in "maxflow@scipy"; rollout; per-pair.
    name : str, optional
        What to call it.

    Raises
    ------
    InputError
    """
    if isinstance(method, Method):
        return method if name is None else Method(name, method.function, method.objective)
    if isinstance(method, Objective):
        return _by(method, None, name or repr(method))
    if isinstance(method, str):
        return _named(method, name or method)
    if callable(method) and not isinstance(method, type):
        return Method(name or str(getattr(method, "__name__", type(method).__name__)), method)
    raise InputError(
        f"A method is an objective such as LogBarrier(), a name such as 'maxflow@scipy', or a "
        f"function of a network that returns one number per token; not {method!r}."
    )


def rollout(net: FlowNetwork) -> FloatArray:
    """A unit given to the sources in equal parts and led down in proportion to capacities, (t,).

    On a layered network the product over layers of row-normalised capacities (Abnar & Zuidema
    2020), averaged over the sources.
    """
    graph, edges = net.graph, net.edges
    mass = np.zeros(graph.n_nodes)
    given = graph.source & graph.alive
    mass[given] = 1 / max(int(given.sum()), 1)
    weight = np.minimum(edges.capacity, 1e300)
    out = np.bincount(edges.tail, weight, minlength=graph.n_nodes)
    share = weight / np.where(out > 0, out, 1.0)[edges.tail]
    by_tail = np.argsort(edges.tail, kind="stable")
    start = np.searchsorted(edges.tail[by_tail], np.arange(graph.n_nodes + 1))
    for v in graph.order:
        mine = by_tail[start[v] : start[v + 1]]
        np.add.at(mass, edges.head[mine], mass[v] * share[mine])
    return np.asarray(mass[graph.players])


def per_pair(net: FlowNetwork) -> FloatArray:
    """The maximum flow to each token alone, v({j}), shape (t,)."""
    return RestrictedGame(net).values(np.eye(net.n_players, dtype=np.bool_))


def _named(text: str, name: str) -> Method:
    functions = {"rollout": rollout, "per-pair": per_pair}
    if text in functions:
        return Method(name, functions[text])
    head, _, solver = text.partition("@")
    kind, _, weight = head.partition(":")
    if kind not in _OBJECTIVES:
        known = ", ".join([*_OBJECTIVES, *functions])
        raise InputError(
            f"There is no method {text!r}; known ones: {known}; with a weight barrier:mu=0.01, "
            "with a solver maxflow@scipy."
        )
    made = _OBJECTIVES[kind]
    options: dict[str, Any] = {}
    if weight:
        key, _, value = weight.partition("=")
        accepted = inspect.signature(made).parameters
        try:
            options[key] = int(value) if key in ("samples", "seed") else float(value)
        except ValueError:
            raise InputError(f"{weight!r} should be a weight such as mu=0.01.") from None
        if key not in accepted:
            raise InputError(f"{kind} has no weight {key!r}; it takes {', '.join(accepted)}.")
    return _by(made(**options), solver or None, name)


def _by(objective: Objective, solver: str | None, name: str) -> Method:
    if solver is not None:
        from flowopt.solvers import get_solver

        get_solver(solver)  # refuses unknown names now

    def run(net: FlowNetwork) -> FlowSolution:
        return solve(net, objective, solver)

    return Method(name, run, None if solver else objective)


def _checked(name: str, result: Any, net: FlowNetwork) -> Answer:
    if isinstance(result, FlowSolution):
        error = result.certificate.attribution_error
        zeros = np.zeros(net.n_players)
        return Answer(result.attributions, result.value, zeros if error is None else error)
    try:
        found = np.asarray(result, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} gave {type(result).__name__}, not an array of numbers.") from None
    if found.shape != (net.n_players,) or not np.isfinite(found).all():
        raise InputError(
            f"{name} must give {net.n_players} finite numbers, one per token; it gave shape "
            f"{found.shape}."
        )
    return Answer(found, None, np.zeros(net.n_players))


def _takes_payoff(function: Callable[..., Any]) -> bool:
    try:
        return "payoff" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
