"""Edge conductance: what passes along every edge of a transformer, integrated over a path.

With h_l the residual stream that enters layer l and inputs x(alpha) = x' + alpha (x - x'),

    E_l[i, j] = integral of dy/dh_{l+1,i} . (dh_{l+1,i}/dh_{l,j}) . (dh_{l,j}/dalpha) dalpha.

For i != j only the attention of layer l joins the two nodes. With gamma_i = dy/d(output of a head
at i) and dv, dk the derivatives of values and keys by alpha, each head passes on

    A_ij gamma_i . dv_j  +  A_ij (G_ij - sum_k A_ik G_ik) c_ij q_i . dk_j,

c_ij the derivative of the score by q_i . k_j. The diagonal is what is left of the conductance of
node (l, j), dy/dh_{l,j} . dh_{l,j}/dalpha: residual connection, feed-forward part and all.

The integral is a Gauss-Legendre sum. At each of its points all derivatives are exact, those by
alpha by forward-mode differentiation, so that E is conserved at every node whatever the number of
steps; only its value, y(x) - y(x'), depends on the quadrature (method.md, section 1).

From the baseline "absent" (`flowopt.trace.fading`) inputs stay, and the scores of all keys change
by (log m_j)' of their own. What that does at edge (i, j) of layer l,

    D_l[i, j] = integral of A_ij (G_ij - sum_k A_ik G_ik) (log m_j)' dalpha,

summed over heads, goes straight to token j: edges from every layer to the input. Node (l+1, i) then
passes on all of E_l[i, :] and D_l[i, :], and token j has the sum of D over layers and positions:
by what y changes as others cease to read it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowopt.errors import FlowoptWarning, UnsupportedError
from flowopt.trace.edges import ChangeRecorder, EdgeRecorder, check_close
from flowopt.trace.forward_mode import change_of, forward_mode
from flowopt.trace.goals import explained
from flowopt.trace.layer import CROSS, DECODER, DIRECT, ENCODER
from flowopt.trace.path import Path, PathOptions
from flowopt.trace.read import call_options, logits_of
from flowopt.trace.reading import reading_mode
from flowopt.trace.recorder import Recorder
from flowopt.trace.shared import ATTENTION, recording, shares_attention
from flowopt.trace.walk import Points, chunk_size, examples_of, inputs_at

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from flowopt.trace.batch import Batch
    from flowopt.trace.record import Trace

    Array = NDArray[np.float64]
    Place = tuple[str, int]

__all__ = ["EdgeConductance", "edge_conductance"]

_DOUBLINGS = 3


@dataclass(frozen=True, eq=False)
class EdgeConductance:
    """Edge and node conductances of one example; padding removed.

    Parameters
    ----------
    edges : mapping of str to ndarray (L, q, k)
        By stage; signed. Entry [l, i, j] is what passes from node j of layer l to node i above.
    nodes : mapping of str to ndarray (L + 1, t)
        For "encoder" and "decoder". Row 0 is integrated gradients, summed over the embedding.
    direct : mapping of str to ndarray (L, q, k)
        By stage; signed. Entry [l, i, j] is what passes from input token j straight to node i
        above layer l, by being read there. Empty unless tokens fade.
    change : float
        y(x) - y(x'), averaged over the baselines.
    steps : int
        Points on each path; more than were asked for where the tolerance needed them.
    """

    edges: Mapping[str, Array]
    nodes: Mapping[str, Array]
    change: float
    steps: int
    direct: Mapping[str, Array] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, Array]:
        """What passes from every input token (t,), for "encoder" and "decoder"."""
        found = {stage: rows[0].copy() for stage, rows in self.nodes.items()}
        for stage, array in self.direct.items():
            found[ENCODER if stage == CROSS else stage] += array.sum(axis=(0, 1))
        return found

    @property
    def total(self) -> float:
        """Sum over the input tokens; `change`, were the quadrature exact."""
        return float(sum(scores.sum() for scores in self.inputs.values()))

    @property
    def completeness(self) -> float:
        """|total - change| relative to the larger of |change| and a tenth of sum_j |node j|.

        The second keeps changes that cancel from making any error look large.
        """
        size = 0.1 * float(sum(np.abs(scores).sum() for scores in self.inputs.values()))
        error = abs(self.total - self.change)
        return error / max(abs(self.change), size) if error > 0 else 0.0


def edge_conductance(
    model: PreTrainedModel, batch: Batch, options: PathOptions | None = None
) -> Iterator[tuple[Trace, EdgeConductance]]:
    """Edge conductances of the examples of a batch, one after the other.

    Parameters
    ----------
    model : PreTrainedModel
        Left as it was found. Use float32 or float64.
    batch : Batch
    options : PathOptions, optional

    Yields
    ------
    Trace
        With `tensors`, the edges by stage.
    EdgeConductance

    Raises
    ------
    InputError
        If the inputs or a baseline do not fit the model.
    UnsupportedError
        If the model's attention is no softmax of scaled products of queries and keys plus a bias,
        or its positions mix outside of it.

    References
    ----------
    Conductance of a node: Dhamdhere, Sundararajan & Yan (2019). Of an edge: method.md, section 1.
    """
    chosen = PathOptions() if options is None else options
    if not shares_attention(model):
        raise UnsupportedError(
            f"{type(model).__name__} computes attention by code of its own, so that its queries, "
            "keys and values cannot be followed; edge conductance needs them. Use 'agf' or "
            "'agf-path', which need attention only"
        )
    for trace, one, path in examples_of(model, batch, chosen):
        with reading_mode(model, ATTENTION), torch.inference_mode(False):
            found = _accurate(model, one, path, chosen)
        direct = {DIRECT[stage]: array for stage, array in found.direct.items()}
        yield replace(trace, tensors={**found.edges, **direct}), found


def _accurate(
    model: PreTrainedModel, batch: Batch, path: Path, options: PathOptions
) -> EdgeConductance:
    """Conductances of a batch of one example, with as many steps as its tolerance needs."""
    limit = math.inf if options.tolerance is None else options.tolerance
    steps = int(options.steps)
    for _ in range(_DOUBLINGS + 1):
        found = _conductance(model, batch, path, steps)
        if found.completeness <= limit:
            return found
        steps *= 2
    warnings.warn(
        f"edge conductances sum to {found.total:.4g}, but the prediction changes by "
        f"{found.change:.4g} along the path, even with {found.steps} steps: other baselines may "
        "lead to a smoother path (zero embeddings are a poor start for models with RMSNorm)",
        FlowoptWarning,
        stacklevel=2,
    )
    return found


def _conductance(model: PreTrainedModel, batch: Batch, path: Path, steps: int) -> EdgeConductance:
    """Conductances of a batch of one example."""
    ends = Points.ends(path.shares)
    sums: tuple[dict[Place, Array], ...] = ({}, {}, {})
    with torch.no_grad(), inputs_at(model, batch, path, ends) as (inputs, _):
        logits = logits_of(model, model(**inputs, **call_options(model)))
        values = [float(explained(row[None], batch.goals)[0]) for row in logits]
    points = Points.gauss_legendre(path.shares, steps)
    for some in points.chunks(chunk_size(model, batch)):
        for found, added in zip(sums, _passes(model, batch, path, some), strict=True):
            for place, array in added.items():
                found[place] = found.get(place, 0.0) + array
    edges, nodes, direct = _assembled(batch, *sums)
    _check_nodes(edges, nodes, direct, model.dtype)
    return EdgeConductance(edges, nodes, float(np.dot(values, ends.weight)), steps, direct)


def _passes(
    model: PreTrainedModel, batch: Batch, path: Path, points: Points
) -> tuple[dict[Place, Array], dict[Place, Array], dict[Place, Array]]:
    """Edge values, node conductances, direct edges, summed over some points: three passes."""
    options = call_options(model, output_hidden_states=True)
    dual = ChangeRecorder(model, batch)
    with (
        forward_mode(),
        recording(dual),
        inputs_at(model, batch, path, points, tangent=True) as (inputs, _),
    ):
        changes = {
            place: change_of(h) for place, h in _hidden(model(**inputs, **options), dual).items()
        }
    recorder = EdgeRecorder(model, batch, dual.changes)
    with (
        torch.enable_grad(),
        recording(recorder),
        inputs_at(model, batch, path, points) as (inputs, _),
    ):
        outputs = model(**inputs, **options)
        hidden = _hidden(outputs, recorder)
        goals = batch.goals * len(points.alpha)
        total = explained(logits_of(model, outputs), goals)[0]
        by_hidden = torch.autograd.grad(total, list(hidden.values()), allow_unused=True)
    recorder.check_complete(recorder.sums)
    nodes = {
        place: _numpy(torch.zeros_like(change[0, :, 0]) if g is None else (g * change).sum((0, 2)))
        for (place, change), g in zip(changes.items(), by_hidden, strict=True)
    }
    edges, direct = (
        {place: _numpy(array) for place, array in found.items()}
        for found in (recorder.sums, recorder.direct)
    )
    return edges, nodes, direct


def _hidden(outputs: Any, recorder: Recorder) -> dict[Place, Tensor]:
    """Residual streams by stage and depth: what enters each layer, and what leaves the last."""
    names = {recorder.family.kind: "hidden_states"}
    if recorder.family.kind == "encoder-decoder":
        names = {ENCODER: "encoder_hidden_states", DECODER: "decoder_hidden_states"}
    found = {}
    for stage, name in names.items():
        states = getattr(outputs, name, None)
        layers = recorder.calls.get(stage, 0)
        if states is None or len(states) != layers + 1:
            raise UnsupportedError(
                f"the model returns {len(states or ())} {stage} hidden states for {layers} layers "
                "of attention; edge conductance needs one more than there are layers"
            )
        found.update({(stage, depth): state for depth, state in enumerate(states)})
    return found


def _assembled(
    batch: Batch,
    edges: Mapping[Place, Array],
    nodes: Mapping[Place, Array],
    direct: Mapping[Place, Array],
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Edges, their diagonals completed, nodes and direct edges by stage; padding dropped."""
    own = batch.decoder_kept or batch.kept
    kept = {ENCODER: (batch.kept[0],) * 2, CROSS: (own[0], batch.kept[0]), DECODER: (own[0],) * 2}

    def stacked(given: Mapping[Place, Array]) -> dict[str, Array]:
        found = {}
        for stage in dict.fromkeys(stage for stage, _ in given):
            layers = [given[stage, i] for i in range(sum(s == stage for s, _ in given))]
            found[stage] = np.stack([layer[np.ix_(*kept[stage])] for layer in layers])
        return found

    by_stage = stacked(edges)
    node_rows = {
        stage: np.stack([nodes[stage, i][list(kept[stage][0])] for i in range(len(layers) + 1)])
        for stage, layers in by_stage.items()
        if stage != CROSS
    }
    for stage, rows_of in node_rows.items():
        diagonal = np.arange(rows_of.shape[1])
        by_stage[stage][:, diagonal, diagonal] = 0.0
        rest = rows_of[:-1] - by_stage[stage].sum(axis=1)
        by_stage[stage][:, diagonal, diagonal] = rest
    return by_stage, node_rows, stacked(direct)


def _check_nodes(
    edges: Mapping[str, Array],
    nodes: Mapping[str, Array],
    direct: Mapping[str, Array],
    dtype: torch.dtype,
) -> None:
    """Refuse conductances that are not conserved: then nodes are joined in some other way.

    Columns add up to their nodes by construction; here are the rows, and the encoder's top.
    """
    for stage, rows in nodes.items():
        joined = (stage, CROSS) if stage == DECODER and CROSS in edges else (stage,)
        parts = [found[s] for found in (edges, direct) for s in joined if s in found]
        leaving = sum(part.sum(axis=2) for part in parts)
        pairs = [(f"{stage} layer {i}", leaving[i], rows[i + 1]) for i in range(len(leaving))]
        if stage == ENCODER and CROSS in edges:
            pairs.append(("the encoder's top", edges[CROSS].sum(axis=(0, 1)), rows[-1]))
        for name, found, expected in pairs:
            sizes = [np.abs(part).sum(axis=(1, 2)).max() for part in parts]
            size = max(np.abs(rows).sum(axis=1).max(), *sizes)
            check_close(name, float(np.abs(found - expected).max()), float(size), dtype)


def _numpy(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()
