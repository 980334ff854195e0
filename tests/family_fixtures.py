"""Tiny random models of every family, from configs: what a test needs to know of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

LETTERS, PAD, START, END, MASK = 20, 0, 1, 2, 3
"""Size of the vocabulary, and its first few tokens; the others are letters."""

_TEXT = {
    "vocab_size": LETTERS,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 10,
    "max_position_embeddings": 24,
    "initializer_range": 0.4,
    "pad_token_id": PAD,
    "bos_token_id": START,
    "eos_token_id": END,
    "mask_token_id": MASK,
}
_LLAMA = {**_TEXT, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
_GEMMA = {**_LLAMA, "num_hidden_layers": 3, "sliding_window": 3, "query_pre_attn_scalar": 4}
_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
_BART = {
    "vocab_size": LETTERS,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 10,
    "decoder_ffn_dim": 10,
    "max_position_embeddings": 24,
    "init_std": 0.4,
    "pad_token_id": PAD,
    "bos_token_id": START,
    "eos_token_id": END,
    "decoder_start_token_id": START,
    "forced_eos_token_id": None,
}
_T5 = {
    "vocab_size": LETTERS,
    "d_model": 12,
    "d_kv": 5,
    "d_ff": 10,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 6,
    "relative_attention_max_distance": 8,
    "initializer_factor": 0.5,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "decoder_start_token_id": START,
}
_VISION = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 10,
    "image_size": [12, 8],
    "patch_size": 4,
    "num_channels": 3,
    "initializer_range": 0.4,
}
_MODERN = {
    **_TEXT,
    "num_hidden_layers": 3,
    "global_attn_every_n_layers": 3,
    "local_attention": 4,
    "cls_token_id": START,
    "sep_token_id": END,
}
_DEBERTA = {
    **_TEXT,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": 8,
    "pooler_hidden_size": 12,
}


@dataclass(frozen=True)
class Case:
    """One architecture: its config, and the heads it is tested with.

    Parameters
    ----------
    model_type : str
    shape : dict
        Arguments of the config.
    heads : tuple of str
        Endings of transformers' Auto classes, or names of classes.
    kind : str
        "encoder", "decoder", "encoder-decoder" or "vision".
    windows : tuple of (int or None)
        By layer how far a position sees back, itself included; empty: as far as there is.
    """

    model_type: str
    shape: dict[str, Any]
    heads: tuple[str, ...]
    kind: str = "encoder"
    windows: tuple[int | None, ...] = ()

    def model(self, head: str, **changes: Any) -> Any:
        """A random model in double precision, in evaluation mode."""
        labels = {"num_labels": 3} if "Classification" in head else {}
        config = transformers.AutoConfig.for_model(
            self.model_type, **{**self.shape, **labels, **changes}
        )
        exact = getattr(transformers, head, None)
        make = (
            exact._from_config
            if exact
            else getattr(transformers, f"AutoModelFor{head}").from_config
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = make(config).double().eval()
            for name, parameter in model.named_parameters():
                if "bias" in name:  # all zero after initialisation, which would hide mistakes
                    torch.nn.init.normal_(parameter, std=0.2)
        return model

    def inputs(self, head: str, letters: Sequence[int] = (5, 9, 7, 6, 8)) -> dict[str, Any]:
        """Inputs of one example."""
        if self.kind == "vision":
            generator = torch.Generator().manual_seed(sum(letters))
            return {
                "pixel_values": torch.randn(1, 3, 12, 8, dtype=torch.double, generator=generator)
            }
        ids = [START, *letters, END]
        if head == "MaskedLM":
            ids[2] = MASK
        inputs = {"input_ids": torch.tensor([ids])}
        if head == "Seq2SeqLM":
            inputs["decoder_input_ids"] = torch.tensor([[START, *letters[1:]]])
        return inputs


CLASSIFIER, CAUSAL = "SequenceClassification", "CausalLM"
_ENCODER = (CLASSIFIER, "MaskedLM")
_DECODER = (CAUSAL, CLASSIFIER)


def _decoder(model_type: str, shape: dict[str, Any], **more: Any) -> Case:
    return Case(model_type, shape, _DECODER, "decoder", **more)


def _seq2seq(model_type: str, shape: dict[str, Any], *heads: str) -> Case:
    return Case(model_type, shape, ("Seq2SeqLM", *heads), "encoder-decoder")


CASES: dict[str, Case] = {
    "bert": Case("bert", _TEXT, _ENCODER),
    "roberta": Case("roberta", _TEXT, _ENCODER),
    "xlm-roberta": Case("xlm-roberta", _TEXT, _ENCODER),
    "camembert": Case("camembert", _TEXT, _ENCODER),
    "distilbert": Case(
        "distilbert",
        {**_TEXT, "dim": 12, "n_layers": 2, "n_heads": 2, "hidden_dim": 10},
        _ENCODER,
    ),
    "albert": Case("albert", {**_TEXT, "embedding_size": 8}, _ENCODER),
    "electra": Case("electra", {**_TEXT, "embedding_size": 8}, _ENCODER),
    "deberta-v2": Case("deberta-v2", _DEBERTA, _ENCODER),
    "deberta-v3": Case(
        "deberta-v2",
        {
            **_DEBERTA,
            "position_buckets": 4,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
        _ENCODER,
    ),
    "modernbert": Case(
        "modernbert",
        {**_MODERN, "classifier_pooling": "cls"},
        _ENCODER,
    ),
    "modernbert-mean": Case(
        "modernbert",
        {**_MODERN, "classifier_pooling": "mean"},
        (CLASSIFIER,),
    ),
    "gpt2": _decoder("gpt2", {**_TEXT, "n_positions": 24}),
    "gpt_neox": _decoder("gpt_neox", _TEXT),
    "llama": _decoder("llama", _LLAMA),
    "mistral": _decoder("mistral", {**_LLAMA, "sliding_window": 3}, windows=(3, 3)),
    "qwen2": _decoder("qwen2", _LLAMA),
    "qwen3": _decoder("qwen3", _LLAMA),
    "gemma2": _decoder("gemma2", {**_GEMMA, "attn_logit_softcapping": 2.0}, windows=(3, None, 3)),
    "gemma3_text": _decoder("gemma3_text", {**_GEMMA, "layer_types": _TYPES}, windows=(3, None, 3)),
    "phi": _decoder("phi", {**_TEXT, "hidden_size": 16}),
    "t5": _seq2seq("t5", _T5, CLASSIFIER),
    "bart": _seq2seq("bart", _BART, CLASSIFIER),
    "mbart": _seq2seq("mbart", _BART, CLASSIFIER),
    "marian": _seq2seq("marian", _BART),
    "pegasus": _seq2seq("pegasus", _BART),
    "vit": Case("vit", _VISION, ("ImageClassification",), "vision"),
    "deit": Case(
        "deit",
        _VISION,
        ("DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"),
        "vision",
    ),
}

PAIRS = [(name, head) for name, case in CASES.items() for head in case.heads]
