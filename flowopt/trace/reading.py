"""Bring a model into the state in which it can be read, and back."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowopt.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["differentiable_inputs", "embeddings_of", "reading_mode"]


@contextmanager
def reading_mode(model: PreTrainedModel, attention: str = "eager") -> Iterator[None]:
    """Evaluation mode and another attention; both are put back, whatever happens inside.

    Output flags are passed with the call and never stored in the config.

    Raises
    ------
    UnsupportedError
        If the model cannot switch its attention.
    """
    modules = list(model.modules())
    training = [module for module in modules if module.training]
    before = [(config, config._attn_implementation) for config in _configs(modules)]
    try:
        if any(name not in (None, attention) for _, name in before):
            _set_attention(model, attention)
        if training:
            model.eval()
        yield
    finally:
        # Module by module: a user may keep parts of a training model in evaluation mode.
        for module in training:
            module.training = True
        # config by config: an encoder and its decoder may have been given different ones
        for config, name in before:
            if config._attn_implementation != name:
                config._attn_implementation = name


@contextmanager
def differentiable_inputs(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], gradient: bool = True
) -> Iterator[tuple[dict[str, Tensor], Callable[[], list[Tensor]]]]:
    """Move inputs to the model, and let gradients start at its token embeddings.

    So a model whose parameters are all frozen has a graph from input to logits, and no work is
    spent below the first attention.

    Yields
    ------
    dict of str to Tensor
        The inputs.
    callable
        Returns, after the forward pass, the tensors at which the graph starts.
    """
    import torch

    found: list[Tensor] = []
    moved = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    for name, tensor in moved.items():
        if torch.is_floating_point(tensor) and not name.endswith("mask"):
            moved[name] = tensor.detach().to(model.dtype).clone().requires_grad_(gradient)
            found.append(moved[name])

    def start_here(_module: Any, _arguments: Any, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_(gradient)
        found.append(leaf)
        return leaf

    handles = [module.register_forward_hook(start_here) for module in embeddings_of(model)]
    try:
        yield moved, lambda: found
    finally:
        for handle in handles:
            handle.remove()


def embeddings_of(model: PreTrainedModel) -> list[Any]:
    """Token embeddings of the model, and of its encoder and decoder where it has both."""
    import torch

    parts = [model]
    if getattr(model.config, "is_encoder_decoder", False):
        parts += [model.get_encoder(), model.get_decoder()]
    found = {id(part): part for part in (each.get_input_embeddings() for each in parts)}
    # a vision model calls its whole patch embedding so; there gradients start at the pixels
    return [each for each in found.values() if isinstance(each, torch.nn.Embedding)]


def _configs(modules: Sequence[Any]) -> list[Any]:
    """Configs of a model and of its parts, outer ones first, each once."""
    parts = {id(config): config for config in (getattr(m, "config", None) for m in modules)}
    return [config for config in parts.values() if hasattr(config, "_attn_implementation")]


def _set_attention(model: PreTrainedModel, implementation: Any) -> None:
    try:
        model.set_attn_implementation(implementation)
    except (AttributeError, ValueError) as error:
        raise UnsupportedError(
            f"{type(model).__name__} cannot switch its attention to {implementation!r} ({error}); "
            'load it with attn_implementation="eager"'
        ) from None
