"""Block Cholesky factorisation of a network's Laplacian, group of nodes by group of nodes.

A layered network's Laplacian is block tridiagonal, and eliminating its groups in order leaves it
so; other networks fill in where two groups share a neighbour. The blocks are dense, so all the
work is in LAPACK.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg.blas import dgemm, dsyrk, dtrsm
from scipy.linalg.lapack import dpotrf
from threadpoolctl import ThreadpoolController

from flowopt.network import FloatArray, IntArray
from flowopt.network.graph import Graph
from flowopt.solvers.native import kernels

SHIFT = 1e-15  # added to a unit diagonal: a rounding error's worth


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
        # eliminate from the top of the network down: the order of the first unknown's node
        rank = np.empty(graph.n_nodes)
        rank[graph.order] = np.arange(graph.n_nodes)
        first = np.full(len(used), np.inf)
        np.minimum.at(first, part[label[free]], rank[free])
        position = np.argsort(np.argsort(first, kind="stable"), kind="stable")
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
        factor = sum(1e-4 + self._part_cost(k) / 15e9 for k in range(len(used)))
        edges = int(rows[2][-1])
        # seconds, measured on one core; only their ratio matters
        self.worth = max(10, int((factor + 5e-9 * edges) / (5e-6 + 0.15e-9 * edges)))

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
        self, weight: Any, rows: tuple[Any, ...], label: IntArray
    ) -> BlockCholesky | None:
        """Factors for the current weights; None if the matrix is singular to rounding.

        Call it, and solve with the factors, under `one_blas_thread`.
        """
        flat = np.zeros(self.total)
        kernels.assemble_blocks(
            weight, *rows[:3], label, self.part, self.local, np.array(self.sizes), self.offset, flat
        )
        block = {
            (i, j): flat[at : at + self.sizes[i] * self.sizes[j]].reshape(
                self.sizes[i], self.sizes[j]
            )
            for (i, j), at in ((pair, self.offset[pair]) for pair in self.pairs)
        }
        scale = [
            1 / np.sqrt(np.maximum(block[k, k].diagonal(), 1e-300)) for k in range(len(self.sizes))
        ]
        for (i, j), values in block.items():
            values *= scale[i][:, None]
            values *= scale[j]
        for k in range(len(self.sizes)):
            np.fill_diagonal(block[k, k], 1 + SHIFT)
        try:
            self._eliminate(block)
        except np.linalg.LinAlgError:
            return None
        return BlockCholesky(self, block, scale)

    def _eliminate(self, block: dict[tuple[int, int], FloatArray]) -> None:
        """Factorise in place. BLAS sees every block transposed, which is its own column order."""
        for k in range(len(self.sizes)):
            _, failed = dpotrf(block[k, k].T, lower=0, clean=0, overwrite_a=1)
            if failed:
                raise np.linalg.LinAlgError(f"part {k} is not positive definite")
            for i in self.below[k]:
                dtrsm(1.0, block[k, k].T, block[i, k].T, trans_a=1, overwrite_b=1)
            for i in self.below[k]:
                dsyrk(-1.0, block[i, k].T, 1.0, block[i, i].T, trans=1, overwrite_c=1)
                for j in self.below[k]:
                    if j < i:
                        dgemm(
                            -1.0, block[j, k].T, block[i, k].T, 1.0, block[i, j].T,
                            trans_a=1, overwrite_c=1,
                        )  # fmt: skip


class BlockCholesky:
    """Factors of one Laplacian."""

    def __init__(
        self,
        pattern: BlockPattern,
        block: dict[tuple[int, int], FloatArray],
        scale: list[FloatArray],
    ) -> None:
        self.pattern, self.block, self.scale = pattern, block, scale

    def solve(self, right: FloatArray) -> FloatArray:
        """Solve for one right-hand side, shape (unknowns,)."""
        pattern = self.pattern
        parts = [s * right[m] for s, m in zip(self.scale, pattern.members, strict=True)]
        for k in range(len(parts)):
            parts[k] = _triangular(self.block[k, k], parts[k])
            for i in pattern.below[k]:
                parts[i] = parts[i] - self.block[i, k] @ parts[k]
        for k in reversed(range(len(parts))):
            for i in pattern.below[k]:
                parts[k] = parts[k] - parts[i] @ self.block[i, k]
            parts[k] = _triangular(self.block[k, k], parts[k], transposed=True)
        x = np.empty(len(right))
        for s, m, values in zip(self.scale, pattern.members, parts, strict=True):
            x[m] = s * values
        return x


def _triangular(factor: FloatArray, right: FloatArray, transposed: bool = False) -> FloatArray:
    """Solve L x = right, or L^T x = right, with L^T in the upper half of factor.T."""
    solved = scipy.linalg.solve_triangular(
        factor.T, right, lower=False, trans=0 if transposed else 1, check_finite=False
    )
    return np.asarray(solved)


def _halves(graph: Graph) -> list[tuple[int, int]]:
    """Group number and size of the second halves of split nodes."""
    names = list(graph.network.groups)
    return [(names.index(g), graph.network.groups[g]) for g in graph.network.node_capacity or {}]
