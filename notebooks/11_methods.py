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
# # Every method behind one call
#
# A comparison needs many methods on the same model and text. `fo.explain` takes a method by name
# and gives an `Attribution`, whatever the method is: flow, attention, gradients, perturbations or
# a fitted surrogate.

# %%
import numpy as np
from scipy.stats import spearmanr

import flowopt as fo
from flowopt.assets import load_bundled

model, tokenizer = load_bundled()  # or a model of your own
text = "A gripping, funny film, though the ending is weak."
fo.explain(model, tokenizer, text, method="integrated-gradients")

# %% [markdown]
# Only flows have a certificate. Other methods say what they promise: integrated gradients should
# sum to the change of the logit from a baseline to the text, and the last line but one shows both
# numbers.
#
# ## What there is
# Each method states what it costs, whether its scores have signs, and what they sum to.

# %%
fo.methods.describe(["agf-barrier", "conductance-flow", "rollout", "attcat", "kernel-shap"])

# %%
print(*fo.methods.available())

# %% [markdown]
# ## Side by side
# One row per method, one column per word. Scores are divided by the largest of each row, so that
# units do not matter.

# %%
names = [
    "agf-barrier",
    "conductance-flow",
    "rollout",
    "chefer",
    "attcat",
    "integrated-gradients",
    "leave-one-out",
    "kernel-shap",
    "random",
]
found = {name: fo.explain(model, tokenizer, text, method=name) for name in names}
words = [word.word for word in found["rollout"].words()]
scores = np.array([[word.score for word in att.words()] for att in found.values()])
scores /= np.abs(scores).max(axis=1, keepdims=True)

# %%
import matplotlib.pyplot as plt

figure, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
image = ax.imshow(scores, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
ax.set_xticks(range(len(words)), words, rotation=40, ha="right")
ax.set_yticks(range(len(names)), names)
figure.colorbar(image, label="score / largest")
plt.show()

# %% [markdown]
# Which methods agree on the order of the words? Agreement is not correctness: for that, remove
# words and ask the model again.

# %%
agreement = spearmanr(scores, axis=1).statistic
whole = names.index("leave-one-out")
for name, value in sorted(zip(names, agreement[whole], strict=True), key=lambda pair: -pair[1]):
    passes = found[name].settings["passes"]
    print(
        f"{name:22s} {value:6.2f} with leave-one-out; {passes['forward']:4d} forward, "
        f"{passes['backward']:3d} backward passes"
    )

# %% [markdown]
# ## Options
# Options are the method's own. A misspelt one is refused with those that exist.

# %%
more = fo.explain(
    model, tokenizer, text, method="integrated-gradients",
    steps=64, baselines=["pad", "mask", "unknown"],
)  # fmt: skip
print(more.settings["options"], more.settings["baseline"])

try:
    fo.explain(model, tokenizer, text, method="integrated-gradients", n_steps=64)
except fo.InputError as error:
    print(error)

# %% [markdown]
# ## A method of your own
# It is a function of a `Subject`: the tokenized text with its model, its embeddings, baselines and
# the explained logit of variations. It returns a score for every token.


# %%
@fo.methods.register("pairs", signed=True)
def pairs(subject):
    """Change of the logit when a token and the next one are deleted."""
    everything = range(len(subject))
    last = subject.players[-1]  # what follows the text's last token is special, and stays
    kept = [
        [i for i in everything if i != j and (i != j + 1 or j == last)] for j in subject.players
    ]
    scores = np.zeros(len(subject))
    scores[list(subject.players)] = subject.target.logit - subject.shortened_logits(kept)
    return scores


fo.explain(model, tokenizer, text, method="pairs")
