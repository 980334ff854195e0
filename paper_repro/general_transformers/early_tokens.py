"""The advantage of early tokens under causal attention, and what correcting it does.

Under uniform causal attention A, A[p, j] = 1 / (p + 1) for j <= p. Flow by rollout from the last
position of t tokens through two layers ends in token j with share (H_t - H_j) / t, H_n the n-th
harmonic number: early tokens have more although no position prefers any. With depth all of it
gathers in token 0, the only one that attends to nothing but itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoder_influence import deletion_drops
from flow_maps import Array, remembered
from general_results import (
    Mean,
    Report,
    digest,
    mean_of,
    partial_correlation,
    rank_correlation,
    table,
)
from influence_maps import CAPACITIES, OBJECTIVES
from stories import load_stories

from flowopt import Explainer, FlowNetwork, ambiguity, rollout, solve
from flowopt.capacities import Residual
from flowopt.explainer.receptive_field import (
    NORMALISATIONS,
    normalised,
    receptive_field,
    uniform_causal,
)
from flowopt.progress import progress_bar
from flowopt.trace.reading import reading_mode

DEPTHS = (1, 2, 4, 8, 16)
WAYS = (
    ("af", "as they are", "maximum"),
    ("af", "as they are", "barrier"),
    ("af", "rows + residual", "barrier"),
    ("agf", "as they are", "barrier"),
    ("agf", "rows + residual", "barrier"),
    ("conductance", "as they are", "barrier"),
)


def two_layer_share(tokens: int) -> Array:
    """Share of each token through two layers of uniform causal attention: (H_t - H_j) / t, (t,)."""
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, tokens + 1))])
    return (harmonic[-1] - harmonic[:-1]) / tokens


def random_causal(layers: int, tokens: int, rng: np.random.Generator) -> Array:
    """Attention (L, t, t) whose rows are drawn uniformly from all causal ones."""
    found = np.zeros((layers, tokens, tokens))
    for layer in found:
        for row in range(tokens):
            layer[row, : row + 1] = rng.dirichlet(np.ones(row + 1))
    return found


def shares_by_flow(attention: Array, residual: bool) -> dict[str, Array]:
    """Share of every token in rollout, barrier flow and maximum flow from the last position, (t,).

    Parameters
    ----------
    attention : ndarray (L, t, t)
    residual : bool
        Whether attention is mixed half and half with the identity.
    """
    given = Residual(0.5)(attention) if residual else attention
    net = FlowNetwork.layered(given, sources=[given.shape[1] - 1])
    found = {"rollout": rollout(given[:, None], alpha=1.0)[-1, -1]}
    for name, objective in OBJECTIVES.items():
        found[name] = solve(net, objective).attributions
    return {name: scores / scores.sum() for name, scores in found.items()}


def artificial_rows(tokens: int, draws: int, depths: Sequence[int], seed: int = 0) -> list[Any]:
    """First token's share and rank correlation with the position, without any model."""
    rng = np.random.default_rng(seed)
    rows = []
    for depth in depths:
        for residual in (False, True):
            kinds = {
                "uniform": [uniform_causal(depth, tokens)],
                "random": [random_causal(depth, tokens, rng) for _ in range(draws)],
            }
            for kind, arrays in kinds.items():
                found = [shares_by_flow(array, residual) for array in arrays]
                rows += [
                    {
                        "attention": kind,
                        "layers": depth,
                        "residual": "yes" if residual else "no",
                        "flow": name,
                        "first token": float(np.mean([each[name][0] for each in found])),
                        "equal": 1 / tokens,
                        "with position": float(
                            np.mean([rank_correlation(e[name], range(tokens)) for e in found])
                        ),
                    }
                    for name in found[0]
                ]
    return rows


def open_interval(layers: int, tokens: int) -> tuple[float, float]:
    """Least and greatest share of the first token over all maximum flows, uniform attention."""
    net = FlowNetwork.layered(uniform_causal(layers, tokens), sources=[tokens - 1])
    low, high = ambiguity(net)[0]
    return float(low), float(high)


def own_stories(model: Any, count: int, tokens: int, seed: int) -> list[list[int]]:
    """Texts that the model itself writes: sampled after its start token, `tokens` ids each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = torch.full((count, 1), model.config.bos_token_id)
        with torch.no_grad():
            output = model.generate(
                start, max_new_tokens=tokens - 1, min_new_tokens=tokens - 1, do_sample=True
            )
    return [row.tolist() for row in output]


def normalisations(way: tuple[str, str, str], model: Any, ids: list[int]) -> dict[str, Array]:
    """Scores (t,) of one text's next token by one way, without and with each correction."""
    tensor, capacities, objective = way
    spec = remembered(tensor)
    found = {}
    for name in NORMALISATIONS:
        explainer = Explainer(
            model,
            tensor=spec,
            objective=OBJECTIVES[objective],
            capacities=CAPACITIES[capacities],
            normalise=name,
        )
        answer: Any = explainer.explain_inputs(input_ids=torch.tensor([ids]))
        found[name] = answer.scores
    return found


