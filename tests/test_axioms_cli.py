"""``flowopt axioms``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from networks import dense, half_zeros
from typer.testing import CliRunner

from flowopt.cli import app
from flowopt.comparison import problem_sets
from flowopt.comparison.problem_sets import Problem

Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "100")
    runner = CliRunner()
    return lambda *words: runner.invoke(app, ["axioms", *(str(word) for word in words)])


def test_a_table_of_methods_and_axioms(run: Run) -> None:
    result = run("maxflow@dinic", "shapley-flow", "--networks", 8, "--axioms", "symmetry,nullity")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert ["axiom", "maxflow@dinic", "shapley-flow"] in rows
    assert ["nullity", "holds", "holds"] in rows
    symmetry = next(row for row in rows if row[0] == "symmetry")
    assert symmetry[1].endswith("/8")
    assert symmetry[-1] == "holds"


def test_json_says_the_same(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "axioms.json"
    result = run("per-pair", "--networks", 6, "--axioms", "maximality", "--json", "--out", file)
    assert (result.exit_code, result.stderr) == (0, "")
    (method,) = json.loads(result.stdout)["methods"]
    assert (method["method"], method["networks"]) == ("per-pair", 6)
    assert method["results"][0]["status"] == "violated"
    assert method["results"][0]["counterexample"]["network"]["blocks"]
    assert json.loads(file.read_text()) == json.loads(result.stdout)


def test_counterexamples_are_printed_when_wanted(run: Run) -> None:
    words = ("maxflow@dinic", "--networks", 8, "--axioms", "symmetry")
    assert "sources" not in run(*words).stdout
    shown = run(*words, "--counterexamples").stdout
    assert "maxflow@dinic: symmetry violated by" in shown
    assert "from which the check made" in shown


def test_the_default_methods(run: Run) -> None:
    result = run("--networks", 1, "--axioms", "maximality")
    assert result.exit_code == 0
    for name in ("maxflow@HIGHS", "barrier:mu=0.01", "shapley-flow"):
        assert name in result.stdout


def test_sentences_come_after_the_random_networks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = (Problem("one", "s", dense), Problem("two", "s", half_zeros))
    monkeypatch.setattr(problem_sets, "problem_set", {"sentences": problems}.__getitem__)
    words = ("shapley-flow", "--axioms", "maximality", "--json")
    for random, sentences, total in ((3, 2, 5), (0, 1, 1)):
        result = run(*words, "--networks", random, "--sentences", sentences)
        assert json.loads(result.stdout)["methods"][0]["networks"] == total
    assert "there are 2 sentences" in run("--sentences", 3, "--networks", 0).stderr


def test_the_seed_decides(run: Run) -> None:
    words = ("maxflow@dinic", "--networks", 6, "--axioms", "symmetry", "--json")
    assert run(*words).stdout == run(*words, "--seed", 0).stdout
    assert run(*words).stdout != run(*words, "--seed", 1).stdout


def test_help_teaches(run: Run) -> None:
    text = run("--help").stdout
    for expected in ("An axiom is a promise", "uniqueness", "Examples", "maxflow@scipy", "--json"):
        assert expected in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simplex",), "There is no method 'simplex'"),
        (("barrier", "--axioms", "fairness"), "There is no axiom 'fairness'"),
        (("barrier", "--networks", 0), "at least one of them positive"),
        (("barrier", "--networks", -1), "at least one of them positive"),
        (("barrier:mu=0",), "mu must be a positive"),
    ],
)
def test_what_cannot_be_used_ends_with_one_line(run: Run, words: Any, message: str) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
