"""Derivatives of attributions: finite differences, identities, the PyTorch layer, sabotage."""

import networks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import flowopt as fo
from flowopt.sensitivity import Sensitivity

SMOOTH = [n for n in networks.FAMILIES if n not in ("mixed_terminals", "parallel_links")]
RELATIVE_MU = (1e-2, 1e-4, 1e-6)


def limited_links():
    """Blocks and limited links side by side, a limited node group and a limited return edge."""
    rng = np.random.default_rng(12)
    return fo.FlowNetwork(
        {"c": 3, "b": 3, "a": 3},
        [
            fo.Block("c", "b", rng.uniform(0.2, 1, (3, 3))),
            fo.Block("b", "a", rng.uniform(0.2, 1, (3, 3))),
        ],
        [fo.Link("c", "b", [(0, 0), (1, 1)], [0.3, 0.7]), fo.Link("c", "a", [(2, 0)], [0.4])],
        sources={"c": range(3)},
        sinks={"a": range(3)},
        node_capacity={"b": [0.5, np.inf, 0.8]},
        return_capacity=2.0,
    )


NETWORKS = {**{name: networks.FAMILIES[name] for name in SMOOTH}, "limited_links": limited_links}


class Change:
    """A random change of every capacity of a network and of mu, and the network it leads to."""

    def __init__(self, net, mu, seed=0):
        rng = np.random.default_rng(seed)
        self.net, self.mu = net, mu
        self.blocks = [b.capacity * rng.normal(size=b.capacity.shape) for b in net.blocks]
        self.links = [
            np.zeros(len(k.pairs))
            if k.capacity is None
            else k.capacity * rng.normal(size=len(k.pairs))
            for k in net.links
        ]
        self.nodes = {
            g: np.where(np.isfinite(c), np.nan_to_num(c, posinf=0.0) * rng.normal(size=len(c)), 0.0)
            for g, c in (net.node_capacity or {}).items()
        }
        self.back = 0.0 if net.return_capacity is None else 0.3 * net.return_capacity
        self.dmu = 0.5 * mu

    def attributions(self, step):
        net = self.net
        links = [
            fo.Link(k.tail, k.head, k.pairs, None if k.capacity is None else k.capacity + step * d)
            for k, d in zip(net.links, self.links, strict=True)
        ]
        blocks = [
            fo.Block(b.tail, b.head, b.capacity + step * d)
            for b, d in zip(net.blocks, self.blocks, strict=True)
        ]
        moved = fo.FlowNetwork(
            net.groups,
            blocks,
            links,
            sources=net.sources,
            sinks=net.sinks,
            node_capacity={
                g: c + step * self.nodes[g] for g, c in (net.node_capacity or {}).items()
            }
            or None,
            players=net.players,
            return_capacity=None
            if net.return_capacity is None
            else net.return_capacity + step * self.back,
        )
        barrier = fo.LogBarrier(mu=self.mu + step * self.dmu, relative=False)
        return fo.solve(moved, barrier, "native").attributions

    def differences(self, step):
        """Central differences of fourth order."""
        one = self.attributions(step) - self.attributions(-step)
        two = self.attributions(2 * step) - self.attributions(-2 * step)
        return (8 * one - two) / (12 * step)

    def product(self, sensitivity):
        return sensitivity.jvp(
            self.blocks,
            links=self.links,
            node_capacity=self.nodes,
            return_capacity=self.back,
            mu=self.dmu,
        )

    def paired(self, gradient):
        pairs = [*zip(gradient.blocks, self.blocks, strict=True)]
        pairs += zip(gradient.links, self.links, strict=True)
        pairs += [(gradient.node_capacity[g], d) for g, d in self.nodes.items()]
        total = sum(float((a * b).sum()) for a, b in pairs)
        return total + gradient.return_capacity * self.back + gradient.mu * self.dmu


