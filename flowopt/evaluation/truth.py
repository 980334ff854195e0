"""Ground truth: a model built by hand, in which it is known which words decide.

Every word has a weight, by default 0. The model's first layer takes the attention-weighted mean
of the weights, its second passes the mean on, and the logit of the class grows with it and with
nothing else. So the words that support the class are those with a positive weight, whatever
attention looks at: with ``attends="decoys"`` it looks mostly at words of weight 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from flowopt.errors import InputError
from flowopt.evaluation.printed import Printed
from flowopt.evaluation.statistics import Interval, mean_interval
from flowopt.methods.answer import explain_subject
from flowopt.methods.registry import method_spec
from flowopt.methods.seeds import check_count, check_seed
from flowopt.methods.subject import subject_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flowopt.methods.registry import Method

    Array = NDArray[np.float64]

__all__ = ["PlantedText", "Recovery", "RecoveryRow", "planted_model", "planted_texts", "recovery"]

ATTENDS = ("uniform", "decoys", "planted")
FILLERS = (
    "the",
    "of",
    "a",
    "in",
    "and",
    "was",
    "it",
    "one",
    "then",
    "there",
    "some",
    "any",
    "each",
    "where",
    "while",
    "such",
)
SUPPORT = ("amber", "birch", "cedar", "delta", "ember")
OPPOSE = ("fjord", "glade", "heath", "inlet")
DECOYS = ("marble", "nickel", "onyx", "pearl")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WIDTH = 16
# pairs of opposite entries keep the mean 0, so that a layer norm only scales
_CONSTANT, _WEIGHT, _DECOY, _FIRST, _SECOND, _CODES = 0, 2, 4, 6, 8, (10, 12, 14)


@dataclass(frozen=True)
class PlantedText:
    """A text with the words that decide.

    Parameters
    ----------
    text : str
        One token per word.
    planted : tuple of int
        Which words support the class "planted".
    """

    text: str
    planted: tuple[int, ...]


@dataclass(frozen=True)
class RecoveryRow:
    """Of the k words that score highest, the share that was planted; k words were."""

    method: str
    precision: Interval


@dataclass(frozen=True)
class Recovery(Printed):
    """What `recovery` found; prints as a table.

    Parameters
    ----------
    rows : tuple of RecoveryRow
    chance : float
        Expected precision of a random order.
    """

    rows: tuple[RecoveryRow, ...]
    chance: float
    columns: ClassVar[tuple[str, ...]] = ("method", "precision", "")

    def __getitem__(self, method: str) -> Interval:
        return next(row.precision for row in self.rows if row.method == method)

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as text."""
        return [
            (
                row.method,
                f"{row.precision.mean:.2f} [{row.precision.low:.2f}, {row.precision.high:.2f}]",
                ""
                if row.precision.low > self.chance
                else f"no better than chance, {self.chance:.2f}",
            )
            for row in self.rows
        ]


