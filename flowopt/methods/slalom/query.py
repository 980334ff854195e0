"""Asking the model: many short token sequences in, log odds of one class out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, UnsupportedError
from flowopt.trace.record import Prediction

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    Array = NDArray[np.float64]
    Device = str | torch.device | None

__all__ = ["is_transformers", "log_odds", "logits_of", "multi_label", "predicted_class"]

# Where reading is fastest: a processor prefers what fits its cache.
_TOKENS_A_BATCH, _TOKENS_ON_A_CPU = 32768, 2048


def log_odds(logits: ArrayLike, target: int, independent: bool = False) -> Array:
    """Log odds of one class: z_c - logsumexp of the other logits, z1 - z0 for two classes.

    Parameters
    ----------
    logits : array (b, classes)
        With one class only, the logit is the log odds.
    target : int
        The class c.
    independent : bool
        Whether classes are no rivals (multi-label heads): then the logit of c is its log odds.

    Returns
    -------
    ndarray (b,)

    Raises
    ------
    InputError
        If there is no such class, or the logits are no (b, classes) array of finite numbers.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or 0 in z.shape or not np.isfinite(z).all():
        raise InputError(f"logits must be finite, of shape (b, classes); not {z.shape}")
    classes = z.shape[1]
    if isinstance(target, bool) or not 0 <= target < classes:
        raise InputError(f"target {target} is out of range: there are classes 0 to {classes - 1}")
    if classes == 1 or independent:
        return z[:, target].copy()
    others = np.delete(z, target, axis=1)
    top = others.max(axis=1)
    found: Array = z[:, target] - top - np.log(np.exp(others - top[:, None]).sum(axis=1))
    return found


def predicted_class(model: Any, logits: Array, index: int) -> Prediction:
    """Label, probability and logit of one class, from the logits (classes,) of one text."""
    labels = getattr(getattr(model, "config", None), "id2label", None) or {}
    odds = float(log_odds(logits[None], index, multi_label(model))[0])
    probability = 0.5 * (1.0 + np.tanh(0.5 * odds))
    label = str(labels.get(index, f"class {index}"))
    return Prediction(label, index, float(probability), float(logits[index]))


def multi_label(model: Any) -> bool:
    """Whether a model's classes are no rivals of each other."""
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    return bool(problem == "multi_label_classification")


def is_transformers(model: Any) -> bool:
    """Whether it is called with named inputs; anything else is a function of ids and mask."""
    return hasattr(model, "config") and hasattr(model, "modules") and callable(model)


def logits_of(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    batch_size: int | None = None,
    device: Device = None,
    step: Callable[[int], object] | None = None,
) -> Array:
    """Logits of token sequences, special tokens included.

    Each distinct sequence is read once, in batches of equal length: no padding, so nothing
    depends on how a model treats it. Mode, device and gradients' flags of the model stay as they
    were.

    Parameters
    ----------
    model : transformers classifier or callable
        A callable gets ids and mask, int64 tensors (b, t), and returns logits (b, classes), or
        (b,) for one class.
    sequences : sequence of sequences of int
        None of them empty.
    batch_size : int, optional
        Most sequences in a batch; by default as many as make 2048 tokens, on accelerators 32768.
    device : str or torch.device, optional
        Where to run; the model is moved back afterwards. None: where it is.
    step : callable, optional
        Told how many sequences have been read.

    Returns
    -------
    ndarray (n, classes)

    Raises
    ------
    InputError
        If the model has no embedding for a token.
    UnsupportedError
        If the model gives no finite logits (b, classes).
    """
    import torch

    if is_transformers(model):
        from flowopt.trace.inputs import check_vocabulary

        check_vocabulary(model, torch.tensor(sorted({i for s in sequences for i in s})))
    rows: dict[tuple[int, ...], int] = {}
    where = np.array([rows.setdefault(tuple(s), len(rows)) for s in sequences])
    distinct = list(rows)
    multiplicity = np.bincount(where)
    table: list[Array | None] = [None] * len(distinct)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        ask = stack.enter_context(_asking(model, device))
        on_cpu = str(device or getattr(model, "device", "cpu")).startswith("cpu")
        tokens = _TOKENS_ON_A_CPU if on_cpu else _TOKENS_A_BATCH
        for batch in _batches([len(s) for s in distinct], batch_size, tokens):
            found = _checked(ask([distinct[i] for i in batch]), len(batch), model)
            for i, row in zip(batch, found, strict=True):
                table[i] = row
            if step is not None:
                step(int(multiplicity[batch].sum()))
    rows_in_order: Array = np.stack([row for row in table if row is not None])[where]
    return rows_in_order


