"""The answer: a score for every token, what it rests on, and how to show and store it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.attribution import stored
from flowopt.attribution.words import WordScore, merge_words
from flowopt.errors import InputError
from flowopt.trace.record import Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from flowopt.solution import FlowSolution

__all__ = ["Attribution", "CertificateSummary"]


@dataclass(frozen=True, eq=False)
class CertificateSummary:
    """What is proved about the flow behind the scores (method.md, section 7).

    Parameters
    ----------
    conservation, bounds : float
        Largest residual and largest violated bound, relative to |f|.
    gap : float or None
        Distance to the best objective value; None where nothing is proved.
    attribution_error : ndarray (t,) or None
        Bound on the error of every score, in units of flow; None where nothing is proved.
    """

    conservation: float
    bounds: float
    gap: float | None
    attribution_error: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, *solutions: FlowSolution) -> CertificateSummary:
        """Summarise solutions: worst residuals, and errors that add up.

        Scores that are differences of several flows have at most the sum of their errors; what
        one solution cannot prove is not proved for the difference.
        """
        proofs = [solution.certificate for solution in solutions]
        gaps = [proof.gap for proof in proofs]
        errors = [proof.attribution_error for proof in proofs]
        return cls(
            conservation=max(float(proof.conservation) for proof in proofs),
            bounds=max(float(proof.bounds) for proof in proofs),
            gap=None if None in gaps else max(float(gap) for gap in gaps if gap is not None),
            attribution_error=(
                None
                if any(error is None for error in errors)
                else np.sum([error for error in errors if error is not None], axis=0)
            ),
        )

    def first(self, count: int) -> CertificateSummary:
        """The same with the error bounds of the first tokens only."""
        error = self.attribution_error
        return replace(self, attribution_error=None if error is None else error[:count])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        error = self.attribution_error
        return {
            "conservation": self.conservation,
            "bounds": self.bounds,
            "gap": self.gap,
            "attribution_error": None if error is None else error.tolist(),
        }


@dataclass(frozen=True, eq=False)
class Attribution:
    """Flow through every token of one input, for one class.

    Parameters
    ----------
    text : str or None
        None where the model was given token ids or embeddings.
    tokens : tuple of str
        All t positions, special tokens included.
    scores : ndarray (t,)
        Flow through each token; they sum to `value`.
    special : ndarray of bool (t,)
        Which tokens the tokenizer added.
    word_ids : tuple of int or None
        The word each token is a part of.
    offsets : tuple of (int, int) or None
        First and past-the-last character of each token in `text`.
    prediction, target : Prediction
        The most likely class, and the class explained.
    value : float
        |f|; for signed flow the difference of the two values; without a flow the sum of scores.
    max_flow : float or None
        The value of the plain maximum flow on the same network.
    status : str
        "optimal", "inaccurate", "feasible", ...; see `flowopt.solution.Status`. "computed" where
        there is no optimum to be near to.
    certificate : CertificateSummary or None
        None where the scores are not read off a flow (`flowopt.explain` with other methods).
    settings : dict
        Model, tensor, objective, solver, capacities, sources, seconds of each stage.
    prefix_tokens : tuple of str
        Tokens generated before the explained one that absorb flow themselves; empty where their
        flow goes on to the tokens they came from.
    prefix_scores : ndarray (n,) or None
        Flow through each of them; with `scores` they sum to `value`.
    raw_scores : ndarray (t,) or None
        The scores before a normalisation; None without one.
    grid : (int, int) or None
        Rows and columns of an image's patches, the last tokens.
    image : ndarray of uint8 (h, w, 3) or None
        What the model saw, for pictures; None after `from_json`.
    solutions : tuple of FlowSolution
        What the scores were read from; empty after `from_json`.
    """

    text: str | None
    tokens: tuple[str, ...]
    scores: NDArray[np.float64]
    special: NDArray[np.bool_]
    word_ids: tuple[int | None, ...]
    offsets: tuple[tuple[int, int], ...] | None
    prediction: Prediction
    target: Prediction
    value: float
    max_flow: float | None
    status: str
    certificate: CertificateSummary | None
    settings: dict[str, Any] = field(default_factory=dict)
    prefix_tokens: tuple[str, ...] = ()
    prefix_scores: NDArray[np.float64] | None = None
    raw_scores: NDArray[np.float64] | None = None
    grid: tuple[int, int] | None = None
    image: NDArray[np.uint8] | None = field(default=None, repr=False)
    solutions: tuple[FlowSolution, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        kinds = {"scores": np.float64, "special": np.bool_}
        kinds |= {
            name: np.float64
            for name in ("prefix_scores", "raw_scores")
            if getattr(self, name) is not None
        }
        for name, kind in kinds.items():
            array: NDArray[Any] = np.array(getattr(self, name), dtype=kind)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        prefix = () if self.prefix_scores is None else self.prefix_scores
        if np.shape(prefix) != (len(self.prefix_tokens),):
            raise InputError(
                f"prefix_scores must have one entry for each of the {len(self.prefix_tokens)} "
                "prefix_tokens"
            )
        for name in ("tokens", "scores", "special", "word_ids", "offsets", "raw_scores"):
            values = getattr(self, name)
            if values is not None and np.shape(values)[:1] != (len(self.tokens),):
                raise InputError(
                    f"{name} must have one entry for each of the {len(self.tokens)} tokens, "
                    f"not shape {np.shape(values)}"
                )

    @property
    def attribution_error(self) -> NDArray[np.float64] | None:
        """Bound on the error of every score (t,), by the certificate; None without one."""
        return None if self.certificate is None else self.certificate.attribution_error

    @property
    def patch_scores(self) -> NDArray[np.float64]:
        """Scores of an image's patches (rows, columns).

        Raises
        ------
        InputError
            If the input was no image.
        """
        if self.grid is None:
            raise InputError("the input was no image, so it has no patches; use .scores")
        rows, columns = self.grid
        return self.scores[len(self.scores) - rows * columns :].reshape(rows, columns)

    def words(self, include_special: bool = False) -> list[WordScore]:
        """Scores of whole words, sub-words summed, in the order of the text.

        Parameters
        ----------
        include_special : bool
            Whether special tokens are listed too, each on its own.
        """
        return merge_words(
            self.tokens,
            self.scores,
            self.special,
            self.word_ids,
            self.offsets,
            self.text,
            include_special,
        )

    def top(self, k: int = 5) -> list[WordScore]:
        """Return the k words with the largest scores (signed), largest first, no special tokens.

        Raises
        ------
        InputError
            If k is not a positive integer.
        """
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise InputError(f"k must be a positive integer, not {k!r}")
        return sorted(self.words(), key=lambda word: -word.score)[:k]

    def to_dict(self) -> dict[str, Any]:
        """Everything but `solutions` and `image`, as plain numbers, strings, lists and dicts."""
        return stored.to_dict(self)

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return JSON text, and write it to a file where a path is given.

        Lossless for all but `solutions` and `image`: floats keep every bit.
        """
        text = stored.dumps(self.to_dict())
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | PathLike[str]) -> Attribution:
        """Read what `to_json` wrote: JSON text, or the path of a file.

        Raises
        ------
        InputError
            If there is no such file, or it was not written by `to_json`.
        """
        return cls.from_dict(stored.loads(source))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Attribution:
        """Rebuild an attribution from `to_dict`.

        Raises
        ------
        InputError
            If a field is missing or has another type.
        """
        with stored.explained_errors(values):
            return cls(**stored.fields_of(values), certificate=_certificate(values["certificate"]))

    def to_html(self, path: str | PathLike[str] | None = None) -> str:
        """Return a stand-alone HTML page, and write it to a file where a path is given."""
        from flowopt.viz.html import to_html

        page = str(to_html(self))
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page

    def plot(self, ax: Any = None, *, image: Any = None) -> Any:
        """Draw the scores with matplotlib, into `ax` where given.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        image : PIL image or array (h, w, 3), optional
            Lies under the scores of an image's patches; by default what the model saw.
        """
        if self.grid is not None:
            from flowopt.viz.images import plot_image

            return plot_image(self, image, ax=ax)
        if image is not None:
            raise InputError("the input was no image: plot without image=")
        from flowopt.viz.figures import plot_attribution

        return plot_attribution(self, ax=ax)

    def _repr_html_(self) -> str:
        from flowopt.viz.html import fragment

        return str(fragment(self))

    def __rich__(self) -> Any:
        from flowopt.viz.terminal import render

        return render(self)

    def __str__(self) -> str:
        from flowopt.plain import plain_text

        return plain_text(self)


def _certificate(values: Mapping[str, Any] | None) -> CertificateSummary | None:
    if values is None:
        return None
    gap, error = values["gap"], values["attribution_error"]
    return CertificateSummary(
        conservation=float(values["conservation"]),
        bounds=float(values["bounds"]),
        gap=None if gap is None else float(gap),
        attribution_error=None if error is None else np.array(error, dtype=np.float64),
    )
