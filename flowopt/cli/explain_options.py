"""Options of ``flowopt explain`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_IN, _HOW, _OUT = "What is read", "What is computed", "What is written"
_GENERATED = "Language models"

Texts = Annotated[list[str] | None, typer.Argument(help="One text or several, each in quotes.")]
File = Annotated[
    str | None,
    typer.Option(
        "--file",
        "-f",
        metavar="PATH",
        help="Explain each line of a file; - reads standard input.",
        rich_help_panel=_IN,
    ),
]
Contrast = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL|TOKEN|INDEX|runner-up",
        help="Class or token whose logit is subtracted: why the one rather than the other. "
        "[dim]runner-up: the best besides the target.[/dim]",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
SolverName = Annotated[
    str | None,
    typer.Option(
        "--solver",
        help="Who solves it; [bold]flowopt solvers[/bold] lists them. "
        "[dim]Default: the best for the objective.[/dim]",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
Generate = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Let the model generate at most N tokens, and explain each of them: a matrix.",
        show_default=False,
        rich_help_panel=_GENERATED,
    ),
]
Continuation = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Explain each token of this text instead: what follows the prompt, with its first "
        "blank, or the translation.",
        show_default=False,
        rich_help_panel=_GENERATED,
    ),
]
NoUnroll = Annotated[
    bool,
    typer.Option(
        "--no-unroll",
        help="Generated tokens keep their flow as scores of their own, instead of passing it on "
        "to the tokens they came from.",
        rich_help_panel=_GENERATED,
    ),
]
Stages = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Of encoder-decoders: parallel or sequential self- and cross-attention; sequential "
        "needs --residual.",
        rich_help_panel=_GENERATED,
    ),
]
Normalise = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Against the advantage of early tokens in decoders: none, inverse_receptive_field or "
        "uniform_reference.",
        rich_help_panel=_GENERATED,
    ),
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per text.", rich_help_panel=_OUT)
]
Html = Annotated[
    Path | None, typer.Option(help="Write a page with all texts.", rich_help_panel=_OUT)
]
OutputFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write JSON lines to a file instead of printing.",
        rich_help_panel=_OUT,
    ),
]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", help="No progress bar.", rich_help_panel=_OUT)
]
