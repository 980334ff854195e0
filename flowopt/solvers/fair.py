"""Proportionally and max-min fair token inflows by decomposition into tight sets.

The token inflows of all feasible flows form a polymatroid; both objectives ask for the
lexicographically optimal base of it (method.md section 8c). Decomposition (Megiddo 1974;
Fujishige 1980): give all tokens of a piece the same level; if a flow attains it, the piece is
done; otherwise the minimum cut splits the piece into tokens that cannot have so much and tokens
that can have more, and every edge of the cut is full. At most 2t maximum flows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from flowopt.certificate import repaired
from flowopt.network import FloatArray, FlowNetwork, IntArray
from flowopt.objectives import MaxMinFair, Objective, ProportionalFair, reachable_players
from flowopt.solvers.base import RawSolution, Solver
from flowopt.solvers.scipy_maxflow import CutFlow, max_flow_arrays

ATTAINED = 1e-13  # part of a piece's flow that may be missing through rounding
MARGIN = 1e-15  # keeps rounding from pricing an edge with much room just above zero


@dataclass(frozen=True)
class FairDecomposition(Solver):
    """The decomposition algorithm for `ProportionalFair` and `MaxMinFair`.

    Exact to rounding: its minimum cuts are the tight sets that prove the optimum.
    """

    name: ClassVar[str] = "fair"
    package: ClassVar[str] = "scipy"

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:  # noqa: D102
        if type(objective) not in (ProportionalFair, MaxMinFair):
            return "it is made for ProportionalFair and MaxMinFair"
        if one_player_per_path(net):
            return None
        return (
            "it needs every path to end in exactly one player, or just below it; here players "
            "lie above one another, or some sinks are not players"
        )

    def solve(  # noqa: D102
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        began = time.perf_counter()
        arcs = _PlayerArcs.of(net)
        built = time.perf_counter()
        arc_flow, below, calls = _decompose(arcs, net.return_capacity)
        flow = np.zeros(len(net.graph.capacity))
        flow[net.edges.index] = arcs.edge_flow(arc_flow)
        flow, _ = repaired(net, flow)  # so that the rates are those of the flow that is certified
        inflow = net.inflow(flow[net.edges.index])
        potential = np.zeros(net.graph.n_nodes)
        for players, nodes in below:
            rate = 1 / max(inflow[players].min(), np.finfo(np.float64).tiny)
            potential[nodes[nodes < net.graph.n_nodes]] = -rate * (1 + MARGIN)
        potential[net.graph.sink] = 0.0
        return RawSolution(
            flow=flow,
            potential=potential,
            message=f"{len(below)} levels from {calls} maximum flows",
            build_seconds=built - began,
            solve_seconds=time.perf_counter() - built,
            iterations=calls,
            extra={"levels": len(below)},
        )


def one_player_per_path(net: FlowNetwork) -> bool:
    """Whether players absorb: each is a sink without edges out, or feeds only such sinks."""
    graph, edges = net.graph, net.edges
    player = np.zeros(graph.n_nodes, dtype=bool)
    player[graph.players] = True
    leaves = np.zeros(graph.n_nodes, dtype=bool)
    leaves[edges.tail] = True
    pure = graph.sink & ~leaves
    from_player, to_player = player[edges.tail], player[edges.head]
    if (graph.sink & leaves & graph.alive).any() or (from_player & ~pure[edges.head]).any():
        return False
    if (from_player & to_player).any():
        return False
    stray = graph.sink & ~player & graph.alive  # sinks other than players: fed by players alone
    return not (stray[edges.head] & ~from_player).any() and not (stray & graph.source).any()


@dataclass(frozen=True, eq=False)
class _PlayerArcs:
    """The kept edges with every player a terminal without edges out.

    A player that is no sink itself gets a new node below it, behind an arc with the capacity
    of all its edges out; those are dropped here and get its flow in `edge_flow`.
    """

    tail: IntArray
    head: IntArray
    capacity: FloatArray
    supply: FloatArray
    terminal: IntArray  # node of each reachable player
    player: IntArray  # its index among the players
    kept: IntArray  # kept edges that are arcs here, in order; new arcs come after them
    shares: Any  # flow of the dropped edges = shares @ flow of the new arcs
    dropped: IntArray

    @classmethod
    def of(cls, net: FlowNetwork) -> _PlayerArcs:
        """Arcs of a network whose players absorb."""
        graph, edges = net.graph, net.edges
        index = np.flatnonzero(reachable_players(net))
        nodes = graph.players[index]
        inner = np.flatnonzero(~graph.sink[nodes])
        new = np.full(graph.n_nodes, -1)
        new[nodes[inner]] = np.arange(len(inner))
        dropped = np.flatnonzero(new[edges.tail] >= 0)
        kept = np.flatnonzero(new[edges.tail] < 0)
        owner = new[edges.tail[dropped]]
        limit = np.bincount(owner, edges.capacity[dropped], minlength=len(inner))
        total, own = limit[owner], edges.capacity[dropped]
        many = np.bincount(owner, np.isinf(own), minlength=len(inner))[owner]
        free = np.isinf(own)  # an unlimited edge takes everything
        part = own / np.where(np.isinf(total), 1.0, total)
        share = np.where(many > 0, free / np.maximum(many, 1), part)
        terminal = nodes.copy()
        terminal[inner] = graph.n_nodes + np.arange(len(inner))
        supply = np.zeros(graph.n_nodes + len(inner))
        supply[: graph.n_nodes][graph.source & graph.alive] = np.inf
        return cls(
            tail=np.r_[edges.tail[kept], nodes[inner]],
            head=np.r_[edges.head[kept], terminal[inner]],
            capacity=np.r_[edges.capacity[kept], limit],
            supply=supply,
            terminal=terminal,
            player=index,
            kept=kept,
            shares=(share, owner),
            dropped=dropped,
        )

    def edge_flow(self, flow: FloatArray) -> FloatArray:
        """Flow of every kept edge (m,) from the flow of every arc."""
        share, owner = self.shares
        found = np.empty(len(self.kept) + len(self.dropped))
        found[self.kept] = flow[: len(self.kept)]
        found[self.dropped] = share * flow[len(self.kept) :][owner]
        return found


@dataclass(frozen=True, eq=False)
class _Piece:
    """Part of the network whose tokens share `own` flow between them."""

    nodes: IntArray
    arcs: IntArray  # both ends among the nodes
    supply: FloatArray  # what enters each node from outside, all of it used
    fixed: FloatArray  # what leaves each node to pieces of lower level, all of it full
    players: IntArray
    own: float
    limit: float | None = None

    def attain(self, all_: _PlayerArcs, level: FloatArray | float) -> CutFlow:
        """Maximum flow when every token of the piece may absorb `level`."""
        place = np.full(len(all_.supply), -1)
        place[self.nodes] = np.arange(len(self.nodes))
        demand = self.fixed.copy()
        demand[place[all_.terminal[self.players]]] += level
        return max_flow_arrays(
            place[all_.tail[self.arcs]],
            place[all_.head[self.arcs]],
            all_.capacity[self.arcs],
            self.supply,
            demand,
            self.limit,
        )

    def split(self, all_: _PlayerArcs, side: Any, flow: FloatArray) -> tuple[_Piece, _Piece]:
        """Parts on the source side of a cut and below it; the flow across is set to the cut's."""
        upper = np.zeros(len(all_.supply), dtype=bool)
        upper[self.nodes[side]] = True
        tail, head = upper[all_.tail[self.arcs]], upper[all_.head[self.arcs]]
        across = self.arcs[tail & ~head]
        flow[across] = all_.capacity[across]
        flow[self.arcs[~tail & head]] = 0.0
        gained = np.bincount(all_.head[across], flow[across], minlength=len(upper))
        lost = np.bincount(all_.tail[across], flow[across], minlength=len(upper))
        high, low = self.nodes[side], self.nodes[~side]
        mine = upper[all_.terminal[self.players]]
        below = _Piece(
            low,
            self.arcs[~tail & ~head],
            self.supply[~side] + gained[low],
            self.fixed[~side],
            self.players[~mine],
            0.0,
        )
        below = replace(below, own=float(below.supply.sum() - below.fixed.sum()))
        above = _Piece(
            high,
            self.arcs[tail & head],
            self.supply[side],
            self.fixed[side] + lost[high],
            self.players[mine],
            self.own - below.own,
            self.limit,
        )
        return above, below


