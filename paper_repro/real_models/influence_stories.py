"""stories260K: a generated story explained by flow, and the advantage of its early tokens."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from influence_maps import Array, remembered
from stories import load_stories

from flowopt import Explainer
from flowopt.attribution import Attribution, AttributionMatrix
from flowopt.explainer.receptive_field import NORMALISATIONS
from flowopt.progress import progress_bar

PROMPT = "Once upon a time"
TENSORS = ("agf", "conductance")


@dataclass(frozen=True)
class StoryRow:
    """One way of explaining the story.

    Parameters
    ----------
    tensor, normalise : str
    unroll : bool
    tokens, certified : int
        Generated tokens; those whose flow is proved optimal.
    error : float
        Largest bound on the error of a score, over the row's value (before normalisation).
    first : float
        Mean share of the first token among all tokens that absorb flow.
    equal : float
        Mean share were it shared equally.
    place : float
        Mean place of the flow, 0 the first and 1 the last of these tokens.
    seconds : float or None
        For each token, reading and solving; None where the reading was there already.
    passes : float or None
        The same in forward and backward passes over the whole story.
    """

    tensor: str
    unroll: bool
    normalise: str
    tokens: int
    certified: int
    error: float
    first: float
    equal: float
    place: float
    seconds: float | None = None
    passes: float | None = None


def shares(row: Attribution) -> Array:
    """Share of the flow, without sign, of all tokens that absorb it: the prompt's, generated ones'.

    Zeros where nothing flows.
    """
    after = () if row.prefix_scores is None else (row.prefix_scores,)
    size = np.abs(np.concatenate([row.scores, *after]))
    return size / (size.sum() or 1.0)


def place_of(share: Array) -> float:
    """Mean place of the flow, 0 the first and 1 the last token."""
    return float(share @ np.linspace(0, 1, len(share)))


def relative_error(row: Attribution) -> float:
    """Bound on the error of the raw scores over what flows; infinite without a bound."""
    total = sum(float(solution.value) for solution in row.solutions)
    bounds = [solution.certificate.attribution_error for solution in row.solutions]
    known = [bound for bound in bounds if bound is not None]
    if len(known) < len(bounds):
        return float("inf")
    return float(np.sum(known, axis=0).max()) / total if total > 0 else 0.0


def story_row(matrix: AttributionMatrix, **named: Any) -> StoryRow:
    """Measure one matrix."""
    found = [shares(row) for row in matrix]
    return StoryRow(
        tokens=len(matrix),
        certified=sum(row.status == "optimal" for row in matrix),
        error=max(relative_error(row) for row in matrix),
        first=statistics.mean(float(share[0]) for share in found),
        equal=statistics.mean(1 / len(share) for share in found),
        place=statistics.mean(place_of(share) for share in found),
        **named,
    )


def measured_story(
    data: Path, tokens: int, tensors: Sequence[str] = TENSORS
) -> tuple[str, list[StoryRow]]:
    """Explain a greedy story of so many tokens in all ways; the story and the rows."""
    model, tokenizer = load_stories(data / "stories260K")
    prompt = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        output = model.generate(prompt, max_new_tokens=tokens, do_sample=False)
    story = output[0, prompt.shape[1] :].tolist()
    one_pass = pass_seconds(model, output)
    for tensor in tensors:  # compiles, and loads what is loaded once
        Explainer(model, tokenizer, tensor=tensor).explain_generation(PROMPT, story[:1])
    rows: list[StoryRow] = []
    ways = list(itertools.product(tensors, (True, False)))
    with progress_bar(len(ways) * len(NORMALISATIONS), True, "way", "stories") as advance:
        for tensor, unroll in ways:
            spec = remembered(tensor)
            for normalise in NORMALISATIONS:
                explainer = Explainer(
                    model, tokenizer, tensor=spec, unroll=unroll, normalise=normalise
                )
                matrix, seconds = timed(lambda e=explainer: e.explain_generation(PROMPT, story))
                first = normalise == "none"
                each = seconds / len(story) if first else None
                rows.append(
                    story_row(
                        matrix,
                        tensor=tensor,
                        unroll=unroll,
                        normalise=normalise,
                        seconds=each,
                        passes=None if each is None else each / one_pass,
                    )
                )
                advance()
    return " ".join(tokenizer.decode(output[0], skip_special_tokens=True).split()), rows


def timed(work: Callable[[], AttributionMatrix]) -> tuple[AttributionMatrix, float]:
    """The result of some work, and how long it took."""
    begun = time.perf_counter()
    return work(), time.perf_counter() - begun


def pass_seconds(model: Any, ids: torch.Tensor, repeats: int = 5) -> float:
    """Median time of a forward and backward pass."""
    times: list[float] = []
    for _ in range(repeats):
        begun = time.perf_counter()
        with torch.enable_grad():
            model(input_ids=ids).logits[0, -1].max().backward()
        times.append(time.perf_counter() - begun)
        model.zero_grad(set_to_none=True)
    return statistics.median(times)


def story_table(rows: Sequence[StoryRow]) -> str:
    """Markdown of all rows."""
    lines = [
        "| tensor | unrolled | normalised by | proved | error of a score, at most | first token | "
        "were all equal | mean place | s per token | passes per token |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.tensor,
            "yes" if row.unroll else "no",
            row.normalise,
            f"{row.certified} of {row.tokens}",
            f"{row.error:.0e}",
            f"{row.first:.1%}",
            f"{row.equal:.1%}",
            f"{row.place:.2f}",
            "" if row.seconds is None else f"{row.seconds:.2f}",
            "" if row.passes is None else f"{row.passes:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
