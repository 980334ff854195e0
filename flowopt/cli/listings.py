"""``flowopt solvers``, ``flowopt tensors`` and ``flowopt models``: what there is."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from flowopt.cli import options
from flowopt.cli.shell import stdout_console
from flowopt.errors import MissingDependencyError

if TYPE_CHECKING:
    from flowopt.network import FlowNetwork
    from flowopt.objectives import Objective

_NOTES = {
    "ECOS": "licence GPL-3; loaded only when chosen",
    "native": "flowopt's own",
    "fair": "flowopt's own",
    "dinic": "flowopt's own",
    "push-relabel": "flowopt's own",
    "shapley": "flowopt's own",
    "torch": "flowopt's own",
}

_HEADS = {
    "SequenceClassification": "class",
    "ImageClassification": "class",
    "MaskedLM": "masked token",
    "CausalLM": "next token",
    "Seq2SeqLM": "next token",
}


@dataclass(frozen=True)
class Backend:
    """What is said of one solver."""

    name: str
    available: bool
    objectives: list[str]
    package: str | None
    note: str


def solvers(json_: options.Json = False, debug: options.Debug = False) -> None:
    """List the solvers: what each can solve, and whether it can be used here."""
    from flowopt.solvers import registered

    found = [_backend(name, *_problems()) for name in registered()]
    if json_:
        sys.stdout.write(json.dumps([asdict(each) for each in found]) + "\n")
        return
    _print_table(
        ("solver", "here", "solves (--objective)", "package", ""),
        [
            (
                each.name,
                "yes" if each.available else "no",
                ", ".join(each.objectives),
                each.package or "",
                each.note,
            )
            for each in found
        ],
    )


def tensors(json_: options.Json = False, debug: options.Debug = False) -> None:
    """List the information tensors: what capacities can be made of."""
    from flowopt.tensors import available_tensors, tensor_spec

    found = []
    for name in available_tensors():
        spec = tensor_spec(name)
        found.append(
            {
                "name": name,
                "gradient": spec.needs_gradient,
                "signed": spec.signed,
                "summary": spec.summary,
                "reference": spec.reference,
            }
        )
    if json_:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    _print_table(
        ("tensor", "gradients", "capacities", "source"),
        [
            (
                str(each["name"]),
                "yes" if each["gradient"] else "no",
                str(each["summary"]),
                str(each["reference"]),
            )
            for each in found
        ],
    )


def models(
    json_: options.Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in Markdown.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """List the families of models: what can be explained, and with what.

    Models of other types are read as well where their config and class say what they are;
    others can be declared with flowopt.trace.register_family.
    """
    from flowopt.trace.features import features, markdown_table

    found = features()
    if json_:
        sys.stdout.write(json.dumps([asdict(each) for each in found]) + "\n")
        return
    if markdown:
        sys.stdout.write(markdown_table(found) + "\n")
        return
    answers = {True: "yes", False: "no"}
    _print_table(
        ("family", "kind", "explains", "value norms", "conductance", "generated text"),
        [
            (
                each.model_type,
                each.kind,
                ", ".join(_HEADS[head] for head in each.heads),
                answers[each.values],
                answers[each.conductance],
                answers[each.generation],
            )
            for each in found
        ],
    )


def _problems() -> tuple[FlowNetwork, dict[str, Objective]]:
    """A small network, and every objective of the command line on it."""
    import numpy as np

    from flowopt.network import FlowNetwork

    net = FlowNetwork.layered(np.full((2, 2, 2), 0.5))
    return net, {name: options.objective_of(name).resolve(net) for name in options.OBJECTIVES}


def _backend(name: str, net: FlowNetwork, objectives: dict[str, Objective]) -> Backend:
    from flowopt.solvers import get_solver

    try:
        solver = get_solver(name)
    except MissingDependencyError as error:
        return Backend(name, False, [], None, str(error))
    solves = [each for each, made in objectives.items() if solver.refusal(net, made) is None]
    return Backend(name, True, solves, solver.package, _NOTES.get(name, ""))


def _print_table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    stdout_console().print(table)
