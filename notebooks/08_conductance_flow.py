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
# # Flow that is conserved: edge conductance
#
# Attention times gradient says how much an edge matters *locally*, in units that differ from layer
# to layer. Edge conductance says how much of a prediction passed along it: move the input from a
# baseline (every word replaced by the padding, mask or unknown token) to the text, and integrate
# along every edge what the upper node makes of the lower one's change. All derivatives are exact,
# so what enters a node leaves it again, and all of it together is y(x) - y(x').

# %%
import numpy as np

import flowopt as fo
from flowopt.tensors import Conductance, available_tensors, tensor_spec
from flowopt.trace import batch_of_inputs
from flowopt.trace.conductance import edge_conductance
from flowopt.trace.path import PathOptions

text = "A warm film with a gripping story, though the ending is weak."
explainer = fo.Explainer.from_pretrained(None, tensor="conductance")
attribution = explainer(text)
attribution

# %% [markdown]
# Scores have a sign: the flow on the positive part of the tensor minus that on its negative part,
# both from the position that the classifier reads. Each flow has its certificate.

# %%
for name, solution in zip(("for", "against"), attribution.solutions, strict=True):
    gap = solution.certificate.gap
    print(f"{name} {attribution.prediction.label}: |f| = {solution.value:.3f}, gap {gap:.1e}")

# %% [markdown]
# ## What is conserved
# The numbers behind the flow: edges [l, i, j] from node j of layer l to node i above it, and the
# conductance of every node. Rows of a layer and columns of the next have the same sums, and row 0
# of the nodes is integrated gradients.

# %%
model, tokenizer = explainer.model, explainer.tokenizer
encoded = dict(tokenizer(text, return_tensors="pt"))
batch = batch_of_inputs(model, encoded, None, tokenizer)
(trace, found), *_ = edge_conductance(model, batch, PathOptions(steps=64))
edges, nodes = found.edges["encoder"], found.nodes["encoder"]
assert np.allclose(edges.sum(axis=2), nodes[1:], atol=1e-4)
assert np.allclose(edges.sum(axis=1), nodes[:-1], atol=1e-4)
print("every layer carries", nodes.sum(axis=1).round(4))
print(f"y(x) - y(x') = {found.change:.4f}, relative error {found.completeness:.0e}")

# %% [markdown]
# ## Flow and integrated gradients
# Integrated gradients say how much a token contributes; the flow also says by which paths. Where
# positive and negative paths from one token cancel, the two differ.

# %%
order = np.argsort(-np.abs(attribution.scores))[:6]
print(f"{'token':>10} {'flow':>8} {'integrated gradients':>22}")
for token in order:
    name = attribution.tokens[token]
    print(f"{name:>10} {attribution.scores[token]:8.3f} {nodes[0, token]:22.3f}")

# %% [markdown]
# ## Baselines, steps
# By default results of three baselines are averaged, with 32 steps each; where the sum of all
# conductances is more than 5 % off, steps are doubled.

# %%
mask_only = Conductance(baselines="mask", steps=64)
again = fo.Explainer(model, tokenizer, tensor=mask_only)(text)
print(again.settings["tensor"], again.settings["sources"])

# %% [markdown]
# ## Other tensors

# %%
for name in available_tensors():
    spec = tensor_spec(name)
    print(f"{name:16} {spec.summary}  [{spec.reference}]")
