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
# # SLALOM: two scores for every token
#
# An additive explanation says how much each token adds. Attention cannot add: repeat a word ten
# times, and an attention layer's average stays where it was. SLALOM (Leemann et al., 2025) keeps
# to what attention does. Every token has a *value*, the log odds it has alone, and an
# *importance*, its weight in the average. Both are fitted to the model's answers to many
# variations of the text.

# %%
import numpy as np

import flowopt as fo
from flowopt.assets import load_bundled

model, tokenizer = load_bundled()  # or a classifier of your own
text = "A gripping, funny film, though the ending is weak."
found = fo.slalom.explain(model, tokenizer, text, samples=1500)
found

# %% [markdown]
# The picture of SLALOM: up is what a token says of the class, to the right is how much it
# outweighs others. Words in the upper right and lower right corners decide.

# %%
axes = found.plot()

# %% [markdown]
# ## Is the surrogate any good?
# Never read scores without their fit. Held-out queries, none of them among the samples, compare
# SLALOM with a linear surrogate of the same samples and with a constant.

# %%
quality = found.quality
print(f"SLALOM explains {quality.explained:.1%} of the variance of {quality.queries} queries,")
print(f"a linear surrogate {quality.explained_linear:.1%}")

# %% [markdown]
# Short random sequences are cheap and well conditioned, but far from the text. The plan
# `"deletion"` stays close to it: the text without up to five tokens. On a deep model neither
# surrogate is always the better one there, so measure. `removal_error` deletes several tokens at
# once, and compares the predicted with the true change of the log odds.

# %%
near = fo.slalom.explain(model, tokenizer, text, plan="deletion", samples=1500)
print(fo.slalom.removal_error(near, model, removed=range(1, 6)))

# %% [markdown]
# ## Scores
# For comparisons with other methods there are one-number summaries, for every position of the
# text: `linearised` is value times exp(importance), `removal` is the surrogate's exact
# leave-one-out value.

# %%
for token, linearised, removal in zip(
    found.tokens, found.scores("linearised"), found.scores("removal"), strict=True
):
    print(f"{token:10s} {linearised:+9.3f} {removal:+8.3f}")

# %% [markdown]
# ## The fit alone
# Any function of token counts can be fitted. Here the truth is known, and found to the last digits;
# with noise, a small ridge keeps nearly collinear samples in check.

# %%
rng = np.random.default_rng(0)
values, importances = rng.normal(size=6), rng.normal(size=6)
counts = rng.multinomial(4, np.full(6, 1 / 6), size=500)
log_odds = fo.slalom.predict(counts, values, importances)
fit = fo.slalom.fit_counts(counts, log_odds, ridge=0)
print("largest error of a value:", np.abs(fit.values - values).max())
print(
    "largest error of an importance:",
    np.abs(fit.importances - (importances - importances.mean())).max(),
)
assert np.allclose(fit.values, values)

# %% [markdown]
# ## Other models and plans
# Decoder classifiers, heads with one logit or many, and plain functions of token ids work alike;
# `plan` may be a function as well. With `"exact"`, two queries a token suffice for a model that is
# a SLALOM model.


# %%
def classifier(ids, mask):
    """Log odds of a function that has no tokenizer: one logit."""
    weights = np.exp(0.3 * ids.numpy() % 2)
    return (weights * np.sin(ids.numpy())).sum(axis=1) / weights.sum(axis=1)


exact = fo.slalom.explain_ids(classifier, [3, 1, 4, 1, 5], plan="exact", ridge=0)
print(exact)
