"""The tables of an evaluation as plain cells, for terminals, markdown and HTML alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowopt.evaluation.metric import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowopt.evaluation.facts import MetricFacts
    from flowopt.evaluation.results import Evaluation
    from flowopt.evaluation.statistics import Difference, Interval

__all__ = [
    "Cell",
    "Table",
    "comparison",
    "costs",
    "failures",
    "means",
    "reference_of",
    "rich_tables",
]

_PREFERRED = "leave-one-out"
_MOST_REASONS = 30


@dataclass(frozen=True)
class Cell:
    """A cell; a strong one is the best of its column, or cannot be told from it."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A titled table with a line that says how to read it.

    Parameters
    ----------
    title, note : str
    header : sequence of str
    rows : sequence of sequences of Cell
    """

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def means(found: Evaluation) -> list[Table]:
    """Means with intervals: faithfulness and plausibility, never in one table."""
    summary = found.summary()
    tables = []
    for kind in KINDS:
        metrics = [metric for metric in found.metrics if metric.kind == kind]
        if not metrics:
            continue
        best = {metric.name: found.best(metric.name) for metric in metrics}
        rows = []
        for method in found.methods:
            own = [summary[metric.name][method] for metric in metrics]
            cells = [
                Cell(_interval(each), method in best[metric.name])
                for metric, each in zip(metrics, own, strict=True)
            ]
            rows.append([Cell(method), *cells, Cell(_range([each.n for each in own]))])
        header = ["method", *map(_head, metrics), "texts"]
        tables.append(Table(kind.capitalize(), _MEANS[kind], header, rows))
    return tables


def comparison(found: Evaluation, reference: str | None = None) -> list[Table]:
    """Paired differences from a reference, for each kind of metric."""
    against = reference_of(found) if reference is None else reference
    if len(found.methods) < 2:
        return []
    tables = []
    for kind in KINDS:
        metrics = [metric for metric in found.metrics if metric.kind == kind]
        if not metrics:
            continue
        columns = [found.compare(metric.name, against) for metric in metrics]
        rows = [
            [Cell(method), *(_difference(column[method]) for column in columns)]
            for method in found.methods
            if method != against
        ]
        title = f"{kind.capitalize()}: difference from {against}"
        tables.append(Table(title, _PAIRED, ["method", *map(_head, metrics)], rows))
    return tables


def costs(found: Evaluation) -> Table:
    """Passes and seconds of every method."""
    rows = [
        [
            Cell(name),
            Cell(f"{cost.forward:g}"),
            Cell(f"{cost.backward:g}"),
            Cell(_seconds(cost.seconds)),
            Cell(str(cost.texts)),
        ]
        for name, cost in found.costs().items()
    ]
    note = (
        "Medians over texts, of the explanation alone: texts read forwards, texts through which "
        "a gradient came back, and time; measuring is shared by the methods of a text."
    )
    return Table("Cost of one text", note, ["method", "forward", "backward", "time", "texts"], rows)


def failures(found: Evaluation) -> Table | None:
    """What was not measured, and why; None if there is nothing."""
    rows = [
        [Cell(f.method), Cell(f.status), Cell(str(f.count)), Cell(f.example), Cell(f.reason[:300])]
        for f in found.failures()
    ]
    if not rows:
        return None
    note = "Skipped: the protocol excludes the text. Failed: an error, tried again on request."
    if len(rows) > _MOST_REASONS:
        note += f" The {_MOST_REASONS} most frequent of {len(rows)} reasons."
    header = ["method", "status", "texts", "such as id", "why"]
    return Table("Not measured", note, header, rows[:_MOST_REASONS])


def reference_of(found: Evaluation) -> str:
    """The leave-one-out order if it is there, else the first method."""
    return _PREFERRED if _PREFERRED in found.methods else found.methods[0]


def rich_tables(found: Evaluation) -> Any:
    """Means, costs and failures for a terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    shown: list[Any] = [
        Text(f"{found.facts['model']} on {found.facts['dataset']}, {found.texts} texts, protocol "
             f"{found.facts['protocol']['name']}")
    ]  # fmt: skip
    last = failures(found)
    for table in (*means(found), costs(found), *([] if last is None else [last])):
        made = RichTable(title=table.title, box=box.SIMPLE, title_justify="left", pad_edge=False)
        for number, name in enumerate(table.header):
            text = number == 0 or name in ("status", "why")
            made.add_column(name, justify="left" if text else "right", no_wrap=number == 0)
        for row in table.rows:
            made.add_row(*(_shown(cell) for cell in row))
        note = table.note.replace("Bold:", "Starred:").replace("bold", "starred")
        shown += [made, Text(note, style="dim")]
    return Group(*shown)


def _shown(cell: Cell) -> Any:
    """A cell of a terminal, which may know no bold face."""
    from rich.text import Text

    return Text(cell.text + " *" if cell.strong else cell.text, style="bold" if cell.strong else "")


_MEANS = {
    "faithfulness": "Mean over texts [95 % bootstrap interval]. Bold: the best method, and those "
    "whose paired difference from it is not significant (sign-flip test, Holm, 5 %); random and "
    "leave-one-out are references and do not compete. The arrow shows which direction is better.",
    "plausibility": "Agreement with human marks, which is not faithfulness to the model. Mean "
    "over texts with marks [95 % bootstrap interval]; bold as above.",
}
_PAIRED = (
    "Method minus reference on the same texts [95 % bootstrap interval], and p of a sign-flip "
    "test after Holm's correction over the methods; bold where p < 0.05."
)


def _head(metric: MetricFacts) -> str:
    return f"{metric.name} {metric.arrow}"


def _interval(found: Interval) -> str:
    if not found.n:
        return "\u2013"
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _difference(found: Difference) -> Cell:
    if not found.n:
        return Cell("\u2013")
    p = "p < 0.001" if found.adjusted < 0.001 else f"p = {found.adjusted:.3f}"
    text = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], {p}"
    return Cell(text, found.adjusted < 0.05)


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least} to {most}"


def _seconds(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"
