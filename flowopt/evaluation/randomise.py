"""Models whose weights are shuffled, from the head down or all at once (Adebayo et al. 2018)."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from flowopt.errors import InputError
from flowopt.methods.seeds import check_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["HEAD", "cascade", "randomise"]

HEAD, EMBEDDINGS = "head", "embeddings"
_NUMBERED = re.compile(r"^.*?\.\d+(?=\.)")


def randomise(model: PreTrainedModel, seed: int = 0, what: str = "all") -> PreTrainedModel:
    """Copy a model with the entries of its weights shuffled, each tensor within itself.

    Shuffled weights keep the scale of what was trained, so that the random model's numbers are
    as large as the model's own.

    Parameters
    ----------
    model : PreTrainedModel
        It is not changed.
    seed : int
    what : str
        "all"; "head", what comes after the last layer; "cascade" is a sequence of models and has
        a function of its own, `cascade`.

    Raises
    ------
    InputError
        If there is nothing of this kind.
    """
    stages = _stages(model)
    if what not in ("all", HEAD):
        raise InputError(f'what must be "all" or "head" (or use cascade), not {what!r}')
    if what == HEAD and HEAD not in stages:
        raise InputError("the model has no weights of its own after the last layer; use what='all'")
    chosen = [name for stage, names in stages.items() if what in ("all", stage) for name in names]
    made = copy.deepcopy(model)
    _shuffle(made, chosen, seed)
    return made


def cascade(model: PreTrainedModel, seed: int = 0) -> Iterator[tuple[str, PreTrainedModel]]:
    """Shuffle more and more of a model from the head down to the embeddings.

    Yields
    ------
    str, PreTrainedModel
        The part that was shuffled last, and the model; the same object changed further each time.
    """
    made = copy.deepcopy(model)
    stages = _stages(model)
    for stage in reversed(stages):
        _shuffle(made, stages[stage], seed)
        yield stage, made


def _stages(model: PreTrainedModel) -> dict[str, list[str]]:
    """Names of the weights by stage: embeddings, the layers in the model's order, the head."""
    prefix = f"{model.base_model_prefix}."
    stages: dict[str, list[str]] = {}
    stage, last = EMBEDDINGS, ""
    names = [name for name, _ in model.named_parameters()]
    inside = [name for name in names if name.startswith(prefix)] or names
    for name in inside:
        match = _NUMBERED.match(name)
        stage = match.group().removeprefix(prefix) if match else stage
        last = stage if match else last
        stages.setdefault(stage, []).append(name)
    # what has no number and comes after the last layer, such as a pooler, belongs to the head
    tail = [name for name in stages.get(last, []) if not _NUMBERED.match(name)]
    if last:
        stages[last] = [name for name in stages[last] if name not in tail]
    chosen = set(inside)
    head = [*tail, *(name for name in names if name not in chosen)]
    return stages | ({HEAD: head} if head else {})


def _shuffle(model: PreTrainedModel, names: Sequence[str], seed: int) -> None:
    import torch

    parameters = dict(model.named_parameters())
    order = {name: place for place, name in enumerate(parameters)}
    with torch.no_grad():
        for name in names:
            generator = torch.Generator().manual_seed(check_seed(seed) * 100_003 + order[name])
            weights = parameters[name]
            places = torch.randperm(weights.numel(), generator=generator)
            mixed = weights.flatten()[places.to(weights.device)]
            weights.copy_(mixed.reshape(weights.shape))
