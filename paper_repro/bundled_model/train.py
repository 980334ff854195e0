"""Fine-tune the MiniLM base on SST-2 phrases and sentences; every epoch leaves a checkpoint.

The recipe was fixed before training: nothing is selected on the dev sentences.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from data import DEFAULT_DATA, training_examples
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification, get_linear_schedule_with_warmup

Pair = tuple[list[int], int]

EPOCHS = 3
BATCH = 32
LEARNING_RATE = 4e-5
WEIGHT_DECAY = 0.01
WARM_UP = 0.06
CLIP = 1.0
MAX_LENGTH = 128
POOL = 100  # batches that are sorted by length together


def load_tokenizer(base: Path) -> Tokenizer:
    """Tokenizer of the base, without the truncation and padding that its file switches on."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encoded(tokenizer: Tokenizer, data: Path) -> list[Pair]:
    """Training examples as (token ids, label)."""
    examples = training_examples(data)
    encodings = tokenizer.encode_batch([example.text for example in examples])
    return [
        (encoding.ids[:MAX_LENGTH], example.label)
        for encoding, example in zip(encodings, examples, strict=True)
    ]


def bucketed_batches(pairs: list[Pair], rng: random.Random) -> Iterator[list[Pair]]:
    """One epoch of batches in random order, each of texts of nearly equal length."""
    order = rng.sample(pairs, len(pairs))
    batches = []
    for start in range(0, len(order), BATCH * POOL):
        pool = sorted(order[start : start + BATCH * POOL], key=lambda pair: len(pair[0]))
        batches += [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
    rng.shuffle(batches)
    return iter(batches)


def collate(batch: list[Pair]) -> dict[str, torch.Tensor]:
    """Pad a batch with id 0 ([PAD]) to its longest text."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (tokens, _) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    labels = torch.tensor([label for _, label in batch])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def new_model(base: Path) -> BertForSequenceClassification:
    """The base encoder with a fresh classification head."""
    return BertForSequenceClassification.from_pretrained(
        base,
        num_labels=2,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )


def parameter_groups(model: torch.nn.Module) -> list[dict[str, object]]:
    """Weight decay for matrices, none for biases and layer norms."""
    named = list(model.named_parameters())
    return [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]


def train(
    base: Path, data: Path, out: Path, seed: int, bfloat16: bool, max_steps: int = -1
) -> None:
    """Train for three epochs and save `out`/epoch-N after each, with the run's facts."""
    if not (base / "tokenizer.json").is_file():
        raise SystemExit(f"{base} holds no pretrained encoder: name its folder with --base")
    random.seed(seed)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    pairs = encoded(load_tokenizer(base), data)
    model = new_model(base).train()
    total = EPOCHS * -(-len(pairs) // BATCH)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=LEARNING_RATE)
    schedule = get_linear_schedule_with_warmup(optimizer, int(WARM_UP * total), total)
    print(f"{len(pairs)} examples, {total} steps, bfloat16 {bfloat16}", flush=True)
    started, step, smooth = time.perf_counter(), 0, 0.7
    for epoch in range(1, EPOCHS + 1):
        for batch in bucketed_batches(pairs, rng):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = model(**collate(batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            smooth += 0.01 * (loss.item() - smooth)
            if step % 100 == 0:
                seconds = time.perf_counter() - started
                left = seconds / step * (total - step) / 60
                print(f"{step} loss {smooth:.4f} {seconds:.0f} s, {left:.0f} min left", flush=True)
            if step == max_steps:
                return
        save(model, base, out / f"epoch-{epoch}", facts(seed, bfloat16, len(pairs), started))


def facts(seed: int, bfloat16: bool, examples: int, started: float) -> dict[str, object]:
    """What the model card tells about a run."""
    return {
        "seed": seed,
        "bfloat16": bfloat16,
        "training_examples": examples,
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def save(
    model: BertForSequenceClassification, base: Path, folder: Path, run: dict[str, object]
) -> None:
    """Write weights, the untruncated tokenizer and the run's facts."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    load_tokenizer(base).save(str(folder / "tokenizer.json"))
    (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    print(f"saved {folder}", flush=True)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python train.py --base minilm/model --out checkpoints. "
        "About 3 x 2300 steps; 35 to 70 minutes on two CPU cores.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--base",
        type=Path,
        required=True,
        help="folder with the pretrained MiniLM encoder (config.json, model.safetensors, "
        "tokenizer.json); see README.md for where to get it",
    )
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder with the SST-2 files (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoints go to OUT/epoch-1 to OUT/epoch-3"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (%(default)s)")
    parser.add_argument(
        "--bfloat16", action="store_true", help="bfloat16 autocast, faster on CPUs that have it"
    )
    parser.add_argument(
        "--max-steps", type=int, default=-1, help="stop early and save nothing, to time a run"
    )
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    train(given.base, given.data, given.out, given.seed, given.bfloat16, given.max_steps)
