"""`flowopt.evaluate`: methods on a corpus, measured, recorded as they come, resumable."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from flowopt import provenance
from flowopt.errors import InputError
from flowopt.evaluation.dataset import Dataset, Source, read_dataset
from flowopt.evaluation.engine import Outcomes, engine_of, outcomes
from flowopt.evaluation.facts import facts_of_metric
from flowopt.evaluation.identity import (
    Task,
    model_revision,
    task_of,
    tokenizer_revision,
    work_key,
)
from flowopt.evaluation.job import Job
from flowopt.evaluation.metric import Metric, metric_spec
from flowopt.evaluation.metric import metrics as all_metrics
from flowopt.evaluation.protocol import Protocol, protocol_named
from flowopt.evaluation.results import Evaluation
from flowopt.evaluation.store import COLUMNS, Store, open_store
from flowopt.evaluation.todo import Todo
from flowopt.methods.seeds import check_seed
from flowopt.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flowopt.methods.registry import Method

    Model: TypeAlias = PreTrainedModel | str | PathLike[str] | None
    OneMethod: TypeAlias = str | Method | tuple[str | Method, Mapping[str, Any]]
    Methods: TypeAlias = str | Sequence[str] | Mapping[str, OneMethod]

__all__ = ["REFERENCES", "evaluate"]

REFERENCES = ("random", "leave-one-out")
"""Methods that are in every table unless they are left out: a floor and nearly a ceiling."""


def evaluate(
    model: Model,
    methods: Methods,
    dataset: Source,
    metrics: Sequence[str | Metric] | None = None,
    out: str | PathLike[str] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    protocol: str | Protocol = "default",
    limit: int | None = None,
    seed: int = 0,
    workers: Any = None,
    engine: str | None = None,
    references: bool = True,
    retry_errors: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Explain every text of a corpus by several methods, and measure the explanations.

    Parameters
    ----------
    model : PreTrainedModel, str, path or None
        A model with its head; a folder or hub name; None for the bundled classifier.
    methods : sequence of str, or mapping
        Names of `flowopt.methods.available()`; or label -> name, label -> (name, options),
        label -> function ``subject -> scores (t,)``.
    dataset : path, name, iterable or Dataset
        See `flowopt.evaluation.read_dataset`, which also lets you name columns.
    metrics : sequence of str or Metric, optional
        By default all of faithfulness, and all of plausibility where the first text has marks.
    out : path, optional
        A folder for the results. A text is there, in parquet, as soon as it is done; a later
        call with the same folder does what is missing only. What makes two pieces of work the
        same: data set name, id, text, label and marks; weights and tokenizer; protocol, seed,
        label, method and settings. The version of flowopt is recorded, but is no part of it.
    tokenizer : PreTrainedTokenizerBase, optional
        Of a model that is an object.
    protocol : str or Protocol
        "default", "attcat", "attcat-pad", "eraser", or your own.
    limit : int, optional
        The first so many texts.
    seed : int
        Every text has a seed derived from it and the text, for methods that draw numbers, so
        that results depend neither on the order of texts nor on the workers.
    workers : int, str or distributed.Client, optional
        None: in this process. A number: so many processes, one thread each; -1 is one per core.
        An address such as "tcp://host:8786", or a client: a Dask cluster.
    engine : str, optional
        Another backend of joblib for `workers` processes, such as "ray".
    references : bool
        Whether "random" and "leave-one-out" are added.
    retry_errors : bool
        Whether texts that failed before are tried again.
    progress : bool
        Whether to show progress, where standard error is a terminal.

    Returns
    -------
    Evaluation
        Of this call's texts, methods and metrics, whoever computed them.

    Raises
    ------
    InputError
        For a model, method, metric, protocol or data set that cannot be used, or a folder with
        something else in it. A text that fails is recorded, with its error, and the others go on.
    KeyboardInterrupt
        When interrupted; finished texts are kept, and the same call goes on where it stopped.

    Examples
    --------
    >>> found = evaluate(None, ["agf-barrier", "integrated-gradients"],
    ...                  ["A dull film.", "A fine one."], progress=False)  # doctest: +SKIP
    """
    from flowopt.methods.answer import loaded

    check_seed(seed)
    run_by = engine_of(workers, engine)
    tasks = _tasks(methods, references)
    data = read_dataset(dataset, limit=limit)
    chosen = _metrics(metrics, data)
    plan = protocol_named(protocol)
    store = open_store(None if out is None else Path(out))
    try:
        live, reader = loaded(model, tokenizer)
        revision, words = model_revision(live), tokenizer_revision(reader)
        name = str(getattr(live, "name_or_path", "") or type(live).__name__)
        here = workers in (None, 1) and engine is None
        named = not here and (model is None or isinstance(model, (str, PathLike)))
        job = Job(
            model=_place(model) if named else live,
            tokenizer=tokenizer if named else reader,
            name=name,
            revision=revision,
            tokenizer_revision=words,
            dataset=_described(data),
            tasks=tasks,
            keys=tuple(work_key(revision, words, plan, seed, task) for task in tasks),
            metrics=chosen,
            protocol=plan,
            seed=seed,
            threads=None if here else 1,
        )
        facts = _facts(job, data, limit, workers)
        store.record_run(facts)
        todo = Todo(job, store, retry_errors)
        show = progress and sys.stderr.isatty()
        with progress_bar(data.size or 0, show, label="evaluating") as step:
            _run(store, outcomes(job, todo.units(data, step), run_by), step, out)
    finally:
        store.close()
    return Evaluation(store, facts, frozenset(todo.seen))


