"""The native solver's linear systems: assembly, single-precision factors, accuracy, memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import FAMILIES, agf_capacities

import flowopt as fo
from flowopt.solvers.native import Native
from flowopt.solvers.native.blocks import BlockPattern, one_blas_thread
from flowopt.solvers.native.system import System

CONTRACTIBLE = [
    name
    for name, make in FAMILIES.items()
    if make().graph.contractible and System(make().graph).size
]


def weighted(net, seed, decades):
    """A system with random weights over many orders of magnitude, and its dense Laplacian."""
    system = System(net.graph)
    rng = np.random.default_rng(seed)
    drawn = 10 ** rng.uniform(-decades, 0, system.capacity.shape)
    system.weight = np.where(system.capacity > 0, drawn, 0.0)
    tails, heads, starts = system.rows[:3]
    lengths = np.diff(starts)
    tail = np.repeat(tails, lengths)
    head = np.repeat(heads - starts[:-1], lengths) + np.arange(starts[-1])
    n = net.graph.n_nodes
    incidence = np.zeros((n, len(tail)))
    incidence[tail, np.arange(len(tail))] += 1
    incidence[head, np.arange(len(tail))] -= 1
    full = incidence * system.weight @ incidence.T
    gather = np.zeros((system.size, n))
    gather[system.label[system.free], system.free] = 1
    sums = np.bincount(tail, system.weight, n) + np.bincount(head, system.weight, n)
    system.diagonal = sums
    return system, gather @ full @ gather.T


def energy_error(matrix, x, right):
    """Error of x in the norm of the matrix, relative to the solution."""
    exact = np.linalg.solve(matrix, right)
    error = x - exact
    return np.sqrt(error @ matrix @ error / (exact @ matrix @ exact))


@pytest.mark.parametrize("name", CONTRACTIBLE)
def test_assembled_blocks_are_the_laplacian(name):
    system, matrix = weighted(FAMILIES[name](), 1, decades=3)
    pattern = system.pattern
    scale = 1 / np.sqrt(system.gather(system.diagonal))
    block = pattern._assemble(system.weight, system.rows, system.label, scale, 0.25)
    wanted = matrix * np.outer(scale, scale) + 0.25 * np.eye(system.size)
    for (i, j), values in block.items():
        part = wanted[np.ix_(pattern.members[i], pattern.members[j])]
        np.testing.assert_allclose(values, part, atol=1e-6)
    stored = sum((1 if i == j else 2) * values.size for (i, j), values in block.items())
    missing = np.ones_like(matrix, dtype=bool)
    for i, j in block:
        missing[np.ix_(pattern.members[i], pattern.members[j])] = False
        missing[np.ix_(pattern.members[j], pattern.members[i])] = False
    assert missing.sum() == matrix.size - stored
    assert not matrix[missing].any()


@given(
    st.sampled_from(CONTRACTIBLE), st.integers(0, 1000), st.sampled_from([0, 4, 10, 14]),
    st.sampled_from([1e-2, 1e-6]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_factors_solve_to_the_tolerance(name, seed, decades, tolerance):
    system, matrix = weighted(FAMILIES[name](), seed, decades)
    system.direct = True
    right = matrix @ np.random.default_rng(seed).normal(size=system.size)
    x = system.solve(right, tolerance)
    assert energy_error(matrix, x, right) < 10 * tolerance + 1e-7
    assert system.factorisations == 1
    assert system.cg_steps <= 12


def test_factors_serve_neighbouring_weights_and_are_made_anew_for_others():
    net = fo.FlowNetwork.layered(agf_capacities(5, 12, 3))
    system, _ = weighted(net, 3, decades=4)
    system.direct = True
    right = np.random.default_rng(3).normal(size=system.size)
    system.solve(right, 1e-6)
    system.weight = system.weight * 1.3  # the same up to a factor
    system.diagonal = system.diagonal * 1.3
    system.solve(right, 1e-6)
    assert system.factorisations == 1
    other, matrix = weighted(net, 4, decades=8)
    system.weight, system.diagonal = other.weight, other.diagonal
    x = system.solve(right, 1e-6)
    assert system.factorisations == 2
    assert energy_error(matrix, x, right) < 1e-5


def test_a_preconditioner_of_other_weights_is_not_trusted():
    """Sabotage: with stale factors kept for good the answer would be wrong."""
    net = fo.FlowNetwork.layered(agf_capacities(5, 12, 3))
    system, _ = weighted(net, 3, decades=4)
    right = np.random.default_rng(3).normal(size=system.size)
    with one_blas_thread():
        sums = system.gather(system.diagonal)
        stale = system.pattern.factorise(system.weight, sums, system.rows, system.label)
    other, matrix = weighted(net, 4, decades=8)
    assert energy_error(matrix, stale.solve(right), right) > 1e-2
    other.direct, other.factors = True, stale
    assert energy_error(matrix, other.solve(right, 1e-6), right) < 1e-5


def test_a_larger_shift_follows_where_elimination_fails(monkeypatch):
    net = fo.FlowNetwork.layered(agf_capacities(5, 12, 3))
    system, matrix = weighted(net, 5, decades=6)
    shifts = []
    eliminate, assemble = BlockPattern._eliminate, BlockPattern._assemble

    def failing(self, block):
        return eliminate(self, block) if len(shifts) > 1 else False

    def noting(self, *arguments):
        shifts.append(arguments[-1])
        return assemble(self, *arguments)

    monkeypatch.setattr(BlockPattern, "_eliminate", failing)
    monkeypatch.setattr(BlockPattern, "_assemble", noting)
    system.direct = True
    right = matrix @ np.random.default_rng(5).normal(size=system.size)
    assert energy_error(matrix, system.solve(right, 1e-6), right) < 1e-5
    assert len(shifts) == 2
    assert shifts[1] > shifts[0]


def test_without_any_factors_the_diagonal_must_do(monkeypatch):
    net = fo.FlowNetwork.layered(agf_capacities(3, 8, 3))
    system, matrix = weighted(net, 5, decades=1)
    monkeypatch.setattr(BlockPattern, "_eliminate", lambda self, block: False)
    system.direct = True
    right = matrix @ np.random.default_rng(5).normal(size=system.size)
    assert energy_error(matrix, system.solve(right, 1e-6), right) < 1e-4


@pytest.mark.parametrize("seed", [0, 1])
def test_linear_solves_are_accurate_enough_for_long_steps(seed, monkeypatch):
    """By conjugate gradients alone; at the accuracy of the first steps it takes 22 to 30."""
    made = BlockPattern.__init__

    def without_factors(self, *arguments):
        made(self, *arguments)
        self.worth = 10**6

    monkeypatch.setattr(BlockPattern, "__init__", without_factors)
    net = fo.FlowNetwork.layered(agf_capacities(12, 48, seed, heads=12))
    solution = fo.solve(net, fo.LogBarrier(mu=1e-8), "native")
    assert solution.stats["factorisations"] == 0
    assert solution.stats["path_steps"] <= 21
    assert solution.certificate.delta < 1e-6


@pytest.mark.parametrize("decades", [0, 10])
@pytest.mark.parametrize("mu", [1e-2, 1e-8])
def test_memory_is_at_most_three_times_the_capacities(mu, decades):
    capacity = agf_capacities(8, 96, 0, heads=12)
    capacity *= 10 ** np.random.default_rng(0).uniform(-decades, 0, capacity.shape)
    net = fo.FlowNetwork.layered(capacity)
    objective = fo.LogBarrier(mu=mu).resolve(net)
    Native().solve(net, objective)  # compile
    tracemalloc.start()
    raw = Native().solve(net, objective)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (raw.extra["factorisations"] > 0) == (mu == 1e-8)
    assert peak < 3 * capacity.nbytes
