"""Maximum flows to coalitions of players, each grown from the residual network of a smaller one.

Every player has a gate: the arcs through which its flow leaves the network. A coalition's maximum
flow is found by opening its members' gates one after the other, each time going on from the flow
before. What one opening gains is the player's marginal flow, and stays with that player: no
augmenting path leaves the super-sink. A node that the source cannot reach any more stays out of
reach, so that most openings of a saturated network cost nothing (method.md section 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from flowopt.errors import UnsupportedError
from flowopt.network import FloatArray, FlowNetwork, IntArray
from flowopt.progress import progress_bar
from flowopt.solvers.arcs import Arcs, network_arcs
from flowopt.solvers.coalition_kernels import (
    coalition_values,
    marginal_flows,
    player_intervals,
)
from flowopt.solvers.dinic import maximum_flow, reverses
from flowopt.solvers.fair import one_player_per_path

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

STACK_BYTES = 2**28  # residual networks kept for reuse
_PLAYERS = 8  # whose intervals are found between two steps of a progress bar


@dataclass(frozen=True, eq=False)
class PlayerGates:
    """A network's arcs with the arcs out of its players apart.

    Attributes
    ----------
    arcs : Arcs
    back : ndarray of int32
        Position of the reverse of every arc.
    closed : ndarray
        Capacity of every arc, 0 at all gates.
    node : ndarray, shape (t,)
        Node of each player.
    first : ndarray, shape (t + 1,)
        Player j has the gates ``gate[first[j] : first[j + 1]]``; none if no flow can reach it.
    gate : ndarray
        Positions of arcs.
    """

    arcs: Arcs
    back: IntArray
    closed: FloatArray
    node: IntArray
    first: IntArray
    gate: IntArray

    @classmethod
    def of(cls, net: FlowNetwork) -> Self:
        """The gates of a network whose players absorb all flow, each unit in one of them.

        Raises
        ------
        UnsupportedError
            If a path may pass several players, or none.
        """
        if not one_player_per_path(net):
            raise UnsupportedError(
                "Coalitions of players need a network of which every path ends in exactly one "
                "player, or just below it; here players lie above one another, or some sinks are "
                "not players. Name another group as `players`."
            )
        arcs = network_arcs(net)
        players = net.graph.players
        gates = []
        for v in players:
            out = np.arange(arcs.indptr[v], arcs.indptr[v + 1])
            gates.append(out[arcs.capacity[out] > 0])
        first = np.concatenate([[0], np.cumsum([len(g) for g in gates])]).astype(np.int64)
        gate = np.concatenate(gates).astype(np.int64)
        closed = arcs.capacity.copy()
        closed[gate] = 0.0
        back = reverses(arcs.indptr, arcs.indices)
        return cls(arcs, back, closed, players.astype(np.int64), first, gate)

    @property
    def n_players(self) -> int:
        """Number of players."""
        return len(self.node)

    @property
    def _network(self) -> tuple[Any, ...]:
        arcs = self.arcs
        return arcs.indptr, arcs.indices, self.back, arcs.source, arcs.sink

    @property
    def _gates(self) -> tuple[Any, ...]:
        return self.node, self.first, self.gate, self.arcs.capacity

    def values(self, coalitions: BoolArray) -> FloatArray:
        """Maximum flow to each coalition, shape (k,), from memberships of shape (k, t).

        Coalitions are taken in an order that shares beginnings: all 2^t of them cost one opening
        each.
        """
        rows = np.ascontiguousarray(coalitions)
        order = np.lexsort(tuple(~rows.T[::-1]))
        size = self.closed.nbytes
        depth = int(np.clip(STACK_BYTES // max(size, 1), 1, self.n_players))
        found = np.empty(len(rows))
        found[order] = coalition_values(
            *self._network, *self._gates, self.closed, rows[order], depth
        )
        return found

    def marginals(self, orders: IntArray) -> FloatArray:
        """What each player gains when it joins those before it, shape (k, t), by player.

        Parameters
        ----------
        orders : ndarray of int, shape (k, t)
            Permutations of the players; each costs one maximum flow.
        """
        rows = np.ascontiguousarray(orders, dtype=np.int64)
        return np.asarray(
            marginal_flows(*self._network, *self._gates, self.closed, rows), dtype=np.float64
        )

    def intervals(self, progress: bool = False) -> FloatArray:
        """Least and greatest flow through each player over all maximum flows, shape (t, 2).

        One maximum flow, then for every player two more on its residual network: what can be led
        from the player to the others, and from the others to the player.
        """
        indptr, indices, back, source, sink = self._network
        whole = self.arcs.capacity.copy()
        maximum_flow(indptr, indices, back, whole, source, sink)
        found = np.empty((self.n_players, 2))
        with progress_bar(self.n_players, progress, "token", "intervals") as advance:
            for start in range(0, self.n_players, _PLAYERS):
                some = np.arange(start, min(start + _PLAYERS, self.n_players))
                found[some] = player_intervals(*self._network, *self._gates, whole, some)
                for _ in some:
                    advance()
        return found

    def flow_with(self, inflow: FloatArray) -> tuple[FloatArray, FloatArray]:
        """A maximum flow through players that take at most `inflow`, and its cut.

        Where the maximum is not reached by that, rounding included, all players may take more.

        Returns
        -------
        ndarray, shape (m,)
            Flow of the kept edges.
        ndarray, shape (n_nodes,)
            1 on the source side of a minimum cut, 0 below it.
        """
        capacity = self.arcs.capacity
        limited = capacity.copy()
        for j in range(self.n_players):
            mine = self.gate[self.first[j] : self.first[j + 1]]
            if len(mine):
                limited[mine] = _shared(float(inflow[j]), capacity[mine])
        residual = limited.copy()
        indptr, indices, back, source, sink = self._network
        maximum_flow(indptr, indices, back, residual, source, sink)
        residual[self.gate] += capacity[self.gate] - limited[self.gate]
        residual[self.gate] = np.where(np.isinf(capacity[self.gate]), np.inf, residual[self.gate])
        level, _, _ = maximum_flow(indptr, indices, back, residual, source, sink)
        sent = np.where(residual > 0, residual[back], capacity)
        return self.arcs.edge_flow(sent), (level[: self.arcs.nodes] >= 0).astype(np.float64)


def _shared(amount: float, capacity: FloatArray) -> FloatArray:
    """A player's flow divided among its gates: in proportion, unlimited ones first."""
    free = np.isinf(capacity)
    part = free / free.sum() if free.any() else capacity / capacity.sum()
    return np.asarray(np.minimum(amount * part, capacity))
