"""Model inputs that a user has prepared: checked, made tensors, and named token by token."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from flowopt.errors import InputError
from flowopt.trace.record import TokenInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = [
    "MAIN_AXES",
    "Kept",
    "accepted_inputs",
    "as_tensors",
    "check_image_size",
    "check_vocabulary",
    "describe_all",
    "describe_tokens",
    "kept_positions",
]

Kept = tuple[tuple[int, ...], ...]
"""For each example the positions that are no padding, ascending."""

MAIN_AXES = {"input_ids": 2, "inputs_embeds": 3, "pixel_values": 4}
"""What a model reads, and the number of its axes."""

_OURS = {
    "labels": "choose what is explained by target",
    "use_cache": "caches stay off",
    "past_key_values": "give all tokens instead",
    "cache_position": "give all tokens instead",
    "logits_to_keep": "it would move the positions of the logits",
    "encoder_outputs": "give input_ids instead",
    "decoder_inputs_embeds": "give decoder_input_ids instead",
}
"""Arguments of forward that are no inputs, or that flowopt sets itself."""

_COMPANIONS = ("token_type_ids", "position_ids")


def accepted_inputs(model: PreTrainedModel) -> Mapping[str, inspect.Parameter]:
    """Parameters of a model's forward."""
    forward = model.forward
    return _parameters(getattr(forward, "__func__", forward))


@functools.lru_cache(maxsize=128)
def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def as_tensors(model: PreTrainedModel, given: Mapping[str, ArrayLike | None]) -> dict[str, Tensor]:
    """Turn arrays into tensors; an axis for one example is added where it was left out.

    Raises
    ------
    InputError
        If the model takes no such input, or a shape cannot be right.
    """
    import torch

    accepted = accepted_inputs(model)
    tensors: dict[str, Tensor] = {}
    for name, values in given.items():
        if values is None:  # as in the model's own call
            continue
        if name not in accepted or accepted[name].kind is inspect.Parameter.VAR_KEYWORD:
            raise InputError(
                f"{type(model).__name__} takes no input {name!r}; it takes "
                f"{', '.join(n for n in accepted if n.endswith(('ids', 'mask', 'embeds')))}"
            )
        if name in _OURS:
            raise InputError(f"leave {name} out: {_OURS[name]}")
        try:
            tensor = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"{name} must be an array of numbers, one row per example") from None
        tensors[name] = _typed(name, tensor)
    for name, dims in MAIN_AXES.items():
        if name in tensors and tensors[name].ndim == dims - 1:
            tensors = {key: tensor.unsqueeze(0) for key, tensor in tensors.items()}
        if name in tensors and (tensors[name].ndim != dims or 0 in tensors[name].shape):
            axes = ("batch, positions, width", "batch, channels, height, width")[dims == 4]
            axes = "batch, positions" if dims == 2 else axes
            raise InputError(
                f"{name} must have {dims} axes ({axes}), none of them empty; its shape is "
                f"{tuple(tensors[name].shape)}"
            )
    _check_companions(model, tensors)
    return tensors


def _typed(name: str, tensor: Tensor) -> Tensor:
    """Integers of any width as the embeddings read them; other types are refused."""
    import torch

    real = tensor.is_floating_point()
    if name.endswith("ids"):
        if tensor.numel() and (real or tensor.is_complex() or tensor.dtype == torch.bool):
            raise InputError(f"{name} must be integers, not {tensor.dtype}")
        return tensor.long()
    if (name.endswith("embeds") or name == "pixel_values") and not real:
        raise InputError(f"{name} must be floating-point numbers, not {tensor.dtype}")
    return tensor


