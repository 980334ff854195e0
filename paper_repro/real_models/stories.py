"""stories260K, Karpathy's TinyStories model in llama2.c's format, as a transformers model.

Llama with grouped queries: 8 heads share 4 keys and values. 260 thousand parameters, 512 tokens.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from arrays import load_weights, read_arrays, read_file
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flowopt.errors import InputError

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"  # ids 0, 1, 2
ARRAYS = "stories260K.npz"


def load_stories(folder: str | Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load stories260K.

    Parameters
    ----------
    folder : path
        Holds stories260K.npz, config_vocab.json (its field `config`) and tok512.bin.

    Returns
    -------
    model : LlamaForCausalLM
        In float32 and evaluation mode; generation is greedy and ends at <s>, as llama2.c's does.
    tokenizer : PreTrainedTokenizerFast
        Gives the ids of llama2.c's own algorithm, with <s> in front.

    Raises
    ------
    InputError
        If a file is missing or holds something else.
    """
    path = read_file(folder, ARRAYS)
    shape = _shape(read_file(folder, "config_vocab.json"))
    tokenizer = story_tokenizer(read_file(folder, "tok512.bin"), shape["seq_len"])
    if len(tokenizer) != shape["vocab_size"]:
        raise InputError(
            f"tok512.bin has {len(tokenizer)} tokens where the model has {shape['vocab_size']}"
        )
    model = LlamaForCausalLM(_config(shape)).eval()
    weights = llama_weights(read_arrays(path), shape["n_heads"], shape["n_kv_heads"])
    load_weights(model, weights, path)
    model.generation_config.update(do_sample=False, eos_token_id=[1, 2], pad_token_id=0)
    return model, tokenizer


def _shape(path: Path) -> dict[str, int]:
    """Sizes of the model by llama2.c's names."""
    names = ["vocab_size", "dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "seq_len"]
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        return {name: int(config[name]) for name in names}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} lacks the model's sizes {names}: {error!r}") from error


def _config(shape: dict[str, int]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["dim"],
        intermediate_size=shape["hidden_dim"],
        num_hidden_layers=shape["n_layers"],
        num_attention_heads=shape["n_heads"],
        num_key_value_heads=shape["n_kv_heads"],
        max_position_embeddings=shape["seq_len"],
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def llama_weights(
    arrays: dict[str, torch.Tensor], heads: int, key_heads: int
) -> dict[str, torch.Tensor]:
    """State dict of LlamaForCausalLM from llama2.c's arrays.

    Raises
    ------
    InputError
        If an array is missing.
    """
    names = {
        "self_attn.q_proj": "wq",
        "self_attn.k_proj": "wk",
        "self_attn.v_proj": "wv",
        "self_attn.o_proj": "wo",
        "mlp.gate_proj": "w1",
        "mlp.down_proj": "w2",
        "mlp.up_proj": "w3",
        "input_layernorm": "att_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    missing = {"tok_emb", "final_norm", *names.values()} - set(arrays)
    if missing:
        raise InputError(f"{ARRAYS} lacks the arrays {sorted(missing)}")
    rotated = {"wq": heads, "wk": key_heads}
    weights = {
        "model.embed_tokens.weight": arrays["tok_emb"],
        "lm_head.weight": arrays["tok_emb"],
        "model.norm.weight": arrays["final_norm"],
    }
    for ours, theirs in names.items():
        for layer, matrix in enumerate(arrays[theirs]):
            moved = halves_from_pairs(matrix, rotated[theirs]) if theirs in rotated else matrix
            weights[f"model.layers.{layer}.{ours}.weight"] = moved
    return weights


def halves_from_pairs(matrix: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the rows of a query or key matrix from llama2.c's rotary layout to transformers'.

    llama2.c rotates the neighbours (2i, 2i + 1) of a head together, transformers i and i + d/2.

    Parameters
    ----------
    matrix : (heads * d, width) tensor
    heads : int
        Heads in this matrix.

    Returns
    -------
    (heads * d, width) tensor
    """
    rows, width = matrix.shape
    pairs = matrix.reshape(heads, rows // heads // 2, 2, width)
    return pairs.transpose(1, 2).reshape(rows, width)


def read_vocabulary(path: Path) -> list[tuple[str, float]]:
    """Tokens and scores of a llama2.c tokenizer file, by id.

    The file: the length of the longest token (int32), then per token its score (float32), its
    length in bytes (int32) and its bytes.

    Raises
    ------
    InputError
        If the file ends within a token.
    """
    data = path.read_bytes()
    vocabulary, offset = [], 4
    try:
        while offset < len(data):
            score, length = struct.unpack_from("<fi", data, offset)
            (piece,) = struct.unpack_from(f"<{length}s", data, offset + 8)
            vocabulary.append((piece.decode("utf-8"), score))
            offset += 8 + length
    except (struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a llama2.c tokenizer file: {error}") from error
    return vocabulary


def story_tokenizer(path: Path, max_length: int = 512) -> PreTrainedTokenizerFast:
    """Tokenizer of a llama2.c tokenizer file.

    Byte-pair encoding of the whole text behind one added space; of all neighbours whose union is a
    token, those of the highest score are joined first. Letters outside the vocabulary become one
    token per UTF-8 byte.

    Parameters
    ----------
    path : Path
        For example tok512.bin.
    max_length : int
        Longest input of the model, in tokens.
    """
    pieces = read_vocabulary(path)
    names = [UNKNOWN, BEGIN, END, *(piece for piece, _ in pieces[3:])]
    merges = list(_merges(dict(pieces[3:])))
    backend = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=merges,
            unk_token=UNKNOWN,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Prepend(" ")
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=UNKNOWN,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def _merges(scores: dict[str, float]) -> Iterator[tuple[str, str]]:
    """All pairs of tokens whose union is a token, highest score of the union first."""
    for union in sorted(scores, key=lambda piece: -scores[piece]):
        for cut in range(1, len(union)):
            if union[:cut] in scores and union[cut:] in scores:
                yield union[:cut], union[cut:]
