"""A tiny encoder-decoder that reverses strings of letters: train it, measure it, load it.

Letter k of the answer is letter n - 1 - k of a source of n letters, whatever the other letters
are: an influence map of this model must be anti-diagonal.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import random
import string
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import transformers
from letters import BEGIN, END, encoded, greedy, letter_tokenizer
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from flowopt.errors import InputError
from flowopt.progress import progress_bar

CHECKPOINT = Path(__file__).resolve().parent / "reversal_checkpoint"
SHORTEST, LONGEST = 4, 10
HELD_OUT = 10  # one string in so many is never trained on
PAD, UNKNOWN = "<pad>", "<unk>"
LETTERS = string.ascii_lowercase
STEPS, BATCH = 1000, 128
LEARNING_RATE, WARM_UP, CLIP = 3e-3, 0.1, 1.0

Reversal = tuple[BartForConditionalGeneration, PreTrainedTokenizerFast]


def reversal_tokenizer() -> PreTrainedTokenizerFast:
    """One token per small letter, </s> at the end; the same for source and answer."""
    vocabulary = [PAD, BEGIN, END, UNKNOWN, *LETTERS]
    return letter_tokenizer(vocabulary, PAD, UNKNOWN, append_end=True, max_length=LONGEST + 1)


def new_model(tokenizer: PreTrainedTokenizerFast) -> BartForConditionalGeneration:
    """Untrained BART of 2 + 2 layers, from torch's current seed."""
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=48,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_position_embeddings=LONGEST + 2,
        dropout=0.0,
        init_std=0.1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config)


def is_held_out(text: str) -> bool:
    """Whether training never sees this string: a fixed tenth of all strings."""
    return zlib.crc32(text.encode()) % HELD_OUT == 0


def random_strings(held_out: bool, seed: int) -> Iterator[str]:
    """Endless strings, of lengths and letters drawn uniformly, of one side of the split."""
    rng = random.Random(seed)
    while True:
        text = "".join(rng.choices(LETTERS, k=rng.randint(SHORTEST, LONGEST)))
        if is_held_out(text) == held_out:
            yield text


def held_out_strings(count: int, seed: int = 1) -> list[str]:
    """Strings that training never sees, none of them twice.

    Raises
    ------
    InputError
        If the count is negative.
    """
    if count < 0:
        raise InputError(f"count is {count}: ask for 0 or more strings")
    found: dict[str, None] = {}
    strings = random_strings(held_out=True, seed=seed)
    while len(found) < count:
        found[next(strings)] = None
    return list(found)


def train_reversal(
    steps: int = STEPS, seed: int = 0, progress: bool = False, batch_size: int = BATCH
) -> Reversal:
    """Train the model from random weights.

    Deterministic for one machine and one number of threads; torch's own seed is left as it was.
    The weights are rounded to float16 values, so that a saved model is the same model.

    Parameters
    ----------
    steps : int
        Batches to train on.
    seed : int
        Of weights and data.
    progress : bool
        Whether to show a bar.
    batch_size : int
        Strings in one batch.

    Returns
    -------
    model : BartForConditionalGeneration
        In float32 and evaluation mode.
    tokenizer : PreTrainedTokenizerFast

    Raises
    ------
    InputError
        If there is nothing to train on.
    """
    if steps < 1 or batch_size < 1:
        raise InputError(f"steps ({steps}) and batch_size ({batch_size}) must be at least 1")
    tokenizer = reversal_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(tokenizer).train()
    strings = random_strings(held_out=False, seed=seed)
    bar = progress_bar(steps, progress, unit="batch", label="training")
    with torch.enable_grad(), bar as advance:
        _descend(model, tokenizer, strings, steps, batch_size, advance)
    return model.half().float().eval(), tokenizer


def _descend(
    model: BartForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    strings: Iterator[str],
    steps: int,
    batch_size: int,
    advance: Callable[[], object],
) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = transformers.get_cosine_schedule_with_warmup(optimiser, int(WARM_UP * steps), steps)
    for _ in range(steps):
        texts = [next(strings) for _ in range(batch_size)]
        labels = encoded(tokenizer, [text[::-1] for text in texts])["input_ids"]
        labels[labels == tokenizer.pad_token_id] = -100
        model(**encoded(tokenizer, texts), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        advance()


def exact_accuracy(loaded: Reversal, texts: Sequence[str]) -> float:
    """Share of strings whose greedy answer is exactly the reversed string, in [0, 1].

    Raises
    ------
    InputError
        If there are no strings.
    """
    if not texts:
        raise InputError("there are no strings to measure on")
    model, tokenizer = loaded
    answers = greedy(model, tokenizer, tokenizer, texts)
    right = sum(answer == text[::-1] for answer, text in zip(answers, texts, strict=True))
    return right / len(texts)


def save_reversal(loaded: Reversal, folder: str | Path) -> None:
    """Write model (as float16) and tokenizer; the model given is not changed."""
    model, tokenizer = loaded
    copy.deepcopy(model).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_reversal(folder: str | Path = CHECKPOINT) -> Reversal:
    """Load a trained model; by default the one beside this file.

    Returns
    -------
    model : BartForConditionalGeneration
        In float32 and evaluation mode.
    tokenizer : PreTrainedTokenizerFast

    Raises
    ------
    InputError
        If the folder holds no model.
    """
    if not (Path(folder) / "model.safetensors").is_file():
        raise InputError(f"{folder} holds no model: train one with reversal.py --out {folder}")
    model = BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), PreTrainedTokenizerFast.from_pretrained(folder)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python reversal.py --out /tmp/reversal",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"batches (default {STEPS})")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data (default 0)")
    parser.add_argument(
        "--test", type=int, default=5000, help="held-out strings to measure on (default 5000)"
    )
    chosen = parser.parse_args()
    if chosen.steps < 1 or chosen.test < 1:
        parser.error("--steps and --test must be at least 1")
    return chosen


def main() -> None:
    """Train, measure, save."""
    chosen = arguments()
    begun = time.perf_counter()
    loaded = train_reversal(chosen.steps, chosen.seed, progress=True)
    seconds = time.perf_counter() - begun
    save_reversal(loaded, chosen.out)
    run = {
        "held_out_exact": exact_accuracy(load_reversal(chosen.out), held_out_strings(chosen.test)),
        "held_out_strings": chosen.test,
        "steps": chosen.steps,
        "seed": chosen.seed,
        "train_seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }
    (chosen.out / "run.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(run, indent=1))


if __name__ == "__main__":
    main()
