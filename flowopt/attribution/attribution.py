"""The answer: a score for every token, what it rests on, and how to show and store it."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        |f|; for signed flow the difference of the two values.
    max_flow : float or None
        The value of the plain maximum flow on the same network.
    status : str
        "optimal", "inaccurate", "feasible", ...; see `flowopt.solution.Status`.
    certificate : CertificateSummary
    settings : dict
        Model, tensor, objective, solver, capacities, sources, seconds of each stage.
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
    certificate: CertificateSummary
    settings: dict[str, Any] = field(default_factory=dict)
    solutions: tuple[FlowSolution, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name, kind in (("scores", np.float64), ("special", np.bool_)):
            array = np.array(getattr(self, name), dtype=kind)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        for name in ("tokens", "scores", "special", "word_ids", "offsets"):
            values = getattr(self, name)
            if values is not None and np.shape(values)[:1] != (len(self.tokens),):
                raise InputError(
                    f"{name} must have one entry for each of the {len(self.tokens)} tokens, "
                    f"not shape {np.shape(values)}"
                )

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
        """Everything but `solutions`, as plain numbers, strings, lists and dicts."""
        return stored.to_dict(self)

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return JSON text, and write it to a file where a path is given.

        Lossless for all but `solutions`: floats keep every bit.
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

    def plot(self, ax: Any = None) -> Any:
        """Draw the scores with matplotlib, into `ax` where given."""
        from flowopt.viz.figures import plot_attribution

        return plot_attribution(self, ax=ax)

    def _repr_html_(self) -> str:
        from flowopt.viz.html import fragment

        return str(fragment(self))

    def __rich__(self) -> Any:
        from flowopt.viz.terminal import render

        return render(self)

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        # Into a string: no colour codes, and a width that does not depend on the terminal.
        console = Console(file=StringIO(), width=100, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()


def _certificate(values: Mapping[str, Any]) -> CertificateSummary:
    gap, error = values["gap"], values["attribution_error"]
    return CertificateSummary(
        conservation=float(values["conservation"]),
        bounds=float(values["bounds"]),
        gap=None if gap is None else float(gap),
        attribution_error=None if error is None else np.array(error, dtype=np.float64),
    )
