"""What rich can print, as plain text."""

from __future__ import annotations

from io import StringIO
from typing import Any

__all__ = ["plain_text"]


def plain_text(shown: Any, width: int = 100) -> str:
    """Text of something that rich can print: no colours, whatever the terminal or notebook."""
    from rich.console import Console

    out = StringIO()
    # In a notebook a console would display, whatever its file.
    console = Console(
        file=out, width=width, color_system=None, force_terminal=False, force_jupyter=False
    )
    console.print(shown)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip()
