"""The answer: a value and an importance for every token, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError
from flowopt.methods.slalom.fit import fit_counts
from flowopt.methods.slalom.plans import count_tokens

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from flowopt.methods.slalom.fit import SlalomFit
    from flowopt.methods.slalom.quality import FitQuality, LinearFit
    from flowopt.methods.slalom.texts import Wrapped
    from flowopt.trace.record import Prediction

    Array = NDArray[np.float64]

__all__ = ["Samples", "SlalomExplanation"]


@dataclass(frozen=True, eq=False)
class Samples:
    """What the model was asked, and its answers.

    Parameters
    ----------
    counts : ndarray (n, V)
        How often each distinct token occurs in each query.
    log_odds : ndarray (n,)
        Of the explained class.
    """

    counts: NDArray[np.int32]
    log_odds: Array


@dataclass(frozen=True, eq=False, repr=False)
class SlalomExplanation:
    """The SLALOM surrogate of a model around one text, for one class.

    Parameters
    ----------
    source : Wrapped
        The text's t tokens, special ones included.
    vocabulary : tuple of str
        Its V distinct tokens, in order of appearance, special ones left out.
    fit : SlalomFit
        Value and importance of each of them; `fit.linearised`, `fit.removal` are derived.
    linear : LinearFit
        The additive surrogate of the same samples, to compare with.
    quality : FitQuality
        Errors of both on held-out queries.
    prediction, target : Prediction
        The most likely class, and the class explained.
    log_odds : float
        The model's own, of the whole text and the class explained.
    settings : dict
        Model, plan, number of samples, seed, seconds.
    samples : Samples or None
        None after `from_json`.
    """

    source: Wrapped
    vocabulary: tuple[str, ...]
    fit: SlalomFit
    linear: LinearFit
    quality: FitQuality
    prediction: Prediction
    target: Prediction
    log_odds: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    samples: Samples | None = None

    @property
    def text(self) -> str | None:
        """The text; None where token ids were given."""
        return self.source.info.text

    @property
    def tokens(self) -> tuple[str, ...]:
        """All t tokens, special ones included."""
        return self.source.info.tokens

    @property
    def special(self) -> NDArray[np.bool_]:
        """Which of the t tokens stand around every query and have no scores."""
        places = np.arange(len(self.tokens))
        return (places < self.source.start) | (places >= self.source.stop)

    @property
    def vocabulary_ids(self) -> tuple[int, ...]:
        """Token ids of the V distinct tokens."""
        return tuple(dict.fromkeys(self.source.ids))

    @property
    def columns(self) -> NDArray[np.intp]:
        """Place in `vocabulary` of each of the text's own tokens, (t - special,)."""
        column = {token: place for place, token in enumerate(self.vocabulary_ids)}
        return np.array([column[i] for i in self.source.ids], dtype=np.intp)

    @property
    def counts(self) -> NDArray[np.int32]:
        """How often each distinct token occurs in the text, (V,)."""
        found: NDArray[np.int32] = count_tokens([self.source.ids], self.vocabulary_ids)[0]
        return found

    def token_scores(self, kind: str = "linearised") -> Array:
        """Scores of the V distinct tokens: "value", "importance", "linearised" or "removal".

        The value is the log odds of the token alone, the importance its weight against the
        others (centred), the linearised score value * exp(importance), and the removal score the
        change of the surrogate's log odds when one occurrence is removed from the text.
        """
        return self.fit.scores(kind, self.counts)

    def scores(self, kind: str = "linearised") -> Array:
        """Scores of all t positions; special tokens get 0, occurrences of a token the same."""
        found = np.zeros(len(self.tokens))
        found[self.source.start : self.source.stop] = self.token_scores(kind)[self.columns]
        return found

    def predict(self, counts: Any) -> Array:
        """Log odds (n,) of variations of the text, given by their token counts (n, V)."""
        return self.fit.predict(counts)

    def refit(self, ridge: float) -> SlalomExplanation:
        """Fit the same samples again with another ridge; `quality` is not measured again.

        Raises
        ------
        InputError
            If the samples are gone (an explanation read from JSON).
        """
        if self.samples is None:
            raise InputError("the samples are gone, as JSON does not keep them: explain again")
        fit = fit_counts(self.samples.counts, self.samples.log_odds, ridge)
        return replace(self, fit=fit, settings={**self.settings, "ridge": ridge})

    def to_dict(self) -> dict[str, Any]:
        """Everything but `samples`, as plain numbers, strings, lists and dicts."""
        from flowopt.methods.slalom.stored import to_dict

        return to_dict(self)

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return JSON text, and write it to a file where a path is given; no `samples`."""
        from flowopt.methods.slalom.stored import dumps

        text = dumps(self.to_dict())
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | PathLike[str]) -> SlalomExplanation:
        """Read what `to_json` wrote: JSON text, or the path of a file.

        Raises
        ------
        InputError
            If there is no such file, or it was not written by `to_json`.
        """
        from flowopt.methods.slalom.stored import from_dict, loads

        return from_dict(loads(source))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw value against importance, a labelled dot for each distinct token."""
        from flowopt.methods.slalom.picture import plot_scores

        return plot_scores(self, ax=ax, **options)

    def __repr__(self) -> str:
        return (
            f"<SlalomExplanation of {len(self.vocabulary)} distinct tokens for the class "
            f"{self.target.label!r}, mse {self.fit.mse:.3g}>"
        )

    def _repr_html_(self) -> str:
        from flowopt.methods.slalom.show import html

        return html(self)

    def __rich__(self) -> Any:
        from flowopt.methods.slalom.show import render

        return render(self)

    def __str__(self) -> str:
        from flowopt.methods.slalom.show import plain

        return plain(self)
