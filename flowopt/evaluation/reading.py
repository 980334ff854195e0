"""Which stored rows an evaluation shows, and in what order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowopt.evaluation.store import COLUMNS, Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["chosen_rows"]

_ORDERING = ("example", "work", "dataset", "time", "position", "id")


def chosen_rows(
    store: Store,
    dataset: str,
    works: Sequence[str],
    examples: frozenset[int] | None,
    columns: Sequence[str] | None,
) -> Any:
    """Rows of some work on a data set: the latest of each, by text, then in the order of work.

    Parameters
    ----------
    store : Store
    dataset : str
    works : sequence of str
        Keys of methods.
    examples : frozenset of int or None
        Keys of texts; None for all.
    columns : sequence of str or None
        Those that are wanted, where they are there; None for all.

    Returns
    -------
    pyarrow.Table
    """
    asked = None if columns is None else list(dict.fromkeys([*columns, *_ORDERING]))
    tables = [_own(table, dataset, works, examples) for table in store.tables(asked)]
    if not tables:
        names = [name for name in (asked or COLUMNS) if name in COLUMNS]
        return pa.schema([(name, COLUMNS[name]) for name in names]).empty_table()
    table = pa.concat_tables(tables, promote_options="default")
    found = table.take(_order(table, works))
    if columns is None:
        return found
    return found.select([name for name in columns if name in found.column_names])


def _own(table: Any, dataset: str, works: Sequence[str], examples: frozenset[int] | None) -> Any:
    wanted = pc.is_in(table.column("work"), value_set=pa.array(works, pa.string()))
    table = table.filter(pc.and_(wanted, pc.equal(table.column("dataset"), dataset)))
    if examples is None:
        return table
    keys = table.column("example").to_pylist()
    return table.filter(pa.array([int(key, 16) in examples for key in keys], pa.bool_()))


def _order(table: Any, works: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of the rows to keep, in order."""
    place = {work: index for index, work in enumerate(works)}
    names = ("example", "work", "time", "position", "id")
    latest: dict[tuple[str, str], tuple[Any, ...]] = {}
    rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
    for number, (example, work, when, position, name) in enumerate(rows):
        known = latest.get((example, work))
        if known is None or when >= known[0]:
            latest[example, work] = (when, position, name, example, place[work], number)
    ordered = sorted(latest.values(), key=lambda row: row[1:5])
    return np.array([row[-1] for row in ordered], dtype=np.int64)
