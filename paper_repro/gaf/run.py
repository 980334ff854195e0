"""Faithfulness of flow on AF, GF and AGF against other methods, on five classification sets.

    python run.py --models FOLDER                  # FOLDER/NAME as paper_repro/classifiers writes
    python run.py --models FOLDER --quick --out O  # two texts a set: does it run?
    python run.py --models FOLDER --full           # 250 texts a set, larger budgets
    python run.py --hub                            # the usual checkpoints, by name

AOPC and log-odds of every method under three protocols. Rows of single texts go to WORK, where a
run that was stopped goes on; tables go to OUT.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pandas as pd
from corpus import corpus
from remembered import remembered
from settings import HUB, LONGEST, METRICS, PROTOCOLS, SIZES, Size, methods
from tables import write_tables

from flowopt import provenance
from flowopt.evaluation.evaluate import evaluate
from flowopt.explainer.loading import load_model

HERE = Path(__file__).resolve().parent
DEFAULT_DATA = HERE.parents[1].parent / "shared" / "data"


def run_set(name: str, place: str, size: Size, given: argparse.Namespace) -> pd.DataFrame:
    """Rows of one set: a text, a method and a protocol each."""
    model, tokenizer = load_model(place)
    texts = corpus(name, given.data, tokenizer, size.texts[name])
    chosen: dict[str, Any] = {
        label: (remembered(method), options)
        for label, (method, options) in methods(size).items()
        if given.methods is None or label in given.methods
    }
    tables = []
    for protocol in PROTOCOLS:
        started = time.perf_counter()
        found = evaluate(
            model,
            chosen,
            texts,
            METRICS,
            out=None if given.work is None else given.work / name / protocol,
            tokenizer=tokenizer,
            protocol=protocol,
            seed=given.seed,
            references=False,
        )
        table = found.to_pandas()
        tables.append(table)
        failed = table[table.status == "failed"]
        print(
            f"{name}, {protocol}: {texts.size} texts, {len(failed)} of {len(table)} rows failed, "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )
        for error in failed.error.unique()[:3]:
            print(f"  {error}", flush=True)
    return pd.concat(tables).assign(set=name)


def places(given: argparse.Namespace) -> dict[str, str]:
    """Where the model of each set is."""
    if given.hub:
        return {name: place for name, place in HUB.items() if name in given.sets}
    if given.models is None:
        raise SystemExit("name the folder of the classifiers with --models, or choose --hub")
    found = {name: given.models / name for name in given.sets}
    for name, folder in found.items():
        if not (folder / "config.json").is_file():
            raise SystemExit(
                f"{folder} holds no model: make it with paper_repro/classifiers/train.py {name}"
            )
    return {name: str(folder) for name, folder in found.items()}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = list(SIZES["normal"].texts)
    parser.add_argument("--models", type=Path, help="folder with one classifier per set")
    parser.add_argument("--hub", action="store_true", help=f"models by name: {HUB}")
    parser.add_argument("--sets", nargs="+", choices=sets, default=sets, help="(%(default)s)")
    parser.add_argument("--methods", nargs="+", help="only these, by their names in the tables")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="(%(default)s)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick")
    size.add_argument("--full", dest="size", action="store_const", const="full")
    parser.set_defaults(size="normal")
    parser.add_argument("--work", type=Path, help="folder for rows; without it none are kept")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Run the sets one after the other; tables are written again after each."""
    given = arguments(words)
    size = SIZES[given.size]
    rows = []
    for name, place in places(given).items():
        rows.append(run_set(name, place, size, given))
        facts = {
            **provenance.facts(),
            "size": given.size,
            "seed": given.seed,
            "longest_text": LONGEST,
            "texts_per_surrogate": size.samples,
            "sampled_orders": size.orders,
            "path_steps": size.steps,
        }
        write_tables(pd.concat(rows), facts, given.out)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
