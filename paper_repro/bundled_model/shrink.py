"""Shrink a trained checkpoint into the bundled folder: smaller vocabulary, 8-bit weights.

Kept pieces: special tokens, all single characters, all pieces of the training text; then, up to
the budget, other English pieces, those most frequent in film reviews first, and after them in the
order of the original vocabulary. A removed word splits into smaller kept pieces.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from data import (
    DEFAULT_DATA,
    REPOSITORY,
    Example,
    check_checkpoint,
    film_reviews,
    training_examples,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

sys.path.insert(0, str(REPOSITORY))

from flowopt.assets import BUNDLED_FOLDER, quantise_int8

VOCABULARY = 21_200
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
EMBEDDINGS = "bert.embeddings.word_embeddings.weight"


def bare(piece: str) -> str:
    """A piece without its continuation mark."""
    return piece.removeprefix("##")


def splits(tokenizer: Tokenizer, examples: list[Example]) -> list[list[str]]:
    """Pieces of every text."""
    encodings = tokenizer.encode_batch([example.text for example in examples])
    return [encoding.tokens for encoding in encodings]


def needed_for_splitting(vocab: dict[str, int]) -> set[str]:
    """Single characters, and pieces with a character that has no continuation form of its own.

    With these kept, a word that the whole vocabulary can split never becomes [UNK].
    """
    singles = {piece for piece in vocab if len(bare(piece)) == 1}
    unsplittable = {
        piece
        for piece in vocab
        if piece not in SPECIAL
        and not piece.startswith("[unused")
        and any("##" + character not in vocab for character in bare(piece)[1:])
    }
    return singles | unsplittable


def kept_pieces(
    vocab: dict[str, int], used: set[str], frequency: Counter[str], budget: int
) -> list[str]:
    """Pieces of the smaller vocabulary, in the order of the original ids."""
    needed = set(SPECIAL) | used | needed_for_splitting(vocab)
    if len(needed) > budget:
        raise SystemExit(f"{len(needed)} pieces are needed: raise --vocabulary above {budget}")
    english = {piece for piece in vocab if bare(piece).isascii() and bare(piece).isalnum()}
    by_use = sorted(english - needed, key=lambda piece: (-frequency[piece], vocab[piece]))
    return sorted(needed.union(by_use[: budget - len(needed)]), key=vocab.__getitem__)


def pruned_tokenizer(tokenizer: Tokenizer, kept: list[str]) -> dict[str, Any]:
    """The tokenizer's JSON with the kept pieces renumbered from 0."""
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    new_id = {piece: index for index, piece in enumerate(kept)}
    state["model"]["vocab"] = new_id
    for added in state["added_tokens"]:
        added["id"] = new_id[added["content"]]
    for name, special in state["post_processor"]["special_tokens"].items():
        special["ids"] = [new_id[name]]
    return state


def smaller_vocabulary(tokenizer: Tokenizer, data: Path, budget: int) -> list[str]:
    """Choose the kept pieces from the training text and the film reviews."""
    used = set(chain.from_iterable(splits(tokenizer, training_examples(data))))
    frequency = Counter(chain.from_iterable(splits(tokenizer, film_reviews(data, "train"))))
    return kept_pieces(tokenizer.get_vocab(), used, frequency, budget)


def check_same_splits(tokenizer: Tokenizer, smaller: Tokenizer, data: Path) -> None:
    """Stop unless both tokenizers split every training text into the same pieces."""
    examples = training_examples(data)
    if splits(tokenizer, examples) != splits(smaller, examples):
        raise SystemExit("the smaller vocabulary splits training text differently")


TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 512,
    "do_lower_case": True,
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
}


def write_json(path: Path, content: object, indent: int | None = 2) -> None:
    """Write UTF-8 JSON, compact without an indent."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(content, ensure_ascii=False, indent=indent, separators=separators)
    path.write_text(text + "\n", encoding="utf-8")


def shrink(checkpoint: Path, data: Path, out: Path, budget: int) -> None:
    """Write config, tokenizer, 8-bit weights and the training run's facts to `out`."""
    check_checkpoint(checkpoint)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    vocab = tokenizer.get_vocab()
    kept = smaller_vocabulary(tokenizer, data, budget)
    smaller = pruned_tokenizer(tokenizer, kept)
    check_same_splits(tokenizer, Tokenizer.from_str(json.dumps(smaller)), data)
    model = BertForSequenceClassification.from_pretrained(checkpoint)
    weights = model.state_dict()
    weights[EMBEDDINGS] = weights[EMBEDDINGS][torch.tensor([vocab[piece] for piece in kept])]
    out.mkdir(parents=True, exist_ok=True)
    save_file(quantise_int8(weights), out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    config = model.config.to_diff_dict() | {"vocab_size": len(kept), "pad_token_id": 0}
    write_json(out / "config.json", config)
    write_json(out / "tokenizer.json", smaller, indent=None)
    write_json(out / "tokenizer_config.json", TOKENIZER_CONFIG)
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    print(f"{len(kept)} of {len(vocab)} pieces, {size / 1e6:.2f} MB in {out}")


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python shrink.py --checkpoint checkpoints/epoch-3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder that train.py saved")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder with the SST-2 files (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=BUNDLED_FOLDER, help="folder to write (%(default)s)"
    )
    parser.add_argument(
        "--vocabulary", type=int, default=VOCABULARY, help="pieces to keep (%(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    shrink(given.checkpoint, given.data, given.out, given.vocabulary)
