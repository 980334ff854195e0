"""``flowopt methods`` and ``flowopt explain --method``."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest
from typer.testing import CliRunner

import flowopt as fo
from flowopt import assets
from flowopt.cli import app
from flowopt.cli import explain as explain_command
from flowopt.cli import methods as methods_command

TEXT = "A gripping, funny film."


@pytest.fixture(scope="module")
def bundled():
    return assets.load_bundled()


@pytest.fixture
def run(monkeypatch, bundled):
    monkeypatch.setattr(assets, "load_bundled", lambda: bundled)
    monkeypatch.setenv("COLUMNS", "100")
    for module in (explain_command, methods_command):
        monkeypatch.setattr(module, "swift_start", nullcontext)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def refusal(result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("flowopt: error: ")


def test_the_list_of_methods(run):
    result = run("methods")
    assert (result.exit_code, result.stderr) == (0, "")
    for name in ("agf-barrier", "conductance-flow", "integrated-gradients", "y(x) - y(baseline)"):
        assert name in result.stdout
    listed = json.loads(run("methods", "--json").stdout)
    assert [each["name"] for each in listed if each["available"]] == list(fo.methods.available())


def test_explain_by_a_method(run, bundled):
    result = run("explain", TEXT, "--method", "attcat", "--json", "--target", "negative")
    assert (result.exit_code, result.stderr) == (0, "")
    answer = json.loads(result.stdout)
    expected = fo.explain(*bundled, TEXT, method="attcat", target=0)
    np.testing.assert_allclose(answer["scores"], expected.scores, rtol=1e-4, atol=1e-7)
    wanted = {"text", "tokens", "scores", "prediction", "value", "max_flow", "status"}
    assert wanted | {"certificate"} <= answer.keys()
    assert (answer["certificate"], answer["max_flow"], answer["status"]) == (None, None, "computed")
    assert answer["target"]["label"] == "negative"
    shown = run("explain", TEXT, "--method", "attcat").stdout
    assert "attcat" in shown
    assert "no certificate" in shown


def test_options_of_a_method(run, tmp_path):
    page = tmp_path / "page.html"
    words = ("explain", TEXT, "A dull film.", "--method", "integrated-gradients", "--json")
    words += ("--option", "steps=4", "--option", "baselines=['pad', 'mask']", "--html", page)
    result = run(*words)
    assert result.exit_code == 0
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["text"] for each in answers] == [TEXT, "A dull film."]
    assert answers[0]["settings"]["options"] == {"baselines": ["pad", "mask"], "steps": 4}
    assert answers[0]["settings"]["passes"]["backward"] == 8
    assert "integrated-gradients" in page.read_text(encoding="utf-8")
    single = run("explain", TEXT, "--method", "occlusion", "--json", "--option", "baseline=pad")
    assert json.loads(single.stdout)["settings"]["baseline"] == "pad"


def test_a_flow_by_its_name_is_the_flow(run):
    first = json.loads(run("explain", TEXT, "--json").stdout)
    second = json.loads(run("explain", TEXT, "--json", "--method", "agf-barrier").stdout)
    assert first["scores"] == pytest.approx(second["scores"])
    assert second["certificate"] is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "attkat"), "did you mean 'attcat'"),
        (("--method", "attcat", "--tensor", "agf"), "--tensor goes without --method"),
        (("--method", "attcat", "--no-unroll"), "--no-unroll goes without --method"),
        (("--method", "attcat", "--gap", "0.1"), "--gap goes without --method"),
        (("--method", "attcat", "--option", "steps=4"), "no option 'steps'"),
        (("--method", "lime", "--option", "samples"), "NAME=VALUE"),
        (("--method", "lime", "--option", "samples=x"), "samples must be a whole number"),
        (("--method", "lime", "--target", "neutral"), "no label 'neutral'"),
        (("--option", "steps=4"), "--option goes with --method"),
    ],
)
def test_refusals(run, words, message):
    assert message in refusal(run("explain", TEXT, *words))
