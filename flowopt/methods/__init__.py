"""Methods of explanation behind one call, and the papers' methods on plain arrays.

``flowopt.explain(model, tokenizer, text, method=...)`` takes any of `available()`; `describe()`
says what each costs, whether it has signs and what its scores sum to; `register` adds your own.
Heavy parts load when a method is called.
"""

from flowopt.methods import (
    attention_methods,
    gradient_methods,
    hidden_state_methods,
    perturbation_methods,
    reference_methods,
    surrogate_methods,
)
from flowopt.methods.answer import explain, explain_subject
from flowopt.methods.attention_flow import PairFlows, attention_flow, pair_flows
from flowopt.methods.attention_methods import chefer_relevance
from flowopt.methods.joint import joint_flow
from flowopt.methods.listing import MethodTable, describe
from flowopt.methods.passes import Passes, counting
from flowopt.methods.registry import MethodSpec, Scores, available, method_spec, register
from flowopt.methods.rollout import raw_attention, residual_attention, rollout
from flowopt.methods.subject import Subject, subject_of

__all__ = [
    "MethodSpec",
    "MethodTable",
    "PairFlows",
    "Passes",
    "Scores",
    "Subject",
    "attention_flow",
    "attention_methods",
    "available",
    "chefer_relevance",
    "counting",
    "describe",
    "explain",
    "explain_subject",
    "gradient_methods",
    "hidden_state_methods",
    "joint_flow",
    "method_spec",
    "pair_flows",
    "perturbation_methods",
    "raw_attention",
    "reference_methods",
    "register",
    "residual_attention",
    "rollout",
    "subject_of",
    "surrogate_methods",
]
