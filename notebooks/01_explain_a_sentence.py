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
# # Explain a sentence
#
# A transformer's attention, combined with its gradients, gives the capacities of a layered flow
# network. The flow from the output down to the input, computed by barrier-regularised maximum
# flow, is divided among the input tokens: that share is a token's attribution. This notebook
# explains a sentence with the small classifier that comes inside the package, and reads what the
# certificate proves.

# %%
import numpy as np

import flowopt as fo

explainer = fo.Explainer.from_pretrained(None)  # None: the bundled SST-2 classifier
attribution = explainer("A gripping, funny film, though the ending is weak.")
attribution

# %% [markdown]
# Scores are flows. They sum to the value |f| of the flow, which the barrier keeps a little below
# the plain maximum flow. `attribution_error` bounds, for every token, how far its score can be from
# the exact optimum: it is computed by flowopt from the numbers alone, whoever solved the problem.

# %%
assert np.isclose(attribution.scores.sum(), attribution.value)
print(f"|f| = {attribution.value:.6f} of at most {attribution.max_flow:.6f}")
print("largest error of a score:", attribution.certificate.attribution_error.max())
for word in attribution.top(3):
    print(f"{word.word:12s} {word.score / attribution.value:.1%} of the flow")

# %% [markdown]
# ## Another class, another tensor, another objective
# The information tensor (`af` attention, `gf` gradients, `agf` both), the objective and the solver
# are interchangeable, and so is the class that is explained.

# %%
for tensor in ("af", "gf", "agf"):
    other = fo.Explainer.from_pretrained(None, tensor=tensor)
    words = [w.word for w in other(attribution.text, target="negative").top(3)]
    print(f"{tensor:4s} against the prediction:", words)

# %% [markdown]
# ## The network itself
# Every attribution keeps its solution, and with it the network: flows per layer, potentials, what
# pruning dropped, and who solved it.

# %%
solution = attribution.solutions[0]
print(solution)
print(solution.network.pruned)
print("flow through the tokens of layer 3:", np.round(solution.node_flows["layer3"], 6))

# %%
axes = attribution.plot()

# %% [markdown]
# ## Keep it
# JSON for machines, HTML for people; both stand alone.

# %%
text = attribution.to_json()
again = fo.Attribution.from_json(text)
assert np.array_equal(again.scores, attribution.scores)
print(text[:160], "...")
