"""aren_transliteration, Arabic to Latin letters (OpenNMT), as a transformers encoder-decoder.

6 + 6 layers of width 32 with 8 heads; layer normalisation first; sinusoidal positions; separate
vocabularies of 51 and 43 letters. Pegasus has this architecture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from arrays import load_weights, read_arrays, read_file
from letters import BEGIN, END, greedy, letter_tokenizer
from transformers import PegasusConfig, PegasusForConditionalGeneration, PreTrainedTokenizerFast

from flowopt.errors import InputError

BLANK, UNKNOWN = "<blank>", "<unk>"
HEADS = 8
MAX_LENGTH = 128
ARRAYS = "aren_transliteration.npz"
PARTS = {  # published name within a layer -> our modules, stacked in this order
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
KINDS = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}


class Transliteration(NamedTuple):
    """The model with the tokenizers of its two vocabularies.

    Attributes
    ----------
    model : PegasusForConditionalGeneration
        In float32 and evaluation mode. Its input embeddings are those of the source letters.
    source : PreTrainedTokenizerFast
        Arabic letters, nothing added at either end.
    target : PreTrainedTokenizerFast
        Latin letters, </s> at the end; the decoder starts with <s>.
    """

    model: PegasusForConditionalGeneration
    source: PreTrainedTokenizerFast
    target: PreTrainedTokenizerFast


def load_transliteration(folder: str | Path) -> Transliteration:
    """Load aren_transliteration.

    The model is for use in memory: a saved copy would lose that the vocabularies differ.

    Parameters
    ----------
    folder : path
        Holds aren_transliteration.npz, source_vocabulary.txt and target_vocabulary.txt.

    Returns
    -------
    Transliteration

    Raises
    ------
    InputError
        If a file is missing or holds something else.
    """
    source = _tokenizer(folder, "source_vocabulary.txt", append_end=False)
    target = _tokenizer(folder, "target_vocabulary.txt", append_end=True)
    path = read_file(folder, ARRAYS)
    arrays = read_arrays(path)
    model = PegasusForConditionalGeneration(_config(arrays, target)).eval()
    _separate_source_vocabulary(model, len(source))
    load_weights(model, pegasus_weights(arrays), path)
    return Transliteration(model, source, target)


def transliterate(loaded: Transliteration, words: Sequence[str]) -> list[str]:
    """Greedy transliteration of each word.

    Parameters
    ----------
    loaded : Transliteration
    words : sequence of str
        Arabic words; other letters and spaces are read as unknown letters.

    Raises
    ------
    InputError
        For an empty word, or one longer than `MAX_LENGTH` letters.
    """
    return greedy(loaded.model, loaded.source, loaded.target, words)


def _tokenizer(folder: str | Path, name: str, append_end: bool) -> PreTrainedTokenizerFast:
    """Tokenizer of a vocabulary file; the model's last row is the letter outside the file."""
    lines = read_file(folder, name).read_text(encoding="utf-8").split("\n")
    vocabulary = [*(line for line in lines if line), UNKNOWN]
    return letter_tokenizer(vocabulary, BLANK, UNKNOWN, append_end, MAX_LENGTH)


def _config(arrays: dict[str, torch.Tensor], target: PreTrainedTokenizerFast) -> PegasusConfig:
    needed = ("encoder/embeddings/weight", "encoder/layer_0/ffn/linear_0/bias")
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise InputError(f"{ARRAYS} lacks the arrays {missing}")
    width, hidden = arrays[needed[0]].shape[1], len(arrays[needed[1]])
    layers = {
        side: sum(name.startswith(side) and name.endswith("ffn/linear_0/bias") for name in arrays)
        for side in ("encoder", "decoder")
    }
    return PegasusConfig(
        vocab_size=len(target),
        d_model=width,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=hidden,
        decoder_ffn_dim=hidden,
        max_position_embeddings=MAX_LENGTH,
        activation_function="relu",
        scale_embedding=True,
        tie_word_embeddings=False,
        pad_token_id=target.convert_tokens_to_ids(BLANK),
        decoder_start_token_id=target.convert_tokens_to_ids(BEGIN),
        eos_token_id=target.convert_tokens_to_ids(END),
        forced_eos_token_id=None,
    )


def _separate_source_vocabulary(model: PegasusForConditionalGeneration, size: int) -> None:
    """Give the encoder its own embeddings; they are also the model's input embeddings."""
    width, pad = model.config.d_model, model.config.pad_token_id
    model.model.encoder.embed_tokens = torch.nn.Embedding(size, width, padding_idx=pad)
    model.model.shared = model.model.encoder.embed_tokens


def positions(length: int, width: int) -> torch.Tensor:
    """Sinusoidal positions (length, width): row i encodes i + 1, sines first, then cosines.

    The wavelengths are a geometric sequence from 2 pi to 20000 pi, both ends included.
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000) / (half - 1)))
    angles = torch.arange(1, length + 1, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def pegasus_weights(arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State dict of the Pegasus model with two vocabularies from the published arrays."""
    weights: dict[str, torch.Tensor] = {}
    for name, array in arrays.items():
        weights.update(_renamed(name, array))
    if "model.encoder.embed_tokens.weight" in weights:
        source = weights["model.encoder.embed_tokens.weight"]
        weights["model.shared.weight"] = source
        for side in ("encoder", "decoder"):
            table = positions(MAX_LENGTH, source.shape[1])
            weights[f"model.{side}.embed_positions.weight"] = table
    return weights


def _renamed(name: str, array: torch.Tensor) -> dict[str, torch.Tensor]:
    """The entries of our state dict that one published array holds."""
    side, _, rest = name.partition("/")
    inside, _, kind = rest.rpartition("/")
    if kind not in KINDS or side not in ("encoder", "decoder"):
        raise InputError(f"{ARRAYS} has an array of unknown meaning: {name}")
    if inside == "projection":
        return {"lm_head.weight": array} if kind == "weight" else {"final_logits_bias": array[None]}
    if inside in ("embeddings", "layer_norm"):
        module = "embed_tokens" if inside == "embeddings" else inside
        return {f"model.{side}.{module}.{KINDS[kind]}": array}
    layer, _, part = inside.partition("/")
    if not layer.startswith("layer_") or part not in PARTS:
        raise InputError(f"{ARRAYS} has an array of unknown meaning: {name}")
    modules = PARTS[part]
    prefix = f"model.{side}.layers.{layer.removeprefix('layer_')}"
    return {
        f"{prefix}.{module}.{KINDS[kind]}": piece
        for module, piece in zip(modules, array.chunk(len(modules)), strict=True)
    }
