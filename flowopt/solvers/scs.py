"""SCS: first-order method for linear, quadratic and exponential-cone problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from flowopt.network import FlowNetwork
from flowopt.solvers.cvxpy_backend import EXP, LP, QP, CvxpySolver


@dataclass(frozen=True)
class Scs(CvxpySolver):
    """SCS through CVXPY: for comparison; it seldom reaches what the certificate asks for.

    Parameters
    ----------
    eps : float
        Absolute and relative residuals at which it stops.
    max_iters : int
        Limit on iterations.
    """

    name: ClassVar[str] = "SCS"
    package: ClassVar[str] = "scs"
    classes: ClassVar[frozenset[str]] = frozenset({LP, QP, EXP})

    eps: float = 1e-9
    max_iters: int = 20_000

    def options(self, net: FlowNetwork) -> dict[str, Any]:  # noqa: D102
        return {"eps_abs": self.eps, "eps_rel": self.eps, "max_iters": self.max_iters}

    def own_status(self, raw: Any) -> str:  # noqa: D102
        return str(raw["info"]["status"])
