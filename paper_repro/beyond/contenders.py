"""What is compared: the steps from GAF's AGF to presence flow, and the methods it must beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowopt.methods import Subject
from flowopt.trace.conductance import edge_conductance
from flowopt.trace.path import PathOptions

Chosen = dict[str, Any]
Array = NDArray[np.float64]

OURS = "presence-flow"
STEPS = 16
"""Points on each path of our methods."""
CALLS = 320
"""Texts KernelSHAP asks for: what 4 paths x 16 points x (3 forward, 1 backward) passes cost, a
backward pass counted as two forward ones. The other rival with a budget, integrated gradients, has
3 paths x 32 points x (1 forward, 1 backward): 288."""

RIVALS = ("agf-barrier", "integrated gradients", "attcat", "chefer", "kernel-shap")
"""Those that presence flow is asked to beat."""


def conserved(subject: Subject, *, baselines: str | None = None) -> Array:
    """What passes from every token when every edge is saturated: the conductances themselves."""
    options = PathOptions(steps=STEPS, baselines=baselines, tolerance=None)
    ((_, found),) = edge_conductance(subject.model, subject.batch, options)
    return found.inputs["encoder"]


def direct_reads(subject: Subject) -> Array:
    """Sums of A (G - mean G) at the text itself: no path, no network."""
    from flowopt.trace import trace_batch

    ((trace),) = trace_batch(subject.model, subject.batch)
    attention, gradient = trace.attention, trace.gradient
    centred = gradient - (attention * gradient).sum(-1, keepdims=True)
    reads = (attention * centred).sum(axis=(0, 1))
    np.fill_diagonal(reads, 0.0)
    return reads.sum(axis=0)


def rivals() -> Chosen:
    """Methods of the final comparison."""
    return {
        OURS: OURS,
        "conductance-flow": ("conductance-flow", {"steps": STEPS}),
        "integrated gradients": (
            "integrated-gradients",
            {"baselines": ("pad", "mask", "unknown"), "steps": 32},
        ),
        "kernel-shap": ("kernel-shap", {"samples": CALLS}),
        "attcat": "attcat",
        "chefer": "chefer",
        "agf-barrier": "agf-barrier",
        "leave-one-out": "leave-one-out",
        "random": "random",
    }


def steps() -> Chosen:
    """One change at a time, on development splits only."""
    absent = {"steps": STEPS, "baselines": "absent"}
    return {
        "1 agf, all tops, barrier (GAF)": "agf-barrier",
        "2 agf, from [CLS]": ("agf-barrier", {"sources": "cls"}),
        "3 agf signed, from [CLS]": ("agf-signed-barrier", {"sources": "cls"}),
        "4 agf signed, along a path": (
            "agf-path-signed-barrier",
            {"sources": "cls", "steps": STEPS},
        ),
        "5 A (G - mean), no network": direct_reads,
        "6 conductances of replacing, barrier": ("conductance-flow", {"steps": STEPS}),
        "7 conductances of fading, barrier": ("conductance-flow", absent),
        "8 half of each, maximum flow": ("presence-maxflow", {"steps": STEPS}),
        "8 half of each, barrier": ("presence-barrier", {"steps": STEPS}),
        "8 half of each, quadratic": ("presence-quadratic", {"steps": STEPS}),
        "9 half of each, entropy (presence-flow)": OURS,
        "- replacing, no network (integrated gradients)": conserved,
        "- fading, no network": (conserved, {"baselines": "absent"}),
        "- half of each, no network": (conserved, {"baselines": "mixed"}),
        "leave-one-out": "leave-one-out",
        "random": "random",
    }
