# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # An objective of your own
#
# A flow problem is a network and an objective, written as a CVXPY expression. Here is one that no
# paper has: the flow should be large, and spread over the tokens by *squared* shares.

# %%
from dataclasses import dataclass

import cvxpy as cp
import numpy as np

import flowopt as fo

rng = np.random.default_rng(0)
attention = rng.dirichlet(np.ones(8), size=(4, 8))  # 4 layers of 8 x 8 attention
net = fo.FlowNetwork.layered(attention, sources=[0])  # read at the first position
net


# %%
@dataclass(frozen=True)
class EvenTokens(fo.Objective):
    """|f| - weight * sum of squared token flows."""

    weight: float = 1.0

    def expression(self, flow, net):
        return net.value(flow) - self.weight * cp.sum_squares(net.inflow(flow))


solution = fo.solve(net, EvenTokens(0.5))
print(solution)
print("token flows:", np.round(solution.attributions, 4))

# %% [markdown]
# The status is decided by flowopt's own certificate, here a Frank-Wolfe bound on the gap: for any
# concave objective, how much better the best feasible flow could be to first order. Nobody is
# believed because of what they say of themselves.
#
# The problem can also be read, changed and solved as an ordinary CVXPY problem:

# %%
problem = fo.FlowProblem(net, EvenTokens(0.5)).to_cvxpy()
flow = problem.variables()[0]
limited = cp.Problem(problem.objective, [*problem.constraints, net.inflow(flow)[0] <= 0.05])
limited.solve(solver="CLARABEL")
print("with token 0 held down:", np.round(net.edges.player_matrix @ flow.value, 4))

# %% [markdown]
# The built-in objectives on the same network. Plain maximum flow has many optima, so the tokens'
# flows are whatever the solver happened to return; the others say which flow they mean.

# %%
for objective in (
    fo.MaxFlow(),
    fo.LogBarrier(gap=0.05),
    fo.Quadratic(rho=0.1),
    fo.Entropy(tau=0.1),
    fo.ProportionalFair(),
):
    answer = fo.solve(net, objective)
    unique = "unique" if objective.facts.unique_attributions else "not unique"
    print(f"{type(objective).__name__:17s} {unique:11s}", np.round(answer.attributions, 3))
