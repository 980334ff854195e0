"""HiGHS: simplex and interior-point methods for linear problems, active sets for quadratic ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from flowopt.network import FlowNetwork
from flowopt.objectives import Objective
from flowopt.solvers.cvxpy_backend import LP, QP, CvxpySolver, problem_class


@dataclass(frozen=True)
class Highs(CvxpySolver):
    """HiGHS through CVXPY.

    Parameters
    ----------
    feasibility, optimality : float
        Primal and dual tolerances; 1e-10 is the tightest that HiGHS accepts.
    interior_point_from : int
        Number of kept edges from which the interior-point method (with crossover) is used;
        simplex takes 20 times as long on 200,000 edges.
    qp_regularization : float
        Added to the diagonal of quadratic objectives; HiGHS's own 1e-7 costs six digits.
    qp_edges : int
        Number of kept edges up to which it takes on quadratic problems; its active-set method
        needs minutes, and more than 100,000 steps, on 2,000 edges.
    qp_iteration_limit : int
        Its active-set method can cycle for ever on degenerate quadratic problems.
    time_limit : float
        Seconds.
    """

    name: ClassVar[str] = "HIGHS"
    package: ClassVar[str] = "highspy"
    classes: ClassVar[frozenset[str]] = frozenset({LP, QP})

    feasibility: float = 1e-10
    optimality: float = 1e-10
    interior_point_from: int = 5_000
    qp_regularization: float = 1e-12
    qp_edges: int = 1_000
    qp_iteration_limit: int = 20_000
    time_limit: float = 600.0

    def refusal(self, net: FlowNetwork, objective: Objective) -> str | None:  # noqa: D102
        why = super().refusal(net, objective)
        kept = net.graph.report.kept
        if why is None and kept > self.qp_edges and problem_class(net, objective) == QP:
            return (
                f"its active-set method is too slow on a quadratic problem of {kept} edges "
                f"(above qp_edges={self.qp_edges})"
            )
        return why

    def options(self, net: FlowNetwork) -> dict[str, Any]:  # noqa: D102
        return {
            "output_flag": False,
            "primal_feasibility_tolerance": self.feasibility,
            "dual_feasibility_tolerance": self.optimality,
            "ipm_optimality_tolerance": self.optimality,
            "qp_regularization_value": self.qp_regularization,
            "qp_iteration_limit": self.qp_iteration_limit,
            "time_limit": self.time_limit,
            "solver": "ipm" if net.graph.report.kept >= self.interior_point_from else "choose",
        }

    def own_status(self, raw: Any) -> str:  # noqa: D102
        return str(raw["model_status"])
