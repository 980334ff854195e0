"""Facts about architectures, as data: what is the same code for several models stays one code."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowopt.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Family",
    "family_of",
    "family_of_type",
    "known_families",
    "max_tokens",
    "register_family",
]


@dataclass(frozen=True)
class Family:
    """What flowopt must know of a family of models.

    Parameters
    ----------
    kind : str
        The adapter that reads it: "encoder-classifier".
    readout : int or None
        The position the classification head reads; None if it reads several.
    positions_after_padding : bool
        Position numbers start after ``pad_token_id`` (RoBERTa): that many fewer tokens fit.
    auto_class : str
        The transformers class to load it with.
    """

    kind: str = "encoder-classifier"
    readout: int | None = 0
    positions_after_padding: bool = False
    auto_class: str = "AutoModelForSequenceClassification"


_BERT_LIKE = Family()
_ROBERTA_LIKE = Family(positions_after_padding=True)

_FAMILIES: dict[str, Family] = {
    "bert": _BERT_LIKE,
    "distilbert": _BERT_LIKE,
    "electra": _BERT_LIKE,
    "albert": _BERT_LIKE,
    "roberta": _ROBERTA_LIKE,
    "xlm-roberta": _ROBERTA_LIKE,
    "camembert": _ROBERTA_LIKE,
}


def known_families() -> dict[str, Family]:
    """Return the supported model types (``model.config.model_type``) and their facts."""
    return dict(_FAMILIES)


def register_family(model_type: str, family: Family) -> None:
    """Declare that models of a type can be read like a known kind.

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
    """Look up the facts of a model.

    Raises
    ------
    InputError
        If it is not a transformers model.
    UnsupportedError
        If its type is not in the table, or it is configured as a decoder.
    """
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str) or not callable(model):
        raise InputError(
            "model must be a transformers model with a config, for example from "
            f"AutoModelForSequenceClassification.from_pretrained(...); not {type(model).__name__}"
        )
    family = family_of_type(model_type)
    if getattr(config, "is_decoder", False) and family.kind.startswith("encoder"):
        raise UnsupportedError(
            f"this {model_type!r} model is configured as a decoder; load it with "
            "config.is_decoder=False to explain it as an encoder"
        )
    return family


def family_of_type(model_type: str) -> Family:
    """Look up the facts of a model type.

    Raises
    ------
    UnsupportedError
        If it is not in the table.
    """
    if model_type not in _FAMILIES:
        close = difflib.get_close_matches(model_type, _FAMILIES, n=1)
        hint = f" (the closest known one is {close[0]!r})" if close else ""
        raise UnsupportedError(
            f"models of type {model_type!r} are not supported{hint}; supported: "
            f"{', '.join(sorted(_FAMILIES))}. If the model is built like one of them, declare it: "
            f"flowopt.trace.register_family({model_type!r}, flowopt.trace.Family(...))"
        )
    return _FAMILIES[model_type]


def max_tokens(model: PreTrainedModel) -> int | None:
    """Return the longest input of a model in tokens; None if its config has no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    if family_of(model).positions_after_padding:
        limit -= (model.config.pad_token_id or 0) + 1
    return limit
