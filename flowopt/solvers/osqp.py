"""OSQP: first-order method for linear and quadratic problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from flowopt.network import FlowNetwork
from flowopt.solvers.cvxpy_backend import LP, QP, CvxpySolver


@dataclass(frozen=True)
class Osqp(CvxpySolver):
    """OSQP through CVXPY.

    Parameters
    ----------
    eps : float
        Absolute and relative residuals at which it stops.
    max_iter : int
        Limit on iterations.
    polishing : bool
        Whether to solve once more on the active constraints found, which gives the last digits.
    """

    name: ClassVar[str] = "OSQP"
    package: ClassVar[str] = "osqp"
    classes: ClassVar[frozenset[str]] = frozenset({LP, QP})

    eps: float = 1e-9
    max_iter: int = 20_000
    polishing: bool = True

    def options(self, net: FlowNetwork) -> dict[str, Any]:  # noqa: D102
        return {
            "eps_abs": self.eps,
            "eps_rel": self.eps,
            "max_iter": self.max_iter,
            "polishing": self.polishing,
            # every problem here has an optimum; at a tight |f| == F* OSQP would doubt it
            "eps_prim_inf": 1e-15,
            "eps_dual_inf": 1e-15,
        }

    def own_status(self, raw: Any) -> str:  # noqa: D102
        return str(raw.info.status)