def _batches(lengths: Sequence[int], size: int | None, tokens: int) -> Iterator[list[int]]:
    """Indices in groups of equal length, the longest first: what lacks memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        length = lengths[order[start]]
        most = size or max(1, tokens // length)
        end = start
        while end < len(order) and end - start < most and lengths[order[end]] == length:
            end += 1
        yield order[start:end]
        start = end


@contextmanager
def _asking(model: Any, device: Device) -> Iterator[Callable[[list[tuple[int, ...]]], Any]]:
    """Give the function that reads one batch; put the model back whatever happens."""
    import torch

    if not is_transformers(model):
        if not callable(model):
            raise InputError(
                "model must be a transformers classifier or a function (ids, mask) -> logits, "
                f"not {type(model).__name__}"
            )

        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"cannot use device {str(device)!r}: {reason}") from None

        def call(batch: list[tuple[int, ...]]) -> Any:
            ids = torch.tensor(batch, dtype=torch.long, device=device)
            return model(ids, torch.ones_like(ids))

        with _evaluating(model):
            yield call
        return

    def read(batch: list[tuple[int, ...]]) -> Any:
        ids = torch.tensor(batch, dtype=torch.long, device=model.device)
        return model(input_ids=ids, attention_mask=torch.ones_like(ids))

    with _evaluating(model), _on_device(model, device), _batches_allowed(model):
        yield read


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode, for modules; put back module by module, since users freeze parts."""
    modules = list(model.modules()) if hasattr(model, "modules") else []
    training = [module for module in modules if module.training]
    try:
        if modules:
            model.eval()
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _on_device(model: Any, device: Device) -> Iterator[None]:
    before = model.device
    if device is None:
        yield
        return
    from flowopt.explainer.loading import move_model

    try:
        move_model(model, device)
        yield
    finally:
        model.to(before)


@contextmanager
def _batches_allowed(model: Any) -> Iterator[None]:
    """Let decoder classifiers without a padding token read batches, which need none here.

    They look for the last token that is no padding, and refuse batches where they do not know
    what padding is. No token has the number -1, so the last token is the one they find.
    """
    config = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if getattr(text, "pad_token_id", 0) is not None:
        yield
        return
    text.pad_token_id = -1
    try:
        yield
    finally:
        text.pad_token_id = None


def _checked(output: Any, count: int, model: Any) -> Array:
    import torch

    if is_transformers(model) and getattr(output, "logits", None) is None:
        raise UnsupportedError(
            f"{type(model).__name__} returns no logits; load it with "
            "AutoModelForSequenceClassification"
        )
    found: Tensor = torch.as_tensor(getattr(output, "logits", output)).detach().cpu()
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 or found.shape[0] != count:
        raise UnsupportedError(
            f"{type(model).__name__} returns logits of shape {tuple(found.shape)} for {count} "
            "texts, not one row of class logits per text; load it with "
            "AutoModelForSequenceClassification"
        )
    if not bool(torch.isfinite(found).all()):
        raise UnsupportedError(
            "the model's logits are not finite; load it in float32 and check its weights"
        )
    numbers: Array = found.double().numpy()
    return numbers
