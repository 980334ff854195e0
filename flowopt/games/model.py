"""The game of a real model: what its output is when only some tokens are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from flowopt.errors import InputError, UnsupportedError
from flowopt.games.base import Coalitions, Game
from flowopt.network import FloatArray

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

REMOVALS = ("mask", "attention", "delete")
OUTPUTS = ("logit", "log_odds", "probability")
_TOKENS = 2**14  # positions in one forward pass, padding included


@dataclass(frozen=True, eq=False)
class ModelGame(Game):
    """v(S) = output of a model when the tokens in S are kept and the others removed.

    Parameters
    ----------
    function : callable
        Kept tokens (k, t) of bool to outputs (k,).
    tokens : sequence of str
        The players' names.
    positions : sequence of int, optional
        Position of each player in the model's input; 0 .. t-1 by default.
    target : int, optional
        Index of the class whose output it is.
    """

    function: Callable[[Coalitions], ArrayLike]
    tokens: Sequence[str]
    positions: tuple[int, ...] | None = None
    target: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.tokens, str) or not len(self.tokens):
            raise InputError("tokens are the names of the players: a sequence of at least one.")
        object.__setattr__(self, "tokens", tuple(str(token) for token in self.tokens))
        places = range(len(self.tokens)) if self.positions is None else self.positions
        object.__setattr__(self, "positions", tuple(int(p) for p in places))
        if len(self.positions or ()) != len(self.tokens):
            raise InputError(f"{len(self.positions or ())} positions for {len(self.tokens)} tokens")

    @classmethod
    def from_text(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        *,
        target: int | None = None,
        removal: str = "mask",
        output: str = "logit",
        special: bool = False,
        batch_size: int = 64,
    ) -> Self:
        """The game of a classifier on one text.

        Parameters
        ----------
        model, tokenizer
            A transformers model with ``logits`` of shape (b, classes), and its tokenizer.
        text : str
        target : int, optional
            Class whose output is the value; the predicted one by default.
        removal : str
            How tokens leave: "mask" puts the tokenizer's mask token in their place, "attention"
            hides them from all others, "delete" takes them out, so that later ones move up.
        output : str
            "logit"; "log_odds", log p/(1-p); or "probability".
        special : bool
            Whether special tokens ([CLS], [SEP]) are players too; otherwise they are always kept.
        batch_size : int
            Most coalitions in one forward pass; fewer where the text is long.

        Raises
        ------
        InputError
            For an empty text, an unknown option or class.
        UnsupportedError
            If the tokenizer has no mask token, or the model no logits.
        """
        _check_choices(text, removal, output, batch_size)
        encoding = tokenizer(text, return_special_tokens_mask=True, truncation=True)
        hidden = encoding.pop("special_tokens_mask")
        ids = [int(i) for i in encoding["input_ids"]]
        places = [i for i, flag in enumerate(hidden) if special or not flag]
        if not places:
            raise InputError("The text gives no token besides special ones; give a longer text.")
        if removal == "mask" and tokenizer.mask_token_id is None:
            raise UnsupportedError(
                "This tokenizer has no mask token; use removal='attention' or 'delete'."
            )
        reader = _Reader(
            model,
            {name: [int(i) for i in row] for name, row in encoding.items()},
            np.array(places),
            removal,
            int(tokenizer.mask_token_id or 0),
            min(batch_size, max(_TOKENS // len(ids), 1)),
        )
        whole = reader.logits(np.ones((1, len(places)), dtype=np.bool_))[0]
        chosen = int(whole.argmax()) if target is None else target
        if isinstance(chosen, bool) or not 0 <= chosen < len(whole):
            raise InputError(f"target must be a class from 0 to {len(whole) - 1}, not {target!r}.")
        names = tokenizer.convert_ids_to_tokens(ids)
        return cls(
            lambda kept: _output(reader.logits(kept), chosen, output),
            tuple(str(names[i]) for i in places),
            tuple(places),
            chosen,
        )

    @property
    def n_players(self) -> int:  # type: ignore[override]
        """Number of tokens that can be removed."""
        return len(self.tokens)

    @property
    def players(self) -> tuple[str, ...]:
        """The tokens."""
        return tuple(self.tokens)

    def evaluate(self, coalitions: Coalitions) -> FloatArray:  # noqa: D102
        return np.asarray(self.function(coalitions), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Runs a model on one text with tokens removed."""

    model: Any
    inputs: Mapping[str, Sequence[int]]
    places: Any
    removal: str
    mask_token: int
    batch_size: int

    def logits(self, kept: Coalitions) -> FloatArray:
        """Logits (k, classes) for each row of kept players."""
        import torch

        training = self.model.training
        self.model.eval()
        parts = []
        try:
            with torch.inference_mode():
                for start in range(0, len(kept), self.batch_size):
                    outputs = self.model(**self._batch(kept[start : start + self.batch_size]))
                    parts.append(_checked_logits(outputs))
        finally:
            self.model.train(training)
        return np.concatenate(parts)

    def _batch(self, kept: Coalitions) -> dict[str, Tensor]:
        import torch

        arrays = {name: np.tile(row, (len(kept), 1)) for name, row in self.inputs.items()}
        shape = arrays["input_ids"].shape
        stays = np.ones(shape, dtype=np.bool_)
        stays[:, self.places] = kept
        attention = arrays.get("attention_mask", np.ones(shape, dtype=np.int64))
        if self.removal == "mask":
            arrays["input_ids"] = np.where(stays, arrays["input_ids"], self.mask_token)
        elif self.removal == "attention":
            attention = attention * stays
        else:  # what stays moves to the front; the rest is padding
            order = np.argsort(~stays, axis=1, kind="stable")
            arrays = {k: np.take_along_axis(v, order, axis=1) for k, v in arrays.items()}
            attention = np.take_along_axis(attention * stays, order, axis=1)
        arrays["attention_mask"] = attention
        device = self.model.device
        return {name: torch.as_tensor(a.astype(np.int64)).to(device) for name, a in arrays.items()}


def _checked_logits(outputs: Any) -> FloatArray:
    logits = getattr(outputs, "logits", None)
    if logits is None or logits.ndim != 2:
        raise UnsupportedError(
            "The model gives no logits of shape (texts, classes); wrap what it gives in a "
            "function: ModelGame(function, tokens)."
        )
    return np.asarray(logits.double().cpu().numpy())


def _output(logits: FloatArray, target: int, kind: str) -> FloatArray:
    own = logits[:, target]
    if kind == "logit":
        return own
    if logits.shape[1] == 1:  # one output: a sigmoid
        odds = own
    else:
        rest = np.delete(logits, target, axis=1)
        top = rest.max(axis=1)
        odds = own - top - np.log(np.exp(rest - top[:, None]).sum(axis=1))
    return odds if kind == "log_odds" else 0.5 * (1 + np.tanh(0.5 * odds))


def _check_choices(text: Any, removal: str, output: str, batch_size: int) -> None:
    if not isinstance(text, str) or not text.strip():
        raise InputError("Give a text with at least one word.")
    if removal not in REMOVALS:
        raise InputError(f"removal must be one of {', '.join(REMOVALS)}; not {removal!r}.")
    if output not in OUTPUTS:
        raise InputError(f"output must be one of {', '.join(OUTPUTS)}; not {output!r}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be a positive whole number, not {batch_size!r}.")
