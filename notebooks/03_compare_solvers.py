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
# # Compare solvers
#
# The same problem goes to every backend that can solve it. flowopt repairs each answer to exact
# feasibility, computes the certificate itself, and says plainly who disagrees.

# %%
import numpy as np

import flowopt as fo

rng = np.random.default_rng(1)
attention = rng.dirichlet(np.full(10, 0.3), size=(4, 3, 10))  # (layers, heads, queries, keys)
gradient = rng.normal(size=attention.shape)
capacity = fo.information_tensor("agf", attention, gradient)
net = fo.FlowNetwork.layered(capacity)
print(net.pruned)

# %%
comparison = fo.compare_solvers(net, fo.LogBarrier(mu=1e-3), progress=False)
comparison

# %% [markdown]
# With plain maximum flow all agree on the value, yet not on the tokens: the optimum is not unique.
# That is what the barrier is for.

# %%
fo.compare_solvers(net, fo.MaxFlow(), progress=False)

# %%
comparison.to_pandas()

# %% [markdown]
# ## Over a set of networks
# Success rates and shifted geometric means of times, as solver benchmarks report them. With
# `out=` every result is kept as it comes, and an interrupted run goes on where it stopped.

# %%
problems = fo.problem_set("synthetic")[:6]
report = fo.benchmark_solvers(
    problems, fo.LogBarrier(gap=0.05), ["native", "CLARABEL", "ECOS"], progress=False
)
report
