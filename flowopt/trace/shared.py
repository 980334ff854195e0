"""The attention function that models of the transformers library call in place of their own.

They call whatever function their config names; ours runs the model's own eager one and tells the
recorder of this thread.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowopt.trace.fading import current_fading

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from flowopt.trace.recorder import Recorder

__all__ = ["ATTENTION", "recording", "shares_attention"]

ATTENTION = "flowopt"
"""Name of our function among transformers' attention implementations."""

_EAGER = "eager_attention_forward"

_current: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention for models whose config names `ATTENTION`."""
    eager = eager_of(module)
    recorder, faded = _current.get(), current_fading()
    if faded is not None:
        attention_mask = faded.onto(attention_mask, module, query, key)

    def run(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        output, weights = eager(module, query, key, value, attention_mask, **options)
        return output, weights

    if recorder is None:
        return run(query, key, value)[0], None
    return recorder.attend(module, run, (query, key, value), options), None


@functools.cache
def _announce() -> None:
    """Make `ATTENTION` known to transformers, with the masks of eager attention."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def mask(*arguments: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
        # the least double is minus infinity to the many models that take the softmax in single
        # precision: rows of padding, wholly masked, would turn into NaN and spread
        dtype = torch.float32 if dtype == torch.float64 else dtype
        return eager_mask(*arguments, dtype=dtype, **options)

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, mask)


def shares_attention(model: PreTrainedModel) -> bool:
    """Whether a model calls the attention function that its config names."""
    _announce()
    return eager_of(model) is not None


def eager_of(module: Any) -> Any:
    """The eager attention function of the file that defines a module's class; None without one."""
    for base in type(module).__mro__:
        found = getattr(sys.modules.get(base.__module__), _EAGER, None)
        if found is not None:
            return found
    return None


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Let the attention functions of this thread report to a recorder."""
    token = _current.set(recorder)
    try:
        yield
    finally:
        _current.reset(token)
