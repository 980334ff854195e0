"""Encoder-decoders: whether flow finds the source letter that an output letter comes from.

The tasks, maps and counts are those of `paper_repro/real_models`; here with the paper's own
construction, sequential stages and a maximum flow, beside the barrier and other tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flow_maps import StagedSetting, flow_maps
from general_results import Report, digest, table
from influence_maps import attention_maps, attention_of
from influence_tasks import (
    Tally,
    Task,
    chance,
    own_letters,
    reversal_task,
    tally,
    transliteration_task,
)
from letters import greedy
from reversal import CHECKPOINT

from flowopt.progress import progress_bar

TEXTS = {"quick": 3, "usual": 40, "full": 110}
RESIDUAL = "rows + residual"
SETTINGS = (
    StagedSetting("af", RESIDUAL, "maximum", stages="sequential"),
    StagedSetting("af", RESIDUAL, "barrier", stages="sequential"),
    StagedSetting("af", RESIDUAL, "barrier", unroll=False, stages="sequential"),
    StagedSetting("af", RESIDUAL, "maximum"),
    StagedSetting("af", RESIDUAL, "barrier"),
    StagedSetting("agf", RESIDUAL, "barrier", stages="sequential"),
    StagedSetting("agf", "as they are", "barrier"),
    StagedSetting("conductance", "as they are", "barrier"),
)
FIXED = ("raw: last layer", "raw: mean of layers", "rollout", "rollout, unrolled")


def counts_of(task: Task, settings: Sequence[StagedSetting], text: str) -> dict[str, Tally]:
    """Count the rows of all maps of one text."""
    source, target = task.tokenizers
    (answer,) = greedy(task.model, source, target, [text])
    tokens = target.convert_tokens_to_ids(list(answer))
    aim, own = task.aim(len(answer), len(text)), own_letters(answer, text)
    flows = flow_maps(task.model, task.tokenizers, text, tokens, settings)
    maps = attention_maps(attention_of(task.model, source(text)["input_ids"], tokens))
    fixed = {name: tally(maps[name][:, : len(text)], aim, own) for name in FIXED}
    return fixed | {
        name: tally(flow.scores[:, : len(text)], aim, own, flow.proved)
        for name, flow in flows.items()
    }


def measured(task: Task) -> dict[str, Tally]:
    """Count over the task's texts."""
    totals: dict[str, Tally] = {}
    with progress_bar(len(task.reporting), True, label=task.name) as advance:
        for text in task.reporting:
            for name, count in counts_of(task, SETTINGS, text).items():
                totals[name] = totals.get(name, Tally()) + count
            advance()
    return totals


def rows_of(task: Task, found: dict[str, Tally]) -> list[dict[str, Any]]:
    """One row per map, best first, and a random place."""
    named = task.name == "transliteration"
    order = sorted(found, key=lambda name: -found[name].merit)
    rows = [
        {
            "model": task.name,
            "map": name,
            "exact": f"{found[name].share('exact'):.3f}",
            "within one": f"{found[name].share('within'):.3f}",
            "own letter": f"{found[name].share('own'):.3f}" if named else "",
            "proved": found[name].certified if name.startswith("flow") else "",
            "letters": found[name].rows,
        }
        for name in order
    ]
    by_chance = chance(task, "reporting")
    rows.append(
        {
            "model": task.name,
            "map": "a random place",
            "exact": f"{by_chance['exact']:.3f}",
            "within one": f"{by_chance['within']:.3f}",
            "own letter": f"{by_chance['own']:.3f}" if named else "",
            "proved": "",
            "letters": rows[0]["letters"],
        }
    )
    return rows


def encoder_decoder_report(data: Path, out: Path, size: str) -> Report:
    """Both models, or the reversal model alone without the published ones."""
    del out  # no picture: those of real_models show the same maps
    count, models = TEXTS[size], data / "models"
    revisions = [f"reversal, {digest(CHECKPOINT / 'model.safetensors')}"]
    tasks = [reversal_task(0, count)]
    if models.is_dir():
        tasks.append(transliteration_task(models, 0, count))
        path = models / "aren_transliteration" / "aren_transliteration.npz"
        revisions.append(f"aren_transliteration, {digest(path)}")
    rows = [row for task in tasks for row in rows_of(task, measured(task))]
    texts = ", ".join(f"{len(task.reporting)} of {task.name}" for task in tasks)
    return Report(
        "encoder-decoder",
        "Encoder-decoders: does flow find the source letter?",
        {
            "model": "; ".join(revisions),
            "data": f"reporting texts of paper_repro/real_models: {texts}; settings are fixed, "
            "none chosen",
            "protocol": "where a row's largest entry is: at most half a letter off (exact), within "
            "one, or at an Arabic letter that is written so (own letter); a tie is a miss",
            "seed": "3 (strings)",
        },
        table(list(rows[0]), (row.values() for row in rows)),
        rows,
    )