def read(model: Any, ids: list[int]) -> dict[tuple[str, str], dict[str, float]]:
    """Measure one text: by way and correction, start token apart in all but its share."""
    with torch.no_grad():
        emitted = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    drop = deletion_drops(model, ids, [emitted])[0, 1:]
    places = np.arange(1, len(ids))
    with torch.no_grad(), reading_mode(model, "eager"):
        attention = model(torch.tensor([ids]), output_attentions=True).attentions
    mixed = rollout(attention)[-1, -1]
    # rollout under uniform attention is the reference that belongs to rollout
    even = rollout(uniform_causal(len(attention), len(ids))[:, None])[-1, -1]
    last = receptive_field(len(ids), len(ids) - 1, residual=True)
    scores = {
        ("rollout", "none"): mixed,
        ("rollout", "inverse_receptive_field"): normalised(mixed, last),
        ("rollout", "uniform_reference"): normalised(mixed, even),
        ("place: later is more", "none"): np.arange(float(len(ids))),
        ("size of the drop on deletion", "none"): np.concatenate([[0.0], np.abs(drop)]),
    }
    for way in WAYS:
        for name, found in normalisations(way, model, ids).items():
            scores["flow: " + "; ".join(way), name] = found
    return {key: _facts(found, drop, places) for key, found in scores.items()}


def _facts(scores: Array, drop: Array, places: Array) -> dict[str, float]:
    size = np.abs(scores)
    total = size.sum()
    return {
        "start token's share": float(size[0] / total) if total > 0 else float("nan"),
        "with position": rank_correlation(size[1:], places),
        "with the drop": rank_correlation(scores[1:], drop),
        "with its size": rank_correlation(size[1:], np.abs(drop)),
        "the same, place held fixed": partial_correlation(size[1:], np.abs(drop), places),
    }


def real_rows(texts: Sequence[dict[tuple[str, str], dict[str, float]]]) -> list[dict[str, Any]]:
    """Means over texts, by way and correction."""
    rows = []
    for way, correction in texts[0]:
        facts: dict[str, Mean] = {
            name: mean_of([text[way, correction][name] for text in texts])
            for name in texts[0][way, correction]
        }
        rows.append({"scores": way, "divided by": correction, **facts})
    return rows


def draw(tokens: int, depths: Sequence[int], path: Path) -> None:
    """Draw the share of every place under uniform attention, by depth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained", sharey=True)
    for ax, flow in zip(axes, ("rollout", "barrier"), strict=True):
        for depth in depths:
            share = shares_by_flow(uniform_causal(depth, tokens), residual=False)[flow]
            ax.plot(range(tokens), share, marker=".", label=f"{depth} layers")
        ax.axhline(1 / tokens, color="grey", linewidth=0.8)
        ax.set_title(f"uniform causal attention, {flow}", fontsize=9)
        ax.set_xlabel("token", fontsize=8)
    axes[0].set_ylabel("share of the flow", fontsize=8)
    axes[0].set_yscale("log")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def early_report(data: Path, out: Path, size: str) -> Report:
    """Artificial attention, then the real model on texts of its own."""
    quick = size == "quick"
    tokens, draws, depths = (8, 2, DEPTHS[:2]) if quick else (24, 30, DEPTHS)
    count = {"quick": 3, "usual": 40, "full": 200}[size]
    made = artificial_rows(tokens, draws, depths)
    out.mkdir(parents=True, exist_ok=True)
    draw(tokens, depths, out / "bias.png")
    model, _ = load_stories(data / "models" / "stories260K")
    stories = own_stories(model, count, 12 if quick else 32, seed=0)
    texts = []
    with progress_bar(len(stories), True, "text", "early tokens") as advance:
        for ids in stories:
            texts.append(read(model, ids))
            advance()
    real = real_rows(texts)
    low, high = open_interval(depths[-1], tokens)
    shown = [{**r, **{k: f"{r[k]:.2f}" for k in ("first token", "with position")}} for r in made]
    keys = ("attention", "layers", "residual", "flow", "first token", "with position")
    body = (
        f"## Without a model\n\n{tokens} tokens, flow from the last position, means over {draws} "
        f"draws; an equal share is {1 / tokens:.3f}. `with position`: rank correlation of share "
        f"and position, -1 where every earlier token has more.\n\n"
        f"{table(keys, ([row[key] for key in keys] for row in shown))}\n\n"
        f"Maximum flow itself leaves the share open: through {depths[-1]} layers of uniform "
        f"attention the first token's is anything from {low:.3f} to {high:.3f}.\n\n"
        "![share by place](bias.png)\n\n## stories260K\n\n"
        f"{table(list(real[0]), (row.values() for row in real))}"
    )
    rows = [{"part": "without a model"} | dict.fromkeys(real[0], "") | row for row in made]
    blank = dict.fromkeys(made[0], "")
    rows += [{"part": "stories260K"} | blank | row for row in real]
    head = list(dict.fromkeys(key for row in rows for key in row))
    return Report(
        "bias",
        "Early tokens: their advantage, and its correction",
        {
            "model": "stories260K, " + digest(data / "models" / "stories260K" / "stories260K.npz"),
            "data": f"{count} texts of {len(stories[0])} tokens that the model itself samples "
            "(temperature 1, seed 0); the token that it predicts next is explained",
            "protocol": "rank correlations over all tokens but the start token; drop: fall of log "
            "probability on deletion; place held fixed: partial rank correlation, what agreement "
            "is left beside that of place alone; means over texts, 95 % bootstrap intervals",
            "seed": "0",
        },
        body,
        [{key: row.get(key, "") for key in head} for row in rows],
    )
