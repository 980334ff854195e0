"""Forward-mode differentiation: how all of a model changes along a path, in one pass."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["change_of", "changing", "forward_mode"]


@contextmanager
def forward_mode() -> Iterator[None]:
    """Let tensors made by `changing` carry their changes through a model that is called inside."""
    with torch.no_grad(), forward_ad.dual_level(), _FixedWeights():
        _load()
        yield


def changing(values: Tensor, change: Tensor) -> Tensor:
    """A tensor with its change, as a dual number."""
    dual: Tensor = forward_ad.make_dual(values, change)  # type: ignore[no-untyped-call]
    return dual


def change_of(values: Tensor) -> Tensor:
    """The change of a tensor; zeros where it does not change."""
    tangent = forward_ad.unpack_dual(values).tangent  # type: ignore[no-untyped-call]
    return torch.zeros_like(values) if tangent is None else tangent.detach()


class _FixedWeights(TorchFunctionMode):
    """Spares, in linear layers, the product with the change of the weights, which is none.

    torch forms it with a tensor of zeros: a third of the time of such a layer.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func is functional.linear:
            return _linear(*args, **given)
        if func is torch.addmm and not given:
            bias, x, weight = args
            return _linear(x, weight.T, bias)
        return func(*args, **given)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    values, change = forward_ad.unpack_dual(input)  # type: ignore[no-untyped-call]
    if change is None:
        return functional.linear(input, weight, bias)
    return changing(functional.linear(values, weight, bias), functional.linear(change, weight))


@functools.cache
def _load() -> None:
    """Make a first dual number: torch then loads parts of itself that it deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        changing(torch.zeros(1), torch.zeros(1))
