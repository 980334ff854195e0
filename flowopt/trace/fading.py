"""Tokens that fade out of attention: the path on which a text's tokens are deleted.

At a point alpha of such a path a token that moves is read with alpha^3 times its weight, before the
rows are normalised, in every layer and by every other position:

    A_ij proportional to m_j exp(s_ij),  m_j = alpha^3 for i != j,  m_i = 1,

so at alpha = 0 nothing but fixed tokens (the special ones) is seen, and at alpha = 1 the model is
its own. (Attention to an encoder whose tokens all fade stays as it is: its rows are normalised.) A
position still reads itself: what is deleted is what others learn from it. Embeddings stay as they
are. The power changes no integral; it puts points of the quadrature where few tokens are read a
little and much happens (32 points: relative error 1e-4, with alpha itself 2e-2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowopt.trace.forward_mode import changing
from flowopt.trace.layer import CROSS, DECODER

if TYPE_CHECKING:
    from flowopt.trace.walk import Points

__all__ = ["Fading", "current_fading", "fading"]

_POWER = 3
_GONE = 1e-10
"""Alpha at which a token counts as deleted; its logarithm is finite."""

_current: ContextVar[Fading | None] = ContextVar("fading", default=None)


@dataclass(frozen=True, eq=False)
class Fading:
    """How much every token is read, at some points of the paths of one example.

    Parameters
    ----------
    stages : mapping of module to str
        The stage of every attention module.
    moving : mapping of str to Tensor of bool (positions,)
        For "source" and "prefix", which tokens fade.
    faded : Tensor of bool (n,)
        At which points; at the others embeddings move instead.
    points : Points
    tangent : bool
        Whether scores carry their change, times the weight of the point, as dual numbers.
    """

    stages: Mapping[Any, str]
    moving: Mapping[str, Tensor]
    faded: Tensor
    points: Points
    tangent: bool = False

    def onto(self, mask: Tensor | None, module: Any, query: Tensor, key: Tensor) -> Tensor:
        """The mask (n, 1, q, k) of a layer's scores, and what fading adds to it."""
        stage = self.stages[module]
        read, others = self._read(stage, query, key)
        added = torch.where(others, _POWER * read.clamp_min(_GONE).log(), 0.0).to(query.dtype)
        if self.tangent:
            added = changing(added, self.change(stage, query, key))
        if mask is None:
            return added
        return mask[..., : key.shape[-2]] + added

    def change(self, stage: str, query: Tensor, key: Tensor) -> Tensor:
        """Derivative (n, 1, q, k) of the scores by alpha, times the weights of the points."""
        read, others = self._read(stage, query, key)
        weight = torch.as_tensor(self.points.weight, device=query.device)[:, None, None, None]
        return torch.where(others, _POWER * weight / read, 0.0).to(query.dtype)

    def _read(self, stage: str, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha (n, 1, 1, 1), and which keys (n, 1, q, k) fade for which query."""
        device, queries, keys = query.device, query.shape[-2], key.shape[-2]
        alpha = torch.as_tensor(self.points.alpha, device=device)[:, None, None, None]
        own = "prefix" if stage == DECODER and "prefix" in self.moving else "source"
        moves = torch.zeros(keys, dtype=torch.bool, device=device)
        known = self.moving[own][:keys].to(device)
        moves[: len(known)] = known
        others = moves.expand(queries, keys)
        if stage != CROSS:
            others = others & ~torch.eye(queries, keys, dtype=torch.bool, device=device)
        return alpha, others & self.faded.to(device)[:, None, None, None]


def current_fading() -> Fading | None:
    """The fading of this thread; None outside of `fading`."""
    return _current.get()


@contextmanager
def fading(what: Fading | None) -> Iterator[None]:
    """Let attention inside see tokens as far as they have faded."""
    token = _current.set(what)
    try:
        yield
    finally:
        _current.reset(token)
