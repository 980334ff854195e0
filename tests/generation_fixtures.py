"""Tiny language models with a tokenizer of whole words, and a tiny image processor."""

from __future__ import annotations

from typing import Any

import transformers
from family_fixtures import CASES, END, PAD, START
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

WORDS = [
    "once",
    "upon",
    "a",
    "time",
    "there",
    "was",
    "dog",
    "cat",
    "ran",
    "sat",
    "on",
    "mat",
    "the",
    "end",
]
SPECIAL = ["<pad>", "<s>", "</s>", "<mask>", "<unk>"]
VOCABULARY = [*SPECIAL, *("\u2581" + word for word in WORDS), "!"]
DECODERS = ("gpt2", "llama", "gemma2")
TRANSLATORS = ("t5", "bart", "mbart")


def word_tokenizer(begin: bool = True, vocabulary: list[str] = VOCABULARY) -> Any:
    """One token per word, written with its blank; <s> first, or </s> last."""
    ids = {token: i for i, token in enumerate(vocabulary)}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split("!", "isolated")]
    )
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A" if begin else "$A </s>", special_tokens=[("<s>", START), ("</s>", END)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


def decoder(name: str = "llama", **changes: Any) -> tuple[Any, Any]:
    """A random decoder of 20 words and its tokenizer; it never ends a sequence by itself."""
    return _endless(CASES[name].model("CausalLM", **changes)), word_tokenizer()


def translator(name: str = "bart", **changes: Any) -> tuple[Any, Any]:
    """A random encoder-decoder of 20 words and its tokenizer; it never ends by itself."""
    model = CASES[name].model("Seq2SeqLM", **changes)
    return _endless(model), word_tokenizer(begin=False)


def language_model(name: str, **changes: Any) -> tuple[Any, Any]:
    """A decoder or an encoder-decoder, by its family."""
    return (decoder if name in DECODERS else translator)(name, **changes)


def _endless(model: Any) -> Any:
    assert model.config.vocab_size == len(VOCABULARY)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    return model


def image_model(name: str = "vit", **changes: Any) -> Any:
    """A random image classifier over 3 x 2 patches of 4 x 4 pixels."""
    return CASES[name].model(CASES[name].heads[0], **changes)


def image_processor() -> Any:
    """Resizes to 12 x 8 pixels, and standardises."""
    return transformers.ViTImageProcessorPil(
        size={"height": 12, "width": 8},
        image_mean=[0.5, 0.4, 0.3],
        image_std=[0.2, 0.3, 0.4],
    )
