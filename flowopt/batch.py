"""Many networks at once: threads over compiled solves, or batches of tensors on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np

from flowopt.certificate import failed
from flowopt.errors import FlowoptError, InputError, SolverError, UnsupportedError
from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import LogBarrier, MaxFlow, Objective
from flowopt.progress import progress_bar
from flowopt.provenance import cores
from flowopt.solution import Certificate, FlowSolution, Status
from flowopt.solvers import RawSolution, Solver, choose_solver, get_solver, solve
from flowopt.solvers.native import Native
from flowopt.solvers.native.blocks import one_blas_thread
from flowopt.solvers.torch_barrier import TorchBarrier, checked_device

__all__ = ["BatchError", "solve_batch"]

# backends that several threads may run at once; all others have the main thread to themselves
THREAD_SAFE = frozenset({"native", "scipy", "dinic", "push-relabel"})

Outcome = FlowSolution | Exception
Step = Callable[[int], object]
_Result = TypeVar("_Result")


class BatchError(SolverError):
    """Some networks of a batch ended without a certified answer.

    Attributes
    ----------
    solutions : list of FlowSolution
        Of all networks, in their order, the good ones too.
    failed : list of int
        Which of them have no certified answer; `solution` is that of the first.
    """

    def __init__(self, message: str, solutions: list[FlowSolution], failed: list[int]) -> None:
        super().__init__(message, solutions[failed[0]])
        self.solutions = solutions
        self.failed = failed


def solve_batch(
    nets: Sequence[FlowNetwork],
    objective: Objective | None = None,
    solver: str | Solver | None = None,
    *,
    device: str = "cpu",
    workers: int | None = None,
    progress: bool = False,
    throw: bool = True,
) -> list[FlowSolution]:
    """Solve one objective on many networks, of any sizes.

    Parameters
    ----------
    nets : sequence of FlowNetwork
    objective : Objective, optional
        Plain maximum flow by default.
    solver : str, Solver, optional
        As for `flowopt.solve`.
    device : str
        "cpu": threads over networks, one network each. "cuda", "cuda:1", ..: `LogBarrier` on
        stacks of layers, many in one batch of tensors; networks of other forms are solved on
        the processor, and ``stats["device_note"]`` says so. No GPU has been measured or tested.
        "cpu:torch": the same on the processor, for comparison; "cpu" is several times faster.
    workers : int, optional
        Threads; by default one for each core that this process may use. Backends that are not
        safe on threads solve one network at a time. Threads gain least on networks of a few
        thousand edges, whose time is Python's own.
    progress : bool
        Whether to show a progress bar.
    throw : bool
        Whether networks without a certified answer raise, after all others have been solved;
        otherwise their solutions are returned and their statuses say so.

    Returns
    -------
    list of FlowSolution
        In the order of `nets`.

    Raises
    ------
    InputError
        For an unknown device or solver; or if no network at all can be solved as asked, for
        the reason given for the first.
    BatchError
        A `SolverError` that names the networks without a certified answer; its `solutions`
        keeps all solutions.
    """
    if isinstance(nets, FlowNetwork):
        raise InputError("nets must be a list of FlowNetworks; use flowopt.solve for one.")
    nets = list(nets)
    objective = MaxFlow() if objective is None else objective
    for i, net in enumerate(nets):
        if not isinstance(net, FlowNetwork):
            raise InputError(f"nets must hold FlowNetworks; number {i} is {type(net).__name__}.")
    if not isinstance(objective, Objective):
        raise InputError(f"objective must be an Objective such as MaxFlow(), not {objective!r}.")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, or None for one per core; not {workers}.")
    backend = _on_device(None if solver is None else get_solver(solver), objective, device)
    count = min(workers or cores(), max(len(nets), 1))
    with progress_bar(len(nets), progress, "network", "solving") as tick, one_blas_thread():
        step: Step = lambda done: [tick() for _ in range(done)]  # noqa: E731
        if isinstance(backend, TorchBarrier):
            outcomes = _solve_on_device(nets, objective, backend, count, step)
        else:
            outcomes = _solve_on_threads(nets, objective, backend, count, step)
    return _gathered(nets, objective, outcomes, throw)


def _on_device(backend: Solver | None, objective: Objective, device: str) -> Solver | None:
    """The backend for a device; None leaves the choice to each network."""
    if device == "cpu":
        return backend
    place = "cpu" if device == "cpu:torch" else device
    if place != "cpu" and not str(place).startswith("cuda"):
        raise InputError(
            f"Unknown device {device!r}; the choices are 'cpu' (compiled, one thread per "
            "network), 'cuda' or 'cuda:N' (a GPU), and 'cpu:torch'."
        )
    if backend is not None and not isinstance(backend, TorchBarrier):
        raise InputError(
            f"The solver {backend.name!r} does not run on {device!r}; leave solver=None there, "
            "or use device='cpu'."
        )
    if not isinstance(objective, LogBarrier):
        raise UnsupportedError(
            f"Only LogBarrier is solved on {device!r}, not {objective!r}; use device='cpu'."
        )
    checked_device(place)
    return replace(backend or TorchBarrier(), device=place)


# --- threads ------------------------------------------------------------------------------------


def _solve_on_threads(
    nets: list[FlowNetwork], objective: Objective, backend: Solver | None, workers: int, step: Step
) -> list[Outcome]:
    """Solve the largest first, each on one thread; then alone what is not safe on threads."""
    outcomes: list[Outcome | None] = [None] * len(nets)

    def attempt(i: int, shared: bool) -> Outcome | None:
        try:
            chosen = backend or choose_solver(nets[i], objective)
            if shared and chosen.name not in THREAD_SAFE:
                return None
            return solve(nets[i], objective, _serial(chosen) if shared else chosen, throw=False)
        except Exception as error:  # the other networks go on; _gathered reports it
            return error

    order = sorted(range(len(nets)), key=lambda i: -_edges(nets[i]))
    if workers > 1:
        for i, outcome in _threaded(lambda i: attempt(i, True), order, workers):
            outcomes[i] = outcome
            step(outcome is not None)
    for i in range(len(nets)):
        if outcomes[i] is None:
            outcomes[i] = attempt(i, False)
            step(1)
    return [outcome for outcome in outcomes if outcome is not None]


def _threaded(
    work: Callable[[int], _Result], order: list[int], workers: int
) -> Iterator[tuple[int, _Result]]:
    """(i, work(i)) as they are done; nothing new is begun once the caller gives up."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="flowopt-batch")
    try:
        futures = {pool.submit(work, i): i for i in order}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _serial(solver: Solver) -> Solver:
    """The same backend with one thread inside, where it could use more."""
    if type(solver) is Native and solver.threads is None:
        return replace(solver, threads=1)
    return solver


