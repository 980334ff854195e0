"""Small facts that results are made of: of metrics, costs and failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowopt.evaluation.metric import Metric

__all__ = ["Cost", "Failure", "MetricFacts", "facts_of_metric"]


@dataclass(frozen=True)
class MetricFacts:
    """What a table says of a metric; see `flowopt.evaluation.Metric`."""

    name: str
    summary: str
    kind: str
    higher_is_better: bool

    @property
    def arrow(self) -> str:
        """Which direction is better."""
        return "\u2191" if self.higher_is_better else "\u2193"


@dataclass(frozen=True)
class Cost:
    """What one method cost per text: medians over the texts that it explained.

    Parameters
    ----------
    forward, backward : float
        Texts read by the model.
    seconds : float
    texts : int
    """

    forward: float
    backward: float
    seconds: float
    texts: int


@dataclass(frozen=True)
class Failure:
    """Rows without values, alike: how many, why, and one of their texts."""

    method: str
    status: str
    reason: str
    count: int
    example: str


def facts_of_metric(metric: Metric) -> dict[str, Any]:
    """What is stored of a metric beside its values."""
    return {
        "name": metric.name,
        "summary": metric.summary,
        "kind": metric.kind,
        "higher_is_better": metric.higher_is_better,
    }
