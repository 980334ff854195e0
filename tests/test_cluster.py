"""Evaluation beyond one process: a Dask cluster whose workers die, and processes that die."""

from __future__ import annotations

import os
import signal
import warnings
from contextlib import ExitStack

import pytest
import torch

import flowopt as fo
from flowopt.evaluation import Example, engine

distributed = pytest.importorskip("distributed", reason="distributed is not installed")
dask = pytest.importorskip("dask", reason="dask is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL"),
]

_TEXT = "a great film , the actor was not funny but this story is slow and bad"
_WORDS = _TEXT.split()
TEXTS = [
    Example(f"text {n}", " ".join(_WORDS[(n + 3 * k) % len(_WORDS)] for k in range(5 + n % 7)))
    for n in range(24)
]
METHODS = ["saliency", "rollout"]
METRICS = ["aopc", "tau-loo"]
TIMES = ("time", "seconds", "measure_seconds")


@pytest.fixture
def run(tiny_bert, tiny_tokenizer):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def call(**more):
        return fo.evaluate(
            tiny_bert, METHODS, TEXTS, METRICS, tokenizer=tiny_tokenizer, progress=False, **more
        )

    yield call
    torch.set_num_threads(threads)


def plain(found):
    """Rows without what differs from run to run."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found.rows]


@pytest.fixture
def cluster(tmp_path):
    """Start a cluster of so many worker processes."""
    patience = {f"distributed.comm.timeouts.{name}": "300s" for name in ("connect", "tcp")}
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(patience))  # machines that test are busy

        def start(workers):
            return stack.enter_context(
                distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    local_directory=str(tmp_path / "dask"),
                    silence_logs=50,
                )
            )

        yield start


def killing(monkeypatch, cluster, after, kept):
    """Kill one worker when so many texts are kept; gives the process killed."""
    add, killed = fo.evaluation.store.Store.add, []

    def kill_one(self, rows):
        add(self, rows)
        kept.extend(dict.fromkeys(row["id"] for row in rows))
        if len(kept) >= after and not killed:
            killed.extend(nanny.pid for nanny in list(cluster.workers.values())[:1])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(fo.evaluation.store.Store, "add", kill_one)
    return killed


def test_a_killed_worker_loses_and_repeats_nothing(run, cluster, tmp_path, monkeypatch):
    expected, made, kept = run(), cluster(3), []
    killed = killing(monkeypatch, made, 5, kept)
    found = run(workers=made.scheduler_address, out=tmp_path / "out")
    assert sorted(kept) == sorted(example.id for example in TEXTS), "every text exactly once"
    keys = [(row["id"], row["method"]) for row in found.rows]
    assert len(keys) == len(set(keys)) == len(TEXTS) * 4
    assert plain(found) == plain(expected)
    assert len(killed) == 1
    assert killed[0] not in {nanny.pid for nanny in made.workers.values()}


def deadly(subject):
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_only_worker_may_die(run, cluster, monkeypatch, tiny_bert, tiny_tokenizer):
    made, kept = cluster(1), []
    killing(monkeypatch, made, 2, kept)
    with distributed.Client(made, set_as_default=False) as client:
        found = run(workers=client)
    assert sorted(kept) == sorted(example.id for example in TEXTS), "the model is sent again"
    assert found.failed == 0
    # a text that kills whoever takes it is a failure of the text
    made.scheduler.allowed_failures = 0
    fatal = fo.evaluate(
        tiny_bert, {"deadly": deadly}, TEXTS[:1], METRICS, tokenizer=tiny_tokenizer,
        references=False, workers=made.scheduler_address, progress=False,
    )  # fmt: skip
    assert [row["status"] for row in fatal.rows] == ["failed"]
    assert "every worker that took this text died" in fatal.rows[0]["error"]


def test_processes_that_die_are_replaced(run, monkeypatch):
    expected = plain(run())
    kept, add = [], fo.evaluation.store.Store.add

    def kill_one(self, rows):
        add(self, rows)
        kept.append(rows[0]["id"])
        if len(kept) == 3:
            from joblib.externals.loky import get_reusable_executor

            os.kill(next(iter(get_reusable_executor(reuse=True)._processes)), signal.SIGKILL)

    monkeypatch.setattr(fo.evaluation.store.Store, "add", kill_one)
    with warnings.catch_warnings():
        # joblib says that a worker stopped, which is what is tested
        warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
        found = run(workers=2)
    assert sorted(kept) == sorted(example.id for example in TEXTS)
    assert plain(found) == expected


def test_no_scheduler_at_the_address(run, monkeypatch):
    monkeypatch.setattr(engine, "_WAIT", 0.5)
    with pytest.raises(fo.InputError, match="cannot reach a Dask scheduler"):
        run(workers="tcp://127.0.0.1:9")
