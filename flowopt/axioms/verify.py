"""Ask methods whether axioms hold: on random networks, on real ones, on a user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from flowopt.axioms.checks import Axiom, Finding, axioms_of
from flowopt.axioms.counterexample import Counterexample
from flowopt.axioms.methods import Method, as_method
from flowopt.axioms.report import AxiomReport, AxiomResult, AxiomTable
from flowopt.axioms.samples import Named, networks_of
from flowopt.axioms.shrink import shrunk
from flowopt.errors import FlowoptError, InputError, UnsupportedError
from flowopt.network import FlowNetwork
from flowopt.progress import progress_bar

SHRINK_EDGES = 400  # larger counterexamples are kept as they are


def verify(
    method: Any,
    networks: Any = None,
    axioms: str | Axiom | Iterable[str | Axiom] | None = None,
    *,
    seed: int = 0,
    tolerance: float | None = None,
    shrink: bool = True,
    progress: bool = False,
    name: str | None = None,
) -> AxiomReport:
    """Check which axioms a method of attribution satisfies.

    Parameters
    ----------
    method : Objective, str, or callable
        An objective such as ``LogBarrier()``; a name such as "maxflow@scipy" (see
        `flowopt.axioms.as_method`); or any function from a FlowNetwork to (t,) numbers.
    networks : optional
        None: 50 random ones; a number of them; "sentences" (read through the bundled model);
        FlowNetworks, problems, or (name, network) pairs.
    axioms : optional
        Names from `flowopt.axioms.AXIOMS`, families ("uniqueness"), or axioms of your own; all by
        default.
    seed : int
        Of the random networks and of every check's choices: the same seed finds the same.
    tolerance : float, optional
        Instead of every axiom's own.
    shrink : bool
        Whether counterexamples are made smaller.
    progress : bool
        Whether to show a progress bar.
    name : str, optional
        What to call the method.

    Returns
    -------
    AxiomReport

    Raises
    ------
    InputError
        For arguments that cannot be used, or a method that gives no attributions.

    Examples
    --------
    >>> report = fo.axioms.verify(fo.MaxFlow(), networks=20, axioms="uniqueness")
    >>> report.violated
    ('uniqueness: solvers', 'uniqueness: relabelling')
    """
    asked = as_method(method, name)
    chosen, named = axioms_of(axioms), networks_of(networks, seed)
    if tolerance is not None and not 0 <= tolerance < np.inf:
        raise InputError(f"tolerance must be a number of at least 0, not {tolerance!r}.")
    with progress_bar(len(chosen) * len(named), progress, "check", asked.name) as advance:
        results = tuple(
            _result(asked, axiom, named, seed, _limit(axiom, tolerance), shrink, advance)
            for axiom in chosen
        )
    return AxiomReport(asked.name, results, len(named), seed)


def survey(
    methods: Iterable[Any] | Mapping[str, Any],
    networks: Any = None,
    axioms: str | Axiom | Iterable[str | Axiom] | None = None,
    **options: Any,
) -> AxiomTable:
    """Check several methods on the same networks: a table method x axiom.

    Parameters
    ----------
    methods : iterable of methods, or mapping of names to them
    networks, axioms, **options
        As for `verify`.
    """
    named = networks_of(networks, options.get("seed", 0))
    given = methods.items() if isinstance(methods, Mapping) else ((None, m) for m in methods)
    asked = [as_method(method, name) for name, method in given]
    if not asked:
        raise InputError("Give at least one method.")
    return AxiomTable(tuple(verify(each, named, axioms, **options) for each in asked))


def check(method: Any, axiom: str | Axiom, network: FlowNetwork, seed: int = 0) -> Finding | None:
    """One axiom on one network; None if there is nothing to check."""
    (chosen,) = axioms_of(axiom)
    return chosen.check(as_method(method), network, np.random.default_rng(_seeds(seed, 0, chosen)))


def assert_holds(method: Any, axiom: str, network: FlowNetwork, seed: int = 0) -> None:
    """For tests: raise AssertionError, with the numbers, if an axiom (or family) is violated.

    Examples
    --------
    >>> from hypothesis import given, strategies
    >>> from flowopt.axioms.strategies import networks
    >>> @given(networks(), strategies.integers(0, 99))
    ... def test_symmetry(net, seed):
    ...     fo.axioms.assert_holds(my_method, "symmetry", net, seed)
    """
    for each in axioms_of(axiom):
        found = check(method, each, network, seed)
        if found is not None and not found.violation <= each.tolerance:
            raise AssertionError(
                f"{as_method(method).name} violates {each.name} by {found.violation:.3g} "
                f"(tolerance {each.tolerance:.0e}): {found.detail}"
            )


def _limit(axiom: Axiom, tolerance: float | None) -> float:
    return axiom.tolerance if tolerance is None else tolerance


def _seeds(seed: int, number: int, axiom: Axiom) -> tuple[int, ...]:
    return seed, number, *axiom.name.encode()


def _result(
    method: Method,
    axiom: Axiom,
    networks: list[Named],
    seed: int,
    tolerance: float,
    shrink: bool,
    advance: Callable[[], object],
) -> AxiomResult:
    checked = violations = failures = 0
    worst, where, message = float("nan"), "", ""
    smallest: Counterexample | None = None
    for number, (name, net) in enumerate(networks):
        seeds = _seeds(seed, number, axiom)
        try:
            found = axiom.check(method, net, np.random.default_rng(seeds))
        except FlowoptError as error:
            if isinstance(error, InputError) and not isinstance(error, UnsupportedError):
                raise  # the method gives no attributions at all
            failures += 1
            message = message or f"{name}: {error}"
            found = None
        advance()
        if found is None:
            continue
        checked += 1
        if not found.violation <= worst:  # NaN included
            worst, where = found.violation, name
        if not found.violation <= tolerance:
            violations += 1
            if smallest is None or _size(net) < _size(smallest.network):
                smallest = _example(axiom, net, seeds, found)
    if smallest is not None and shrink:
        smallest = _shrunk(smallest, method, axiom, tolerance)
    return AxiomResult(
        axiom.name, axiom.statement, tolerance, checked, violations, failures, worst, where,
        message, smallest,
    )  # fmt: skip


def _size(net: FlowNetwork) -> int:
    return len(net.capacity)


def _shrunk(
    example: Counterexample, method: Method, axiom: Axiom, tolerance: float
) -> Counterexample:
    if _size(example.network) > SHRINK_EDGES:
        return example
    least = max(tolerance, 0.1 * example.violation)  # what remains must not be mere rounding

    def finding(net: FlowNetwork) -> Finding | None:
        return axiom.check(method, net, np.random.default_rng(example.seed))

    def violates(net: FlowNetwork) -> bool:
        found = finding(net)
        return found is not None and found.violation > least

    net = shrunk(example.network, violates)
    found = finding(net)
    assert found is not None  # it violates
    return _example(axiom, net, example.seed, found)


def _example(
    axiom: Axiom, net: FlowNetwork, seed: tuple[int, ...], found: Finding
) -> Counterexample:
    return Counterexample(axiom.name, net, seed, found.violation, found.detail, found.changed)
