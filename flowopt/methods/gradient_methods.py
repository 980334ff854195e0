"""Gradients by the word embeddings, computed by Captum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, UnsupportedError
from flowopt.methods.baselines import default_baseline
from flowopt.methods.registry import Scores, register
from flowopt.methods.seeds import check_count, seeded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from flowopt.methods.subject import Subject

    Array = NDArray[np.float64]
    Baseline = str | Sequence[str] | None

__all__ = ["deep_lift", "gradient_shap", "input_x_gradient", "integrated_gradients", "saliency"]

_PREFERRED = ("pad", "unknown", "eos")
_NORMS: dict[str, Callable[[Array], Array]] = {
    "l1": lambda slopes: np.abs(slopes).sum(axis=-1),
    "l2": lambda slopes: np.sqrt((slopes**2).sum(axis=-1)),
    "max": lambda slopes: np.abs(slopes).max(axis=-1),
}


@register(
    "saliency",
    family="gradient",
    source="Simonyan et al. (2014)",
    cost="2 forward, 1 backward",
    signed=False,
    requires="captum",
)
def saliency(subject: Subject, *, norm: str = "l2") -> Array:
    """Size of the gradient by every token's embedding.

    Parameters
    ----------
    subject : Subject
    norm : "l1", "l2" or "max"
        Of the gradient over the embedding's dimensions.

    Raises
    ------
    InputError
        If there is no such norm.
    """
    from captum.attr import Saliency

    if norm not in _NORMS:
        raise InputError(f"norm must be one of {', '.join(_NORMS)}; not {norm!r}")
    _ = subject.target  # known before gradients are asked for
    slopes = Saliency(subject.logit_of).attribute(_leaf(subject), abs=False)
    return _NORMS[norm](_numbers(slopes))


@register(
    "input-x-gradient",
    family="gradient",
    source="Shrikumar et al. (2016)",
    cost="2 forward, 1 backward",
    signed=True,
    requires="captum",
)
def input_x_gradient(subject: Subject) -> Array:
    """Every token's embedding times its gradient."""
    from captum.attr import InputXGradient

    _ = subject.target
    found: Array = _numbers(InputXGradient(subject.logit_of).attribute(_leaf(subject))).sum(axis=-1)
    return found


@register(
    "integrated-gradients",
    family="gradient",
    source="Sundararajan et al. (2017)",
    cost="1 + baselines * (steps + 1) forward, baselines * steps backward",
    signed=True,
    sums_to="y(x) - y(baseline)",
    requires="captum",
)
def integrated_gradients(
    subject: Subject, *, baselines: Baseline = None, steps: int = 32
) -> Scores:
    """Gradients along the straight line from a baseline to the text's embeddings.

    Parameters
    ----------
    subject : Subject
    baselines : str, sequence of str or None
        A token that replaces every other one, or "zero"; several: the mean of their scores. None:
        the tokenizer's padding token, else its unknown or end token. See
        `flowopt.methods.baselines`.
    steps : int
        Nodes of the Gauss-Legendre quadrature.
    """
    from captum.attr import IntegratedGradients

    check_count(steps, "steps")
    names = _names(subject, baselines)
    method = IntegratedGradients(subject.logit_of)
    parts = [
        _numbers(
            method.attribute(
                _leaf(subject),
                baselines=start[None],
                n_steps=steps,
                internal_batch_size=subject.rows_at_once,
            )
        ).sum(axis=-1)
        for start in subject.baselines(names)
    ]
    return _complete(subject, np.mean(parts, axis=0), names)


