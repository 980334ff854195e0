"""What the model says of a text of which only some tokens are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from flowopt.methods import Subject

    Array = NDArray[np.float64]

__all__ = ["Kept", "Perturbations"]

Kept = tuple[int, ...]
"""Positions that are kept, ascending, special tokens among them."""
_NOTHING = (np.nan, np.nan)


class Perturbations:
    """Logit and log-probability of the explained class for kept sets; each is asked once.

    The probability is a softmax over classes or vocabulary, and a sigmoid for models with one
    logit or with classes that are not rivals, as in `flowopt.attribution.Attribution`.

    Parameters
    ----------
    subject : Subject
    removal : str
        One of `flowopt.evaluation.protocol.REMOVALS`.

    Attributes
    ----------
    asked : int
        Texts that went through the model.
    """

    def __init__(self, subject: Subject, removal: str = "delete") -> None:
        self.subject = subject
        self.removal = removal
        self.asked = 0
        self._known: dict[Kept, tuple[float, float]] = {}

    def prepare(self, kept: Iterable[Kept]) -> None:
        """Ask the model about all sets that are new, those of one length together.

        Raises
        ------
        InputError
            If the tokenizer has no token to put in the place of what is removed.
        UnsupportedError
            If the model's logits or embeddings cannot be used.
        """
        new = [each for each in dict.fromkeys(kept) if each not in self._known]
        # a decoder without special tokens has nothing left to read when all tokens are deleted
        self._known |= dict.fromkeys((each for each in new if not each), _NOTHING)
        new = [each for each in new if each]
        if not new:
            return
        if self.removal == "delete":
            self._delete(new)
        else:
            self._replace(new)
        self.asked += len(new)

    def probabilities(self, kept: Sequence[Kept]) -> Array:
        """The explained class's probability (n,); nan where nothing is left to be read."""
        found: Array = np.exp(self.log_probabilities(kept))
        return found

    def log_probabilities(self, kept: Sequence[Kept]) -> Array:
        """Logarithms (n,) of `probabilities`, exact where these are too small for a number."""
        return self._answers(kept)[:, 1]

    def logits(self, kept: Sequence[Kept]) -> Array:
        """The explained logit (n,); nan where nothing is left to be read."""
        return self._answers(kept)[:, 0]

    def _answers(self, kept: Sequence[Kept]) -> Array:
        self.prepare(kept)
        return np.array([self._known[each] for each in kept]).reshape(-1, 2)

    def _delete(self, kept: list[Kept]) -> None:
        for indices, rows in self.subject.shortened_rows(kept):
            self._keep((kept[index] for index in indices), rows)

    def _replace(self, kept: list[Kept]) -> None:
        import torch

        subject = self.subject
        own, other = subject.embeddings, subject.baselines(self.removal)
        for start in range(0, len(kept), subject.rows_at_once):
            chunk = kept[start : start + subject.rows_at_once]
            keeps = torch.zeros(len(chunk), len(subject), 1, dtype=torch.bool)
            for row, each in enumerate(chunk):
                keeps[row, list(each)] = True
            with torch.no_grad():
                rows = subject.rows_of(torch.where(keeps.to(own.device), own, other))
            self._keep(chunk, rows)

    def _keep(self, kept: Iterable[Kept], rows: Tensor) -> None:
        import torch

        rows, index = rows.double().cpu(), self.subject.target.index
        logits = rows[:, index]
        problem = getattr(self.subject.model.config, "problem_type", None)
        if rows.shape[1] == 1 or problem == "multi_label_classification":
            logs = torch.nn.functional.logsigmoid(logits)
        else:
            logs = logits - rows.logsumexp(dim=1)
        self._known |= zip(kept, zip(logits.tolist(), logs.tolist(), strict=True), strict=True)