def _edges(net: FlowNetwork) -> int:
    return sum(block.capacity.size for block in net.blocks)


# --- tensors on a device ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Solved(Solver):
    """Hands out numbers that were computed before, to be certified like any other."""

    name: ClassVar[str] = "torch"
    package: ClassVar[str] = "torch"

    raw: RawSolution

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:
        return None

    def solve(
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        return self.raw


def _solve_on_device(
    nets: list[FlowNetwork], objective: Objective, backend: TorchBarrier, workers: int, step: Step
) -> list[Outcome]:
    """Solve what fits the tensors in batches, the rest on threads; certify all alike."""

    def resolve(i: int) -> LogBarrier | Exception | None:
        try:
            resolved = objective.resolve(nets[i])
            fits = not nets[i].graph.empty and backend.refusal(nets[i], resolved) is None
            return resolved if fits and isinstance(resolved, LogBarrier) else None
        except Exception as error:
            return error

    resolved = dict(_threaded(resolve, list(range(len(nets))), workers))  # in any order
    ready = {i: r for i, r in sorted(resolved.items()) if isinstance(r, LogBarrier)}
    raws = backend.solve_many([nets[i] for i in ready], list(ready.values()), step)
    outcomes: list[Outcome | None] = [None] * len(nets)
    for i, raw in zip(ready, raws, strict=True):
        try:
            outcomes[i] = solve(nets[i], objective, _Solved(raw), throw=False)
        except Exception as error:
            outcomes[i] = error
    rest = [i for i in range(len(nets)) if i not in ready]
    others = _solve_on_threads([nets[i] for i in rest], objective, None, workers, step)
    note = f"not a stack of layers, so solved on the processor, not on {backend.device}"
    for i, other in zip(rest, others, strict=True):
        if isinstance(other, FlowSolution) and not nets[i].graph.empty:
            other = replace(other, stats={**other.stats, "device_note": note})
        outcomes[i] = other
    return [outcome for outcome in outcomes if outcome is not None]


# --- results ------------------------------------------------------------------------------------


def _gathered(
    nets: list[FlowNetwork], objective: Objective, outcomes: list[Outcome], throw: bool
) -> list[FlowSolution]:
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if errors and len(errors) == len(nets) and isinstance(errors[0], InputError):
        raise errors[0]  # what was asked, not a network, is at fault
    solutions = [
        _unsolved(net, objective, outcome) if isinstance(outcome, Exception) else outcome
        for net, outcome in zip(nets, outcomes, strict=True)
    ]
    bad = [i for i, s in enumerate(solutions) if s.status in (Status.INACCURATE, Status.FAILED)]
    if throw and bad:
        told = [f"number {i} ({_complaint(solutions[i])})" for i in bad[:5]]
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise BatchError(
            f"{len(bad)} of {len(nets)} networks have no certified optimum of {objective!r}: "
            f"{', '.join(told)}{more}. {solutions[bad[0]].status.advice} The error's .solutions "
            "keeps all solutions, .failed the numbers; throw=False returns them.",
            solutions,
            bad,
        ) from (errors[0] if errors else None)
    return solutions


def _complaint(solution: FlowSolution) -> str:
    if solution.status is Status.FAILED:
        return f"failed: {solution.stats['message']}"
    return f"{solution.solver}: {solution.status.value}, {solution.certificate}"


def _unsolved(net: FlowNetwork, objective: Objective, error: Exception) -> FlowSolution:
    """The solution of a network whose solve raised an error, which its stats keep."""
    message = str(error) if isinstance(error, FlowoptError) else f"{type(error).__name__}: {error}"
    stats = {"message": message, "error": error}
    try:
        return failed(net, objective, objective, "none", stats)
    except InputError:  # the network cannot even be flattened
        return FlowSolution(
            network=net, objective=objective, resolved=objective, status=Status.FAILED,
            value=0.0, objective_value=float("nan"), certificate=Certificate(0.0, 0.0, np.inf),
            flow=np.zeros(0), potential=np.zeros(0), solver="none", stats=stats,
        )  # fmt: skip