@register(
    "deeplift",
    family="gradient",
    source="Shrikumar et al. (2017)",
    cost="4 forward, 2 backward",
    signed=True,
    requires="captum",
)
def deep_lift(subject: Subject, *, baseline: str | None = None) -> Scores:
    """Change against a baseline, by the rescale rule where the model's modules allow it.

    Captum applies the rule to activation modules of torch (ReLU, Tanh, Sigmoid, Softmax, ...).
    What a transformer computes otherwise (attention's softmax and products, layer norms,
    transformers' own GELU) goes by its gradient alone, so completeness, which the rule gives to
    networks of such modules, is lost: ``settings["change_of_logit"]`` is y(x) - y(baseline).

    Parameters
    ----------
    subject : Subject
    baseline : str or None
        See `integrated_gradients`.

    Raises
    ------
    UnsupportedError
        If the model runs an activation module twice in a pass, which Captum cannot follow.
    """
    import warnings

    from captum.attr import DeepLift

    names = _names(subject, baseline)
    if len(names) != 1:
        raise InputError("deeplift takes one baseline")
    (start,) = subject.baselines(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that hooks are set, and removed again
        try:
            found = DeepLift(_as_module(subject)).attribute(_leaf(subject), start[None])
        except (AssertionError, RuntimeError) as error:
            reason = str(error).partition("\n")[0].partition(". ")[0]
            if isinstance(error, RuntimeError) and "DeepLift" not in reason:
                raise
            raise UnsupportedError(
                f"DeepLIFT does not apply to {type(subject.model).__name__}: {reason}. Use "
                "'integrated-gradients', which needs nothing of the model's modules"
            ) from None
    whole = _complete(subject, _numbers(found).sum(axis=-1), names)
    return replace(whole, total=None, notes={**whole.notes, "change_of_logit": whole.total})


@register(
    "gradient-shap",
    family="gradient",
    source="Lundberg & Lee (2017)",
    cost="samples + 1 + baselines forward, samples backward",
    signed=True,
    sums_to="y(x) - mean y(baseline), in expectation",
    seeded=True,
    requires="captum",
)
def gradient_shap(
    subject: Subject,
    *,
    baselines: Baseline = None,
    samples: int = 32,
    noise: float = 0.0,
    seed: int = 0,
) -> Scores:
    """Gradients at random points between random baselines and the text's embeddings.

    Parameters
    ----------
    subject : Subject
    baselines : str, sequence of str or None
        Which are drawn from; None: those of padding, mask and unknown token that there are.
    samples : int
        Points.
    noise : float
        Standard deviation of normal noise on the embeddings.
    seed : int
    """
    from captum.attr import GradientShap

    check_count(samples, "samples")
    if not 0 <= noise < float("inf"):
        raise InputError(f"noise must be a number of at least 0, not {noise!r}")
    tokens = ("pad", "mask", "unknown")
    there = tuple(name for name in tokens if default_baseline(subject, name) == name)
    names = _names(subject, (there or None) if baselines is None else baselines)
    starts, _ = subject.baselines(names), subject.target
    total: Array = np.zeros(len(subject))
    with seeded(seed):
        for first in range(0, samples, subject.rows_at_once):
            count = min(subject.rows_at_once, samples - first)
            found = GradientShap(subject.logit_of).attribute(
                _leaf(subject), starts, n_samples=count, stdevs=float(noise)
            )
            total += count * _numbers(found).sum(axis=-1)
    return _complete(subject, total / samples, names)


def _names(subject: Subject, baseline: Baseline) -> tuple[str, ...]:
    if baseline is None:
        return (default_baseline(subject, *_PREFERRED),)
    return (baseline,) if isinstance(baseline, str) else tuple(baseline)


def _complete(subject: Subject, scores: Array, names: Sequence[str]) -> Scores:
    """Scores with the sum that completeness asks for."""
    starts = subject.logits_without_gradient(subject.baselines(names))
    total = subject.target.logit - float(starts.mean())
    return Scores(scores, total, {"baseline": list(names)})


def _leaf(subject: Subject) -> Tensor:
    return subject.embeddings.clone().requires_grad_()


def _numbers(found: Tensor) -> Array:
    """Attributions (1, t, d) as (t, d)."""
    numbers: Array = found.detach()[0].double().cpu().numpy()
    return numbers


def _as_module(subject: Subject) -> Any:
    """The model as a module of embeddings, which is what DeepLIFT puts its hooks on."""
    import torch

    class Reading(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = subject.model

        def forward(self, embeddings: Tensor) -> Tensor:
            return subject.logit_of(embeddings)[:, None]

    _ = subject.target
    return Reading().eval()
