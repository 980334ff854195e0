"""What evaluating a corpus costs: per text, per row on disk, per result through the driver.

``python benchmarks/evaluate.py`` measures on the bundled model, with texts of random words of its
vocabulary (no data set is needed), and writes results/evaluate.json and .md; ``docs/scale.md`` does
its arithmetic with these numbers. Some minutes on one core; ``--quick`` takes less.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import flowopt as fo
from flowopt import provenance
from flowopt.assets import load_bundled
from flowopt.evaluation.store import open_store

RESULTS = Path(__file__).parent / "results"
METHODS = ("agf-barrier", "conductance-flow", "integrated-gradients", "attcat")
WORDS = 20  # of a text, as in SST-2
SEED = 0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer texts")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    texts = random_texts(4 if chosen.quick else 12)
    one = per_text(["agf-barrier"], texts)
    several = per_text(METHODS, texts)
    driver = through_driver(200 if chosen.quick else 2000)
    found = {
        "texts": len(texts),
        "words": WORDS,
        "one method and references": one,
        "methods": list(METHODS),
        "several methods and references": several,
        "driver": driver,
        **provenance.facts(),
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "evaluate.json").write_text(json.dumps(found, indent=1) + "\n")
    (chosen.out / "evaluate.md").write_text(markdown(found))
    print(markdown(found))


def random_texts(count: int) -> list[str]:
    """Texts of random whole words: their length matters here, not their sense."""
    _, tokenizer = load_bundled()
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 2)
    generator = np.random.default_rng(SEED)
    return [" ".join(generator.choice(words, WORDS)) for _ in range(count)]


def per_text(methods: tuple[str, ...] | list[str], texts: list[str]) -> dict[str, float]:
    """Cost of one text with the model loaded and compilers warm, and bytes of one row.

    Processor time, of one thread, does not depend on what else runs on the machine.
    """
    model, tokenizer = load_bundled()
    fo.evaluate(model, methods, texts[:1], tokenizer=tokenizer, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        start = time.process_time()
        found = fo.evaluate(model, methods, texts, out=out, tokenizer=tokenizer, progress=False)
        seconds = time.process_time() - start
        size = sum(path.stat().st_size for path in (out / "rows").glob("*.parquet"))
        rows = found.rows
        first = [row for row in rows if row["method"] == rows[0]["method"]]
        measuring = float(np.median([row["measure_seconds"] for row in first]))
        explaining = float(np.median([explained(rows, n) for n in range(len(texts))]))
        return {
            "processor seconds": seconds / len(texts),
            "share of measuring": measuring / (measuring + explaining),
            "perturbed texts read": float(np.median([row["measure_forward"] for row in first])),
            "tokens": float(np.median([row["tokens"] for row in first])),
            "rows": len(rows) / len(texts),
            "bytes per row": size / len(rows),
        }


def explained(rows: list[dict], number: int) -> float:
    """Seconds that all methods together took for a text."""
    return sum(row["seconds"] for row in rows if row["position"] == number)


def through_driver(count: int) -> dict[str, float]:
    """Texts per second that one driver writes, and keys per second that a resumed one reads.

    What comes while a file is written is written together: the busier, the larger the files.
    """
    measured: dict[str, float] = {}
    rows = fo.evaluate(None, ["agf-barrier"], random_texts(1), progress=False).rows
    with tempfile.TemporaryDirectory() as folder:
        for together in (1, 10, 100):
            opened = open_store(Path(folder) / str(together))
            start = time.perf_counter()
            for first in range(0, count, together):
                numbers = range(first, first + together)
                opened.add([{**row, "example": f"{n:016x}"} for n in numbers for row in rows])
            seconds = time.perf_counter() - start
            measured[f"texts per second, {together} at a time"] = count / seconds
            opened.compact()
            opened.close()
        start = time.perf_counter()
        keys = 0
        for table in opened.tables(("example", "work", "status", "metrics")):
            keys += len(table.to_pylist())
        measured["keys read per second"] = keys / (time.perf_counter() - start)
    return measured


def markdown(found: dict) -> str:
    """The numbers as a table."""
    one, several = found["one method and references"], found["several methods and references"]
    lines = [
        "# What evaluating costs",
        "",
        f"{found['texts']} texts of {found['words']} random words, bundled model, one thread, "
        "default protocol, all metrics of faithfulness; random and leave-one-out are among the "
        "rows.",
        "",
        f"| per text | agf-barrier | {', '.join(found['methods'])} |",
        "|---|---:|---:|",
        *(f"| {name} | {one[name]:.4g} | {several[name]:.4g} |" for name in one),
        "",
        "| driver | |",
        "|---|---:|",
        *(f"| {name} | {value:.4g} |" for name, value in found["driver"].items()),
        "",
        f"`python benchmarks/evaluate.py`; {provenance.describe(found)}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
