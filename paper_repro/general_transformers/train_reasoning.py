"""A small encoder-decoder that satisfies propositional formulas: train it, measure it, load it.

    python paper_repro/general_transformers/train_reasoning.py --out FOLDER

It reads a formula in prefix notation, ``&a!b``, and writes an assignment that makes it true
whatever the variables are that it leaves out, ``a1b0``. See `formulas` for the language.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
import transformers
from formulas import LONGEST, SYMBOLS, VARIABLES, random_formulas, satisfies
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "real_models"))

from letters import BEGIN, END, encoded, greedy, letter_tokenizer  # noqa: E402
from reversal import is_held_out  # noqa: E402

from flowopt.errors import InputError  # noqa: E402
from flowopt.progress import progress_bar  # noqa: E402

CHECKPOINT = HERE / "reasoning_checkpoint"
PAD, UNKNOWN = "<pad>", "<unk>"
STEPS, BATCH = 6000, 128
LEARNING_RATE, WARM_UP, CLIP = 1.5e-3, 0.05, 1.0

Reasoner = tuple[BartForConditionalGeneration, PreTrainedTokenizerFast]


def reasoning_tokenizer() -> PreTrainedTokenizerFast:
    """One token per symbol, </s> at the end; the same for formula and answer."""
    vocabulary = [PAD, BEGIN, END, UNKNOWN, *SYMBOLS, "0", "1"]
    return letter_tokenizer(vocabulary, PAD, UNKNOWN, append_end=True, max_length=LONGEST + 1)


def new_model(tokenizer: PreTrainedTokenizerFast) -> BartForConditionalGeneration:
    """Untrained BART of 3 + 3 layers, from torch's current seed."""
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=96,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        max_position_embeddings=LONGEST + 2,
        dropout=0.0,
        init_std=0.06,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config)


def held_out_formulas(count: int, seed: int) -> list[str]:
    """Formulas that training never sees, none of them twice.

    Raises
    ------
    InputError
        If the count is negative.
    """
    if count < 0:
        raise InputError(f"count is {count}: ask for 0 or more formulas")
    found: dict[str, None] = {}
    formulas = random_formulas(is_held_out, seed)
    while len(found) < count:
        found[next(formulas)[0]] = None
    return list(found)


def train_reasoning(
    steps: int = STEPS, seed: int = 0, progress: bool = False, batch_size: int = BATCH
) -> Reasoner:
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
        Formulas in one batch.

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
    tokenizer = reasoning_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(tokenizer).train()
    pairs = random_formulas(lambda formula: not is_held_out(formula), seed)
    bar = progress_bar(steps, progress, unit="batch", label="training")
    with torch.enable_grad(), bar as advance:
        _descend(model, tokenizer, pairs, steps, batch_size, advance)
    return model.half().float().eval(), tokenizer


def _descend(
    model: BartForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Iterator[tuple[str, str]],
    steps: int,
    batch_size: int,
    advance: Callable[[], object],
) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = transformers.get_cosine_schedule_with_warmup(optimiser, int(WARM_UP * steps), steps)
    for _ in range(steps):
        formulas, answers = zip(*islice(pairs, batch_size), strict=True)
        labels = encoded(tokenizer, answers)["input_ids"]
        labels[labels == tokenizer.pad_token_id] = -100
        model(**encoded(tokenizer, formulas), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        advance()


def accuracy(loaded: Reasoner, formulas: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Formulas whose greedy answer satisfies them, and all, by number of symbols.

    Raises
    ------
    InputError
        If there are no formulas.
    """
    if not formulas:
        raise InputError("there are no formulas to measure on")
    model, tokenizer = loaded
    counts: dict[int, tuple[int, int]] = {}
    answers = greedy(model, tokenizer, tokenizer, formulas)
    for formula, answer in zip(formulas, answers, strict=True):
        right, all_ = counts.get(len(formula), (0, 0))
        counts[len(formula)] = (right + satisfies(answer, formula), all_ + 1)
    return dict(sorted(counts.items()))


def save_reasoner(loaded: Reasoner, folder: str | Path) -> None:
    """Write model (as float16) and tokenizer; the model given is not changed."""
    model, tokenizer = loaded
    copy.deepcopy(model).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_reasoner(folder: str | Path = CHECKPOINT) -> Reasoner:
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
        raise InputError(f"{folder} has no model: make one with train_reasoning.py --out {folder}")
    model = BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), PreTrainedTokenizerFast.from_pretrained(folder)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"batches (default {STEPS})")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data (default 0)")
    parser.add_argument(
        "--test", type=int, default=5000, help="held-out formulas to measure on (default 5000)"
    )
    chosen = parser.parse_args()
    if chosen.steps < 1 or chosen.test < 1:
        parser.error("--steps and --test must be at least 1")
    return chosen


def main() -> None:
    """Train, measure, save."""
    chosen = arguments()
    begun = time.perf_counter()
    loaded = train_reasoning(chosen.steps, chosen.seed, progress=True)
    seconds = time.perf_counter() - begun
    save_reasoner(loaded, chosen.out)
    counts = accuracy(load_reasoner(chosen.out), held_out_formulas(chosen.test, seed=1))
    right, all_ = (sum(column) for column in zip(*counts.values(), strict=True))
    run = {
        "held_out_satisfied": right / all_,
        "held_out_formulas": all_,
        "satisfied_by_symbols": {size: f"{a} of {b}" for size, (a, b) in counts.items()},
        "variables": len(VARIABLES),
        "steps": chosen.steps,
        "batch": BATCH,
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
