"""Count what an explanation asks of a model: texts read forwards, and backwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Passes", "counting"]


@dataclass
class Passes:
    """What a model was asked, counted in texts: a batch of 16 is 16 passes in one call.

    Attributes
    ----------
    forward, backward : int
        Texts read; those of them through which a gradient came back.
    calls : int
        Forward calls of the model.
    """

    forward: int = 0
    backward: int = 0
    calls: int = 0

    def to_dict(self) -> dict[str, int]:
        """Plain numbers."""
        return {"forward": self.forward, "backward": self.backward, "calls": self.calls}


@contextmanager
def counting(model: PreTrainedModel) -> Iterator[Passes]:
    """Count the passes that a model makes inside, whoever asks for them."""
    passes = Passes()

    def count(_module: Any, _arguments: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if logits is None:
            return
        rows = int(logits.shape[0])
        passes.forward += rows
        passes.calls += 1
        if logits.requires_grad:
            logits.register_hook(lambda _slope: count_back(rows))

    def count_back(rows: int) -> None:
        passes.backward += rows

    handle = model.register_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()
