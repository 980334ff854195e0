"""The file that makes a benchmark resumable: one line of JSON per finished piece of work.

A line is written at once and flushed to the disk, so whatever kills the process can damage the
last line only; that line is dropped and its work done again.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = ["Journal", "Key", "Result", "open_journal"]

Key = tuple[str, ...]
_RUN, _RESULT = "run", "result"  # kinds of lines
_NUMBERS = (
    "value",
    "objective_value",
    "gap",
    "attribution_error",
    "build_seconds",
    "solve_seconds",
    "difference",
)


@dataclass(frozen=True)
class Result:
    """One solver on one problem.

    Attributes
    ----------
    problem_set, problem, family : str
    identity : str
        Version of the problem set, or digest of the network.
    size : int
        Edges that pruning keeps.
    objective, solver : str
        A solver with options other than its defaults shows them.
    version, settings : str
        Of the solver's package and flowopt; the solver's options, limits and repetitions.
    status : str
        A `Status`, or "over limit", "skipped", "refused".
    message : str
        The backend's own word; or what it raised, why it refused or was skipped.
    value, objective_value : float or None
        |f|, and the objective with its regulariser.
    gap, attribution_error : float or None
        From our certificate, in the units of `flowopt.comparison.Row`.
    build_seconds, solve_seconds : float or None
        Medians over the repetitions.
    iterations : int or None
    attributions : tuple of float, or None
    difference : float or None
        From the reference: of an attribution, or of |f| where the objective does not determine
        attributions; relative to |f|.
    reference : bool
        Whether the others of its problem are compared with this one.
    """

    problem_set: str
    problem: str
    family: str
    identity: str
    size: int
    objective: str
    solver: str
    version: str
    settings: str
    status: str
    message: str = ""
    value: float | None = None
    objective_value: float | None = None
    gap: float | None = None
    attribution_error: float | None = None
    build_seconds: float | None = None
    solve_seconds: float | None = None
    iterations: int | None = None
    attributions: tuple[float, ...] | None = None
    difference: float | None = None
    reference: bool = False

    @property
    def key(self) -> Key:
        """What makes two results the same piece of work."""
        return (
            self.problem_set,
            self.problem,
            self.identity,
            self.objective,
            self.solver,
            self.version,
            self.settings,
        )

    @property
    def seconds(self) -> float | None:
        """Building and solving together."""
        if self.solve_seconds is None:
            return None
        return self.solve_seconds + (self.build_seconds or 0.0)


@dataclass(frozen=True)
class Journal:
    """Finished work, and where to record more.

    Attributes
    ----------
    path : Path or None
        None keeps nothing.
    done : dict
        Results by key.
    runs : list of dict
        Machine facts of every run that added results, oldest first.
    origin: dict
        Number of the run that measured a result, by key.
    """

    path: Path | None
    done: dict[Key, Result] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    origin: dict[Key, int] = field(default_factory=dict)

    def add_run(self, facts: dict[str, Any]) -> None:
        """Record on which machine the results that follow were measured."""
        self.runs.append(facts)
        self._append({"kind": _RUN, **facts})

    def add(self, result: Result) -> None:
        """Record a finished piece of work."""
        self.done[result.key] = result
        self.origin[result.key] = len(self.runs) - 1
        self._append({"kind": _RESULT, **asdict(result)})

    def runs_behind(self, results: Iterable[Result]) -> tuple[dict[str, Any], ...]:
        """Facts of the runs that measured these results, and how many of them each did."""
        counts = Counter(self.origin[result.key] for result in results)
        return tuple(
            {**(self.runs[number] if number >= 0 else {}), "results": counts[number]}
            for number in sorted(counts)
        )

    def _append(self, values: dict[str, Any]) -> None:
        if self.path is None:
            return
        line = json.dumps(_plain(values), allow_nan=False) + "\n"
        with self.path.open("ab") as out:
            out.write(line.encode())
            out.flush()
            os.fsync(out.fileno())


def open_journal(path: Path | None) -> Journal:
    """Read what is done, and drop a last line that was not finished.

    Unreadable lines before the last one are passed over: their work is done again.
    """
    journal = Journal(path)
    if path is None:
        return journal
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return journal
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    for line in content[:whole].splitlines():
        try:
            values = json.loads(line)
            kind = values.pop("kind")
            if kind == _RUN:
                journal.runs.append(values)
            elif kind == _RESULT:
                result = _result(values)
                if result.key not in journal.done:
                    journal.done[result.key] = result
                    journal.origin[result.key] = len(journal.runs) - 1
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return journal


def _result(values: dict[str, Any]) -> Result:
    known = {each.name for each in fields(Result)}
    kept = {name: entry for name, entry in values.items() if name in known}
    for name in _NUMBERS:
        kept[name] = None if kept[name] is None else float(kept[name])
    if kept["attributions"] is not None:
        kept["attributions"] = tuple(map(float, kept["attributions"]))
    return Result(**kept)


def _plain(value: Any) -> Any:
    """Infinity and NaN, which JSON lacks, as strings that float() reads back."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
