"""One trace, one answer: capacities, network, flow and scores; signed tensors give two flows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.attribution import Attribution, CertificateSummary
from flowopt.capacities import adds_residual
from flowopt.errors import InputError
from flowopt.explainer.networks import Wiring, network_of
from flowopt.explainer.receptive_field import (
    normalised,
    normalised_error,
    receptive_field,
    uniform_causal,
)
from flowopt.objectives import Objective
from flowopt.solution import FlowSolution, Status
from flowopt.solvers import Solver, solve
from flowopt.tensors import TensorSpec, stages_of
from flowopt.trace.layer import DECODER, DIRECT
from flowopt.trace.record import TokenInfo, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["FlowSettings", "flow_attribution"]


@dataclass(frozen=True)
class FlowSettings:
    """What turns a trace into an attribution; see `Explainer` for the meaning of each.

    Parameters
    ----------
    tensor : TensorSpec
    wiring : Wiring
    objective : Objective
    solver : str, Solver or None
    normalise : str
    model : str
        Name of the model, for the record.
    output : str
        What is explained, "class" or "token", for the record.
    """

    tensor: TensorSpec
    wiring: Wiring
    objective: Objective
    solver: str | Solver | None = None
    normalise: str = "none"
    model: str = ""
    output: str = "class"


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores of the input's tokens and of generated ones; what they were; what is proved."""

    scores: Array
    certificate: CertificateSummary
    prefix: Array | None = None
    raw: Array | None = None


def flow_attribution(
    trace: Trace, settings: FlowSettings, seconds: float | None = None
) -> Attribution:
    """Solve the flow problem of one trace, and read the scores.

    A signed tensor gives two networks, of its positive and of its negative part; the scores are
    the difference of the two flows (method.md, section 3).

    Parameters
    ----------
    trace : Trace
        With `prediction` and `target`.
    settings : FlowSettings
    seconds : float, optional
        What it took to make the trace.

    Raises
    ------
    InputError
        If the trace lacks a prediction, or the tensor cannot be made of it.
    SolverError
        If a flow problem could not be solved.
    """
    if trace.prediction is None or trace.target is None:
        raise InputError("the trace needs prediction and target; make it with trace_batch")
    start = time.perf_counter()
    tensors = stages_of(trace, settings.tensor)
    middle = time.perf_counter()
    solutions = _solved(tensors, trace, settings)
    found = _scores(solutions, tensors, trace, settings)
    end = time.perf_counter()
    info, generated = _tokens(trace)
    limits = [solution.max_flow for solution in solutions]
    return Attribution(
        text=info.text,
        tokens=info.tokens,
        scores=found.scores,
        special=np.array(info.special),
        word_ids=info.word_ids,
        offsets=info.offsets,
        prediction=trace.prediction,
        target=trace.target,
        value=_difference([float(solution.value) for solution in solutions]),
        # the share of a maximum flow means nothing for a difference of two flows
        max_flow=None if len(limits) > 1 or limits[0] is None else float(limits[0]),
        status=str(_worst(solutions)),
        certificate=found.certificate,
        settings=_record(
            settings,
            solutions[0],
            {"trace": seconds, "tensor": middle - start, "solve": end - middle},
        ),
        prefix_tokens=() if found.prefix is None else generated.tokens,
        prefix_scores=found.prefix,
        raw_scores=found.raw,
        grid=trace.grid,
        solutions=tuple(solutions),
    )


def _record(
    settings: FlowSettings, solution: FlowSolution, seconds: dict[str, float | None]
) -> dict[str, Any]:
    """What an attribution says of how it was made."""
    wiring = settings.wiring
    return {
        "model": settings.model,
        "output": settings.output,
        "tensor": settings.tensor.name,
        "signed": settings.tensor.signed,
        "objective": repr(settings.objective),
        "solver": str(solution.solver),
        "capacities": [_name(variant) for variant in wiring.variants],
        "sources": _described(solution.network.sources, solution.network.groups),
        "sources_given": wiring.sources is not None,
        "unroll": wiring.unroll,
        "stages": wiring.stages,
        "normalise": settings.normalise,
        "seconds": seconds,
    }


