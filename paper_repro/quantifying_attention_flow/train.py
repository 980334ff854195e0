"""Train the verb-number model: a small encoder that reads a prefix and tells the verb's number.

Six layers, eight heads, d = 128, no mask, a classification token, as in Abnar & Zuidema (2020).
The number of steps, and every other choice, rest on the dev part of the agreement data alone.

    python paper_repro/quantifying_attention_flow/train.py --out ../verb_number
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from agreement_data import DEFAULT_DATA, Example, Parts, agreement_parts, word_tokenizer
from agreement_phrases import Phrases, nouns_of
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from flowopt import provenance
from flowopt.errors import InputError
from flowopt.progress import progress_bar

VOCABULARY = 10_000
STEPS, BATCH, POOL = 3000, 64, 20  # POOL batches are sorted by length together
# Shares of what is trained on; the rest are examples of other text, both numbers equally often.
OWN_SHARE, PHRASE_SHARE = 0.2, 0.35
LEARNING_RATE, WARM_UP, WEIGHT_DECAY, CLIP = 7e-4, 0.08, 0.05, 1.0
DROPOUT = 0.1
WORD_DROPOUT = 0.1  # words of a training prefix that become the unknown token
CHECK_EVERY = 250

Batch = dict[str, torch.Tensor]


def new_model(tokenizer: PreTrainedTokenizerFast) -> BertForSequenceClassification:
    """The untrained encoder, from torch's current seed."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=512,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
        pad_token_id=tokenizer.pad_token_id,
        type_vocab_size=1,
        id2label={0: "singular", 1: "plural"},
        label2id={"singular": 0, "plural": 1},
    )
    return BertForSequenceClassification(config)


def collate(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> Batch:
    """Ids, mask and labels of a batch, padded to its longest prefix."""
    texts = [" ".join(example.words) for example in examples]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = torch.tensor([example.label for example in examples])
    return {name: batch[name] for name in ("input_ids", "attention_mask")} | {"labels": labels}


def with_unknown_words(batch: Batch, tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Replace a share of the words by the unknown token, so that the model has met it."""
    ids = batch["input_ids"]
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(ids.shape) < WORD_DROPOUT) & ~special
    return batch | {"input_ids": ids.masked_fill(chosen, tokenizer.unk_token_id)}


def training_batches(parts: Parts, size: int, rng: random.Random) -> Iterator[list[Example]]:
    """Endless batches of prefixes of nearly equal length: agreement rows, phrases, other text."""
    by_label = [[one for one in parts.more if one.label == label] for label in (0, 1)]
    if not all(by_label):  # no other texts were found
        by_label = [parts.train]
    nouns = nouns_of(one.words for one in (*parts.train, *parts.more))
    phrases = Phrases(nouns) if nouns else None
    while True:
        pool = rng.choices(parts.train, k=round(OWN_SHARE * size * POOL))
        if phrases is not None:
            drawn = range(round(PHRASE_SHARE * size * POOL))
            pool += [Example(*phrases.prefix(rng)) for _ in drawn]
        for place in range(size * POOL - len(pool)):
            pool.append(rng.choice(by_label[place % len(by_label)]))
        pool.sort(key=lambda example: len(example.words))
        batches = [pool[start : start + size] for start in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from batches


@torch.no_grad()
def measured(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
) -> dict[str, float]:
    """Mean loss, accuracy, and accuracy by the number of attractors, in evaluation mode.

    Raises
    ------
    InputError
        If there are no examples.
    """
    if not examples:
        raise InputError("there are no examples to measure on")
    was_training = model.training
    model.eval()
    ordered = sorted(examples, key=lambda example: len(example.words))
    loss, right = 0.0, []
    for start in range(0, len(ordered), 128):
        batch = collate(tokenizer, ordered[start : start + 128])
        output = model(**batch)
        loss += float(output.loss) * len(batch["labels"])
        right += (output.logits.argmax(-1) == batch["labels"]).tolist()
    model.train(was_training)
    found = {"loss": loss / len(ordered), "accuracy": sum(right) / len(right)}
    for count in sorted({one.attractors for one in ordered if one.attractors is not None}):
        of = [hit for hit, one in zip(right, ordered, strict=True) if one.attractors == count]
        found[f"accuracy, {count} attractors"] = sum(of) / len(of)
    return found


def train(
    parts: Parts,
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = False,
    batch_size: int = BATCH,
    vocabulary: int = VOCABULARY,
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast, list[dict[str, float]]]:
    """Train from random weights; the weights of the least loss on the dev part are kept.

    Deterministic for one machine and one number of threads; torch's own seed is left as it was.
    The weights are rounded to float16 values, so that a saved model is the same model.

    Returns
    -------
    model : BertForSequenceClassification
        In float32 and evaluation mode.
    tokenizer : PreTrainedTokenizerFast
    history : list of dict
        What was measured on the dev part, and after which step.

    Raises
    ------
    InputError
        If there is nothing to train on, or to choose by.
    """
    if steps < 1 or batch_size < 1 or not parts.train:
        raise InputError("training needs at least 1 step, 1 example a batch and 1 prefix")
    tokenizer = word_tokenizer(parts, vocabulary)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = new_model(tokenizer).train()
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        schedule = get_cosine_schedule_with_warmup(optimiser, int(WARM_UP * steps), steps)
        batches = training_batches(parts, batch_size, random.Random(seed))
        history: list[dict[str, float]] = []
        best = copy.deepcopy(model.state_dict())
        with progress_bar(steps, progress, unit="batch", label="training") as advance:
            for step in range(1, steps + 1):
                batch = with_unknown_words(collate(tokenizer, next(batches)), tokenizer)
                model(**batch).loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimiser.step()
                schedule.step()
                optimiser.zero_grad()
                advance()
                if step % CHECK_EVERY == 0 or step == steps:
                    found = {"step": step} | measured(model, tokenizer, parts.dev)
                    if all(found["loss"] < before["loss"] for before in history):
                        best = copy.deepcopy(model.state_dict())
                    history.append(found)
    model.load_state_dict(best)
    return model.half().float().eval(), tokenizer, history


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder of the texts (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="batches (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default 0)")
    return parser.parse_args()


def main() -> None:
    """Train, measure, save."""
    chosen = arguments()
    parts = agreement_parts(chosen.data)
    began = time.perf_counter()
    model, tokenizer, history = train(parts, chosen.steps, chosen.seed, progress=True)
    seconds = time.perf_counter() - began
    copy.deepcopy(model).half().save_pretrained(chosen.out)
    tokenizer.save_pretrained(chosen.out)
    sizes = {part: len(getattr(parts, part)) for part in ("train", "more", "dev", "test")}
    run = {
        "test": measured(model, tokenizer, parts.test),
        "dev": history,
        "examples": sizes,
        "steps": chosen.steps,
        "seed": chosen.seed,
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "facts": provenance.facts(),
    }
    (chosen.out / "run.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(run["test"], indent=1))


if __name__ == "__main__":
    main()
