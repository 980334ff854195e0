"""Tokenizers that read single letters, and greedy answers of letter-to-letter models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from flowopt.errors import InputError

BEGIN, END = "<s>", "</s>"


def letter_tokenizer(
    vocabulary: Sequence[str], pad: str, unknown: str, append_end: bool, max_length: int
) -> PreTrainedTokenizerFast:
    """One token per letter (code point); a letter outside the vocabulary is `unknown`.

    Parameters
    ----------
    vocabulary : sequence of str
        Single letters and the special tokens `pad`, `unknown`, <s> and </s>, by id.
    pad, unknown : str
        Names of the special tokens for filling up and for other letters.
    append_end : bool
        Whether a text ends with </s>.
    max_length : int
        Longest input of the model, in tokens.

    Raises
    ------
    InputError
        If a token occurs twice or a special token is missing.
    """
    ids = {token: i for i, token in enumerate(vocabulary)}
    if len(ids) < len(vocabulary):
        raise InputError("the vocabulary names a token twice")
    missing = {pad, unknown, BEGIN, END} - set(ids)
    if missing:
        raise InputError(f"the vocabulary lacks the special tokens {sorted(missing)}")
    backend = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    if append_end:
        backend.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", special_tokens=[(END, ids[END])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=unknown,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=pad,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def greedy(
    model: PreTrainedModel,
    source: PreTrainedTokenizerFast,
    target: PreTrainedTokenizerFast,
    texts: Sequence[str],
    batch_size: int = 256,
) -> list[str]:
    """Greedy answer of an encoder-decoder to each text.

    Parameters
    ----------
    model : PreTrainedModel
        Encoder-decoder in evaluation mode.
    source, target : PreTrainedTokenizerFast
        Tokenizers of its input and its output.
    texts : sequence of str
        None of them empty, nor longer than the model reads.
    batch_size : int
        Texts in one pass.

    Raises
    ------
    InputError
        For an empty text, one that is too long, or a single string in place of a list.
    """
    if isinstance(texts, str):
        raise InputError("texts must be a list of strings: write [text] for a single one")
    answers: list[str] = []
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        inputs = encoded(source, batch)
        with torch.no_grad():
            output = model.generate(
                **inputs, do_sample=False, num_beams=1, max_new_tokens=target.model_max_length - 1
            )
        answers += target.batch_decode(output, skip_special_tokens=True)
    return answers


def encoded(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Padded `input_ids` and `attention_mask`, both (texts, longest).

    Raises
    ------
    InputError
        For an empty text or one that is too long.
    """
    for text in texts:
        if not text:
            raise InputError("an empty text has no letters to read")
    batch = tokenizer(list(texts), padding=True, return_tensors="pt")
    longest = batch["input_ids"].shape[1]
    if longest > tokenizer.model_max_length:
        raise InputError(
            f"a text has {longest} tokens, the model reads {tokenizer.model_max_length}: shorten it"
        )
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
