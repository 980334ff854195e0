"""``flowopt axioms``: which axioms hold for which method."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowopt.cli import options
from flowopt.cli.shell import stdout_console, swift_start
from flowopt.errors import InputError

if TYPE_CHECKING:
    from flowopt.axioms.report import AxiomTable
    from flowopt.axioms.samples import Named

_WIDTH = 160  # of the table
METHODS = "maxflow@dinic,maxflow@scipy,maxflow@HIGHS,barrier,barrier:mu=0.01,shapley-flow"
EXAMPLES = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "flowopt axioms",
        "flowopt axioms maxflow barrier --networks 200 --axioms uniqueness,symmetry",
        "flowopt axioms barrier:mu=0.01 --axioms monotonicity --counterexamples",
        "flowopt axioms shapley-flow rollout per-pair --sentences 4 --json",
    ]
)


def axioms(
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[METHOD]...",
            help="maxflow, barrier, quadratic, entropy, fair, maxminfair, shapley-flow, rollout "
            "or per-pair; with a weight as in barrier:mu=0.01, with a solver as in "
            f"maxflow@scipy. [dim]Default: {METHODS.replace(',', ', ')}.[/dim]",
            show_default=False,
        ),
    ] = None,
    networks: Annotated[
        int, typer.Option(metavar="N", help="How many random networks of 2 to 6 tokens.")
    ] = 50,
    sentences: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Besides, the networks of so many sentences (12 at most), read through the "
            "bundled model.",
        ),
    ] = 0,
    names: Annotated[
        str | None,
        typer.Option(
            "--axioms",
            metavar="A,B",
            help="Which axioms, or families: efficiency, maximality, symmetry, nullity, "
            "linearity, scale covariance, uniqueness, monotonicity, continuity. "
            "[dim]Default: all.[/dim]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed finds the same.")] = 0,
    counterexamples: Annotated[
        bool,
        typer.Option(
            "--counterexamples", help="Print the smallest network found for every violation."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write everything as JSON to a file too.", show_default=False
        ),
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Check which axioms methods of attribution satisfy, and show where they do not.

    An axiom is a promise about attributions: that they sum to the flow (efficiency), that equal
    tokens get equal scores (symmetry), that the answer does not depend on who solves it or on how
    nodes are numbered (uniqueness), and so on. Each is tried on every network; the table says
    "holds", or on how many networks it is violated and by how much, relative to the maximum flow.

    That an axiom is violated is a result, not an error: the exit code is 0.
    """
    if networks < 0 or sentences < 0 or networks + sentences == 0:
        raise InputError("--networks and --sentences are numbers, at least one of them positive")
    from flowopt.axioms import as_method, survey
    from flowopt.axioms.checks import axioms_of

    asked = [as_method(name) for name in methods or METHODS.split(",")]
    chosen = axioms_of(None if names is None else names.split(","))
    show = not no_progress and sys.stderr.isatty()
    found = survey(asked, _networks(networks, sentences, seed), chosen, seed=seed, progress=show)
    if out is not None:
        out.write_text(found.to_json() + "\n", encoding="utf-8")
    if json_:
        sys.stdout.write(f"{found.to_json()}\n")
        return
    console = stdout_console(least=_WIDTH)
    console.print(found)
    if counterexamples:
        _print_counterexamples(console, found)


def _networks(random: int, sentences: int, seed: int) -> list[Named]:
    from flowopt.axioms.samples import networks_of, random_networks

    found = random_networks(random, seed) if random else []
    if sentences:
        from flowopt.comparison.problem_sets import problem_set

        problems = problem_set("sentences")
        if sentences > len(problems):
            raise InputError(
                f"there are {len(problems)} sentences; --sentences {sentences} is more"
            )
        with swift_start():
            found += networks_of(problems[:sentences])
    return found


def _print_counterexamples(console: Any, found: AxiomTable) -> None:
    for report in found.reports:
        for result in report.results:
            if result.counterexample is not None:
                console.print(f"\n{report.method}: {result.counterexample}")
