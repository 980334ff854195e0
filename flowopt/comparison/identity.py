"""What tells one piece of benchmark work from another: names, versions, options, digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from flowopt.comparison.problem_sets import Problem, problem_set
from flowopt.errors import InputError
from flowopt.network import FlowNetwork
from flowopt.solvers.base import Solver

__all__ = ["digest_of", "label_of", "options_of", "problems_of", "unique", "version_of"]


def problems_of(given: str | FlowNetwork | Iterable[Problem | FlowNetwork]) -> list[Problem]:
    """Problems by the name of their set, or as given; networks get a name by their place.

    Raises
    ------
    InputError
        If there is none, or something else is among them.
    """
    if isinstance(given, str):
        return list(problem_set(given))
    items: list[Any] = [given] if isinstance(given, FlowNetwork) else list(given)
    found = []
    for number, item in enumerate(items):
        if isinstance(item, Problem):
            found.append(item)
        elif isinstance(item, FlowNetwork):
            name = f"network {number}"
            # A family of its own: one slow network says nothing about another.
            found.append(Problem(name, name, partial(_itself, item)))
        else:
            raise InputError(f"problems must be Problem or FlowNetwork objects, not {item!r}.")
    if not found:
        raise InputError("benchmark_solvers needs at least one problem.")
    return found


def unique(names: Sequence[str], what: str) -> None:
    """Refuse names that occur twice: results could not be told apart.

    Raises
    ------
    InputError
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Two {what} have the name {', '.join(twice)}; give each its own.")


def options_of(solver: Solver) -> dict[str, Any]:
    """Options of a solver that is a dataclass; others have none that we could know."""
    given: Any = solver  # the base class is no dataclass, its subclasses here are
    if not is_dataclass(given):
        return {}
    return {field.name: getattr(given, field.name) for field in fields(given)}


def label_of(solver: Solver) -> str:
    """Name of a solver, with the options that differ from its defaults."""
    options = options_of(solver)
    usual = options_of(type(solver)()) if options else {}
    changed = [f"{name}={value!r}" for name, value in options.items() if value != usual.get(name)]
    return f"{solver.name}({', '.join(changed)})" if changed else solver.name


def version_of(solver: Solver) -> str:
    """Versions of flowopt and of the package behind a solver."""
    names = dict.fromkeys(("flowopt", solver.package))
    return ", ".join(f"{name} {_installed(name)}" for name in names)


def digest_of(net: FlowNetwork) -> str:
    """Short digest of everything that decides a network's optimum."""
    named = (dict(net.groups), dict(net.sources), dict(net.sinks), net.players, net.return_capacity)
    content = hashlib.sha256(repr(named).encode())
    arrays: list[tuple[str, Any]] = [
        (f"block {block.tail} {block.head}", block.capacity) for block in net.blocks
    ]
    for link in net.links:
        arrays.append((f"link {link.tail} {link.head}", link.pairs))
        arrays.append(("limits", () if link.capacity is None else link.capacity))
    arrays += [(f"nodes {name}", limits) for name, limits in (net.node_capacity or {}).items()]
    for name, array in arrays:
        content.update(name.encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()[:16]


def _itself(net: FlowNetwork) -> FlowNetwork:
    return net


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a module of the user's own
        return "of its own"
