"""Comparing solvers: the table, its remarks, and what it exports."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from networks import dense, half_zeros, mixed_terminals

import flowopt as fo
from flowopt.comparison.compare import Comparison, Row
from flowopt.solvers.base import RawSolution, Solver
from flowopt.solvers.scs import Scs


@dataclass(frozen=True)
class Wrong(Solver):
    """Solves another problem and says nothing of it."""

    name: ClassVar[str] = "wrong"
    package: ClassVar[str] = "numpy"

    def refusal(self, net, objective):
        return None

    def solve(self, net, objective, start=None):
        other = fo.solve(net, fo.LogBarrier(mu=0.3))
        return RawSolution(other.flow, other.potential, "optimal", 0.0, 0.0)


def test_solvers_agree_on_the_barrier():
    comparison = fo.compare_solvers(half_zeros(), fo.LogBarrier(mu=1e-2), ["native", "CLARABEL"])
    native, clarabel = comparison.rows
    assert native.reference
    assert not clarabel.reference
    assert native.status == clarabel.status == "optimal"
    assert native.difference == 0
    assert clarabel.difference < 1e-9
    assert clarabel.value == pytest.approx(native.value)
    assert clarabel.attribution_error < 1e-6
    assert clarabel.build_seconds > 0
    assert clarabel.solve_seconds > 0
    assert clarabel.iterations > 0
    assert not comparison.disagreeing
    assert not comparison.failed
    assert "All solvers that can solve this agree" in str(comparison)


def test_those_who_refuse_are_listed_with_the_reason():
    comparison = fo.compare_solvers(dense(), fo.LogBarrier(mu=1e-2))
    refused = {row.solver: row.message for row in comparison.refused}
    assert {"dinic", "scipy", "fair", "HIGHS", "OSQP"} <= set(refused)
    assert "exponential" in refused["HIGHS"]
    assert [row.solver for row in comparison.rows] == fo.solvers.available()
    assert "HIGHS cannot solve this" in str(comparison)


def test_plain_maximum_flow_says_that_attributions_may_differ():
    comparison = fo.compare_solvers(half_zeros(), solvers=["scipy", "CLARABEL", "HIGHS"])
    assert max(row.difference for row in comparison.rows) > 1e-3  # and yet
    assert not comparison.disagreeing
    assert "no unique optimum" in str(comparison)
    assert "expected" in comparison.remarks[0]


def test_who_failed_and_why():
    solvers = [Scs(max_iters=10), "native", Wrong()]
    comparison = fo.compare_solvers(half_zeros(), fo.LogBarrier(mu=1e-2), solvers)
    assert [row.solver for row in comparison.failed] == ["SCS", "wrong"]
    assert any(r.startswith("SCS is inaccurate: ") for r in comparison.remarks)
    assert any(r.startswith("wrong is inaccurate: optimal") for r in comparison.remarks)
    assert next(row for row in comparison.rows if row.reference).solver == "native"


def test_who_disagrees_is_said_plainly():
    rows = (
        Row(0, "fair", "optimal", value=1.0, difference=0.0, reference=True),
        Row(0, "CLARABEL", "optimal", value=1.0, difference=1e-4, attribution_error=1e-3),
        Row(0, "ECOS", "optimal", value=1.0, difference=1e-8, attribution_error=1e-3),
        Row(0, "SCS", "inaccurate", value=0.9, difference=1e-1, message="limit"),
    )
    comparison = Comparison("ProportionalFair()", ("one",), rows, unique_attributions=True)
    assert comparison.disagreeing == (rows[1],)
    assert comparison.failed == (rows[3],)
    assert comparison.remarks == (
        "CLARABEL disagrees with the reference by 1.0e-04 of |f| (its certificate allows 1.0e-03).",
        "SCS is inaccurate: limit",
    )
    plain = Comparison("MaxFlow()", ("one",), rows, unique_attributions=False)
    assert plain.disagreeing == ()  # the values agree, and attributions may differ
    other = replace(plain, rows=(rows[0], replace(rows[1], value=0.99)))
    assert [row.solver for row in other.disagreeing] == ["CLARABEL"]


def test_several_networks_and_a_chosen_reference():
    nets = (net for net in (dense(), mixed_terminals()))
    comparison = fo.compare_solvers(
        nets, fo.Quadratic(0.1), ["HIGHS", "CLARABEL"], reference="clarabel", progress=False
    )
    assert [row.network for row in comparison.rows] == [0, 0, 1, 1]
    assert [row.solver for row in comparison.rows if row.reference] == ["CLARABEL"] * 2
    assert "2 networks" in str(comparison)
    assert "network" in str(comparison).splitlines()[2]


def test_a_network_without_a_path_is_no_trouble():
    comparison = fo.compare_solvers(
        fo.FlowNetwork.layered(np.zeros((1, 2, 2))), solvers=["scipy", "CLARABEL"]
    )
    assert {row.status for row in comparison.rows} == {"optimal"}


def test_bad_input():
    with pytest.raises(fo.InputError, match="reference 'HIGHS' is not among"):
        fo.compare_solvers(dense(), solvers=["scipy"], reference="HIGHS")
    with pytest.raises(fo.InputError, match="needs a FlowNetwork"):
        fo.compare_solvers([])
    with pytest.raises(fo.InputError, match="Unknown solver"):
        fo.compare_solvers(dense(), solvers=["nobody"])


def test_exports(tmp_path, monkeypatch):
    comparison = fo.compare_solvers(
        half_zeros(), fo.LogBarrier(mu=1e-2), ["native", "HIGHS", Scs(max_iters=10)]
    )
    frame = comparison.to_pandas()
    assert list(frame["solver"]) == ["native", "HIGHS", "SCS"]
    assert list(frame["status"]) == ["optimal", "refused", "inaccurate"]
    path = tmp_path / "table.json"
    text = comparison.to_json(path)
    values = json.loads(path.read_text())
    assert values == json.loads(text)
    assert values["rows"][0]["solver"] == "native"
    assert values["remarks"] == list(comparison.remarks)
    page = comparison._repr_html_()
    assert page.count("<tr>") == 4
    assert "<script" not in page
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'flowopt\[compare\]'"):
        comparison.to_pandas()


def test_it_prints_well_in_colour_too():
    from rich.console import Console

    comparison = fo.compare_solvers(dense(), solvers=["scipy", "native"])
    console = Console(record=True, width=150, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(comparison)
        shown = console.export_text()
    assert "scipy" in shown
    assert "optimal" in shown
    assert str(comparison).count("\n") > 5


def test_network_without_paths_is_compared() -> None:
    table = fo.compare_solvers(fo.FlowNetwork.layered(np.zeros((2, 3, 3))), fo.MaxFlow())
    status = {row.solver: row.status for row in table.rows}
    assert (status["push-relabel"], status["fair"]) == ("optimal", "refused")


def test_something_else_than_networks_is_refused() -> None:
    with pytest.raises(fo.InputError, match="FlowNetwork"):
        fo.compare_solvers(5, fo.MaxFlow())  # type: ignore[arg-type]
