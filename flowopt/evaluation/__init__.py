"""Measuring attributions: metrics, protocols, a corpus runner with resumable results, reports.

`flowopt.evaluate` is the one call for a corpus; `measure` is the same for one text.
"""

from flowopt.evaluation.dataset import Dataset, Example, read_dataset
from flowopt.evaluation.evaluate import evaluate
from flowopt.evaluation.measure import Measured, measure
from flowopt.evaluation.metric import Case, Metric, metric_spec, metrics, register_metric
from flowopt.evaluation.protocol import PROTOCOLS, Protocol, protocol_named
from flowopt.evaluation.randomise import cascade, randomise
from flowopt.evaluation.results import Evaluation
from flowopt.evaluation.sanity import SanityTable, sanity_check
from flowopt.evaluation.statistics import (
    Difference,
    Interval,
    compare_to,
    holm,
    mean_interval,
    paired,
    rivals,
)
from flowopt.evaluation.truth import Recovery, planted_model, planted_texts, recovery

__all__ = [
    "PROTOCOLS",
    "Case",
    "Dataset",
    "Difference",
    "Evaluation",
    "Example",
    "Interval",
    "Measured",
    "Metric",
    "Protocol",
    "Recovery",
    "SanityTable",
    "cascade",
    "compare_to",
    "evaluate",
    "holm",
    "mean_interval",
    "measure",
    "metric_spec",
    "metrics",
    "paired",
    "planted_model",
    "planted_texts",
    "protocol_named",
    "randomise",
    "read_dataset",
    "recovery",
    "register_metric",
    "rivals",
    "sanity_check",
]
