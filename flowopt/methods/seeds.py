"""Random numbers of libraries that know global generators only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from flowopt.errors import InputError

__all__ = ["check_count", "check_seed", "seeded"]


def check_seed(seed: Any) -> int:
    """A seed that all generators accept.

    Raises
    ------
    InputError
    """
    return check_count(seed, "seed", 0, 2**32 - 1)


def check_count(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """A whole number within limits.

    Raises
    ------
    InputError
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"at least {least}" + ("" if most is None else f" and at most {most}")
        raise InputError(f"{name} must be a whole number, {limits}; not {value!r}")
    return int(value)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch and numpy inside, and put them back."""
    import torch

    number = check_seed(seed)
    before = np.random.get_state()  # noqa: NPY002  # Captum draws from it
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(number)
        np.random.seed(number)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
