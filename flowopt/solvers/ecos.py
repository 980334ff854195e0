"""ECOS: interior-point method for small problems. GPL-3: loaded only when it is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowopt.network import FlowNetwork
from flowopt.solvers.cvxpy_backend import EXP, LP, QP, CvxpySolver

_INACCURATE = 10  # ECOS's exit flag for an optimum to reduced accuracy
_STALLED = (-2, -3)  # unreliable direction, left the cone: the last iterate is still there


@dataclass(frozen=True)
class Ecos(CvxpySolver):
    """ECOS through CVXPY.

    Parameters
    ----------
    tol_gap, tol_feas : float
        Duality gap, and feasibility, at which it stops.
    max_iters : int
        Limit on interior-point iterations.
    """

    name: ClassVar[str] = "ECOS"
    package: ClassVar[str] = "ecos"
    classes: ClassVar[frozenset[str]] = frozenset({LP, QP, EXP})

    tol_gap: float = 1e-9
    tol_feas: float = 1e-9
    max_iters: int = 150

    def options(self, net: FlowNetwork) -> dict[str, Any]:  # noqa: D102
        return {
            "abstol": self.tol_gap,
            "reltol": self.tol_gap,
            "feastol": self.tol_feas,
            "max_iters": self.max_iters,
        }

    def own_status(self, raw: Any) -> str:  # noqa: D102
        return str(raw["info"]["infostring"])

    def salvaged(self, raw: Any) -> Any:  # noqa: D102
        if raw["info"]["exitFlag"] in _STALLED and np.isfinite(raw["x"]).all():
            raw["info"]["exitFlag"] = _INACCURATE
        return raw