def _solved(
    tensors: Mapping[str, Array], trace: Trace, settings: FlowSettings
) -> list[FlowSolution]:
    """One solution; for a signed tensor those of its positive and of its negative part."""
    halves = [tensors]
    if settings.tensor.signed:
        halves = [
            {stage: np.maximum(sign * array, 0.0) for stage, array in tensors.items()}
            for sign in (1, -1)
        ]
    wiring = settings.wiring
    if settings.tensor.residual and wiring.sources is None and trace.readout is not None:
        # as with added residual edges: the others would revive nodes that are not read
        wiring = replace(wiring, sources="cls")
    return [
        solve(network_of(half, trace, wiring), settings.objective, solver=settings.solver)
        for half in halves
    ]


def _scores(
    solutions: Sequence[FlowSolution],
    tensors: Mapping[str, Array],
    trace: Trace,
    settings: FlowSettings,
) -> _Scores:
    """Read the flows at the input, and at generated tokens where these absorb flow themselves."""
    scores: Array = _difference([solution.attributions for solution in solutions])
    certificate, raw = CertificateSummary.of(*solutions), None
    count = len(scores) if trace.prefix is not None or trace.prompt is None else trace.prompt
    if settings.wiring.unroll:  # what flows through a generated token does not end there
        scores, certificate = scores[:count], certificate.first(count)
    if settings.normalise != "none":
        reference, doubt = _reference(tensors, trace, settings, len(scores))
        raw, scores = scores, normalised(scores, reference)
        error = normalised_error(raw, certificate.attribution_error, reference, doubt)
        certificate = replace(certificate, attribution_error=error)
    prefix = None
    if "decoder0" in solutions[0].network.groups:
        if not settings.wiring.unroll and not trace.echo:
            prefix = _difference([solution.node_flows["decoder0"] for solution in solutions])
    elif count < len(scores):
        prefix = scores[count:]
    raw = None if raw is None else raw[:count]
    return _Scores(scores[:count], certificate.first(count), prefix, raw)


def _tokens(trace: Trace) -> tuple[TokenInfo, TokenInfo]:
    """Tokens of the input, and those generated after it."""
    if trace.prefix is not None:
        return trace.info, trace.prefix
    count = len(trace.info.tokens) if trace.prompt is None else trace.prompt
    return trace.info.part(0, count), trace.info.part(count, len(trace.info.tokens))


def _reference(
    tensors: Mapping[str, Array], trace: Trace, settings: FlowSettings, count: int
) -> tuple[Array, Array | None]:
    """What scores are divided by, a count of edges or a flow; and a bound on its error."""
    if any(name in tensors for name in DIRECT.values()):
        raise InputError(
            "where tokens fade, every layer reads the input itself and early tokens have no "
            "advantage to divide by: leave normalise at 'none'"
        )
    layers, tokens, _ = tensors[DECODER].shape
    residual = adds_residual(settings.wiring.variants)
    position = tokens - 1 if trace.readout is None else trace.readout
    if settings.normalise == "inverse_receptive_field":
        return receptive_field(tokens, position, residual)[:count], np.zeros(count)
    uniform = {DECODER: uniform_causal(layers, tokens)}
    network = network_of(uniform, trace, settings.wiring)
    solution = solve(network, settings.objective, solver=settings.solver)
    doubt = solution.certificate.attribution_error
    return solution.attributions[:count], None if doubt is None else doubt[:count]


def _difference(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else parts[0] - parts[1]


def _worst(solutions: list[FlowSolution]) -> Status:
    return next((s.status for s in solutions if s.status != Status.OPTIMAL), solutions[0].status)


def _described(sources: Mapping[str, Sequence[int]], sizes: Mapping[str, int]) -> Any:
    """The top nodes that were fed: "all", or their positions."""
    ((group, nodes),) = sources.items()
    return "all" if len(nodes) == sizes[group] else list(nodes)


def _name(variant: Any) -> str:
    return str(getattr(variant, "__name__", None) or repr(variant))
