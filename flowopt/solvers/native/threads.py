"""Passes over one large network on several cores.

The compiled passes release the interpreter lock, so plain threads serve; each takes a run of
rows and sums into arrays of its own. numba's own parallel loops are avoided: their default
scheduler must not be entered from two threads at once, as batches do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from flowopt.network import IntArray

EDGES_PER_THREAD = 1_000_000  # below, handing work over costs more than it saves


def wanted(edges: int) -> int:
    """Number of threads worth using for a network of this many edges."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, edges // EDGES_PER_THREAD))


def split(rows: tuple[Any, ...], parts: int) -> list[tuple[Any, ...]]:
    """Cut rows (tail, head, start, ...) into runs of about equal numbers of edges."""
    starts: IntArray = rows[2]
    cuts = np.searchsorted(starts, np.linspace(0, starts[-1], parts + 1))
    cuts[0], cuts[-1] = 0, len(starts) - 1
    return [
        (rows[0][a:b], rows[1][a:b], starts[a : b + 1], *(extra[a:b] for extra in rows[3:]))
        for a, b in pairwise(cuts)
    ]


def each(work: Callable[[int], Any], parts: int) -> list[Any]:
    """Results of work(0), .., work(parts - 1), run at the same time."""
    if parts == 1:
        return [work(0)]
    others = [_pool().submit(work, k) for k in range(1, parts)]
    return [work(0), *(other.result() for other in others)]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="flowopt")
