"""``flowopt explain``: texts in, attributions out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flowopt.cli import explain_options as own
from flowopt.cli import options
from flowopt.cli.answers import Output, answers
from flowopt.cli.methods import MethodName, MethodOptions, check_method, named_method
from flowopt.cli.shell import FAILED, say, silent_loading, swift_start
from flowopt.cli.texts import EXAMPLE, from_arguments, from_file
from flowopt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowopt.attribution import Attribution, AttributionMatrix
    from flowopt.cli.answers import Method
    from flowopt.explainer import Explainer
    from flowopt.trace import Target

_CHUNK = 16
EXAMPLES = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        EXAMPLE,
        'flowopt explain "A dull film." --target positive --html film.html',
        "flowopt explain --file reviews.txt --output results.jsonl",
        'flowopt explain "A gripping, funny film." --objective maxflow --json | jq .scores',
        'flowopt explain "A gripping, funny film." --method integrated-gradients',
        'flowopt explain "Once upon a time" --model my-decoder --target " there"',
        'flowopt explain "Once upon a time" --model my-decoder --generate 12 --html story.html',
        'flowopt explain "Guten Tag." --model my-translator --continuation "Good day."',
    ]
)


def explain(
    context: typer.Context,
    text: own.Texts = None,
    file: own.File = None,
    model: options.Model = None,
    method: MethodName = None,
    option: MethodOptions = None,
    tensor: options.Tensor = "agf",
    objective: options.ObjectiveName = "barrier",
    mu: options.Mu = None,
    gap: options.Gap = None,
    rho: options.Rho = None,
    tau: options.Tau = None,
    solver: own.SolverName = None,
    target: options.Target = None,
    contrast: own.Contrast = None,
    sources: options.SourcesText = None,
    residual: options.ResidualShare = None,
    generate: own.Generate = None,
    continuation: own.Continuation = None,
    no_unroll: own.NoUnroll = False,
    stages: own.Stages = "parallel",
    normalise: own.Normalise = "none",
    json_: own.JsonLines = False,
    html: own.Html = None,
    output: own.OutputFile = None,
    no_progress: own.NoProgress = False,
    debug: options.Debug = False,
) -> None:
    """Explain a prediction: how much flow reaches each word.

    Classifiers explain the class, language models the token that comes next; with --generate or
    --continuation every token that they generate, as a matrix. Prints the sentence with its words
    shaded, their scores, the share of the maximum flow that was reached, and what is proved about
    the answer.

    Exit code 0: all explained. 1: some lines of a file failed. 2: the input cannot be used.
    """
    settings = {
        "tensor": tensor,
        "objective": options.objective_of(objective, mu=mu, gap=gap, rho=rho, tau=tau),
        "solver": solver,
        "sources": options.sources_of(sources),
        "capacities": options.capacity_variants(residual),
        "contrast": options.target_of(contrast),
        "unroll": not no_unroll,
        "stages": options.stages_of(stages, residual),
        "normalise": normalise,
    }
    check_method(method, option, context)
    options.check_tensor_and_solver(tensor, solver)
    _check_generation(generate, continuation, target)
    lines = from_arguments(text) if file is None else from_file(file, text)
    shown = Output(json_, html, output, progress=not no_progress)
    shown.check()
    if method is not None:
        ask: Method = named_method(model, method, option, target)
    else:
        explainer = _loaded(model, settings)
        ask = _method(explainer, options.target_of(target), generate, continuation)
    total = len(lines) if isinstance(lines, list) else None
    # standard input: answer each line as it comes
    failed = shown.emit_all(answers(ask, lines, _CHUNK if total is not None else 1), total)
    if failed:
        say("error", f"lines that failed: {failed}; the others are explained")
        raise typer.Exit(FAILED)


def _loaded(model: str | Path | None, settings: dict[str, Any]) -> Explainer:
    with swift_start():
        from flowopt.explainer import Explainer

        with silent_loading():
            return Explainer.from_pretrained(model, **settings)


def _check_generation(generate: int | None, continuation: str | None, target: str | None) -> None:
    if generate is not None and continuation is not None:
        raise InputError("give either --generate or --continuation, not both")
    if generate is not None and generate < 1:
        raise InputError(f"--generate must be a positive number of tokens, not {generate}")
    if continuation == "":
        raise InputError("the continuation is empty; give its text, with its first blank")
    if target is not None and (generate is not None or continuation is not None):
        raise InputError(
            "--target goes with one prediction; every token of a generation is its own target"
        )


def _method(
    explainer: Explainer, target: Target, generate: int | None, continuation: str | None
) -> Method:
    """From texts to answers, in the way that the options ask for."""
    if generate is None and continuation is None:
        return partial(_predictions, explainer, explainer.target_index(target))
    explainer.check_generates()
    most = {} if generate is None else {"max_new_tokens": generate}
    return partial(_generations, explainer, continuation, most)


def _predictions(explainer: Explainer, target: Target, texts: list[str]) -> list[Attribution]:
    # One text alone is no list: then messages do not number it.
    return [explainer(texts[0], target)] if len(texts) == 1 else explainer(texts, target)


def _generations(
    explainer: Explainer, continuation: str | None, most: dict[str, Any], texts: Sequence[str]
) -> list[AttributionMatrix]:
    return [explainer.explain_generation(text, continuation, **most) for text in texts]
