"""Block Cholesky factorisation of a network's Laplacian, group of nodes by group of nodes.

A layered network's Laplacian is block tridiagonal, and eliminating its groups in order leaves it
so; other networks fill in where two groups share a neighbour. The blocks are dense, so all the
work is in LAPACK. Single precision takes half the time and memory, and as a preconditioner it
leaves conjugate gradients one to three steps, also where weights span sixteen decades (measured).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import sgemm, ssyrk, strsm, strsv
from scipy.linalg.lapack import spotrf
from threadpoolctl import ThreadpoolController

from flowopt.network import FloatArray, IntArray
from flowopt.network.graph import Graph
from flowopt.solvers.native import kernels

Single = NDArray[np.float32]

# added to a unit diagonal, above the rounding of single precision; the next if one is not enough
SHIFTS = (1e-6, 1e-4, 1e-2)


class _Limit:
    """The limit in force and how many callers rely on it: it holds for the whole process."""

    lock = threading.Lock()
    pools: ThreadpoolController | None = None
    users = 0
    held: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread meanwhile: blocks are small, and threads would fight over them.

    May be nested and used by several threads at once; the last to leave lifts the limit.
    """
    with _Limit.lock:
        if not _Limit.users:
            _Limit.pools = _Limit.pools or ThreadpoolController()  # finding them takes a while
            _Limit.held = _Limit.pools.limit(limits=1, user_api="blas")
        _Limit.users += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.users -= 1
            if not _Limit.users:
                _Limit.held.restore_original_limits()


