"""Derivatives by the capacities of a network, shaped like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from flowopt.errors import InputError
from flowopt.network import FloatArray, FlowNetwork


class EdgeEffect(NamedTuple):
    """What one block edge does to one token's attribution.

    `derivative` is d a / d u, `elasticity` the relative change of a for a relative change of u.
    """

    block: int
    tail: int
    head: int
    derivative: float
    elasticity: float


@dataclass(frozen=True, eq=False)
class CapacityGradient:
    """Derivatives by every capacity of a network, and by mu.

    Attributes
    ----------
    network : FlowNetwork
    flat : ndarray, shape (E,)
        By every possible edge of ``network.graph``; 0 on pruned and on unlimited edges.
    return_capacity, mu : float
        By the return edge's limit (0 if there is none), and by mu in units of flow.
    """

    network: FlowNetwork
    flat: FloatArray = field(repr=False)
    return_capacity: float
    mu: float

    @property
    def blocks(self) -> tuple[FloatArray, ...]:
        """By the capacities of each block, in ``network.blocks`` order, shaped like it."""
        return tuple(self.network.graph.blocks_of(self.flat))

    @property
    def links(self) -> tuple[FloatArray, ...]:
        """By the capacities of each link, in ``network.links`` order, shape (k,)."""
        at = sum(block.capacity.size for block in self.network.blocks)
        ends = at + np.cumsum([0, *(len(link.pairs) for link in self.network.links)])
        return tuple(self.flat[a:b] for a, b in pairwise(ends))

    @property
    def node_capacity(self) -> dict[str, FloatArray]:
        """By the node capacities of each limited group, shape (n,)."""
        net = self.network
        found, at = {}, len(self.flat)
        for name in reversed(list(net.node_capacity or {})):
            at -= net.groups[name]
            found[name] = self.flat[at : at + net.groups[name]]
        return found


def set_changes(
    targets: Sequence[FloatArray], changes: Sequence[ArrayLike] | ArrayLike | None, name: str
) -> None:
    """Copy changes into views, checking their number and shapes."""
    if changes is None:
        return
    arrays = [np.asarray(change, dtype=np.float64) for change in changes]  # type: ignore[union-attr]
    if [a.shape for a in arrays] != [t.shape for t in targets]:
        raise InputError(
            f"{name}: shapes {[a.shape for a in arrays]} do not fit {[t.shape for t in targets]}."
        )
    for target, array in zip(targets, arrays, strict=True):
        target[:] = array
