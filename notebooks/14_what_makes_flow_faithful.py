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
# # What makes flow faithful?
#
# Flow on attention times gradient (GAF's AGF) orders tokens hardly better than attention itself,
# when faithfulness is measured by deleting them. Here is, in three steps, what changes that. The
# figures behind the story are in `paper_repro/beyond`.

# %%
import matplotlib.pyplot as plt
import numpy as np

import flowopt as fo
from flowopt.tensors import Conductance
from flowopt.trace import batch_of_inputs
from flowopt.trace.conductance import edge_conductance
from flowopt.trace.path import PathOptions

explainer = fo.Explainer.from_pretrained(None)
model, tokenizer = explainer.model, explainer.tokenizer
text = "The plot is thin, but the acting is so good that you will not mind."

# %% [markdown]
# ## 1. Capacities in units of the prediction
#
# An attention weight says how much is read, not what that does to the logit. *Edge conductance*
# does: integrated along a path of inputs it says what passes along every edge. Whatever enters a
# node leaves it, so the tensor is a flow already, and its value is the change of the logit.
#
# ## 2. The path that deletes
#
# The usual path replaces the tokens' embeddings, say by those of [PAD]. But the metrics *delete*
# tokens, and a deleted token is one that is not read. Along the path `"absent"` attention to all
# tokens fades, in every layer, and embeddings stay. What fading does at an edge goes straight to
# the token, so every layer has edges to the input.

# %%
batch = batch_of_inputs(model, dict(tokenizer(text, return_tensors="pt")), None, tokenizer)
options = PathOptions(steps=32, baselines="absent")
((trace, found),) = edge_conductance(model, batch, options)
print(f"logit, minus the logit with all tokens absent: {found.change:.4f}")
print(f"what passes from the tokens:                   {found.total:.4f}")
leaving = found.edges["encoder"].sum(axis=2) + found.direct["encoder"].sum(axis=2)
worst = np.abs(leaving - found.nodes["encoder"][1:]).max()
print(f"largest loss at a node:                        {worst:.1e}")

# %% [markdown]
# Where are tokens read? Of what their absence changes, most is read in the upper layers, where
# [CLS] reads them itself. Flow that may only end below the first layer has to reach them through
# five more layers of other tokens.

# %%
reads = np.abs(found.direct["encoder"]).sum(axis=(1, 2))
fig, ax = plt.subplots(figsize=(5, 2.2))
ax.bar(range(1, len(reads) + 1), reads / reads.sum())
ax.set(xlabel="layer", ylabel="share of |reads|", title="what the absence of tokens changes")
plt.show()

# %% [markdown]
# ## 3. The feasible flow that is nearest
#
# The positive and the negative part of a conserved tensor are not conserved each for itself.
# Maximum flow and the barrier push as much as possible through each; an entropy term with a large
# weight looks for the flow that is nearest to the capacities. `presence-flow` is all three: half
# of the paths fade tokens, half replace them, and the flow is the nearest one.

# %%
names = ("agf-barrier", "conductance-flow", "presence-flow")
answers = {name: fo.explain(model, tokenizer, text, method=name) for name in names}
for name, answer in answers.items():
    size = np.abs(answer.scores).sum()
    best = ", ".join(f"{word.word} {word.score / size:+.0%}" for word in answer.top(4))
    print(f"{name:18s} {answer.status}: {best}")
answers["presence-flow"]

# %% [markdown]
# The certificate is there as for any flow.

# %%
answers["presence-flow"].certificate

# %% [markdown]
# ## Does it help?
#
# A handful of sentences shows the direction; `paper_repro/beyond` has data sets, intervals and
# rivals.

# %%
sentences = [
    text,
    "A gripping and often funny film about people who never quite say what they mean.",
    "Two hours of noise, and not one scene in it that I would want to see again.",
    "The director has taste, but her story is dull and her jokes are as old as the hills.",
    "I came for the music and stayed for a surprisingly tender portrait of two brothers.",
    "It wants to be clever, it wants to be moving, and it ends up being neither of them.",
]
measured = fo.evaluate(
    model,
    [*names, "integrated-gradients"],
    sentences,
    metrics=["aopc", "sufficiency"],
    tokenizer=tokenizer,
    progress=False,
)
measured

# %% [markdown]
# ## Your own path
#
# `Conductance` takes any mixture of baselines, and any objective explains it.

# %%
own = fo.Explainer(
    model,
    tokenizer,
    tensor=Conductance(steps=16, baselines=("absent", "mask")),
    objective=fo.Quadratic(rho=0.1),
)
own(text)