def planted_model(
    attends: str = "uniform", weight: float = 1.0
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Build a BERT of two layers, width 16, whose deciding words are known.

    Parameters
    ----------
    attends : str
        What the first layer's attention prefers: nothing ("uniform"), words of weight 0
        ("decoys"), or the words that decide ("planted").
    weight : float
        Of supporting words; opposing ones have its negative. With 0 nothing decides, and no
        method can do better than chance.

    Raises
    ------
    InputError
        If `attends` is unknown or the weight is not within -1 and 1.
    """
    import torch
    import transformers

    if attends not in ATTENDS:
        raise InputError(f"attends must be one of {', '.join(ATTENDS)}; not {attends!r}")
    if not -1 <= weight <= 1:
        raise InputError(f"weight must be within -1 and 1, not {weight!r}")
    words = (*_SPECIAL, *FILLERS, *SUPPORT, *OPPOSE, *DECOYS)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=128,
        layer_norm_eps=1e-12,
        id2label={0: "other", 1: "planted"},
        label2id={"other": 0, "planted": 1},
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for name, part in model.named_parameters():
            part.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
        embeddings = torch.tensor(_embeddings(words, weight, attends), dtype=torch.float32)
        model.bert.embeddings.word_embeddings.weight.copy_(embeddings)
        first, second = model.bert.encoder.layer
        _pass_on(first, _WEIGHT, _FIRST, gain=4.0)
        _pass_on(second, _FIRST, _SECOND, gain=1.0)
        if attends != "uniform":
            first.attention.self.query.bias[0] = 2.0 * _WIDTH**0.5
            first.attention.self.key.weight[0, _DECOY] = 1.0
        model.bert.pooler.dense.weight[0, _SECOND] = 1.0
        model.classifier.weight[:, 0] = torch.tensor([-1.0, 1.0])
    return model, _tokenizer(words)


def _embeddings(words: Sequence[str], weight: float, attends: str) -> Array:
    """Rows of mean 0 and variance 1: layer norms leave them as they are."""
    draw = np.random.default_rng(0)
    preferred = {"decoys": DECOYS, "planted": SUPPORT}.get(attends, ())
    rows = np.zeros((len(words), _WIDTH))
    for row, word in zip(rows, words, strict=True):
        row[_WEIGHT] = weight * ((word in SUPPORT) - (word in OPPOSE))
        row[_DECOY] = float(word in preferred)
        row[list(_CODES)] = draw.uniform(-0.5, 0.5, len(_CODES))
        row[_CONSTANT] = np.sqrt(_WIDTH / 2 - (row**2).sum())
        row[1::2] = -row[::2]
    return rows


def _pass_on(layer: object, source: int, target: int, gain: float) -> None:
    """Let a layer's attention write the mean of one entry into another."""
    attention = layer.attention  # type: ignore[attr-defined]
    attention.self.value.weight[0, source] = 1.0
    attention.output.dense.weight[target, 0] = gain
    attention.output.dense.weight[target + 1, 0] = -gain


def _tokenizer(words: Sequence[str]) -> PreTrainedTokenizerBase:
    import tokenizers
    import transformers

    vocabulary = {word: place for place, word in enumerate(words)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    given = {f"{name}_token": f"[{name.upper()}]" for name in names}
    made: PreTrainedTokenizerBase = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"], **given
    )
    return made


def planted_texts(count: int = 30, seed: int = 0) -> list[PlantedText]:
    """Draw texts of 10 to 16 words: 3 that support, 1 that opposes, 2 decoys, fillers.

    Parameters
    ----------
    count, seed : int
    """
    check_count(count, "count")
    draw = np.random.default_rng(check_seed(seed))
    found = []
    for _ in range(count):
        parts = ((SUPPORT, 3), (OPPOSE, 1), (DECOYS, 2), (FILLERS, int(draw.integers(4, 11))))
        words = [str(word) for pool, size in parts for word in draw.choice(pool, size)]
        words = [words[i] for i in draw.permutation(len(words))]
        planted = tuple(i for i, word in enumerate(words) if word in SUPPORT)
        found.append(PlantedText(" ".join(words), planted))
    return found


def recovery(
    methods: Sequence[str | Method] | Mapping[str, str | Method],
    *,
    texts: int = 30,
    attends: str = "uniform",
    weight: float = 1.0,
    seed: int = 0,
) -> Recovery:
    """How well methods find the words that decide.

    Parameters
    ----------
    methods : sequence of names or functions, or mapping of label to these
    texts : int
        How many are drawn.
    attends, weight
        See `planted_model`.
    seed : int

    Returns
    -------
    Recovery

    Raises
    ------
    InputError
        If a method cannot be used.
    """
    from flowopt.trace import encode_texts

    if isinstance(methods, Mapping):
        specs = {name: method_spec(each) for name, each in methods.items()}
    else:
        specs = {spec.name: spec for spec in map(method_spec, methods)}
    model, tokenizer = planted_model(attends, weight)
    drawn = planted_texts(texts, seed)
    found: dict[str, list[float]] = {name: [] for name in specs}
    for encoded, each in zip(
        encode_texts(model, tokenizer, [each.text for each in drawn]), drawn, strict=True
    ):
        subject = subject_of(model, tokenizer, encoded, "planted")
        for name, spec in specs.items():
            scores = explain_subject(subject, spec).scores[list(subject.players)]
            top = np.argsort(-scores, kind="stable")[: len(each.planted)]
            found[name].append(len({*top.tolist()} & {*each.planted}) / len(each.planted))
    chance = float(np.mean([len(each.planted) / len(each.text.split()) for each in drawn]))
    rows = (RecoveryRow(name, mean_interval(shares)) for name, shares in found.items())
    return Recovery(tuple(rows), chance)