def mismatch(change, sensitivity, step=1e-4):
    expected = change.differences(step)
    return np.abs(change.product(sensitivity) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("relative_mu", RELATIVE_MU)
@pytest.mark.parametrize("family", NETWORKS)
def test_finite_differences(family, relative_mu):
    net = NETWORKS[family]()
    mu = relative_mu * net.graph.largest_capacity
    solution = fo.solve(net, fo.LogBarrier(mu=mu, relative=False))
    change = Change(net, mu)
    assert min(mismatch(change, solution.sensitivity(), h) for h in (1e-4, 1e-5)) < 1e-6


@pytest.mark.parametrize("relative_mu", RELATIVE_MU)
@pytest.mark.parametrize("family", NETWORKS)
def test_the_two_products_are_adjoint(family, relative_mu):
    net = NETWORKS[family]()
    solution = fo.solve(net, fo.LogBarrier(mu=relative_mu))
    change = Change(net, solution.resolved.absolute_mu)
    weights = np.random.default_rng(1).normal(size=net.n_players)
    found = solution.sensitivity()
    gradient = found.vjp(weights)
    along = weights @ change.product(found)
    assert change.paired(gradient) == pytest.approx(along, rel=1e-9, abs=1e-12 * solution.value)
    short = solution.sensitivity(weights)
    for one, other in zip(short, gradient.blocks, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("family", NETWORKS)
def test_elasticities_add_up_to_one(family):
    net = NETWORKS[family]()
    solution = fo.solve(net, fo.LogBarrier(mu=1e-3))
    found = solution.sensitivity()
    for token in range(net.n_players):
        shares = found.elasticity(token)
        total = shares.flat.sum() + shares.return_capacity + shares.mu
        reached = solution.attributions[token] > 0
        assert total == pytest.approx(1.0 if reached else 0.0, abs=1e-7)


@given(networks.layered_networks(), st.sampled_from([1e-1, 1e-3, 1e-5]))
@settings(max_examples=30, deadline=None)
def test_any_small_network(net, mu):
    solution = fo.solve(net, fo.LogBarrier(mu=mu))
    found = solution.sensitivity()
    change = Change(net, solution.resolved.absolute_mu)
    weights = np.arange(1.0, net.n_players + 1)
    gradient = found.vjp(weights)
    assert all(np.isfinite(block).all() for block in gradient.blocks)
    assert not gradient.flat[net.graph.capacity == 0].any()
    along = float(weights @ change.product(found))
    unit = max(solution.value, 1e-300)
    assert abs(change.paired(gradient) - along) <= 1e-8 * max(abs(along), unit)


def test_top_edges():
    net = networks.causal()
    solution = fo.solve(net, fo.LogBarrier(mu=1e-3))
    found = solution.sensitivity()
    top = found.top_edges(0, 5)
    assert len(top) == 5
    assert [abs(e.elasticity) for e in top] == sorted(
        (abs(e.elasticity) for e in top), reverse=True
    )
    shares = found.elasticity(0)
    for edge in top:
        assert edge.elasticity == shares.blocks[edge.block][edge.tail, edge.head]
        u = net.blocks[edge.block].capacity[edge.tail, edge.head]
        assert edge.derivative * u / solution.attributions[0] == pytest.approx(edge.elasticity)
    largest = max(np.abs(block).max() for block in shares.blocks)
    assert abs(top[0].elasticity) == largest


def test_another_solver_gives_the_same_derivatives():
    net = networks.dense()
    ours = fo.solve(net, fo.LogBarrier(mu=1e-2), "native").sensitivity(np.arange(5))
    theirs = fo.solve(net, fo.LogBarrier(mu=1e-2), "CLARABEL").sensitivity(np.arange(5))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


def test_a_large_network_takes_one_solve():
    rng = np.random.default_rng(3)
    net = fo.FlowNetwork.layered(rng.uniform(size=(6, 100, 100)))
    solution = fo.solve(net, fo.LogBarrier(gap=0.05))
    gradient = solution.sensitivity(np.eye(100)[3])
    assert gradient[0].shape == (100, 100)
    assert gradient[0][:, 3].sum() > 0


# --- refusals ------------------------------------------------------------------------------------
@pytest.mark.parametrize("objective", [fo.MaxFlow(), fo.Quadratic(0.1), fo.Entropy(0.1)])
def test_other_objectives_are_refused(objective):
    with pytest.raises(fo.UnsupportedError, match="LogBarrier"):
        fo.solve(networks.dense(), objective).sensitivity()


def test_idle_links_and_missing_proofs_are_refused():
    solution = fo.solve(networks.parallel_links(), fo.LogBarrier(mu=1e-2))
    with pytest.raises(fo.UnsupportedError, match="idle"):
        solution.sensitivity()
    from flowopt.certificate import certified

    good = fo.solve(networks.dense(), fo.LogBarrier(mu=1e-2))
    bad = certified(
        good.network, good.objective, good.resolved, good.flow * 0.5, good.potential, "x", {}
    )
    with pytest.raises(fo.UnsupportedError, match="certified"):
        bad.sensitivity()


def test_undetermined_tokens_are_refused():
    net = fo.FlowNetwork(
        {"c": 1, "b": 1, "a": 2},
        [fo.Block("c", "b", np.array([[1.0]]))],
        [fo.Link("b", "a", [(0, 0), (0, 1)])],
        sources={"c": [0]},
        sinks={"a": [0, 1]},
    )
    solution = fo.solve(net, fo.LogBarrier(mu=1e-2), "CLARABEL")
    with pytest.raises(fo.UnsupportedError, match="unlimited link"):
        solution.sensitivity([1.0, 0.0])


def test_wrong_shapes_are_refused():
    found = fo.solve(networks.dense(), fo.LogBarrier(mu=1e-2)).sensitivity()
    with pytest.raises(fo.InputError, match="weights"):
        found.vjp([1.0])
    with pytest.raises(fo.InputError, match="blocks"):
        found.jvp(np.zeros((3, 4, 4)))
    with pytest.raises(fo.InputError, match="group"):
        found.jvp(node_capacity={"layer0": np.zeros(5)})
    with pytest.raises(fo.InputError, match="token"):
        found.top_edges(5)


def test_empty_network():
    solution = fo.solve(fo.FlowNetwork.layered(np.zeros((2, 3, 3))), fo.LogBarrier(mu=1e-2))
    assert not solution.sensitivity(np.ones(3))[0].any()
    assert not solution.sensitivity().jvp(np.ones((2, 3, 3))).any()
    assert solution.sensitivity().elasticity(0).mu == 0


# --- sabotage ------------------------------------------------------------------------------------
@pytest.mark.parametrize("wrong", ["by_price", "by_capacity", "by_mu"])
def test_a_wrong_derivative_is_caught(wrong):
    net = limited_links()
    solution = fo.solve(net, fo.LogBarrier(mu=1e-2, relative=False))
    found = solution.sensitivity()
    change = Change(net, 1e-2)
    assert mismatch(change, found) < 1e-6
    spoiled = Sensitivity.of(solution)
    getattr(spoiled, wrong)[3] *= 1.05  # the weights of the Laplacian are by_price itself
    assert mismatch(change, spoiled) > 1e-5
    if wrong != "by_price":  # to which the sum of elasticities is blind
        shares = spoiled.elasticity(0)
        total = shares.flat.sum() + shares.return_capacity + shares.mu
        assert abs(total - 1) > 1e-6


# --- the PyTorch layer ---------------------------------------------------------------------------
def capacities(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator) + 0.05


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("mu", [0.1, 1e-3])
def test_gradcheck(mu, relative):
    C = capacities(3, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: fo.flow_attributions(c, mu=mu, relative=relative), C)


def test_gradcheck_of_a_batch_and_one_source():
    C = capacities(2, 2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: fo.flow_attributions(c, mu=0.01, sources=[0]), C)


def test_gradcheck_sees_a_wrong_derivative():
    C = capacities(2, 3, 3).requires_grad_()

    def wrong(c):
        return fo.flow_attributions(c * 1.01 - c.detach() * 0.01, mu=0.01)

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(wrong, C)


def test_layer_agrees_with_the_solver():
    C = capacities(3, 4, 4)
    net = fo.FlowNetwork.layered(C, sources=1)
    solution = fo.solve(net, fo.LogBarrier(mu=1e-2, relative=False))
    found = fo.flow_attributions(C, mu=1e-2, sources=1)
    np.testing.assert_array_equal(found.numpy(), solution.attributions)
    batch = fo.flow_attributions(torch.stack([C, 2 * C]), mu=1e-2, relative=True)
    assert batch.shape == (2, 4)
    torch.testing.assert_close(batch[1], 2 * batch[0])


def test_single_precision_and_training():
    target = torch.tensor([0.5, 0.1, 0.2], dtype=torch.float32)
    raw = torch.zeros(2, 3, 3, dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        found = fo.flow_attributions(torch.nn.functional.softplus(raw), mu=1e-2)
        assert found.dtype == torch.float32
        loss = ((found - target) ** 2).sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-2 * losses[0]


def test_zero_entries_have_no_gradient():
    C = capacities(2, 3, 3)
    C[0, 1, 2] = 0
    C.requires_grad_()
    fo.flow_attributions(C, mu=1e-2)[0].backward()
    assert C.grad[0, 1, 2] == 0
    assert torch.isfinite(C.grad).all()


def test_layer_refuses_what_is_no_capacity():
    with pytest.raises(fo.InputError, match="floating-point"):
        fo.flow_attributions(torch.zeros(2, 3, 3, dtype=torch.int64), mu=1e-2)
    with pytest.raises(fo.InputError, match="floating-point"):
        fo.flow_attributions(torch.zeros(3, 3), mu=1e-2)
    with pytest.raises(fo.InputError, match="negative"):
        fo.flow_attributions(-capacities(2, 3, 3), mu=1e-2)
    C = capacities(2, 3, 3).requires_grad_()
    (grad,) = torch.autograd.grad(fo.flow_attributions(C, mu=1e-2).sum(), C, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        grad.sum().backward()
