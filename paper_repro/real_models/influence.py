"""What flow shows on small models whose behaviour is known, against attention and rollout.

    python paper_repro/real_models/influence.py           # everything
    python paper_repro/real_models/influence.py --quick   # few texts: a few minutes

Three parts, each with its own files of results: `reversal` (influence must be anti-diagonal),
`transliteration` (nearly diagonal), `stories` (proofs, early tokens and time). Settings are chosen
on other texts than those that are reported. The last two need the published models in `--data`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from influence_maps import CAPACITIES, TENSORS, Setting
from influence_stories import measured_story, story_table
from influence_tasks import (
    Maps,
    Tally,
    Task,
    chance,
    maps_of,
    measured,
    reversal_task,
    transliteration_task,
)

from flowopt import provenance

HERE = Path(__file__).resolve().parent
PARTS = ("reversal", "transliteration", "stories")
FIXED = ("raw: last layer", "raw: mean of layers", "rollout", "rollout, unrolled")
COUNTS = {"reversal": (20, 200), "transliteration": (16, 110), "stories": (0, 60)}
QUICK = {"reversal": (4, 8), "transliteration": (4, 8), "stories": (0, 8)}

Tallies = dict[str, Tally]


def first_settings() -> list[Setting]:
    """All tensors with all capacities, by barrier and unrolled."""
    return [Setting(tensor, capacities) for tensor in TENSORS for capacities in CAPACITIES]


def variations(best: Iterable[Setting]) -> list[Setting]:
    """The other objective, and generation not unrolled, of the best capacities of each tensor."""
    return [
        changed
        for setting in best
        for changed in (replace(setting, objective="maximum"), replace(setting, unroll=False))
    ]


def best_of(names: Iterable[str], found: Tallies) -> str:
    """The name with the most merit; of equal ones the first."""
    return max(names, key=lambda name: found[name].merit)


def chosen_settings(
    make: partial[Task], workers: int
) -> tuple[list[Setting], dict[str, str], Tallies]:
    """Choose on the development texts.

    Returns
    -------
    settings : list of Setting
        All that are reported.
    chosen : dict of str to str
        Why a name is reported: the best flow, layer and head.
    found : dict of str to Tally
    """
    first = first_settings()
    found = measured(make, "development", first, workers)
    by_label = {setting.label: setting for setting in first}
    best = [
        by_label[best_of((s.label for s in first if s.tensor == tensor), found)]
        for tensor in TENSORS
    ]
    more = variations(best)
    found |= measured(make, "development", more, workers)
    settings = [*first, *more]
    single = [name for name in found if name.startswith("raw: layer")]
    chosen = {
        "flow": best_of((setting.label for setting in settings), found),
        "layer": best_of((name for name in single if "head" not in name), found),
        "head": best_of((name for name in single if "head" in name), found),
    }
    return settings, chosen, found


def pictured(settings: Sequence[Setting], found: Tallies) -> list[Setting]:
    """The best flow on attention and on conductance, where they were measured."""
    ways = [[s for s in settings if s.tensor == tensor] for tensor in ("af", "conductance")]
    return [max(way, key=lambda s: found[s.label].merit) for way in ways if way]


def table(names: Sequence[str], found: Tallies, chosen: dict[str, str], named: bool) -> str:
    """Markdown, best first; the chosen ones say so."""
    reasons = {name: reason for reason, name in chosen.items()}
    own = " own letter |" if named else ""
    lines = [
        f"| map | exact | within one |{own} proved rows |",
        f"|---|---|---|{'---|' if named else ''}---|",
    ]
    for name in sorted(names, key=lambda name: -found[name].merit):
        count = found[name]
        label = f"**{name}** (chosen {reasons[name]})" if name in reasons else name
        cells = [label, f"{count.share('exact'):.1%}", f"{count.share('within'):.1%}"]
        if named:
            cells.append(f"{count.share('own'):.1%}")
        flow = name.startswith("flow")
        cells.append(f"{count.certified} of {count.rows}" if flow else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def letters_part(name: str, make: partial[Task], out: Path, workers: int, command: str) -> str:
    """Measure, write and draw one of the letter-to-letter models; its markdown."""
    facts = provenance.facts()
    settings, chosen, development = chosen_settings(make, workers)
    found = measured(make, "reporting", settings, workers)
    task = make()
    names = [*(s.label for s in settings), *FIXED, chosen["layer"], chosen["head"]]
    names = list(dict.fromkeys(names))
    named = name == "transliteration"
    random = chance(task, "reporting")
    rows = found[names[0]]
    text = f"# Influence of source letters: {name}\n\n"
    text += f"{len(task.reporting)} texts with {rows.rows} output letters"
    text += f", {rows.named} of them consonants with letters of their own" * named
    text += f"; settings were chosen on {len(task.development)} other texts.\n\n"
    text += table(names, found, chosen, named)
    text += f"\n\nA random place: exact {random['exact']:.1%}, within one {random['within']:.1%}"
    text += f", own letter {random['own']:.1%}" * named
    text += f".\n\n![maps of one text]({name}.png)\n\n{footer(command, facts)}"
    write_csv(
        out / f"{name}.csv",
        [
            {"map": each, "part": part} | asdict(counts[each])
            for part, counts in (("development", development), ("reporting", found))
            for each in counts
        ],
    )
    example = max(task.reporting, key=len)
    drawn = pictured(settings, development)
    maps = maps_of(task, drawn, example)
    flows = [setting.label for setting in drawn]
    draw(maps, (*flows, "raw: last layer", "rollout"), out / f"{name}.png")
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    return text


def stories_part(data: Path, tokens: int, out: Path, command: str) -> str:
    """Measure and write the story; its markdown."""
    facts = provenance.facts()
    story, rows = measured_story(data, tokens)
    text = f"# A story of stories260K, token by token\n\n> {story}\n\n{story_table(rows)}\n\n"
    text += "A pass is one forward and backward pass over the whole story; several threads or "
    text += f"other work on the machine change its time.\n\n{footer(command, facts)}"
    write_csv(out / "stories.csv", [asdict(row) for row in rows])
    (out / "stories.md").write_text(text, encoding="utf-8")
    return text


def footer(command: str, facts: dict[str, Any]) -> str:
    """Where the numbers come from."""
    return f"Made by `{command}`; {provenance.describe(facts)}\n"


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(found: Maps, names: Sequence[str], path: Path) -> None:
    """Draw maps of one text side by side, every row over its largest entry."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (3.3 * len(names), 3.9)
    figure, axes = plt.subplots(1, len(names), figsize=size, layout="constrained")
    for ax, name in zip(axes, names, strict=True):
        scores = found.maps[name].clip(min=0)
        ax.imshow(scores / scores.max(axis=1, keepdims=True).clip(min=1e-300), cmap="Blues")
        ax.set_xticks(range(len(found.text)), list(found.text))
        ax.set_yticks(range(len(found.answer)), list(found.answer))
        ax.set_title(name.replace("; ", "\n", 1), fontsize=8)
        ax.set_xlabel("source, in reading order", fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few texts")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part")
    parser.add_argument(
        "--data", type=Path, default=HERE.parents[2] / "shared" / "data" / "models",
        help="folder of the published models (default: ../shared/data/models)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the results")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    given = parser.parse_args()
    if given.workers < 1:
        parser.error("--workers must be at least 1")
    given.part = given.part or [p for p in PARTS if p == "reversal" or given.data.is_dir()]
    return given


def main() -> None:
    """Measure, print and write."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    counts = QUICK if given.quick else COUNTS
    for part in given.part:
        few, many = counts[part]
        command = "python paper_repro/real_models/influence.py"
        command += " --quick" * given.quick + f" --part {part}"
        if part == "stories":
            print(stories_part(given.data, many, given.out, command))
            continue
        make = partial(reversal_task, few, many)
        if part == "transliteration":
            make = partial(transliteration_task, given.data, few, many)
        print(letters_part(part, make, given.out, given.workers, command))
    missing = [part for part in PARTS if part not in given.part]
    if missing:
        print(f"Not measured: {', '.join(missing)}")


if __name__ == "__main__":
    main()
