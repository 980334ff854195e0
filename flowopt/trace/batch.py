"""A batch of model inputs with what is known of its tokens, and the choice of the class."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor
    from transformers import PreTrainedModel

from flowopt.trace.record import TokenInfo

__all__ = ["Batch", "Target", "batch_of_inputs", "class_index", "class_indices", "similar_lengths"]

Target = int | str | None
"""The class to explain: its index, its label, or None for the predicted one."""


_POSITION_PAIRS = 2**19
"""Most (query, key) pairs in one forward pass, padding included: two texts of 512 tokens."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of one forward pass over b examples.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        Keyword arguments of the model's forward, first axis b, second axis padded positions.
    kept : tuple of tuple of int
        For each example the positions that are no padding, ascending.
    infos : tuple of TokenInfo
        For each example the tokens at these positions.
    targets : tuple of (int or None)
        For each example the class to explain; None = the predicted one.
    """

    inputs: Mapping[str, Tensor]
    kept: tuple[tuple[int, ...], ...]
    infos: tuple[TokenInfo, ...]
    targets: tuple[int | None, ...]


def class_index(model: PreTrainedModel, target: Target) -> int | None:
    """Turn a class index or label into an index; None stays None.

    Raises
    ------
    InputError
        If the model has no such class; the message lists those it has.
    """
    if target is None:
        return None
    labels = {int(i): str(label) for i, label in (model.config.id2label or {}).items()}
    count = int(getattr(model.config, "num_labels", len(labels)))
    if isinstance(target, (int, np.integer)) and not isinstance(target, bool):
        if not 0 <= target < count:
            raise InputError(
                f"target {target} is out of range: the model has classes 0 to {count - 1} "
                f"({', '.join(labels.values())})"
            )
        return int(target)
    if not isinstance(target, str):
        raise InputError(f"target must be a class index, a label or None, not {target!r}")
    for same in (str.__str__, str.casefold):
        found = [i for i, label in labels.items() if same(label) == same(target)]
        if len(found) == 1:
            return found[0]
    close = difflib.get_close_matches(target, labels.values(), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise InputError(
        f"the model has no label {target!r}{hint}. Its labels: {', '.join(labels.values())}"
    )


def similar_lengths(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Group texts of similar length: little padding, and memory that is bounded.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each text.
    size : int
        Most texts in a group.

    Returns
    -------
    list of list of int
        Indices, shortest texts first, each index once.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        longest = lengths[index]
        room = groups and len(groups[-1]) < size
        if room and (len(groups[-1]) + 1) * longest**2 <= _POSITION_PAIRS:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def batch_of_inputs(
    model: PreTrainedModel,
    model_inputs: Mapping[str, ArrayLike],
    target: Target | Sequence[Target] = None,
    tokenizer: Any = None,
) -> Batch:
    """Make a batch of inputs that the user has prepared.

    Parameters
    ----------
    model : PreTrainedModel
    model_inputs : mapping of str to array
        ``input_ids`` (b, t) or ``inputs_embeds`` (b, t, d), and what else the model takes, such
        as ``attention_mask`` (b, t); the axis b may be left out for one example.
    target : int, str, None, or one of these per example
    tokenizer : optional
        Names the tokens of ``input_ids``; without it tokens are positions "0", "1", ...

    Raises
    ------
    InputError
        If an argument is unknown to the model, or shapes or numbers cannot be right.
    """
    inputs = _as_tensors(model, model_inputs)
    main = inputs.get("input_ids", inputs.get("inputs_embeds"))
    if main is None or ("input_ids" in inputs) == ("inputs_embeds" in inputs):
        raise InputError("give either input_ids (b, t) or inputs_embeds (b, t, d), one of the two")
    examples, length = int(main.shape[0]), int(main.shape[1])
    kept = _kept_positions(inputs, examples, length)
    ids = inputs["input_ids"].tolist() if "input_ids" in inputs else [None] * examples
    infos = tuple(
        _describe(positions, row, tokenizer) for positions, row in zip(kept, ids, strict=True)
    )
    return Batch(inputs, kept, infos, class_indices(model, target, examples))


def class_indices(
    model: PreTrainedModel, target: Target | Sequence[Target], count: int
) -> tuple[int | None, ...]:
    """One class index per example, from one target for all or a sequence of them."""
    if target is None or isinstance(target, (int, str, np.integer)):
        return (class_index(model, target),) * count
    targets = tuple(target)
    if len(targets) != count:
        raise InputError(
            f"{len(targets)} targets for {count} inputs; give one target, or one per input"
        )
    return tuple(class_index(model, each) for each in targets)


def _as_tensors(model: PreTrainedModel, given: Mapping[str, ArrayLike]) -> dict[str, Tensor]:
    import inspect

    import torch

    accepted = inspect.signature(model.forward).parameters
    tensors: dict[str, Tensor] = {}
    for name, values in given.items():
        if name not in accepted:
            raise InputError(
                f"{type(model).__name__} takes no input {name!r}; it takes "
                f"{', '.join(n for n in accepted if n.endswith(('ids', 'mask', 'embeds')))}"
            )
        try:
            tensor = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"{name} must be an array of numbers, one row per example") from None
        tensors[name] = tensor
    for name, dims in (("input_ids", 2), ("inputs_embeds", 3)):
        if name in tensors and tensors[name].ndim == dims - 1:
            tensors = {key: tensor.unsqueeze(0) for key, tensor in tensors.items()}
        if name in tensors and (tensors[name].ndim != dims or 0 in tensors[name].shape):
            raise InputError(
                f"{name} must have {dims} axes (batch, positions{', width' * (dims - 2)}), none "
                f"of them empty; its shape is {tuple(tensors[name].shape)}"
            )
    return tensors


def _kept_positions(
    inputs: dict[str, Tensor], examples: int, length: int
) -> tuple[tuple[int, ...], ...]:
    mask = inputs.get("attention_mask")
    if mask is None:
        return (tuple(range(length)),) * examples
    if tuple(mask.shape) != (examples, length):
        raise InputError(
            f"attention_mask must have shape {(examples, length)} like the inputs, "
            f"not {tuple(mask.shape)}"
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError("attention_mask must hold ones (tokens) and zeros (padding) only")
    kept = tuple(tuple(int(i) for i in row.nonzero()[:, 0]) for row in mask)
    for example, positions in enumerate(kept):
        if not positions:
            raise InputError(f"example {example} has no tokens: its attention_mask is all zeros")
    return kept


def _describe(positions: tuple[int, ...], row: list[int] | None, tokenizer: Any) -> TokenInfo:
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


def check_vocabulary(model: PreTrainedModel, input_ids: Tensor) -> None:
    """Refuse token ids that the embedding does not have, which is a tokenizer of another model.

    Raises
    ------
    InputError
    """
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if input_ids.is_floating_point():
        raise InputError("input_ids must be integers")
    if rows is not None and (int(input_ids.max()) >= rows or int(input_ids.min()) < 0):
        raise InputError(
            f"input_ids run from {int(input_ids.min())} to {int(input_ids.max())}, but the model "
            f"has {rows} embeddings: use the tokenizer that belongs to the model"
        )
