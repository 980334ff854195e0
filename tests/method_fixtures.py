"""Models for the tests of methods: decoders and language models beside the encoders."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from model_fixtures import tiny_model

from flowopt import methods
from flowopt.attribution import Attribution

TEXT = "The film is not very good, but the actor was great!"
SHORT = "not a great film"
_SHAPE = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}


def _seeded(made: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return made(config).eval()


def tiny_gpt2(classes: int = 2, language: bool = False, **changes: Any) -> Any:
    """GPT-2 of 3 layers: a classifier, or a language model."""
    shape = {"n_embd": 24, "n_layer": 3, "n_head": 3, "n_positions": 48, "initializer_range": 0.3}
    config = transformers.GPT2Config(**{**_SHAPE, **shape, "num_labels": classes, **changes})
    made = transformers.GPT2LMHeadModel if language else transformers.GPT2ForSequenceClassification
    return _seeded(made, config)


def tiny_llama(classes: int = 3) -> Any:
    """Llama of 3 layers with grouped queries, as a classifier."""
    config = transformers.LlamaConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=48,
        num_labels=classes,
        initializer_range=0.3,
        **_SHAPE,
    )
    return _seeded(transformers.LlamaForSequenceClassification, config)


def tiny_t5() -> Any:
    """T5 of 2 + 2 layers."""
    shape = {"d_model": 24, "d_kv": 8, "num_layers": 2, "num_heads": 3, "d_ff": 32}
    start = {"decoder_start_token_id": 0, "initializer_factor": 1.0}
    config = transformers.T5Config(**{**_SHAPE, **shape, **start})
    return _seeded(transformers.T5ForConditionalGeneration, config)


MODELS = {
    "encoder": lambda: tiny_model("bert"),
    "three classes": lambda: tiny_model("bert", labels=("bad", "fair", "good")),
    "one logit": lambda: tiny_model("roberta", labels=("score",)),
    "decoder": tiny_gpt2,
    "decoder with grouped queries": tiny_llama,
}

QUICK: dict[str, dict[str, Any]] = {
    "conductance-flow": {"steps": 4},
    "agf-path-barrier": {"steps": 4},
    "gradient-shap": {"samples": 8},
    "integrated-gradients": {"steps": 8},
    "kernel-shap": {"samples": 60},
    "lime": {"samples": 60},
    "shapley-sampling": {"samples": 3},
} | {
    f"slalom-{kind}": {"samples": 150} for kind in ("value", "importance", "linearised", "removal")
}
"""Options that make methods quick."""


def run(model: Any, tokenizer: Any, name: str, text: str = TEXT, **more: Any) -> Attribution:
    """Explain a text by a method, quickly."""
    return methods.explain(model, tokenizer, text, name, **{**QUICK.get(name, {}), **more})
