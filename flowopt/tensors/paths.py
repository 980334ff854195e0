"""Tensors integrated along a path of inputs: edge conductance, and attention times gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from types import NoneType
from typing import TYPE_CHECKING

import numpy as np

from flowopt.tensors.registry import TensorSpec, register_spec
from flowopt.trace.layer import AttentionLayer
from flowopt.trace.path import MIXED, PathOptions

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from flowopt.trace.batch import Batch
    from flowopt.trace.record import Trace

    Reader = Callable[[PreTrainedModel, Batch], Iterator[Trace]]

__all__ = ["AttentionPath", "Conductance"]


@dataclass(frozen=True, eq=False)
class Conductance(PathOptions):
    """Edge conductance: what passes along every edge, integrated over a path of inputs.

    The tensor in which flow is conserved: edges into a node and edges out of it have the same sum,
    that of an input node is its integrated gradients, and all of it is y(x) - y(x'). Signed; flow
    on it starts where the prediction is read. See `flowopt.trace.conductance`.

    With generated tokens that move along the path (`prefix`), theirs is conductance as well: with
    ``unroll=True`` flow that reaches one goes on to the position that emitted it, whose own
    conductance bounds what it can take. With ``prefix=False`` all of y(x) - y(x') lies in the
    given tokens.

    Parameters
    ----------
    steps, baselines, prefix, tolerance
        See `flowopt.trace.path.PathOptions`.

    From the baseline "absent" tokens fade out of attention in all layers, and every layer then
    has edges right to the input: flow ends where a token is read. "mixed" takes half of that and
    half of the default; the tensor is then called "presence".

    Examples
    --------
    >>> Conductance(steps=64, baselines="mask").spec.name
    "conductance(steps=64, baselines='mask')"
    >>> Conductance(baselines="mixed").spec.name
    'presence'
    """

    @property
    def spec(self) -> TensorSpec:
        """The tensor with these options."""
        mixed = isinstance(self.baselines, str) and self.baselines == MIXED
        return TensorSpec(
            _name("presence", replace(self, baselines=None))
            if mixed
            else _name("conductance", self),
            reader=_presence_reader(self) if mixed else _conductance_reader(self),
            signed=True,
            residual=True,
            reference="method.md, section 1; of nodes: Dhamdhere, Sundararajan & Yan (2019)",
            cost=f"{self.steps} x (3 forward, 1 backward) for every baseline",
        )


@dataclass(frozen=True, eq=False)
class AttentionPath(PathOptions):
    """Attention times gradient, averaged over heads and along a path of inputs.

    Parameters
    ----------
    steps, baselines, prefix
        See `flowopt.trace.path.PathOptions`; there is no total to compare with, so `tolerance`
        has no effect.
    signed : bool
        Whether to keep negative entries; otherwise they become 0, after the averages.

    Notes
    -----
    Hao et al. (2021) integrate along attention that is scaled from 0 to A; here the input moves,
    and attention with it.
    """

    signed: bool = False

    @property
    def spec(self) -> TensorSpec:
        """The tensor with these options."""
        return TensorSpec(
            _name("agf-path-signed" if self.signed else "agf-path", self),
            reader=_attention_reader(self),
            signed=self.signed,
            reference="GAF's future work; compare Hao et al. (2021)",
            cost=f"{self.steps} x (1 forward, 1 backward) for every baseline",
        )


def _conductance_reader(options: PathOptions) -> Reader:
    def read(model: PreTrainedModel, batch: Batch) -> Iterator[Trace]:
        """Edge conductance: what passes along every edge, integrated over a path of inputs."""
        from flowopt.trace.conductance import edge_conductance

        return (trace for trace, _ in edge_conductance(model, batch, options))

    return read


def _presence_reader(options: PathOptions) -> Reader:
    def read(model: PreTrainedModel, batch: Batch) -> Iterator[Trace]:
        """Edge conductance, half of it as tokens fade out of attention, half as they change."""
        return _conductance_reader(options)(model, batch)

    return read


def _attention_reader(options: AttentionPath) -> Reader:
    def read(model: PreTrainedModel, batch: Batch) -> Iterator[Trace]:
        """Attention times gradient, averaged over heads and along a path of inputs."""
        from flowopt.trace.walk import path_averages

        for trace in path_averages(model, batch, options, _product):
            if options.signed:
                yield trace
                continue
            netted = {stage: np.maximum(array, 0.0) for stage, array in trace.tensors.items()}
            yield replace(trace, tensors=netted)

    return read


def _product(layer: AttentionLayer) -> Tensor:
    assert layer.gradient is not None
    return (layer.attention * layer.gradient).mean(dim=0)


def _name(name: str, options: PathOptions) -> str:
    """The name, and those options that are not the default ones."""
    said = []
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name == "signed" or value is field.default:
            continue
        if not isinstance(value, (str, int, float, tuple, list, NoneType)):
            said.append(f"{field.name}=array")
        elif value != field.default:
            said.append(f"{field.name}={value!r}")
    return f"{name}({', '.join(said)})" if said else name


for _options in (
    Conductance(),
    Conductance(baselines=MIXED),
    AttentionPath(),
    AttentionPath(signed=True),
):
    register_spec(_options.spec)
