"""From the tensors of a trace to the flow network of its architecture (method.md, section 2).

Flow runs from the position that is read, at the top, down to the input tokens. A stack of
self-attention layers is a chain of groups; attention to an encoder joins a decoder's groups to
the encoder's top one; generated tokens are joined to the positions that emitted them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowopt.capacities import CapacityVariant, adds_residual, compose
from flowopt.errors import InputError
from flowopt.explainer.sources import Sources, top_nodes
from flowopt.network import Block, FlowNetwork, Link
from flowopt.trace.layer import CROSS, DECODER, DIRECT, ENCODER
from flowopt.trace.record import Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["STAGES", "Wiring", "network_of"]

STAGES = ("parallel", "sequential")


@dataclass(frozen=True)
class Wiring:
    """How a trace becomes a network.

    Parameters
    ----------
    sources : None, "all", "cls", int or sequence of int
        Top nodes that the source feeds; see `Explainer`.
    variants : tuple of capacity variants
        Applied to the tensor, first to last.
    unroll : bool
        Whether flow through a generated token goes on to the position that emitted it, so that
        all of it ends in given tokens; otherwise generated tokens absorb flow themselves.
    stages : "parallel" or "sequential"
        Whether a decoder layer's self- and cross-attention leave one node, or two joined by a
        residual edge; the second needs a `Residual` among `variants`.

    Raises
    ------
    InputError
    """

    sources: Sources = None
    variants: tuple[CapacityVariant, ...] = ()
    unroll: bool = True
    stages: str = "parallel"

    def __post_init__(self) -> None:
        if not isinstance(self.unroll, (bool, np.bool_)):
            raise InputError(f"unroll must be True or False, not {self.unroll!r}")
        if self.stages not in STAGES:
            raise InputError(f"stages must be one of {', '.join(STAGES)}; not {self.stages!r}")
        if self.stages == "sequential" and not adds_residual(self.variants):
            raise InputError(
                "sequential stages need a residual edge past the cross-attention, else nothing "
                "reaches the self-attention: add Residual(0.5) to capacities"
            )


def network_of(tensors: Mapping[str, Array], trace: Trace, wiring: Wiring) -> FlowNetwork:
    """Build the network of one trace.

    Parameters
    ----------
    tensors : mapping of str to ndarray (L, q, k)
        Nonnegative, by stage.
    trace : Trace
        Its readout, prompt and the like.
    wiring : Wiring

    Returns
    -------
    FlowNetwork
        Its players are the input tokens; where generated tokens absorb flow too, that is the
        flow through ``layer0`` behind the prompt, or through ``decoder0``.
    """
    direct = {stage: tensors[name] for stage, name in DIRECT.items() if name in tensors}
    own = {stage: array for stage, array in tensors.items() if stage not in DIRECT.values()}
    if direct and wiring.variants:
        raise InputError(
            "capacity variants know nothing of edges that lead past layers: with the tensor "
            "'presence', or the baseline 'absent', leave capacities empty and stages 'parallel'"
        )
    past = (CROSS,) if wiring.stages == "sequential" and CROSS in own else ()
    given = {**own, **{stage: _with_way_past(own[stage]) for stage in past}}
    varied = compose(*wiring.variants).stages(given, across=(CROSS,), past=past)
    if set(varied) == {ENCODER}:
        return _encoder_only(varied[ENCODER], direct.get(ENCODER), trace, wiring)
    if set(varied) == {DECODER}:
        return _decoder_only(varied[DECODER], direct.get(DECODER), trace, wiring)
    if set(varied) == {ENCODER, DECODER, CROSS}:
        return _encoder_decoder(varied, direct, trace, wiring)
    raise InputError(f"no network is known for the stages {', '.join(varied)}")


def _encoder_only(
    capacities: Array, direct: Array | None, trace: Trace, wiring: Wiring
) -> FlowNetwork:
    layers, tokens, _ = capacities.shape
    residual = adds_residual(wiring.variants)
    top = top_nodes(wiring.sources, tokens, trace.readout, residual)
    if direct is None:
        return FlowNetwork.layered(capacities, sources=top)
    return FlowNetwork(
        _sizes("layer", layers, tokens),
        [*_chain("layer", capacities), *_to_input("layer", "layer0", direct)],
        sources={f"layer{layers}": list(range(tokens)) if isinstance(top, str) else top},
        sinks={"layer0": range(tokens)},
    )


def _decoder_only(
    capacities: Array, direct: Array | None, trace: Trace, wiring: Wiring
) -> FlowNetwork:
    layers, tokens, _ = capacities.shape
    top = _emitting(wiring.sources, tokens, trace.readout)
    prompt = tokens if trace.prompt is None or not wiring.unroll else trace.prompt
    pairs = _one_back(prompt, tokens)
    return FlowNetwork(
        _sizes("layer", layers, tokens),
        [*_chain("layer", capacities), *_to_input("layer", "layer0", direct)],
        [Link("layer0", f"layer{layers}", pairs)] if len(pairs) else (),
        sources={f"layer{layers}": top},
        sinks={"layer0": range(prompt)},
    )


def _encoder_decoder(
    capacities: Mapping[str, Array],
    direct: Mapping[str, Array],
    trace: Trace,
    wiring: Wiring,
) -> FlowNetwork:
    own, across = capacities[DECODER], capacities[CROSS]
    depth, (layers, tokens, _) = len(capacities[ENCODER]), own.shape
    source = capacities[ENCODER].shape[1]
    if len(across) != layers:
        raise InputError(
            f"{layers} layers of decoder self-attention, but {len(across)} of cross-attention"
        )
    groups = _sizes("encoder", depth, source) | _sizes("decoder", layers, tokens)
    blocks = _chain("encoder", capacities[ENCODER])
    links = []
    for layer in range(layers):
        upper, lower = f"decoder{layer + 1}", f"decoder{layer}"
        blocks.append(Block(upper, f"encoder{depth}", across[layer, :, :source]))
        if wiring.stages == "sequential":
            groups[f"middle{layer}"] = tokens
            same = np.repeat(np.arange(tokens), 2).reshape(-1, 2)
            links.append(Link(upper, f"middle{layer}", same, across[layer, :, source]))
            upper = f"middle{layer}"
        blocks.append(Block(upper, lower, own[layer]))
    blocks += _to_input("encoder", "encoder0", direct.get(ENCODER))
    blocks += _to_input("decoder", "decoder0", direct.get(DECODER))
    blocks += _to_input("decoder", "encoder0", direct.get(CROSS))
    sinks: dict[str, Sequence[int]] = {"encoder0": range(source)}
    if trace.echo:  # the decoder reads the source's tokens, one position later
        links.append(Link("decoder0", "encoder0", _one_back(1, tokens)))
    elif wiring.unroll:
        pairs = _one_back(trace.prompt or 1, tokens)
        if len(pairs):
            links.append(Link("decoder0", f"decoder{layers}", pairs))
    else:
        sinks["decoder0"] = range(tokens)
    return FlowNetwork(
        groups,
        blocks,
        links,
        sources={f"decoder{layers}": _emitting(wiring.sources, tokens, trace.readout)},
        sinks=sinks,
        players="encoder0",
    )


def _emitting(sources: Sources, tokens: int, readout: int | None) -> list[int]:
    """Top nodes of a decoder: by default the one position that is read."""
    if sources is None:
        return list(range(tokens)) if readout is None else [readout]
    top = top_nodes(sources, tokens, readout, residual=False)
    return list(range(tokens)) if isinstance(top, str) else top


def _sizes(name: str, layers: int, tokens: int) -> dict[str, int]:
    return {f"{name}{depth}": tokens for depth in range(layers + 1)}


def _chain(name: str, capacities: Array) -> list[Block]:
    return [
        Block(f"{name}{layer + 1}", f"{name}{layer}", block)
        for layer, block in enumerate(capacities)
    ]


def _to_input(name: str, tokens: str, direct: Array | None) -> list[Block]:
    """Blocks that lead from every layer right to the input."""
    blocks = () if direct is None else direct
    return [Block(f"{name}{layer + 1}", tokens, block) for layer, block in enumerate(blocks)]


def _one_back(first: int, end: int) -> NDArray[np.int64]:
    """Pairs (position, the one before it)."""
    positions = np.arange(first, end, dtype=np.int64)
    return np.stack([positions, positions - 1], axis=1)


def _with_way_past(across: Array) -> Array:
    """Attention to an encoder, and a last column for the residual edge that leads past it."""
    return np.concatenate([across, np.zeros_like(across[:, :, :1])], axis=2)
