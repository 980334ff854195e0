"""Walking the paths of an example: a model at the points of a quadrature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from flowopt.trace.batch import Batch
from flowopt.trace.fading import Fading, fading
from flowopt.trace.families import family_of
from flowopt.trace.forward_mode import changing
from flowopt.trace.goals import Goal, emits_tokens, explained, rival_of
from flowopt.trace.layer import LayerFunction, Reduction
from flowopt.trace.path import Path, PathOptions, path_of
from flowopt.trace.read import call_options, check_inputs, logits_of, record_outputs, traces_of
from flowopt.trace.reading import embeddings_of, reading_mode
from flowopt.trace.recorder import Recorder, stage_of
from flowopt.trace.shared import ATTENTION, recording, shares_attention

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from flowopt.trace.record import Trace

__all__ = ["Points", "chunk_size", "examples_of", "inputs_at", "path_averages"]

_T = TypeVar("_T")

_CHUNK_BYTES = 2**27
"""Activations of one pass, roughly; larger passes are no faster on a processor."""
_FLOATS_PER_UNIT = 20
"""What a layer keeps of a token for the backward pass, in multiples of its width; roughly."""


@dataclass(frozen=True, eq=False)
class Points:
    """Some points of the paths of one example.

    Parameters
    ----------
    baseline : ndarray (n,) of int
        Which path.
    alpha : ndarray (n,)
        How far along it: 0 at the baseline, 1 at the input.
    weight : ndarray (n,)
        Of the quadrature, times the share of the path.
    """

    baseline: NDArray[np.intp]
    alpha: NDArray[np.float64]
    weight: NDArray[np.float64]

    @classmethod
    def gauss_legendre(cls, shares: Sequence[float], steps: int) -> Self:
        """All points of paths: exact for polynomials of degree 2 steps - 1 in alpha."""
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return cls(
            np.repeat(np.arange(len(shares)), steps),
            np.tile((nodes + 1.0) / 2.0, len(shares)),
            np.outer(shares, weights / 2.0).ravel(),
        )

    @classmethod
    def ends(cls, shares: Sequence[float]) -> Self:
        """The input itself, then every baseline; weights 1 and minus the share of its path."""
        paths = len(shares)
        return cls(
            np.array([0, *range(paths)]),
            np.array([1.0, *[0.0] * paths]),
            np.array([1.0, *(-share for share in shares)]),
        )

    def chunks(self, size: int) -> Iterator[Points]:
        """The same points, at most `size` at a time."""
        for first in range(0, len(self.alpha), size):
            part = slice(first, first + size)
            yield Points(self.baseline[part], self.alpha[part], self.weight[part])

    def on(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three arrays as tensors that fit an input x (1, ...)."""
        shape = (-1, *[1] * (x.ndim - 1))
        places = torch.as_tensor(self.baseline, device=x.device)
        numbers = (
            torch.as_tensor(each, dtype=x.dtype, device=x.device).reshape(shape)
            for each in (self.alpha, self.weight)
        )
        return (places, *numbers)  # type: ignore[return-value]


@contextmanager
def inputs_at(
    model: PreTrainedModel, batch: Batch, path: Path, points: Points, tangent: bool = False
) -> Iterator[tuple[dict[str, Tensor], list[Tensor]]]:
    """Let the model, called inside with the yielded inputs, see an example at n points.

    Parameters
    ----------
    batch : Batch
        Of one example.
    tangent : bool
        Whether embeddings carry their change along the path times the weight of the point
        (within `flowopt.trace.forward_mode`); otherwise they are leaves from which gradients can
        be taken.

    Yields
    ------
    dict of str to Tensor
        Inputs of n examples.
    list of Tensor
        Filled with the leaves as the model runs.
    """
    leaves: list[Tensor] = []
    side = "source"

    def move(x: Tensor, side: str, lookup: Callable[[Tensor], Tensor]) -> Tensor:
        x = x[:1].detach()
        places, alpha, weight = points.on(x)
        start = path.ends(x, side, lookup)[places]
        at = start + alpha * (x - start)
        if tangent:
            return changing(at, weight * (x - start))
        leaves.append(at.requires_grad_())
        return at

    def move_output(module: Any, arguments: Any, output: Tensor) -> Tensor:
        return move(output, side, lambda ids: _embed(module, ids))

    def enter(name: str) -> Callable[..., None]:
        def set_side(*_: Any) -> None:
            nonlocal side
            side = name

        return set_side

    handles = [module.register_forward_hook(move_output) for module in embeddings_of(model)]
    if getattr(model.config, "is_encoder_decoder", False):
        handles.append(model.get_encoder().register_forward_pre_hook(enter("source")))
        handles.append(model.get_decoder().register_forward_pre_hook(enter("prefix")))
    try:
        with fading(_fading(model, path, points, tangent)):
            yield _expanded(model, batch.inputs, len(points.alpha), move), leaves
    finally:
        for handle in handles:
            handle.remove()


def _fading(model: PreTrainedModel, path: Path, points: Points, tangent: bool) -> Fading | None:
    """How tokens fade at these points; None where none does."""
    faded = torch.tensor(path.fades)[torch.as_tensor(points.baseline)]
    if not bool(faded.any()):
        return None
    kind = family_of(model).kind
    stages = {module: stage_of(kind, name) for name, module in model.named_modules()}
    return Fading(stages, path.moving, faded, points, tangent)


