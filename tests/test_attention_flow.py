"""Rollout and attention flow: goldens, networkx, theorems, certificates, extremes, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import flowopt as fo
from flowopt.methods import (
    PairFlows,
    attention_flow,
    joint_flow,
    layered_dinic,
    pair_flows,
    raw_attention,
    residual_attention,
    rollout,
)

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "abnar_flow.json"


def softmax_attention(layers, heads, t, seed=0, scale=2.0):
    scores = scale * np.random.default_rng(seed).standard_normal((layers, heads, t, t))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def causal_attention(layers, heads, t, seed=0):
    weights = np.tril(softmax_attention(layers, heads, t, seed))
    return weights / weights.sum(-1, keepdims=True)


def one_hot_attention(layers, heads, t, seed=0):
    read = np.random.default_rng(seed).integers(t, size=(layers, heads, t))
    return np.eye(t)[read]


def sparse_attention(layers, heads, t, seed=0):
    """Most entries zero, some rows altogether."""
    rng = np.random.default_rng(seed)
    return rng.random((layers, heads, t, t)) * (rng.random((layers, heads, t, t)) < 0.3)


def wide_attention(layers, heads, t, seed=0):
    """Entries over sixty orders of magnitude."""
    weights = 10.0 ** np.random.default_rng(seed).uniform(-60, 0, (layers, heads, t, t))
    return weights / weights.sum(-1, keepdims=True)


FAMILIES = {
    "softmax": softmax_attention(3, 2, 5),
    "sharp": softmax_attention(4, 1, 5, seed=1, scale=5.0),
    "causal": causal_attention(4, 2, 5),
    "one-hot": one_hot_attention(4, 1, 6),
    "one-hot heads": one_hot_attention(3, 3, 5, seed=3),
    "sparse": sparse_attention(4, 1, 6),
    "wide": wide_attention(4, 1, 5),
    "one token": np.ones((3, 2, 1, 1)),
    "one layer": softmax_attention(1, 2, 6),
}


# --- other people's numbers, an independent witness ---------------------------------------------


@pytest.mark.skipif(not GOLDEN.exists(), reason="the folder with shared reference data is absent")
def test_goldens_of_abnar_and_zuidema():
    for case in json.loads(GOLDEN.read_text()):
        np.testing.assert_allclose(rollout(case["attention"]), case["rollout"], atol=1e-9)
        np.testing.assert_allclose(attention_flow(case["attention"]), case["flow"], atol=1e-6)


def exact_flow(residual, layer, i, j):
    """The maximum flow of one pair by networkx, in rational numbers."""
    graph = networkx.DiGraph()
    graph.add_nodes_from([(layer + 1, i), (0, j)])
    for b, block in enumerate(residual[: layer + 1]):
        for upper, lower in zip(*np.nonzero(block), strict=True):
            capacity = Fraction(float(block[upper, lower]))
            graph.add_edge((b + 1, int(upper)), (b, int(lower)), capacity=capacity)
    find = networkx.algorithms.flow.edmonds_karp
    return networkx.maximum_flow_value(graph, (layer + 1, i), (0, j), flow_func=find)


def check_values(values, attention, alpha=0.5):
    """Values (L, t, t) are the maximum flows, to a relative 1e-12 whatever their size."""
    residual = residual_attention(attention, alpha=alpha)
    layers, t, _ = residual.shape
    assert values.shape == (layers, t, t)
    for layer, i, j in np.ndindex(layers, t, t):
        exact = exact_flow(residual, layer, i, j)
        assert abs(Fraction(float(values[layer, i, j])) - exact) <= exact * Fraction(1, 10**12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_values_are_exact_maximum_flows(family, alpha):
    values = attention_flow(FAMILIES[family], alpha=alpha, normalise=False)
    check_values(values, FAMILIES[family], alpha)


SABOTAGED = {
    "rollout": rollout,
    "shares instead of values": attention_flow,
    "largest head": lambda a: attention_flow(a, heads="max", normalise=False),
    "without residual": lambda a: attention_flow(a, alpha=1.0, normalise=False),
    "transposed": lambda a: attention_flow(np.swapaxes(a, -1, -2), normalise=False),
    "layers reversed": lambda a: attention_flow(a[::-1], normalise=False),
    "one layer late": lambda a: np.roll(attention_flow(a, normalise=False), 1, axis=0),
    "only the top bound": lambda a: np.ones((a.shape[0], *a.shape[2:])),
    "joint": lambda a: np.stack(
        [
            [joint_flow(a, i, layer=layer).attributions for i in range(a.shape[2])]
            for layer in range(len(a))
        ]
    ),
    "one path too few": lambda a: attention_flow(a, normalise=False) * (1 - 1e-6),
}


@pytest.mark.parametrize("name", SABOTAGED)
def test_sabotaged_values_are_noticed(name):
    attention = FAMILIES["softmax"]
    with pytest.raises(AssertionError):
        check_values(SABOTAGED[name](attention), attention)


@pytest.mark.parametrize("t", [63, 64, 65, 130])
def test_sets_of_more_than_one_word(t):
    attention = softmax_attention(4, 1, t, seed=t, scale=4.0)
    residual = residual_attention(attention)
    starts = [0, t // 2, t - 1]
    values = attention_flow(attention, positions=starts, layers=[2, 3], normalise=False)
    for n, m, j in [(0, 0, t - 1), (0, 2, 1), (1, 1, t - 1), (1, 2, 0), (1, 0, t // 2)]:
        net = fo.FlowNetwork.layered(residual[: n + 3], sources=[starts[m]])
        single = fo.FlowNetwork(net.groups, net.blocks, sources=net.sources, sinks={"layer0": [j]})
        assert values[n, m, j] == pytest.approx(single.max_flow, rel=1e-11)


# --- theorems -----------------------------------------------------------------------------------


def check_first_layer(flow, rolled, residual):
    np.testing.assert_allclose(flow[0], residual[0], rtol=1e-13)
    np.testing.assert_allclose(rolled[0], residual[0], rtol=1e-13)


def test_first_layer_is_the_residual_attention():
    attention = softmax_attention(3, 4, 6)
    flow, rolled = attention_flow(attention), rollout(attention)
    residual = attention.mean(1) / 2 + np.eye(6) / 2
    check_first_layer(flow, rolled, residual)
    with pytest.raises(AssertionError):
        check_first_layer(flow, rolled, attention.mean(1))
    with pytest.raises(AssertionError):
        check_first_layer(flow[1:], rolled, residual)


def rollout_as_flow(residual, position):
    """Edge flows of rollout from one position: mass at a node times its row."""
    mass = np.eye(residual.shape[1])[position]
    flows = []
    for block in residual[::-1]:
        flows.append(mass[:, None] * block)
        mass = flows[-1].sum(0)
    return flows[::-1], mass


@pytest.mark.parametrize("family", ["softmax", "sharp", "causal", "one-hot"])
def test_rollout_is_a_joint_maximum_flow_but_not_the_only_one(family):
    attention = FAMILIES[family]
    residual = residual_attention(attention)
    position = attention.shape[2] - 1
    solution = joint_flow(attention, position)
    flows, mass = rollout_as_flow(residual, position)
    assert all((flow <= block + 1e-15).all() for flow, block in zip(flows, residual, strict=True))
    np.testing.assert_allclose(mass, rollout(attention)[-1, position], atol=1e-14)
    assert solution.status is fo.Status.OPTIMAL
    assert solution.value == pytest.approx(1.0, rel=1e-12)
    assert mass.sum() == pytest.approx(solution.value, rel=1e-12)
    if family in ("softmax", "sharp"):
        assert np.abs(solution.attributions - mass).max() > 0.05
    barrier = joint_flow(attention, position, fo.LogBarrier(mu=1e-3))
    assert barrier.certificate.attribution_error.max() < 1e-6


def largest_inflow(net, token):
    """Largest flow through a token among all maximum flows, as a linear program."""
    edges = net.edges
    inflow = edges.player_matrix[[token]].toarray()[0]
    equal = np.vstack([edges.incidence.toarray(), edges.value_vector])
    right = np.append(np.zeros(edges.incidence.shape[0]), net.max_flow)
    bounds = np.column_stack([np.zeros(len(edges.capacity)), edges.capacity])
    return -linprog(-inflow, A_eq=equal, b_eq=right, bounds=bounds, method="highs").fun


def check_upper_ends(values, net):
    for token, value in enumerate(values):
        assert value == pytest.approx(largest_inflow(net, token), rel=1e-6)


def test_pair_values_are_the_upper_ends_of_what_maximum_flows_can_give():
    attention = softmax_attention(3, 1, 5, seed=2, scale=3.0)
    net = fo.FlowNetwork.layered(residual_attention(attention), sources=[0])
    check_upper_ends(attention_flow(attention, normalise=False)[-1, 0], net)
    with pytest.raises(AssertionError):
        check_upper_ends(rollout(attention)[-1, 0], net)
    with pytest.raises(AssertionError):
        check_upper_ends(attention_flow(attention, normalise=False)[-2, 0], net)


def test_joint_and_pair_flows_differ():
    """Four tokens, three layers: what pairs claim together is more than one flow can bring."""
    attention = softmax_attention(3, 2, 4)
    pairs = attention_flow(attention, normalise=False)[-1]
    for position in range(4):
        joint = joint_flow(attention, position)
        assert joint.value == pytest.approx(1.0, rel=1e-12)
        assert (joint.attributions <= pairs[position] * (1 + 1e-9)).all()
        assert pairs[position].sum() > 1.5 * joint.value
    everywhere = joint_flow(attention)
    assert 1.0 < everywhere.value <= 4 * (1 + 1e-12)
    middle = joint_flow(attention, 1, layer=0).attributions
    np.testing.assert_allclose(middle, residual_attention(attention)[0, 1], atol=1e-12)


# --- properties ---------------------------------------------------------------------------------

attentions = st.builds(
    lambda make, layers, heads, t, seed: make(layers, heads, t, seed),
    st.sampled_from([softmax_attention, causal_attention, one_hot_attention, sparse_attention]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(0, 10**6),
)


def check_equivariance(method, attention, order):
    renamed = attention[:, :, order][:, :, :, order]
    np.testing.assert_allclose(
        method(renamed), method(attention)[:, order][:, :, order], rtol=1e-10, atol=1e-15
    )


@settings(max_examples=30, deadline=None)
@given(attentions, st.randoms(use_true_random=False))
def test_renamed_tokens_get_the_same_flow(attention, random):
    order = list(range(attention.shape[-1]))
    random.shuffle(order)
    for method in (attention_flow, rollout):
        check_equivariance(method, attention, order)
    np.testing.assert_allclose(
        attention_flow(attention[:, ::-1]), attention_flow(attention), rtol=1e-9, atol=1e-15
    )


def test_a_method_that_looks_at_positions_is_noticed():
    attention = softmax_attention(3, 2, 5)
    with pytest.raises(AssertionError):
        check_equivariance(
            lambda a: attention_flow(a) * (1 + np.arange(5)), attention, [4, 2, 0, 1, 3]
        )


@settings(max_examples=40, deadline=None)
@given(attentions)
def test_bounds_prove_every_value(attention):
    found = pair_flows(attention, workers=1)
    assert found.worst_gap < 1e-12
    assert (found.lower <= found.upper * (1 + 1e-12)).all()
    assert (found.values <= 1 + 1e-12).all()
    through = residual_attention(attention)
    for layer in range(len(through)):  # the flow rollout gives to a token is feasible
        assert (found.upper[layer] >= rollout(attention)[layer] * (1 - 1e-12)).all()
    np.testing.assert_allclose(found.shares.sum(-1), 1.0, rtol=1e-12)


# --- certificates -------------------------------------------------------------------------------


def sent_flow():
    residual = residual_attention(softmax_attention(3, 1, 5, seed=4, scale=3.0))
    work = layered_dinic.workspace(residual)
    touched = layered_dinic.send(work, 3, 0, 2)
    return work, touched, layered_dinic.cut_capacity(work, 3, 0, 2)


def test_flow_and_cut_agree_and_nothing_is_left_behind():
    work, touched, cut = sent_flow()
    fresh = layered_dinic.workspace(work.capacity)
    assert touched > 0
    assert layered_dinic.take_back(work, touched, 3, 0, 2) == pytest.approx(cut, rel=1e-13)
    for name in ("room", "flow", "open_down", "open_up", "used_down", "used_up", "is_touched"):
        np.testing.assert_array_equal(getattr(work, name), getattr(fresh, name), err_msg=name)


def test_a_flow_that_breaks_a_rule_proves_less():
    work, touched, cut = sent_flow()
    work.flow[:] *= 2  # twice as much over edges that are full
    assert layered_dinic.take_back(work, touched, 3, 0, 2) <= cut * (1 + 1e-12)
    work, touched, cut = sent_flow()
    work.flow[:] *= -1
    assert layered_dinic.take_back(work, touched, 3, 0, 2) == 0
    work, touched, cut = sent_flow()
    edge = tuple(np.argwhere(work.flow[1] > 0)[0])
    work.flow[1][edge] /= 2  # less leaves a node than enters it
    assert layered_dinic.take_back(work, touched, 3, 0, 2) < cut * (1 - 1e-6)


def test_only_a_set_that_parts_source_and_sink_is_a_cut():
    work, _, cut = sent_flow()
    work.unseen[1] ^= work.everyone  # another cut, no better
    assert layered_dinic.cut_capacity(work, 3, 0, 2) > cut * (1 + 1e-6)
    work.unseen[3] = 0  # the source on the sink's side
    assert layered_dinic.cut_capacity(work, 3, 0, 2) == np.inf


def test_values_without_proof_are_refused(monkeypatch):
    attention = softmax_attention(2, 1, 4)
    good = pair_flows(attention)
    assert good.worst_gap < 1e-12
    worse = PairFlows(good.lower * (1 - 1e-6), good.upper, good.layers, good.positions, 0)
    assert worse.worst_gap == pytest.approx(1e-6, rel=1e-3)
    # as a string, "flowopt.methods.attention_flow" would mean the function of that name
    module = sys.modules["flowopt.methods.attention_flow"]
    monkeypatch.setattr(module, "pair_flows", lambda *_, **__: worse)
    with pytest.raises(fo.SolverError, match="proved only"):
        attention_flow(attention)


def test_most_pairs_of_deep_stacks_need_no_flow():
    found = pair_flows(softmax_attention(8, 8, 8))
    assert 0 < found.solved <= found.values.size / 2
    assert "relative gap at most" in str(found)


# --- extremes -----------------------------------------------------------------------------------


def test_one_token_and_one_layer():
    np.testing.assert_array_equal(attention_flow(np.ones((3, 2, 1, 1))), np.ones((3, 1, 1)))
    attention = softmax_attention(1, 2, 3)
    np.testing.assert_allclose(attention_flow(attention), residual_attention(attention))


def test_identity_alone_and_no_identity():
    attention = softmax_attention(3, 2, 4)
    for method in (rollout, attention_flow):
        np.testing.assert_array_equal(method(attention, alpha=0.0), np.stack([np.eye(4)] * 3))
        attention[1, :, 2] = 0  # a masked query: nothing comes from it, nor from above it alone
        cut = method(attention, alpha=1.0)
        np.testing.assert_array_equal(cut[1, 2], np.zeros(4))
        assert np.isfinite(cut).all()


@pytest.mark.parametrize("tiny", [1e-30, 1e-200, 5e-324])
def test_tiny_entries(tiny):
    attention = np.zeros((3, 1, 3, 3))
    attention[:, 0, :, 0] = 1.0
    attention[:, 0, 0, 2] = tiny
    found = pair_flows(attention)
    assert found.worst_gap <= 1e-12
    check_values(found.values, attention)


def test_huge_entries():
    attention = softmax_attention(3, 2, 4)
    np.testing.assert_allclose(
        attention_flow(attention * 1e300, alpha=1.0), attention_flow(attention, alpha=1.0)
    )


# --- options ------------------------------------------------------------------------------------


def test_heads():
    attention = softmax_attention(3, 4, 5)
    for method in (rollout, attention_flow):
        np.testing.assert_array_equal(method(attention, heads=-1), method(attention[:, 3:]))
        for name in ("mean", "max", "min"):
            reduced = getattr(np, name)(attention, axis=1)[:, None]
            np.testing.assert_allclose(method(attention, heads=name), method(reduced))


def test_layers_and_positions_pick_what_all_of_them_give():
    attention = softmax_attention(5, 2, 6, scale=4.0)
    whole = attention_flow(attention)
    picked = attention_flow(attention, layers=[-1, 2, 2], positions=[5, 0, -2])
    np.testing.assert_allclose(picked, whole[[4, 2, 2]][:, [5, 0, 4]], rtol=1e-10)
    order = [3, 1, 5, 0, 4, 2]
    np.testing.assert_allclose(
        attention_flow(attention, positions=order), whole[:, order], rtol=1e-10
    )
    found = pair_flows(attention, layers=(1, 0), positions=range(2))
    assert (found.layers, found.positions) == ((1, 0), (0, 1))


def test_threads_change_nothing_and_the_bar_counts_tokens(capfd):
    attention = softmax_attention(4, 1, 9, scale=4.0)
    alone = pair_flows(attention, workers=1)
    assert capfd.readouterr().err == ""
    together = pair_flows(attention, workers=4, progress=True)
    np.testing.assert_array_equal(alone.lower, together.lower)
    assert alone.solved == together.solved
    assert "9/9" in capfd.readouterr().err


def test_tensors_and_the_attentions_of_a_model():
    torch = pytest.importorskip("torch")
    attention = softmax_attention(3, 2, 4)
    tensor = torch.tensor(attention, requires_grad=True)
    model_output = tuple(torch.tensor(layer)[None] for layer in attention)
    for method in (rollout, attention_flow, raw_attention):
        np.testing.assert_array_equal(method(tensor), method(attention))
        np.testing.assert_array_equal(method(model_output), method(attention))


def test_raw_attention():
    attention = softmax_attention(3, 2, 4)
    np.testing.assert_array_equal(raw_attention(attention), attention[2].mean(0))
    np.testing.assert_array_equal(raw_attention(attention, 0, 1, heads=1), attention[0, 1, 1])
    with pytest.raises(fo.InputError, match="layer 3 does not exist"):
        raw_attention(attention, 3)
    raw_attention(attention, heads=0)[:] = 0
    assert attention[2, 0].all()


# --- bad input ----------------------------------------------------------------------------------

GOOD = softmax_attention(2, 2, 3)
BAD_ARRAYS = {
    "NaN": (np.where(np.arange(3) == 1, np.nan, GOOD), "must be finite"),
    "infinite": (GOOD + np.inf, "must be finite"),
    "negative": (-GOOD, "must be nonnegative"),
    "heads averaged": (GOOD.mean(1), r"shape \(L, H, t, t\)"),
    "batch": (np.stack([GOOD, GOOD]), r"shape \(L, H, t, t\)"),
    "not square": (GOOD[..., :2], r"shape \(L, H, t, t\)"),
    "empty": (GOOD[:0], r"shape \(L, H, t, t\)"),
    "no tokens": (GOOD[:, :, :0, :0], r"shape \(L, H, t, t\)"),
    "ragged": ([[[[1.0]]], [[[1.0, 0.0], [0.0, 1.0]]]], "array of numbers"),
    "words": ("attention", "array of numbers"),
    "None": (None, r"shape \(L, H, t, t\)|array of numbers"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
@pytest.mark.parametrize("method", [rollout, attention_flow, joint_flow, raw_attention])
def test_bad_arrays(name, method):
    array, message = BAD_ARRAYS[name]
    with pytest.raises(fo.InputError, match=message):
        method(array)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": np.nan}, "alpha"),
        ({"heads": "sum"}, "heads must be one of"),
        ({"heads": 2}, "head 2 does not exist"),
        ({"heads": 0.5}, "whole number"),
        ({"heads": True}, "head True"),
        ({"layers": [2]}, "layer 2 does not exist"),
        ({"layers": []}, "no layer is chosen"),
        ({"layers": 1}, "list of whole numbers"),
        ({"positions": [-4]}, "position -4 does not exist"),
        ({"positions": ["a"]}, "whole number"),
        ({"workers": 0}, "workers"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(fo.InputError, match=message):
        attention_flow(GOOD, **options)


def test_bad_joint_options():
    for options in ({"position": 3}, {"position": []}, {"layer": 2}, {"position": "a"}):
        with pytest.raises(fo.InputError):
            joint_flow(GOOD, **options)


def test_the_package_of_methods_is_light():
    heavy = ("numba", "scipy", "torch", "cvxpy", "networkx")
    code = f"import sys, flowopt.methods; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
