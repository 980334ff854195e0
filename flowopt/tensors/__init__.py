"""Information tensors: from attention and gradients to the capacities of a network.

A tensor is made layer by layer while a model is read (torch, `AttentionLayer` -> (q, k)), from
all heads at once (numpy, `Trace` -> (L, q, k)), or by passes of its own (along a path of inputs);
row = query (upper layer), column = key (lower layer). Register your own with `register_tensor`,
or pass a function of a `Trace` itself wherever a name is accepted.
"""

from __future__ import annotations

from flowopt.tensors import attention as attention  # registers its tensors, as do the others
from flowopt.tensors.arrays import capacities_of, information_tensor, stages_of
from flowopt.tensors.heads import head_statistic
from flowopt.tensors.paths import AttentionPath, Conductance
from flowopt.tensors.registry import (
    Specified,
    TensorFunction,
    TensorSpec,
    available_tensors,
    register_spec,
    register_tensor,
    tensor_spec,
)

__all__ = [
    "AttentionPath",
    "Conductance",
    "Specified",
    "TensorFunction",
    "TensorSpec",
    "available_tensors",
    "capacities_of",
    "head_statistic",
    "information_tensor",
    "register_spec",
    "register_tensor",
    "stages_of",
    "tensor_spec",
]
