"""Where the work is done: in this process, in processes of this machine, or on a cluster.

Each gives the rows of texts as they come, in any order, those together that came together, and
takes new texts only as old ones are done, so that a corpus is never in memory. None of them
writes: the caller does.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flowopt.errors import FlowoptError, InputError, MissingDependencyError
from flowopt.evaluation.job import Job, Unit
from flowopt.evaluation.store import Row
from flowopt.evaluation.work import failed_rows, rows_of, work_in

__all__ = ["Outcomes", "engine_of", "outcomes"]

Outcomes = list[tuple[Unit, list[Row]]]
Engine = Callable[[Job, Iterator[Unit]], Iterator[Outcomes]]

_DASK = "dask"
_AHEAD = 4  # texts given to a cluster per thread of its workers
_DEATHS = 3  # of worker processes, until a run is given up, or with Dask a text
_WAIT = 60  # seconds for a cluster's first worker


def engine_of(workers: Any, engine: str | None) -> Engine:
    """Choose who does the work.

    Parameters
    ----------
    workers : int, str, distributed.Client or None
        None or 1: this process. A larger number: so many processes, or what joblib's backend
        `engine` makes of it; -1 is one per core. An address such as "tcp://host:8786", or a
        client: a Dask cluster.
    engine : str or None
        A backend of joblib ("loky" by default, "ray"), or "dask".

    Raises
    ------
    InputError, MissingDependencyError
    """
    if engine is not None and not isinstance(engine, str):
        raise InputError(f"engine is the name of a joblib backend or 'dask', not {engine!r}")
    if hasattr(workers, "submit") or isinstance(workers, str) or engine == _DASK:
        if engine not in (None, _DASK) or not (
            hasattr(workers, "submit") or isinstance(workers, str)
        ):
            raise InputError(
                "a Dask cluster is given by its address, as workers='tcp://host:8786', or by a "
                "distributed.Client"
            )
        _need_distributed()
        return lambda job, units: _on_dask(job, units, workers)
    if workers is None and engine is None:
        return _here
    count = 1 if workers is None else workers
    if isinstance(count, bool) or not isinstance(count, int) or (count < 1 and count != -1):
        raise InputError(
            "workers is a number of processes, -1 for one per core, or the address of a Dask "
            f"cluster such as 'tcp://host:8786'; not {workers!r}"
        )
    if count == 1 and engine is None:
        return _here
    if engine == "ray":
        _register_ray()
    return lambda job, units: _with_joblib(job, units, count, engine or "loky")


def outcomes(job: Job, units: Iterable[Unit], engine: Engine) -> Iterator[Outcomes]:
    """Rows of each text, as they come."""
    return engine(job, iter(units))


def _here(job: Job, units: Iterator[Unit]) -> Iterator[Outcomes]:
    loaded = None
    for unit in units:
        loaded = job.loaded() if loaded is None else loaded
        yield [(unit, rows_of(loaded, unit))]


def _with_joblib(job: Job, units: Iterator[Unit], workers: int, backend: str) -> Iterator[Outcomes]:
    """Through joblib's interface; if processes die, what they had is done again."""
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    waiting: dict[str, Unit] = {}
    with tempfile.TemporaryDirectory(prefix="flowopt-") as folder, ExitStack() as stack:
        path = str(Path(folder) / "job.pickle")
        Path(path).write_bytes(_pickled(job))
        if backend == "loky":
            stack.enter_context(joblib.parallel_config(backend, inner_max_num_threads=1))
            # Idle processes would stay for minutes, with the model in memory.
            stack.callback(_end_processes)
        else:
            try:
                stack.enter_context(joblib.parallel_config(backend))
            except ValueError as error:
                raise InputError(f"engine={backend!r} cannot be used: {error}") from None
        for death in itertools.count(1):
            # Copied: the generator adds to what is waiting while joblib takes from it.
            again = list(waiting.values())
            calls = (
                joblib.delayed(_keyed)(path, unit)
                for unit in _noted(itertools.chain(again, units), waiting)
            )
            parallel = joblib.Parallel(
                n_jobs=workers, return_as="generator_unordered", pre_dispatch="2*n_jobs",
                batch_size=1,
            )  # fmt: skip
            try:
                for key, rows in parallel(calls):
                    yield [(waiting.pop(key), rows)]
                return
            except TerminatedWorkerError as error:
                if death >= _DEATHS:
                    raise FlowoptError(
                        f"worker processes died {death} times (out of memory?); what is finished "
                        "is kept: use fewer workers and run the same again"
                    ) from error


