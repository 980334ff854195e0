"""Flow methods by name: any information tensor with any objective."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowopt.errors import FlowoptWarning, InputError
from flowopt.methods.registry import MethodSpec
from flowopt.tensors import available_tensors, tensor_spec
from flowopt.trace.path import MIXED

if TYPE_CHECKING:
    from flowopt.attribution import Attribution
    from flowopt.capacities import CapacityVariant
    from flowopt.explainer.sources import Sources
    from flowopt.methods.subject import Subject
    from flowopt.objectives import Objective
    from flowopt.solvers import Solver
    from flowopt.trace import Target

__all__ = ["flow", "flow_spec", "flow_specs"]

# word in a method's name -> class in flowopt.objectives
_OBJECTIVES = {
    "maxflow": "MaxFlow",
    "barrier": "LogBarrier",
    "quadratic": "Quadratic",
    "entropy": "Entropy",
    "fair": "ProportionalFair",
    "maxminfair": "MaxMinFair",
    "shapley": "ShapleyFlow",
}
_GAF = ("af", "gf", "agf")
_CONDUCTANCE = "conductance-flow"
"""Flow on edge conductance under the barrier; also "conductance-barrier"."""
_PRESENCE = "presence-flow"
_TAU = 10.0
"""Weight at which the entropy flow is nearly the feasible flow that is nearest to capacities."""


def flow(
    subject: Subject,
    *,
    tensor: str,
    objective: str,
    mu: float | None = None,
    gap: float | None = None,
    rho: float | None = None,
    tau: float | None = None,
    samples: int | None = None,
    seed: int | None = None,
    steps: int | None = None,
    baselines: Any = None,
    solver: str | Solver | None = None,
    sources: Sources = None,
    capacities: CapacityVariant | Sequence[CapacityVariant] = (),
    stages: str = "parallel",
    contrast: Target = None,
    normalise: str = "none",
) -> Attribution:
    """Flow through every token, by `flowopt.Explainer`.

    Parameters
    ----------
    subject : Subject
    tensor, objective : str
        From the method's name.
    mu, gap, rho, tau, samples, seed : optional
        Weights of the objective; the barrier's default is ``gap=0.05``.
    steps, baselines : optional
        Of tensors along a path of inputs; see `flowopt.tensors.Conductance`. Other baselines than
        "mixed" make "presence" plain conductance along those paths.
    solver, sources, capacities, stages, contrast, normalise
        See `flowopt.Explainer`.

    Raises
    ------
    InputError
        If the objective does not take a weight, or the tensor follows no path.
    """
    from flowopt.explainer import Explainer

    weights = {"mu": mu, "gap": gap, "rho": rho, "tau": tau, "samples": samples, "seed": seed}
    explainer = Explainer(
        subject.model,
        subject.tokenizer,
        tensor=_tensor(tensor, steps, baselines),
        objective=_objective(objective, {k: v for k, v in weights.items() if v is not None}),
        solver=solver,
        sources=sources,
        capacities=capacities,
        stages=stages,
        contrast=contrast,
        normalise=normalise,
    )
    with warnings.catch_warnings():
        # that a text was cut has been said when the subject was made
        warnings.simplefilter("ignore", FlowoptWarning)
        return explainer(subject.text, subject.wanted)


def flow_specs() -> Iterator[MethodSpec]:
    """Flow methods that are listed: GAF's, edge conductance, and the barrier on other tensors."""
    tensors = available_tensors()
    yield from (_spec(f"{t}-{o}", t, o) for t in _GAF for o in ("maxflow", "barrier"))
    yield _spec(_CONDUCTANCE, "conductance", "barrier")
    yield _presence()
    others = (t for t in tensors if t not in (*_GAF, "conductance", "presence"))
    yield from (_spec(f"{tensor}-barrier", tensor, "barrier") for tensor in others)


def flow_spec(name: str) -> MethodSpec | None:
    """The flow method of a name such as "agf-barrier"; None if it is no such name."""
    if name == _CONDUCTANCE:
        return _spec(name, "conductance", "barrier")
    if name == _PRESENCE:
        return _presence()
    tensor, _, objective = name.rpartition("-")
    if objective not in _OBJECTIVES or tensor not in available_tensors():
        return None
    return _spec(name, tensor, objective)


def _presence() -> MethodSpec:
    """The method of paper_repro/beyond: presence conductances, entropy flow, 16 points a path."""
    spec = _spec(_PRESENCE, "presence", "entropy")
    function = functools.partial(spec.function, tau=_TAU, steps=16)
    return replace(spec, function=function, cost=spec.cost.replace("32", "16"))


def _spec(name: str, tensor: str, objective: str) -> MethodSpec:
    known = tensor_spec(tensor)
    signed, line = known.signed, known.summary.rstrip(".")
    passes = "1 forward, 1 backward" if known.needs_gradient else "1 forward"
    return MethodSpec(
        name=name,
        function=functools.partial(flow, tensor=tensor, objective=objective),
        summary=f"{_SAID[objective]} on: {line.replace('``', '') or tensor}.",
        family="flow",
        source=known.reference,
        cost=known.cost or passes,
        signed=signed,
        sums_to="|f| for minus |f| against" if signed else "|f|",
        seeded=objective == "shapley",
    )


_SAID = {
    "maxflow": "Maximum flow",
    "barrier": "Barrier flow",
    "quadratic": "Flow with quadratic term",
    "entropy": "Flow with entropy term",
    "fair": "Proportionally fair flow",
    "maxminfair": "Max-min fair flow",
    "shapley": "Maximum flow, Shapley values at tokens,",
}


def _tensor(name: str, steps: int | None, baselines: Any) -> Any:
    """The tensor, with options where it is one along a path of inputs."""
    given = {"steps": steps, "baselines": baselines}
    given = {option: value for option, value in given.items() if value is not None}
    if not given:
        return name
    from flowopt.tensors import AttentionPath, Conductance

    made: dict[str, Any] = {
        "conductance": Conductance,
        "presence": functools.partial(Conductance, baselines=MIXED),
        "agf-path": AttentionPath,
        "agf-path-signed": functools.partial(AttentionPath, signed=True),
    }
    if name not in made:
        raise InputError(
            f"the tensor {name!r} follows no path of inputs, so it takes no {', '.join(given)}; "
            f"those that do: {', '.join(made)}"
        )
    return made[name](**given)


def _objective(name: str, weights: dict[str, Any]) -> Objective:
    from flowopt import objectives

    made = getattr(objectives, _OBJECTIVES[name])
    accepted = inspect.signature(made).parameters
    for weight in weights:
        if weight not in accepted:
            known = ", ".join(accepted) or "none"
            raise InputError(f"the objective {name!r} has no weight {weight!r}; it takes {known}")
    if name == "barrier" and not weights:
        weights = {"gap": 0.05}
    found: Objective = made(**weights)
    return found
