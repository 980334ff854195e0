"""Bring a model into the state in which it can be read, and back."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowopt.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["differentiable_embeddings", "reading_mode"]


@contextmanager
def reading_mode(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode and eager attention; both are put back, whatever happens inside.

    Only the eager implementation returns attention. Output flags are passed with the call and
    never stored in the config.

    Raises
    ------
    UnsupportedError
        If the model cannot switch to eager attention.
    """
    training = [module for module in model.modules() if module.training]
    before = getattr(model.config, "_attn_implementation", None)
    switch = before not in (None, "eager")
    if switch:
        _set_attention(model, "eager")
    try:
        model.eval()
        yield
    finally:
        # Module by module: a user may keep parts of a training model in evaluation mode.
        for module in training:
            module.training = True
        if switch:
            _set_attention(model, before)


@contextmanager
def differentiable_embeddings(model: PreTrainedModel) -> Iterator[None]:
    """Let gradients start at the token embeddings.

    So a model whose parameters are all frozen has a graph from input to logits, and no work is
    spent below the first attention.
    """

    def start_here(_module: Any, _arguments: Any, output: Tensor) -> Tensor:
        return output.detach().requires_grad_(True)

    handle = model.get_input_embeddings().register_forward_hook(start_here)
    try:
        yield
    finally:
        handle.remove()


def _set_attention(model: PreTrainedModel, implementation: Any) -> None:
    try:
        model.set_attn_implementation(implementation)
    except (AttributeError, ValueError) as error:
        raise UnsupportedError(
            f"{type(model).__name__} cannot switch its attention to {implementation!r} ({error}); "
            'load it with attn_implementation="eager"'
        ) from None
