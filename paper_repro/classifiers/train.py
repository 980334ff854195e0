"""Fine-tune a pretrained MiniLM encoder into a classifier of one of five sets.

Writes OUT/NAME (a transformers folder with tokenizer) and results/NAME.json (accuracy, facts).
yelp starts from the imdb classifier (OUT/imdb), the others from the encoder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    get_linear_schedule_with_warmup,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundled_model"))

import train as bundled  # the trainer of the bundled model, which starts from the same encoder
from splits import DEFAULT_DATA, Example, examples, label_names

from flowopt.provenance import facts

RESULTS = Path(__file__).resolve().parent / "results"
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}


@dataclass(frozen=True)
class Settings:
    """How one set is learned. Longer texts are cut to `length` tokens, special ones included."""

    epochs: int = 1
    length: int = 128
    learning_rate: float = 4e-5
    start: str = "encoder"
    texts: int | None = None


SETTINGS = {
    "sst2": Settings(epochs=2),
    "ag_news": Settings(),
    "subj": Settings(),
    "imdb": Settings(epochs=2, length=256),
    "yelp": Settings(epochs=3, start="imdb"),
}
QUICK = {"epochs": 1, "length": 32, "texts": 64}


def train(
    name: str,
    base: Path,
    data: Path,
    folder: Path,
    settings: Settings,
    seed: int = 0,
    bfloat16: bool = False,
) -> dict[str, Any]:
    """Fine-tune, save to `folder`, and measure; returns what results/NAME.json holds."""
    if not (base / "tokenizer.json").is_file():
        raise SystemExit(f"{base} holds no encoder: name its folder with --base")
    torch.manual_seed(seed)
    tokenizer = bundled.load_tokenizer(base)
    learned = examples(name, "train", data)[: settings.texts]
    model = new_model(base, label_names(name, data))
    started = time.perf_counter()
    fit(model, encoded(tokenizer, learned, settings.length), settings, seed, bfloat16)
    seconds = time.perf_counter() - started
    save(model, tokenizer, folder)
    measured = {}
    for split in ("dev", "test"):
        held_out = examples(name, split, data)[: settings.texts]
        pairs = encoded(tokenizer, held_out, settings.length)
        measured[split] = {"texts": len(pairs), "accuracy": round(accuracy(model, pairs), 4)}
    return {
        "data": name,
        "accuracy": measured,
        "weights_sha256": digest(folder / "model.safetensors"),
        "base_sha256": digest(base / "model.safetensors"),
        "training": asdict(settings) | {"examples": len(learned), "seconds": round(seconds)},
        "embeddings": "frozen",
        "batch": bundled.BATCH,
        "seed": seed,
        "bfloat16": bfloat16,
        "threads": torch.get_num_threads(),
        "provenance": facts(),
    }


def new_model(base: Path, names: list[str]) -> BertForSequenceClassification:
    """The encoder with a head of these classes; its embeddings do not learn, which saves time."""
    model = BertForSequenceClassification.from_pretrained(
        base,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={label: index for index, label in enumerate(names)},
    )
    model.bert.embeddings.requires_grad_(False)
    return model


def encoded(tokenizer: Tokenizer, rows: list[Example], length: int) -> list[bundled.Pair]:
    """Token ids, at most `length` with the closing [SEP] kept, and label of every text."""
    cutting = Tokenizer.from_str(tokenizer.to_str())
    cutting.enable_truncation(length)
    encodings = cutting.encode_batch([row.text for row in rows])
    return [(found.ids, row.label) for found, row in zip(encodings, rows, strict=True)]


def fit(
    model: BertForSequenceClassification,
    pairs: list[bundled.Pair],
    settings: Settings,
    seed: int,
    bfloat16: bool,
) -> None:
    """Minimise the cross-entropy with AdamW, warm-up and linear decay."""
    model.train()
    rng = random.Random(seed)
    total = settings.epochs * -(-len(pairs) // bundled.BATCH)
    optimizer = torch.optim.AdamW(bundled.parameter_groups(model), lr=settings.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, int(bundled.WARM_UP * total), total)
    started, step = time.perf_counter(), 0
    for _ in range(settings.epochs):
        for batch in bundled.bucketed_batches(pairs, rng):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = model(**bundled.collate(batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), bundled.CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 20 == 0:
                left = (time.perf_counter() - started) / step * (total - step)
                print(f"{step} of {total}: loss {loss.item():.3f}, {left:.0f} s left", flush=True)
    model.eval()


@torch.inference_mode()
def accuracy(model: BertForSequenceClassification, pairs: list[bundled.Pair]) -> float:
    """Share of texts whose most probable class is the label."""
    ordered = sorted(pairs, key=lambda pair: len(pair[0]))
    right = 0
    for start in range(0, len(ordered), bundled.BATCH):
        batch = bundled.collate(ordered[start : start + bundled.BATCH])
        labels = batch.pop("labels")
        right += int((model(**batch).logits.argmax(-1) == labels).sum())
    return right / len(pairs)


def save(model: BertForSequenceClassification, tokenizer: Tokenizer, folder: Path) -> None:
    """A folder that transformers loads; the tokenizer neither cuts nor pads by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=model.config.max_position_embeddings,
        **SPECIAL,
    ).save_pretrained(folder)


def digest(path: Path) -> str:
    """SHA-256 of a file of weights."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def base_folder(name: str, given: Path | None, out: Path) -> Path:
    """Folder to start from: the one given, the imdb classifier for yelp, else pip's encoder."""
    if given is not None:
        return given
    if SETTINGS[name].start != "encoder":
        return out / SETTINGS[name].start
    from make import fetch_base

    return fetch_base(out)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python train.py sst2 --out classifiers",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(SETTINGS), help="which set")
    parser.add_argument("--base", type=Path, help="folder of the encoder; by default pip gets it")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder with the sets (%(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="the classifier goes to OUT/NAME")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="where NAME.json goes (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, help="instead of the set's own number")
    parser.add_argument("--learning-rate", type=float, help="instead of the set's own")
    parser.add_argument("--seed", type=int, default=0, help="random seed (%(default)s)")
    parser.add_argument(
        "--bfloat16", action="store_true", help="bfloat16 autocast, faster on CPUs that have it"
    )
    parser.add_argument(
        "--quick", action="store_true", help="64 short texts, to see that it runs; writes no JSON"
    )
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Train one classifier; `words` are the command line's by default."""
    given = arguments(words)
    settings = replace(SETTINGS[given.name], **(QUICK if given.quick else {}))
    chosen = {"epochs": given.epochs, "learning_rate": given.learning_rate}
    settings = replace(settings, **{name: value for name, value in chosen.items() if value})
    base = base_folder(given.name, given.base, given.out)
    folder = given.out / given.name
    result = train(given.name, base, given.data, folder, settings, given.seed, given.bfloat16)
    text = json.dumps(result, indent=2) + "\n"
    if not given.quick:
        given.results.mkdir(parents=True, exist_ok=True)
        (given.results / f"{given.name}.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
