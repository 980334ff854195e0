"""SLALOM's experiments: recovery of known scores, fidelity under removals, human attention.

    python paper_repro/slalom/run.py                       # all three, the usual sizes
    python paper_repro/slalom/run.py --quick --out FOLDER  # a few texts of each
    python paper_repro/slalom/run.py --part human --model FOLDER --full

Writes NAME.md and NAME.json, named after the part and, for another classifier than the bundled
one, after its folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from slalom_fidelity import fidelity_of
from slalom_human import SCORES, aurocs_of, reviews
from slalom_recovery import from_stored_samples, recoveries
from slalom_report import (
    about_lines,
    fidelity_table,
    human_table,
    model_revision,
    recovery_table,
    stored_line,
)

from flowopt import provenance
from flowopt.errors import InputError
from flowopt.explainer.loading import load_model
from flowopt.progress import progress_bar

HERE = Path(__file__).resolve().parent
DEFAULT_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PARTS = ("recovery", "fidelity", "human")


@dataclass(frozen=True)
class Size:
    """How much is done.

    Parameters
    ----------
    seeds, steps : int
        Of the recovery: known models, and training steps of each transformer.
    texts, calls, draws : int
        Of the fidelity: sentences, calls of the model for each surrogate, removals of each number.
    reviews, queries : int
        Of the human attention.
    """

    seeds: int
    steps: int
    texts: int
    calls: int
    draws: int
    reviews: int
    queries: int


QUICK = Size(1, 150, 2, 100, 10, 3, 100)
USUAL = Size(5, 1200, 40, 500, 30, 100, 1000)
FULL = Size(10, 3000, 200, 2000, 100, 925, 5000)


def each_of(items: Sequence[Any], work: Callable[[Any], Any], label: str) -> list[Any]:
    """Results of all items, with a bar."""
    found = []
    with progress_bar(len(items), True, label=label) as advance:
        for item in items:
            found.append(work(item))
            advance()
    return found


def sentences(folder: Path, count: int, seed: int) -> list[str]:
    """SST-2 dev sentences of at least 12 words, a random choice.

    Raises
    ------
    InputError
        If the data is not in the folder.
    """
    path = folder / "sst2.jsonl"
    if not path.is_file():
        raise InputError(f"sst2.jsonl is not in {folder}: name the folder that holds it with "
                         "--data")  # fmt: skip
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [r["text"] for r in rows if r["split"] == "dev" and len(r["text"].split()) >= 12]
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))[:count]]


def part_recovery(size: Size, options: argparse.Namespace) -> tuple[dict, list[str], Any]:
    """Facts, table and numbers of the synthetic recovery."""
    rows = recoveries(size.seeds, 500, size.steps)
    about = {
        "samples": "500 for each fit, noise-free but where said",
        "known models": f"{size.seeds} of 20 tokens, seeds 0 to {size.seeds - 1}",
        "transformers": f"BERT, d 64, 4 heads, {size.steps} steps of 64 random sequences",
    }
    table = recovery_table(rows)
    path = options.data.parent / "golden" / "slalom.json"
    if path.is_file():
        rows.append(from_stored_samples(path))
        table += ["", stored_line(rows[-1])]
    return about, table, rows


def part_fidelity(size: Size, options: argparse.Namespace) -> tuple[dict, list[str], Any]:
    """Facts, table and numbers of the fidelity under removals."""
    texts = sentences(options.data, size.texts, options.seed)
    model, tokenizer = load_model(options.model)

    def work(text: str) -> Any:
        return fidelity_of(model, tokenizer, text, size.calls, size.draws, options.seed)

    found = each_of(texts, work, "fidelity")
    about = model_facts(model, options) | {
        "data": f"sst2.jsonl, dev, {len(texts)} sentences of at least 12 words, random choice",
        "calls of the model for each surrogate": f"{size.calls} (SLALOM and its linear twin share "
        "them; a tenth is held out)",
        "removals": f"{size.draws} random sets of each size 1 to 10, tokens deleted; error of the "
        "predicted change of the log odds, summed over texts, over the summed squared change",
        "AOPC": "predicted class, deletion of the top 10 %..50 % of the tokens, signed",
    }
    return about, fidelity_table(found), found


def part_human(size: Size, options: argparse.Namespace) -> tuple[dict, list[str], Any]:
    """Facts, table and numbers of the human attention."""
    everything = reviews(options.data, options.split)
    order = np.random.default_rng(options.seed).permutation(len(everything))[: size.reviews]
    model, tokenizer = load_model(options.model)

    def work(index: int) -> Any:
        return aurocs_of(
            model, tokenizer, everything[index], size.queries, options.plan, options.seed
        )

    found = [row for row in each_of(order.tolist(), work, "reviews") if row is not None]
    if not found:
        raise InputError("no review has both marked and unmarked words; take more of them")
    about = model_facts(model, options) | {
        "data": f"yelp_hat.jsonl, split {options.split}, {len(order)} reviews, random choice; "
        f"{len(found)} with marked and unmarked words",
        "accuracy on these reviews": f"{np.mean([row['correct'] for row in found]):.3f}",
        "queries for each review": f"{size.queries}, plan {options.plan}",
        "protocol": "class predicted; marked by at least half of the annotators; sub-words "
        "summed to words; AUROC for each review, then the mean",
    }
    return about, human_table(found, SCORES), found


def model_facts(model: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Name and revision of the classifier."""
    name = model.name_or_path if options.model is None else Path(options.model).name
    return {"model": name, "revision": model_revision(model, options.model)}


MEASURE = {"recovery": part_recovery, "fidelity": part_fidelity, "human": part_human}
TITLES = {
    "recovery": "Recovery of known values and importances",
    "fidelity": "Fidelity when several tokens are removed",
    "human": "Human attention on Yelp reviews",
}


def written(part: str, size: Size, options: argparse.Namespace) -> str:
    """Measure one part and write its files; the report."""
    facts, began = provenance.facts(), time.process_time()
    about, table, numbers = MEASURE[part](size, options)
    about |= {"seed": options.seed, "processor seconds": round(time.process_time() - began)}
    lines = [*about_lines(TITLES[part], about), *table, "", provenance.describe(facts), ""]
    suffix = "" if options.model is None or part == "recovery" else f"_{Path(options.model).name}"
    options.out.mkdir(parents=True, exist_ok=True)
    name = options.out / f"{part}{suffix}"
    Path(f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    rounded = json.loads(json.dumps(numbers), parse_float=lambda x: float(f"{float(x):.4g}"))
    result = {"about": about, "facts": facts, "rows": rounded}
    Path(f"{name}.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, help="one part; by default all")
    parser.add_argument("--model", help="folder or hub name; by default the bundled classifier")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the texts")
    parser.add_argument("--plan", choices=("short", "deletion"), default="short",
                        help="queries of the human attention (default short)")  # fmt: skip
    parser.add_argument("--split", choices=("test", "all"), default="test",
                        help="reviews: the classifiers' test part (default), or all")  # fmt: skip
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--quick", action="store_true", help="a few texts, to try it")
    much.add_argument("--full", action="store_true", help="all texts, 5000 queries")
    parser.add_argument("--seed", type=int, default=0, help="of texts and queries (default 0)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for results")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    options = arguments()
    size = QUICK if options.quick else FULL if options.full else USUAL
    try:
        for part in (options.part,) if options.part else PARTS:
            print(written(part, size, options))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
