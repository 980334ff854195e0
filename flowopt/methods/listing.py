"""The table of methods: what each costs, whether it has signs, what its scores sum to."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowopt.errors import MissingDependencyError
from flowopt.methods.registry import Method, MethodSpec, all_specs, method_spec
from flowopt.plain import plain_text

if TYPE_CHECKING:
    import pandas

__all__ = ["MethodTable", "describe"]

_COLUMNS = ("method", "family", "passes", "signed", "sums to", "what it is")


@dataclass(frozen=True)
class MethodTable:
    """Methods and their facts; prints as a table in terminals and notebooks.

    Parameters
    ----------
    specs : tuple of MethodSpec
    """

    specs: tuple[MethodSpec, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Plain values, one dict per method."""
        return [
            {
                "name": spec.name,
                "family": spec.family,
                "summary": spec.summary,
                "source": spec.source,
                "cost": spec.cost,
                "signed": spec.signed,
                "sums_to": spec.sums_to,
                "seeded": spec.seeded,
                "requires": spec.requires,
                "available": spec.usable,
                "options": [str(name) for name in spec.options],
            }
            for spec in self.specs
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """The same as a data frame.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingDependencyError("to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.rows())

    def __rich__(self) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE, pad_edge=False)
        for name in _COLUMNS:
            last = name == _COLUMNS[-1]
            table.add_column(name, no_wrap=name in _COLUMNS[:2], max_width=None if last else 28)
        for spec in self.specs:
            table.add_row(*(Text(cell) for cell in _cells(spec)))
        return table

    def __str__(self) -> str:
        return plain_text(self, width=160)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(spec)) + "</tr>"
            for spec in self.specs
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def describe(methods: Iterable[str | Method | MethodSpec] | str | None = None) -> MethodTable:
    """Tabulate methods: family, cost in passes, signs, what scores sum to.

    Parameters
    ----------
    methods : str, or iterable of names, functions or MethodSpec, optional
        By default all, also those whose optional package is not installed.

    Raises
    ------
    InputError
        If there is no such method.

    Examples
    --------
    >>> print(describe(["rollout", "lime"]))  # doctest: +SKIP
    """
    if methods is None:
        return MethodTable(tuple(all_specs()))
    listed = [methods] if isinstance(methods, str) else list(methods)
    return MethodTable(tuple(method_spec(each) for each in listed))


def _cells(spec: MethodSpec) -> tuple[str, ...]:
    what = spec.summary
    if not spec.usable:
        what += f" Needs the package {spec.requires}."
    return (
        spec.name,
        spec.family,
        spec.cost or "unknown",
        "yes" if spec.signed else "no",
        spec.sums_to or "",
        what,
    )
