"""A network on which a method violates an axiom: prints, replays, and can be stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowopt.axioms.checks import AXIOMS, Axiom, Finding
from flowopt.axioms.methods import as_method
from flowopt.errors import InputError
from flowopt.network import Block, FlowNetwork, Link


@dataclass(frozen=True, eq=False)
class Counterexample:
    """The smallest network found on which a method violates an axiom.

    Attributes
    ----------
    axiom : str
    network : FlowNetwork
    seed : tuple of int
        Of the check's choices.
    violation : float
    detail : str
    changed : FlowNetwork or None
        What the check made of the network, where it made something.
    """

    axiom: str
    network: FlowNetwork
    seed: tuple[int, ...]
    violation: float
    detail: str
    changed: FlowNetwork | None = None

    def replay(self, method: Any, axiom: Axiom | None = None) -> Finding:
        """Check the method on this network again, with the same choices.

        Parameters
        ----------
        method
            As for `flowopt.axioms.verify`.
        axiom : Axiom, optional
            Only for an axiom of your own.

        Raises
        ------
        InputError
            If this network offers nothing to check.
        """
        chosen = AXIOMS[self.axiom] if axiom is None else axiom
        found = chosen.check(as_method(method), self.network, np.random.default_rng(self.seed))
        if found is None:
            raise InputError(f"{self.axiom} has nothing to check on this network.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; `from_dict` reads them."""
        return {
            "axiom": self.axiom,
            "seed": list(self.seed),
            "violation": self.violation,
            "detail": self.detail,
            "network": network_to_dict(self.network),
            "changed": None if self.changed is None else network_to_dict(self.changed),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Counterexample:
        """Read what `to_dict` wrote.

        Raises
        ------
        InputError
            If something is missing.
        """
        try:
            return cls(
                str(values["axiom"]),
                network_from_dict(values["network"]),
                tuple(int(part) for part in values["seed"]),
                float(values["violation"]),
                str(values["detail"]),
                values["changed"] and network_from_dict(values["changed"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"This is no counterexample of ours: {error!r} is missing.") from None

    def __str__(self) -> str:
        lines = [f"{self.axiom} violated by {self.violation:.3g}: {self.detail}"]
        lines += described(self.network)
        if self.changed is not None:
            lines += ["from which the check made", *described(self.changed)]
        return "\n".join(lines)


def network_to_dict(net: FlowNetwork) -> dict[str, Any]:
    """A network as plain numbers, lists and strings; unlimited is None."""

    def listed(array: Any) -> Any:
        return [float(x) if math.isfinite(x) else None for x in np.asarray(array)]

    return {
        "groups": dict(net.groups),
        "blocks": [
            {"tail": b.tail, "head": b.head, "capacity": b.capacity.tolist()} for b in net.blocks
        ],
        "links": [
            {
                "tail": k.tail,
                "head": k.head,
                "pairs": k.pairs.tolist(),
                "capacity": None if k.capacity is None else k.capacity.tolist(),
            }
            for k in net.links
        ],
        "sources": {name: list(nodes) for name, nodes in net.sources.items()},
        "sinks": {name: list(nodes) for name, nodes in net.sinks.items()},
        "node_capacity": {k: listed(v) for k, v in (net.node_capacity or {}).items()} or None,
        "players": net.players,
        "return_capacity": net.return_capacity,
    }


def network_from_dict(values: Mapping[str, Any]) -> FlowNetwork:
    """A network from what `network_to_dict` wrote."""
    limits = values["node_capacity"]
    return FlowNetwork(
        values["groups"],
        [
            Block(b["tail"], b["head"], np.reshape(b["capacity"], _shape(values, b)))
            for b in values["blocks"]
        ],
        [Link(k["tail"], k["head"], k["pairs"], k["capacity"]) for k in values["links"]],
        sources=values["sources"],
        sinks=values["sinks"],
        node_capacity=limits
        and {k: [math.inf if x is None else x for x in v] for k, v in limits.items()},
        players=values["players"],
        return_capacity=values["return_capacity"],
    )


def described(net: FlowNetwork) -> list[str]:
    """A small network as lines of text."""
    lines = [f"{net!r}, sources {_terminals(net.sources)}"]
    for block in net.blocks:
        rows = np.array2string(block.capacity, precision=4, separator=", ")
        lines.append(f"  {block.tail} -> {block.head}\n    " + rows.replace("\n", "\n    "))
    for link in net.links:
        limit = "unlimited" if link.capacity is None else link.capacity.tolist()
        lines.append(f"  {link.tail} -> {link.head} links {link.pairs.tolist()}: {limit}")
    for name, nodes in (net.node_capacity or {}).items():
        lines.append(f"  limits of {name}: {np.round(np.asarray(nodes), 4).tolist()}")
    return lines


def _shape(values: Mapping[str, Any], block: Mapping[str, Any]) -> tuple[int, int]:
    return values["groups"][block["tail"]], values["groups"][block["head"]]


def _terminals(terminals: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {list(nodes)}" for name, nodes in terminals.items())
