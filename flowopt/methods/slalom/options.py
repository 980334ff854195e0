"""What an explanation by SLALOM was asked for, checked before the model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError
from flowopt.methods.slalom.fit import check_ridge
from flowopt.methods.slalom.plans import PLANS, Plan

if TYPE_CHECKING:
    import torch

__all__ = ["Options", "Target"]

Target = int | str | None
"""The class to explain: its number, its label, or None for the predicted one."""

_LEAST_HELD_OUT = 50
_HELD_OUT_OF_EXACT = 200


@dataclass(frozen=True)
class Options:
    """The arguments of `flowopt.slalom.explain`, by the same names.

    Raises
    ------
    InputError
        If one of them cannot be used.
    """

    plan: str | Plan
    samples: int
    length: int
    max_deletions: int
    seed: int
    ridge: float
    target: Target
    held_out: int | None
    batch_size: int | None
    device: str | torch.device | None

    def __post_init__(self) -> None:
        if not callable(self.plan) and self.plan not in PLANS:
            raise InputError(
                f"there is no plan {self.plan!r}; choose among {', '.join(PLANS)}, or give a "
                "function (ids, samples, generator) -> queries"
            )
        for name in ("samples", "length", "max_deletions", "held_out", "batch_size", "seed"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if value is None and name in ("held_out", "batch_size"):
                continue
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or value < least:
                raise InputError(f"{name} must be an integer of at least {least}, not {value!r}")
        check_ridge(self.ridge)

    @property
    def name(self) -> str:
        """Name of the plan."""
        return getattr(self.plan, "__name__", repr(self.plan)) if callable(self.plan) else self.plan

    @property
    def n_held_out(self) -> int:
        """Number of held-out queries."""
        if self.held_out is not None:
            return self.held_out
        if self.plan == "exact":
            return _HELD_OUT_OF_EXACT
        return max(_LEAST_HELD_OUT, self.samples // 10)
