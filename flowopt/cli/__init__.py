"""The command line: ``explain``, ``compare``, ``benchmark``, ``axioms``, ``evaluate``, and lists.

Only typer is imported here; torch, transformers and solvers load inside the commands that use
them, so that ``flowopt --help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from flowopt.cli import axioms as _axioms
from flowopt.cli import benchmark as _benchmark
from flowopt.cli import compare as _compare
from flowopt.cli import evaluate as _evaluate
from flowopt.cli import explain as _explain
from flowopt.cli import methods as _methods
from flowopt.cli.listings import models, solvers, tensors
from flowopt.cli.options import Debug
from flowopt.cli.shell import OneLineErrors, leave, paragraphs

__all__ = ["app", "main"]

app = typer.Typer(
    name="flowopt",
    cls=OneLineErrors,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command, _examples in (
    (_explain.explain, _explain.EXAMPLES),
    (_compare.compare, _compare.EXAMPLES),
    (_benchmark.benchmark, _benchmark.EXAMPLES),
    (_axioms.axioms, _axioms.EXAMPLES),
    (_evaluate.evaluate, _evaluate.EXAMPLES),
    (_methods.methods, _methods.EXAMPLES),
    (_evaluate.metrics, None),
    (solvers, None),
    (tensors, None),
    (models, None),
):
    app.command(help=paragraphs(_command.__doc__), epilog=_examples)(_command)


def main() -> None:
    """Entry point of the program."""
    leave(app(standalone_mode=False))


@app.callback(
    invoke_without_command=True,
    help="Explain transformer predictions by network flow; every answer carries a certificate.\n\n"
    "The flow through an input token of a network, whose capacities come from the model's "
    "attention and gradients, is the token's score.",
    epilog='Start with: [bold]flowopt explain "A gripping, funny film."[/bold]',
)
def flowopt(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
    debug: Debug = False,
) -> None:
    """Answer what is no command: the version, or help."""
    if version:
        from flowopt import __version__

        typer.echo(f"flowopt {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
