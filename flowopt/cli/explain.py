"""``flowopt explain``: texts in, attributions out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowopt.cli import options
from flowopt.cli.shell import FAILED, say, stdout_console, swift_start
from flowopt.cli.texts import EXAMPLE, Line, from_arguments, from_file
from flowopt.errors import FlowoptError, InputError

if TYPE_CHECKING:
    from flowopt.attribution import Attribution
    from flowopt.explainer import Explainer

_IN, _OUT = "What is read", "What is written"
_CHUNK = 16
EXAMPLES = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        EXAMPLE,
        'flowopt explain "A dull film." --target positive --html film.html',
        "flowopt explain --file reviews.txt --output results.jsonl",
        'flowopt explain "A gripping, funny film." --objective maxflow --json | jq .scores',
    ]
)


def explain(
    text: Annotated[
        list[str] | None, typer.Argument(help="One text or several, each in quotes.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            "-f",
            metavar="PATH",
            help="Explain each line of a file; - reads standard input.",
            rich_help_panel=_IN,
        ),
    ] = None,
    model: options.Model = None,
    tensor: options.Tensor = "agf",
    objective: options.ObjectiveName = "barrier",
    mu: options.Mu = None,
    gap: options.Gap = None,
    rho: options.Rho = None,
    tau: options.Tau = None,
    solver: Annotated[
        str | None,
        typer.Option(
            help="Who solves it; [bold]flowopt solvers[/bold] lists them. "
            "[dim]Default: the best for the objective.[/dim]",
            show_default=False,
            rich_help_panel="What is computed",
        ),
    ] = None,
    target: options.Target = None,
    sources: options.SourcesText = None,
    residual: options.ResidualShare = None,
    json_: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object per text.", rich_help_panel=_OUT),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page with all texts.", rich_help_panel=_OUT),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write JSON lines to a file instead of printing.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="No progress bar.", rich_help_panel=_OUT)
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Explain a classifier's prediction: how much flow reaches each word.

    Prints the sentence with its words shaded, their scores, the share of the maximum flow that
    was reached, and what is proved about the answer.

    Exit code 0: all explained. 1: some lines of a file failed. 2: the input cannot be used.
    """
    chosen = options.objective_of(objective, mu=mu, gap=gap, rho=rho, tau=tau)
    top, variants = options.sources_of(sources), options.capacity_variants(residual)
    options.check_tensor_and_solver(tensor, solver)
    lines = from_arguments(text) if file is None else from_file(file, text)
    if html is not None:
        _check_writable(html)
    if output is not None:
        _check_writable(output)

    with swift_start():
        from flowopt.explainer import Explainer
        from flowopt.trace.batch import class_index

        explainer = Explainer.from_pretrained(
            model, tensor=tensor, objective=chosen, solver=solver, sources=top, capacities=variants
        )
    wanted = class_index(explainer.model, options.target_of(target))
    total = len(lines) if isinstance(lines, list) else None
    chunk = _CHUNK if total is not None else 1  # standard input: answer each line as it comes
    bar = total is not None and total > 1 and not no_progress and sys.stderr.isatty()
    kept: list[Attribution] | None = None if html is None else []
    with ExitStack() as stack:
        emit = _emitter(stack, json_, output, bar)
        advance = _progress(stack, total if bar else None)
        failed = _emit_all(answers(explainer, lines, wanted, chunk), emit, advance, kept)
    if html is not None and kept:
        _write_page(html, kept)
    if output is not None:
        say("note", f"wrote {output}")
    if failed:
        say("error", f"lines that failed: {failed}; the others are explained")
        raise typer.Exit(FAILED)


def _emit_all(
    found: Iterator[tuple[Line, Attribution | FlowoptError]],
    emit: Callable[[Line, Attribution], None],
    advance: Callable[[], object],
    kept: list[Attribution] | None,
) -> int:
    """Pass answers on as they come, report lines that fail, and return their number."""
    failed = 0
    for line, answer in found:
        advance()
        if isinstance(answer, FlowoptError):
            if line.number is None:
                raise answer
            failed += 1
            say("error", f"line {line.number}: {answer}")
            continue
        emit(line, answer)
        if kept is not None:
            kept.append(answer)
    return failed


def answers(
    explainer: Explainer, lines: Sequence[Line] | Iterator[Line], target: int | None, size: int
) -> Iterator[tuple[Line, Attribution | FlowoptError]]:
    """Explain lines in order, several at a time; a line that fails does not lose its neighbours.

    Parameters
    ----------
    size : int
        Lines explained together, which spares forward passes.

    Yields
    ------
    Line, and its Attribution or what went wrong
    """
    for chunk in _chunks(lines, size):
        try:
            found = _together(explainer, [line.text for line in chunk], target)
        except FlowoptError as error:
            if len(chunk) == 1:
                yield chunk[0], error
            else:
                yield from answers(explainer, chunk, target, 1)
        else:
            yield from zip(chunk, found, strict=True)


def _together(explainer: Explainer, texts: list[str], target: int | None) -> list[Attribution]:
    # One text alone is no list: then messages do not number it.
    return [explainer(texts[0], target)] if len(texts) == 1 else explainer(texts, target)


def _chunks(lines: Sequence[Line] | Iterator[Line], size: int) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _check_writable(path: Path) -> None:
    """Refuse a bad path before the work, not after it."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"cannot write {path}: give a file in a folder that exists")


def _progress(stack: ExitStack, total: int | None) -> Callable[[], object]:
    from flowopt.progress import progress_bar

    return stack.enter_context(progress_bar(total or 0, total is not None))


def _emitter(
    stack: ExitStack, as_json: bool, output: Path | None, bar: bool
) -> Callable[[Line, Attribution], None]:
    """Return the function that prints or writes one answer."""
    if output is not None or as_json:
        stream = sys.stdout
        if output is not None:
            stream = stack.enter_context(output.open("w", encoding="utf-8"))

        def write(line: Line, answer: Attribution) -> None:
            with _bar_hidden(bar and output is None):
                stream.write(json_line(answer, line.number) + "\n")
                stream.flush()

        return write
    console, first = stdout_console(), [True]

    def show(line: Line, answer: Attribution) -> None:
        with _bar_hidden(bar):
            if not first[0]:
                console.print()
            console.print(answer)
            first[0] = False

    return show


def json_line(answer: Attribution, number: int | None = None) -> str:
    """The stored form of an attribution in one line, with its line number in a file."""
    values = json.loads(answer.to_json())
    return json.dumps(values if number is None else {"line": number, **values})


def _bar_hidden(bar: bool) -> Any:
    """Take the progress bar off the terminal while something else is printed."""
    if not bar:
        return ExitStack()
    from tqdm import tqdm

    return tqdm.external_write_mode()


def _write_page(path: Path, kept: list[Attribution]) -> None:
    from flowopt.viz.html import to_html

    path.write_text(to_html(kept), encoding="utf-8")
    say("note", f"wrote {path}")
