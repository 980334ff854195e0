"""Small tables that print well in terminals and notebooks."""

from __future__ import annotations

import html
from typing import Any, ClassVar

from flowopt.plain import plain_text

__all__ = ["Printed"]


class Printed:
    """What has columns and cells of text prints as a table."""

    columns: ClassVar[tuple[str, ...]] = ()

    def cells(self) -> list[tuple[str, ...]]:
        """The table's rows as text."""
        raise NotImplementedError

    def __rich__(self) -> Any:
        from rich import box
        from rich.table import Table

        table = Table(*self.columns, box=box.SIMPLE, pad_edge=False)
        for cells in self.cells():
            table.add_row(*cells)
        return table

    def __str__(self) -> str:
        return plain_text(self)

    def _repr_html_(self) -> str:
        rows = [("th", self.columns), *(("td", cells) for cells in self.cells())]
        body = "".join(
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
            for tag, cells in rows
        )
        return f"<table>{body}</table>"
