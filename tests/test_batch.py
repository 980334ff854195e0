"""Many networks at once: the same answers as one by one, and no failure loses the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from networks import FAMILIES, agf_capacities
from threadpoolctl import threadpool_info

import flowopt as fo
from flowopt.solvers import RawSolution, Solver, get_solver
from flowopt.solvers.native import Native
from flowopt.solvers.torch_barrier import TorchBarrier
from flowopt.solvers.torch_barrier.stack import Stack, buckets, stack_of

SIZES = [(4, 9), (2, 3), (6, 24), (1, 5), (3, 16), (5, 1), (6, 40), (2, 30)]
DEVICES = [
    "cpu:torch",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU is visible"),
    ),
]


def mixed() -> list[fo.FlowNetwork]:
    """Unequal layered networks; one without a path, one with a single token."""
    nets = [fo.FlowNetwork.layered(agf_capacities(n, t, 50 + t)) for n, t in SIZES]
    nets.insert(3, fo.FlowNetwork.layered(np.zeros((3, 4, 4))))
    nets.insert(0, FAMILIES["single_token"]())
    return nets


def distance(a: fo.FlowSolution, b: fo.FlowSolution) -> float:
    return float(np.abs(a.attributions - b.attributions).max() / max(b.value, 1e-300))


# --- equal to solving one by one ----------------------------------------------------------------
@pytest.mark.parametrize("workers", [1, 2, 5, None])
@pytest.mark.parametrize(
    "objective", [fo.LogBarrier(mu=1e-3), fo.LogBarrier(gap=0.05), fo.MaxFlow(), None], ids=repr
)
def test_threads_give_single_solves_in_order(objective: Any, workers: int | None) -> None:
    nets = mixed()
    for net, found in zip(nets, fo.solve_batch(nets, objective, workers=workers), strict=True):
        single = fo.solve(net, objective)
        assert found.network is net
        assert found.status is single.status is fo.Status.OPTIMAL
        assert found.solver == single.solver
        assert distance(found, single) <= 1e-9
        assert abs(found.objective_value - single.objective_value) <= 1e-9 * max(single.value, 1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "objective",
    [
        fo.LogBarrier(mu=1e-2),
        fo.LogBarrier(gap=0.05),
        fo.LogBarrier(mu=1e-6),
        fo.LogBarrier(gap=1e-4),
    ],
    ids=repr,
)
def test_tensors_give_single_solves_in_order(objective: Any, device: str) -> None:
    nets = mixed()
    for net, found in zip(nets, fo.solve_batch(nets, objective, device=device), strict=True):
        single = fo.solve(net, objective, solver="native")
        assert found.network is net
        assert found.status is fo.Status.OPTIMAL
        assert found.solver == ("none" if net.graph.empty else "torch")
        assert "device_note" not in found.stats
        assert distance(found, single) <= 1e-6
        if single.value:
            assert found.certificate.delta is not None
            assert found.certificate.delta <= 1e-7
            assert max(found.certificate.conservation, found.certificate.bounds) <= 1e-9


@pytest.mark.parametrize("device", ["cpu", *DEVICES])
def test_every_form_of_network_in_one_batch(device: str) -> None:
    nets = [family() for family in FAMILIES.values()]
    found = fo.solve_batch(nets, fo.LogBarrier(gap=0.05), device=device)
    for name, net, solution in zip(FAMILIES, nets, found, strict=True):
        single = fo.solve(net, fo.LogBarrier(gap=0.05))
        assert solution.status is fo.Status.OPTIMAL, name
        tolerance = 1e-6 if solution.solver == "torch" else 1e-9
        assert distance(solution, single) <= tolerance, name
        if device != "cpu":
            assert (solution.solver == "torch") is (stack_of(net) is not None)
            assert ("device_note" in solution.stats) is (stack_of(net) is None)


def test_no_value_and_one_token() -> None:
    for device in ("cpu", "cpu:torch"):
        found = fo.solve_batch(mixed(), fo.LogBarrier(mu=1e-3), device=device)
        assert found[0].attributions.shape == (1,)
        assert found[0].value > 0
        assert found[4].value == 0
        assert not found[4].attributions.any()
        assert found[4].certificate.gap == 0


def test_empty_list() -> None:
    assert fo.solve_batch([]) == []
    assert fo.solve_batch([], fo.LogBarrier(), device="cpu:torch") == []


def test_blas_has_its_threads_back() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    nets = [fo.FlowNetwork.layered(agf_capacities(4, 30, seed)) for seed in range(6)]
    objective = fo.LogBarrier(mu=1e-7)  # small enough for factorisations
    for _ in range(3):
        found = fo.solve_batch(nets, objective, workers=3)
        assert any(s.stats["factorisations"] for s in found)
        assert threads() == before
    with ThreadPoolExecutor(3) as pool:  # the same race without the batch's own limit
        list(pool.map(lambda net: fo.solve(net, objective), nets))
    assert threads() == before


def test_same_network_twice() -> None:
    net = mixed()[1]
    first, second = fo.solve_batch([net, net], fo.LogBarrier(gap=0.05), workers=2)
    assert np.array_equal(first.attributions, second.attributions)


def test_other_objectives_and_solvers_run_too() -> None:
    nets = [family() for name, family in FAMILIES.items() if name in ("dense", "causal", "gaf")]
    for objective, solver in (
        (fo.Quadratic(0.1), None),
        (fo.LogBarrier(mu=1e-2), "CLARABEL"),
        (fo.ProportionalFair(), None),
    ):
        found = fo.solve_batch(nets, objective, solver, workers=2)
        for net, solution in zip(nets, found, strict=True):
            assert distance(solution, fo.solve(net, objective, solver)) <= 1e-9


def test_network_that_only_a_slow_solver_takes() -> None:
    nets = [FAMILIES["dense"](), FAMILIES["parallel_links"]()]
    found = fo.solve_batch(nets, fo.LogBarrier(mu=1e-2), workers=2)
    assert [s.solver for s in found] == ["native", "CLARABEL"]


# --- failures -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sabotaged(Solver):
    """The native solver, which raises on one size of network and falsifies another."""

    name: ClassVar[str] = "sabotaged"
    package: ClassVar[str] = "numpy"

    raises: int = 24
    falsifies: int = 16

    def refusal(self, net: fo.FlowNetwork, objective: fo.Objective) -> str | None:
        return None

    def solve(self, net: fo.FlowNetwork, objective: fo.Objective, start: Any = None) -> RawSolution:
        if net.n_players == self.raises:
            raise ZeroDivisionError("sabotage")
        raw = Native().solve(net, objective)
        if net.n_players == self.falsifies:
            assert raw.flow is not None
            return replace(raw, flow=raw.flow * np.linspace(0.9, 1.0, raw.flow.size), slack=None)
        return raw


@pytest.mark.parametrize("shared", [False, True])
def test_failures_leave_the_others_alone(shared: bool, monkeypatch: Any) -> None:
    if shared:
        monkeypatch.setattr("flowopt.batch.THREAD_SAFE", frozenset({"sabotaged"}))
    nets = mixed()
    raised = next(i for i, net in enumerate(nets) if net.n_players == 24)
    falsified = next(i for i, net in enumerate(nets) if net.n_players == 16)
    bad = sorted([raised, falsified])
    found = fo.solve_batch(nets, fo.LogBarrier(mu=1e-3), Sabotaged(), throw=False, workers=2)
    assert [i for i, s in enumerate(found) if s.status is not fo.Status.OPTIMAL] == bad
    assert found[raised].status is fo.Status.FAILED
    assert "ZeroDivisionError" in found[raised].stats["message"]
    assert found[falsified].status is fo.Status.INACCURATE
    with pytest.raises(fo.SolverError, match="2 of 10 networks") as caught:
        fo.solve_batch(nets, fo.LogBarrier(mu=1e-3), Sabotaged(), workers=2)
    assert f"number {raised} (failed: ZeroDivisionError" in str(caught.value)
    assert f"number {falsified} (" in str(caught.value)
    error: Any = caught.value
    assert error.failed == bad
    assert error.solution is error.solutions[bad[0]]
    assert isinstance(error.__cause__, ZeroDivisionError)
    for i, (net, solution) in enumerate(zip(nets, error.solutions, strict=True)):
        if i not in bad:
            assert distance(solution, fo.solve(net, fo.LogBarrier(mu=1e-3))) <= 1e-9


@pytest.mark.parametrize("poison", [1.01, np.nan])
def test_certificate_catches_one_corrupted_network_of_a_tensor_batch(
    monkeypatch: Any, poison: float
) -> None:
    honest = TorchBarrier.solve_many

    def corrupted(self: Any, nets: Any, objectives: Any, *rest: Any) -> list[RawSolution]:
        raws = honest(self, nets, objectives, *rest)
        assert raws[2].flow is not None
        flow = raws[2].flow.copy()
        flow[::3] *= poison
        raws[2] = replace(raws[2], flow=flow)
        return raws

    monkeypatch.setattr(TorchBarrier, "solve_many", corrupted)
    found = fo.solve_batch(mixed(), fo.LogBarrier(mu=1e-3), device="cpu:torch", throw=False)
    assert [i for i, s in enumerate(found) if s.status is not fo.Status.OPTIMAL] == [2]


def test_hopeless_network_does_not_spoil_its_tensor_batch() -> None:
    nets = [fo.FlowNetwork.layered(agf_capacities(3, 12, seed)) for seed in range(3)]
    raws = TorchBarrier(max_steps=2).solve_many(nets, [fo.LogBarrier(mu=1e-9, relative=False)] * 3)
    assert all(raw.message.startswith("stopped") for raw in raws)
    mu = [fo.LogBarrier(mu=1e-5, relative=False) for _ in nets]
    object.__setattr__(mu[1], "mu", np.nan)
    raws = TorchBarrier().solve_many(nets, mu)
    assert [raw.message == "converged" for raw in raws] == [True, False, True]


def test_refused_network_among_others() -> None:
    nets = [FAMILIES["dense"](), FAMILIES["parallel_links"]()]
    found = fo.solve_batch(nets, fo.LogBarrier(mu=1e-2), "native", throw=False)
    assert [s.status for s in found] == [fo.Status.OPTIMAL, fo.Status.FAILED]
    assert "native cannot solve" in found[1].stats["message"]


def test_cyclic_network_among_others() -> None:
    block = [[1.0]]
    cyclic = fo.FlowNetwork(
        {"a": 1, "b": 1, "c": 1, "d": 1},
        [fo.Block(*pair, block) for pair in ("ab", "bc", "cb", "cd")],
        sources={"a": [0]},
        sinks={"d": [0]},
    )
    for device in ("cpu", "cpu:torch"):
        nets = [FAMILIES["dense"](), cyclic]
        found = fo.solve_batch(nets, fo.LogBarrier(mu=1e-2), device=device, throw=False)
        assert [s.status for s in found] == [fo.Status.OPTIMAL, fo.Status.FAILED]
        assert "directed cycle" in found[1].stats["message"]
    with pytest.raises(fo.InputError, match="directed cycle"):
        fo.solve_batch([cyclic, cyclic], fo.LogBarrier(mu=1e-2))


# --- what is asked ------------------------------------------------------------------------------
@pytest.mark.parametrize("device", ["gpu", "tpu:0", "cpu:1", "", "cuda:99", None])
def test_bad_device_names_the_choices(device: Any) -> None:
    with pytest.raises(fo.InputError, match=r"choices are|devices here: cpu"):
        fo.solve_batch([FAMILIES["dense"]()], fo.LogBarrier(), device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA GPU is visible")
def test_cuda_without_a_gpu() -> None:
    with pytest.raises(fo.InputError, match="devices here: cpu"):
        fo.solve_batch([FAMILIES["dense"]()], fo.LogBarrier(), device="cuda")


def test_bad_arguments() -> None:
    net = FAMILIES["dense"]()
    with pytest.raises(fo.InputError, match="number 1 is list"):
        fo.solve_batch([net, [[1.0]]])  # type: ignore[list-item]
    with pytest.raises(fo.InputError, match="objective must be"):
        fo.solve_batch([net], "barrier")  # type: ignore[arg-type]
    with pytest.raises(fo.InputError, match="at least 1"):
        fo.solve_batch([net], workers=0)
    with pytest.raises(fo.InputError, match="Unknown solver"):
        fo.solve_batch([net], solver="simplex")
    with pytest.raises(fo.UnsupportedError, match="fair cannot solve"):
        fo.solve_batch([net, net], fo.MaxFlow(), "fair")
    with pytest.raises(fo.UnsupportedError, match="Only LogBarrier"):
        fo.solve_batch([net], fo.MaxFlow(), device="cpu:torch")
    with pytest.raises(fo.InputError, match="does not run on"):
        fo.solve_batch([net], fo.LogBarrier(), "native", device="cpu:torch")


@pytest.mark.parametrize("device", ["cpu", "cpu:torch"])
def test_progress(device: str, capsys: Any) -> None:
    nets = [*mixed(), FAMILIES["gaf"]()]
    fo.solve_batch(nets, fo.LogBarrier(mu=1e-2), device=device)
    assert capsys.readouterr().err == ""
    fo.solve_batch(nets, fo.LogBarrier(mu=1e-2), device=device, progress=True, workers=2)
    assert "11/11" in capsys.readouterr().err


# --- the torch backend --------------------------------------------------------------------------
def test_torch_is_a_solver_like_the_others() -> None:
    assert "torch" in fo.solvers.available()
    net = FAMILIES["causal"]()
    found = fo.solve(net, fo.LogBarrier(mu=1e-4), solver="torch")
    assert found.solver == "torch"
    assert found.status is fo.Status.OPTIMAL
    assert distance(found, fo.solve(net, fo.LogBarrier(mu=1e-4))) <= 1e-6
    assert "torch" in fo.solvers.supporting(net, fo.LogBarrier())
    assert get_solver("torch").refusal(net, fo.MaxFlow()) is not None
    assert get_solver("torch").refusal(FAMILIES["gaf"](), fo.LogBarrier()) is not None
    (batched,) = fo.solve_batch([net], fo.LogBarrier(mu=1e-4), "torch")
    assert batched.solver == "torch"


@pytest.mark.parametrize("limit", [0, 3, 10_000])
def test_conjugate_gradients_and_factorisation_agree(limit: int) -> None:
    nets = [fo.FlowNetwork.layered(agf_capacities(n, t, 90 + t)) for n, t in ((5, 20), (3, 17))]
    objective = fo.LogBarrier(mu=1e-4)
    for net, found in zip(
        nets, fo.solve_batch(nets, objective, TorchBarrier(cg_limit=limit)), strict=True
    ):
        assert distance(found, fo.solve(net, objective)) <= 1e-6


def test_stack_of_blocks_in_any_order() -> None:
    net = FAMILIES["dense"]()
    shuffled = fo.FlowNetwork(
        net.groups, [net.blocks[i] for i in (1, 2, 0)], sources=net.sources, sinks=net.sinks
    )
    stack = stack_of(shuffled)
    assert stack is not None
    assert stack.blocks == (2, 0, 1)
    found = fo.solve(shuffled, fo.LogBarrier(mu=1e-3), "torch")
    assert distance(found, fo.solve(net, fo.LogBarrier(mu=1e-3))) <= 1e-6


def test_groups_of_unequal_sizes() -> None:
    rng = np.random.default_rng(3)
    net = fo.FlowNetwork(
        {"c": 2, "b": 7, "a": 4},
        [
            fo.Block("c", "b", rng.uniform(0, 1, (2, 7))),
            fo.Block("b", "a", rng.uniform(0, 1, (7, 4))),
        ],
        sources={"c": [0, 1]},
        sinks={"a": [0, 1, 3]},
    )
    found = fo.solve(net, fo.LogBarrier(mu=1e-3), "torch")
    assert distance(found, fo.solve(net, fo.LogBarrier(mu=1e-3), "native")) <= 1e-6


def test_buckets_hold_every_network_once_and_waste_little() -> None:
    rng = np.random.default_rng(4)
    stacks = [
        Stack(("",) * (n + 1), tuple(range(n)), t)
        for n, t in zip(rng.integers(1, 13, 80), rng.integers(1, 161, 80), strict=True)
    ]
    most = 400_000
    found = buckets(stacks, most)
    assert sorted(i for bucket in found for i in bucket) == list(range(80))
    for bucket in found:
        widest = max(stacks[i].widest for i in bucket)
        deepest = max(len(stacks[i].blocks) for i in bucket)
        padded = len(bucket) * deepest * widest**2
        real = sum(len(stacks[i].blocks) * stacks[i].widest ** 2 for i in bucket)
        assert len(bucket) == 1 or padded <= min(most, 1.5 * real)
    assert buckets([], most) == []
