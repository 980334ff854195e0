"""What makes flow faithful: searched on development splits, compared once on test splits.

    python compare.py --models FOLDER --split dev    # the steps that led to presence flow
    python compare.py --models FOLDER --split test   # presence flow against its rivals
    python compare.py --models FOLDER --split dev --quick --out O  # two texts a set: does it run?
    python compare.py --work WORK --split test --tables  # the tables of what is in WORK

FOLDER/NAME are classifiers of paper_repro/classifiers; the set "bundled" is SST-2 read by the
bundled classifier. Rows of single texts go to WORK, where a run that was stopped goes on; tables
go to OUT, again after every set.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "gaf"))

import pandas as pd
from contenders import CALLS, RIVALS, STEPS, rivals, steps
from corpus import corpus
from remembered import remembered
from verdict import METRICS, page, tables

from flowopt import provenance
from flowopt.evaluation.evaluate import evaluate
from flowopt.explainer.loading import load_model

HERE = Path(__file__).resolve().parent
DEFAULT_DATA = HERE.parents[1].parent / "shared" / "data"
SETS = ("sst2", "ag_news", "subj", "yelp", "imdb", "bundled")
TEXTS = {
    "dev": {"sst2": 0, "ag_news": 10, "subj": 0, "yelp": 0, "imdb": 0, "bundled": 24},
    "test": {"sst2": 60, "ag_news": 40, "subj": 50, "yelp": 30, "imdb": 14, "bundled": 40},
}
PROTOCOLS = ("default", "attcat")


def run_set(name: str, given: argparse.Namespace) -> pd.DataFrame:
    """Rows of one set: a text, a method and a protocol each."""
    model, tokenizer = load_model(None if name == "bundled" else str(given.models / name))
    count = 2 if given.quick else TEXTS[given.split][name]
    data = "sst2" if name == "bundled" else name
    texts = corpus(data, given.data, tokenizer, count, given.split)
    chosen = {
        label: _remembering(each)
        for label, each in (steps() if given.split == "dev" else rivals()).items()
    }
    found = []
    for protocol in PROTOCOLS:
        started = time.perf_counter()
        result = evaluate(
            model,
            chosen,
            texts,
            METRICS,
            out=None if given.work is None else given.work / given.split / name / protocol,
            tokenizer=tokenizer,
            protocol=protocol,
            seed=given.seed,
            references=False,
        )
        rows = result.to_pandas()
        failed = rows[rows.status == "failed"]
        seconds = time.perf_counter() - started
        print(
            f"{name}, {protocol}: {len(failed)} of {len(rows)} failed, {seconds:.0f} s", flush=True
        )
        for error in failed.error.unique()[:3]:
            print(f"  {error}", flush=True)
        found.append(rows)
    return pd.concat(found).assign(set=name)


def finished(name: str, given: argparse.Namespace) -> pd.DataFrame:
    """Rows of one set that earlier runs left in WORK; of a text done twice, the last."""
    found = []
    for protocol in PROTOCOLS:
        files = sorted((given.work / given.split / name / protocol / "rows").glob("*.parquet"))
        if files:
            rows = pd.concat([pd.read_parquet(file) for file in files])
            found.append(rows.sort_values("time").drop_duplicates(["id", "method"], keep="last"))
    return pd.concat(found).assign(set=name) if found else pd.DataFrame()


def _remembering(chosen: Any) -> Any:
    """The same method, explaining a text once for both protocols."""
    name, options = chosen if isinstance(chosen, tuple) else (chosen, {})
    return remembered(name), options


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="folder of the classifiers")
    parser.add_argument("--split", choices=("dev", "test"), required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="(all)")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two texts a set")
    parser.add_argument("--tables", action="store_true", help="compute nothing, read WORK")
    parser.add_argument("--work", type=Path, help="folder for rows; without it none are kept")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    given = parser.parse_args(words)
    if given.tables and given.work is None:
        parser.error("--tables reads the folder --work")
    if not given.tables and given.models is None:
        parser.error("name the folder of the classifiers with --models")
    return given


def main(words: list[str] | None = None) -> None:
    """Run the sets one after the other."""
    given = arguments(words)
    rows: list[pd.DataFrame] = []
    for name in given.sets:
        if TEXTS[given.split][name] == 0:
            continue  # nothing was searched there
        rows.append(finished(name, given) if given.tables else run_set(name, given))
        facts = {
            **provenance.facts(),
            "split": given.split,
            "seed": given.seed,
            "points_per_path": STEPS,
            "kernel_shap_calls": CALLS,
            "command": f"python paper_repro/beyond/compare.py --split {given.split}",
        }
        found = tables(pd.concat(rows))
        given.out.mkdir(parents=True, exist_ok=True)
        for kind, table in found.items():
            table.to_csv(given.out / f"{given.split}_{kind}.csv", index=False, float_format="%.4f")
        text = page(pd.concat(rows), found, facts, RIVALS if given.split == "test" else ())
        (given.out / f"{given.split}.md").write_text(text, encoding="utf-8")
        (given.out / f"{given.split}.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(text)


if __name__ == "__main__":
    main()
