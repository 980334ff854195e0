"""A small reasoning model: whether flow finds the symbols of a formula that decide its answer.

The model reads a formula and writes an assignment (`train_reasoning`). Explained are the names in
its right answers, the ``b`` of ``b0``, and the values, the ``0``, given what was written before.
Three truths:

- own variable: the largest score of a name is at an occurrence of that variable,
- swaps: by how much the letter's log probability falls when a symbol is exchanged for another of
  its kind, or a negation left away, mean over the exchanges; the answer so far is kept,
- logic: the share of these exchanges after which the answer that the model was taught no longer
  has the name, or no longer the name with this value; no model is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flow_maps import Array, StagedSetting, flow_maps, gradient_maps
from formulas import VARIABLES, answer_to, deciding, edits, satisfies
from general_results import Report, digest, mean_of, rank_correlation, table
from influence_maps import attention_maps, attention_of
from letters import encoded, greedy
from train_reasoning import CHECKPOINT, accuracy, held_out_formulas, load_reasoner

from flowopt.progress import progress_bar

TEXTS = {"quick": 4, "usual": 40, "full": 400}
TESTED = {"quick": 200, "usual": 5000, "full": 5000}
FEWEST_SYMBOLS = 5  # shorter formulas leave too few symbols to rank
RESIDUAL = "rows + residual"
SETTINGS = (
    StagedSetting("af", RESIDUAL, "maximum", stages="sequential"),
    StagedSetting("af", RESIDUAL, "barrier", stages="sequential"),
    StagedSetting("af", RESIDUAL, "barrier", unroll=False, stages="sequential"),
    StagedSetting("af", "as they are", "barrier"),
    StagedSetting("agf", RESIDUAL, "barrier", stages="sequential"),
    StagedSetting("agf", "as they are", "maximum"),
    StagedSetting("agf", "as they are", "barrier"),
    StagedSetting("agf", "as they are", "barrier", unroll=False),
    StagedSetting("conductance", "as they are", "barrier"),
    StagedSetting("conductance", "as they are", "barrier", unroll=False),
)
FIXED = ("raw: last layer", "raw: mean of layers", "rollout", "rollout, unrolled")


@dataclass(frozen=True, eq=False)
class Solved:
    """One formula with the model's answer: maps and truths, (n, t) each.

    Parameters
    ----------
    formula, answer : str
        t symbols, n letters: names and values in turn.
    maps : dict of str to ndarray
    proved : dict of str to int
        Rows of flows that are proved.
    swaps, logic : ndarray
    own : ndarray of bool
        Occurrences of the letter's variable; for a value that of the name before it.
    """

    formula: str
    answer: str
    maps: dict[str, Array]
    proved: dict[str, int]
    swaps: Array
    logic: Array
    own: Any


def log_probabilities(model: Any, tokenizer: Any, formulas: Sequence[str], answer: str) -> Array:
    """Log probability of every letter of an answer, written to each formula, (formulas, n)."""
    ids = tokenizer.convert_tokens_to_ids(list(answer))
    start = model.config.decoder_start_token_id
    written = torch.tensor([[start, *ids[:-1]]]).expand(len(formulas), -1)
    with torch.no_grad():
        logits = model(**encoded(tokenizer, formulas), decoder_input_ids=written).logits.double()
    chosen = torch.tensor(ids).expand(len(formulas), -1)[..., None]
    found: Array = logits.log_softmax(-1).gather(-1, chosen)[..., 0].numpy()
    return found


def swap_drops(model: Any, tokenizer: Any, formula: str, answer: str) -> Array:
    """Mean fall of every letter's log probability over the edits of each symbol, (n, t)."""
    changed = [edits(formula, place) for place in range(len(formula))]
    asked = [formula, *(each for group in changed for each in group)]
    found = log_probabilities(model, tokenizer, asked, answer)
    ends = np.cumsum([len(group) for group in changed])[:-1]
    columns = [part.mean(axis=0) for part in np.split(found[0] - found[1:], ends)]
    return np.stack(columns, axis=1)


def solved(model: Any, tokenizer: Any, formula: str, answer: str) -> Solved:
    """Explain the letters of one answer by all methods."""
    tokens = tokenizer.convert_tokens_to_ids(list(answer))
    source = tokenizer(formula)["input_ids"]
    flows = flow_maps(model, (tokenizer, tokenizer), formula, tokens, SETTINGS)
    attention = attention_maps(attention_of(model, source, tokens))
    rng = np.random.default_rng(source)
    maps = {name: flow.scores for name, flow in flows.items()}
    maps |= {name: attention[name] for name in FIXED}
    maps |= gradient_maps(model, source, tokens)
    maps["random"] = rng.random((len(tokens), len(source)))
    names = [answer[i - i % 2] for i in range(len(answer))]
    pieces = [answer[i - i % 2 : i + 1] for i in range(len(answer))]
    return Solved(
        formula,
        answer,
        {name: scores[:, : len(formula)] for name, scores in maps.items()},
        {name: flow.proved for name, flow in flows.items()},
        swap_drops(model, tokenizer, formula, answer),
        np.array([deciding(formula, piece) for piece in pieces]),
        np.array([[symbol == name for symbol in formula] for name in names]),
    )


def chosen_formulas(model: Any, tokenizer: Any, count: int) -> list[tuple[str, str]]:
    """Held-out formulas with the right answers that the model gives.

    An answer is right where it satisfies the formula and is the one that was taught, so that
    logic and model speak of the same literals.
    """
    pool = [f for f in held_out_formulas(8 * count, seed=2) if len(f) >= FEWEST_SYMBOLS]
    answers = greedy(model, tokenizer, tokenizer, pool)
    pairs = zip(pool, answers, strict=True)
    right = [
        (formula, answer)
        for formula, answer in pairs
        if satisfies(answer, formula) and answer == answer_to(formula)
    ]
    return right[:count]


