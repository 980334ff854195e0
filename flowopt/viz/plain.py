"""Rich renderings as plain text."""

from __future__ import annotations

from io import StringIO
from typing import Any

__all__ = ["plain_text"]


def plain_text(shown: Any, width: int = 100) -> str:
    """Text of something that rich can print: no colours, whatever the terminal."""
    from rich.console import Console

    console = Console(
        file=StringIO(), width=width, color_system=None, force_terminal=False, force_jupyter=False
    )
    with console.capture() as capture:
        console.print(shown)
    return capture.get().rstrip()
