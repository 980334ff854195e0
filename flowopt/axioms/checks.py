"""The axioms, each as a check of one method on one network (method.md section 8).

A check plants what it needs (two tokens that an automorphism exchanges, a token that no flow
reaches), asks the method, and measures by how much the axiom is missed, relative to the maximum
flow. All its choices come from the random generator it is given, so that a seed replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from flowopt.axioms import transforms
from flowopt.axioms.methods import Answer, Method
from flowopt.errors import FlowoptError, InputError
from flowopt.games import FunctionGame, shapley_values
from flowopt.network import FloatArray, FlowNetwork

TOLERANCE = 1e-6
STEEPEST = 1e4  # change of attributions per change of capacities that still counts as continuous
NUDGE = 1e-6
_RAISES = 3


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    violation : float
        Relative to the maximum flow; for continuity the ratio K.
    detail : str
        The numbers behind it.
    changed : FlowNetwork or None
        The network that the check made of the given one, where it made one.
    """

    violation: float
    detail: str
    changed: FlowNetwork | None = None


Check = Callable[[Method, FlowNetwork, np.random.Generator], "Finding | None"]
"""None: the network offers nothing to check."""


@dataclass(frozen=True)
class Axiom:
    """A property that attributions may have.

    Attributes
    ----------
    name, statement : str
    check : callable
    tolerance : float
        Violation up to which the axiom holds.
    """

    name: str
    statement: str
    check: Check
    tolerance: float = TOLERANCE


