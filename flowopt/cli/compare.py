"""``flowopt compare``: the same flow problem, several solvers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowopt.cli import options
from flowopt.cli.shell import silent_loading, stdout_console, swift_start
from flowopt.errors import InputError

if TYPE_CHECKING:
    from flowopt.capacities import CapacityVariant
    from flowopt.network import FloatArray, FlowNetwork

_WIDTH = 150  # of the table of solvers
_EXAMPLE = 'flowopt compare "A gripping, funny film."'
EXAMPLES = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        _EXAMPLE,
        'flowopt compare "A gripping, funny film." --objective maxflow --solvers scipy,HIGHS',
        "flowopt compare network.npz --objective quadratic --json",
    ]
)


def compare(
    problem: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|FILE.npz",
            help="A text, or a file with an array [bold]capacities[/bold] (layers, tokens, tokens),"
            " or with [bold]attention[/bold] and [bold]gradient[/bold] "
            "(layers, heads, tokens, tokens).",
        ),
    ],
    solvers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Which solvers. [dim]Default: all here that can solve it.[/dim]",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    tensor: options.Tensor = "agf",
    objective: options.ObjectiveName = "barrier",
    mu: options.Mu = None,
    gap: options.Gap = None,
    rho: options.Rho = None,
    tau: options.Tau = None,
    target: options.Target = None,
    sources: options.SourcesText = None,
    residual: options.ResidualShare = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Solve one flow problem with several solvers: status, certificate, seconds, differences.

    The certificate is flowopt's own, so it means the same for every solver.
    """
    chosen = options.objective_of(objective, mu=mu, gap=gap, rho=rho, tau=tau)
    variants = options.capacity_variants(residual)
    options.check_tensor_and_solver(tensor, None)
    names = None if solvers is None else [name.strip() for name in solvers.split(",")]
    for name in names or ():
        options.check_tensor_and_solver(tensor, name)
    if problem.endswith(".npz"):
        if model is not None or target is not None:
            raise InputError("--model and --target go with a text; a file holds its numbers")
        network = _from_file(Path(problem), tensor, sources, residual)
    else:
        network = _from_text(problem, model, tensor, target, sources, variants)

    from flowopt.comparison import compare_solvers

    table = compare_solvers(network, chosen, names)
    if json_:
        sys.stdout.write(f"{table.to_json()}\n")
    else:
        stdout_console(least=_WIDTH).print(table)
    if all(row.status == "refused" for row in table.rows):
        raise typer.Exit(2)


def _from_text(
    text: str,
    model: str | None,
    tensor: str,
    target: str | None,
    sources: str | None,
    variants: tuple[CapacityVariant, ...],
) -> FlowNetwork:
    if not text.strip():
        raise InputError(f"the text is empty; try: {_EXAMPLE}")
    with swift_start():
        from flowopt.explainer import Explainer
        from flowopt.objectives import MaxFlow

        # Plain maximum flow is the fastest way to the network itself.
        with silent_loading():
            explainer = Explainer.from_pretrained(
                model,
                tensor=tensor,
                objective=MaxFlow(),
                sources=options.sources_of(sources),
                capacities=variants,
            )
    return explainer(text, options.target_of(target)).solutions[0].network


def _from_file(path: Path, tensor: str, sources: str | None, residual: float | None) -> FlowNetwork:
    from flowopt.capacities import compose
    from flowopt.network import FlowNetwork
    from flowopt.tensors import information_tensor

    arrays = _arrays(path)
    if "attention" in arrays:
        capacities = information_tensor(tensor, arrays["attention"], arrays.get("gradient"))
    elif "capacities" in arrays or len(arrays) == 1:
        capacities = arrays.get("capacities", next(iter(arrays.values())))
    else:
        raise InputError(
            f"{path} holds {', '.join(arrays) or 'no arrays'}; name the array capacities "
            "(layers, tokens, tokens), or give attention and gradient"
        )
    if capacities.ndim != 3:
        raise InputError(
            f"the array {', '.join(arrays)} of {path} has {capacities.ndim} dimensions; "
            "capacities are (layers, tokens, tokens)"
        )
    variants = options.capacity_variants(residual)
    if variants:
        capacities = compose(*variants)(capacities)
    # Position 0 is what an encoder's classifier reads; a file does not know better.
    top = {None: [0] if variants else "all", "cls": [0]}.get(sources, options.sources_of(sources))
    return FlowNetwork.layered(capacities, sources="all" if top is None else top)


def _arrays(path: Path) -> dict[str, FloatArray]:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name], dtype=np.float64) for name in stored.files}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, TypeError, zipfile.BadZipFile):
        raise InputError(f"{path} is no .npz file of plain arrays of numbers") from None