def _single(batch: Batch, example: int, target: int, logits: Tensor) -> Batch:
    """One example of a batch, without the padding behind it, its target and rival fixed.

    Parameters
    ----------
    target : int
        The class or token that is explained.
    logits : Tensor (classes,) or (vocabulary,)
        From which a runner-up is chosen.
    """
    goal = replace(batch.goals[example], target=target)
    if goal.rival is not None:
        goal = replace(goal, rival=rival_of(logits, target, goal.rival))
    inputs = {}
    for name, tensor in batch.inputs.items():
        prefix = name.startswith("decoder_") and batch.decoder_kept is not None
        kept = batch.decoder_kept[example] if prefix and batch.decoder_kept else batch.kept[example]
        row = tensor[example : example + 1]
        inputs[name] = row if batch.grid is not None else row[:, : kept[-1] + 1]
    return _picked(replace(batch, inputs=inputs), (example,), (goal,))


def _picked(batch: Batch, examples: Sequence[int], goals: tuple[Goal, ...]) -> Batch:
    """A batch whose descriptions, inputs apart, are those of some examples of another."""

    def pick(values: tuple[_T, ...]) -> tuple[_T, ...]:
        return tuple(values[example] for example in examples)

    return replace(
        batch,
        kept=pick(batch.kept),
        infos=pick(batch.infos),
        goals=goals,
        decoder_kept=None if batch.decoder_kept is None else pick(batch.decoder_kept),
        prefixes=None if batch.prefixes is None else pick(batch.prefixes),
        prompts=None if batch.prompts is None else pick(batch.prompts),
    )


def chunk_size(model: PreTrainedModel, batch: Batch) -> int:
    """How many points of an example the model reads at once, so that memory stays bounded."""
    config = model.config
    tokens = max(row[-1] + 1 for row in (*batch.kept, *(batch.decoder_kept or ())))
    layers = int(getattr(config, "num_hidden_layers", 12))
    layers += int(getattr(config, "decoder_layers", 0) or 0)
    width = int(getattr(config, "hidden_size", 768))
    heads = int(getattr(config, "num_attention_heads", 12))
    floats = tokens * (_FLOATS_PER_UNIT * width * layers + 6 * heads * tokens)
    if emits_tokens(model):
        floats += 4 * tokens * int(getattr(config, "vocab_size", 0))
    return max(1, int(_CHUNK_BYTES // (floats * model.dtype.itemsize)))


def _expanded(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], count: int, move: Callable[..., Tensor]
) -> dict[str, Tensor]:
    """Inputs of one example `count` times; those that are numbers are moved along the path."""
    found = {}
    for name, tensor in inputs.items():
        tensor = tensor.to(model.device)
        if name in ("inputs_embeds", "pixel_values", "decoder_inputs_embeds"):
            side = "prefix" if name.startswith("decoder_") else "source"
            table = model.get_input_embeddings()
            found[name] = move(tensor.to(model.dtype), side, lambda ids: _embed(table, ids))  # noqa: B023
        else:
            found[name] = tensor.expand(count, *tensor.shape[1:])
    return found


def _embed(module: Any, ids: Tensor) -> Tensor:
    """Embeddings of ids, past the hooks of the module."""
    found: Tensor = type(module).forward(module, ids).detach()
    return found


def examples_of(
    model: PreTrainedModel, batch: Batch, options: PathOptions
) -> Iterator[tuple[Trace, Batch, Path]]:
    """Take a batch apart, with the target of every example as the model predicts it at its input.

    Yields
    ------
    Trace
        Without heads or tensors.
    Batch
        Of this example alone.
    Path

    Raises
    ------
    InputError
        If the inputs or a baseline do not fit the model.
    """
    check_inputs(model, family_of(model), batch)
    inputs = {name: tensor.to(model.device) for name, tensor in batch.inputs.items()}
    attention = ATTENTION if shares_attention(model) else "eager"
    with reading_mode(model, attention), torch.inference_mode(False), torch.no_grad():
        logits = logits_of(model, model(**inputs, **call_options(model)))
        _, targets, rows = explained(logits, batch.goals)
    for example, trace in enumerate(traces_of(model, batch, targets, rows)):
        one = _single(batch, example, targets[example], rows[example])
        yield trace, one, path_of(model, one, options)


def path_averages(
    model: PreTrainedModel, batch: Batch, options: PathOptions, function: LayerFunction
) -> Iterator[Trace]:
    """Average what a layer function makes of every attention layer along the paths of a batch.

    Parameters
    ----------
    function : callable
        ``AttentionLayer -> Tensor (q, k)``; only its weighted sums are kept.

    Yields
    ------
    Trace
        With `tensors` by stage.
    """
    family, shared = family_of(model), shares_attention(model)
    for trace, one, path in examples_of(model, batch, options):
        points = Points.gauss_legendre(path.shares, int(options.steps))
        sums: dict[str, NDArray[np.float64]] = {}
        for some in points.chunks(chunk_size(model, one)):
            count = len(some.alpha)
            copies = _picked(one, [0] * count, one.goals * count)
            recorder = Recorder(model, family, copies, Reduction(function))
            with (
                reading_mode(model, ATTENTION if shared else "eager"),
                recording(recorder),
                torch.inference_mode(False),
                torch.enable_grad(),
                inputs_at(model, one, path, some) as (inputs, leaves),
            ):
                outputs = model(**inputs, **call_options(model, attentions=not shared))
                if not shared:
                    record_outputs(recorder, outputs)
                total = explained(logits_of(model, outputs), copies.goals)[0]
                torch.autograd.grad(total, leaves, allow_unused=True)
            for point, weight in enumerate(some.weight):
                for stage, array in recorder.stages(point).items():
                    sums[stage] = sums.get(stage, 0.0) + weight * array
        yield replace(trace, tensors=sums)
