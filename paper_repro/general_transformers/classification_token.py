"""What the classification token does to flow: the bundled classifier on SST-2 sentences.

The head reads [CLS] alone. Flow can start at every top position or at [CLS] only, and much of it
ends in [CLS] and [SEP], which say nothing of the text; or these can be taken out of the network.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from flow_maps import Array, remembered
from general_results import Report, digest, mean_of, rank_correlation, table
from influence_maps import CAPACITIES, OBJECTIVES

from flowopt import Explainer
from flowopt.assets import BUNDLED_FOLDER
from flowopt.errors import InputError
from flowopt.explainer.loading import load_model
from flowopt.methods import explain
from flowopt.progress import progress_bar
from flowopt.tensors import Conductance

TEXTS = {"quick": 4, "usual": 30, "full": 872}
RESIDUAL = "rows + residual"
STEPS = 8  # of conductance, doubled where they do not suffice; 32 takes most of the time
OTHERS = ("raw-attention", "rollout", "input-x-gradient", "integrated-gradients", "random")


@dataclass(frozen=True)
class WithoutEnds:
    """A capacity variant: no edge into the first and the last position of any layer.

    With one text at a time these are [CLS] and [SEP]. Flow may still start at the top ones. Put
    it behind a residual: the residual edges of the two are gone as well.
    """

    def __call__(self, capacities: Array) -> Array:
        """Apply to capacities (L, t, t)."""
        changed = np.array(capacities, dtype=np.float64)
        changed[:, :, [0, -1]] = 0.0
        return changed


@dataclass(frozen=True)
class ClsSetting:
    """One network.

    Parameters
    ----------
    tensor, capacities, objective : str
        As `influence_maps.Setting`.
    sources : "all" or "cls"
    special : bool
        Whether flow may pass and end at [CLS] and [SEP].
    """

    tensor: str
    capacities: str
    objective: str
    sources: str
    special: bool


def settings() -> Iterator[ClsSetting]:
    """All networks that are compared; where all sources and [CLS] alone are the same, one."""
    ways = (
        ("af", "as they are"),
        ("af", RESIDUAL),
        ("agf", "as they are"),
        ("agf", RESIDUAL),
        ("conductance", "as they are"),
    )
    for (tensor, capacities), objective in itertools.product(ways, OBJECTIVES):
        if tensor == "conductance" and objective == "maximum":
            continue
        # other top nodes are dead where the tensor holds the gradient of a head that reads [CLS]
        starts = ("all", "cls") if tensor == "af" or capacities == RESIDUAL else ("cls",)
        for sources, special in itertools.product(starts, (True, False)):
            yield ClsSetting(tensor, capacities, objective, sources, special)


def sentences(data: Path, count: int) -> list[str]:
    """The first sentences of SST-2's development part.

    Raises
    ------
    InputError
        If the file is missing.
    """
    path = data / "sst2.jsonl"
    if not path.is_file():
        raise InputError(f"{path} is missing: give --data the folder that holds sst2.jsonl")
    with path.open(encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines)
        return [row["text"] for row in islice((r for r in rows if r["split"] == "dev"), count)]


@dataclass(frozen=True, eq=False)
class Read:
    """One sentence: scores (t,) of every network and method, and the truth.

    Parameters
    ----------
    scores : dict
        By setting, or by the name of another method.
    proved : dict of ClsSetting to bool
    drop : ndarray (t,)
        Fall of the predicted class's logit when a word is deleted; 0 for special tokens.
    """

    scores: dict[Any, Array]
    proved: dict[ClsSetting, bool]
    drop: Array


def read(model: Any, tokenizer: Any, text: str, wanted: Sequence[ClsSetting]) -> Read:
    """Explain one sentence by all networks and methods."""
    short = {"conductance": Conductance(steps=STEPS)}
    names = dict.fromkeys(setting.tensor for setting in wanted)
    specs = {name: remembered(short.get(name, name)) for name in names}
    scores: dict[Any, Array] = {}
    proved = {}
    for setting in wanted:
        variants = CAPACITIES[setting.capacities] + (() if setting.special else (WithoutEnds(),))
        found = Explainer(
            model,
            tokenizer,
            tensor=specs[setting.tensor],
            objective=OBJECTIVES[setting.objective],
            capacities=variants,
            sources=setting.sources,
        )(text)
        scores[setting], proved[setting] = found.scores, found.status == "optimal"
    for name in OTHERS:
        scores[name] = explain(model, tokenizer, text, name).scores
    drop = explain(model, tokenizer, text, "leave-one-out").scores
    return Read(scores, proved, drop)


def facts(texts: Sequence[Read], key: Any) -> dict[str, Any]:
    """Means over texts for one network or method."""
    sizes = [np.abs(text.scores[key]) for text in texts]
    shares = [size / size.sum() if size.sum() > 0 else size * np.nan for size in sizes]
    return {
        "[CLS]": mean_of(share[0] for share in shares),
        "[SEP]": mean_of(share[-1] for share in shares),
        "with the drop": mean_of(
            rank_correlation(text.scores[key][1:-1], text.drop[1:-1]) for text in texts
        ),
        "with its size": mean_of(
            rank_correlation(size[1:-1], np.abs(text.drop[1:-1]))
            for size, text in zip(sizes, texts, strict=True)
        ),
    }


def rows_of(texts: Sequence[Read], wanted: Sequence[ClsSetting]) -> list[dict[str, Any]]:
    """One row per network and method."""
    rows = [
        {
            "scores": f"flow: {setting.tensor}; {setting.capacities}; {setting.objective}",
            "source": setting.sources,
            "special tokens": "in the network" if setting.special else "taken out",
            **facts(texts, setting),
            "proved": sum(text.proved[setting] for text in texts),
        }
        for setting in wanted
    ]
    other = {"source": "", "special tokens": ""}
    rows += [{"scores": name, **other, **facts(texts, name), "proved": ""} for name in OTHERS]
    return rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw where the flow ends, with special tokens in the network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row["special tokens"] == "in the network"]
    names = [f"{row['scores'].removeprefix('flow: ')} ({row['source']})" for row in shown]
    left = np.zeros(len(shown))
    figure, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for part, colour in (("[CLS]", "tab:blue"), ("[SEP]", "tab:orange")):
        width = np.array([row[part].mean for row in shown])
        ax.barh(names, width, left=left, label=part, color=colour)
        left = left + width
    ax.barh(names, 1 - left, left=left, label="words", color="lightgrey")
    ax.invert_yaxis()
    ax.set_xlabel("share of the flow")
    ax.tick_params(axis="y", labelsize=7)
    ax.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def cls_report(data: Path, out: Path, size: str) -> Report:
    """Explain the sentences and compare."""
    model, tokenizer = load_model(None)
    wanted, texts = list(settings()), []
    given = sentences(data, TEXTS[size])
    with progress_bar(len(given), True, label="cls") as advance:
        for text in given:
            texts.append(read(model, tokenizer, text, wanted))
            advance()
    rows = rows_of(texts, wanted)
    out.mkdir(parents=True, exist_ok=True)
    draw(rows, out / "cls.png")
    return Report(
        "cls",
        "The classification token: where flow starts, where it ends",
        {
            "model": "bundled classifier sst2-minilm (6 layers, 12 heads), "
            + digest(BUNDLED_FOLDER / "model.safetensors"),
            "data": f"SST-2, the first {len(texts)} sentences of dev; nothing was chosen on them",
            "protocol": "shares of scores without sign; drop: fall of the predicted class's logit "
            "when a word's token is deleted; Spearman over the tokens between [CLS] and [SEP]; "
            f"conductance with {STEPS} steps (more where they do not suffice); "
            "means over sentences, 95 % bootstrap intervals",
            "seed": "0",
        },
        table(list(rows[0]), (row.values() for row in rows))
        + "\n\n![where the flow ends](cls.png)",
        rows,
    )
