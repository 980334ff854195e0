"""Seconds of one explanation against the length of the text: flow methods, and others beside them.

    python timing.py                        # the bundled model
    python timing.py --model FOLDER --quick

Processor seconds on one thread (they vary little with what else runs), median of REPEATS after
one warm-up, methods alternating. A method that took more than LIMIT seconds is not asked for longer
texts. Writes timing.csv, timing.md and timing.png.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pandas as pd
import torch
from corpus import cut
from settings import SIZES, Method, methods

import flowopt as fo
from flowopt import provenance
from flowopt.explainer.loading import load_model

RESULTS = Path(__file__).resolve().parent / "results"
LENGTHS = (16, 32, 64, 128, 256)
REPEATS, LIMIT = 3, 20.0
TIMED = (
    *("agf-maxflow", "agf-barrier", "agf-quadratic", "agf-shapley", "af-barrier"),
    *("attention-flow", "rollout", "attcat", "chefer"),
    *("conductance-flow", "integrated-gradients", "leave-one-out", "lime"),
)
SENTENCE = (
    "the film is slow at first , but its two leads are so good that one forgives the plot and "
    "stays until a last scene which nobody who likes this kind of story will want to miss "
)


def text_of(tokenizer: Any, length: int) -> str:
    """A text of exactly `length` tokens, special ones among them: a sentence again and again."""
    return cut(SENTENCE * (length // len(SENTENCE.split()) + 1), tokenizer, length)


def measured(model: Any, tokenizer: Any, text: str, chosen: dict[str, Method]) -> dict[str, float]:
    """Median processor seconds of every method."""
    taken: dict[str, list[float]] = {label: [] for label in chosen}
    for turn in range(REPEATS + 1):
        for label, (name, options) in chosen.items():
            started = time.process_time()
            fo.explain(model, tokenizer, text, name, **options)
            if turn:
                taken[label].append(time.process_time() - started)
    return {label: statistics.median(seconds) for label, seconds in taken.items()}


def run(place: str | None, quick: bool) -> pd.DataFrame:
    """A row per method, a column per length."""
    model, tokenizer = load_model(place)
    chosen = {label: methods(SIZES["normal"])[label] for label in TIMED}
    columns: dict[int, dict[str, float]] = {}
    for length in LENGTHS[:2] if quick else LENGTHS:
        found = measured(model, tokenizer, text_of(tokenizer, length), chosen)
        columns[length] = found
        chosen = {label: how for label, how in chosen.items() if found[label] < LIMIT}
        print(length, {label: round(seconds, 3) for label, seconds in found.items()}, flush=True)
    return pd.DataFrame(columns).reindex(list(TIMED))


def write(table: pd.DataFrame, model: str, out: Path) -> None:
    """Write numbers, a table to read, and the picture."""
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "timing.csv", index_label="method", float_format="%.5f")
    size = SIZES["normal"]
    lines = [
        "# Seconds of one explanation against tokens\n",
        f"Model: {model}. Processor seconds on one thread, median of {REPEATS}; the forward and "
        f"backward passes are in them. Integrated gradients and conductance-flow: {size.steps} "
        f"points, one baseline; LIME: {size.samples} texts; agf-shapley: {size.orders} sampled "
        f"orders. A dash: more than {LIMIT:.0f} s on the shorter text.\n",
        "| method | " + " | ".join(map(str, table.columns)) + " |",
        "|---" * (len(table.columns) + 1) + "|",
    ]
    for label, row in table.iterrows():
        cells = ("–" if pd.isna(seconds) else f"{seconds:.3f}" for seconds in row)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines.append(f"\n{provenance.describe(provenance.facts())}\n")
    (out / "timing.md").write_text("\n".join(lines), encoding="utf-8")
    draw(table, out / "timing.png")


def draw(table: pd.DataFrame, path: Path) -> None:
    """Seconds against tokens, both on logarithmic axes; flow in full lines."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(8.5, 4.8), layout="constrained")
    for label, row in table.iterrows():
        flow = str(label).startswith(("a", "gf", "cond")) and label != "attcat"
        ax.plot(table.columns, row, "-o" if flow else "--s", label=label, markersize=4)
    ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel="processor seconds per text")
    ax.set_xticks(list(table.columns), [str(length) for length in table.columns])
    ax.minorticks_off()
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder or hub name (default: the bundled model)")
    parser.add_argument("--quick", action="store_true", help="16 and 32 tokens")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent / "results",
        help="(%(default)s)",
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    name = "the bundled classifier" if given.model is None else Path(given.model).name
    write(run(given.model, given.quick), name, given.out)


if __name__ == "__main__":
    main()