def _end_processes() -> None:
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


def _keyed(path: str, unit: Unit) -> tuple[str, list[Row]]:
    return unit.key, work_in(path, [unit])[0]


def _noted(units: Iterable[Unit], waiting: dict[str, Unit]) -> Iterator[Unit]:
    for unit in units:
        waiting[unit.key] = unit
        yield unit


def _on_dask(job: Job, units: Iterator[Unit], cluster: Any) -> Iterator[Outcomes]:
    """On a Dask cluster: tasks are pure and have keys, so a lost one is simply done again."""
    from distributed import as_completed

    with _client(cluster) as client:
        # A task, not scattered data: if the workers that hold it die, Dask makes it again.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            data = _pickled(job)
            name = f"flowopt-job-{job.revision[:8]}-{hashlib.sha256(data).hexdigest()[:12]}"
            shared = client.submit(bytes, data, key=name)
        given: dict[str, Unit] = {}

        def submit(unit: Unit) -> Any:
            key = f"{name}-{unit.key}-{'.'.join(map(str, unit.tasks))}"
            given[key] = unit
            return client.submit(work_in, shared, [unit], key=key, retries=0)

        first = [submit(unit) for unit in itertools.islice(units, _room(client))]
        finished = as_completed(first, loop=client.loop)
        # What came while the caller wrote comes together, so that it is written together.
        for batch in finished.batches():
            units_done = [(future, given.pop(future.key)) for future in batch]
            yield [(unit, _rows_from(future, job, unit)) for future, unit in units_done]
            room = _room(client) - len(given)
            for more in itertools.islice(units, max(room, 1 if not given else 0)):
                finished.add(submit(more))


def _rows_from(future: Any, job: Job, unit: Unit) -> list[Row]:
    """The rows of a finished task; it is then forgotten by the cluster."""
    from distributed import KilledWorker

    try:
        (rows,) = future.result()
    except KilledWorker:
        rows = failed_rows(job, unit, "every worker that took this text died (memory?)")
    future.release()
    return list(rows)


@contextmanager
def _client(cluster: Any) -> Iterator[Any]:
    """A client of the cluster, closed again if it was made here.

    Raises
    ------
    InputError
        If nothing answers at the address, or no worker joins.
    """
    if hasattr(cluster, "submit"):
        yield cluster
        return
    from distributed import Client

    try:
        client = Client(cluster, timeout=_WAIT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot reach a Dask scheduler at {cluster!r}: {error}; start one with "
            "`dask scheduler`, and workers with `dask worker ADDRESS`"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_WAIT)
        except TimeoutError:
            raise InputError(
                f"the Dask cluster at {cluster!r} has no worker; start one with `dask worker "
                f"{cluster}`"
            ) from None
        yield client


def _room(client: Any) -> int:
    """Texts that may be under way: workers come and go."""
    threads = sum(
        each["nthreads"] for each in client.scheduler_info(n_workers=-1)["workers"].values()
    )
    return _AHEAD * max(int(threads), 2)


def _pickled(job: Job) -> bytes:
    """The job with its model, or its model's name.

    Raises
    ------
    InputError
        If a part of it cannot be sent to another process.
    """
    import cloudpickle

    try:
        found: bytes = cloudpickle.dumps(job)
    except Exception as error:
        raise InputError(
            f"model or methods cannot be sent to other processes ({error}); save the model with "
            "save_pretrained and give its folder, or use workers=None"
        ) from None
    return found


def _need_distributed() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "a Dask cluster needs the package distributed: pip install 'flowopt[cluster]'"
        ) from None


def _register_ray() -> None:
    try:
        from ray.util.joblib import register_ray
    except ImportError:
        raise MissingDependencyError(
            "engine='ray' needs the package ray: pip install ray"
        ) from None
    register_ray()
