"""Tiny models and tokenizers, made from configs: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_LIST = (
    "a the film movie is was not very good bad great dull funny warm story actor plot and but "
    "it this that love hate slow fast ending never always , . ! ? ' - s ##s ##ing ##ed ##ly un "
    "##believ ##able grip watch begin"
)
WORDS = _LIST.split()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LABELS = ("negative", "positive")
SMALL = {"attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1}


def wordpiece_tokenizer(max_length: int = 40) -> transformers.PreTrainedTokenizerFast:
    """WordPiece over a few dozen words, lower case, [CLS] text [SEP]."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _config(model_type: str, labels: tuple[str, ...]) -> Any:
    shape = {
        "vocab_size": len(WORDS) + len(SPECIAL),
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 32,
        "max_position_embeddings": 48,
        "initializer_range": 0.3,
        **SMALL,
    }
    if model_type == "distilbert":
        shape = {
            "vocab_size": shape["vocab_size"],
            "dim": 24,
            "n_layers": 3,
            "n_heads": 3,
            "hidden_dim": 32,
            "max_position_embeddings": 48,
            "initializer_range": 0.3,
        }
    if model_type == "deberta-v2":
        shape |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    if model_type in ("electra", "albert"):
        shape["embedding_size"] = 16
    names = dict(enumerate(labels))
    return transformers.AutoConfig.for_model(
        model_type,
        id2label=names,
        label2id={v: k for k, v in names.items()},
        pad_token_id=0,
        **shape,
    )


def tiny_model(
    model_type: str = "bert", labels: tuple[str, ...] = LABELS, seed: int = 0, **changes: Any
) -> transformers.PreTrainedModel:
    """A random classifier: 3 layers, 3 heads, width 24, at most 48 positions."""
    config = _config(model_type, labels)
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.AutoModelForSequenceClassification.from_config(config).eval()
