"""``flowopt evaluate`` and ``flowopt metrics``."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

import flowopt as fo
from flowopt import assets
from flowopt.cli import app
from flowopt.cli import evaluate as command
from flowopt.cli.corpus import methods_of

ROWS = [
    {"body": "A dull, slow film.", "split": "dev", "stars": "negative"},
    {"body": "A gripping, funny film.", "split": "dev", "stars": "positive"},
    {"body": "Another one.", "split": "train", "stars": "positive"},
]


@pytest.fixture(scope="module")
def bundled():
    return assets.load_bundled()


@pytest.fixture
def run(monkeypatch, bundled):
    monkeypatch.setattr(assets, "load_bundled", lambda: bundled)
    monkeypatch.setattr(command, "swift_start", nullcontext)
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def films(tmp_path):
    path = tmp_path / "films.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return path


def refusal(result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("flowopt: error: ")


def test_a_corpus_and_its_report(run, films, tmp_path):
    out = tmp_path / "runs" / "a"
    words = ["evaluate", films, "--text", "body", "--label", "stars", "--where", "split=dev"]
    words += ["--method", "rollout", "--method", "ig=integrated-gradients:steps=4", "--out", out]
    words += ["--metrics", "aopc,tau-loo", "--no-progress"]
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    assert f"wrote {out / 'report.html'}" in result.stderr
    found = json.loads(result.stdout)
    assert list(found["summary"]) == ["aopc", "tau-loo"]
    assert list(found["summary"]["aopc"]) == ["rollout", "ig", "random", "leave-one-out"]
    assert (found["texts"], found["failed"], found["dataset"]) == (
        2, 0, "films.jsonl where split=dev",
    )  # fmt: skip
    assert found["methods"][1]["options"]["steps"] == 4
    assert "flowopt " in (out / "report.md").read_text(encoding="utf-8")
    shown = run("evaluate", "--report", out)
    assert shown.exit_code == 0
    assert "aopc ↑" in shown.stdout
    assert len(fo.Evaluation.load(out).rows) == 8


def test_failing_texts_are_no_failure_of_the_command(run, films):
    result = run("evaluate", films, "--text", "body", "--protocol", "attcat", "--metrics", "aopc",
                 "--method", "rollout", "--no-references")  # fmt: skip
    assert result.exit_code == 0
    assert "has no label" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which texts?"),
        (["nowhere.jsonl"], "no file"),
        (["FILMS"], "which column"),
        (["FILMS", "--text", "words"], "no column 'words'"),
        (["FILMS", "--text", "body", "--where", "split"], "--where takes"),
        (["FILMS", "--text", "body", "--method", "nonsense"], "no method 'nonsense'"),
        (["FILMS", "--text", "body", "--method", "saliency:steps"], "--method takes"),
        (["FILMS", "--text", "body", "--method", "lime", "--method", "lime"], "one label"),
        (["FILMS", "--text", "body", "--metrics", "nonsense"], "no metric"),
        (["FILMS", "--text", "body", "--workers", "many"], "--workers takes"),
        (["FILMS", "--text", "body", "--protocol", "nonsense"], "no protocol"),
        (["--report", "nowhere"], "holds no results"),
        (["FILMS", "--report", "nowhere"], "without a data set"),
    ],
)
def test_wrong_words(run, films, words, message):
    assert message in refusal(run("evaluate", *(films if w == "FILMS" else w for w in words)))


def test_methods_and_their_options():
    assert methods_of(["a=lime:samples=50,baseline=pad"]) == {
        "a": ("lime", {"samples": 50, "baseline": "pad"})
    }
    given = "integrated-gradients:baselines=['pad','mask'],steps=4"
    assert methods_of([given])[given][1] == {"baselines": ["pad", "mask"], "steps": 4}


def test_the_list_of_metrics(run):
    result = run("metrics")
    assert (result.exit_code, result.stderr) == (0, "")
    listed = json.loads(run("metrics", "--json").stdout)
    assert {each["name"] for each in listed} == {m.name for m in fo.evaluation.metrics()}
    for each in listed:
        assert each["name"] in result.stdout


def test_help_teaches(run):
    result = run("evaluate", "--help")
    assert result.exit_code == 0
    for part in ("Examples", "--workers", "resume", "DATASET"):
        assert part in result.stdout
