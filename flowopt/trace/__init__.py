"""From transformers models to traces: one forward and one backward pass, any architecture."""

from __future__ import annotations

from flowopt.trace.batch import Batch, batch_of_inputs
from flowopt.trace.families import Family, family_of, known_families, register_family
from flowopt.trace.goals import Goal, Target
from flowopt.trace.layer import AttentionLayer, Reduction
from flowopt.trace.read import trace_batch
from flowopt.trace.record import Heads, Prediction, TokenInfo, Trace
from flowopt.trace.text import Encoded, collate, encode_texts

__all__ = [
    "AttentionLayer",
    "Batch",
    "Encoded",
    "Family",
    "Goal",
    "Heads",
    "Prediction",
    "Reduction",
    "Target",
    "TokenInfo",
    "Trace",
    "batch_of_inputs",
    "collate",
    "encode_texts",
    "family_of",
    "known_families",
    "register_family",
    "trace_batch",
]