def own_hits(scores: Array, own: Any) -> Array:
    """Whether a row's one largest score is at an occurrence of its variable; a tie is a miss.

    Rows whose formula is nothing but that variable are NaN: they cannot be missed.
    """
    top = scores.max(axis=1, keepdims=True)
    single = (scores == top).sum(axis=1) == 1
    hit = single & own[np.arange(len(scores)), scores.argmax(axis=1)]
    return np.where(own.any(axis=1) & ~own.all(axis=1), hit.astype(float), np.nan)


def rows_of(texts: Sequence[Solved]) -> list[dict[str, Any]]:
    """One row per method, best by swaps first; then what the truths say of each other."""
    rows = [
        {
            "scores": name,
            **_facts(texts, [text.maps[name] for text in texts]),
            "proved": sum(text.proved[name] for text in texts) if name in texts[0].proved else "",
        }
        for name in texts[0].maps
    ]
    rows.sort(key=lambda row: -row["names: swaps"].mean - row["values: swaps"].mean)
    for truth in ("swaps", "logic"):
        found = [getattr(text, truth) for text in texts]
        rows.append({"scores": f"truth: {truth}", **_facts(texts, found), "proved": ""})
    chance = mean_of(text.own.mean(axis=1) for text in texts)
    rows.append(
        {**dict.fromkeys(rows[0], ""), "scores": "a random place", "names: own variable": chance}
    )
    return rows


def _facts(texts: Sequence[Solved], scores: Sequence[Array]) -> dict[str, Any]:
    """Means over formulas of what a method's maps show."""
    pairs = list(zip(texts, scores, strict=True))
    found = {
        f"{part}: {truth}": mean_of(
            _correlations(each[first::2], getattr(text, truth)[first::2]) for text, each in pairs
        )
        for first, part in enumerate(("names", "values"))
        for truth in ("swaps", "logic")
    }
    hits = mean_of(own_hits(each[::2], text.own[::2]) for text, each in pairs)
    return {**found, "names: own variable": hits}


def _correlations(scores: Array, truth: Array) -> Array:
    return np.array([rank_correlation(s, d) for s, d in zip(scores, truth, strict=True)])


def draw(text: Solved, names: Sequence[str], path: Path) -> None:
    """Draw maps of one formula beside the truths, rows over their largest entries."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = {"swaps": text.swaps, "logic": text.logic, **{n: text.maps[n] for n in names}}
    size = (6.5, 0.45 + 1.1 * len(shown))
    figure, axes = plt.subplots(len(shown), 1, figsize=size, layout="constrained")
    for ax, (name, scores) in zip(axes, shown.items(), strict=True):
        part = scores.clip(min=0)
        part = part / part.max(axis=1, keepdims=True).clip(min=1e-300)
        ax.imshow(part, cmap="Blues", aspect="auto")
        ax.set_xticks(range(len(text.formula)), list(text.formula), fontsize=8)
        ax.set_yticks(range(len(text.answer)), list(text.answer), fontsize=8)
        ax.set_title(name, fontsize=7)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def reasoning_report(data: Path, out: Path, size: str) -> Report:
    """Accuracy of the model, and the maps of its right answers."""
    del data  # formulas are made
    model, tokenizer = load_reasoner()
    counts = accuracy((model, tokenizer), held_out_formulas(TESTED[size], seed=1))
    right, all_ = (sum(column) for column in zip(*counts.values(), strict=True))
    pairs, texts = chosen_formulas(model, tokenizer, TEXTS[size]), []
    with progress_bar(len(pairs), True, "formula", "reasoning") as advance:
        for formula, answer in pairs:
            texts.append(solved(model, tokenizer, formula, answer))
            advance()
    rows = rows_of(texts)
    out.mkdir(parents=True, exist_ok=True)
    example = max(texts, key=lambda text: (len(text.answer) == 4, len(text.formula)))
    names = [SETTINGS[1].label, SETTINGS[6].label, SETTINGS[8].label, "raw: mean of layers"]
    draw(example, names, out / "reasoning.png")
    by_size = table(
        ["symbols", *map(str, counts)],
        [["satisfied", *(f"{a / b:.3f}" for a, b in counts.values())]],
    )
    body = (
        f"## Accuracy\n\n{right} of {all_} held-out formulas are satisfied by the greedy answer "
        f"({right / all_:.1%}).\n\n{by_size}\n\n## Influence\n\n"
        f"{table(list(rows[0]), (row.values() for row in rows))}\n\n![maps](reasoning.png)"
    )
    literals = sum(len(text.answer) // 2 for text in texts)
    return Report(
        "reasoning",
        "A small reasoning model: which symbols of a formula decide its answer",
        {
            "model": f"reasoning_checkpoint (BART, 3 + 3 layers, {len(VARIABLES)} variables), "
            + digest(CHECKPOINT / "model.safetensors"),
            "data": f"{len(texts)} held-out formulas of at least {FEWEST_SYMBOLS} symbols with "
            f"{literals} literals (a name and a value each), all answered as taught; nothing was "
            "chosen on them",
            "protocol": "Spearman of a letter's scores over the symbols with the mean fall of its "
            "log probability when the symbol is exchanged (swaps), and with the share of exchanges "
            "that take it out of the taught answer (logic); own variable: share of names whose "
            "largest score is at that variable; means over formulas, 95 % bootstrap intervals",
            "seed": "1 (accuracy), 2 (influence)",
        },
        body,
        rows,
    )
