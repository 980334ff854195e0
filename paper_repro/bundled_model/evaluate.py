"""Measure a checkpoint and the bundled model made from it; write metrics.json and the model card.

Both are measured on the SST-2 dev sentences, in natural and in GLUE spelling, and on IMDB reviews,
which are much longer than the training text. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from data import (
    DEFAULT_DATA,
    REPOSITORY,
    Example,
    check_checkpoint,
    film_reviews,
    glue_rows,
    natural_sentences,
)
from transformers import (
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

sys.path.insert(0, str(REPOSITORY))

from flowopt.assets import BUNDLED_FOLDER, load_bundled

CARD = Path(__file__).with_name("model_card.md")
LOADED = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def load_checkpoint(folder: Path) -> Loaded:
    """Model and tokenizer that train.py saved."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", unk_token="[UNK]"
    )
    return BertForSequenceClassification.from_pretrained(folder).eval(), tokenizer


@torch.inference_mode()
def positive_probabilities(loaded: Loaded, examples: list[Example]) -> torch.Tensor:
    """Probability of label 1 for every example, in batches of nearly equal length."""
    model, tokenizer = loaded
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].text))
    probabilities = torch.empty(len(examples))
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        texts = [examples[row].text for row in rows]
        inputs = tokenizer(
            texts, padding=True, truncation=True, max_length=512, return_tensors="pt"
        )
        probabilities[rows] = model(**inputs).logits.softmax(-1)[:, 1]
    return probabilities


def compare(before: Loaded, after: Loaded, examples: list[Example]) -> dict[str, Any]:
    """Accuracy before and after shrinking, and how far predictions moved."""
    labels = torch.tensor([example.label for example in examples])
    old, new = (positive_probabilities(loaded, examples) for loaded in (before, after))
    same_split = sum(
        before[1].tokenize(example.text) == after[1].tokenize(example.text) for example in examples
    )
    return {
        "sentences": len(examples),
        "before": accuracy(old, labels),
        "after": accuracy(new, labels),
        "changed_predictions": int(((old > 0.5) != (new > 0.5)).sum()),
        "mean_probability_change": round(float((old - new).abs().mean()), 4),
        "split_into_the_same_pieces": same_split,
    }


def accuracy(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Number and share of correct predictions, over all texts and of either label."""
    right = (probabilities > 0.5).long() == labels
    return {
        "correct": int(right.sum()),
        "accuracy": round(int(right.sum()) / len(labels), 4),
        "recall_negative": round(float(right[labels == 0].float().mean()), 4),
        "recall_positive": round(float(right[labels == 1].float().mean()), 4),
    }


def evaluate(checkpoint: Path, data: Path) -> dict[str, Any]:
    """All numbers of the model card."""
    check_checkpoint(checkpoint)
    before = load_checkpoint(checkpoint)
    started = time.perf_counter()
    after = load_bundled()
    seconds = time.perf_counter() - started
    sets = {
        "dev": natural_sentences(data, "dev"),
        "glue_dev": glue_rows(data, ("dev",)),
        "imdb_test": film_reviews(data, "test"),
    }
    measured = {name: compare(before, after, rows) for name, rows in sets.items()}
    sizes = {name: (BUNDLED_FOLDER / name).stat().st_size for name in LOADED}
    return measured | {
        "vocabulary": {"before": before[1].vocab_size, "after": after[1].vocab_size},
        "bytes": sizes | {"total": sum(sizes.values())},
        "load_seconds": round(seconds, 2),
        "training": json.loads((checkpoint / "run.json").read_text(encoding="utf-8")),
    }


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python evaluate.py --checkpoint checkpoints/epoch-3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="folder that train.py saved and the bundled model was made from",
    )
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder with the SST-2 files (%(default)s)"
    )
    return parser.parse_args()


def write(metrics: dict[str, Any]) -> None:
    """Write metrics.json and the model card beside the weights."""
    text = json.dumps(metrics, indent=2) + "\n"
    (BUNDLED_FOLDER / "metrics.json").write_text(text, encoding="utf-8")
    card = CARD.read_text(encoding="utf-8").format(**metrics)
    (BUNDLED_FOLDER / "README.md").write_text(card, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    given = arguments()
    write(evaluate(given.checkpoint, given.data))
