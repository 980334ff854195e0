"""What is still to be done of a data set, given what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowopt.evaluation.dataset import Dataset
from flowopt.evaluation.identity import example_key
from flowopt.evaluation.job import Job, Unit
from flowopt.evaluation.store import Store
from flowopt.evaluation.work import FAILED

__all__ = ["Todo"]


class Todo:
    """Which texts lack which methods.

    Attributes
    ----------
    seen : set of int
        The texts met so far, by key.
    done : dict of int to int
        For each text, by key, the tasks that were done before, as bits.
    """

    def __init__(self, job: Job, store: Store, retry_errors: bool) -> None:
        self.job = job
        self.seen: set[int] = set()
        self.done = _done(job, store, retry_errors)

    def units(self, data: Dataset, step: Any) -> Iterator[Unit]:
        """Texts that still lack something, in order; a text that is there twice is done once."""
        every = range(len(self.job.tasks))
        for position, example in enumerate(data):
            key = example_key(self.job.dataset, example)
            number = int(key, 16)
            known = self.done.get(number, 0)
            missing = tuple(index for index in every if not known >> index & 1)
            if number not in self.seen and missing:
                self.seen.add(number)
                yield Unit(key, position, example, missing)
            else:
                self.seen.add(number)
                step()


def _done(job: Job, store: Store, retry_errors: bool) -> dict[int, int]:
    """For each text the tasks whose rows are there with all metrics, as bits."""
    place = {key: index for index, key in enumerate(job.keys)}
    wanted = {metric.name for metric in job.metrics}
    found: dict[int, int] = {}
    names = ("example", "work", "status", "metrics")
    for table in store.tables(names):
        columns = (table.column(name).to_pylist() for name in names)
        for example, work, status, metrics in zip(*columns, strict=True):
            index = place.get(work)
            if index is None or (retry_errors and status == FAILED):
                continue
            if wanted <= set(metrics.split(",")):
                number = int(example, 16)
                found[number] = found.get(number, 0) | 1 << index
    return found
