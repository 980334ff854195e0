"""Benchmarks: nothing is lost or repeated, nothing a solver says is believed."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from networks import dense, half_zeros
from typer.testing import CliRunner

import flowopt as fo
from flowopt import solvers
from flowopt.cli import app
from flowopt.comparison import runs as benchmark_runs
from flowopt.comparison.journal import open_journal
from flowopt.comparison.problem_sets import FAMILIES, SENTENCES, Problem, available_problem_sets
from flowopt.comparison.report import BenchmarkReport, shifted_geometric_mean
from flowopt.errors import InputError
from flowopt.solvers.base import RawSolution, Solver

BARRIER = fo.LogBarrier(mu=1e-2)
SMALL = tuple(problem for problem in fo.problem_set("synthetic") if "t=4 " in problem.name)


class Raising(Solver):
    """A backend that falls over."""

    name: ClassVar[str] = "raising"
    package: ClassVar[str] = "numpy"

    def refusal(self, net: Any, objective: Any) -> str | None:
        return None

    def solve(self, net: Any, objective: Any, start: Any = None) -> RawSolution:
        raise ZeroDivisionError("two\nlines")


class Panic(BaseException):
    """What a backend written in Rust raises is no Exception."""


class Panicking(Raising):
    name: ClassVar[str] = "panicking"

    def solve(self, net: Any, objective: Any, start: Any = None) -> RawSolution:
        raise Panic("index out of bounds")


class Lying(Raising):
    """Half of the optimal flow, the optimal potentials, and a good word."""

    name: ClassVar[str] = "lying"

    def solve(self, net: Any, objective: Any, start: Any = None) -> RawSolution:
        honest = solvers.get_solver("native").solve(net, objective, start)
        assert honest.flow is not None
        return replace(honest, flow=honest.flow / 2, slack=None, message="optimal, I swear")


@dataclass(frozen=True)
class Slow(Lying):
    """Right, and slow by its own account from ten edges on."""

    name: ClassVar[str] = "slow"
    seconds: float = 5.0

    def solve(self, net: Any, objective: Any, start: Any = None) -> RawSolution:
        honest = solvers.get_solver("native").solve(net, objective, start)
        return replace(honest, solve_seconds=self.seconds if len(net.capacity) > 9 else 0.0)


@pytest.fixture
def odd_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "_REGISTRY", dict(solvers._REGISTRY))
    for kind in (Raising, Panicking, Lying, Slow):
        solvers.register(kind)


def timeless(report: BenchmarkReport) -> list[Any]:
    return [replace(row, build_seconds=None, solve_seconds=None) for row in report.rows]


# --- resuming ------------------------------------------------------------------------------------
def test_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd_solvers: None
) -> None:
    names = ["native", "CLARABEL", "raising"]
    whole = fo.benchmark_solvers(SMALL, BARRIER, names, tmp_path / "whole")
    real, calls = benchmark_runs._measured, 0

    def dies_at_the_eighth(*words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return real(*words)

    monkeypatch.setattr(benchmark_runs, "_measured", dies_at_the_eighth)
    with pytest.raises(KeyboardInterrupt):
        fo.benchmark_solvers(SMALL, BARRIER, names, tmp_path / "halves")
    resumed = fo.benchmark_solvers(SMALL, BARRIER, names, tmp_path / "halves")
    assert calls == 8 + len(whole.rows) - 7
    assert timeless(resumed) == timeless(whole)
    assert [run["results"] for run in resumed.runs] == [7, len(whole.rows) - 7]
    again = fo.benchmark_solvers(SMALL, BARRIER, names, tmp_path / "halves")
    assert calls == 8 + len(whole.rows) - 7
    assert again.rows == resumed.rows  # times included: nothing was measured anew
    assert (again.runs, again.to_json()) == (resumed.runs, resumed.to_json())


def test_a_line_cut_short_is_done_again(tmp_path: Path) -> None:
    journal = tmp_path / "results.jsonl"
    whole = fo.benchmark_solvers(SMALL[:3], BARRIER, ["native"], tmp_path)
    content = journal.read_bytes()
    for cut in (1, 40):  # only the end of the line is missing; half of the line is
        journal.write_bytes(content[:-cut])
        assert len(open_journal(journal).done) == 2
        resumed = fo.benchmark_solvers(SMALL[:3], BARRIER, ["native"], tmp_path)
        assert timeless(resumed) == timeless(whole)
        assert resumed.rows[:2] == whole.rows[:2]
        lines = journal.read_text().splitlines()
        assert [json.loads(line)["kind"] for line in lines] == [
            "run", "result", "result", "run", "result",
        ]  # fmt: skip


def test_a_damaged_line_in_the_middle_costs_that_line_only(tmp_path: Path) -> None:
    journal = tmp_path / "results.jsonl"
    fo.benchmark_solvers(SMALL[:3], BARRIER, ["native"], tmp_path)
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:2], "\x00{", "[]", *lines[3:]]) + "\n")
    assert len(open_journal(journal).done) == 2


def test_what_differs_is_measured_apart(tmp_path: Path) -> None:
    def count(*words: Any, **more: Any) -> int:
        fo.benchmark_solvers(*words, out=tmp_path, **more)
        return len(open_journal(tmp_path / "results.jsonl").done)

    net = dense()
    clarabel = type(solvers.get_solver("CLARABEL"))
    assert count(net, BARRIER, ["native"]) == 1
    assert count(fo.FlowNetwork(**_parts(net)), BARRIER, ["NATIVE"]) == 1  # the same content
    assert count(net.scaled(2.0), BARRIER, ["native"]) == 2
    assert count(net, fo.LogBarrier(mu=1e-3), ["native"]) == 3
    assert count(net, BARRIER, ["CLARABEL"]) == 4
    assert count(net, BARRIER, ["CLARABEL", clarabel(max_iter=7)]) == 5
    assert count(net, BARRIER, ["native"], time_limit=5.0) == 6
    assert count(net, BARRIER, ["native"], repeats=2) == 7


def _parts(net: fo.FlowNetwork) -> dict[str, Any]:
    names = ("groups", "blocks", "links", "sources", "sinks")
    return {name: getattr(net, name) for name in names}


# --- what solvers say, and what is so ------------------------------------------------------------
def test_failures_and_lies_are_recorded(odd_solvers: None) -> None:
    names = ["raising", "panicking", "lying", "native", "scipy"]
    report = fo.benchmark_solvers(SMALL[:2], BARRIER, names)
    rows = {row.solver: row for row in report.rows if row.problem == SMALL[0].name}
    assert (rows["raising"].status, rows["raising"].value) == ("failed", None)
    assert rows["raising"].message == "ZeroDivisionError: two\nlines"
    assert rows["panicking"].message == "Panic: index out of bounds"
    assert rows["lying"].status == "inaccurate"
    assert rows["lying"].message == "optimal, I swear"
    assert rows["lying"].gap is not None
    assert rows["lying"].gap > 1e-3
    truth = rows["native"]
    assert truth.value is not None
    assert truth.attributions is not None
    half = max(truth.attributions) / 2 / truth.value
    assert rows["lying"].difference == pytest.approx(half, rel=1e-3)
    assert rows["native"].reference
    assert rows["scipy"].status == "refused"
    assert list(report.unable) == ["scipy"]
    best, *others = report.summary
    assert (best.solver, best.success, best.worst_difference) == ("native", 1.0, 0.0)
    for summary in others:
        assert (summary.solved, summary.failed) == (0, tuple(p.name for p in SMALL[:2]))
        assert summary.solve_mean == pytest.approx(report.time_limit)
    text = report.to_markdown()
    for expected in ("optimal, I swear", "ZeroDivisionError: two lines", "cores", "dense"):
        assert expected in text


def test_too_slow_is_skipped_on_larger_problems_of_the_family_only(
    tmp_path: Path, odd_solvers: None
) -> None:
    def made(problem: str, family: str, t: int) -> Problem:
        return Problem(problem, family, lambda: fo.FlowNetwork.layered(np.ones((1, t, t))))

    asked = [made(f"{f}{t}", f, t) for f, sizes in (("a", (2, 4, 6)), ("b", (3,))) for t in sizes]
    report = fo.benchmark_solvers(asked, BARRIER, ["slow", "native"], tmp_path, time_limit=1.0)
    slow = {row.problem: row for row in report.rows if row.solver == "slow"}
    assert [row.status for row in slow.values()] == ["optimal", "over limit", "skipped", "optimal"]
    assert slow["a4"].message.startswith("optimal: ")
    assert slow["a6"].message == "took more than 1 s on a4"
    summary = next(s for s in report.summary if s.solver == "slow")
    assert (summary.slow, summary.success) == (("a4", "a6"), 0.5)
    assert report.summary[0].solver == "native"
    # a resumed run knows it from the journal
    longer = [*asked, made("a8", "a", 8)]
    resumed = fo.benchmark_solvers(longer, BARRIER, ["slow", "native"], tmp_path, time_limit=1.0)
    assert resumed.rows[-2].status == "skipped"


def test_shifted_geometric_mean_by_hand() -> None:
    # (1 + 1)(7 + 1) = 16, its square root 4, less the shift 3
    assert shifted_geometric_mean([1.0, 7.0], shift=1.0) == pytest.approx(3.0)
    assert shifted_geometric_mean([2.0, 2.0, 2.0]) == pytest.approx(2.0)
    assert shifted_geometric_mean([0.0]) == 0.0
    for times, shift in (([], 1.0), ([1.0], 0.0), ([-1.0], 1.0)):
        with pytest.raises(InputError, match="positive shift"):
            shifted_geometric_mean(times, shift)


def test_reference_and_value_differences_without_unique_attributions() -> None:
    report = fo.benchmark_solvers([half_zeros()], fo.MaxFlow(), ["scipy", "HIGHS"], repeats=3)
    assert [row.status for row in report.rows] == ["optimal", "optimal"]
    assert sum(row.reference for row in report.rows) == 1
    assert all(row.difference is not None and row.difference < 1e-7 for row in report.rows)


# --- problems ------------------------------------------------------------------------------------
def test_problem_sets_are_named_and_repeatable() -> None:
    assert available_problem_sets() == ("synthetic", "sentences")
    synthetic = fo.problem_set("synthetic")
    assert len({problem.name for problem in synthetic}) == len(synthetic) == 5 * len(FAMILIES)
    for problem in synthetic:
        if "t=4 " in problem.name or "t=16" in problem.name:
            assert np.array_equal(problem.make().capacity, problem.make().capacity)
            assert problem.make().max_flow > 0
    with pytest.raises(InputError, match="known ones: synthetic, sentences"):
        fo.problem_set("nothing")


def test_sentences_are_read_through_the_bundled_model() -> None:
    problems = fo.problem_set("sentences")
    assert len(problems) == len(SENTENCES) == 12
    sizes = [len(problem.make().capacity) for problem in (problems[0], problems[-1])]
    assert 20 < sizes[0] < sizes[1]
    report = fo.benchmark_solvers(problems[:2], solvers=["native"])
    assert [row.status for row in report.rows] == ["optimal", "optimal"]
    assert report.objective == "LogBarrier(gap=0.05)"


# --- exports -------------------------------------------------------------------------------------
def test_exports(tmp_path: Path, odd_solvers: None) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    report = fo.benchmark_solvers(SMALL[:2], BARRIER, ["native", "raising"], tmp_path)
    with (tmp_path / "results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len(report.rows) == 4
    assert float(rows[0]["value"]) == report.rows[0].value
    assert rows[1]["message"] == "ZeroDivisionError: two\nlines"
    assert (tmp_path / "report.md").read_text() == report.to_markdown()
    report.to_parquet(tmp_path / "results.parquet")
    frame = pandas.read_parquet(tmp_path / "results.parquet")
    assert list(frame["status"]) == [row.status for row in report.rows]
    assert frame["value"][0] == report.rows[0].value
    assert math.isnan(frame["value"][1])
    assert json.loads(report.to_json())["summary"][0]["solver"] == "native"
    assert "native" in str(report)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"time_limit": 0}, "time_limit must be"),
        ({"repeats": 0}, "repeats must be"),
        ({"problems": []}, "at least one problem"),
        ({"problems": ["dense"]}, "not 'dense'"),
        ({"problems": [SMALL[0], SMALL[0]]}, "Two problems have the name"),
        ({"solvers": ["native", "NATIVE"]}, "Two solvers have the name native"),
        ({"solvers": ["nobody"]}, "Unknown solver"),
        ({"objective": "barrier"}, "objective must be"),
    ],
)
def test_unusable_input(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fo.benchmark_solvers(**words)


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowopt.comparison.identity.problem_set", lambda name: SMALL[:2])
    run = CliRunner().invoke
    words = ["benchmark", "--solvers", "native,CLARABEL", "--out", str(tmp_path), "--mu", "0.01"]
    shown = run(app, words)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "2 of 2" in shown.stdout
    values = json.loads(run(app, [*words, "--json"]).stdout)
    assert [row["status"] for row in values["rows"]] == ["optimal"] * 4
    assert len(values["runs"]) == 1  # the second call found everything done
    assert "Examples" in run(app, ["benchmark", "--help"]).stdout
    refused = run(app, ["benchmark", "--solvers", "nobody"])
    assert refused.exit_code == 2
    assert len(refused.stderr.splitlines()) == 1