def _run(store: Store, found: Iterator[Outcomes], step: Any, out: Any) -> None:
    """Keep what comes; whatever ends the run, what has come is kept and merged."""
    try:
        for batch in found:
            store.add([row for _, rows in batch for row in rows])
            for _ in batch:
                step()
    except KeyboardInterrupt:
        if out is None:
            raise
        raise KeyboardInterrupt(
            f"interrupted; finished texts are in {out}: run the same again to go on"
        ) from None
    finally:
        if hasattr(found, "close"):
            found.close()
        store.compact()


def _tasks(methods: Any, references: bool) -> tuple[Task, ...]:
    if isinstance(methods, str):
        methods = [methods]
    if isinstance(methods, Mapping):
        found = [task_of(str(label), given) for label, given in methods.items()]
    elif isinstance(methods, Iterable):
        found = [_unlabelled(given) for given in methods]
    else:
        raise InputError(f"methods is a list of names or a mapping, not {methods!r}")
    if references:
        named = {task.spec.name for task in found}
        found += [task_of(name, name) for name in REFERENCES if name not in named]
    labels = [task.label for task in found]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(
                f"two methods are called {label!r}; tell them apart: {{'a label': ({label!r}, "
                "{...}), ...}"
            )
    if not found:
        raise InputError("name at least one method; flowopt.methods.available() lists them")
    return tuple(found)


def _unlabelled(given: Any) -> Task:
    if isinstance(given, tuple):
        raise InputError(
            f"options need a label: {{'a label': {given!r}}} in place of a list of methods"
        )
    task = task_of("", given)
    task.label = task.spec.name
    return task


def _metrics(metrics: Any, data: Dataset) -> tuple[Metric, ...]:
    if metrics is None:
        first = next(data.read(), None)
        marked = first is not None and first.marks is not None
        found = all_metrics() if marked else all_metrics("faithfulness")
    else:
        listed = [metrics] if isinstance(metrics, (str, Metric)) else list(metrics)
        found = tuple(metric_spec(each) for each in listed)
    if not found:
        raise InputError("name at least one metric; flowopt.evaluation.metrics() lists them")
    names = [metric.name for metric in dict.fromkeys(found)]
    for metric in found:
        if names.count(metric.name) > 1:
            raise InputError(f"two metrics are called {metric.name!r}; give one another name")
        if metric.name in COLUMNS or metric.name.endswith(" curve") or "," in metric.name:
            raise InputError(f"a metric cannot be called {metric.name!r}; register another name")
    return tuple(dict.fromkeys(found))


def _described(data: Dataset) -> str:
    """Name of the data set, with the rows chosen of it: a part of every key."""
    where = data.facts.get("where")
    if not where:
        return data.name
    return f"{data.name} where " + ", ".join(f"{k}={v}" for k, v in sorted(where.items()))


def _place(model: Any) -> str | None:
    """A model's name that means the same in another process."""
    if model is None:
        return None
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else str(model)


def _facts(job: Job, data: Dataset, limit: int | None, workers: Any) -> dict[str, Any]:
    """What is asked for, and where, as plain values."""
    shown = workers if isinstance(workers, (int, str)) or workers is None else "a Dask cluster"
    return {
        **provenance.facts(),
        "model": job.name,
        "model_revision": job.revision,
        "tokenizer_revision": job.tokenizer_revision,
        "dataset": job.dataset,
        "columns": {k: v for k, v in data.facts.items() if k != "where"},
        "limit": limit,
        "seed": job.seed,
        "workers": shown,
        "protocol": {
            **dataclasses.asdict(job.protocol),
            "fractions": list(job.protocol.fractions),
        },
        "methods": [
            {"label": task.label, "work": key, "given": task.given, **task.settings}
            for task, key in zip(job.tasks, job.keys, strict=True)
        ],
        "metrics": [facts_of_metric(metric) for metric in job.metrics],
    }
