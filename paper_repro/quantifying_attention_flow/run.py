"""Correlate raw attention, rollout and flow with blank-out and gradients, layer by layer.

    python paper_repro/quantifying_attention_flow/run.py --model FOLDER    # what train.py wrote
    python paper_repro/quantifying_attention_flow/run.py --part sst2       # the bundled model
    python paper_repro/quantifying_attention_flow/run.py --quick --model FOLDER

Two parts: `agreement` (the verb-number model, test prefixes) and `sst2` (a sentiment classifier,
dev sentences), each with its own files of results: NAME.md, NAME.csv and a picture.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreement_data import DEFAULT_DATA, agreement_parts, rows_of
from correlation_report import Summary, markdown, model_revision, picture
from correlations import compare, correlations

from flowopt import provenance
from flowopt.errors import InputError
from flowopt.explainer.loading import load_model
from flowopt.progress import progress_bar

HERE = Path(__file__).resolve().parent
PARTS = ("agreement", "sst2")
SAMPLES = {"agreement": 2000, "sst2": 872}
QUICK = 40
PROTOCOLS = {"every position": False, "words only": True}


def texts_of(part: str, folder: Path, samples: int, seed: int) -> tuple[list[str], list[int], str]:
    """Texts, labels and the name of the split: a random choice of test prefixes or dev sentences.

    Raises
    ------
    InputError
        If the data is not in the folder.
    """
    if part == "agreement":
        test = agreement_parts(folder).test
        texts, labels = [" ".join(one.words) for one in test], [one.label for one in test]
        split = "linzen_agreement.jsonl, test part of agreement_data.py"
    else:
        rows = list(rows_of(folder / "sst2.jsonl", "dev"))
        texts, labels = [str(r["text"]) for r in rows], [int(str(r["label"])) for r in rows]
        split = "sst2.jsonl, dev"
    order = np.random.default_rng(seed).permutation(len(texts))[:samples]
    return [texts[i] for i in order], [labels[i] for i in order], split


def measured(
    model: Any, tokenizer: Any, texts: Sequence[str], progress: bool = True
) -> tuple[list[Summary], int, list[int]]:
    """Mean and spread of every correlation over the texts.

    Returns
    -------
    summaries : list of Summary
    skipped : int
        Correlations that are not numbers, because one side is constant; they are left out.
    predicted : list of int
        The class of each text.
    """
    values: dict[tuple[str, str, str, int], list[float]] = {}
    skipped, predicted = 0, []
    with progress_bar(len(texts), progress, label="correlating") as advance:
        for text in texts:
            ids = tokenizer(text, truncation=True)["input_ids"]
            found = compare(model, tokenizer, ids)
            predicted.append(_predicted(model, ids))
            for protocol, words_only in PROTOCOLS.items():
                for key, value in correlations(found, words_only).items():
                    if np.isnan(value):
                        skipped += 1
                    else:
                        values.setdefault((protocol, *key), []).append(value)
            advance()
    return [Summary.of(key, each) for key, each in values.items()], skipped, predicted


def _predicted(model: Any, ids: Sequence[int]) -> int:
    with torch.no_grad():
        return int(model(input_ids=torch.tensor([list(ids)])).logits.argmax())


def written(part: str, arguments: argparse.Namespace) -> str:
    """Measure one part and write its files; the report.

    Raises
    ------
    InputError
        If the model or the data is missing.
    """
    if part == "agreement" and arguments.model is None:
        raise InputError("the verb-number model is missing: train it with train.py --out FOLDER "
                         "and name the folder with --model")  # fmt: skip
    facts = provenance.facts()
    torch.manual_seed(arguments.seed)
    model, tokenizer = load_model(arguments.model)
    samples = arguments.samples or (QUICK if arguments.quick else SAMPLES[part])
    texts, labels, split = texts_of(part, arguments.data, samples, arguments.seed)
    summaries, skipped, predicted = measured(model, tokenizer, texts)
    right = float(np.mean([a == b for a, b in zip(predicted, labels, strict=True)]))
    about = {
        "part": part,
        "model": model.name_or_path if arguments.model is None else Path(arguments.model).name,
        "revision": model_revision(model, arguments.model),
        "data": split,
        "texts": len(texts),
        "seed": arguments.seed,
        "accuracy on these texts": round(right, 4),
        "correlations left out (one side constant)": skipped,
    } | dict(trained(arguments.model))
    text = markdown(about, summaries, provenance.describe(facts))
    arguments.out.mkdir(parents=True, exist_ok=True)
    named = part == "sst2" and arguments.model is not None
    stem = f"{part}_{Path(arguments.model).name}" if named else part
    (arguments.out / f"{stem}.md").write_text(text, encoding="utf-8")
    with (arguments.out / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Summary.__dataclass_fields__)
        writer.writerows(summary.cells() for summary in summaries)
    picture(part, summaries, arguments.out / f"{stem}.png")
    return text


def trained(folder: str | None) -> Iterator[tuple[str, Any]]:
    """What train.py left beside its model: accuracy on the whole test part."""
    path = Path(folder or HERE) / "run.json"
    if folder is not None and path.is_file():
        run = json.loads(path.read_text(encoding="utf-8"))
        for name, value in run.get("test", {}).items():
            yield f"whole test part: {name}", round(value, 4)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, default="agreement", help="default %(default)s")
    parser.add_argument(
        "--model", help="folder or hub name; for sst2 the bundled classifier if none is named"
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the texts")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} texts")
    parser.add_argument("--samples", type=int, default=0, help="texts, instead of the usual number")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of texts (default 0)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for results")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    chosen = arguments()
    try:
        print(written(chosen.part, chosen))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