def _decompose(
    all_: _PlayerArcs, limit: float | None
) -> tuple[FloatArray, list[tuple[IntArray, IntArray]], int]:
    """Flow of every arc, (players, nodes) of every level, and the number of maximum flows."""
    n = len(all_.supply)
    flow = np.zeros(len(all_.tail))
    levels: list[tuple[IntArray, IntArray]] = []
    everything = np.arange(len(all_.player))
    whole = _Piece(
        np.arange(n), np.arange(len(flow)), all_.supply, np.zeros(n), everything, 0.0, limit
    )
    found = whole.attain(all_, np.inf)
    calls = 1
    above, below = whole.split(all_, found.source_side, flow)
    flow[above.arcs] = found.flow[above.arcs]  # above the lowest full cut nothing is at stake
    limited = not found.source_side.any()  # the return edge is the cut
    pieces = [replace(whole, own=found.value) if limited else below]
    while pieces:
        piece = pieces.pop()
        level = piece.own / len(piece.players)
        found = piece.attain(all_, level)
        calls += 1
        wanted = float(piece.fixed.sum()) + piece.own
        upper = np.zeros(n, dtype=bool)
        upper[piece.nodes[found.source_side]] = True
        mine = upper[all_.terminal[piece.players]]
        if wanted - found.value <= ATTAINED * wanted or mine.all() or not mine.any():
            flow[piece.arcs] = found.flow
            levels.append((all_.player[piece.players], piece.nodes))
        else:
            pieces += piece.split(all_, found.source_side, flow)
    return flow, levels, calls
