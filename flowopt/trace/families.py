"""Facts about architectures, as data: what is the same code for several models stays one code."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowopt.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "KINDS",
    "Family",
    "family_of",
    "guess_family",
    "known_families",
    "max_tokens",
    "register_family",
]

KINDS = ("encoder", "decoder", "encoder-decoder")
"""All positions see all; each sees those before it; the second reads what the first has made."""


@dataclass(frozen=True)
class Family:
    """What flowopt must know of a family of models.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    readout : int, "last", "pooling" or None
        The position that a classification head reads; "last" is the last token, "pooling" what
        ``config.classifier_pooling`` says ("cls" or "mean"), None several positions.
    positions_after_padding : bool
        Position numbers start after ``pad_token_id`` (RoBERTa): that many fewer tokens fit.
    projection : str or None
        The linear layer behind the attention heads: its path from the attention module, "../"
        for the parent. Tensors that weigh values need it.
    patches : tuple of str or None
        Of a vision model: names of the tokens that stand before the patches.
    several : tuple of str
        Endings of the names of those classes whose head reads several positions after all.
    """

    kind: str = "encoder"
    readout: int | str | None = 0
    positions_after_padding: bool = False
    projection: str | None = None
    patches: tuple[str, ...] | None = None
    several: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}; not {self.kind!r}")


def _decoder(projection: str) -> Family:
    return Family("decoder", readout="last", projection=projection)


_BERT_LIKE = Family(projection="../output.dense")
_ROBERTA_LIKE = Family(positions_after_padding=True, projection="../output.dense")
_LLAMA_LIKE = _decoder("o_proj")
_BART_LIKE = Family("encoder-decoder", readout="last", projection="out_proj")

_FAMILIES: dict[str, Family] = {
    "bert": _BERT_LIKE,
    "electra": _BERT_LIKE,
    "distilbert": Family(projection="out_lin"),
    "albert": Family(projection="dense"),
    "roberta": _ROBERTA_LIKE,
    "xlm-roberta": _ROBERTA_LIKE,
    "camembert": _ROBERTA_LIKE,
    "deberta-v2": Family(),
    "modernbert": Family(readout="pooling", projection="Wo"),
    "gpt2": _decoder("c_proj"),
    "gpt_neox": _decoder("dense"),
    "phi": _decoder("dense"),
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "gemma2": _LLAMA_LIKE,
    "gemma3_text": _LLAMA_LIKE,
    "t5": Family("encoder-decoder", readout="last", projection="o"),
    "bart": _BART_LIKE,
    "mbart": _BART_LIKE,
    "marian": _BART_LIKE,
    "pegasus": _BART_LIKE,
    "vit": Family(projection="o_proj", patches=("[CLS]",)),
    "deit": Family(projection="o_proj", patches=("[CLS]", "[DIST]"), several=("WithTeacher",)),
}


def known_families() -> dict[str, Family]:
    """Return the model types (``model.config.model_type``) in the table, and their facts."""
    return dict(_FAMILIES)


def register_family(model_type: str, family: Family) -> None:
    """Declare how models of a type are to be read.

    Parameters
    ----------
    model_type : str
        The value of ``model.config.model_type``.
    family : Family
        Its facts, e.g. ``Family(readout=0)`` for an encoder whose head reads the first token.

    Raises
    ------
    InputError
        If `model_type` is registered with other facts, or `family` is no Family.
    """
    if not isinstance(family, Family):
        raise InputError(f"family must be a flowopt.trace.Family, not {type(family).__name__}")
    if _FAMILIES.get(model_type, family) != family:
        raise InputError(
            f"the model type {model_type!r} has other facts already: {_FAMILIES[model_type]}"
        )
    _FAMILIES[model_type] = family


def family_of(model: PreTrainedModel) -> Family:
    """Look up the facts of a model, or guess them where its type is not in the table.

    Raises
    ------
    InputError
        If it is not a transformers model.
    UnsupportedError
        If nothing can be guessed, or it is an encoder configured as a decoder.
    """
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str) or not callable(model):
        raise InputError(
            "model must be a transformers model with a config, for example from "
            f"AutoModelForSequenceClassification.from_pretrained(...); not {type(model).__name__}"
        )
    family = _FAMILIES.get(model_type) or guess_family(config, type(model).__name__)
    if getattr(config, "is_decoder", False) and family.kind == "encoder":
        raise UnsupportedError(
            f"this {model_type!r} model is configured as a decoder; load it with "
            "config.is_decoder=False to explain it as an encoder"
        )
    if family.several and type(model).__name__.endswith(family.several):
        return replace(family, readout=None)
    return family


def guess_family(config: Any, class_name: str) -> Family:
    """Facts of a model whose type is not in the table, from its config and its class's name.

    Such a model is read with all its top positions as sources, unless it emits tokens.

    Raises
    ------
    UnsupportedError
        If neither says what it is.
    """
    model_type = str(getattr(config, "model_type", None))
    if model_type in _FAMILIES:
        return _FAMILIES[model_type]
    if getattr(config, "is_encoder_decoder", False):
        return Family("encoder-decoder", readout=None)
    if class_name.endswith(("ForCausalLM", "LMHeadModel")):
        return Family("decoder", readout="last")
    if class_name.endswith(("ForMaskedLM", "ForImageClassification")):
        return Family("encoder", readout=None)
    close = difflib.get_close_matches(model_type, _FAMILIES, n=1)
    hint = f" (the closest known one is {close[0]!r})" if close else ""
    raise UnsupportedError(
        f"models of type {model_type!r} are not known{hint}, and {class_name} does not say whether "
        f"it is an encoder or a decoder. Known types: {', '.join(sorted(_FAMILIES))}. Declare it: "
        f"flowopt.trace.register_family({model_type!r}, "
        "flowopt.trace.Family(kind=..., readout=...))"
    )


def max_tokens(model: PreTrainedModel) -> int | None:
    """Return the longest input of a model in tokens; None if its config has no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    if family_of(model).positions_after_padding:
        limit -= (model.config.pad_token_id or 0) + 1
    return limit
