# mypy: disable-error-code="untyped-decorator"
"""All flows to one input token, layer by layer: bounds where they meet, else a maximum flow.

Everything in both bounds is proved: `lower` is the value of a feasible flow, `upper` the capacity
of a cut, both up to the rounding of the sums themselves.
"""

from __future__ import annotations

import numpy as np

from flowopt.methods.layered_dinic import (
    Floats,
    Ints,
    Workspace,
    cut_capacity,
    send,
    take_back,
)
from flowopt.network.kernels import compiled

MEETING = 1e-12  # relative difference below which two bounds are taken as one value


@compiled
def mixture(capacity: Floats, below: Floats, order: Ints) -> float:
    """Largest value among mixtures of the flows from the layer below.

    Flows from each node k below, of value ``below[k]``, all at once and with weights of sum at
    most 1, respect every capacity below; the edge to k then carries weight_k * below[k], which
    is limited by ``capacity[k]``. The best weights fill the nodes of the largest values first.
    """
    left, total = 1.0, 0.0
    for k in order:
        value = below[k]
        if value <= 0:
            break
        if capacity[k] >= left * value:
            return float(total + left * value)
        total += capacity[k]
        left -= capacity[k] / value
    return total


@compiled
def smaller_sum(capacity: Floats, below: Floats) -> float:
    """Capacity of a cut: to each node below, either the edge there or the cut under it."""
    total = 0.0
    for k in range(len(capacity)):
        total += min(capacity[k], below[k])
    return total


@compiled
def flows_to(
    work: Workspace,
    sink: int,
    wanted: Ints,
    positions: Ints,
    lower: Floats,
    upper: Floats,
) -> int:
    """Fill the columns of one token in place, and return how many flows had to be sent.

    Parameters
    ----------
    work : Workspace
    sink : int
        The token.
    wanted : ndarray, shape (L,)
        Row of `lower` and `upper` for the flows from each layer, -1: not wanted. Layer l is
        entry l - 1.
    positions : ndarray, shape (p,)
        Nodes from which the flows start, the same in every layer.
    lower, upper : ndarray, shape (layers wanted, p, t)
    """
    layers, t, _ = work.capacity.shape
    entering = work.capacity[0, :, sink].sum()
    sent = 0
    for top in range(1, layers + 1):
        row = wanted[top - 1]
        if row < 0:
            continue
        low, high, known = np.zeros(t), np.zeros(t), top == 2
        if top == 2:
            low[:] = work.capacity[0, :, sink]
            high[:] = low
        elif top > 2 and wanted[top - 2] >= 0 and len(positions) == t:
            known = True
            low[:] = lower[wanted[top - 2], :, sink]
            high[:] = upper[wanted[top - 2], :, sink]
        order = np.argsort(-low)
        for p in range(len(positions)):
            i = positions[p]
            capacity = work.capacity[top - 1, i]
            if top == 1:
                least = most = capacity[sink]
            else:
                most = min(entering, capacity.sum())
                least = 0.0
                if known:
                    most = min(most, smaller_sum(capacity, high))
                    least = mixture(capacity, low, order)
                if top == 2:  # the ways over different nodes share no edge
                    least = most = smaller_sum(capacity, high)
                if least < most * (1 - MEETING):
                    touched = send(work, top, i, sink)
                    most = min(most, cut_capacity(work, top, i, sink))
                    least = max(least, take_back(work, touched, top, i, sink))
                    sent += 1
            lower[row, p, sink], upper[row, p, sink] = least, most
    return sent
