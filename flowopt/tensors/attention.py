"""Tensors of attention A, its gradient G and the values V, one layer at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowopt.errors import InputError, UnsupportedError
from flowopt.tensors.registry import register_tensor
from flowopt.trace.layer import AttentionLayer

if TYPE_CHECKING:
    from torch import Tensor

__all__: list[str] = []

GAF = "GAF (Azarkhalili & Libbrecht, 2025)"
AFTER_GAF = "one of the other definitions that GAF names as future work"


@register_tensor("af", needs_gradient=False, per_layer=True, reference=GAF)
def attention_tensor(layer: AttentionLayer) -> Tensor:
    """Attention, averaged over heads: ``mean_h A`` (GAF's AF)."""
    return layer.attention.mean(dim=0)


@register_tensor("gf", per_layer=True, reference=GAF)
def gradient_tensor(layer: AttentionLayer) -> Tensor:
    """Positive gradients, averaged over heads: ``mean_h max(G, 0)`` (GAF's GF)."""
    return gradient_of(layer).clamp(min=0).mean(dim=0)


@register_tensor("agf", per_layer=True, reference=GAF)
def attention_gradient_tensor(layer: AttentionLayer) -> Tensor:
    """Positive attention times gradient, averaged over heads: ``mean_h max(A * G, 0)`` (AGF).

    The positive part comes before the mean: heads that speak against the class do not cancel
    those that speak for it. As G_ij is the product of the values of j with the gradient at the
    output of i, values are weighed already.
    """
    return product_of(layer).clamp(min=0).mean(dim=0)


@register_tensor("agf-negative", per_layer=True, reference=AFTER_GAF)
def negative_tensor(layer: AttentionLayer) -> Tensor:
    """What speaks against the class: ``mean_h max(-A * G, 0)``."""
    return (-product_of(layer)).clamp(min=0).mean(dim=0)


@register_tensor("agf-abs", per_layer=True, reference=AFTER_GAF)
def absolute_tensor(layer: AttentionLayer) -> Tensor:
    """What matters, for or against the class: ``mean_h |A * G|``."""
    return product_of(layer).abs().mean(dim=0)


@register_tensor("agf-signed", per_layer=True, signed=True, reference=AFTER_GAF)
def signed_tensor(layer: AttentionLayer) -> Tensor:
    """Attention times gradient with its sign: ``mean_h A * G``, explained by signed flow."""
    return product_of(layer).mean(dim=0)


@register_tensor("agf-netted", per_layer=True, reference=AFTER_GAF)
def netted_tensor(layer: AttentionLayer) -> Tensor:
    """Heads netted before the positive part: ``max(mean_h A * G, 0)``.

    A head that speaks against the class cancels one that speaks for it, on the same edge.
    """
    return product_of(layer).mean(dim=0).clamp(min=0)


@register_tensor(
    "value-norm", needs_gradient=False, per_layer=True, reference="Kobayashi et al. (2020)"
)
def value_norm_tensor(layer: AttentionLayer) -> Tensor:
    """Length of the vector that an edge adds to its upper node: ``||sum_h A_ij V_j W_O||``.

    From products of the heads' vectors, so that no vector is formed for every edge.

    Raises
    ------
    InputError
        If it is asked of plain arrays, which lack the values.
    UnsupportedError
        If the family of the model does not say which matrix W_O is.
    """
    import torch

    if layer.value is None:
        raise InputError(
            "'value-norm' needs the values of every layer, which are read with the model only: "
            "use Explainer(model, tensor='value-norm'), with a model that shares its attention"
        )
    if layer.projection is None:
        raise UnsupportedError(
            "'value-norm' needs the output matrix behind the heads, and the model's family does "
            "not say which it is: declare it with flowopt.trace.register_family(model_type, "
            "Family(projection=...))"
        )
    vectors = layer.value @ layer.projection  # (H, k, width)
    products = torch.einsum("gkw,hkw->kgh", vectors, vectors)
    squares = torch.einsum("gqk,kgh,hqk->qk", layer.attention, products, layer.attention)
    return squares.clamp(min=0).sqrt()


def gradient_of(layer: AttentionLayer) -> Tensor:
    """The layer's gradient, known to be there; 0 where a mask lets no head attend.

    A masked edge has a gradient like any other, but it is no edge: a causal model's network would
    have edges to later positions.
    """
    assert layer.gradient is not None  # the passes were asked for it
    return layer.gradient * (layer.attention != 0).any(dim=0)


def product_of(layer: AttentionLayer) -> Tensor:
    """Attention times gradient (H, q, k)."""
    return layer.attention * gradient_of(layer)
