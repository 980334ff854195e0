"""``flowopt benchmark``: several solvers on a set of problems."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flowopt.cli import options
from flowopt.cli.shell import stdout_console

_WIDTH = 150  # of the tables
EXAMPLES = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "flowopt benchmark --set sentences",
        "flowopt benchmark --objective maxflow --solvers scipy,HIGHS --time-limit 10",
        "flowopt benchmark --out runs/barrier   [dim]# again with the same folder: resume[/dim]",
    ]
)


def benchmark(
    problems: Annotated[
        str,
        typer.Option(
            "--set",
            metavar="synthetic|sentences",
            help="Seeded families of networks, or sentences read through the bundled model.",
        ),
    ] = "synthetic",
    objective: options.ObjectiveName = "barrier",
    mu: options.Mu = None,
    gap: options.Gap = None,
    rho: options.Rho = None,
    tau: options.Tau = None,
    solvers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Which solvers. [dim]Default: all here.[/dim]", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for results.jsonl, results.csv and report.md; what is there already is "
            "not done again.",
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="For one problem; a solver that took longer is skipped on larger ones.",
        ),
    ] = 60.0,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure solvers on a set of problems: who is certified, who fails where, how fast.

    A solver that fails is a result, not an error: the exit code is 0. With --out every solve is
    recorded at once, so that an interrupted benchmark goes on where it stopped.
    """
    chosen = options.objective_of(objective, mu=mu, gap=gap, rho=rho, tau=tau)
    names = None if solvers is None else [name.strip() for name in solvers.split(",")]

    from flowopt.comparison.runs import benchmark_solvers

    report = benchmark_solvers(problems, chosen, names, out, time_limit)
    if json_:
        sys.stdout.write(f"{report.to_json()}\n")
    else:
        stdout_console(least=_WIDTH).print(report)
