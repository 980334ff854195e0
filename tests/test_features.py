"""The table of what each family supports: what it says is so, and the docs say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from family_fixtures import CASES
from typer.testing import CliRunner

from flowopt.cli import app
from flowopt.errors import FlowoptError, InputError, UnsupportedError
from flowopt.explainer import Explainer
from flowopt.explainer.generation import check_generates
from flowopt.trace import Family, known_families, register_family
from flowopt.trace import families as families_module
from flowopt.trace.features import Features, features, features_of, markdown_table
from flowopt.trace.shared import shares_attention

DOCS = Path(__file__).parents[1] / "docs" / "models.md"


def works(model, inputs, tensor: str) -> bool:
    """Whether a tensor can be had from a model."""
    try:
        attribution = Explainer(model, tensor=tensor).explain_inputs(**inputs)
    except FlowoptError:
        return False
    assert attribution.status == "optimal"
    return True


def generates(model) -> bool:
    try:
        check_generates(model)
    except UnsupportedError:
        return False
    return True


def untrue(claims: Features, name: str) -> list[str]:
    """What the table says of a family, and its model belies."""
    case = CASES[name]
    head = case.heads[0]
    model, inputs = case.model(head), case.inputs(head)
    facts = {
        "gradients": works(model, inputs, "agf"),
        "values": works(model, inputs, "value-norm"),
        "conductance": works(model, inputs, "conductance"),
        "by_layer": shares_attention(model),
        "generation": generates(model),
    }
    return [claim for claim, fact in facts.items() if getattr(claims, claim) != fact]


@pytest.mark.parametrize("name", CASES)
def test_the_table_is_true(name):
    assert not untrue(features_of(CASES[name].model_type), name)


def test_a_table_that_lies_is_caught():
    assert untrue(features_of("bert"), "deberta-v2") == ["values", "conductance", "by_layer"]
    assert untrue(features_of("deberta-v2"), "llama") == [
        "values",
        "conductance",
        "by_layer",
        "generation",
    ]


def test_every_head_of_the_table_is_tested():
    for model_type in known_families():
        tested = {head for case in CASES.values() if case.model_type == model_type
                  for head in case.heads}  # fmt: skip
        listed = set(features_of(model_type).heads)
        if model_type == "deit":  # its two classes share one Auto class
            assert listed == {"ImageClassification"}
            continue
        assert tested == listed, model_type


def test_types_without_a_table_or_code(monkeypatch):
    with pytest.raises(InputError, match="'xlnet' are not in the table"):
        features_of("xlnet")
    monkeypatch.setattr(families_module, "_FAMILIES", dict(families_module._FAMILIES))
    register_family("mine", Family("decoder", readout="last", projection="out"))
    mine = features_of("mine")
    assert (mine.values, mine.conductance, mine.heads) == (False, False, ())
    assert mine.gradients
    assert mine.generation


def test_families_that_are_alike_share_a_line():
    table = markdown_table().splitlines()
    assert len({line.count("|") for line in table}) == 1
    listed = [name for line in table[2:] for name in line.split("|")[1].strip().split(", ")]
    assert sorted(listed) == sorted(known_families())
    assert len(table) - 2 < len(listed)


def test_the_docs_show_the_table():
    assert markdown_table() in DOCS.read_text(encoding="utf-8"), (
        "the table has changed: put the output of `flowopt models --markdown` into docs/models.md"
    )


def test_command_line():
    run = CliRunner().invoke
    found = json.loads(run(app, ["models", "--json"]).stdout)
    assert [each["model_type"] for each in found] == [each.model_type for each in features()]
    assert run(app, ["models", "--markdown"]).stdout == markdown_table() + "\n"
    text = run(app, ["models"]).stdout
    assert all(model_type in text for model_type in known_families())
    assert "next token" in text
