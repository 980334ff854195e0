"""What is explained of an example: a logit, a sum of logits, or a difference of two."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, UnsupportedError
from flowopt.trace.record import Prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    Array = NDArray[np.float64]

__all__ = [
    "Goal",
    "Target",
    "class_index",
    "describe",
    "emits_tokens",
    "explained",
    "goals_of",
    "token_index",
]

Target = int | str | None
"""What to explain: index or label of a class, id or text of a token; None: the predicted one."""

RUNNER_UP = "runner-up"


@dataclass(frozen=True)
class Goal:
    """Which logits of one example are explained.

    Parameters
    ----------
    target : int or None
        Class, or token id; None is the predicted one.
    position : int or None
        Position of the model's output that emits the token; None for classifiers.
    earlier : tuple of (int, int)
        Positions and tokens emitted before, whose logits are added: in an unrolled network the
        gradient of one logit alone leaves every earlier top node dead (method.md, section 2).
    rival : int, "runner-up" or None
        Class or token whose logit is subtracted.
    """

    target: int | None = None
    position: int | None = None
    earlier: tuple[tuple[int, int], ...] = ()
    rival: int | str | None = None


def goals_of(
    model: PreTrainedModel,
    targets: Target | Sequence[Target],
    positions: Sequence[int | None],
    tokenizer: Any = None,
    contrast: Target = None,
) -> tuple[Goal, ...]:
    """One goal per example, from one target for all or a sequence of them.

    Parameters
    ----------
    positions : sequence of (int or None)
        For each example the position that emits the explained token.
    contrast : int, str or None
        Class or token whose logit is subtracted; "runner-up" is the best besides the target.

    Raises
    ------
    InputError
        If there is no such class or token, or the numbers of targets and examples differ.
    """
    count = len(positions)

    def index(target: Target) -> int | None:
        if emits_tokens(model):
            return token_index(model, target, tokenizer)
        return class_index(model, target)

    as_list: Any = getattr(targets, "tolist", None)  # an array, a tensor or a number of theirs
    if as_list is not None:
        targets = as_list()
    if targets is None or isinstance(targets, str) or not isinstance(targets, Iterable):
        indices = [index(targets)] * count
    else:
        listed = tuple(targets)
        if len(listed) != count:
            raise InputError(
                f"{len(listed)} targets for {count} inputs; give one target, or one per input"
            )
        indices = [index(each) for each in listed]
    rival = contrast if contrast == RUNNER_UP else index(contrast)
    if rival is not None and rival in indices:
        raise InputError(
            f"the contrast {contrast!r} is the target itself, and the difference of a logit with "
            "itself is zero: choose another contrast"
        )
    return tuple(
        Goal(target, position, rival=rival)
        for target, position in zip(indices, positions, strict=True)
    )


def emits_tokens(model: PreTrainedModel) -> bool:
    """Whether the model's logits are over a vocabulary: a language model."""
    try:
        return model.get_output_embeddings() is not None
    except (AttributeError, NotImplementedError):
        return False


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


def token_index(model: PreTrainedModel, target: Target, tokenizer: Any = None) -> int | None:
    """Turn a token's id or text into its id; None stays None.

    Raises
    ------
    InputError
        If there is no such token, or the text is several tokens.
    """
    if target is None:
        return None
    size = int(getattr(model.config, "vocab_size", 0))
    if isinstance(target, (int, np.integer)) and not isinstance(target, bool):
        if not 0 <= target < size:
            raise InputError(f"token id {target} is out of range: the vocabulary has {size} tokens")
        return int(target)
    if not isinstance(target, str):
        raise InputError(f"target must be a token id, a token's text or None, not {target!r}")
    if tokenizer is None:
        raise InputError("without a tokenizer the target must be a token id")
    vocabulary = tokenizer.get_vocab()
    if target in vocabulary:
        return int(vocabulary[target])
    ids = tokenizer(target, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        pieces = ", ".join(repr(piece) for piece in tokenizer.convert_ids_to_tokens(ids))
        raise InputError(
            f"the target {target!r} is {len(ids)} tokens ({pieces}); give one token, or explain "
            "them one by one with explain_generation(text, continuation=...)"
        )
    return int(ids[0])


def explained(logits: Tensor, goals: Sequence[Goal]) -> tuple[Tensor, list[int], list[Tensor]]:
    """What is explained, summed over the examples of a batch.

    Examples do not interact, so the gradient of the sum holds the gradient of each.

    Parameters
    ----------
    logits : Tensor (b, classes) or (b, positions, vocabulary)
    goals : sequence of Goal

    Returns
    -------
    Tensor ()
    list of int
        The class or token of each example.
    list of Tensor (classes,) or (vocabulary,)
        The logits it was chosen from.

    Raises
    ------
    UnsupportedError
        If the model predicts something of every position, and no position is asked for.
    """
    total = logits.new_zeros(())
    chosen, rows = [], []
    for example, goal in enumerate(goals):
        if logits.ndim == 3 and goal.position is None:
            raise UnsupportedError(
                "the model makes one prediction per position (token classification?); flowopt "
                "explains classifiers of whole inputs and language models"
            )
        row = logits[example] if logits.ndim == 2 else logits[example, goal.position]
        target = int(row.argmax()) if goal.target is None else goal.target
        total = total + row[target]
        for position, token in goal.earlier:
            total = total + logits[example, position, token]
        if goal.rival is not None:
            total = total - row[rival_of(row, target, goal.rival)]
        chosen.append(target)
        rows.append(row)
    return total, chosen, rows


def rival_of(row: Tensor, target: int, rival: int | str) -> int:
    """The class or token that a contrast subtracts."""
    if isinstance(rival, int):
        return rival
    if len(row) < 2:
        raise UnsupportedError("a model with one logit has no runner-up; leave the contrast out")
    best = row.topk(2).indices.tolist()
    return int(best[1] if best[0] == target else best[0])


def describe(model: PreTrainedModel, logits: Array, index: int, tokenizer: Any) -> Prediction:
    """One class or token: probability by softmax, or sigmoid where classes are not rivals."""
    if emits_tokens(model):
        label = f"token {index}"
        if tokenizer is not None:
            label = str(tokenizer.convert_ids_to_tokens([index])[0])
    else:
        label = str((model.config.id2label or {}).get(index, f"LABEL_{index}"))
    independent = getattr(model.config, "problem_type", None) == "multi_label_classification"
    logit = float(logits[index])
    if len(logits) == 1 or independent:
        # Half the tangent instead of 1/(1 + exp(-x)): no overflow.
        probability = 0.5 * (1.0 + np.tanh(0.5 * logit))
    else:
        weights = np.exp(logits - logits.max())
        probability = weights[index] / weights.sum()
    return Prediction(label, index, float(probability), logit)
