"""What a method explains: one tokenized text together with its model, and what methods share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, UnsupportedError
from flowopt.lazy import lazy
from flowopt.trace import collate, family_of, trace_batch
from flowopt.trace.goals import describe

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flowopt.trace import Batch, Encoded, Prediction, Reduction, Target, TokenInfo, Trace

    Array = NDArray[np.float64]

__all__ = ["Subject", "subject_of"]

_PAIRS_AT_ONCE = 2**18
"""Most (query, key) pairs in one call of the model: one text of 512 tokens, 16 of 128."""
_MOST_ROWS = 64


@dataclass(frozen=True, eq=False)
class Subject:
    """One tokenized text, its model, and the logit that is explained.

    Models are asked with their token ids unchanged and the embeddings of these replaced, so that
    what a model reads off the ids (positions after padding, the last token that is no padding)
    stays as it is while tokens are varied.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode.
    tokenizer : PreTrainedTokenizerBase
    encoded : Encoded
    batch : Batch
        The text as a batch of one, with what is explained of it.
    wanted : int, str or None
        The class or token asked for; None: the predicted one.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encoded: Encoded
    batch: Batch
    wanted: Target = None

    @property
    def info(self) -> TokenInfo:
        """The t tokens."""
        return self.encoded.info

    @property
    def text(self) -> str:
        """The text."""
        return self.info.text or ""

    def __len__(self) -> int:
        return len(self.info.tokens)

    @property
    def kind(self) -> str:
        """One of "encoder", "decoder", "encoder-decoder"."""
        return family_of(self.model).kind

    @property
    def position(self) -> int | None:
        """Position of the output that emits the explained token; None for classifiers."""
        return self.batch.goals[0].position

    @property
    def players(self) -> tuple[int, ...]:
        """Positions that perturbations may change: all but special tokens and a mask to fill."""
        filled = self.position if self.kind == "encoder" else None
        special = self.info.special
        return tuple(i for i in range(len(self)) if not special[i] and i != filled)

    @property
    def rows_at_once(self) -> int:
        """Variations of the text in one call of the model."""
        if not self._takes_batches:
            return 1
        return max(1, min(_MOST_ROWS, _PAIRS_AT_ONCE // len(self) ** 2))

    @property
    def _takes_batches(self) -> bool:
        """Transformers' decoder classifiers refuse batches unless a padding token is named."""
        if self.kind == "encoder" or self.position is not None:
            return True
        return getattr(self.model.config, "pad_token_id", None) is not None

    @lazy
    def inputs(self) -> dict[str, Tensor]:
        """The model's inputs, (1, t) each, on its device."""
        return {name: part.to(self.model.device) for name, part in self.batch.inputs.items()}

    @lazy
    def outcome(self) -> tuple[Prediction, Prediction]:
        """The most likely class or token, and the one explained; asks the model once."""
        import torch

        with torch.no_grad():
            row = self._rows(self.call(self.inputs))[0].double().cpu().numpy()
        goal = self.batch.goals[0].target
        best = int(row.argmax())
        indices = (best, best if goal is None else goal)
        first, second = (describe(self.model, row, i, self.tokenizer) for i in indices)
        return first, second

    @property
    def prediction(self) -> Prediction:
        """The most likely class or token."""
        return self.outcome[0]

    @property
    def target(self) -> Prediction:
        """The class or token explained."""
        return self.outcome[1]

    def trace(self, reduction: Reduction) -> Trace:
        """Read the model's attention, and its gradients where the reduction needs them."""
        (trace,) = trace_batch(self.model, self.batch, reduction=reduction)
        assert trace.prediction is not None
        assert trace.target is not None
        self.__dict__.setdefault("outcome", (trace.prediction, trace.target))
        return trace

    # --- embeddings --------------------------------------------------------------------------

    @property
    def embedding(self) -> Any:
        """The module that turns the text's token ids into vectors."""
        reader = self.model.get_encoder() if self.kind == "encoder-decoder" else self.model
        return reader.get_input_embeddings()

    @lazy
    def embeddings(self) -> Tensor:
        """Word embeddings (1, t, d) of the text, without positions."""
        return self.embedded(self.inputs["input_ids"])

    def baselines(self, names: str | Sequence[str]) -> Tensor:
        """Embeddings (k, t, d) of texts that say nothing; see `flowopt.methods.baselines`."""
        from flowopt.methods.baselines import baseline_embeddings

        return baseline_embeddings(self, names)

    def embedded(self, ids: Tensor) -> Tensor:
        """Word embeddings (n, t, d) of token ids (n, t)."""
        import torch

        with torch.no_grad():
            found: Tensor = self.embedding(ids)
        return found.detach()

    # --- asking the model --------------------------------------------------------------------

    def logit_of(self, embeddings: Tensor) -> Tensor:
        """The explained logit (n,) of embeddings (n, t, d) in the place of the text's own.

        Gradients flow as torch's mode says. One call of the model, where it takes batches.

        Raises
        ------
        UnsupportedError
            If the model makes its embeddings in another way, or its logits cannot be used.
        """
        return self.rows_of(embeddings)[:, self.target.index]

    def rows_of(self, embeddings: Tensor) -> Tensor:
        """All logits (n, classes) of embeddings (n, t, d); see `logit_of`."""
        import torch

        count = len(embeddings)
        if count > 1 and not self._takes_batches:
            return torch.cat([self.rows_of(row) for row in torch.split(embeddings, 1)])
        inputs = {name: part.expand(count, *part.shape[1:]) for name, part in self.inputs.items()}
        with self._replaced(embeddings):
            logits = self.call(inputs)
        return self._rows(logits)

    def logits_without_gradient(self, embeddings: Tensor) -> Array:
        """The explained logit (n,) of many embeddings (n, t, d), in internal batches."""
        import torch

        with torch.no_grad():
            chunks = torch.split(embeddings, self.rows_at_once)
            parts = [self.logit_of(chunk) for chunk in chunks]
        found: Array = torch.cat(parts).double().cpu().numpy()
        return found

    def coalition_logits(self, present: Any, baseline: Tensor) -> Tensor:
        """The explained logit (n,) when some players have the baseline's embeddings.

        Parameters
        ----------
        present : Tensor (n, p)
            Not zero where a player keeps its own embedding; p players.
        baseline : Tensor (1, t, d)
        """
        import torch

        own, players = self.embeddings, list(self.players)
        answers = []
        with torch.no_grad():
            for rows in present.split(self.rows_at_once):
                keeps = torch.ones(len(rows), len(self), 1, dtype=torch.bool, device=own.device)
                keeps[:, players, 0] = rows.to(own.device) != 0
                answers.append(self.logit_of(torch.where(keeps, own, baseline)))
        return torch.cat(answers)

    def shortened_logits(self, kept: Iterable[Sequence[int]]) -> Array:
        """The explained logit (n,) of the text cut down to some positions, the others deleted.

        Positions close up. A language model explains the token after the last position.

        Parameters
        ----------
        kept : iterable of sequences of int
            For each of n texts, ascending positions, not none.

        Raises
        ------
        InputError
            If nothing is left of a text.
        """
        found: dict[int, float] = {}
        for indices, rows in self.shortened_rows(kept):
            found |= zip(indices, rows[:, self.target.index].double().tolist(), strict=True)
        return np.array([found[index] for index in range(len(found))])

    def shortened_rows(self, kept: Iterable[Sequence[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """All logits (n, classes) of texts cut down as in `shortened_logits`, call by call.

        Yields
        ------
        list of int, Tensor (n, classes)
            Which of the kept sets a call of the model was about, and what it answered.
        """
        import torch

        for group in self._equally_long(list(kept)):
            rows = torch.tensor([row for _, row in group])
            inputs = {}
            for name, part in self.inputs.items():
                same = part.expand(len(group), *part.shape[1:])
                cut = name in self.encoded.inputs or name == "attention_mask"
                inputs[name] = same.gather(1, rows.to(part.device)) if cut else same
            with torch.no_grad():
                logits = self.call(inputs)
            places = [self._place_in(row) for _, row in group]
            yield [index for index, _ in group], self._rows(logits, places)

    def _equally_long(self, kept: list[Sequence[int]]) -> Iterator[list[tuple[int, Sequence[int]]]]:
        """Numbered rows of one length, at most one call of the model's at a time."""
        if not all(len(row) for row in kept):
            raise InputError("nothing is left of the text when all its tokens are deleted")
        numbered = sorted(enumerate(kept), key=lambda pair: len(pair[1]))
        group: list[tuple[int, Sequence[int]]] = []
        for pair in numbered:
            if group and (len(group[0][1]) != len(pair[1]) or len(group) == self.rows_at_once):
                yield group
                group = []
            group.append(pair)
        if group:
            yield group

    def _place_in(self, kept: Sequence[int]) -> int | None:
        if self.position is None or self.kind == "encoder-decoder":
            return self.position
        return len(kept) - 1 if self.kind == "decoder" else list(kept).index(self.position)

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The model's logits, (n, classes) or (n, positions, vocabulary)."""
        from flowopt.trace.read import call_options, logits_of

        return logits_of(self.model, self.model(**inputs, **call_options(self.model)))

    def _rows(self, logits: Tensor, places: Sequence[int | None] | None = None) -> Tensor:
        """Logits (n, classes) of the classifier, or of the position that emits."""
        import torch

        if logits.ndim == 2:
            return logits
        where = [self.position] * len(logits) if places is None else list(places)
        if None in where:
            raise UnsupportedError(
                "the model makes one prediction per position (token classification?); flowopt "
                "explains classifiers of whole inputs and language models"
            )
        return logits[torch.arange(len(where)), torch.tensor(where)]

    @contextmanager
    def _replaced(self, embeddings: Tensor) -> Iterator[None]:
        """Let the embedding layer's first answer be these; a decoder's comes after it."""
        used: list[bool] = []

        def answer(_module: Any, _arguments: Any, output: Tensor) -> Tensor:
            if used:
                return output
            used.append(True)
            return embeddings

        handle = self.embedding.register_forward_hook(answer)
        try:
            yield
        finally:
            handle.remove()
        if not used:
            raise UnsupportedError(
                f"{type(self.model).__name__} does not call its embedding layer, so its "
                "embeddings cannot be varied"
            )


def subject_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, encoded: Encoded, target: Target
) -> Subject:
    """Make the subject of one tokenized text.

    Raises
    ------
    InputError
        If the model has no such class or token.
    """
    batch = collate(model, [encoded], target, tokenizer)
    return Subject(model, tokenizer, encoded, batch, target)
