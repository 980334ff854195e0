"""One text's work, wherever it is done: explain it by all methods, measure them together."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowopt import __version__
from flowopt.errors import FlowoptError, FlowoptWarning
from flowopt.evaluation.identity import digest
from flowopt.evaluation.job import Job, Unit
from flowopt.evaluation.store import Row, curve_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowopt.attribution import Attribution
    from flowopt.methods import Subject

__all__ = ["FAILED", "MEASURED", "SKIPPED", "failed_rows", "rows_of", "work_in"]

MEASURED, SKIPPED, FAILED = "measured", "skipped", "failed"


def rows_of(job: Job, unit: Unit) -> list[Row]:
    """Explain and measure one text; what fails is a row that says so."""
    notes: list[str] = []
    found: dict[int, Attribution] = {}
    failures: dict[int, str] = {}
    try:
        with _notes(notes):
            subject = job.subject(unit.example)
            target = subject.target
    except Exception as error:  # whatever a tokenizer or model raises is this text's failure
        return failed_rows(job, unit, _said(error))
    with _notes([]):
        for index in unit.tasks:
            try:
                found[index] = job.explained(unit.example, job.tasks[index])
            except Exception as error:
                failures[index] = _said(error)
        values, cost = _measured(job, unit, subject, found, failures)
    rows = []
    for index in unit.tasks:
        row = _row(job, unit, index)
        row |= {
            "note": "; ".join(notes) or None,
            "tokens": len(subject.players),
            "prediction": subject.prediction.label,
            "target": target.label,
            "probability": target.probability,
        }
        if index in failures:
            row |= {"status": FAILED, "error": failures[index]}
        else:
            row |= {**_cost(found[index]), **cost, **values[index]}
        rows.append(row)
    return rows


def failed_rows(job: Job, unit: Unit, message: str) -> list[Row]:
    """Rows that say why a text could not be done."""
    failure = {"status": FAILED, "error": message}
    return [{**_row(job, unit, index), **failure} for index in unit.tasks]


def _measured(
    job: Job,
    unit: Unit,
    subject: Subject,
    found: Mapping[int, Attribution],
    failures: dict[int, str],
) -> tuple[dict[int, Row], Row]:
    """Values of every attribution, and what measuring them all cost."""
    from flowopt.evaluation.measure import measure
    from flowopt.methods import counting

    if not found:
        return {}, {}
    example, start = unit.example, time.perf_counter()
    scores = {str(index): att.scores for index, att in found.items()}
    try:
        with counting(subject.model) as passes:
            answers = measure(
                subject,
                scores,
                job.metrics,
                protocol=job.protocol,
                marks=example.marks,
                words=example.words,
            )
    except Exception as error:
        failures.update(dict.fromkeys(found, _said(error)))
        return {}, {}
    seconds = time.perf_counter() - start
    values: dict[int, Row] = {}
    for index, att in found.items():
        answer = answers[str(index)]
        nothing = answer.reason is not None and set(answer.values.values()) <= {None}
        values[index] = {
            "status": SKIPPED if nothing else MEASURED,
            "error": answer.reason,
            "scores": [float(score) for score in att.scores],
            **answer.values,
            **{curve_column(name): list(points) for name, points in answer.curves.items()},
        }
    return values, {"measure_forward": passes.forward, "measure_seconds": seconds}


def _row(job: Job, unit: Unit, index: int) -> Row:
    """What is known before anything is computed."""
    task, example = job.tasks[index], unit.example
    return {
        "example": unit.key,
        "work": job.keys[index],
        "model": job.name,
        "model_revision": job.revision,
        "tokenizer_revision": job.tokenizer_revision,
        "dataset": job.dataset,
        "position": unit.position,
        "id": example.id,
        "text_digest": example.text_digest,
        "label": None if example.label is None else str(example.label),
        "method": task.label,
        "method_name": task.spec.name,
        "settings_digest": digest(task.settings),
        "settings": json.dumps(task.settings, sort_keys=True),
        "protocol": job.protocol.name,
        "seed": job.seed,
        "metrics": ",".join(metric.name for metric in job.metrics),
        "flowopt": __version__,
        "time": datetime.datetime.now(datetime.UTC),
    }


def _cost(att: Attribution) -> Row:
    passes = att.settings["passes"]
    return {
        "forward": passes["forward"],
        "backward": passes["backward"],
        "seconds": att.settings["seconds"]["all"],
    }


def _said(error: Exception) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, FlowoptError) else f"{type(error).__name__}: {message}"


@contextmanager
def _notes(found: list[str]) -> Iterator[None]:
    """Gather flowopt's warnings (a text was cut) in place of showing one per text."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", FlowoptWarning)
        shown = warnings.showwarning

        def gather(message: Any, category: Any, *rest: Any, **more: Any) -> None:
            if issubclass(category, FlowoptWarning):
                found.append(str(message))
            else:
                shown(message, category, *rest, **more)

        warnings.showwarning = gather
        yield


# --- in a worker process ---------------------------------------------------------------------

_LOADED: dict[str, Job] = {}
_ONE_AT_A_TIME = threading.Lock()


def work_in(job: bytes | str, units: Sequence[Unit]) -> list[list[Row]]:
    """Do texts in a worker, which loads the job's model once and keeps it.

    Parameters
    ----------
    job : bytes or str
        A pickled `Job`, or the file that holds it.
    units : sequence of Unit
    """
    import cloudpickle

    # A model is read through hooks, so a worker with several threads takes texts in turn.
    with _ONE_AT_A_TIME:
        name = job if isinstance(job, str) else hashlib.sha256(job).hexdigest()
        if name not in _LOADED:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            if isinstance(job, str):
                with open(job, "rb") as stored:
                    job = stored.read()
            _LOADED.clear()  # one model at a time
            _LOADED[name] = cloudpickle.loads(job).loaded()
        return [rows_of(_LOADED[name], unit) for unit in units]
