"""Explain predictions by SLALOM: texts or token ids in, explanations out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from flowopt.errors import FlowoptError, InputError
from flowopt.methods.slalom.options import Options
from flowopt.methods.slalom.surrogate import surrogate
from flowopt.methods.slalom.texts import Wrapped, length_limit, read_text, wrap_ids
from flowopt.progress import progress_bar

if TYPE_CHECKING:
    import torch

    from flowopt.methods.slalom.explanation import SlalomExplanation
    from flowopt.methods.slalom.options import Target
    from flowopt.methods.slalom.plans import Plan

__all__ = ["explain", "explain_ids"]


# The options are spelled out once, in the implementation.
@overload
def explain(
    model: Any, tokenizer: Any, text: str, *, progress: bool = False, **options: Any
) -> SlalomExplanation: ...


@overload
def explain(
    model: Any, tokenizer: Any, text: Iterable[str], *, progress: bool = False, **options: Any
) -> list[SlalomExplanation]: ...


def explain(  # type: ignore[misc]
    model: Any,
    tokenizer: Any,
    text: str | Iterable[str],
    *,
    plan: str | Plan = "short",
    samples: int = 5000,
    length: int = 3,
    max_deletions: int = 5,
    seed: int = 0,
    ridge: float = 1e-6,
    target: Target | Sequence[Target] = None,
    held_out: int | None = None,
    special_tokens: bool = True,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> SlalomExplanation | list[SlalomExplanation]:
    """Explain a classifier's log odds by SLALOM (Leemann et al., arXiv 2405.13536).

    The model is asked about many variations of the text; a value and an importance for each
    distinct token are fitted to its answers. See `fit_counts` for what is minimised.

    Parameters
    ----------
    model : transformers classifier, callable or None
        Encoder or decoder, with one logit, two or more; or a function (ids, mask) -> logits of
        int64 tensors (b, t), giving (b, classes) or (b,); or None for the bundled classifier.
        Its mode and its device are as before afterwards.
    tokenizer : transformers tokenizer
        None where the model is None. Without a tokenizer use `explain_ids`.
    text : str or iterable of str
    plan : str or callable
        "short": random sequences of `length` of the text's distinct tokens, the authors' "eff";
        "deletion": the text without up to `max_deletions` tokens, their "fidel"; "exact": each
        token alone and with one other, 2V - 1 queries, enough for an exact SLALOM model; or a
        function (ids, samples, generator) -> sequences of these ids.
    samples : int
        Queries to fit to, give or take a few; equal ones are asked once.
    length, max_deletions : int
        Of the plans "short" and "deletion".
    seed : int
        The same text gives the same queries, alone or among others.
    ridge : float
        See `fit_counts`.
    target : int, str, None, or one of these for each text
        Class to explain, by number or label; None: the predicted one.
    held_out : int, optional
        Further queries, none of them among the samples, for the quality of the fit; by default a
        tenth of `samples`, at least 50, and 200 short ones for "exact".
    special_tokens : bool
        Whether the tokenizer's special tokens stand around every query.
    batch_size : int, optional
        Most queries in one pass; by default as many as make 2048 tokens, on accelerators 32768.
    device : str or torch.device, optional
        Where to run the model; None: where it is.
    progress : bool
        Show a progress bar.

    Returns
    -------
    SlalomExplanation, or a list of them for several texts

    Raises
    ------
    InputError
        If an argument or a text cannot be used.
    UnsupportedError
        If the model gives no finite logits, one row for each text.

    Warns
    -----
    FlowoptWarning
        If a text is longer than the model reads, or a fit has not settled.

    Examples
    --------
    >>> import flowopt as fo
    >>> found = fo.slalom.explain(None, None, "A gripping film.", samples=500)
    >>> found.quality.slalom < found.quality.constant
    True
    """
    options = Options(plan, samples, length, max_deletions, seed, ridge, None, held_out,
                       batch_size, device)  # fmt: skip
    if model is None:
        from flowopt.assets import load_bundled

        model, tokenizer = load_bundled()
    if tokenizer is None:
        raise InputError("a text needs a tokenizer; without one use explain_ids(model, ids)")
    single = isinstance(text, (str, bytes))  # bytes are refused as a text, not read as numbers
    texts: list[Any] = [text] if single else _listed(text)
    targets = _targets(target, len(texts))
    sources = []
    for index, each in enumerate(texts):
        with_index = "" if single else f"text {index}: "
        try:
            sources.append(read_text(model, tokenizer, each, special_tokens))
        except FlowoptError as error:
            error.args = (f"{with_index}{error.args[0]}", *error.args[1:])
            raise
    limit = length_limit(model, tokenizer)
    if single:
        options = replace(options, target=targets[0])
        return _with_bar(model, sources[0], options, limit, progress)
    found = []
    with progress_bar(len(texts), progress) as done:
        for source, each in zip(sources, targets, strict=True):
            found.append(surrogate(model, source, replace(options, target=each), limit))
            done()
    return found


def explain_ids(
    model: Any,
    ids: Sequence[int],
    *,
    prefix: Sequence[int] = (),
    suffix: Sequence[int] = (),
    tokens: Sequence[str] | None = None,
    plan: str | Plan = "short",
    samples: int = 5000,
    length: int = 3,
    max_deletions: int = 5,
    seed: int = 0,
    ridge: float = 1e-6,
    target: Target = None,
    held_out: int | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> SlalomExplanation:
    """Explain log odds of a text that is given as token ids; any tokenizer will do.

    Parameters
    ----------
    model : transformers classifier or callable
    ids : sequence of int
        The text's own tokens.
    prefix, suffix : sequence of int
        Special tokens around every query.
    tokens : sequence of str, optional
        Names of the ids.
    plan, samples, length, max_deletions, seed, ridge, target, held_out, batch_size, device, \
progress
        As for `explain`.

    Raises
    ------
    InputError, UnsupportedError
        As `explain`.
    """
    options = Options(plan, samples, length, max_deletions, seed, ridge, target, held_out,
                       batch_size, device)  # fmt: skip
    source = wrap_ids(ids, prefix, suffix, tokens)
    return _with_bar(model, source, options, length_limit(model, None), progress)


def _with_bar(
    model: Any, source: Wrapped, options: Options, limit: int | None, progress: bool
) -> SlalomExplanation:
    if not progress:
        return surrogate(model, source, options, limit)
    total = 1 + options.n_held_out
    total += options.samples if options.plan != "exact" else 2 * len(set(source.ids)) - 1
    with progress_bar(total, True, unit="query", label="asking the model") as done:
        return surrogate(model, source, options, limit, done)


def _targets(target: Target | Sequence[Target], count: int) -> list[Target]:
    if target is None or isinstance(target, (int, str)) or not isinstance(target, Iterable):
        return [target] * count
    found = list(target)
    if len(found) != count:
        raise InputError(
            f"{len(found)} targets for {count} texts; give one target, or one for each text"
        )
    return found


def _listed(texts: Iterable[str]) -> list[str]:
    try:
        return list(texts)
    except TypeError:
        raise InputError(
            f"text must be a str or several of them, not {type(texts).__name__}"
        ) from None
