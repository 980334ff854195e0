"""Axiom checks: what holds, what does not, and that every check fails a method made to fail it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import FAMILIES, dense, half_zeros, mixed_terminals
from test_games import bottleneck

import flowopt as fo
from flowopt.axioms import (
    AXIOMS,
    Axiom,
    AxiomTable,
    Counterexample,
    Finding,
    Method,
    RestrictedGame,
    as_method,
    assert_holds,
    check,
    distances,
    random_networks,
    rollout,
    shapley_distances,
    shapley_values,
    survey,
    transforms,
    verify,
)
from flowopt.axioms.checks import axioms_of
from flowopt.axioms.counterexample import network_from_dict, network_to_dict
from flowopt.axioms.samples import KINDS, networks_of
from flowopt.axioms.shrink import shrunk
from flowopt.axioms.strategies import capacities, networks, null_players, symmetric_pairs
from flowopt.errors import InputError, SolverError

Array = Any
CAPACITIES = "linearity in the capacities"


def shapley(net: fo.FlowNetwork) -> Array:
    """The method that satisfies everything but additivity."""
    return np.asarray(shapley_values(RestrictedGame(net)))


def into_tokens(net: fo.FlowNetwork) -> Array:
    """Capacity into each token: additive, and in no other way sensible."""
    into = [b.capacity.sum(axis=0) for b in net.blocks if b.head == net.players]
    return np.sum(into, axis=0)


def numbered(net: fo.FlowNetwork) -> Array:
    return shapley(net) * (1 + 0.01 * np.arange(net.n_players))


def listed_first(net: fo.FlowNetwork) -> Array:
    return shapley(net) * (1 if net.blocks[-1].head == net.players else 1.1)


def squared_payoff(net: fo.FlowNetwork, payoff: Array | None = None) -> Array:
    return shapley(net) * (1 if payoff is None else payoff**2)


def jumping(net: fo.FlowNetwork) -> Array:
    return shapley(net) + 0.1 * ((1e9 * sum(b.capacity.sum() for b in net.blocks)) % 1)


# axiom -> a method that breaks it
SABOTAGE: dict[str, Callable[..., Any]] = {
    "efficiency": lambda net: 0.999 * shapley(net),
    "maximality": lambda net: fo.solve(net, fo.LogBarrier(gap=0.01)),
    "symmetry": numbered,
    "nullity": lambda net: shapley(net) + 1e-3 * (net.max_flow or 1),
    "linearity in the payoff": squared_payoff,
    CAPACITIES: shapley,
    "scale covariance": lambda net: shapley(net) ** 2,
    "uniqueness: edge order": listed_first,
    "uniqueness: relabelling": numbered,
    "monotonicity": lambda net: 1 / (1 + into_tokens(net)),
    "continuity: small changes": jumping,
    "continuity: new edges": lambda net: shapley(net) / (1 + 0.01 * net.graph.report.kept),
}


@pytest.mark.parametrize("axiom", [name for name in AXIOMS if name != "uniqueness: solvers"])
def test_every_check_fails_a_method_made_to_fail_it(axiom: str) -> None:
    report = verify(SABOTAGE[axiom], networks=24, axioms=axiom, shrink=False)
    assert report.violated == (axiom,)
    result = report[axiom]
    assert result.worst > result.tolerance
    assert result.violations >= 3
    assert result.counterexample is not None
    assert result.counterexample.network.graph.report.possible > 0


def test_the_check_of_solvers_fails_backends_that_disagree(monkeypatch: Any) -> None:
    axiom = "uniqueness: solvers"
    assert verify(fo.LogBarrier(), 2, axiom)[axiom].holds
    honest = Method.rivals

    def rivals(self: Method, net: fo.FlowNetwork) -> list[Method]:
        one = fo.solve(net, fo.LogBarrier()).attributions
        return [*honest(self, net), Method("broken", lambda _: one * 1.001)]

    monkeypatch.setattr(Method, "rivals", rivals)
    found = verify(fo.LogBarrier(), 2, axiom, shrink=False)
    assert found.violated == (axiom,)
    counterexample = found[axiom].counterexample
    assert counterexample is not None
    assert "broken" in counterexample.detail


# --- what is true (method.md section 8) -----------------------------------------------------------
def test_shapley_flow_satisfies_all_that_can_be_satisfied() -> None:
    report = verify(fo.ShapleyFlow(), networks=24, shrink=False)
    assert report.violated == (CAPACITIES,)
    assert report["uniqueness: solvers"].status == "not checked"  # there is one solver
    assert not any(result.failures for result in report.results)


def test_the_barrier_satisfies_its_claims() -> None:
    claims = ["efficiency", "symmetry", "nullity", "scale covariance", "monotonicity"]
    uniqueness = [name for name in AXIOMS if name.startswith("uniqueness")]
    for names, count in ((claims, 40), (uniqueness, 8)):
        report = verify(fo.LogBarrier(gap=0.05), count, names)
        assert all(result.holds for result in report.results), str(report)
    assert verify(fo.LogBarrier(gap=0.05), 8, "maximality").violated == ("maximality",)


def test_plain_maximum_flow_is_neither_unique_nor_symmetric() -> None:
    report = verify(fo.MaxFlow(), 8, ["symmetry", "uniqueness", "maximality"], shrink=False)
    broken = {"symmetry", "uniqueness: solvers", "uniqueness: relabelling"}
    assert broken <= set(report.violated)
    assert report["maximality"].holds


def test_a_relative_mu_breaks_monotonicity_on_a_single_path() -> None:
    """Raising the largest capacity raises mu, and with it the price of the other edge."""
    low, high = (fo.FlowNetwork.layered([[[c]], [[0.5]]]) for c in (0.9, 1.4))

    def flows(objective: fo.Objective) -> tuple[float, float]:
        return fo.solve(low, objective).value, fo.solve(high, objective).value

    before, after = flows(fo.LogBarrier(mu=1e-2))
    assert after < before - 1e-3
    for objective in (fo.LogBarrier(mu=1e-2, relative=False), fo.LogBarrier(gap=0.05)):
        before, after = flows(objective)
        assert after > before
    assert verify("barrier:mu=0.01", 40, "monotonicity").violated == ("monotonicity",)


def test_the_gap_rule_jumps_where_an_edge_appears() -> None:
    """Mu = gap F* / 2m counts edges, so an edge of almost no capacity moves the attributions."""
    axiom = "continuity: new edges"
    assert verify(fo.LogBarrier(gap=0.05), 40, axiom).violated == (axiom,)
    assert verify(fo.LogBarrier(mu=1e-2), 40, axiom)[axiom].holds


def test_rollout_is_a_maximum_flow_of_row_stochastic_layers() -> None:
    """With one source and L >= 2: so plain maximum flow does not determine attributions."""
    capacities_ = np.random.default_rng(0).dirichlet(np.ones(4), (3, 4))
    net = fo.FlowNetwork.layered(capacities_, sources=[2])
    assert net.max_flow == pytest.approx(1, rel=1e-12)
    mass = np.eye(4)[2]
    for layer in capacities_[::-1]:
        assert (mass[:, None] * layer <= layer + 1e-15).all()  # within the capacities
        mass = mass @ layer
    np.testing.assert_allclose(rollout(net), mass, rtol=1e-12)
    table = RestrictedGame(net).all_values()
    sums = (np.arange(16)[:, None] >> np.arange(4) & 1) @ mass
    assert (sums <= table + 1e-12).all()
    assert np.abs(mass - fo.solve(net).attributions).max() > 0.01
    assert not fo.axioms.well_defined(net).well_defined


def test_per_pair_flows_overcount() -> None:
    report = verify("per-pair", [("bottleneck", bottleneck())], "maximality")
    assert report["maximality"].worst == pytest.approx(1.0)  # 1 + 1 for a flow of 1


# --- verify ---------------------------------------------------------------------------------------
def test_counterexamples_replay_and_are_stored() -> None:
    report = verify(numbered, 16, ["symmetry", "uniqueness"])
    for result in report.results:
        example = result.counterexample
        if example is None:
            continue
        again = example.replay(numbered)
        assert (again.violation, again.detail) == (example.violation, example.detail)
        assert example.replay(shapley).violation <= 1e-12
        stored = Counterexample.from_dict(json.loads(json.dumps(example.to_dict())))
        assert stored.replay(numbered).violation == example.violation
        assert example.detail in str(example)
    assert {"symmetry", "uniqueness: relabelling"} == set(report.violated)
    with pytest.raises(InputError, match="no counterexample of ours"):
        Counterexample.from_dict({"axiom": "symmetry"})


def test_counterexamples_are_small() -> None:
    report = verify(numbered, 40, "symmetry")
    example = report["symmetry"].counterexample
    assert example is not None
    assert example.network.graph.report.kept <= 2
    assert len(example.network.blocks) == 1
    raw = verify(numbered, 40, "symmetry", shrink=False)["symmetry"].counterexample
    assert raw is not None
    assert raw.network.graph.report.possible > example.network.graph.report.possible


def test_the_same_seed_finds_the_same() -> None:
    one, two, other = (verify(fo.MaxFlow(), 10, "symmetry", seed=s) for s in (3, 3, 4))
    assert one.to_json() == two.to_json()
    assert one.to_json() != other.to_json()


def test_methods_that_fail_are_counted_not_hidden() -> None:
    def fragile(net: fo.FlowNetwork) -> Array:
        if net.n_players > 3:
            raise SolverError("no proof")
        return shapley(net)

    result = verify(fragile, 24, "maximality")["maximality"]
    assert (result.status, result.holds) == ("failed", False)
    assert result.failures + result.checked == 24
    assert "no proof" in result.message
    refused = verify("per-pair", [dense(), mixed_terminals()], "scale covariance").results[0]
    assert (refused.failures, refused.status) == (1, "failed")
    assert "every path ends in exactly one player" in refused.message


def test_nan_is_a_wrong_answer_not_a_pass() -> None:
    axiom = Axiom("mine", "never", lambda *_: Finding(float("nan"), "nan"))
    result = verify(shapley, 3, axiom)["mine"]
    assert (result.status, result.violations) == ("violated", 3)


def test_axioms_of_ones_own() -> None:
    def positive(method: Method, net: fo.FlowNetwork, rng: Any) -> Finding:
        least = float(method(net).attributions.min())
        return Finding(max(-least, 0.0), f"least {least}")

    axiom = Axiom("positivity", "no negative scores", positive)
    assert verify(shapley, 5, axiom)["positivity"].holds
    report = verify(lambda net: -shapley(net), 5, [axiom, "efficiency"])
    assert report.violated == ("positivity", "efficiency")
    example = report["positivity"].counterexample
    assert example is not None
    assert example.replay(shapley, axiom).violation == 0


def test_families_of_axioms() -> None:
    names = [axiom.name for axiom in axioms_of("uniqueness")]
    assert names == [f"uniqueness: {what}" for what in ("solvers", "edge order", "relabelling")]
    assert [a.name for a in axioms_of(["Linearity", "linearity in the payoff"])] == [
        "linearity in the payoff",
        CAPACITIES,
    ]
    assert len(axioms_of("continuity")) == 2
    assert len(axioms_of(None)) == len(AXIOMS) == 13


def test_tolerances_and_names() -> None:
    strict = verify(fo.LogBarrier(), 5, "maximality", name="mine")
    assert (strict.method, strict.violated) == ("mine", ("maximality",))
    assert not verify(fo.LogBarrier(), 5, "maximality", tolerance=0.06).violated


def test_networks_may_be_given_in_many_ways() -> None:
    for given_, count in (
        (dense(), 1),
        ([dense(), half_zeros()], 2),
        ([("a", dense())], 1),
        (3, 3),
    ):
        assert verify(shapley, given_, "maximality").networks == count
    from flowopt.comparison import problem_set

    problem = problem_set("synthetic")[0]
    assert networks_of([problem])[0][0] == problem.name
    assert len(networks_of(None)) == 50


def test_random_networks_are_seeded_and_sorted() -> None:
    made = random_networks(32, seed=5)
    again = dict(random_networks(32, seed=5))
    assert len({name for name, _ in made}) == 32
    for name, net in made:
        for one, two in zip(net.blocks, again[name].blocks, strict=True):
            np.testing.assert_array_equal(one.capacity, two.capacity)
    sizes = [sum(b.capacity.size for b in net.blocks) for _, net in made]
    assert sizes == sorted(sizes)
    assert len({name.split("(")[1].split(",")[0] for name, _ in made}) == len(KINDS)


# --- reports --------------------------------------------------------------------------------------
def test_reports_print_and_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    report = verify(fo.MaxFlow(), 10, ["symmetry", "maximality"])
    text = str(report)
    assert "\x1b" not in text
    assert "MaxFlow() on 10 networks, seed 0" in text
    assert "violated" in text
    assert "holds" in text
    values = json.loads(report.to_json())
    assert [row["axiom"] for row in values["results"]] == ["symmetry", "maximality"]
    assert values["results"][0]["counterexample"]["network"]["players"]
    frame = report.to_pandas()
    assert frame["status"].tolist() == ["violated", "holds"]
    assert "| maximality | holds | 0 of 10 |" in report.to_markdown()
    with pytest.raises(InputError, match="checked were: symmetry, maximality"):
        report["nullity"]


def test_surveys_are_tables_of_methods_and_axioms() -> None:
    table = survey(["maxflow@dinic", "shapley-flow"], 8, ["symmetry", "uniqueness"])
    assert isinstance(table, AxiomTable)
    assert [report.method for report in table.reports] == ["maxflow@dinic", "shapley-flow"]
    assert table["shapley-flow"]["symmetry"].holds
    assert "maxflow@dinic" in str(table)
    assert table.to_markdown().splitlines()[3].startswith("| shapley-flow | holds | - | holds |")
    assert len(table.to_pandas()) == 8
    assert len(json.loads(table.to_json())["methods"]) == 2
    named = survey({"mine": shapley}, 2, "maximality")
    assert named["mine"].results[0].holds
    assert repr(named) == "AxiomTable(1 methods, 1 axioms)"
    assert repr(named["mine"]) == "AxiomReport(mine: 1 of 1 axioms hold)"
    with pytest.raises(InputError, match="asked were: mine"):
        named["yours"]


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    verify(shapley, 4, "maximality", progress=True)
    assert "4/4" in capsys.readouterr().err
    verify(shapley, 4, "maximality")
    assert capsys.readouterr().err == ""


# --- methods --------------------------------------------------------------------------------------
def test_methods_by_name() -> None:
    net = half_zeros()
    for name, objective in (
        ("maxflow@HIGHS", fo.MaxFlow()),
        ("barrier", fo.LogBarrier()),
        ("barrier:mu=0.01@native", fo.LogBarrier(mu=0.01)),
        ("quadratic:rho=0.5", fo.Quadratic(0.5)),
        ("shapley-flow:samples=8", fo.ShapleyFlow(samples=8)),
    ):
        solver = name.partition("@")[2] or None
        expected = fo.solve(net, objective, solver).attributions
        np.testing.assert_array_equal(as_method(name)(net).attributions, expected)
    assert as_method(fo.LogBarrier()).name == "LogBarrier(gap=0.05)"
    assert as_method(shapley).name == "shapley"
    assert next(m.name for m in as_method("fair").rivals(dense())) == "fair@fair"
    assert as_method("fair@fair").rivals(dense()) == []


def test_rollout_of_a_general_network_conserves_mass() -> None:
    for name, make in FAMILIES.items():
        if name not in ("mixed_terminals", "return_limited"):
            assert rollout(make()).sum() == pytest.approx(1, rel=1e-12), name


# --- distance -------------------------------------------------------------------------------------
def test_distances() -> None:
    same = distances([1, 2, 3], [2, 4, 6])
    assert (same.share, same.absolute, same.rank) == (0, 0.5, pytest.approx(1))
    apart = distances([1, 0], [0, 1])
    assert (apart.share, apart.absolute, apart.rank) == (1, 2, pytest.approx(-1))
    assert distances([0, 0], [1, 2]).share == 1
    assert np.isnan(distances([1, 1], [1, 2]).rank)


def test_distance_to_the_restricted_game() -> None:
    net = half_zeros()
    found = shapley_distances(net, {"mine": shapley, "flow": "maxflow"})
    assert found["mine"].absolute <= 1e-12
    assert found["flow"].share > 0.01
    part = shapley_distances(
        net, ["barrier"], fo.axioms.FunctionGame(lambda r: r.sum(axis=1), 2), positions=[0, 3]
    )
    assert set(part) == {"barrier"}
    with pytest.raises(InputError, match="say which by `positions`"):
        shapley_distances(net, ["barrier"], fo.axioms.FunctionGame(lambda r: r.sum(axis=1), 2))
    with pytest.raises(InputError, match="same length"):
        distances([1, 2], [1])


# --- transforms -----------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
def test_rewritten_networks_are_the_same_network(family: str) -> None:
    net = FAMILIES[family]()
    rng = np.random.default_rng(0)
    order = {name: rng.permutation(n) for name, n in net.groups.items()}
    objective = fo.LogBarrier(mu=1e-2)
    expected = fo.solve(net, objective).attributions
    assert net.players is not None
    found = fo.solve(transforms.relabelled(net, order), objective).attributions
    unit = 1e-5 * net.max_flow  # what links beside edges leave to a general backend
    np.testing.assert_allclose(found, expected[order[net.players]], atol=unit)
    for _ in range(3):
        found = fo.solve(transforms.reordered(net, rng), objective).attributions
        np.testing.assert_allclose(found, expected, atol=unit)
    copy = network_from_dict(json.loads(json.dumps(network_to_dict(net))))
    np.testing.assert_array_equal(copy.capacity, net.capacity)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_structure_is_what_it_says(kind: Any) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        net = kind(4, 3, rng)
        for plant in (transforms.twins, transforms.mirrored):
            planted = plant(net, rng)
            assert planted is not None
            one, other = planted.tokens
            values = shapley(planted.network)
            assert values[one] == pytest.approx(values[other], rel=1e-9)
        silent = transforms.silenced(net, rng)
        assert silent is not None
        assert not silent.network.graph.alive[silent.network.graph.players[silent.tokens[0]]]
        raised = transforms.raised(net, rng)
        assert raised is not None
        assert raised.network.max_flow >= net.max_flow * (1 - 1e-12)


def test_shrinking_asks_a_limited_number_of_times() -> None:
    asked: list[int] = []

    def violates(net: fo.FlowNetwork) -> bool:
        asked.append(1)
        return net.max_flow > 0.5

    small = shrunk(dense(), violates)
    assert small.max_flow > 0.5
    assert small.graph.report.kept == 1
    assert len(asked) <= 150
    stuck = dense()
    assert shrunk(stuck, lambda _: False) is stuck
    assert shrunk(stuck, lambda _: True, tries=1).graph.report.possible < 75


# --- strategies for users' own tests --------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(symmetric_pairs())
def test_equal_tokens_get_equal_scores(planted: Any) -> None:
    net, (one, other) = planted
    scores = fo.solve(net, fo.LogBarrier()).attributions
    assert scores[one] == pytest.approx(scores[other], abs=1e-8 * (net.max_flow or 1))


@settings(max_examples=40, deadline=None)
@given(null_players())
def test_tokens_without_flow_get_nothing(planted: Any) -> None:
    net, (token,) = planted
    assert fo.solve(net, fo.LogBarrier()).attributions[token] == 0
    assert rollout(net)[token] == 0


@settings(max_examples=25, deadline=None)
@given(networks(), st.sampled_from(sorted(AXIOMS.keys() - {CAPACITIES})), st.integers(0, 99))
def test_shapley_values_satisfy_the_axioms(net: fo.FlowNetwork, axiom: str, seed: int) -> None:
    assert_holds(shapley, axiom, net, seed)


@given(capacities(max_layers=2, max_tokens=3, positive=True))
def test_positive_capacities(array: Any) -> None:
    assert (array > 0).all()
    assert array.ndim == 3
    assert array.shape[1] == array.shape[2] <= 3


def test_one_line_helpers() -> None:
    with pytest.raises(AssertionError, match=r"numbered violates symmetry by .*twins|mirrored"):
        assert_holds(numbered, "symmetry", dense())
    found = check(shapley, "maximality", dense())
    assert found is not None
    assert found.violation <= 1e-12
    empty = fo.FlowNetwork.layered(np.zeros((1, 2, 2)))
    assert check(shapley, "continuity: small changes", empty) is None


# --- what is refused ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: verify(3, 2), "A method is an objective"),
        (lambda: verify("simplex", 2), "There is no method 'simplex'"),
        (lambda: verify("barrier:nu=1", 2), "no weight 'nu'"),
        (lambda: verify("barrier:mu=x", 2), "should be a weight"),
        (lambda: verify("maxflow@nobody", 2), "Unknown solver"),
        (lambda: verify(shapley, 2, "fairness"), "There is no axiom 'fairness'"),
        (lambda: verify(shapley, 0), "positive whole number"),
        (lambda: verify(shapley, "films"), "There are no networks 'films'"),
        (lambda: verify(shapley, []), "at least one"),
        (lambda: verify(shapley, [3]), "FlowNetworks, problems"),
        (lambda: verify(shapley, 2.5), "Give networks"),
        (lambda: verify(shapley, 2, tolerance=-1), "tolerance"),
        (lambda: verify(lambda net: [1.0], 2, "maximality"), "finite numbers, one per token"),
        (lambda: verify(lambda net: shapley(net) * np.nan, 2, "maximality"), "finite numbers"),
        (lambda: verify(lambda net: "high", 2, "maximality"), "not an array"),
        (lambda: survey([], 2), "at least one method"),
        (lambda: transforms.added(dense(), half_zeros()), "same blocks"),
    ],
)
def test_what_cannot_be_used_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrong()


def test_strategies_are_the_only_place_of_hypothesis() -> None:
    code = "import sys, flowopt.axioms as a; a.verify; print('hypothesis' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