# --- totals ---------------------------------------------------------------------------------------
def efficiency(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding:
    """Attributions sum to the value the method itself claims: |f| of its flow."""
    answer = method(net)
    total = net.max_flow if answer.total is None else answer.total
    return _missed_total(answer, total, net)


def maximality(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding:
    """Attributions sum to the maximum flow: efficiency in the restricted game."""
    return _missed_total(method(net), net.max_flow, net)


def _missed_total(answer: Answer, total: float, net: FlowNetwork) -> Finding:
    found = float(answer.attributions.sum())
    return Finding(abs(found - total) / _unit(net), f"sum {found:.6g}, should be {total:.6g}")


# --- planted tokens -------------------------------------------------------------------------------
def symmetry(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding | None:
    """Tokens that an automorphism of the network exchanges get the same."""
    worst: Finding | None = None
    for plant in (transforms.twins, transforms.mirrored):
        planted = plant(net, rng)
        if planted is not None:
            one, other = planted.tokens
            answer = method(planted.network)
            apart = _apart(answer, one, other) / _unit(planted.network)
            a, b = answer.attributions[[one, other]]
            detail = f"tokens {one} and {other}, {plant.__name__}: {a:.6g} and {b:.6g}"
            worst = _worse(worst, Finding(apart, detail, planted.network))
    return worst


def nullity(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding | None:
    """A token that no flow can reach gets 0."""
    planted = transforms.silenced(net, rng)
    worst: Finding | None = None
    for each in (net, net if planted is None else planted.network):
        dead = np.flatnonzero(~each.graph.alive[each.graph.players])
        if len(dead):
            given = method(each).attributions[dead]
            at = int(np.abs(given).argmax())
            detail = f"token {dead[at]}, which no flow can reach, gets {given[at]:.6g}"
            size = abs(float(given[at])) / _unit(each)
            worst = _worse(worst, Finding(size, detail, None if each is net else each))
    return worst


# --- linearity ------------------------------------------------------------------------------------
def payoff_linearity(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding:
    """In the layer game of one flow, values are linear in what flow is worth at each token.

    The Shapley values of v_c(S) = sum over S of c_j a_j, taken from all coalitions or from sampled
    orders, must be c * a, and those of c + d the sum of those of c and of d.
    """
    t, unit = net.n_players, _unit(net)
    one, other = rng.uniform(0, 2, (2, t))
    first, second, both = (method.paid(net, c) for c in (one, other, one + other))
    worst = Finding(
        float(np.abs(both - first - second).max()) / unit,
        "value of a sum of payoffs against the sum of values",
    )
    flow = method(net).attributions
    game = FunctionGame(lambda rows: rows @ (one * flow), t)
    values = shapley_values(game, samples=None if t <= game.exact_players else 4)
    apart = float(np.abs(values.values - first).max()) / unit
    detail = "payoff times flow against the Shapley values of the layer game"
    return _worse(worst, Finding(apart, detail))


def additivity(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding:
    """Attributions of added capacities are the sum of attributions; only scaling is expected."""
    other = transforms.reweighted(net, rng)
    both = transforms.added(net, other)
    a, b, c = (method(each).attributions for each in (net, other, both))
    at = int(np.abs(c - a - b).argmax())
    return Finding(
        float(np.abs(c - a - b)[at]) / _unit(both),
        f"token {at}: {a[at]:.6g} + {b[at]:.6g} against {c[at]:.6g}",
        other,
    )


def scale(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding:
    """Capacities multiplied by k give attributions multiplied by k."""
    factor = float(10 ** rng.uniform(0.5, 3) ** rng.choice([-1, 1]))
    a, b = method(net), method(net.scaled(factor))
    b = Answer(b.attributions / factor, None, b.error / factor)
    return _difference(a, b, net, f"capacities times {factor:.4g}")


# --- uniqueness -----------------------------------------------------------------------------------
def same_by_solvers(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding | None:
    """Every solver of the same flow problem gives the same attributions."""
    worst: Finding | None = None
    answers = []
    for rival in method.rivals(net):
        try:
            answers.append((rival.name, rival(net)))
        except FlowoptError:  # a solver that fails says nothing about uniqueness
            continue
    for k, (name, answer) in enumerate(answers):
        for other_name, other in answers[:k]:
            worst = _worse(worst, _difference(answer, other, net, f"{name} and {other_name}"))
    return worst


def same_in_any_order(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding:
    """The order in which groups and edges are listed does not matter."""
    other = transforms.reordered(net, rng)
    what = "blocks, links and groups listed otherwise"
    return _difference(method(net), method(other), net, what, other)


def same_by_any_name(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding:
    """Nodes numbered otherwise give the same attributions, numbered otherwise."""
    assert net.players is not None
    order = {name: rng.permutation(n) for name, n in net.groups.items()}
    changed = transforms.relabelled(net, order)
    other, back = method(changed), np.argsort(order[net.players])
    other = Answer(other.attributions[back], None, other.error[back])
    return _difference(method(net), other, net, "nodes numbered otherwise", changed)


# --- changes --------------------------------------------------------------------------------------
def monotonicity(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding | None:
    """More capacity on an edge into a token does not lower what the token gets."""
    before = method(net)
    worst: Finding | None = None
    for _ in range(_RAISES):
        planted = transforms.raised(net, rng)
        if planted is None:
            return None
        (token,) = planted.tokens
        after = method(planted.network)
        a, b = before.attributions[token], after.attributions[token]
        lost = max(a - b - before.error[token] - after.error[token], 0.0)
        detail = f"token {token}: {a:.6g} before, {b:.6g} after"
        worst = _worse(worst, Finding(float(lost) / _unit(net), detail, planted.network))
    return worst


def continuity(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding | None:
    """|change of attributions|_1 <= K |change of capacities|_1, for small changes; K is reported.

    Every positive capacity moves by up to a millionth of itself. A method that jumps has a K of
    the order of a million.
    """
    if net.graph.empty:
        return None
    return _steepness(method, net, transforms.nudged(net, rng, NUDGE))


def opening(method: Method, net: FlowNetwork, rng: np.random.Generator) -> Finding | None:
    """Continuity where an edge without capacity is given very little."""
    changed = None if net.graph.empty else transforms.opened(net, rng, NUDGE)
    return None if changed is None else _steepness(method, net, changed)


def _steepness(method: Method, net: FlowNetwork, changed: tuple[FlowNetwork, float]) -> Finding:
    other, size = changed
    a, b = method(net), method(other)
    moved = np.maximum(np.abs(a.attributions - b.attributions) - a.error - b.error, 0.0).sum()
    detail = f"attributions moved by {moved:.3g} for a change of {size:.3g}"
    return Finding(float(moved) / (size or 1.0), detail, other)


# --- shared ---------------------------------------------------------------------------------------
def _unit(net: FlowNetwork) -> float:
    return net.max_flow or 1.0


def _worse(one: Finding | None, other: Finding) -> Finding:
    return other if one is None or other.violation > one.violation else one


def _apart(answer: Answer, i: int, j: int) -> float:
    a, error = answer.attributions, answer.error
    return max(float(abs(a[i] - a[j]) - error[i] - error[j]), 0.0)


def _difference(
    a: Answer, b: Answer, net: FlowNetwork, what: str, changed: FlowNetwork | None = None
) -> Finding:
    """Largest difference of two answers beyond their certified errors."""
    apart: FloatArray = np.abs(a.attributions - b.attributions) - a.error - b.error
    at = int(apart.argmax())
    detail = f"{what}, token {at}: {a.attributions[at]:.6g} and {b.attributions[at]:.6g}"
    return Finding(max(float(apart[at]), 0.0) / _unit(net), detail, changed)


def _axiom(name: str, check: Check, tolerance: float = TOLERANCE) -> tuple[str, Axiom]:
    statement = (check.__doc__ or "").strip().partition("\n")[0]
    return name, Axiom(name, statement, check, tolerance)


AXIOMS: dict[str, Axiom] = dict(
    (
        _axiom("efficiency", efficiency),
        _axiom("maximality", maximality),
        _axiom("symmetry", symmetry),
        _axiom("nullity", nullity),
        _axiom("linearity in the payoff", payoff_linearity),
        _axiom("linearity in the capacities", additivity),
        _axiom("scale covariance", scale),
        _axiom("uniqueness: solvers", same_by_solvers),
        _axiom("uniqueness: edge order", same_in_any_order),
        _axiom("uniqueness: relabelling", same_by_any_name),
        _axiom("monotonicity", monotonicity),
        _axiom("continuity: small changes", continuity, STEEPEST),
        _axiom("continuity: new edges", opening, STEEPEST),
    )
)


def axioms_of(names: str | Axiom | Iterable[str | Axiom] | None) -> tuple[Axiom, ...]:
    """Axioms by name; a family's name ("uniqueness", "linearity") stands for all of it.

    Parameters
    ----------
    names : str, Axiom, iterable of these, or None
        None: all of `AXIOMS`.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if names is None:
        return tuple(AXIOMS.values())
    found: list[Axiom] = []
    for name in [names] if isinstance(names, str | Axiom) else names:
        if isinstance(name, Axiom):
            found.append(name)
            continue
        wanted = str(name).strip().lower()
        family = [a for key, a in AXIOMS.items() if key.split(":")[0].split(" in ")[0] == wanted]
        exact = [AXIOMS[wanted]] if wanted in AXIOMS else family
        if not exact:
            raise InputError(f"There is no axiom {name!r}; known ones: {', '.join(AXIOMS)}.")
        found += exact
    return tuple(dict.fromkeys(found))
