"""Reports of an evaluation: markdown, a stand-alone page, a fragment for notebooks."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowopt import provenance
from flowopt.assets import BUNDLED_NAME
from flowopt.evaluation import tables
from flowopt.evaluation.curves import charts

if TYPE_CHECKING:
    import jinja2

    from flowopt.evaluation.results import Evaluation
    from flowopt.evaluation.tables import Cell, Table
    from flowopt.viz.palette import Scheme

__all__ = ["as_plain", "fragment", "markdown", "page", "write_report"]

MARKDOWN, HTML = "report.md", "report.html"


def write_report(found: Evaluation, folder: Path, command: str | None = None) -> Path:
    """Write both reports into a folder and return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKDOWN).write_text(markdown(found, command), encoding="utf-8")
    path = folder / HTML
    path.write_text(page(found, command), encoding="utf-8")
    return path


def markdown(found: Evaluation, command: str | None = None) -> str:
    """The report in markdown, without pictures: curves become tables."""
    parts = [f"# {_title(found)}", _facts_markdown(found)]
    parts += [_as_markdown(table) for table in _all_tables(found)]
    for name in ("deletion", "insertion"):
        levels, curves = found.curve(name)
        if curves:
            rows = [[method, *(f"{p:.3f}" for p in curve)] for method, curve in curves.items()]
            head = ["method", *(f"{level:.0%}" for level in levels)]
            parts += [f"## Mean {name} curve", _CURVES[name], _grid(head, rows)]
    parts += ["## Again", f"```\n{command or call_of(found)}\n```", _machine(found)]
    return "\n\n".join(parts) + "\n"


def page(found: Evaluation, command: str | None = None) -> str:
    """A page that needs nothing else, light and dark."""
    from flowopt import __version__

    return (
        _environment()
        .get_template("report.html")
        .render(
            title=_title(found),
            facts=_facts(found),
            tables=_all_tables(found),
            charts=charts(found),
            command=command or call_of(found),
            machine=_machine(found),
            version=__version__,
            **_colours(),
        )
    )


def fragment(found: Evaluation) -> str:
    """Means, for a notebook."""
    return (
        _environment()
        .get_template("tables.html")
        .render(title=_title(found), tables=tables.means(found), **_colours())
    )


def as_plain(found: Evaluation) -> dict[str, Any]:
    """Facts, means, costs and failures as plain values for JSON."""
    summary = found.summary()
    return {
        **found.facts,
        "texts": found.texts,
        "failed": found.failed,
        "summary": {
            metric: {name: _finite(dataclasses.asdict(each)) for name, each in own.items()}
            for metric, own in summary.items()
        },
        "costs": {name: _finite(dataclasses.asdict(c)) for name, c in found.costs().items()},
        "failures": [dataclasses.asdict(each) for each in found.failures()],
    }


def call_of(found: Evaluation) -> str:
    """The call of `flowopt.evaluate` that asks for the same."""
    facts = found.facts
    methods = []
    for each in facts["methods"]:
        if each["label"] == each["method"] in ("random", "leave-one-out"):
            continue
        methods.append(f"    {each['label']!r}: ({each['method']!r}, {each.get('given', {})!r}),")
    names = [metric["name"] for metric in facts["metrics"]]
    model = None if facts["model"] == BUNDLED_NAME else facts["model"]
    return "\n".join([
        f"# data set: {facts['dataset']}",
        "methods = {", *methods, "}",
        f"fo.evaluate({model!r}, methods, data, {names!r},",
        f"            protocol={facts['protocol']['name']!r}, seed={facts['seed']}, "
        f"limit={facts['limit']})",
    ])  # fmt: skip


_CURVES = {
    "deletion": "Mean probability of the explained class when the highest share of the tokens is "
    "removed.",
    "insertion": "Mean probability of the explained class when only the highest share of the "
    "tokens is there.",
}


def _all_tables(found: Evaluation) -> list[Table]:
    last = tables.failures(found)
    return [
        *tables.means(found),
        *tables.comparison(found),
        tables.costs(found),
        *([] if last is None else [last]),
    ]


def _title(found: Evaluation) -> str:
    return f"{found.facts['model']} on {found.facts['dataset']}"


def _facts(found: Evaluation) -> list[tuple[str, str]]:
    """What a reader needs to know of a result, and to make it again."""
    facts, plan = found.facts, found.facts["protocol"]
    levels = ", ".join(f"{level:.3g}" for level in plan["levels"])
    size = "change of probability" if plan["absolute"] else "signed change"
    versions = sorted(set(filter(None, found.table.column("flowopt").to_pylist())))
    return [
        ("model", f"{facts['model']}, weights sha256 {facts['model_revision'][:16]}"),
        ("data", f"{facts['dataset']}, {found.texts} texts"),
        (
            "protocol",
            f"{plan['name']}: {plan['removal']}, {plan['target']} class, {size}, levels {levels}, "
            f"at least {plan['least_tokens']} tokens",
        ),
        ("seed", str(facts["seed"])),
        ("rows", f"{len(found)}, of which {found.failed} failed"),
        ("flowopt", ", ".join(versions)),
    ]


def _facts_markdown(found: Evaluation) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in _facts(found))


def _machine(found: Evaluation) -> str:
    return "Last run: " + provenance.describe(dict(found.facts))


def _as_markdown(table: Table) -> str:
    rows = [[_strong(cell) for cell in row] for row in table.rows]
    return f"## {table.title}\n\n{_grid(table.header, rows)}\n\n{table.note}"


def _strong(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.strong else cell.text


def _grid(header: Any, rows: Any) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    bad = (name for name, v in values.items() if isinstance(v, float) and not math.isfinite(v))
    return {**values, **dict.fromkeys(bad)}


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    # The style sheet is that of the explanations' pages.
    places = [jinja2.PackageLoader("flowopt.evaluation"), jinja2.PackageLoader("flowopt.viz")]
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(places),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _colours() -> dict[str, Any]:
    from flowopt.viz.palette import DARK, LIGHT

    return {"light": _scheme(LIGHT, "#dfe3e9"), "dark": _scheme(DARK, "#39414d"), "steps": 0}


def _scheme(scheme: Scheme, rule: str) -> dict[str, Any]:
    from flowopt.viz.palette import shade

    return {
        "text": scheme.text,
        "faint": scheme.faint,
        "paper": shade(0.0, scheme),
        "rule": rule,
        "shades": [],
    }
