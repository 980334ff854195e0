"""``flowopt methods``: what there is, and what ``flowopt explain --method`` does with a name."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowopt.cli import options
from flowopt.cli.shell import stdout_console, swift_start
from flowopt.errors import InputError

if TYPE_CHECKING:
    from flowopt.attribution import Attribution

__all__ = ["EXAMPLES", "MethodName", "MethodOptions", "check_method", "methods", "named_method"]

_HOW = "What is computed"
_WIDTH = 150  # of the table
_FLOW_OPTIONS = (
    "tensor", "objective", "mu", "gap", "rho", "tau", "solver", "contrast", "sources", "residual",
    "generate", "continuation", "no_unroll", "stages", "normalise",
)  # fmt: skip
EXAMPLES = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "flowopt methods",
        "flowopt methods --json | jq -r '.[].name'",
        'flowopt explain "A gripping, funny film." --method integrated-gradients --option steps=64',
    ]
)

MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Another method in place of the flow below; [bold]flowopt methods[/bold] lists them.",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of --method, such as steps=64; may be given again for others.",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]


def methods(json_: options.Json = False, debug: options.Debug = False) -> None:
    """List the methods of explanation: what each costs, and what its scores sum to.

    Passes count texts read by the model: t tokens, p of them not special. Flow methods go by the
    pattern tensor-objective, and exist for every tensor and objective.
    """
    from flowopt.methods import describe

    table = describe()
    if json_:
        sys.stdout.write(json.dumps(table.rows()) + "\n")
        return
    stdout_console(least=_WIDTH).print(table)


def check_method(method: str | None, given: list[str] | None, context: typer.Context) -> None:
    """Refuse a method, its options, and options of flows beside it, before a model is loaded.

    Raises
    ------
    InputError, MissingDependencyError
    """
    if method is None:
        if given:
            raise InputError("--option goes with --method; flowopt methods lists them")
        return
    for name in _FLOW_OPTIONS:
        source = context.get_parameter_source(name)
        if source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP"):
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{flag} goes without --method; give a method's own options as --option NAME=VALUE"
            )
    from flowopt.methods import method_spec

    method_spec(method).check(_parsed(given))


def named_method(
    model: str | None, method: str, given: list[str] | None, target: str | None
) -> Callable[[list[str]], Sequence[Attribution]]:
    """From texts to their attributions by a method; the model is loaded now.

    Raises
    ------
    InputError
        If the model cannot be loaded, or has no such class or token.
    """
    with swift_start():
        from flowopt.explainer.loading import load_model
        from flowopt.trace.goals import goals_of

        loaded, tokenizer = load_model(model)
    wanted = options.target_of(target)
    goals_of(loaded, wanted, (), tokenizer)
    return partial(_explained, loaded, tokenizer, method, wanted, _parsed(given))


def _explained(
    model: Any, tokenizer: Any, method: str, target: Any, chosen: dict[str, Any], texts: list[str]
) -> list[Attribution]:
    from flowopt.methods import explain

    # One text alone is no list: then messages do not number it.
    if len(texts) == 1:
        return [explain(model, tokenizer, texts[0], method, target, **chosen)]
    return explain(model, tokenizer, texts, method, target, **chosen)


def _parsed(given: list[str] | None) -> dict[str, Any]:
    """Options as Python values where they look like numbers or lists, else as text."""
    found: dict[str, Any] = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise InputError(f"--option takes NAME=VALUE, such as steps=64; not {pair!r}")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found
