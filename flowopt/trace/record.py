"""What one forward and backward pass tells us about one example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Prediction", "TokenInfo", "Trace"]


@dataclass(frozen=True)
class Prediction:
    """One class of a classifier, and what the model says of it.

    Parameters
    ----------
    label : str
        Name of the class, from ``model.config.id2label``.
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


@dataclass(frozen=True, eq=False)
class Trace:
    """Attention, gradients and tokens of one example (method.md, section 1).

    Parameters
    ----------
    attention : ndarray (L, H, t, t)
        Softmax attention, row = query, column = key, layer 0 next to the input.
    gradient : ndarray (L, H, t, t) or None
        Derivative of the explained logit by `attention`; None where no tensor needs it.
    info : TokenInfo
        The t tokens.
    prediction, target : Prediction or None
        The most likely class, and the class explained.
    readout : int or None
        The one position the head reads; None if it reads several.
    """

    attention: NDArray[np.float64]
    gradient: NDArray[np.float64] | None
    info: TokenInfo
    prediction: Prediction | None = None
    target: Prediction | None = None
    readout: int | None = None

    @classmethod
    def from_arrays(cls, attention: ArrayLike, gradient: ArrayLike | None = None) -> Trace:
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
        return cls(heads, slopes, TokenInfo.positions(range(heads.shape[-1])))

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
