"""Simple models fitted to a model's answers: LIME, KernelSHAP, SLALOM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, UnsupportedError
from flowopt.methods.perturbation_methods import AT_ONCE, coalitions, spread
from flowopt.methods.registry import Scores, register
from flowopt.methods.seeds import check_count, seeded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from flowopt.methods.subject import Subject

    Array = NDArray[np.float64]

_SAMPLES = 500

__all__ = ["LinearSurrogate", "kernel_shap", "lime", "slalom_scores"]


class LinearSurrogate:
    """Weighted ridge regression in closed form, in the place of Captum's models.

    Captum's own need scikit-learn, or a descent that ends near the optimum only.

    Parameters
    ----------
    ridge : float
        Weight of the squared coefficients (the constant is free), against the sum of the
        weighted squared errors.
    """

    def __init__(self, ridge: float) -> None:
        self.ridge = ridge
        self.coefficients: Array = np.zeros(0)
        self.constant = 0.0

    def fit(self, train_data: Any, **_: Any) -> None:
        """Fit to batches of samples (n, p), answers (n,) and weights (n,)."""
        parts = [[part.double().cpu().numpy() for part in batch] for batch in train_data]
        samples, answers, weights = (np.concatenate(side) for side in zip(*parts, strict=True))
        root = np.sqrt(weights.ravel())
        columns = np.column_stack([samples, np.ones(len(samples))])
        penalty = np.sqrt(self.ridge) * np.eye(samples.shape[1], columns.shape[1])
        system = np.concatenate([columns * root[:, None], penalty])
        right = np.concatenate([answers.ravel() * root, np.zeros(len(penalty))])
        solution = np.linalg.lstsq(system, right, rcond=None)[0]
        self.coefficients, self.constant = solution[:-1], float(solution[-1])

    def representation(self) -> Tensor:
        """The coefficients (1, p)."""
        import torch

        return torch.from_numpy(self.coefficients)[None]


@register(
    "lime",
    family="surrogate",
    source="Ribeiro et al. (2016)",
    cost="samples forward, at most",
    signed=True,
    seeded=True,
    requires="captum",
)
def lime(
    subject: Subject,
    *,
    samples: int | None = None,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    baseline: str | None = None,
    seed: int = 0,
) -> Scores:
    """Ridge regression on texts with tokens replaced, near ones weighing more.

    The number of tokens replaced is uniform, and a text with k of p tokens left weighs
    exp(-d^2 / (2 kernel_width^2)), d = 1 - sqrt(k/p) their cosine distance.

    Parameters
    ----------
    subject : Subject
    samples : int or None
        Texts, the whole one among them; None: 500, or four for each token where that is more.
    kernel_width : float
    ridge : float
        Weight of the squared coefficients.
    baseline : str or None
        What replaces tokens; see `occlusion`.
    seed : int
    """
    import torch
    from captum.attr import Lime

    number = _number(samples, subject)
    for name, value in (("kernel_width", kernel_width), ("ridge", ridge)):
        if not 0 < value < float("inf"):
            raise InputError(f"{name} must be a positive number, not {value!r}")
    game, name = coalitions(subject, baseline)
    surrogate = LinearSurrogate(ridge)

    def weigh(_own: Any, _changed: Any, present: Tensor, **_: Any) -> Tensor:
        distance = 1 - present.double().mean().sqrt()
        return torch.exp(-(distance**2) / (2 * kernel_width**2)).reshape(1)

    with seeded(seed):
        Lime(
            game,
            interpretable_model=surrogate,
            similarity_func=weigh,
            perturb_func=_replace_some,
        ).attribute(
            torch.ones(1, len(subject.players)),
            baselines=torch.zeros(1, len(subject.players)),
            n_samples=number,
            perturbations_per_eval=AT_ONCE,
        )
    notes = {"baseline": name, "constant": surrogate.constant}
    return Scores(spread(subject, surrogate.coefficients), notes=notes)


def _number(samples: int | None, subject: Subject) -> int:
    """How many texts to ask about; fewer than tokens would leave the regression undetermined."""
    if samples is None:
        return max(_SAMPLES, 4 * len(subject.players))
    return check_count(samples, "samples", 2)


def _replace_some(own: Tensor, **_: Any) -> Iterator[Tensor]:
    """The whole text, then texts without a random number of random tokens."""
    import torch

    count = own.shape[-1]
    yield torch.ones(1, count)
    while True:
        present = torch.ones(1, count)
        gone = int(torch.randint(1, count + 1, ()))
        present[0, torch.randperm(count)[:gone]] = 0
        yield present


@register(
    "kernel-shap",
    family="surrogate",
    source="Lundberg & Lee (2017)",
    cost="samples forward, at most",
    signed=True,
    sums_to="y(x) - y(baseline)",
    seeded=True,
    requires="captum",
)
def kernel_shap(
    subject: Subject, *, samples: int | None = None, baseline: str | None = None, seed: int = 0
) -> Scores:
    """Shapley values by weighted regression on random sets of tokens.

    Parameters
    ----------
    subject : Subject
    samples : int or None
        Sets, the empty and the full one among them; None: 500, or four for each token where that
        is more.
    baseline : str or None
        What replaces tokens; see `occlusion`.
    seed : int
    """
    import torch
    from captum.attr import KernelShap

    number = _number(samples, subject)
    game, name = coalitions(subject, baseline)
    count = len(subject.players)
    total = subject.target.logit - float(game(torch.zeros(1, count))[0])
    if count == 1:  # its two sets are the empty and the full one
        return Scores(spread(subject, np.array([total])), total, {"baseline": name})
    method, surrogate = KernelShap(game), LinearSurrogate(1e-9)
    method.interpretable_model = surrogate
    with seeded(seed):
        method.attribute(
            torch.ones(1, count),
            baselines=torch.zeros(1, count),
            n_samples=number,
            perturbations_per_eval=AT_ONCE,
        )
    return Scores(spread(subject, surrogate.coefficients), total, {"baseline": name})


def slalom_scores(kind: str) -> Any:
    """The method that returns one of SLALOM's scores: "value", "importance", "linearised"."""

    def method(
        subject: Subject,
        *,
        samples: int = 5000,
        plan: Any = "short",
        ridge: float = 1e-6,
        seed: int = 0,
    ) -> Scores:
        import warnings

        from flowopt.errors import FlowoptWarning
        from flowopt.methods import slalom
        from flowopt.trace.goals import emits_tokens

        if emits_tokens(subject.model) or subject.kind == "encoder-decoder":
            raise UnsupportedError(
                "SLALOM explains classifiers that are encoders or decoders; for a language model "
                "use a flow method such as 'agf-barrier', or one of gradients or perturbations"
            )
        with warnings.catch_warnings():
            # that a text was cut has been said when the subject was made
            warnings.filterwarnings("ignore", ".*were cut", FlowoptWarning)
            found = slalom.explain(
                subject.model,
                subject.tokenizer,
                subject.text,
                plan=plan,
                samples=samples,
                ridge=ridge,
                seed=seed,
                target=subject.target.index,
            )
        return Scores(found.scores(kind), notes={"quality": asdict(found.quality)})

    method.__qualname__ = f"slalom_{kind}"
    return method


for _kind, _line, _signed in (
    ("value", "A token's log odds alone, by a softmax-weighted surrogate.", True),
    ("importance", "A token's weight among the others, in the same surrogate.", True),
    ("linearised", "Value times exp(importance), in the same surrogate.", True),
    ("removal", "Change of the same surrogate's log odds when the token is removed.", True),
):
    register(
        f"slalom-{_kind}",
        family="surrogate",
        source="Leemann et al. (2024)",
        cost="1.1 samples + 2 forward, at most",
        signed=_signed,
        summary=_line,
        seeded=True,
    )(slalom_scores(_kind))
