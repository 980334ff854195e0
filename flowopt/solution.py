"""What a solve returns: a feasible flow, potentials, and a certificate computed by us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, overload

from numpy.typing import ArrayLike

from flowopt.lazy import lazy
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import Objective

if TYPE_CHECKING:
    from flowopt.sensitivity import Sensitivity


class Status(StrEnum):
    """How far the answer can be trusted; decided by our certificate, never by a backend."""

    OPTIMAL = "optimal"
    INACCURATE = "inaccurate"
    FEASIBLE = "feasible"
    FAILED = "failed"

    @property
    def advice(self) -> str:
        """What the status means and what to do about it."""
        return {
            "optimal": "The certificate proves the optimum to tolerance.",
            "inaccurate": "The flow is feasible but its gap is above tolerance; try another "
            "solver (solver=None picks the best), a larger mu, or tighter solver options.",
            "feasible": "The flow is feasible; no bound on its gap is known for this objective.",
            "failed": "The solver returned no usable flow; try another solver.",
        }[self.value]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Proof of a solution's quality, computed from the returned numbers alone.

    Attributes
    ----------
    conservation, bounds : float
        Largest conservation residual and largest bound violation, relative to |f|.
    gap : float or None
        Upper bound on (optimum - objective value): relative to |f| for objectives in units of
        flow, absolute otherwise. None where no bound is known.
    attribution_error : ndarray, shape (n_players,), or None
        Upper bound on the distance of every attribution from the unique optimum's, in units of
        flow; None where the optimum does not determine attributions.
    delta : float or None
        Newton distance of method.md section 7 (barrier objectives only).
    method : str
        Which bound gave the gap: "delta", "dual", "Frank-Wolfe", "fair", "Shapley" or "none".
    """

    conservation: float
    bounds: float
    gap: float | None
    attribution_error: FloatArray | None = None
    delta: float | None = None
    method: str = "none"

    def __str__(self) -> str:
        parts = [f"conservation {self.conservation:.1e}", f"bounds {self.bounds:.1e}"]
        parts.append("gap unknown" if self.gap is None else f"gap {self.gap:.1e} ({self.method})")
        if self.attribution_error is not None:
            parts.append(f"attribution error {self.attribution_error.max(initial=0.0):.1e}")
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class FlowSolution:
    """A feasible flow of a network, with its certificate.

    Attributes
    ----------
    network : FlowNetwork
    objective : Objective
        As it was asked for.
    resolved : Objective
        With absolute parameters (mu in units of flow).
    status : Status
    value : float
        |f|, the flow from source to sink.
    objective_value : float
        The objective with its regulariser.
    certificate : Certificate
    flow : ndarray, shape (E,)
        Flow on every possible edge, 0 on pruned ones; see `flows` for the blocks' shapes.
    potential : ndarray, shape (n_nodes,)
        See `potentials` for the groups.
    solver : str
        Who solved it.
    stats : mapping
        build_seconds, solve_seconds, certify_seconds, iterations, and the solver's own facts.
    """

    network: FlowNetwork
    objective: Objective
    resolved: Objective
    status: Status
    value: float
    objective_value: float
    certificate: Certificate
    flow: FloatArray = field(repr=False)
    potential: FloatArray = field(repr=False)
    solver: str
    stats: Mapping[str, Any] = field(repr=False)

    @property
    def flows(self) -> tuple[FloatArray, ...]:
        """Flow of each block, in ``network.blocks`` order, shaped like its capacity."""
        return tuple(self.network.graph.blocks_of(self.flow))

    @property
    def link_flows(self) -> tuple[FloatArray, ...]:
        """Flow of each link, in ``network.links`` order, shape (k,)."""
        at = sum(block.capacity.size for block in self.network.blocks)
        found = []
        for link in self.network.links:
            found.append(self.flow[at : at + len(link.pairs)])
            at += len(link.pairs)
        return tuple(found)

    @lazy
    def _throughput(self) -> FloatArray:
        through = self.network.graph.throughput(self.flow)
        through.setflags(write=False)
        return through

    @property
    def node_flows(self) -> dict[str, FloatArray]:
        """Flow through every node, by group, shape (n,)."""
        return self.network.graph.groups_of(self._throughput)

    @property
    def potentials(self) -> dict[str, FloatArray]:
        """Node potentials by group; source 1, sink 0, r = y_tail - y_head the price of an edge.

        For plain maximum flow the nodes with potential 1 are the source side of a minimum cut.
        """
        return self.network.graph.groups_of(self.potential)

    @property
    def attributions(self) -> FloatArray:
        """Flow through each player (input token), shape (n_players,); sums to `value`."""
        return self._throughput[self.network.graph.players]

    @property
    def max_flow(self) -> float:
        """F*, the value of the plain maximum flow on the same network."""
        return self.network.max_flow

    @overload
    def sensitivity(self, weights: None = None) -> Sensitivity: ...

    @overload
    def sensitivity(self, weights: ArrayLike) -> tuple[FloatArray, ...]: ...

    def sensitivity(self, weights: ArrayLike | None = None) -> Sensitivity | tuple[FloatArray, ...]:
        """How the attributions of a barrier optimum change with the capacities.

        Parameters
        ----------
        weights : array_like, shape (n_players,), optional

        Returns
        -------
        tuple of ndarray, or Sensitivity
            With `weights`, the gradient of ``weights @ attributions`` over the capacities, one
            array per block, shaped like it; else an object with products from both sides,
            elasticities and the edges that matter most. See `flowopt.sensitivity`: mu stays
            fixed in units of flow.

        Raises
        ------
        UnsupportedError
            For objectives other than `LogBarrier`, and solutions without proof.
        """
        from flowopt.sensitivity import Sensitivity

        found = Sensitivity.of(self)
        return found if weights is None else found.vjp(weights).blocks

    def __str__(self) -> str:
        return (
            f"{self.objective!r} by {self.solver}: {self.status.value}, |f| = {self.value:.6g}, "
            f"{self.certificate}"
        )
