"""A progress bar that can be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(
    total: int, show: bool, unit: str = "text", label: str = "explaining"
) -> Iterator[Callable[[], object]]:
    """Count up to `total` on standard error; gives the function to call after each step."""
    if not show:
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, desc=label) as bar:
        yield bar.update
