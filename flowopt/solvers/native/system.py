"""The unknowns of the dual problem, and Newton systems with a weighted graph Laplacian."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from flowopt.lazy import lazy
from flowopt.network import FloatArray
from flowopt.network.graph import Graph
from flowopt.solvers.native import kernels, threads
from flowopt.solvers.native.blocks import BlockCholesky, BlockPattern, one_blas_thread

FRESH, STALE = 60, 8  # most steps with the factors of these weights, and of earlier ones


class System:
    """A graph's rows with the return edge added, its unknowns, and arrays the passes reuse.

    Attributes
    ----------
    capacity : ndarray, shape (E,) or (E + 1,)
        0 on unlimited edges, whose ends are merged; the return edge last, where it is limited.
    rows : tuple of ndarray
        row_tail, row_head, row_start, reward.
    weight : ndarray, shape like capacity
        Edge weights of the last pass, in single precision where the capacities allow it.
    balance, diagonal : ndarray, shape (n_nodes,)
        Outflow less inflow, and sum of weights, of the last pass.
    size : int
        Number of unknowns.
    """

    def __init__(self, graph: Graph, parts: int | None = None) -> None:
        self.graph = graph
        self.capacity = graph.capacity
        if np.isinf(self.capacity).any():
            self.capacity = np.where(np.isinf(self.capacity), 0.0, self.capacity)
        tails, heads, starts = graph.row_tail, graph.row_head, graph.row_start
        reward = np.zeros(len(tails))
        back = graph.network.return_capacity
        if back is not None:
            top = np.flatnonzero(graph.source & graph.alive)[0]
            bottom = np.flatnonzero(graph.sink & graph.alive)[0]
            self.capacity = np.r_[self.capacity, back]
            tails, heads = np.r_[tails, bottom], np.r_[heads, top]
            starts, reward = np.r_[starts, starts[-1] + 1], np.r_[reward, 1.0]
        self.rows = (tails, heads, starts, reward)
        self.parts = parts or threads.wanted(len(self.capacity))
        self.pieces = threads.split(self.rows, self.parts)
        self.label = graph.label
        self.free = np.flatnonzero(self.label >= 0)
        self.size = int(self.label.max(initial=-1)) + 1
        self.scale = float(self.capacity.max(initial=0.0))
        self.edges = int(np.count_nonzero(self.capacity))
        self.dtype = self._storage()
        self.weight = np.empty(len(self.capacity), self.dtype)
        self.partial = np.empty((self.parts, 2, graph.n_nodes))
        self.balance, self.diagonal = np.empty(graph.n_nodes), np.empty(graph.n_nodes)
        self.cg_steps = self.factorisations = 0
        self.direct = False
        self.factors: BlockCholesky | None = None

    def _storage(self) -> type[Any]:
        """Single precision if no weight or state can leave its range."""
        least = kernels.least_positive(self.capacity)
        # a weight of the barrier is u^2 / (8 mu) or more, mu being a share of the scale
        safe = least**2 > 1e-35 * self.scale and 1e-9 < self.scale < 1e9
        return np.float32 if safe else np.float64

    def each(self, work: Callable[[int, tuple[Any, ...]], Any]) -> list[Any]:
        """Results of work(k, rows of piece k) for all pieces, on threads of their own."""
        return threads.each(lambda k: work(k, self.pieces[k]), self.parts)

    def collect(self) -> FloatArray:
        """Add up the pieces' `partial` balances and diagonals; the gradient by unknown."""
        self.balance, self.diagonal = self.partial.sum(axis=0)
        return self.gather(self.balance)

    def expand(self, x: FloatArray, fixed: FloatArray | float = 0.0) -> FloatArray:
        """Values of all nodes from the unknowns; `fixed` where there is none."""
        full = np.zeros(self.graph.n_nodes) + fixed
        full[self.free] = x[self.label[self.free]]
        return full

    def potential(self, x: FloatArray) -> FloatArray:
        """Potentials of all nodes, sources at 1 and sinks at 0."""
        return self.expand(x, self.graph.fixed)

    def reduce(self, potential: FloatArray) -> FloatArray:
        """Unknowns from the potentials of all nodes."""
        x = np.zeros(self.size)
        x[self.label[self.free]] = potential[self.free]
        x[~np.isfinite(x)] = 0.0
        return x

    def gather(self, values: FloatArray) -> FloatArray:
        """Sums of node values over the nodes of each unknown."""
        sums = np.bincount(self.label[self.free], values[self.free], self.size)
        return np.asarray(sums, dtype=np.float64)

    @lazy
    def pattern(self) -> BlockPattern:
        """Blocks of the Laplacian, for its factorisation."""
        return BlockPattern(self.graph, self.rows, self.label)

    def solve(self, right: FloatArray, tolerance: float) -> FloatArray:
        """Solve (Laplacian with the current weights) x = right.

        Conjugate gradients, preconditioned by the diagonal for as many steps as a factorisation
        would cost, then by a factorisation, to which all later systems of this network go at
        once: they only get harder as mu falls. Factors are used again while they serve.

        Parameters
        ----------
        right : ndarray, shape (unknowns,)
        tolerance : float
            By which the preconditioned norm of the residual falls.
        """
        x = np.zeros(self.size)
        if not self.direct:
            _, done = self._by_diagonal(right, tolerance, self.pattern.worth, x)
            self.direct = not done
            if done:
                return x
        # a network large enough for threads of ours has blocks large enough for those of BLAS
        with one_blas_thread() if self.parts == 1 else nullcontext():
            if self.factors is not None and self._by_factors(right, tolerance, STALE, x):
                return x
            self.factors = None  # before the next are made
            sums = self.gather(self.diagonal)
            self.factors = self.pattern.factorise(self.weight, sums, self.rows, self.label)
            self.factorisations += 1
            if self.factors is None:  # singular to rounding: what the diagonal reaches must do
                self._by_diagonal(right, tolerance, self.pattern.worth, x)
            else:
                self._by_factors(right, tolerance, FRESH, x)
        return x

    def image(self, x: FloatArray) -> FloatArray:
        """Laplacian with the current weights times x."""
        full, out = self.expand(x), self.partial[:, 0]
        self.each(lambda k, rows: kernels.laplacian(self.weight, *rows[:3], full, out[k]))
        return self.gather(out.sum(axis=0))

    def _by_diagonal(
        self, right: FloatArray, tolerance: float, limit: int, x: FloatArray
    ) -> tuple[int, bool]:
        """Jacobi-preconditioned conjugate gradients from 0, into x; steps, and whether done."""
        if self.parts == 1:
            steps, done = kernels.conjugate_gradients(
                self.weight, *self.rows[:3], self.diagonal, self.label, right, tolerance, limit, x
            )
            self.cg_steps += int(steps)
            return int(steps), bool(done)
        scale = 1 / np.maximum(self.gather(self.diagonal), 1e-300)
        return self._conjugate_gradients(lambda r: scale * r, right, tolerance, limit, x)

    def _by_factors(self, right: FloatArray, tolerance: float, limit: int, x: FloatArray) -> bool:
        """The same with the factors at hand; whether the residual fell by `tolerance`."""
        assert self.factors is not None
        return self._conjugate_gradients(self.factors.solve, right, tolerance, limit, x)[1]

    def _conjugate_gradients(
        self,
        precondition: Callable[[FloatArray], FloatArray],
        right: FloatArray,
        tolerance: float,
        limit: int,
        x: FloatArray,
    ) -> tuple[int, bool]:
        """Preconditioned conjugate gradients from 0, into x; steps, and whether done."""
        x[:] = 0.0
        r = right.copy()
        z = precondition(r)
        p, rz = z.copy(), float(r @ z)
        goal = rz * tolerance**2
        steps = 0
        while rz > goal and steps < limit:
            q = self.image(p)
            curvature = float(p @ q)
            if not curvature > 0:
                break
            x += (rz / curvature) * p
            r -= (rz / curvature) * q
            z = precondition(r)
            rz, previous = float(r @ z), rz
            p = z + (rz / previous) * p
            steps += 1
        self.cg_steps += steps
        return steps, rz <= goal
