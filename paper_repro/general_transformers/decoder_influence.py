"""What flows from a decoder's decisions to the tokens of its prompt: stories260K.

Every token of a greedy continuation is explained, with generated tokens unrolled into the prompt
or as players of their own. Truth: by how much the token's log probability falls when a token of
the prompt is deleted, the continuation kept (positions close up).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flow_maps import Array, StagedSetting, decoder_attention, decoder_maps, flow_maps
from flow_maps import gradient_maps as gradients_of
from general_results import Report, digest, mean_of, rank_correlation, table
from stories import load_stories
from transformers import PreTrainedModel

from flowopt.progress import progress_bar

PROMPTS = (
    "Once upon a time there was a little dog named Max. He liked to",
    "Lily had a red ball. One day the ball",
    "Tom was sad because he lost his toy. His mom",
    "The sun was hot, so Ben and Mia went to the",
    "Anna saw a big bird in the tree. The bird",
    "There was a cat who did not like the rain. When it rained, the cat",
    "Sam wanted to help his dad in the garden. They",
    "One day a girl named Sue found a box. In the box there was",
    "The boy ran very fast and fell. He was",
    "Mom said, \"Do not eat the cake.\" But Tim",
    "Jack and Jane played with a boat in the water. The boat",
    "A small fish lived in a big pond. The fish wanted to",
    "Lucy was scared of the dark. Her dad gave her a",
    "The old man had a blue hat. The wind took the",
    "Kim likes to draw. She drew a picture of her",
    "It was cold and there was snow. The children made a",
    "Billy had two apples. He gave one to his friend, and his friend said",
    "The bear was hungry, so he looked for",
    "Mia's friend was sick. Mia wanted to make her feel",
    "Once there was a car that could talk. It said",
)  # fmt: skip
SETTINGS = tuple(
    StagedSetting(tensor, capacities, objective, unroll)
    for unroll in (True, False)
    for tensor, capacities, objective in (
        ("af", "rows + residual", "maximum"),
        ("af", "rows + residual", "barrier"),
        ("agf", "as they are", "maximum"),
        ("agf", "as they are", "barrier"),
        ("agf", "rows + residual", "barrier"),
        ("conductance", "as they are", "barrier"),
    )
)
TOKENS = {"quick": 3, "usual": 5, "full": 20}
LAMBADA = (
    "`annotated_lambada.jsonl` is not used: of its 107 passages (median 175 of this model's "
    "tokens) the greedy continuation spells the last word of none, so there is no right decision "
    "to explain."
)


@dataclass(frozen=True, eq=False)
class Explained:
    """One prompt: maps of all methods and the truth, (n, t) each.

    Parameters
    ----------
    tokens, emitted : tuple of str
    maps : dict of str to ndarray
    proved : dict of str to int
    drops : ndarray
        Fall of the emitted token's log probability; column 0, the start token, is NaN.
    """

    tokens: tuple[str, ...]
    emitted: tuple[str, ...]
    maps: dict[str, Array]
    proved: dict[str, int]
    drops: Array


def log_probabilities(
    model: PreTrainedModel, prompt: Sequence[int], emitted: Sequence[int]
) -> Array:
    """Log probability of each emitted token after the prompt and those before it, (n,)."""
    ids = torch.tensor([[*prompt, *emitted[:-1]]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 :].double()
    rows = torch.arange(len(emitted))
    return np.asarray(logits.log_softmax(-1)[rows, torch.tensor(list(emitted))].numpy())


def deletion_drops(model: PreTrainedModel, prompt: Sequence[int], emitted: Sequence[int]) -> Array:
    """Fall of every emitted token's log probability when a prompt token is deleted, (n, t).

    The first token stays, its column is NaN: a Llama without a start token is another model.
    """
    whole = log_probabilities(model, prompt, emitted)
    drops = np.full((len(emitted), len(prompt)), np.nan)
    for place in range(1, len(prompt)):
        shorter = [*prompt[:place], *prompt[place + 1 :]]
        drops[:, place] = whole - log_probabilities(model, shorter, emitted)
    return drops


def explained(model: PreTrainedModel, tokenizer: Any, prompt: str, count: int) -> Explained:
    """Explain `count` greedy tokens by all methods."""
    ids = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        output = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
    emitted = output[0, len(ids) :].tolist()
    flows = flow_maps(model, (tokenizer, tokenizer), prompt, emitted, SETTINGS)
    attention = decoder_attention(model, [*ids, *emitted[:-1]])
    rng = np.random.default_rng(ids)
    return Explained(
        tuple(tokenizer.convert_ids_to_tokens(ids)),
        tuple(tokenizer.convert_ids_to_tokens(emitted)),
        {name: flow.scores for name, flow in flows.items()}
        | decoder_maps(attention, len(ids))
        | gradients_of(model, ids, emitted)
        | {
            "place: later is more": np.tile(np.arange(float(len(ids))), (len(emitted), 1)),
            "random": rng.random((len(emitted), len(ids))),
        },
        {name: flow.proved for name, flow in flows.items()},
        deletion_drops(model, ids, emitted),
    )


def agreement(found: Explained, name: str, truth: Callable[[Array], Array]) -> Array:
    """Rank correlation of each row of a map with the truth, start token apart, (n,)."""
    rows = zip(found.maps[name][:, 1:], truth(found.drops[:, 1:]), strict=True)
    return np.array([rank_correlation(scores, drop) for scores, drop in rows])


def same_first(scores: Array, drops: Array) -> Array:
    """Whether a row's one largest score is at the largest drop, (n,); a tie is a miss."""
    top = scores.max(axis=1, keepdims=True)
    single = (scores == top).sum(axis=1) == 1
    return single & (scores.argmax(axis=1) == drops.argmax(axis=1))


