"""``flowopt evaluate``: methods on a corpus; ``flowopt metrics``: what can be measured."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowopt.cli import options
from flowopt.cli.corpus import methods_of, pairs_of, workers_of
from flowopt.cli.shell import say, silent_loading, stdout_console, swift_start
from flowopt.errors import InputError

if TYPE_CHECKING:
    from flowopt.evaluation import Evaluation

__all__ = ["EXAMPLES", "evaluate", "metrics"]

_WIDTH = 150  # of the tables
_DATA = "The data"
_DEFAULT = ("agf-barrier", "integrated-gradients")
EXAMPLES = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "flowopt evaluate reviews.jsonl --limit 50",
        "flowopt evaluate reviews.csv --text body --label stars --protocol attcat --out runs/a",
        "flowopt evaluate films.jsonl --where split=dev --method agf-barrier "
        "--method ig16=integrated-gradients:steps=16 --out runs/b",
        "flowopt evaluate imdb:test --workers 8 --out runs/c   [dim]# again: resume[/dim]",
        "flowopt evaluate imdb:test --workers tcp://host:8786 --out runs/d   [dim]# Dask[/dim]",
        "flowopt evaluate --report runs/b   [dim]# tables and reports of what is there[/dim]",
    ]
)


def evaluate(
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET",
            help="A .jsonl, .csv, .tsv, .parquet or .txt file; or [bold]name:split[/bold] or "
            "[bold]name/config:split[/bold] for the package datasets.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL=]NAME[:OPTION=VALUE,...]",
            help="A method; may be given again. [bold]flowopt methods[/bold] lists them. "
            f"[dim]Default: {', '.join(_DEFAULT)}.[/dim]",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="[bold]flowopt metrics[/bold] lists them. [dim]Default: all of faithfulness, and "
            "of plausibility where texts have marks.[/dim]",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(metavar="NAME", help="default, attcat, attcat-pad or eraser.")
    ] = "default",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the rows (parquet), report.md and report.html. With a folder that "
            "has results only what is missing is done.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="The first N texts.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="For methods that draw random numbers.")] = 0,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|ADDRESS",
            help="Processes on this machine, -1 for one per core; or the address of a Dask "
            "scheduler. [dim]Default: this process.[/dim]",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Another backend of joblib.", show_default=False),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Which column is the text. [dim]Default: text, sentence, review, content or "
            "document.[/dim]",
            show_default=False,
            rich_help_panel=_DATA,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The right class.",
            show_default=False,
            rich_help_panel=_DATA,
        ),
    ] = None,
    identifier: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="COLUMN", help="The id.", show_default=False, rich_help_panel=_DATA
        ),
    ] = None,
    marks: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Human marks, a list of numbers per word.",
            show_default=False,
            rich_help_panel=_DATA,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Only such rows; may be given again.",
            show_default=False,
            rich_help_panel=_DATA,
        ),
    ] = None,
    no_references: Annotated[
        bool, typer.Option("--no-references", help="Leave out random and leave-one-out.")
    ] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try texts again that failed before.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Do nothing but show, and write the reports of, the results in a folder.",
            show_default=False,
        ),
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure explanations on a corpus: how faithful are they to the model, method by method.

    Every text is explained by every method, tokens are removed in the order of the scores, and
    the model is asked again. Means come with bootstrap intervals; random scores and the
    leave-one-out order are in every table for reference. Explanations of texts with human marks
    are also compared with these, in a table apart.

    With --out every text is on disk as soon as it is done: the same command again goes on where
    an interrupted one stopped. A text that fails is recorded and the others go on: exit code 0.
    """
    if report is not None:
        if dataset is not None:
            raise InputError("--report shows a folder; it goes without a data set")
        from flowopt.evaluation import Evaluation

        _show(Evaluation.load(report), report, None, json_)
        return
    if dataset is None:
        raise InputError("which texts? Try: flowopt evaluate reviews.jsonl --limit 50")
    from flowopt.evaluation import read_dataset

    data = read_dataset(
        dataset, text=text, label=label, id=identifier, marks=marks, where=pairs_of(where)
    )
    chosen = methods_of(list(method or _DEFAULT))
    with swift_start():
        from flowopt import evaluate as run
        from flowopt.explainer.loading import load_model  # noqa: F401  # its imports are slow
    try:
        with silent_loading():
            found = run(
                model,
                chosen,
                data,
                None if metrics is None else [name.strip() for name in metrics.split(",")],
                out,
                protocol=protocol,
                limit=limit,
                seed=seed,
                workers=workers_of(workers),
                engine=engine,
                references=not no_references,
                retry_errors=retry_errors,
                progress=not no_progress,
            )
    except KeyboardInterrupt as error:
        if str(error):
            say("note", str(error))
        raise
    _show(found, out, "flowopt " + shlex.join(sys.argv[1:]), json_)


def metrics(json_: options.Json = False, debug: options.Debug = False) -> None:
    """List the metrics: what each measures, which direction is better, its range."""
    from flowopt.evaluation import metrics as known

    rows = [
        {
            "name": each.name,
            "kind": each.kind,
            "higher_is_better": each.higher_is_better,
            # JSON knows no infinity
            "range": [end if abs(end) < float("inf") else None for end in each.range],
            "summary": each.summary,
            "source": each.source,
        }
        for each in known()
    ]
    if json_:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    from flowopt.cli.listings import _print_table

    _print_table(
        ("metric", "kind", "better", "range", "what it is"),
        [
            (
                each.name,
                each.kind,
                "higher" if each.higher_is_better else "lower",
                "{:g} to {:g}".format(*each.range),
                each.summary,
            )
            for each in known()
        ],
    )


def _show(found: Evaluation, out: Path | None, command: str | None, json_: bool) -> None:
    if out is not None:
        say("note", f"wrote {found.report(out, command)}")
    if json_:
        sys.stdout.write(f"{found.to_json()}\n")
    else:
        stdout_console(least=_WIDTH).print(found)
