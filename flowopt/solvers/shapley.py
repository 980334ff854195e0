"""`ShapleyFlow`: lead a maximum flow to the tokens by their Shapley values."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import Objective, ShapleyFlow
from flowopt.solvers.base import RawSolution, Solver
from flowopt.solvers.coalitions import PlayerGates
from flowopt.solvers.fair import one_player_per_path


@dataclass(frozen=True)
class Shapley(Solver):
    """One maximum flow in which every token takes at most its Shapley value.

    Because the values are the token inflows of some maximum flow, it leaves nothing behind.
    """

    name: ClassVar[str] = "shapley"
    package: ClassVar[str] = "numba"

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:  # noqa: D102
        if not isinstance(objective, ShapleyFlow):
            return "it is made for ShapleyFlow"
        if not one_player_per_path(net):
            return "it needs every path to end in exactly one player, or just below it"
        return None

    def solve(  # noqa: D102
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        began = time.perf_counter()
        assert isinstance(objective, ShapleyFlow)  # refusal
        values = objective.resolve(net).values
        assert values is not None  # resolve
        gates = PlayerGates.of(net)
        built = time.perf_counter()
        kept, side = gates.flow_with(values.values)
        flow = np.zeros(len(net.graph.capacity))
        flow[net.edges.index] = kept
        return RawSolution(
            flow=flow,
            potential=side,
            message=f"Shapley values {values.method}"
            + (f" from {values.samples} permutations" if values.samples else ""),
            build_seconds=built - began,
            solve_seconds=time.perf_counter() - built,
            extra={
                "permutations": values.samples,
                "largest_stderr": float(values.stderr.max(initial=0.0)),
            },
        )
