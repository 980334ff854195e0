"""One adapter per kind of architecture: a function from a batch to its traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flowopt.errors import UnsupportedError
from flowopt.trace.batch import Batch
from flowopt.trace.encoder import trace_encoder
from flowopt.trace.families import Family, family_of
from flowopt.trace.record import Trace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ADAPTERS", "Adapter", "trace_batch"]

Adapter = Callable[["PreTrainedModel", Family, Batch, bool], Iterator[Trace]]

ADAPTERS: dict[str, Adapter] = {"encoder-classifier": trace_encoder}
"""Adapters by `Family.kind`."""


def trace_batch(model: PreTrainedModel, batch: Batch, gradient: bool = True) -> Iterator[Trace]:
    """Read a batch with the adapter of the model's family.

    Parameters
    ----------
    model : PreTrainedModel
    batch : Batch
    gradient : bool
        Whether to run the backward pass.

    Yields
    ------
    Trace
        One per example, in order.

    Raises
    ------
    InputError, UnsupportedError
        See the adapters; the first error ends the iteration.
    """
    family = family_of(model)
    if family.kind not in ADAPTERS:
        raise UnsupportedError(
            f"no adapter for models of kind {family.kind!r}; there are {', '.join(ADAPTERS)}"
        )
    return ADAPTERS[family.kind](model, family, batch, gradient)
