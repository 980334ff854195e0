"""What can be done with each family of models: from the table of families, and their code."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowopt.errors import InputError
from flowopt.trace.families import Family, known_families

__all__ = ["Features", "features", "features_of", "markdown_table"]

_HEADS = {
    "SequenceClassification": ("encoder", "decoder", "encoder-decoder"),
    "ImageClassification": ("encoder",),
    "MaskedLM": ("encoder",),
    "CausalLM": ("decoder",),
    "Seq2SeqLM": ("encoder-decoder",),
}
"""Endings of transformers' Auto classes whose predictions are explained, and for which kinds."""

_REGISTRIES = {
    "SequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "ImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MaskedLM": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "CausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "Seq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}


@dataclass(frozen=True)
class Features:
    """What can be done with the models of one type.

    Parameters
    ----------
    model_type : str
        The value of ``model.config.model_type``.
    kind : str
        "encoder", "decoder", "encoder-decoder", or "vision encoder".
    reads : str
        The top positions that a classification head reads.
    heads : tuple of str
        Endings of the Auto classes whose predictions can be explained.
    gradients : bool
        Tensors of attention and gradients.
    values : bool
        Tensors that weigh values with the layer's output matrix.
    conductance : bool
        Edge conductance.
    by_layer : bool
        Whether heads are reduced layer by layer, so that they are never all held.
    generation : bool
        Whether a generated continuation can be explained, token by token.
    """

    model_type: str
    kind: str
    reads: str
    heads: tuple[str, ...]
    gradients: bool
    values: bool
    conductance: bool
    by_layer: bool
    generation: bool


def features() -> list[Features]:
    """Features of every known family: encoders, decoders, encoder-decoders."""
    order = ("encoder", "vision encoder", "decoder", "encoder-decoder")
    found = [features_of(model_type) for model_type in known_families()]
    return sorted(found, key=lambda each: order.index(each.kind))


def features_of(model_type: str) -> Features:
    """Features of the models of one type.

    Raises
    ------
    InputError
        If the type is not in the table of families.
    """
    family = known_families().get(model_type)
    if family is None:
        raise InputError(f"models of type {model_type!r} are not in the table of families")
    calls = _calls_the_interface(model_type)
    return Features(
        model_type=model_type,
        kind=family.kind if family.patches is None else "vision encoder",
        reads=_reads(family),
        heads=_heads(model_type, family.kind),
        gradients=True,
        values=calls and family.projection is not None,
        conductance=calls,
        by_layer=calls,
        generation=family.kind != "encoder",
    )


_TITLES = {
    "model_type": "Families (`config.model_type`)",
    "kind": "Kind",
    "reads": "Classifier reads",
    "heads": "Heads (`AutoModelFor...`)",
    "gradients": "Attention x gradient",
    "values": "Value norms",
    "conductance": "Edge conductance",
    "by_layer": "Memory of one layer",
    "generation": "Generated text",
}


def markdown_table(rows: Sequence[Features] | None = None) -> str:
    """The features as a table in Markdown; families that share all of them share a line."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in features() if rows is None else rows:
        cells = tuple(_cell(getattr(row, name)) for name in list(_TITLES)[1:])
        alike.setdefault(cells, []).append(row.model_type)
    lines = [tuple(_TITLES.values()), ("---",) * len(_TITLES)]
    lines += [(", ".join(types), *cells) for cells, types in alike.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: str | bool | tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else ", ".join(value)


def _reads(family: Family) -> str:
    if family.readout is None:
        return "several positions"
    if family.readout == "pooling":
        return "position 0, or all (mean)"
    if family.readout == "last":
        return "last token" if family.kind == "decoder" else "end of text"
    return f"position {family.readout}"


def _heads(model_type: str, kind: str) -> tuple[str, ...]:
    from transformers.models.auto import modeling_auto

    return tuple(
        head
        for head, kinds in _HEADS.items()
        if kind in kinds and model_type in getattr(modeling_auto, _REGISTRIES[head])
    )


def _calls_the_interface(model_type: str) -> bool:
    """Whether its models call the attention function that their config names.

    Read off the source, because importing dozens of architectures takes long.
    """
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    name = model_type_to_module_name(model_type)
    try:
        spec = importlib.util.find_spec(f"transformers.models.{name}.modeling_{name}")
    except ModuleNotFoundError:  # a type that a user has registered
        return False
    if spec is None or spec.origin is None:
        return False
    return "def eager_attention_forward(" in Path(spec.origin).read_text(encoding="utf-8")
