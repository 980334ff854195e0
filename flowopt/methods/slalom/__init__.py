"""SLALOM: a value and an importance for every token, fitted to a model's answers.

After Leemann et al., "Attention Mechanisms Don't Learn Additive Models" (arXiv 2405.13536). A
text's log odds are modelled as the average of its tokens' values, weighted by the softmax of their
importances; an additive model of the same size cannot follow what attention computes.
"""

from __future__ import annotations

from flowopt.methods.slalom.explain import explain, explain_ids
from flowopt.methods.slalom.explanation import Samples, SlalomExplanation
from flowopt.methods.slalom.fit import SCORES, SlalomFit, fit_counts, predict, recover_exactly
from flowopt.methods.slalom.plans import PLANS
from flowopt.methods.slalom.quality import FitQuality, LinearFit, RemovalErrors, removal_error
from flowopt.methods.slalom.query import log_odds

__all__ = [
    "PLANS",
    "SCORES",
    "FitQuality",
    "LinearFit",
    "RemovalErrors",
    "Samples",
    "SlalomExplanation",
    "SlalomFit",
    "explain",
    "explain_ids",
    "fit_counts",
    "log_odds",
    "predict",
    "recover_exactly",
    "removal_error",
]
