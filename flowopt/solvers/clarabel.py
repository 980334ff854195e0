"""Clarabel: interior-point method for linear, quadratic and exponential-cone problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from flowopt.network import FlowNetwork
from flowopt.solvers.cvxpy_backend import EXP, LP, QP, CvxpySolver


@dataclass(frozen=True)
class Clarabel(CvxpySolver):
    """Clarabel through CVXPY.

    Parameters
    ----------
    tol_gap, tol_feas : float
        Relative duality gap, and feasibility, at which it stops.
    regularization : float
        Added to the diagonal of its linear systems; with Clarabel's own 1e-8 it stalls early.
    max_iter : int
        Limit on interior-point iterations.
    """

    name: ClassVar[str] = "CLARABEL"
    package: ClassVar[str] = "clarabel"
    classes: ClassVar[frozenset[str]] = frozenset({LP, QP, EXP})

    tol_gap: float = 1e-13
    tol_feas: float = 1e-10
    regularization: float = 1e-10
    max_iter: int = 200

    def options(self, net: FlowNetwork) -> dict[str, Any]:  # noqa: D102
        return {
            "tol_gap_abs": self.tol_gap,
            "tol_gap_rel": self.tol_gap,
            "tol_feas": self.tol_feas,
            "max_iter": self.max_iter,
            "static_regularization_constant": self.regularization,
            "equilibrate_enable": True,
            "accept_unknown": True,  # the last iterate when progress stalls: we judge it ourselves
        }

    def own_status(self, raw: Any) -> str:  # noqa: D102
        return str(raw.status)