class BlockPattern:
    """Which blocks exist before and after elimination; made once per network.

    Attributes
    ----------
    sizes : list of int
        Unknowns of each part; a part holds the unknowns that first occur in one group.
    worth : int
        Conjugate gradient steps that take about the time of one factorisation.
    """

    def __init__(self, graph: Graph, rows: tuple[Any, ...], label: IntArray) -> None:
        size = int(label.max(initial=-1)) + 1
        groups = [*enumerate(graph.network.groups.values()), *_halves(graph)]
        group = np.repeat([i for i, _ in groups], [n for _, n in groups])
        owner = np.full(size, len(graph.network.groups))
        free = np.flatnonzero(label >= 0)
        np.minimum.at(owner, label[free], group[free])
        used, part = np.unique(owner, return_inverse=True)
        # eliminate from the bottom of the network up: then a tail's edges to a part lie in one
        # row of the block (tail, head)
        rank = np.empty(graph.n_nodes)
        rank[graph.order] = np.arange(graph.n_nodes)
        first = np.full(len(used), np.inf)
        np.minimum.at(first, part[label[free]], rank[free])
        position = np.argsort(np.argsort(-first, kind="stable"), kind="stable")
        self.part = position[part]
        self.sizes = np.bincount(self.part, minlength=len(used)).tolist()
        ends = np.cumsum(self.sizes)
        by_part = np.argsort(self.part, kind="stable")
        self.members = [by_part[end - n : end] for n, end in zip(self.sizes, ends, strict=True)]
        self.local = np.empty(size, dtype=np.int64)
        self.local[by_part] = np.arange(size) - np.repeat(ends - self.sizes, self.sizes)
        self.pairs = self._fill(rows, label)
        self.offset = np.full((len(used), len(used)), -1, dtype=np.int64)
        total = 0
        for i, j in sorted(self.pairs):
            self.offset[i, j] = total
            total += self.sizes[i] * self.sizes[j]
        self.total = total
        self.below = [
            sorted(i for i, j in self.pairs if j == k and i > k) for k in range(len(used))
        ]
        factor = sum(5e-5 + self._part_cost(k) / 80e9 for k in range(len(used)))
        edges = int(rows[2][-1])
        # seconds, measured on one core; only their ratio matters
        self.worth = max(10, int((factor + 3e-9 * edges) / (5e-6 + 0.15e-9 * edges)))

    def _fill(self, rows: tuple[Any, ...], label: IntArray) -> set[tuple[int, int]]:
        """Pairs (i, j), i >= j, of parts whose block is not zero after elimination."""
        tails, heads, starts = rows[:3]
        parts = np.where(label >= 0, self.part[np.maximum(label, 0)], -1)
        pairs = {(k, k) for k in range(len(self.sizes))}
        runs = np.array([parts[tails], heads, np.diff(starts)])
        fresh = np.ones(runs.shape[1], dtype=bool)  # rows unlike the one before: blocks have few
        fresh[1:] = (runs[:, 1:] != runs[:, :-1]).any(axis=0)
        for tail, head, length in set(zip(*runs[:, fresh].tolist(), strict=True)):
            for other in set(parts[head : head + length].tolist()):
                if tail >= 0 and other >= 0:
                    pairs.add((max(tail, other), min(tail, other)))
        for k in range(len(self.sizes)):
            near = [i for i, j in pairs if j == k and i > k]
            pairs |= {(max(a, b), min(a, b)) for a in near for b in near}
        return pairs

    def _part_cost(self, k: int) -> float:
        n = self.sizes[k]
        near = sum(self.sizes[i] for i in self.below[k])
        return float(n**3 / 3 + n**2 * near + n * near**2)

    def factorise(
        self, weight: Any, diagonal: FloatArray, rows: tuple[Any, ...], label: IntArray
    ) -> BlockCholesky | None:
        """Factors for the current weights; None if the matrix is singular to rounding.

        Call it, and solve with the factors, under `one_blas_thread`.

        Parameters
        ----------
        weight : ndarray, shape (E,)
        diagonal : ndarray, shape (unknowns,)
            Sums of the weights at each unknown.
        rows, label
            As for `BlockPattern`.
        """
        scale = 1 / np.sqrt(np.maximum(diagonal, 1e-300))
        for shift in SHIFTS:
            block = self._assemble(weight, rows, label, scale, shift)
            if self._eliminate(block):
                return BlockCholesky(self, block, scale)
            del block  # before the next is made
        return None

    def _assemble(
        self, weight: Any, rows: tuple[Any, ...], label: IntArray, scale: FloatArray, shift: float
    ) -> dict[tuple[int, int], Single]:
        """Blocks of the Laplacian scaled to a diagonal of 1 + shift."""
        flat = np.zeros(self.total, dtype=np.float32)
        kernels.assemble_blocks(
            weight, *rows[:3], label, self.part, self.local, np.array(self.sizes), self.offset,
            scale, flat,
        )  # fmt: skip
        block = {}
        for i, j in self.pairs:
            at, shape = self.offset[i, j], (self.sizes[i], self.sizes[j])
            block[i, j] = flat[at : at + shape[0] * shape[1]].reshape(shape)
        for k, size in enumerate(self.sizes):
            block[k, k].reshape(-1)[:: size + 1] += np.float32(1 + shift)
        return block

    def _eliminate(self, block: dict[tuple[int, int], Single]) -> bool:
        """Factorise in place; whether that went through.

        BLAS sees every block transposed, which is its own column order.
        """
        for k in range(len(self.sizes)):
            _, failed = spotrf(block[k, k].T, lower=0, clean=0, overwrite_a=1)
            if failed:
                return False
            for i in self.below[k]:
                strsm(1.0, block[k, k].T, block[i, k].T, trans_a=1, overwrite_b=1)
            for i in self.below[k]:
                ssyrk(-1.0, block[i, k].T, 1.0, block[i, i].T, trans=1, overwrite_c=1)
                for j in self.below[k]:
                    if j < i:
                        sgemm(
                            -1.0, block[j, k].T, block[i, k].T, 1.0, block[i, j].T,
                            trans_a=1, overwrite_c=1,
                        )  # fmt: skip
        return True


class BlockCholesky:
    """Factors of one Laplacian, in single precision."""

    def __init__(
        self, pattern: BlockPattern, block: dict[tuple[int, int], Single], scale: FloatArray
    ) -> None:
        self.pattern, self.block, self.scale = pattern, block, scale

    def solve(self, right: FloatArray) -> FloatArray:
        """Solve for one right-hand side, shape (unknowns,), to single precision."""
        pattern, scaled = self.pattern, self.scale * right
        unit = float(np.abs(scaled).max(initial=0.0)) or 1.0  # single precision has little range
        parts = [(scaled[m] / unit).astype(np.float32) for m in pattern.members]
        for k in range(len(parts)):
            strsv(self.block[k, k].T, parts[k], trans=1, overwrite_x=1)
            for i in pattern.below[k]:
                parts[i] -= self.block[i, k] @ parts[k]
        for k in reversed(range(len(parts))):
            for i in pattern.below[k]:
                parts[k] -= parts[i] @ self.block[i, k]
            strsv(self.block[k, k].T, parts[k], overwrite_x=1)
        x = np.empty(len(right))
        for m, values in zip(pattern.members, parts, strict=True):
            x[m] = values
        x *= self.scale
        x *= unit
        return x


def _halves(graph: Graph) -> list[tuple[int, int]]:
    """Group number and size of the second halves of split nodes."""
    names = list(graph.network.groups)
    return [(names.index(g), graph.network.groups[g]) for g in graph.network.node_capacity or {}]
