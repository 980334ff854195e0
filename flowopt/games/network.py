"""Games of a flow network: of one fixed flow, of maximum flows, of barrier flows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from flowopt.errors import InputError, SolverError, UnsupportedError
from flowopt.games.base import Coalitions, Game
from flowopt.lazy import lazy
from flowopt.network import Block, FloatArray, FlowNetwork, IntArray, Link
from flowopt.objectives import LogBarrier
from flowopt.solution import FlowSolution, Status
from flowopt.solvers import solve
from flowopt.solvers.coalitions import PlayerGates


@dataclass(frozen=True, eq=False)
class LayerGame(Game):
    """v(S) = flow through the nodes S of one layer, in one fixed flow.

    Additive, so its Shapley value is the flow itself, whichever flow that is (Ethayarajh &
    Jurafsky 2021; method.md section 8, game 1). It says nothing about how the flow was chosen.

    Parameters
    ----------
    solution : FlowSolution
    group : str, optional
        Whose nodes are the players; the network's own players by default.

    Raises
    ------
    InputError
        For an unknown group, or a solution without a flow.
    """

    solution: FlowSolution
    group: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.solution, FlowSolution):
            raise InputError(
                f"LayerGame takes a FlowSolution, from fo.solve(net, objective), not "
                f"{type(self.solution).__name__}; RestrictedGame takes a network."
            )
        if self.solution.status is Status.FAILED:
            raise InputError("This solution holds no flow: its solver failed.")
        group = self.group
        if group is not None and group not in self.solution.network.groups:
            known = ", ".join(self.solution.network.groups)
            raise InputError(f"Unknown group {group!r}; the groups are: {known}.")

    @property
    def n_players(self) -> int:  # type: ignore[override]
        """Number of nodes in the layer."""
        return len(self.additive)

    @property
    def additive(self) -> FloatArray:
        """Flow through each node, shape (t,)."""
        if self.group is None:
            return self.solution.attributions
        return self.solution.node_flows[self.group]

    def evaluate(self, coalitions: Coalitions) -> FloatArray:  # noqa: D102
        return np.asarray(coalitions @ self.additive)


@dataclass(frozen=True, eq=False)
class RestrictedGame(Game):
    """v(S) = maximum flow when only the players in S may absorb flow.

    Monotone and submodular: the rank function of a polymatroid, whose base polytope holds the
    token inflows of all maximum flows (Megiddo 1974; method.md section 8, game 2).

    Parameters
    ----------
    network : FlowNetwork

    Raises
    ------
    UnsupportedError
        If a path may pass several players, or none.
    """

    network: FlowNetwork
    exact_players: ClassVar[int] = 16

    def __post_init__(self) -> None:
        if not isinstance(self.network, FlowNetwork):
            raise InputError(
                f"RestrictedGame takes a FlowNetwork, not {type(self.network).__name__}."
            )
        _ = self.gates  # refuses what has no such game

    @property
    def n_players(self) -> int:  # type: ignore[override]
        """Number of tokens."""
        return self.network.n_players

    @lazy
    def gates(self) -> PlayerGates:
        """The compiled form."""
        return PlayerGates.of(self.network)

    def evaluate(self, coalitions: Coalitions) -> FloatArray:  # noqa: D102
        return self.gates.values(coalitions)

    def marginals(self, orders: IntArray) -> FloatArray:
        """Marginal flows in each order, shape (k, t); one maximum flow per order.

        Every row is the inflow vector of some maximum flow: a vertex of the base polytope.
        """
        return self.gates.marginals(orders)


@dataclass(frozen=True, eq=False)
class BarrierGame(Game):
    """v(S) = |f| of the barrier optimum when only the players in S may absorb flow; v({}) = 0.

    mu is absolute, fixed at the network with all players: otherwise every coalition would be
    valued in a unit of its own. Neither monotone nor submodular in general.

    Parameters
    ----------
    network : FlowNetwork
    objective : LogBarrier, optional
        ``LogBarrier(gap=0.05)`` by default.

    Raises
    ------
    UnsupportedError
        If a path may pass several players, or none.
    SolverError
        If a coalition's optimum was not certified.
    """

    network: FlowNetwork
    objective: LogBarrier = field(default_factory=LogBarrier)
    exact_players: ClassVar[int] = 10

    def __post_init__(self) -> None:
        if not isinstance(self.objective, LogBarrier):
            raise InputError(f"BarrierGame takes a LogBarrier, not {self.objective!r}.")
        _ = RestrictedGame(self.network)  # the same networks have both games

    @property
    def n_players(self) -> int:  # type: ignore[override]
        """Number of tokens."""
        return self.network.n_players

    @lazy
    def resolved(self) -> LogBarrier:
        """The objective with its absolute mu."""
        return self.objective.resolve(self.network)

    def evaluate(self, coalitions: Coalitions) -> FloatArray:  # noqa: D102
        return np.array([self._value(np.flatnonzero(row).tolist()) for row in coalitions])

    def _value(self, members: list[int]) -> float:
        if not members:
            return 0.0
        try:
            return solve(restricted_network(self.network, members), self.resolved).value
        except SolverError as error:
            raise SolverError(f"coalition {members}: {error}", error.solution) from error


def restricted_network(net: FlowNetwork, members: Iterable[int]) -> FlowNetwork:
    """The network in which only some players may absorb flow.

    Parameters
    ----------
    members : iterable of int
        At least one.
    """
    inside = np.zeros(net.n_players, dtype=bool)
    inside[list(members)] = True
    if not inside.any():
        raise InputError("A restricted network needs at least one player; nothing flows without.")
    group = net.players
    assert group is not None  # set by __post_init__ of the network
    sinks = {name: list(nodes) for name, nodes in net.sinks.items()}
    blocks: list[Block] = list(net.blocks)
    links: list[Link] = list(net.links)
    if group in sinks:
        if len(sinks[group]) != net.n_players:
            raise UnsupportedError("Some players are sinks and some are not; make all of them so.")
        sinks[group] = np.flatnonzero(inside).tolist()
    else:
        blocks = [
            Block(b.tail, b.head, b.capacity * inside[:, None]) if b.tail == group else b
            for b in blocks
        ]
        links = [_kept_links(k, inside) if k.tail == group else k for k in links]
    return FlowNetwork(
        net.groups,
        blocks,
        links,
        sources=net.sources,
        sinks=sinks,
        node_capacity=net.node_capacity,
        players=group,
        return_capacity=net.return_capacity,
    )


def _kept_links(link: Link, inside: Coalitions) -> Link:
    keep = inside[link.pairs[:, 0]]
    limit = None if link.capacity is None else link.capacity[keep]
    return Link(link.tail, link.head, link.pairs[keep], limit)
