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
# # Is an explanation faithful?
#
# A heat map that looks right proves nothing: the model may have looked elsewhere. An explanation
# is *faithful* if the model itself agrees, and the model can be asked: remove the words that are
# said to matter, and see whether the prediction goes. This notebook measures a few methods on a few
# sentences, says how sure the comparison is, and ends with two tests that unmask methods which
# measure well for the wrong reason.

# %%
import matplotlib.pyplot as plt
import numpy as np

from flowopt.assets import load_bundled
from flowopt.evaluation import (
    Protocol,
    compare_to,
    mean_interval,
    measure,
    metrics,
    protocol_named,
    rivals,
)
from flowopt.evaluation.sanity import sanity_check
from flowopt.evaluation.truth import recovery
from flowopt.methods import explain_subject, subject_of
from flowopt.trace import encode_texts

model, tokenizer = load_bundled()
texts = [
    "A gripping, funny film, though the ending is weak.",
    "The plot is a mess, and even the good actors look bored.",
    "Warm and clever, it never takes its characters for fools.",
    "Two hours of noise without a single honest moment.",
    "I went in expecting little and came out delighted.",
    "It wants to be a thriller, but it is only slow.",
    "Beautifully shot, sharply written, and over far too soon.",
    "Not even the dog seems to believe what is going on.",
    "A lazy sequel that repeats every mistake of the first one.",
]

# %% [markdown]
# ## One sentence
# Everything starts from a `Subject`: a tokenized text, its model and the class explained. Methods
# give a score for every token; `measure` removes tokens in the order of the scores and asks the
# model again. All methods are measured in one call, so that sets of tokens that several of them
# ask for are read once, and sets of one length go through the model together.

# %%
names = [
    "agf-barrier",
    "raw-attention",
    "attcat",
    "integrated-gradients",
    "leave-one-out",
    "random",
]
chosen = ["aopc", "log-odds", "comprehensiveness", "sufficiency", "tau-loo"]
subjects = [
    subject_of(model, tokenizer, each, None) for each in encode_texts(model, tokenizer, texts)
]
found = [{name: explain_subject(each, name).scores for name in names} for each in subjects]

first = measure(subjects[0], found[0], chosen)
for name, measured in first.items():
    print(f"{name:22s}", {key: round(value, 2) for key, value in measured.values.items()})

# %% [markdown]
# What the numbers are, which way is better, and between which bounds they lie:

# %%
for each in metrics("faithfulness"):
    better = "higher" if each.higher_is_better else "lower"
    print(f"{each.name:18s} {better:6s} is better, in {each.range}: {each.summary}")

# %% [markdown]
# ## The protocol is part of the number
# Which class, how many tokens, and what "removed" means are choices, and they change the result.
# The default explains the predicted class, deletes 10 % to 50 % of the tokens (rounded up), and
# keeps the sign of the change. AttCAT's paper explains the label, removes up to *all* tokens,
# leaves out texts of fewer than 10, and takes absolute values; ERASER's levels go from 1 % to 50 %.

# %%
for name in ("default", "attcat", "eraser"):
    print(protocol_named(name))

# %%
masked = Protocol("masked", removal="mask")  # the mask token stands in the place of what is removed
for protocol in ("default", masked):
    values = measure(subjects[0], found[0], ["aopc"], protocol=protocol)
    print({name: round(each.values["aopc"], 2) for name, each in values.items()})

# %% [markdown]
# ## Curves
# The probability of the class while the highest tokens are removed, mean of the sentences. The
# lower the curve and the sooner it falls, the better the order. `random` is the floor.
# `leave-one-out`, which asks the model about every single token, is no ceiling: it does not see
# words that say the same thing twice.

# %%
all_metrics = [*chosen, "deletion-area", "insertion-area"]
results = [measure(each, scores, all_metrics) for each, scores in zip(subjects, found, strict=True)]
shares = protocol_named("default").fractions
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for ax, curve in zip(axes, ("deletion", "insertion"), strict=True):
    for name in names:
        mean = np.mean([each[name].curves[curve] for each in results], axis=0)
        style = {"color": "grey", "linestyle": "--"} if name == "random" else {}
        ax.plot(shares, mean, label=name, **style)
    ax.set_xlabel(f"share of the tokens: {curve}")
axes[0].set_ylabel("probability of the class")
axes[1].legend(fontsize="small")
plt.show()

# %% [markdown]
# ## How sure is the ranking?
# A mean over a few sentences has a wide interval. Methods are compared on the *same* sentences,
# difference by difference, since some sentences are easy to break for every method: overlapping
# intervals of the means do not show that two methods cannot be told apart.

# %%
aopc = {name: [each[name].values["aopc"] for each in results] for name in names}
for name, values in sorted(aopc.items(), key=lambda pair: -np.mean(pair[1])):
    print(f"{name:22s} {mean_interval(values)}")

# %%
for name, each in compare_to("random", aopc).items():
    print(
        f"{name:22s} {each.mean:+.2f} [{each.low:+.2f}, {each.high:+.2f}] over random, "
        f"p = {each.p_value:.4f}, corrected for {len(aopc) - 1} comparisons {each.adjusted:.4f}"
    )
print("cannot be told from the best:", rivals(aopc))

# %% [markdown]
# Look at the last line: after the correction not even `random` can be told from the best, though
# its mean is far below. Nine sentences are too few, and the test says so; a table of means alone
# would not. "Cannot be told from the best" is a statement about the data, not about the methods.
# For tables worth quoting use `fo.evaluate` on a data set, with a split that nothing was tuned on.
#
# ## Plausible is something else
# People can mark the words that *they* would point to. Agreement with them is worth knowing, but it
# says nothing about the model, so the two kinds of metrics are never in one table. Sub-words
# are summed to words first.

# %%
words = texts[0].split(" ")
marks = [word in ("gripping,", "funny", "weak.") for word in words]
print([word for word, marked in zip(words, marks, strict=True) if marked])
agreement = measure(subjects[0], found[0], ["auprc", "auroc", "token-f1"], marks=marks)
for name, each in agreement.items():
    print(f"{name:22s}", {key: round(value, 2) for key, value in each.values.items()})

# %% [markdown]
# Raw attention agrees perfectly with these marks, and yet removing what it points to moved the
# probability by .05 (first table): plausible, not faithful. One reason is the word "weak", which
# speaks *against* the prediction. People mark it all the same; a signed method puts it last, as it
# should for this class, and plausibility punishes it for that.
#
# ## Does the method look at the model at all?
# Shuffle the model's weights and explain again. A method whose ranking stays has not explained what
# the model learnt. A method that scores long words highest is flagged, and so is a random one,
# whose scores depend on the seed and the text only.


# %%
def length(subject):
    """Long words matter."""
    return [len(token) for token in subject.info.tokens]


sanity_check(
    model, tokenizer, texts[:3], ["agf-barrier", "attcat", "integrated-gradients", length, "random"]
)

# %% [markdown]
# ## Where the truth is known
# In a small transformer built by hand, the logit grows with the number of certain planted words and
# depends on nothing else. So the k highest words of a sound method are the k planted ones.
# Attention alone cannot know: here it is uniform, or it prefers words that do not count.

# %%
candidates = ["agf-barrier", "attcat", "leave-one-out", "rollout", "saliency", "random"]
recovery(candidates, texts=8)

# %%
recovery(candidates, texts=8, attends="decoys")

# %% [markdown]
# A gradient's size (saliency) finds nothing here: the slope is the same for every word, only the
# words' own values differ. This test is necessary, not sufficient: a method that passes it on a
# model of two layers can still fail on a real one, which is what the curves above are for.
