"""Every method behind one call: model, text and a method's name in, attributions out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from flowopt.attribution import Attribution
from flowopt.errors import FlowoptError, InputError
from flowopt.methods.passes import Passes, counting
from flowopt.methods.registry import Method, MethodSpec, Scores, method_spec
from flowopt.methods.subject import Subject, subject_of
from flowopt.progress import progress_bar

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flowopt.trace import Target

    Model: TypeAlias = PreTrainedModel | str | PathLike[str] | None

__all__ = ["COMPUTED", "explain", "explain_subject", "loaded"]

COMPUTED = "computed"
"""Status of an attribution that no optimisation problem stands behind."""


@overload
def explain(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None,
    text: str,
    method: str | Method | MethodSpec = "agf-barrier",
    target: Target = None,
    *,
    progress: bool = False,
    **options: Any,
) -> Attribution: ...


@overload
def explain(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None,
    text: Iterable[str],
    method: str | Method | MethodSpec = "agf-barrier",
    target: Target | Sequence[Target] = None,
    *,
    progress: bool = False,
    **options: Any,
) -> list[Attribution]: ...


def explain(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None,
    text: str | Iterable[str],
    method: str | Method | MethodSpec = "agf-barrier",
    target: Target | Sequence[Target] = None,
    *,
    progress: bool = False,
    **options: Any,
) -> Attribution | list[Attribution]:
    """Explain a prediction by any method.

    Texts are read one after the other, so that the passes counted are those of one text. For
    flow over many texts `flowopt.Explainer` reads several at once.

    Parameters
    ----------
    model : PreTrainedModel, str, path or None
        A transformers model with its head; a folder or hub name; None for the bundled classifier.
    tokenizer : PreTrainedTokenizerBase or None
        None where the model is None or a name.
    text : str or iterable of str
    method : str, callable or MethodSpec
        A name from `flowopt.methods.available()`, or a function ``(subject, **options) ->
        scores (t,)``; see `flowopt.methods.Subject`.
    target : int, str, None, or one of these per text
        Class or token to explain; None for the predicted one.
    progress : bool
        Whether to show a progress bar on standard error.
    **options
        Of the method: `flowopt.methods.describe()` names them.

    Returns
    -------
    Attribution, or a list of them in the order of the texts
        Without certificate and maximum flow unless the method is a flow. ``settings`` has what
        the method says of itself, its options, the passes it took and its seconds.

    Raises
    ------
    InputError
        If a text, the target, the method or an option cannot be used; nothing has been computed
        then.
    UnsupportedError
        If the method cannot explain such a model.
    MissingDependencyError
        If the method needs a package that is not installed.

    Examples
    --------
    >>> import flowopt as fo
    >>> found = fo.explain(None, None, "A gripping, funny film.", method="leave-one-out")
    >>> found.top(1)[0].word
    'funny'
    """
    from flowopt.trace import encode_texts
    from flowopt.trace.goals import goals_of
    from flowopt.trace.text import named_example

    spec = method_spec(method)
    spec.check(options)
    alone = isinstance(text, str)
    texts = [text] if isinstance(text, str) else _listed(text)
    model, tokenizer = loaded(model, tokenizer)
    goals = goals_of(model, target, (None,) * len(texts), tokenizer)
    encoded = encode_texts(model, tokenizer, texts)
    found = []
    with progress_bar(len(texts), progress, label=spec.name) as advance:
        for number, (each, goal) in enumerate(zip(encoded, goals, strict=True)):
            with named_example(number, each.info.text, alone):
                subject = subject_of(model, tokenizer, each, goal.target)
                found.append(explain_subject(subject, spec, options))
            advance()
    return found[0] if alone else found


def explain_subject(
    subject: Subject, method: str | Method | MethodSpec, options: Mapping[str, Any] | None = None
) -> Attribution:
    """Explain one subject by one method; the model is left as it was found.

    Raises
    ------
    InputError
        If a method returns something else than one finite score per token.
    """
    import torch

    from flowopt.trace.reading import reading_mode

    spec, chosen = method_spec(method), dict(options or {})
    spec.check(chosen)
    attention = getattr(subject.model.config, "_attn_implementation", None) or "eager"
    with (
        counting(subject.model) as passes,
        reading_mode(subject.model, attention),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        start = time.perf_counter()
        result = _run(spec, subject, chosen)
        seconds = time.perf_counter() - start
        facts = _facts(spec, chosen, passes, seconds)
        if isinstance(result, Attribution):
            settings = {**result.settings, **facts}
            settings["seconds"] = {**result.settings.get("seconds", {}), "all": seconds}
            return replace(result, settings=settings)
        scores = result if isinstance(result, Scores) else Scores(result)
        return _attribution(subject, spec, scores, facts)


def _run(spec: MethodSpec, subject: Subject, options: dict[str, Any]) -> Any:
    try:
        return spec.function(subject, **options)
    except FlowoptError as error:
        error.args = (f"{spec.name}: {error.args[0]}", *error.args[1:])
        raise


def _attribution(
    subject: Subject, spec: MethodSpec, found: Scores, facts: dict[str, Any]
) -> Attribution:
    info, scores = subject.info, _checked(spec, subject, found.values)
    name = str(getattr(subject.model, "name_or_path", "") or type(subject.model).__name__)
    settings = {"model": name, **facts, **found.notes}
    if found.total is not None:
        settings["expected_sum"] = float(found.total)
    return Attribution(
        text=info.text,
        tokens=info.tokens,
        scores=scores,
        special=np.array(info.special),
        word_ids=info.word_ids,
        offsets=info.offsets,
        prediction=subject.prediction,
        target=subject.target,
        value=float(scores.sum()),
        max_flow=None,
        status=COMPUTED,
        certificate=None,
        settings=settings,
    )


def _facts(
    spec: MethodSpec, options: Mapping[str, Any], passes: Passes, seconds: float
) -> dict[str, Any]:
    """What is recorded of every method."""
    return {
        "method": spec.name,
        "family": spec.family,
        "signed": spec.signed,
        "sums_to": spec.sums_to,
        "options": {name: _plain(value) for name, value in {**spec.options, **options}.items()},
        "cost": spec.cost,
        "passes": passes.to_dict(),
        "seconds": {"all": seconds},
    }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return getattr(value, "__name__", None) or repr(value)


def _checked(spec: MethodSpec, subject: Subject, values: Any) -> NDArray[np.float64]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"the method {spec.name!r} must return one number per token, not "
            f"{type(values).__name__}"
        ) from None
    if scores.shape != (len(subject),):
        raise InputError(
            f"the method {spec.name!r} returned scores of shape {scores.shape} for "
            f"{len(subject)} tokens, special ones included; one each is needed"
        )
    if not np.isfinite(scores).all():
        token = subject.info.tokens[int(np.argmin(np.isfinite(scores)))]
        raise InputError(f"the method {spec.name!r} gave {token!r} a score that is not finite")
    return scores


def loaded(
    model: Model, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model with its tokenizer, loaded where a name is given.

    Raises
    ------
    InputError, UnsupportedError
    """
    from flowopt.trace import family_of

    if model is None or isinstance(model, str) or hasattr(model, "__fspath__"):
        from flowopt.explainer.loading import load_model

        loaded, own = load_model(model)
        return loaded, own if tokenizer is None else tokenizer
    family_of(model)
    if tokenizer is None:
        raise InputError("a text needs the model's tokenizer: explain(model, tokenizer, text)")
    return model, tokenizer


def _listed(text: Iterable[str]) -> list[str]:
    if isinstance(text, (bytes, Mapping)) or not hasattr(text, "__iter__"):
        raise InputError(f"give a str, or a list of them, not {type(text).__name__}")
    return list(text)
