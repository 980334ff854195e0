"""The exceptions flowopt raises: one small tree, every message names its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowopt.solution import FlowSolution


class FlowoptError(Exception):
    """Base of every error raised by flowopt."""


class InputError(FlowoptError, ValueError):
    """The input cannot be used; the message says what to change."""


class UnsupportedError(InputError):
    """A known thing was asked of something that cannot do it (a solver, a model, an objective)."""


class MissingDependencyError(FlowoptError, ImportError):
    """An optional package is needed; the message says which one to install."""


class SolverError(FlowoptError, RuntimeError):
    """A solver ended without an answer that our own certificate accepts.

    Attributes
    ----------
    solution : FlowSolution or None
        The best feasible flow that was found, with its certificate; None if there was none.
    """

    def __init__(self, message: str, solution: FlowSolution | None = None) -> None:
        super().__init__(message)
        self.solution = solution


class FlowoptWarning(UserWarning):
    """Something was changed or approximated that the user should know of (a truncated text)."""
