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
# # Evaluate a corpus
#
# Which method explains *this* model best? Explain every text by every method, remove tokens in the
# order of the scores, and ask the model again. `fo.evaluate` does it for a corpus, keeps every
# finished text, and says how sure the answer is.

# %%
import tempfile
from pathlib import Path

import flowopt as fo

corpus = [
    {"id": "r1", "text": "A gripping, funny film with a weak ending.", "label": "positive"},
    {"id": "r2", "text": "The plot is thin and the jokes are stale.", "label": "negative"},
    {"id": "r3", "text": "Nothing in it surprises, yet I smiled throughout.", "label": "positive"},
    {"id": "r4", "text": "It wastes a fine cast on a dull, endless script.", "label": "negative"},
    {"id": "r5", "text": "Warm, clever and beautifully acted.", "label": "positive"},
    {"id": "r6", "text": "I have rarely been so bored by so much noise.", "label": "negative"},
    {"id": "r7", "text": "Not a great film, but an honest and moving one.", "label": "positive"},
    {"id": "r8", "text": "The director mistakes gloom for depth.", "label": "negative"},
    {"id": "r9", "text": "A small story, told with care and quiet humour.", "label": "positive"},
    {"id": "r10", "text": "Even its best scenes feel borrowed and tired.", "label": "negative"},
    {"id": "r11", "text": "", "label": "positive"},
]  # fmt: skip
methods = {
    "flow on agf": "agf-barrier",
    "flow on conductance": ("conductance-flow", {"steps": 4, "baselines": "pad"}),
    "integrated gradients": ("integrated-gradients", {"steps": 16}),
    "attcat": "attcat",
}
metrics = ["aopc", "log-odds", "sufficiency", "deletion-area"]
out = Path(tempfile.mkdtemp()) / "reviews"

# %% [markdown]
# ## Half of it, then the rest
# The first call measures five texts. The second asks for all of them and computes only what is
# missing; it would do the same after a crash. One text is empty: it is recorded as a failure, and
# the others are measured.

# %%
import time

start = time.perf_counter()
fo.evaluate(None, methods, corpus[:5], metrics, out)
print(f"{time.perf_counter() - start:.1f} s for 5 texts")

start = time.perf_counter()
found = fo.evaluate(None, methods, corpus, metrics, out)
print(f"{time.perf_counter() - start:.1f} s for the others")

start = time.perf_counter()
found = fo.evaluate(None, methods, corpus, metrics, out)
print(f"{time.perf_counter() - start:.1f} s to find that nothing is missing")

# %%
print(found)

# %% [markdown]
# Starred (bold in the report) are the best method and those that cannot be told from it: with ten
# texts, that is most of them. The references compete with nobody: `random` is the floor, and
# `leave-one-out` what single removals can tell.
#
# ## Differences on the same texts
# A text that is easy for one method is easy for all, so methods are compared text by text.

# %%
for name, difference in found.compare("aopc", "integrated gradients").items():
    print(
        f"{name:20s} {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]  "
        f"p = {difference.adjusted:.3f} after Holm's correction, n = {difference.n}"
    )

# %% [markdown]
# ## Rows
# Everything is in a table: who explained what with which settings and weights, and what came out.

# %%
frame = found.to_pandas()
shown = ["id", "method", "status", "error", "target", "probability", "aopc", "forward", "seconds"]
frame[shown].tail(7)

# %%
print(frame.loc[0, "model_revision"][:16], frame.loc[0, "settings"])

# %% [markdown]
# ## Curves
# The mean probability of the explained class as the highest tokens are removed.

# %%
import matplotlib.pyplot as plt

levels, curves = found.curve("deletion")
figure, ax = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for name, curve in curves.items():
    reference = name in ("random", "leave-one-out")
    style = {"linestyle": ":", "color": "grey"} if reference else {}
    ax.plot(levels, curve, label=name, **style)
ax.set(xlabel="share of the tokens removed", ylabel="mean probability", ylim=(0, 1))
ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## A report to send
# Two files that need nothing else: markdown and a page with tables, curves, costs, failures, the
# digest of the weights, the machine, and how to make it again. The folder can be read later, by
# anyone.

# %%
page = found.report(out)
print(page.name, page.stat().st_size // 1000, "kB;", sorted(path.name for path in out.iterdir()))
again = fo.Evaluation.load(out)
again.summary()["aopc"]["flow on conductance"]

# %% [markdown]
# On the command line the same is
#
# ```bash
# flowopt evaluate reviews.jsonl --method agf-barrier --method attcat --out runs/reviews
# ```
#
# and `--workers 8` or `--workers tcp://host:8786` gives it more processes, or a Dask cluster.
