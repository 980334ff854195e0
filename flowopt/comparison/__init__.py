"""Comparing backends: on a network (`compare`), and over sets of networks (`runs`)."""

from flowopt.comparison.compare import Comparison, compare_solvers
from flowopt.comparison.problem_sets import available_problem_sets, problem_set
from flowopt.comparison.runs import benchmark_solvers

__all__ = [
    "Comparison",
    "available_problem_sets",
    "benchmark_solvers",
    "compare_solvers",
    "problem_set",
]
