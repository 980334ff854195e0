"""flowopt: explain transformer predictions by network flow, every answer certified.

Names are loaded on first use, so that ``import flowopt`` stays fast and imports neither torch,
transformers, cvxpy nor a solver.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> module that holds it
_EXPORTS = {
    "AttentionPath": "flowopt.tensors",
    "Attribution": "flowopt.attribution",
    "AttributionMatrix": "flowopt.attribution",
    "Block": "flowopt.network",
    "Certificate": "flowopt.solution",
    "Conductance": "flowopt.tensors",
    "Entropy": "flowopt.objectives",
    "Evaluation": "flowopt.evaluation",
    "Example": "flowopt.evaluation",
    "Explainer": "flowopt.explainer",
    "Facts": "flowopt.objectives",
    "FlowNetwork": "flowopt.network",
    "FlowProblem": "flowopt.problem",
    "FlowSolution": "flowopt.solution",
    "FlowoptError": "flowopt.errors",
    "FlowoptWarning": "flowopt.errors",
    "InputError": "flowopt.errors",
    "Link": "flowopt.network",
    "LogBarrier": "flowopt.objectives",
    "MaxFlow": "flowopt.objectives",
    "MaxMinFair": "flowopt.objectives",
    "MinCost": "flowopt.objectives",
    "Objective": "flowopt.objectives",
    "PairFlows": "flowopt.methods",
    "ProportionalFair": "flowopt.objectives",
    "Quadratic": "flowopt.objectives",
    "Separable": "flowopt.objectives",
    "ShapleyFlow": "flowopt.objectives",
    "SolverError": "flowopt.errors",
    "Status": "flowopt.solution",
    "UnsupportedError": "flowopt.errors",
    "ambiguity": "flowopt.intervals",
    "attention_flow": "flowopt.methods",
    "benchmark_solvers": "flowopt.comparison.runs",
    "compare_solvers": "flowopt.comparison",
    "evaluate": "flowopt.evaluation",
    "explain": "flowopt.methods",
    "flow_attributions": "flowopt.sensitivity.torch_layer",
    "head_statistic": "flowopt.tensors",
    "information_tensor": "flowopt.tensors",
    "joint_flow": "flowopt.methods",
    "pair_flows": "flowopt.methods",
    "problem_set": "flowopt.comparison.problem_sets",
    "raw_attention": "flowopt.methods",
    "register_tensor": "flowopt.tensors",
    "residual_attention": "flowopt.methods",
    "rollout": "flowopt.methods",
    "solve": "flowopt.solvers",
    "solve_batch": "flowopt.batch",
}
_MODULES = {
    name: f"flowopt.{name}"
    for name in (
        "axioms", "capacities", "errors", "evaluation", "methods", "solvers", "tensors", "trace",
        "viz",
    )
} | {"slalom": "flowopt.methods.slalom"}  # fmt: skip

__all__ = ["__version__", *_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
    elif name in _MODULES:
        value = import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'flowopt' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
