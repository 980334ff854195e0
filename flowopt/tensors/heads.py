"""Other ways to make one number of the heads on an edge than their mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from flowopt.errors import InputError
from flowopt.tensors.attention import AFTER_GAF, gradient_of, product_of
from flowopt.tensors.registry import TensorSpec, register_spec, register_tensor
from flowopt.trace.layer import AttentionLayer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["head_statistic"]

_STATISTICS = ("min", "median", "max", "mean", "quantile")
_BY_HEAD: dict[str, Callable[[AttentionLayer], Tensor]] = {
    "af": lambda layer: layer.attention,
    "gf": lambda layer: gradient_of(layer).clamp(min=0),
    "agf": lambda layer: product_of(layer).clamp(min=0),
}
_FIXED = {"min": 0.0, "median": 0.5, "max": 1.0}


def head_statistic(statistic: str, q: float | None = None, of: str = "af") -> TensorSpec:
    """Make a tensor of a statistic over heads, edge by edge.

    Parameters
    ----------
    statistic : str
        "min", "median", "max", "mean" or "quantile".
    q : float, optional
        Of "quantile": from 0 (least head) to 1 (largest), linear in between.
    of : str
        What of every head: "af" (A), "gf" (max(G, 0)) or "agf" (max(A * G, 0)).

    Returns
    -------
    TensorSpec
        To be used as `tensor`, or to be registered with `register_spec`.

    Raises
    ------
    InputError
        If there is no such statistic, or `q` is not from 0 to 1.

    Examples
    --------
    >>> head_statistic("quantile", 0.9).name
    'af-quantile-0.9'
    """
    if statistic not in _STATISTICS:
        raise InputError(f"statistic must be one of {', '.join(_STATISTICS)}; not {statistic!r}")
    if of not in _BY_HEAD:
        raise InputError(f"of must be one of {', '.join(_BY_HEAD)}; not {of!r}")
    if (statistic == "quantile") == (q is None):
        raise InputError("give q, from 0 to 1, with 'quantile' and with nothing else")
    share = _FIXED.get(statistic)
    if q is not None:
        if isinstance(q, bool) or not isinstance(q, (int, float)) or not 0 <= q <= 1:
            raise InputError(f"q must be a number from 0 to 1, not {q!r}")
        share = float(q)

    def layer_function(layer: AttentionLayer) -> Tensor:
        heads = _BY_HEAD[of](layer)
        return heads.mean(dim=0) if share is None else _quantile(heads, share)

    what = {"af": "A", "gf": "max(G, 0)", "agf": "max(A * G, 0)"}[of]
    label = statistic if q is None else f"{float(q):g}-quantile"
    layer_function.__doc__ = f"The {label} over heads of ``{what}``."
    name = f"{of}-{statistic}" + ("" if q is None else f"-{float(q):g}")
    return TensorSpec(name, layer=layer_function, needs_gradient=of != "af", reference=AFTER_GAF)


for _of, _statistic in (("af", "max"), ("af", "min"), ("agf", "max")):
    register_spec(head_statistic(_statistic, of=_of))


@register_tensor(
    "af-entropy",
    needs_gradient=False,
    per_layer=True,
    reference="entropy of heads: Clark et al. (2019); the weights are ours",
)
def entropy_tensor(layer: AttentionLayer) -> Tensor:
    """Attention, heads weighted by how sharp they are: ``sum_h w_h A / sum_h w_h``.

    ``w_h = mean_i (1 - H_hi / log n_i)``, H_hi the entropy of row i of head h and n_i > 1 the
    number of positions that i sees: 1 for a head that looks at one position, 0 for one that looks
    at all alike. Where no head is sharper than that, all weigh the same.
    """
    import torch

    attention = layer.attention
    seen = (attention > 0).any(dim=0).sum(dim=-1)
    rows = seen > 1
    if not bool(rows.any()):
        return attention.mean(dim=0)
    entropy = torch.special.entr(attention).sum(dim=-1)[:, rows]
    weights = (1.0 - entropy / seen[rows].to(attention.dtype).log()).mean(dim=1).clamp(min=0)
    total = weights.sum()
    if float(total) <= 1e-6 * len(weights):
        return attention.mean(dim=0)
    return torch.einsum("h,hqk->qk", weights / total, attention)


def _quantile(heads: Tensor, share: float) -> Tensor:
    """Quantile over the first axis; torch.quantile refuses large tensors."""
    ordered = heads.sort(dim=0).values
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low].lerp(ordered[high], place - low)
