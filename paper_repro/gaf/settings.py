"""What is compared: methods, texts, protocols, models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Method = tuple[str, dict[str, Any]]

TENSORS = ("af", "gf", "agf")
OBJECTIVES = ("maxflow", "barrier", "quadratic", "shapley")
GAF = tuple(f"{tensor}-{objective}" for tensor in TENSORS for objective in OBJECTIVES)
PLAIN = (
    *("attention-flow", "raw-attention", "rollout"),
    *("attgrad", "chefer", "cat", "attcat"),
    *("saliency", "input-x-gradient", "integrated-gradients", "deeplift"),
    "occlusion",
)
REFERENCES = ("random", "leave-one-out")
SAMPLING = ("lime", "kernel-shap", "slalom-value", "slalom-linearised")

PROTOCOLS = ("default", "attcat", "attcat-pad")
METRICS = ("aopc", "log-odds")
LONGEST = 128
"""Tokens that a text is cut to, special ones included: every method reads the same text."""
SHORTEST = 10
"""Tokens that a text must have, special ones not counted: AttCAT's own rule, for all protocols."""

HUB = {
    "sst2": "textattack/bert-base-uncased-SST-2",
    "imdb": "textattack/bert-base-uncased-imdb",
    "ag_news": "textattack/bert-base-uncased-ag-news",
    "yelp": "textattack/bert-base-uncased-yelp-polarity",
}
"""Models of the same sets on a hub, with the same numbering of labels; there is none for subj."""


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes
    ----------
    texts : dict of str to int
        Per set.
    samples : int
        Texts that each sampling method fits its surrogate to.
    orders : int
        Orders of the tokens that Shapley flow samples.
    steps : int
        Points on every path of inputs, for integrated gradients and edge conductance.
    """

    texts: dict[str, int]
    samples: int = 100
    orders: int = 30
    steps: int = 16


SIZES = {
    "quick": Size(dict.fromkeys(("sst2", "subj", "ag_news", "yelp", "imdb"), 2), 20, 5, 4),
    "normal": Size({"sst2": 30, "subj": 16, "ag_news": 10, "yelp": 6, "imdb": 4}),
    "full": Size(dict.fromkeys(("sst2", "subj", "ag_news", "yelp", "imdb"), 250), 500, 100, 32),
}


def methods(size: Size) -> dict[str, Method]:
    """Label -> name and options of every method."""
    chosen: dict[str, Method] = {}
    for name in GAF:
        chosen[name] = (name, {"samples": size.orders} if name.endswith("shapley") else {})
    path = {"steps": size.steps, "baselines": "pad"}
    chosen["conductance-flow"] = ("conductance-flow", path)
    chosen["presence-flow"] = ("presence-flow", {"steps": size.steps})
    for name in PLAIN:
        chosen[name] = (name, path if name == "integrated-gradients" else {})
    for name in SAMPLING:
        chosen[name] = (name, {"samples": size.samples})
    return chosen | {name: (name, {}) for name in REFERENCES}