def start_share(found: Explained, name: str) -> Array:
    """Share of the start token in every row without signs, (n,)."""
    size = np.abs(found.maps[name])
    total = size.sum(axis=1)
    return np.divide(size[:, 0], total, out=np.full(len(size), np.nan), where=total > 0)


def measured_rows(texts: Sequence[Explained]) -> list[dict[str, Any]]:
    """One row for each method, best first."""
    rows = []
    for name in texts[0].maps:
        drop = mean_of(agreement(each, name, lambda drops: drops) for each in texts)
        size = mean_of(agreement(each, name, np.abs) for each in texts)
        tops = [same_first(each.maps[name][:, 1:], each.drops[:, 1:]) for each in texts]
        rows.append(
            {
                "method": name,
                "drop": drop,
                "size of drop": size,
                "same first": mean_of(tops),
                "start token's share": mean_of(start_share(each, name) for each in texts),
                "proved": sum(each.proved[name] for each in texts)
                if name in texts[0].proved
                else "",
                "decisions": sum(len(each.emitted) for each in texts),
            }
        )
    return sorted(rows, key=lambda row: -row["drop"].mean)


def draw(found: Explained, names: Sequence[str], path: Path) -> None:
    """Draw maps of one prompt beside the truth, rows over their largest entries."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = {"deletion": np.nan_to_num(found.drops), **{n: found.maps[n] for n in names}}
    size = (3.2 * len(shown), 3.2)
    figure, axes = plt.subplots(1, len(shown), figsize=size, layout="constrained", sharey=True)
    for ax, (name, scores) in zip(axes, shown.items(), strict=True):
        part = scores[:, 1:].clip(min=0)
        ax.imshow(part / part.max(axis=1, keepdims=True).clip(min=1e-300), cmap="Blues")
        labels = [token.replace("▁", " ") for token in found.tokens[1:]]
        ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6)
        ax.set_yticks(range(len(found.emitted)), found.emitted, fontsize=6)
        ax.set_title(name.replace("; ", "\n", 1), fontsize=7)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def decoder_report(data: Path, out: Path, size: str) -> Report:
    """Explain all prompts; draws the first."""
    model, tokenizer = load_stories(data / "models" / "stories260K")
    prompts, count = (PROMPTS[:3] if size == "quick" else PROMPTS), TOKENS[size]
    texts = []
    with progress_bar(len(prompts), True, "prompt", "decoder") as advance:
        for prompt in prompts:
            texts.append(explained(model, tokenizer, prompt, count))
            advance()
    rows = measured_rows(texts)
    out.mkdir(parents=True, exist_ok=True)
    names = [SETTINGS[0].label, SETTINGS[3].label, SETTINGS[5].label, "rollout, unrolled"]
    draw(texts[1], names, out / "decoder.png")
    body = table(list(rows[0]), (row.values() for row in rows))
    example = "![maps of one prompt, start token apart](decoder.png)"
    return Report(
        "decoder",
        "Decoder: what flows to the tokens of the prompt",
        {
            "model": "stories260K (5 layers, 8 heads), "
            + digest(data / "models" / "stories260K" / "stories260K.npz"),
            "data": f"{len(prompts)} story openings of our own (PROMPTS in decoder_influence.py), "
            f"{count} greedy tokens each; nothing was chosen on them",
            "protocol": "Spearman over the prompt's tokens without the start token; drop: fall of "
            "log probability when the token is deleted; means over prompts, 95 % bootstrap "
            "intervals; rows in which all scores are alike have no order and are "
            "left away; same first: the largest score is at the largest drop",
            "seed": "none: greedy; intervals seed 0",
            "not used": LAMBADA,
        },
        f"{body}\n\n{example}",
        rows,
    )
