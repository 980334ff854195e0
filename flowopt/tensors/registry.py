"""The registry of information tensors: what each is made of, and where it comes from."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from flowopt.errors import InputError
from flowopt.trace.layer import LayerFunction, Reduction
from flowopt.trace.record import Trace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from transformers import PreTrainedModel

    from flowopt.trace.batch import Batch

__all__ = [
    "Specified",
    "TensorFunction",
    "TensorSpec",
    "available_tensors",
    "register_spec",
    "register_tensor",
    "tensor_spec",
]

TensorFunction = Callable[[Trace], "ArrayLike"]
Reader = Callable[["PreTrainedModel", "Batch"], Iterator[Trace]]


@dataclass(frozen=True)
class TensorSpec:
    """An information tensor: its name, how it is made, and what it needs.

    Parameters
    ----------
    name : str
    function : callable, optional
        ``Trace -> (L, q, k)``, from all heads of all layers of one stage.
    layer : callable, optional
        ``AttentionLayer -> Tensor (q, k)``: the same layer by layer, so that heads need not be
        kept.
    reader : callable, optional
        ``(model, batch) -> traces`` with `tensors`, for what one pass over the input does not
        give. One of the three is given.
    needs_gradient : bool
        Whether it reads gradients.
    signed : bool
        Whether entries may be negative; it is then explained by signed flow: the flow on its
        positive part minus that on its negative part.
    residual : bool
        Whether the residual connection is part of it. Flow then starts, by default, where the
        prediction is read (as with `flowopt.capacities.Residual`).
    reference : str
        Where its definition comes from.
    cost : str or None
        What it takes, where that is more than one forward pass (and one backward).
    """

    name: str
    function: TensorFunction | None = None
    layer: LayerFunction | None = None
    reader: Reader | None = None
    needs_gradient: bool = True
    signed: bool = False
    residual: bool = False
    reference: str = ""
    cost: str | None = None

    @property
    def reduction(self) -> Reduction | None:
        """What to keep while a model is read; None: all heads."""
        return None if self.layer is None else Reduction(self.layer, self.needs_gradient)

    @property
    def source(self) -> Callable[..., Any]:
        """The function that makes it."""
        made_by = self.function or self.layer or self.reader
        assert made_by is not None
        return made_by

    @property
    def summary(self) -> str:
        """What it is, in a line: the first one of its function's docstring."""
        return (inspect.getdoc(self.source) or "").strip().partition("\n")[0]

    def read(self, model: PreTrainedModel, batch: Batch) -> Iterator[Trace]:
        """Read a batch as the tensor needs it; see `flowopt.trace.trace_batch`."""
        from flowopt.trace.read import trace_batch

        if self.reader is not None:
            return self.reader(model, batch)
        return trace_batch(model, batch, self.needs_gradient, reduction=self.reduction)


@runtime_checkable
class Specified(Protocol):
    """Options that are a tensor, such as `flowopt.tensors.Conductance`."""

    @property
    def spec(self) -> TensorSpec:
        """The tensor with these options."""
        ...


F = TypeVar("F", bound=Callable[..., Any])

_REGISTRY: dict[str, TensorSpec] = {}


def register_spec(spec: TensorSpec) -> TensorSpec:
    """Register a tensor under its name.

    Raises
    ------
    InputError
        If the name is empty or belongs to another function.
    """
    name = spec.name
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a tensor's name must be a string that is not empty, not {name!r}")
    if name in _REGISTRY and not _same_source(_REGISTRY[name].source, spec.source):
        raise InputError(f"the tensor name {name!r} is taken; choose another name")
    _REGISTRY[name] = spec
    return spec


def register_tensor(
    name: str,
    *,
    needs_gradient: bool = True,
    per_layer: bool = False,
    signed: bool = False,
    reference: str = "",
) -> Callable[[F], F]:
    """Register a function under a name.

    Parameters
    ----------
    name : str
        The name that `information_tensor` and `Explainer` accept from now on.
    needs_gradient : bool
        False spares the backward pass; gradients may then be None.
    per_layer : bool
        Whether the function makes one layer from its heads, `AttentionLayer` -> Tensor (q, k), in
        torch: then no layer's heads are kept. Otherwise it makes all of them from all heads of
        one stage, `Trace` -> (L, q, k), in numpy.
    signed : bool
        Whether entries may be negative; see `TensorSpec`.
    reference : str
        Where its definition comes from.

    Raises
    ------
    InputError
        If the name is empty or belongs to another function.

    Examples
    --------
    >>> @register_tensor("max-head", needs_gradient=False)
    ... def largest_head(trace):
    ...     return trace.attention.max(axis=1)
    >>> @register_tensor("median-head", needs_gradient=False, per_layer=True)
    ... def median_head(layer):
    ...     return layer.attention.median(dim=0).values
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a tensor's name must be a string that is not empty, not {name!r}")

    def register(function: F) -> F:
        register_spec(
            TensorSpec(
                name,
                function=None if per_layer else function,
                layer=function if per_layer else None,
                needs_gradient=needs_gradient,
                signed=signed,
                reference=reference,
            )
        )
        return function

    return register


def available_tensors() -> tuple[str, ...]:
    """Names of all registered tensors, sorted."""
    return tuple(sorted(_REGISTRY))


def tensor_spec(tensor: str | TensorFunction | TensorSpec | Specified) -> TensorSpec:
    """Look a tensor up by name; a function is its own tensor.

    A function without the attribute ``needs_gradient`` is assumed to need the gradient.

    Raises
    ------
    InputError
        If there is no such name, or the argument is neither a name nor a function.
    """
    if isinstance(tensor, TensorSpec):
        return tensor
    if isinstance(tensor, Specified) and not isinstance(tensor, type):
        return tensor.spec
    if isinstance(tensor, str):
        if tensor not in _REGISTRY:
            close = difflib.get_close_matches(tensor.lower(), _REGISTRY, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join(available_tensors())
            raise InputError(f"there is no tensor {tensor!r}; {hint}Known names: {known}")
        return _REGISTRY[tensor]
    if not callable(tensor):
        raise InputError(
            f"tensor must be a name ({', '.join(available_tensors())}) or a function "
            f"trace -> (L, t, t), not {tensor!r}"
        )
    name = getattr(tensor, "__name__", type(tensor).__name__)
    return TensorSpec(
        name,
        tensor,
        needs_gradient=getattr(tensor, "needs_gradient", True),
        signed=getattr(tensor, "signed", False),
    )


def _same_source(first: Callable[..., Any], second: Callable[..., Any]) -> bool:
    """Whether a notebook cell was simply run again: same function name in the same module."""
    names = [
        (getattr(f, "__module__", None), getattr(f, "__qualname__", None)) for f in (first, second)
    ]
    return first is second or (names[0] == names[1] and names[0] != (None, None))
