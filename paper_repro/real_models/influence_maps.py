"""Maps of influence, output letters by source letters: from flow, from attention, from rollout."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from flowopt import Explainer, LogBarrier, MaxFlow, Objective
from flowopt.attribution import AttributionMatrix
from flowopt.capacities import Residual, RowNormalize
from flowopt.tensors import TensorSpec, tensor_spec
from flowopt.trace.reading import reading_mode

Array = NDArray[np.float64]

TENSORS = ("af", "agf", "conductance")
CAPACITIES: dict[str, tuple[Any, ...]] = {
    "as they are": (),
    "rows": (RowNormalize(),),
    "rows + residual": (RowNormalize(), Residual(0.5)),
}
OBJECTIVES: dict[str, Objective] = {"barrier": LogBarrier(gap=0.05), "maximum": MaxFlow()}


@dataclass(frozen=True)
class Setting:
    """How flow is computed.

    Parameters
    ----------
    tensor : str
        Name of an information tensor.
    capacities : str
        A key of `CAPACITIES`.
    objective : str
        A key of `OBJECTIVES`.
    unroll : bool
    """

    tensor: str
    capacities: str = "as they are"
    objective: str = "barrier"
    unroll: bool = True

    @property
    def label(self) -> str:
        """One line for tables."""
        unrolled = "unrolled" if self.unroll else "not unrolled"
        return f"flow: {self.tensor}; {self.capacities}; {self.objective}; {unrolled}"


def remembered(tensor: str) -> TensorSpec:
    """A tensor that is read once for each input and goal, whatever is then solved on it."""
    spec = tensor_spec(tensor)
    seen: dict[Any, list[Any]] = {}

    def read(model: PreTrainedModel, batch: Any) -> Iterator[Any]:
        inputs = tuple((name, tuple(x.flatten().tolist())) for name, x in batch.inputs.items())
        key = (batch.goals, batch.prompts, inputs)
        if key not in seen:
            seen[key] = list(spec.read(model, batch))
        return iter(seen[key])

    return replace(spec, function=None, layer=None, reader=read)


def flow_matrices(
    model: PreTrainedModel,
    tokenizers: tuple[Any, Any],
    text: str,
    tokens: Sequence[int],
    settings: Sequence[Setting],
) -> dict[str, AttributionMatrix]:
    """The flow of every setting from each output token, by the settings' labels.

    Parameters
    ----------
    model : PreTrainedModel
        An encoder-decoder.
    tokenizers : (source, target)
    text : str
    tokens : sequence of int
        What the model emitted, without the end of the sequence.
    settings : sequence of Setting
    """
    source, target = tokenizers
    specs = {setting.tensor: remembered(setting.tensor) for setting in settings}
    found = {}
    for setting in settings:
        explainer = Explainer(
            model,
            source,
            tensor=specs[setting.tensor],
            objective=OBJECTIVES[setting.objective],
            capacities=CAPACITIES[setting.capacities],
            unroll=setting.unroll,
            output_tokenizer=target,
        )
        found[setting.label] = explainer.explain_generation(text, list(tokens))
    return found


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of one teacher-forced pass over n output tokens, row k emitting token k.

    Parameters
    ----------
    encoder : ndarray (L, H, t, t)
    decoder : ndarray (L, H, n, n)
        Row and column 0 are the start token.
    cross : ndarray (L, H, n, t)
    """

    encoder: Array
    decoder: Array
    cross: Array


def attention_of(model: PreTrainedModel, source: Sequence[int], tokens: Sequence[int]) -> Attention:
    """Read the attention of an encoder-decoder that emits `tokens` after `source`."""
    start = model.config.decoder_start_token_id
    with torch.no_grad(), reading_mode(model, "eager"):
        output = model(
            input_ids=torch.tensor([list(source)]),
            decoder_input_ids=torch.tensor([[start, *list(tokens)[:-1]]]),
            output_attentions=True,
        )
    return Attention(
        *(
            np.stack([layer[0].double().numpy() for layer in layers])
            for layers in (
                output.encoder_attentions,
                output.decoder_attentions,
                output.cross_attentions,
            )
        )
    )


def attention_maps(attention: Attention) -> dict[str, Array]:
    """Raw cross-attention in all its readings, and rollout; each (n, t)."""
    layers = attention.cross.mean(axis=1)
    maps = {"raw: last layer": layers[-1], "raw: mean of layers": layers.mean(axis=0)}
    maps |= {f"raw: layer {layer}": each for layer, each in enumerate(layers)}
    depth, heads = attention.cross.shape[:2]
    for layer, head in itertools.product(range(depth), range(heads)):
        maps[f"raw: layer {layer}, head {head}"] = attention.cross[layer, head]
    plain, own = cross_rollout(attention)
    return maps | {"rollout": plain, "rollout, unrolled": unrolled(plain, own)}


def cross_rollout(attention: Attention) -> tuple[Array, Array]:
    """Rollout of an encoder-decoder, heads averaged; residual and attention weigh 1/2 each.

    With E = prod_l (A_l + I) / 2 over the encoder, the state of decoder position k is a mixture
    of source tokens (row k of S, at first 0) and of decoder inputs (row k of D, at first I). In
    every layer self-attention takes S to (A + I) S / 2 and D to (A + I) D / 2; cross-attention C
    then takes S to S / 2 + C E / 2 and D to D / 2.

    Returns
    -------
    S : ndarray (n, t)
    D : ndarray (n, n)
        Rows of S and D together sum to 1.
    """
    bottom = np.eye(attention.encoder.shape[2])
    for layer in attention.encoder.mean(axis=1):
        bottom = (layer @ bottom + bottom) / 2
    own = np.eye(attention.decoder.shape[2])
    across = np.zeros(attention.cross.shape[2:])
    for inside, outside in zip(
        attention.decoder.mean(axis=1), attention.cross.mean(axis=1), strict=True
    ):
        across, own = (inside @ across + across) / 2, (inside @ own + own) / 2
        across, own = (across + outside @ bottom) / 2, own / 2
    return across, own


def unrolled(across: Array, own: Array) -> Array:
    """Pass on what rests on a decoder input j > 0 to the row j - 1 that emitted it (n, t).

    Row k becomes ``S[k] + sum_{j=1..k} D[k, j] row[j - 1]``; what rests on the start token ends.
    """
    result = across.copy()
    for row in range(1, len(result)):
        result[row] += own[row, 1 : row + 1] @ result[:row]
    return result
