"""What an evaluation found: rows, means with intervals, paired comparisons, curves, costs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, MissingDependencyError
from flowopt.evaluation.facts import Cost, Failure, MetricFacts
from flowopt.evaluation.metric import KINDS
from flowopt.evaluation.reading import chosen_rows
from flowopt.evaluation.statistics import Difference, Interval, compare_to, mean_interval, rivals
from flowopt.evaluation.store import COLUMNS, Row, Store, curve_column, read_runs
from flowopt.evaluation.work import FAILED
from flowopt.lazy import lazy

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["Evaluation"]

_REFERENCE = "leave-one-out"
_CURVES = ("deletion", "insertion")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of `flowopt.evaluate`, or of a folder; prints as tables.

    Parameters
    ----------
    store : Store
    facts : mapping
        What was asked for: model, methods, metrics, protocol, seed, data, versions, machine.
    examples : frozenset of int, optional
        Keys of the texts; by default all of the data set that are there.
    """

    store: Store
    facts: Mapping[str, Any]
    examples: frozenset[int] | None = None

    @classmethod
    def load(cls, folder: str | PathLike[str], run: int = -1) -> Evaluation:
        """Read the results of a folder.

        Parameters
        ----------
        folder : path
        run : int
            Which call's methods, metrics, protocol and data set; the last by default. All texts
            of that data set are shown.

        Raises
        ------
        InputError
            If there are no results, or no such run.
        """
        runs = read_runs(Path(folder))
        if not -len(runs) <= run < len(runs):
            raise InputError(f"{folder} has {len(runs)} runs, 0 to {len(runs) - 1}; not {run}")
        return cls(Store(Path(folder)), runs[run])

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels, in the order asked for."""
        return tuple(each["label"] for each in self.facts["methods"])

    @property
    def metrics(self) -> tuple[MetricFacts, ...]:
        """Faithfulness first."""
        found = [MetricFacts(**each) for each in self.facts["metrics"]]
        return tuple(sorted(found, key=lambda metric: KINDS.index(metric.kind)))

    @lazy
    def table(self) -> Any:
        """All columns but the lists (scores, curves), as a pyarrow.Table, ordered."""
        names = [name for name in COLUMNS if name != "scores"]
        return self._rows_of([*names, *(metric.name for metric in self.metrics)])

    @property
    def rows(self) -> list[Row]:
        """A dict per text and method: by the texts' place in the data set, then by method.

        Without a folder and with few texts this is all there is; for corpora read the parquet
        files instead.
        """
        found: list[Row] = self._rows_of(None).to_pylist()
        return found

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas  # noqa: F401
        except ImportError:
            raise MissingDependencyError("to_pandas needs pandas: pip install pandas") from None
        frame: pandas.DataFrame = self._rows_of(None).to_pandas()
        return frame

    def values(self, metric: str) -> dict[str, Array]:
        """Method -> a value per text, nan where there is none; texts in the same order.

        Raises
        ------
        InputError
            If the metric was not asked for.
        """
        self._metric(metric)
        places, methods = self._cells
        found = {name: np.full(self._texts, np.nan) for name in self.methods}
        column = self._numbers(metric)
        for index, name in enumerate(self.methods):
            own = methods == index
            found[name][places[own]] = column[own]
        return found

    def summary(self) -> dict[str, dict[str, Interval]]:
        """Metric -> method -> mean over texts, with a 95 % bootstrap interval and n."""
        return {
            metric.name: {
                name: mean_interval(values) for name, values in self.values(metric.name).items()
            }
            for metric in self.metrics
        }

    def compare(self, metric: str, reference: str = _REFERENCE) -> dict[str, Difference]:
        """Each method minus the reference on the same texts: interval, p-values.

        Raises
        ------
        InputError
            If there is no such metric or method.
        """
        return compare_to(reference, self.values(metric))

    def best(self, metric: str) -> tuple[str, ...]:
        """The method with the best mean, and those that cannot be told from it; no references.

        Raises
        ------
        InputError
            If there is no such metric.
        """
        found = self._metric(metric)
        values = {k: v for k, v in self.values(metric).items() if k not in ("random", _REFERENCE)}
        return rivals(values, higher_is_better=found.higher_is_better)

    def curve(self, name: str) -> tuple[Array, dict[str, Array]]:
        """Shares of the tokens (k,), and for each method the mean curve (k,) over texts.

        Parameters
        ----------
        name : str
            "deletion" or "insertion"; empty where no metric draws it.
        """
        column = curve_column(name)
        table = self._rows_of(["method", column])
        levels = np.array(self.facts["protocol"]["fractions"])
        if column not in table.column_names:
            return levels[:0], {}
        found: dict[str, Array] = {}
        methods, curves = (table.column(each).to_pylist() for each in ("method", column))
        for method in self.methods:
            own = [c for m, c in zip(methods, curves, strict=True) if m == method and c]
            if own:
                longest = max(map(len, own))
                found[method] = np.mean([c for c in own if len(c) == longest], axis=0)
        length = max(map(len, found.values()), default=0)
        return levels[:length], found

    def costs(self) -> dict[str, Cost]:
        """What each method cost per text."""
        _, methods = self._cells
        columns = [self._numbers(name) for name in ("forward", "backward", "seconds")]
        found = {}
        for index, name in enumerate(self.methods):
            own = (methods == index) & ~np.isnan(columns[2])
            if own.any():
                forward, backward, seconds = (float(np.median(c[own])) for c in columns)
                found[name] = Cost(forward, backward, seconds, int(own.sum()))
        return found

    def failures(self) -> tuple[Failure, ...]:
        """What has no values, and why; alike ones together, the most frequent first."""
        names = ("method", "status", "error", "id")
        columns = [self.table.column(name).to_pylist() for name in names]
        counts: Counter[tuple[str, str, str]] = Counter()
        first: dict[tuple[str, str, str], str] = {}
        for method, status, error, example in zip(*columns, strict=True):
            if error:
                key = (method, status, str(error))
                counts[key] += 1
                first.setdefault(key, example)
        return tuple(Failure(*key, count, first[key]) for key, count in counts.most_common())

    @property
    def failed(self) -> int:
        """Rows that failed."""
        return int(self.table.column("status").to_pylist().count(FAILED))

    def report(self, folder: str | PathLike[str], command: str | None = None) -> Path:
        """Write report.md and report.html, which needs nothing else, and return the latter.

        Parameters
        ----------
        folder : path
        command : str, optional
            What makes the results again; by default a call of `flowopt.evaluate`.
        """
        from flowopt.evaluation.report import write_report

        return write_report(self, Path(folder), command)

    def to_json(self) -> str:
        """Facts, means, costs and failures as JSON."""
        from flowopt.evaluation.report import as_plain

        return json.dumps(as_plain(self))

    def __rich__(self) -> Any:
        from flowopt.evaluation.tables import rich_tables

        return rich_tables(self)

    def __str__(self) -> str:
        from flowopt.plain import plain_text

        return plain_text(self, width=150)

    def __repr__(self) -> str:
        return f"<Evaluation of {len(self.methods)} methods on {self._texts} texts>"

    def _repr_html_(self) -> str:
        from flowopt.evaluation.report import fragment

        return fragment(self)

    def __len__(self) -> int:
        """Rows."""
        return len(self.table)

    @property
    def texts(self) -> int:
        """Texts with rows."""
        return self._texts

    # --- cells of the table ----------------------------------------------------------------

    def _rows_of(self, columns: Sequence[str] | None) -> Any:
        works = tuple(each["work"] for each in self.facts["methods"])
        return chosen_rows(self.store, self.facts["dataset"], works, self.examples, columns)

    def _metric(self, name: str) -> MetricFacts:
        for metric in self.metrics:
            if metric.name == name:
                return metric
        known = ", ".join(metric.name for metric in self.metrics)
        raise InputError(f"the metric {name!r} was not measured here; these were: {known}")

    def _numbers(self, column: str) -> Array:
        if column not in self.table.column_names:
            return np.full(len(self.table), np.nan)
        found: Array = self.table.column(column).to_numpy().astype(np.float64)
        return found

    @lazy
    def _cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each row, the number of its text and of its method."""
        examples = self.table.column("example").to_pylist()
        numbers = {each: index for index, each in enumerate(dict.fromkeys(examples))}
        place = {name: index for index, name in enumerate(self.methods)}
        methods = self.table.column("method").to_pylist()
        return (
            np.array([numbers[each] for each in examples], dtype=np.int64),
            np.array([place[each] for each in methods], dtype=np.int64),
        )

    @property
    def _texts(self) -> int:
        return int(self._cells[0].max(initial=-1)) + 1
