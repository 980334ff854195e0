"""What one forward and backward pass tells us about one example."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Heads", "Prediction", "TokenInfo", "Trace"]


@dataclass(frozen=True)
class Prediction:
    """One class of a classifier or token of a language model, and what the model says of it.

    Parameters
    ----------
    label : str
        Name of the class, from ``model.config.id2label``; the token as the tokenizer spells it.
    index : int
        Its position among the logits.
    probability : float
        Softmax of the logits; the sigmoid of the logit for a single-logit or multi-label head.
    logit : float
        The number whose gradient is taken, before softmax or sigmoid.
    """

    label: str
    index: int
    probability: float
    logit: float


@dataclass(frozen=True)
class TokenInfo:
    """The tokens of one example, padding apart.

    Parameters
    ----------
    tokens : tuple of str
        One per position, t of them; special tokens included.
    special : tuple of bool
        Which of them the tokenizer added ([CLS], [SEP], ...).
    word_ids : tuple of int or None
        The word each token is a part of; None for special tokens.
    input_ids : tuple of int or None
        None where the model was given embeddings.
    offsets : tuple of (int, int) or None
        First and past-the-last character of each token in `text`.
    text : str or None
    """

    tokens: tuple[str, ...]
    special: tuple[bool, ...]
    word_ids: tuple[int | None, ...]
    input_ids: tuple[int, ...] | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    text: str | None = None

    @classmethod
    def positions(
        cls, positions: Sequence[int], input_ids: Sequence[int] | None = None
    ) -> TokenInfo:
        """Tokens without a tokenizer: their positions, each a word of its own."""
        names = tuple(str(position) for position in positions)
        ids = None if input_ids is None else tuple(int(i) for i in input_ids)
        return cls(names, (False,) * len(names), tuple(range(len(names))), ids)

    @classmethod
    def patches(cls, names: Sequence[str], grid: tuple[int, int]) -> TokenInfo:
        """Tokens of an image: special ones by name, then "row,column" of every patch."""
        places = [f"{row},{column}" for row in range(grid[0]) for column in range(grid[1])]
        special = (True,) * len(names) + (False,) * len(places)
        words = (*[None] * len(names), *range(len(places)))
        return cls((*names, *places), special, words)

    def part(self, start: int, end: int) -> TokenInfo:
        """Some of these tokens, in a row."""
        if (start, end) == (0, len(self.tokens)):
            return self
        ids, offsets = self.input_ids, self.offsets
        return TokenInfo(
            self.tokens[start:end],
            self.special[start:end],
            self.word_ids[start:end],
            None if ids is None else ids[start:end],
            None if offsets is None else offsets[start:end],
            self.text,
        )

    def followed_by(self, other: TokenInfo) -> TokenInfo:
        """These tokens, and after them others that belong to no text."""
        ids, offsets = None, None
        if self.input_ids is not None and other.input_ids is not None:
            ids = self.input_ids + other.input_ids
        if self.offsets is not None and self.text is not None:
            end = len(self.text)
            offsets = self.offsets + ((end, end),) * len(other.tokens)
        last = max((word for word in self.word_ids if word is not None), default=-1)
        words = tuple(None if word is None else last + 1 + word for word in other.word_ids)
        return TokenInfo(
            self.tokens + other.tokens,
            self.special + other.special,
            self.word_ids + words,
            ids,
            offsets,
            self.text,
        )


@dataclass(frozen=True, eq=False)
class Heads:
    """Attention of one stage with all its heads, and the gradient by it.

    Parameters
    ----------
    attention : ndarray (L, H, q, k)
        Softmax attention, row = query, column = key, layer 0 next to the input.
    gradient : ndarray (L, H, q, k) or None
        Derivative of what is explained by `attention`; None where no tensor needs it.
    """

    attention: NDArray[np.float64]
    gradient: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """What the passes over one example left: of every stage its heads, or a tensor made of them.

    A stage is a stack of attention layers between the same two groups of tokens: "encoder",
    "decoder" (causal) or "cross" (decoder to encoder).

    Parameters
    ----------
    info : TokenInfo
        The t tokens of the input: of the source where there is an encoder, else of the prompt
        and what was generated after it.
    heads : mapping of str to Heads
        By stage; empty where a tensor was formed as the passes ran.
    tensors : mapping of str to ndarray (L, q, k)
        By stage; what an information tensor keeps of each layer.
    prediction, target : Prediction or None
        The most likely class or token, and the one explained.
    readout : int or None
        The one top position that is read; None if the head reads several.
    prefix : TokenInfo or None
        The decoder's input tokens, where there are an encoder and a decoder.
    prompt : int or None
        Of a decoder's tokens, how many were given; the others were generated. None: all of a
        decoder's, the first of an encoder-decoder's.
    echo : bool
        Whether the prefix is the source again, one position later.
    grid : (int, int) or None
        Rows and columns of patches of an image.
    """

    info: TokenInfo
    heads: Mapping[str, Heads] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    prediction: Prediction | None = None
    target: Prediction | None = None
    readout: int | None = None
    prefix: TokenInfo | None = None
    prompt: int | None = None
    echo: bool = False
    grid: tuple[int, int] | None = None

    @classmethod
    def from_arrays(
        cls, attention: ArrayLike, gradient: ArrayLike | None = None, stage: str = "encoder"
    ) -> Trace:
        """Build a trace from plain arrays (or torch tensors); tokens are positions.

        Raises
        ------
        InputError
            If a shape is not (L, H, t, t), the two differ, or a number is not finite.
        """
        heads = _as_tensor4(attention, "attention")
        slopes = None if gradient is None else _as_tensor4(gradient, "gradient")
        if slopes is not None and slopes.shape != heads.shape:
            raise InputError(
                f"attention has shape {heads.shape} but gradient {slopes.shape}; "
                "pass the gradient by this very attention"
            )
        return cls(TokenInfo.positions(range(heads.shape[-1])), {stage: Heads(heads, slopes)})

    def stage(self, name: str) -> Trace:
        """The same trace with the heads of one stage only.

        Raises
        ------
        InputError
            If it has no heads of that stage.
        """
        if name not in self.heads:
            known = ", ".join(self.heads) or "none, they were reduced as the passes ran"
            raise InputError(f"the trace has no heads of stage {name!r}; it has {known}")
        return replace(self, heads={name: self.heads[name]})

    @property
    def attention(self) -> NDArray[np.float64]:
        """Attention (L, H, q, k) of the only stage."""
        return self._only.attention

    @property
    def gradient(self) -> NDArray[np.float64] | None:
        """Derivative (L, H, q, k) of what is explained by `attention`."""
        return self._only.gradient

    @property
    def _only(self) -> Heads:
        if len(self.heads) != 1:
            stages = ", ".join(self.heads) or "none"
            raise InputError(f"a trace with the stages {stages}: choose one with trace.stage(name)")
        return next(iter(self.heads.values()))

    @property
    def tokens(self) -> tuple[str, ...]:
        """The t tokens."""
        return self.info.tokens

    @property
    def special(self) -> tuple[bool, ...]:
        """Which tokens the tokenizer added."""
        return self.info.special

    @property
    def word_ids(self) -> tuple[int | None, ...]:
        """The word each token is a part of."""
        return self.info.word_ids

    @property
    def input_ids(self) -> tuple[int, ...] | None:
        """The vocabulary index of each token."""
        return self.info.input_ids

    @property
    def offsets(self) -> tuple[tuple[int, int], ...] | None:
        """First and past-the-last character of each token."""
        return self.info.offsets

    @property
    def text(self) -> str | None:
        """The text that was read."""
        return self.info.text


def _as_tensor4(values: ArrayLike, name: str) -> NDArray[np.float64]:
    # Tensors inside a graph or on another device do not convert by themselves.
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be an array of numbers of shape (L, H, t, t)") from None
    if array.ndim != 4 or array.shape[2] != array.shape[3] or 0 in array.shape:
        raise InputError(
            f"{name} must have shape (L, H, t, t): layers, heads, queries, keys; "
            f"not {array.shape}. Stack the layers of one example: np.stack(attentions)[:, 0]"
        )
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name} must be finite; the entry at {where} is {array[where]}")
    return array
