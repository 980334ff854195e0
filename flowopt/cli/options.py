"""Options shared by the commands, and what they mean in objects."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated

import typer

from flowopt.errors import InputError

if TYPE_CHECKING:
    from flowopt.capacities import CapacityVariant
    from flowopt.objectives import Objective

__all__ = [
    "OBJECTIVES",
    "capacity_variants",
    "check_tensor_and_solver",
    "objective_of",
    "sources_of",
    "stages_of",
    "target_of",
]

_HOW = "What is computed"


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="PATH|NAME",
        help="Folder written by save_pretrained, or name on the Hugging Face hub. "
        "[dim]Default: the bundled sentiment classifier.[/dim]",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
Tensor = Annotated[
    str,
    typer.Option(
        help="What capacities are made of; [bold]flowopt tensors[/bold] lists them.",
        rich_help_panel=_HOW,
    ),
]
ObjectiveName = Annotated[
    str,
    typer.Option(
        "--objective",
        metavar="NAME",
        help="barrier, maxflow, quadratic, entropy, fair or maxminfair.",
        rich_help_panel=_HOW,
    ),
]
Mu = Annotated[
    float | None,
    typer.Option(
        help="Weight of the barrier, relative to the largest capacity.",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
Gap = Annotated[
    float | None,
    typer.Option(
        help="Instead of --mu: how far the flow may stay below the maximum. "
        "[dim]Default: 0.05.[/dim]",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
Rho = Annotated[
    float | None,
    typer.Option(help="Weight of the quadratic term.", show_default=False, rich_help_panel=_HOW),
]
Tau = Annotated[
    float | None,
    typer.Option(help="Weight of the entropy term.", show_default=False, rich_help_panel=_HOW),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL|TOKEN|INDEX",
        help="The class to explain, or the token that comes next; a number is an index. "
        "[dim]Default: the predicted one.[/dim]",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
SourcesText = Annotated[
    str | None,
    typer.Option(
        "--sources",
        metavar="all|cls|0,3",
        help="Top nodes that feed the flow: all, the position that is read, or positions. "
        "[dim]Default: all; with --residual and for language models: cls.[/dim]",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
ResidualShare = Annotated[
    float | None,
    typer.Option(
        "--residual",
        metavar="ALPHA",
        help="Divide rows by their sums, then mix with the residual connection: "
        "ALPHA * capacities + (1 - ALPHA) * identity.",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

# name on the command line -> class in flowopt.objectives, and the weight it takes
OBJECTIVES: dict[str, tuple[str, tuple[str, ...]]] = {
    "barrier": ("LogBarrier", ("mu", "gap")),
    "maxflow": ("MaxFlow", ()),
    "quadratic": ("Quadratic", ("rho",)),
    "entropy": ("Entropy", ("tau",)),
    "fair": ("ProportionalFair", ()),
    "maxminfair": ("MaxMinFair", ()),
    "shapley": ("ShapleyFlow", ()),
}


def objective_of(name: str, **weights: float | None) -> Objective:
    """Make the objective that the options describe.

    Parameters
    ----------
    name : str
        One of `OBJECTIVES`.
    **weights : float or None
        mu, gap, rho, tau; None where the option was not given.

    Raises
    ------
    InputError
        For an unknown name, a weight of another objective, or a weight that is not positive.
    """
    from flowopt import objectives

    if name.lower() not in OBJECTIVES:
        close = difflib.get_close_matches(name.lower(), OBJECTIVES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(
            f"there is no objective {name!r}; {hint}Known names: {', '.join(OBJECTIVES)}"
        )
    kind, accepted = OBJECTIVES[name.lower()]
    given = {weight: value for weight, value in weights.items() if value is not None}
    for weight, value in given.items():
        if weight not in accepted:
            owner = next(other for other, (_, own) in OBJECTIVES.items() if weight in own)
            raise InputError(f"--{weight} goes with --objective {owner}, not {name.lower()}")
        if not 0 < value < float("inf"):
            raise InputError(f"--{weight} must be a positive number, not {value:g}")
    if len(given) > 1:
        raise InputError("give either --mu or --gap, not both")
    made: Objective = getattr(objectives, kind)(**given)
    return made


def sources_of(text: str | None) -> str | list[int] | None:
    """Read "all", "cls" or positions such as "0,3".

    Raises
    ------
    InputError
    """
    if text is None or text in ("all", "cls"):
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--sources must be all, cls or positions such as 0,3; not {text!r}"
        ) from None


def target_of(text: str | None) -> int | str | None:
    """Read a class or token: an index where it looks like one, otherwise a label or text."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        return text


def stages_of(name: str, residual: float | None) -> str:
    """Check the stages before a model is loaded.

    Raises
    ------
    InputError
    """
    from flowopt.explainer.networks import STAGES

    if name not in STAGES:
        raise InputError(f"--stages must be one of {', '.join(STAGES)}; not {name!r}")
    if name == "sequential" and residual is None:
        raise InputError(
            "--stages sequential needs a residual edge past the cross-attention; add --residual 0.5"
        )
    return name


def capacity_variants(residual: float | None) -> tuple[CapacityVariant, ...]:
    """Variants that the options ask for.

    Rows are normalised first: next to an identity the small entries of an attention-gradient
    product would vanish.
    """
    if residual is None:
        return ()
    from flowopt.capacities import Residual, RowNormalize

    if not 0 <= residual <= 1:
        raise InputError(f"--residual must lie between 0 and 1, not {residual:g}")
    return RowNormalize(), Residual(residual)


def check_tensor_and_solver(tensor: str, solver: str | None) -> None:
    """Refuse unknown names before a model is loaded.

    Raises
    ------
    InputError, MissingDependencyError
    """
    from flowopt.tensors import tensor_spec

    tensor_spec(tensor)
    if solver is not None:
        from flowopt.solvers import get_solver

        get_solver(solver)
