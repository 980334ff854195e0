"""Methods that change the text and ask again: occlusion, leave-one-out, Shapley sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError
from flowopt.methods.baselines import default_baseline
from flowopt.methods.registry import Scores, register
from flowopt.methods.seeds import check_count, seeded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from flowopt.methods.subject import Subject

    Array = NDArray[np.float64]

__all__ = [
    "AT_ONCE",
    "Coalitions",
    "coalitions",
    "leave_one_out",
    "occlusion",
    "shapley_sampling",
    "spread",
]

AT_ONCE = 1024
"""Sets that Captum hands over in one call; `Subject` reads them in batches of its own."""
_PREFERRED = ("mask", "pad", "unknown", "eos")

Coalitions = Callable[["Tensor"], "Tensor"]
"""``(n, p) of ones and zeros -> logits (n,)``: which players are there, and what is said of it."""


def coalitions(subject: Subject, baseline: str | None) -> tuple[Coalitions, str]:
    """The game of the text's players, and the token that stands for those who are absent.

    No set of players is asked for twice: of p tokens there are only 2^p, and samplers draw the
    small and large ones again and again.

    Raises
    ------
    InputError
        If there are no players, or no such token.
    """
    if not subject.players:
        raise InputError("the text has no token that could be varied, only special ones")
    name = default_baseline(subject, *_PREFERRED) if baseline is None else baseline
    if not isinstance(name, str):
        raise InputError(f"give one baseline by name, not {name!r}")
    empty = subject.baselines(name)
    known = {b"\1" * len(subject.players): subject.target.logit}

    def game(present: Tensor) -> Tensor:
        import torch

        keys = [row.tobytes() for row in (present != 0).cpu().numpy()]
        new = list({key: place for place, key in enumerate(keys) if key not in known}.values())
        if new:
            answers = subject.coalition_logits(present[new], empty).double().cpu().tolist()
            known.update(zip((keys[place] for place in new), answers, strict=True))
        return torch.tensor([known[key] for key in keys], dtype=torch.float64)

    return game, name


def spread(subject: Subject, players: Array) -> Array:
    """Scores (t,) from those of the players (p,); the others get 0."""
    scores = np.zeros(len(subject))
    scores[list(subject.players)] = players
    return scores


@register(
    "occlusion",
    family="perturbation",
    source="Zeiler & Fergus (2014)",
    cost="p + 1 forward",
    signed=True,
    requires="captum",
)
def occlusion(subject: Subject, *, window: int = 1, baseline: str | None = None) -> Scores:
    """Change of the logit when a token is replaced by a baseline.

    Parameters
    ----------
    subject : Subject
    window : int
        Tokens replaced at a time; a token's score is the mean over the windows it lies in.
    baseline : str or None
        See `flowopt.methods.baselines`; None: the tokenizer's mask, else its padding, unknown or
        end token.
    """
    import torch
    from captum.attr import Occlusion

    game, name = coalitions(subject, baseline)
    count = len(subject.players)
    check_count(window, "window", 1, count)
    found = Occlusion(game).attribute(
        torch.ones(1, count),
        sliding_window_shapes=(window,),
        baselines=torch.zeros(1, count),
        perturbations_per_eval=AT_ONCE,
    )
    return Scores(spread(subject, found[0].double().numpy()), notes={"baseline": name})


@register(
    "leave-one-out",
    family="perturbation",
    source="Li et al. (2016)",
    cost="p + 1 forward",
    signed=True,
)
def leave_one_out(subject: Subject) -> Array:
    """Change of the logit when a token is deleted and the others close up.

    Raises
    ------
    InputError
        If nothing is left of the text.
    """
    everything = range(len(subject))
    kept = [[i for i in everything if i != gone] for gone in subject.players]
    if not kept:
        raise InputError("the text has no token that could be deleted, only special ones")
    return spread(subject, subject.target.logit - subject.shortened_logits(kept))


@register(
    "shapley-sampling",
    family="perturbation",
    source="Castro et al. (2009); Strumbelj & Kononenko (2010)",
    cost="samples * p + 2 forward, at most",
    signed=True,
    sums_to="y(x) - y(baseline)",
    seeded=True,
    requires="captum",
)
def shapley_sampling(
    subject: Subject, *, samples: int = 25, baseline: str | None = None, seed: int = 0
) -> Scores:
    """Shapley values of the tokens, absent ones replaced by a baseline; sampled orders.

    Parameters
    ----------
    subject : Subject
    samples : int
        Orders in which tokens are put in.
    baseline : str or None
        See `occlusion`.
    seed : int
    """
    import torch
    from captum.attr import ShapleyValueSampling

    check_count(samples, "samples")
    game, name = coalitions(subject, baseline)
    count = len(subject.players)
    with seeded(seed):
        found = ShapleyValueSampling(game).attribute(
            torch.ones(1, count),
            baselines=torch.zeros(1, count),
            n_samples=samples,
            perturbations_per_eval=AT_ONCE,
        )
    total = subject.target.logit - float(game(torch.zeros(1, count))[0])
    return Scores(spread(subject, found[0].double().numpy()), total, {"baseline": name})
