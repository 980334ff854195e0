"""Which top nodes of a network the super-source feeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowopt.errors import InputError

__all__ = ["Sources", "check_sources", "top_nodes"]

Sources = int | str | Sequence[int] | None
"""None (the default for the model), "all", "cls" (the position the head reads), or positions."""


def check_sources(sources: Any) -> None:
    """Refuse what cannot be sources for any input.

    Raises
    ------
    InputError
    """
    if sources is None or sources in ("all", "cls") or _is_index(sources):
        return
    if isinstance(sources, str) or not isinstance(sources, (Sequence, np.ndarray)):
        raise InputError(
            f"sources must be None, 'all', 'cls', a position or a list of them, not {sources!r}"
        )
    if len(sources) == 0 or not all(_is_index(each) for each in sources):
        raise InputError(f"sources must list at least one position, all integers; not {sources!r}")


def top_nodes(
    sources: Sources, tokens: int, readout: int | None, residual: bool
) -> str | list[int]:
    """Turn sources into what ``FlowNetwork.layered`` takes.

    Parameters
    ----------
    sources : Sources
    tokens : int
        Number of positions t; negative sources count from it.
    readout : int or None
        The position the model's head reads.
    residual : bool
        Whether residual edges have been added to the capacities.

    Returns
    -------
    "all" or list of int

    Raises
    ------
    InputError
        If a position is out of range, or "cls" is asked of a model that reads several positions.
    """
    if sources is None:
        return [readout] if residual and readout is not None else "all"
    if isinstance(sources, str):
        if sources == "all":
            return "all"
        if readout is None:
            raise InputError("the model's head reads several positions; use sources='all'")
        return [readout]
    positions = [int(i) for i in np.atleast_1d(np.asarray(sources))]
    outside = [i for i in positions if not -tokens <= i < tokens]
    if outside:
        raise InputError(
            f"sources {outside} are out of range: the input has positions 0 to {tokens - 1}"
        )
    return sorted({i % tokens for i in positions})


def _is_index(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
