"""From transformers models to traces; one adapter per kind of architecture."""

from __future__ import annotations

from flowopt.trace.adapters import trace_batch
from flowopt.trace.batch import Batch, Target, batch_of_inputs
from flowopt.trace.families import Family, family_of, known_families, register_family
from flowopt.trace.record import Prediction, TokenInfo, Trace
from flowopt.trace.text import Encoded, collate, encode_texts

__all__ = [
    "Batch",
    "Encoded",
    "Family",
    "Prediction",
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
