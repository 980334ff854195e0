"""What every backend is: a small frozen value object that returns raw numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from flowopt.network import FloatArray, FlowNetwork
from flowopt.objectives import Objective


@dataclass(frozen=True, eq=False)
class RawSolution:
    """Numbers as a backend returned them; nothing in them is trusted.

    Attributes
    ----------
    flow : ndarray, shape (E,), or None
        On every possible edge of ``net.graph``; None if the backend returned nothing.
    potential : ndarray, shape (n_nodes,), or None
    slack : ndarray, shape (E,), or None
        Capacity minus flow, where the backend knows it better than the difference does.
    message : str
        The backend's own word on how it ended.
    build_seconds, solve_seconds : float
        Forming the backend's problem, and solving it.
    iterations : int or None
    extra : mapping
        The backend's own facts, for ``FlowSolution.stats``.
    """

    flow: FloatArray | None
    potential: FloatArray | None
    message: str
    build_seconds: float
    solve_seconds: float
    iterations: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    slack: FloatArray | None = None


class Solver(ABC):
    """A backend. Subclasses are frozen dataclasses whose fields are their options."""

    name: ClassVar[str]
    package: ClassVar[str]  # what must be installed

    @classmethod
    def available(cls) -> bool:
        """Whether the backend's package is installed; nothing is imported."""
        return find_spec(cls.package) is not None

    @abstractmethod
    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:
        """Why this backend cannot solve the problem; None if it can."""

    @abstractmethod
    def solve(
        self, net: FlowNetwork, objective: Objective, start: FloatArray | None = None
    ) -> RawSolution:
        """Solve for a resolved objective on a network that has at least one path.

        Parameters
        ----------
        start : ndarray, shape (n_nodes,), optional
            Potentials of a similar solution, for backends that can use them.
        """
