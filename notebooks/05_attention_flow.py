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
# # Attention flow: per pair, jointly, and what neither decides
#
# Raw attention, attention rollout and attention flow are the three ways in which Abnar & Zuidema
# read a transformer's attention. flowopt computes them on plain arrays, so they work on the
# attention of any model: here that of the small classifier inside the package.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import flowopt as fo
from flowopt.assets import load_bundled
from flowopt.methods import attention_flow, joint_flow, pair_flows, raw_attention, rollout

model, tokenizer = load_bundled()
model.set_attn_implementation("eager")
inputs = tokenizer("A gripping, funny film, though the ending is weak.", return_tensors="pt")
with torch.no_grad():
    attention = model(**inputs, output_attentions=True).attentions  # 6 layers of (1, H, t, t)
tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
len(attention), tuple(attention[0].shape)

# %% [markdown]
# All of them read the same capacities: heads averaged, half attention and half residual
# connection. Rollout multiplies the layers. *Per-pair* flow asks for every node and every token
# alone how much could flow between the two, and divides each row by its sum in the end. *Joint*
# flow lets all tokens receive at once, so that they compete for the same edges. The classifier
# reads its answer at `[CLS]`, position 0.

# %%
pairs = attention_flow(attention)
joint = joint_flow(attention, position=0, objective=fo.LogBarrier(mu=1e-3))
rows = {
    "raw, last layer": raw_attention(attention, position=0),
    "rollout": rollout(attention)[-1, 0],
    "flow per pair": pairs[-1, 0],
    "joint flow, barrier": joint.attributions / joint.value,
}

figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
image = ax.imshow(np.stack(list(rows.values())), cmap="Blues", vmin=0, vmax=0.2, aspect="auto")
ax.set_xticks(range(len(tokens)), tokens, rotation=45, ha="right")
ax.set_yticks(range(len(rows)), list(rows))
ax.set_title("Share of each token in the [CLS] node of the last layer")
_ = figure.colorbar(image, extend="max")
# %% [markdown]
# ## Through the layers
# Entry l of rollout and of the per-pair flow starts at the nodes above layer l. After one layer
# both are the residual attention itself. Then rollout mixes ever further, while the flow per pair
# becomes even for another reason: once nothing is narrow any more between a node and a token,
# only the edges out of the one and into the other limit the flow. On this model it has then all
# but ceased to tell the words apart.

# %%
assert np.allclose(pairs[0], rollout(attention)[0])
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
for ax, (name, shares) in zip(
    axes, {"rollout": rollout(attention), "flow per pair": pairs}.items(), strict=True
):
    ax.imshow(shares[:, 0], cmap="Blues", vmin=0, vmax=0.5, aspect="auto")
    ax.set(title=f"{name}, from [CLS]", xticks=range(len(tokens)), ylabel="layer")
    ax.set_xticklabels(tokens, rotation=60, ha="right")

# %% [markdown]
# ## Every value has a proof
# Between a feasible flow and a cut there is no room: `pair_flows` gives both for every pair.

# %%
flows = pair_flows(attention)
print(flows)
print(f"{flows.solved} of {flows.values.size} pairs needed a flow; for the others bounds met")

# %% [markdown]
# ## What the pairs claim together is more than can flow
# One unit leaves `[CLS]`. Each token alone could receive a good part of it; all of them together
# cannot.

# %%
values = flows.values[-1, 0]
print(f"joint maximum flow: {joint.max_flow:.4f}; sum of the per-pair values: {values.sum():.4f}")

# %% [markdown]
# ## Plain maximum flow does not decide
# The joint maximum from one position is exactly 1, whatever the attention, and rollout is one of
# the flows that attain it. Solvers return others. All are optimal, and they disagree about the
# tokens; so "the" attention flow is no attribution until something chooses among them.

# %%
maxima = {"rollout": rollout(attention)[-1, 0]}
for solver in ("dinic", "scipy", "HIGHS"):
    solution = joint_flow(attention, position=0, solver=solver)
    assert solution.status is fo.Status.OPTIMAL
    assert np.isclose(solution.value, 1)
    maxima[solver] = solution.attributions

figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.vlines(range(len(tokens)), 0, values, color="0.85", linewidth=9, label="up to the pair's value")
for (name, shares), marker in zip(maxima.items(), ["o", "s", "x", "^"], strict=True):
    ax.plot(shares, marker, label=f"maximum flow: {name}", fillstyle="none")
ax.plot(joint.attributions, "k_", markersize=14, label="barrier (unique)")
ax.set_xticks(range(len(tokens)), tokens, rotation=45, ha="right")
ax.set(ylabel="flow into the token", title="Four maximum flows of the same network")
_ = ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
# %%
spread = np.max(list(maxima.values()), axis=0) - np.min(list(maxima.values()), axis=0)
print(f"the maximum flows disagree by up to {spread.max():.2f} of the whole on one token")
print(f"the barrier's scores are proved to {joint.certificate.attribution_error.max():.0e}")
assert spread.max() > 0.05
