"""Maps of influence, rows of emitted tokens by given ones: flow, rollout, gradients."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

sys.path.append(str(Path(__file__).resolve().parents[1] / "real_models"))

from influence_maps import (
    CAPACITIES,
    OBJECTIVES,
    Array,
    Setting,
    remembered,
    unrolled,
)

from flowopt import Explainer, rollout
from flowopt.trace.reading import reading_mode


@dataclass(frozen=True)
class StagedSetting(Setting):
    """How flow is computed, with the stages of a decoder layer.

    Parameters
    ----------
    stages : "parallel" or "sequential"
        See `flowopt.Explainer`; the paper's decoder layers are sequential.
    """

    stages: str = "parallel"

    @property
    def label(self) -> str:
        """One line for tables."""
        return super().label + "; sequential" * (self.stages == "sequential")


@dataclass(frozen=True, eq=False)
class FlowMap:
    """Flow from n emitted tokens to t given ones.

    Parameters
    ----------
    scores : ndarray (n, t)
    proved : int
        Rows whose flow is proved optimal.
    """

    scores: Array
    proved: int


def flow_maps(
    model: PreTrainedModel,
    tokenizers: tuple[Any, Any],
    text: str,
    tokens: Sequence[int],
    settings: Sequence[StagedSetting],
) -> dict[str, FlowMap]:
    """The flow of every setting from each emitted token, by the settings' labels.

    Parameters
    ----------
    model : PreTrainedModel
        A decoder or an encoder-decoder.
    tokenizers : (source, target)
    text : str
    tokens : sequence of int
        What the model emitted, without the end of the sequence.
    settings : sequence of StagedSetting
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
            stages=setting.stages,
            output_tokenizer=target,
        )
        matrix = explainer.explain_generation(text, list(tokens))
        proved = sum(row.status == "optimal" for row in matrix)
        found[setting.label] = FlowMap(matrix.scores, proved)
    return found


def decoder_attention(model: PreTrainedModel, ids: Sequence[int]) -> Array:
    """Attention (L, H, T, T) of a decoder over all its tokens."""
    with torch.no_grad(), reading_mode(model, "eager"):
        output = model(input_ids=torch.tensor([list(ids)]), output_attentions=True)
    return np.stack([layer[0].double().numpy() for layer in output.attentions])


def decoder_maps(attention: Array, prompt: int) -> dict[str, Array]:
    """Raw attention and rollout of a decoder, from emitting positions to the prompt, (n, t).

    Parameters
    ----------
    attention : ndarray (L, H, T, T)
        Of T = t + n - 1 tokens: the prompt's, and all emitted ones but the last.
    prompt : int
        The prompt's number of tokens t; position t - 1 emits the first token.
    """
    rows = rollout(attention)[-1][prompt - 1 :]
    emitted = len(rows)
    own = np.zeros((emitted, emitted))
    own[:, 1:] = rows[:, prompt:]  # as `unrolled` takes them: column j is emitted token j - 1
    return {
        "raw: last layer": attention[-1].mean(axis=0)[prompt - 1 :, :prompt],
        "raw: mean of layers": attention.mean(axis=(0, 1))[prompt - 1 :, :prompt],
        "rollout": rows[:, :prompt],
        "rollout, unrolled": unrolled(rows[:, :prompt], own),
    }


def gradient_maps(
    model: PreTrainedModel, source: Sequence[int], tokens: Sequence[int]
) -> dict[str, Array]:
    """Gradient of each emitted token's logit by the given tokens' embeddings, (n, t).

    Parameters
    ----------
    model : PreTrainedModel
        A decoder, or an encoder-decoder; then by the source's embeddings.
    source, tokens : sequences of int
        What it reads, and what it emits.
    """
    start = model.config.decoder_start_token_id if model.config.is_encoder_decoder else None
    read, emitted = list(source), list(tokens)
    ids = read if start is not None else read + emitted[:-1]
    embeddings = model.get_input_embeddings()(torch.tensor([ids])).detach().requires_grad_(True)
    inputs: dict[str, torch.Tensor] = {"inputs_embeds": embeddings}
    first = len(read) - 1
    if start is not None:
        inputs["decoder_input_ids"] = torch.tensor([[start, *emitted[:-1]]])
        first = 0
    with torch.enable_grad():
        logits = model(**inputs).logits[0, first:]
        slopes = [
            torch.autograd.grad(logits[row, token], embeddings, retain_graph=True)[0][0]
            for row, token in enumerate(emitted)
        ]
    slope = torch.stack(slopes)[:, : len(read)].double()
    product = (slope * embeddings[:, : len(read)].detach().double()).sum(dim=-1)
    return {
        "gradient norm": slope.norm(dim=-1).numpy(),
        "input x gradient": product.numpy(),
    }
