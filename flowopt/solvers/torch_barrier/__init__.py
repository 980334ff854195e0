"""The barrier solver of `flowopt.solvers.native` in PyTorch, for many networks at once.

The mathematics is the same. Every step is tensor arithmetic on all edges of all networks of a
batch, padded to a common shape, in float64 on any device that has it. The passes are not fused,
so on a processor the compiled solver is several times faster; this one is for GPUs, on which it
has not been measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from flowopt.errors import InputError, MissingDependencyError
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import LogBarrier, Objective
from flowopt.solvers.base import RawSolution, Solver
from flowopt.solvers.torch_barrier.stack import Stack, buckets, stack_of

if TYPE_CHECKING:
    import torch

CPU_EDGES = 1 << 20  # padded edges of one batch on a processor: a few arrays stay in its caches
GPU_BYTES_PER_EDGE = 8 * 32  # float64 arrays alive at once, with room to spare


@dataclass(frozen=True)
class TorchBarrier(Solver):
    """Primal-dual and dual Newton method for `LogBarrier` on stacks of layers, in PyTorch.

    Parameters
    ----------
    device : str
        Any torch device with float64: "cpu", "cuda", "cuda:1".
    tolerance, max_steps, start, inner_tolerance
        As for `flowopt.solvers.native.Native`.
    cg_limit : int, optional
        Conjugate gradient steps after which a network's systems are factorised instead; by
        default it grows with the number of tokens.
    """

    name: ClassVar[str] = "torch"
    package: ClassVar[str] = "torch"

    device: str = "cpu"
    tolerance: float = 1e-9
    max_steps: int = 100
    start: float = 0.003
    inner_tolerance: float = 0.03
    cg_limit: int | None = None

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:  # noqa: D102
        if not isinstance(objective, LogBarrier):
            return "it is made for LogBarrier"
        if stack_of(net) is None:
            return "the network is not one stack of blocks without links and node limits"
        return None

    def solve(  # noqa: D102
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        assert isinstance(objective, LogBarrier)
        return self.solve_many([net], [objective])[0]

    def solve_many(
        self,
        nets: Sequence[FlowNetwork],
        objectives: Sequence[LogBarrier],
        done: Callable[[int], object] = lambda count: None,
    ) -> list[RawSolution]:
        """Solve for resolved barriers on networks that are stacks and have a path.

        Parameters
        ----------
        done : callable
            Called with the number of networks finished, after each batch.

        Returns
        -------
        list of RawSolution
            In the order of `nets`; ``extra["batch_size"]`` tells how many were solved together,
            and the seconds are those of the batch divided by that number.

        Raises
        ------
        InputError
            If torch sees no such device.
        """
        device = checked_device(self.device)
        stacks = [_stack(net) for net in nets]
        found: list[RawSolution | None] = [None] * len(nets)
        for bucket in buckets(stacks, _most_edges(device)):
            raws = self._solve_bucket(
                [nets[i] for i in bucket],
                [stacks[i] for i in bucket],
                np.array([objectives[i].absolute_mu for i in bucket]),
                device,
            )
            for i, raw in zip(bucket, raws, strict=True):
                found[i] = raw
            done(len(bucket))
        return [raw for raw in found if raw is not None]

    def _solve_bucket(
        self, nets: list[FlowNetwork], stacks: list[Stack], mu: FloatArray, device: torch.device
    ) -> list[RawSolution]:
        import torch

        from flowopt.solvers.torch_barrier import central_path, dual
        from flowopt.solvers.torch_barrier.problem import packed, unpacked

        began = time.perf_counter()
        with torch.inference_mode(), _few_threads(device, stacks):
            problem = packed(nets, stacks, mu, device, self.cg_limit)
            built = time.perf_counter()
            first = torch.maximum(problem.mu, self.start * problem.scale)
            y, path_steps = central_path.follow(
                problem, problem.falling, first, self.inner_tolerance, self.max_steps
            )
            y, last, report = dual.minimise(problem, y, self.tolerance, self.max_steps)
            answers = unpacked(nets, stacks, problem, y, last)
        seconds = np.array([built - began, time.perf_counter() - built]) / len(nets)
        converged, decrement = report.converged.tolist(), report.decrement.tolist()
        steps = (path_steps + report.steps).tolist()
        messages = [
            "converged" if good else f"stopped at decrement {size:.1e}"
            for good, size in zip(converged, decrement, strict=True)
        ]
        return [
            RawSolution(
                flow=flow,
                slack=slack,
                potential=potential,
                message=messages[k],
                build_seconds=float(seconds[0]),
                solve_seconds=float(seconds[1]),
                iterations=steps[k],
                extra={"mu": float(mu[k]), "device": str(device), "batch_size": len(nets)},
            )
            for k, (flow, slack, potential) in enumerate(answers)
        ]


def checked_device(name: str) -> torch.device:
    """The torch device with a name, if torch is installed and sees it."""
    try:
        import torch
    except ImportError:
        raise MissingDependencyError(
            f"The device {name!r} needs the package torch: pip install torch."
        ) from None
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        seen = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise InputError(
            f"torch cannot compute in float64 on the device {name!r} ({reason}); "
            f"devices here: {', '.join(['cpu', *seen])}."
        ) from None
    return device


@contextmanager
def _few_threads(device: torch.device, stacks: list[Stack]) -> Iterator[None]:
    """One thread for small batches: torch's threads wait for each other in busy loops.

    On a machine with other work, two threads were measured 30 times slower than one.
    """
    import torch

    before = torch.get_num_threads()
    small = sum(len(stack.blocks) * stack.widest**2 for stack in stacks) <= CPU_EDGES
    torch.set_num_threads(1 if small and device.type == "cpu" else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stack(net: FlowNetwork) -> Stack:
    stack = stack_of(net)
    assert stack is not None  # `refusal` has told
    return stack


def _most_edges(device: torch.device) -> int:
    """Padded edges that one batch may have."""
    if device.type != "cuda":
        return CPU_EDGES
    import torch

    return int(torch.cuda.mem_get_info(device)[0] // GPU_BYTES_PER_EDGE)
