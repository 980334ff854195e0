"""What is compared: rows of attention, rollout and flow, with what the model is seen to rely on.

After Abnar & Zuidema (2020), sections 3 and 4. One text at a time, and any encoder of
transformers: a classifier, read at its classification token, or a masked language model, read at
its mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from transformers import PreTrainedModel

from flowopt import attention_flow, rollout
from flowopt.errors import InputError
from flowopt.methods.rollout import reduced_heads
from flowopt.trace.reading import reading_mode

Array = NDArray[np.float64]
Outcome = Callable[[torch.Tensor], torch.Tensor]
"""Logits of n texts -> the probability (n,) whose change is measured."""

FEWEST = 3  # tokens that a rank correlation is computed for


@dataclass(frozen=True, eq=False)
class Comparison:
    """One text: scores of its t tokens by each method and layer, and by each reference.

    Parameters
    ----------
    rows : dict of str to ndarray (L, t)
        The row of one position in the raw attention of each layer, and in rollout and flow from
        above each layer down to the input.
    references : dict of str to ndarray (t,)
        "blank-out": absolute change of the probability when the token is replaced by the unknown
        token; "gradient" and "gradient, L1": norms of the gradient of the probability by the
        token's word embedding.
    words : ndarray (t,) of bool
        False for special tokens.
    """

    rows: dict[str, Array]
    references: dict[str, Array]
    words: NDArray[np.bool_]


def class_probability(index: int) -> Outcome:
    """Probability of one class of a classifier."""
    return lambda logits: logits.softmax(-1)[:, index]


def attention_rows(attention: Sequence[torch.Tensor], position: int) -> dict[str, Array]:
    """The row of one position by each method, (L, t) each.

    Parameters
    ----------
    attention : sequence of L tensors (1, H, t, t)
    position : int
    """
    layers = np.stack([layer[0].double().cpu().numpy() for layer in attention])
    flows = attention_flow(layers, positions=[position], workers=1)[:, 0]
    return {
        "raw": reduced_heads(layers, "mean")[:, position],
        "rollout": rollout(layers)[:, position],
        "flow": flows,
    }


def blank_out(model: PreTrainedModel, ids: Sequence[int], unknown: int, outcome: Outcome) -> Array:
    """Absolute change of the outcome when each token in turn becomes the unknown token, (t,)."""
    whole = torch.tensor(list(ids))
    texts = whole.repeat(len(whole) + 1, 1)
    places = torch.arange(len(whole))
    texts[places + 1, places] = unknown
    with torch.no_grad():
        logits = model(input_ids=texts, attention_mask=torch.ones_like(texts)).logits
    found = outcome(logits).double().numpy()
    return np.abs(found[1:] - found[0])


def gradients(model: PreTrainedModel, ids: Sequence[int], outcome: Outcome) -> Array:
    """Gradient of the outcome by the word embeddings, (t, d)."""
    embeddings = model.get_input_embeddings()(torch.tensor([list(ids)])).detach()
    embeddings.requires_grad_(True)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
    with torch.enable_grad():
        probability = outcome(model(inputs_embeds=embeddings, attention_mask=mask).logits)[0]
        (found,) = torch.autograd.grad(probability, embeddings)
    return found[0].double().numpy()


def compare(
    model: PreTrainedModel,
    tokenizer: Any,
    ids: Sequence[int],
    outcome: Outcome | None = None,
    position: int = 0,
) -> Comparison:
    """Read one text.

    Parameters
    ----------
    model : PreTrainedModel
        An encoder.
    tokenizer : PreTrainedTokenizerBase
        Names the unknown token and the special ones.
    ids : sequence of int
        Token ids, with special tokens.
    outcome : callable, optional
        By default the probability of the class that a classifier predicts.
    position : int
        Whose row is read; by default the classification token's.

    Raises
    ------
    InputError
        If the tokenizer has no unknown token.
    """
    if tokenizer.unk_token_id is None:
        raise InputError("the tokenizer has no unknown token to blank words out with")
    with reading_mode(model, "eager"), torch.no_grad():
        output = model(input_ids=torch.tensor([list(ids)]), output_attentions=True)
    outcome = outcome or class_probability(int(output.logits[0].argmax()))
    with reading_mode(model, "sdpa"):
        by_token = gradients(model, ids, outcome)
        references = {
            "blank-out": blank_out(model, ids, tokenizer.unk_token_id, outcome),
            "gradient": np.linalg.norm(by_token, axis=1),
            "gradient, L1": np.abs(by_token).sum(axis=1),
        }
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    words = np.array([token not in special for token in ids])
    return Comparison(attention_rows(output.attentions, position), references, words)


def spearman(first: Array, second: Array) -> float:
    """Rank correlation in [-1, 1]; ties share their mean rank; not a number where one is constant.

    Raises
    ------
    InputError
        If the two differ in length.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise InputError(f"correlation needs two vectors of one length, not {first.shape} and "
                         f"{second.shape}")  # fmt: skip
    a, b = (rankdata(side) - (len(side) + 1) / 2 for side in (first, second))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def correlations(found: Comparison, words_only: bool) -> dict[tuple[str, str, int], float]:
    """Correlation of every (reference, method, layer 1..L); empty for texts that are too short.

    Parameters
    ----------
    found : Comparison
    words_only : bool
        Leave the special tokens out; otherwise every position counts, as in the publication.
    """
    kept = found.words if words_only else np.ones(len(found.words), dtype=bool)
    if kept.sum() < FEWEST:
        return {}
    return {
        (reference, method, layer): spearman(row[kept], scores[kept])
        for reference, scores in found.references.items()
        for method, rows in found.rows.items()
        for layer, row in enumerate(rows, start=1)
    }
