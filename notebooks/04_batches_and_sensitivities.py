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
# # Many networks, and what an attribution hangs on
#
# The native solver makes the barrier cheap enough to be used inside other computations: over
# corpora, and under a derivative.

# %%
import numpy as np
import torch

import flowopt as fo

rng = np.random.default_rng(0)
nets = [
    fo.FlowNetwork.layered(rng.dirichlet(np.full(t, 0.3), size=(6, t)))
    for t in rng.integers(8, 40, size=20)
]
solutions = fo.solve_batch(nets, fo.LogBarrier(gap=0.05))
print({solution.status.value for solution in solutions})
print("worst error bound:", max(s.certificate.attribution_error.max() for s in solutions))

# %% [markdown]
# ## Smaller mu, nearer to the maximum flow
# However small mu is, a few tens of steps suffice, and the bound on every token stays.

# %%
net = nets[0]
for mu in (1e-1, 1e-3, 1e-5, 1e-7):
    solution = fo.solve(net, fo.LogBarrier(mu=mu))
    print(
        f"mu = {mu:.0e}: {solution.value / net.max_flow:.4%} of the maximum flow, "
        f"{solution.stats['iterations']} steps, "
        f"error below {solution.certificate.attribution_error.max():.0e}"
    )

# %% [markdown]
# ## Sensitivities
# The barrier's optimum is a smooth function of the capacities. Which edges does a token's flow
# hang on? One linear system with the matrix of the last Newton step tells.

# %%
solution = fo.solve(net, fo.LogBarrier(mu=1e-3))
token = int(np.argmax(solution.attributions))
for effect in solution.sensitivity().top_edges(token, 3):
    print(effect)

# %% [markdown]
# ## Under a gradient
# The same derivative as a PyTorch function, for losses on attributions.

# %%
capacity = torch.tensor(rng.dirichlet(np.ones(6), size=(3, 6)), requires_grad=True)
attributions = fo.flow_attributions(capacity, mu=1e-2)
attributions[2].backward()
print("attributions:", attributions.detach().numpy().round(3))
print("derivative of token 2 by its incoming edges:", capacity.grad[0, :, 2].numpy().round(4))