def _check_companions(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Refuse segments, positions and embeddings that do not fit the tokens or the model."""
    mains = [tensors[name] for name in MAIN_AXES if name in tensors]
    if len(mains) != 1:
        return
    (main,) = mains
    examples, length = main.shape[:2]
    limits = {
        "token_type_ids": getattr(model.config, "type_vocab_size", None),
        "position_ids": getattr(model.config, "max_position_embeddings", None),
    }
    for name in _COMPANIONS:
        values = tensors.get(name)
        if values is None:
            continue
        if values.shape not in {(examples, length), (1, length)}:
            raise InputError(
                f"{name} must have shape {(examples, length)} like the inputs, not "
                f"{tuple(values.shape)}"
            )
        limit = limits[name]
        low, high = int(values.min()), int(values.max())
        if low < 0:
            raise InputError(f"{name} must not be negative; the least is {low}")
        if isinstance(limit, int) and 0 < limit <= high:
            raise InputError(f"{name} run up to {high}; the model has 0 to {limit - 1}")
    channels = getattr(model.config, "num_channels", None)
    if "pixel_values" in tensors and channels is not None and main.shape[1] != channels:
        raise InputError(
            f"pixel_values must have shape (b, {channels}, height, width) for this model, not "
            f"{tuple(main.shape)}"
        )
    width = getattr(model.get_input_embeddings(), "embedding_dim", None)
    if "inputs_embeds" in tensors and width is not None and main.shape[2] != width:
        raise InputError(
            f"inputs_embeds must have shape (b, t, {width}) for this model, not {tuple(main.shape)}"
        )


def check_image_size(model: PreTrainedModel, height: int, width: int) -> None:
    """Refuse images that the model would have to interpolate its positions for.

    Raises
    ------
    InputError
    """
    size = getattr(model.config, "image_size", None)
    accepted = accepted_inputs(model)
    if size is None or "interpolate_pos_encoding" not in accepted:
        return  # a model that reads images of any size
    expected = (size, size) if isinstance(size, int) else tuple(size)
    if (height, width) != expected:
        raise InputError(
            f"the model reads images of {expected[0]} x {expected[1]} pixels, not {height} x "
            f"{width}: resize them with its image processor"
        )


def kept_positions(inputs: dict[str, Tensor], name: str, examples: int, length: int) -> Kept:
    """Read off a mask which positions of each example are no padding.

    Raises
    ------
    InputError
        If the mask does not fit, or leaves nothing.
    """
    mask = inputs.get(name)
    if mask is None:
        return (tuple(range(length)),) * examples
    if tuple(mask.shape) != (examples, length):
        raise InputError(
            f"{name} must have shape {(examples, length)} like the inputs, not {tuple(mask.shape)}"
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(f"{name} must hold ones (tokens) and zeros (padding) only")
    kept = tuple(tuple(int(i) for i in row.nonzero()[:, 0]) for row in mask)
    for example, positions in enumerate(kept):
        if not positions:
            raise InputError(f"example {example} has no tokens: its {name} is all zeros")
    return kept


def describe_all(ids: Tensor | None, kept: Kept, tokenizer: Any) -> tuple[TokenInfo, ...]:
    """Name the tokens of every example."""
    rows = [None] * len(kept) if ids is None else ids.tolist()
    return tuple(
        describe_tokens(positions, row, tokenizer)
        for positions, row in zip(kept, rows, strict=True)
    )


def describe_tokens(
    positions: Sequence[int], row: Sequence[int] | None, tokenizer: Any
) -> TokenInfo:
    """Name the tokens at some positions of a row of ids."""
    if row is None:
        return TokenInfo.positions(positions)
    ids = [row[position] for position in positions]
    if tokenizer is None:
        return TokenInfo.positions(positions, ids)
    special_ids = set(tokenizer.all_special_ids)
    special = tuple(i in special_ids for i in ids)
    # Without the text nobody knows which tokens were one word: each stands for itself.
    words = tuple(None if skip else place for place, skip in enumerate(special))
    tokens = tuple(str(token) for token in tokenizer.convert_ids_to_tokens(ids))
    return TokenInfo(tokens, special, words, tuple(ids))


def check_vocabulary(model: PreTrainedModel, input_ids: Tensor, name: str = "input_ids") -> None:
    """Refuse token ids that the embedding does not have, which is a tokenizer of another model.

    Raises
    ------
    InputError
    """
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if input_ids.is_floating_point():
        raise InputError(f"{name} must be integers")
    if rows is not None and (int(input_ids.max()) >= rows or int(input_ids.min()) < 0):
        raise InputError(
            f"{name} run from {int(input_ids.min())} to {int(input_ids.max())}, but the model "
            f"has {rows} embeddings: use the tokenizer that belongs to the model"
        )
