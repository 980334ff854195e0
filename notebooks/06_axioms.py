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
# # The axiom laboratory
#
# Papers say that maximum flow yields Shapley values. Whether that is true depends on the game, and
# on which maximum flow. Here every such claim is a computation.
#
# ## Two tokens behind one node
#
# One unit can flow, to either token.

# %%
import matplotlib.pyplot as plt
import numpy as np

import flowopt as fo

net = fo.FlowNetwork.layered([[[1, 1], [0, 0]], [[1, 0], [0, 0]]], sources=[0])
game = fo.axioms.RestrictedGame(net)  # v(S) = maximum flow when only S may absorb
print("v({}), v({0}), v({1}), v({0, 1}):", game.all_values())
print("Shapley values:", np.asarray(fo.axioms.shapley_values(game)))
print("maximum flow by scipy:", fo.solve(net, fo.MaxFlow(), "scipy").attributions)
print("each token alone (per pair):", fo.axioms.per_pair(net))

# %% [markdown]
# `LayerGame` is the game of the papers: the flow through a set of nodes in one *fixed* flow. It is
# additive, so its Shapley value is that flow, whichever it is. That says nothing about the choice
# of the flow. `RestrictedGame` does, and scipy's maximum flow is not its Shapley value.
#
# How much is open? For every token, the least and the greatest flow over all maximum flows:

# %%
print(fo.ambiguity(net))
print(fo.axioms.well_defined(net, ("good", "film")))

# %% [markdown]
# The Shapley value of the restricted game *is* the token flow of some maximum flow, always.
# `ShapleyFlow` finds that one, and certifies that it is a maximum flow with these token flows.

# %%
maximum, shapley = fo.solve(net, fo.MaxFlow(), "scipy"), fo.solve(net, fo.ShapleyFlow())
print(shapley)
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
for ax, solution, title in zip(axes, (maximum, shapley), ("scipy", "ShapleyFlow"), strict=True):
    fo.viz.plot_flow(solution, ax=ax)
    ax.set_title(title)
figure.tight_layout()

# %% [markdown]
# ## Rollout is a maximum flow, too
#
# With row-stochastic capacities and one source, the maximum is 1, and attention rollout attains it.
# So does what any solver returns, with other token flows. `ShapleyFlow`, fair division and the
# barrier choose by a rule; plain maximum flow does not choose.

# %%
rows = np.random.default_rng(0).dirichlet(np.ones(4), (3, 4))
stochastic = fo.FlowNetwork.layered(rows, sources=[0])
print("maximum flow", round(stochastic.max_flow, 12))
for name in ("rollout", "maxflow@dinic", "maxflow@HIGHS", "maxminfair", "shapley-flow", "barrier"):
    scores = fo.axioms.as_method(name)(stochastic).attributions
    print(f"{name:14s}", scores.round(3), "sum", scores.sum().round(3))
print(fo.axioms.well_defined(stochastic))

# %% [markdown]
# ## Which axioms hold for which method?
#
# `verify` asks one method, `survey` several. A method is an objective, a name, or a function from a
# network to one number per token. Each check plants what it needs: two tokens that an automorphism
# exchanges, a token that no flow reaches. A cell says "holds", or on how many networks the axiom
# was violated and the worst violation relative to the maximum flow.

# %%
table = fo.axioms.survey(
    ["maxflow@dinic", "maxflow@HIGHS", "barrier", "barrier:mu=0.01", "shapley-flow", "per-pair"],
    networks=16,
)
table

# %% [markdown]
# Violations come with the smallest network on which they were found; it replays from its seed.
# Plain maximum flow treats two equal tokens differently:

# %%
example = table["maxflow@dinic"]["symmetry"].counterexample
print(example)
fo.viz.plot_flow(fo.solve(example.changed, fo.MaxFlow(), "dinic"))
example.replay("maxflow@dinic").violation, example.replay("shapley-flow").violation

# %% [markdown]
# A surprise: with mu relative to the largest capacity, the barrier is not monotone. A larger
# capacity raises mu, and with it the price of every other edge. The simplest case is one path of
# two edges. `gap`, which ties mu to the maximum flow, has no such effect; but it counts edges, so
# the scores jump where an edge of almost no capacity appears.

# %%
print(table["barrier:mu=0.01"]["monotonicity"].counterexample)
print()
print(table["barrier"]["continuity: new edges"].counterexample)

# %% [markdown]
# ## A real sentence
#
# The same questions for a sentence read through the bundled model.

# %%
explainer = fo.Explainer.from_pretrained(None, objective=fo.ShapleyFlow(precision=2e-3))
text = "The jokes are stale and the ending is worse."
attribution = explainer(text)
sentence = attribution.solutions[0].network
print(fo.axioms.well_defined(sentence, attribution.tokens))
attribution

# %% [markdown]
# How far is each method from the Shapley values of the restricted game, and from those of the model
# itself when tokens are replaced by [MASK]? `share` is the part of the total on the wrong tokens.

# %%
methods = ["maxflow@dinic", "barrier", "entropy", "maxminfair", "shapley-flow", "rollout"]
masked = fo.axioms.ModelGame.from_text(explainer.model, explainer.tokenizer, text)
values = fo.axioms.shapley_values(masked)
flows = fo.axioms.shapley_distances(sentence, methods)
print("method          restricted game   model")
for name in methods:
    scores = fo.axioms.as_method(name)(sentence).attributions[list(masked.positions)]
    model = fo.axioms.distances(scores, np.abs(values.values))
    print(f"{name:14s} {flows[name].share:16.1%} {model.share:7.1%}")

# %% [markdown]
# One sentence proves nothing; `benchmarks/results/axioms.md` has twelve, and 1,000 random networks.
#
# ## A method of your own
#
# In tests, `assert_holds` and the strategies of `flowopt.axioms.strategies` (for hypothesis) turn
# an axiom into one line. This method rewards tokens by the capacity into them, and loses efficiency
# at once:


# %%
def into_tokens(net):
    return net.blocks[0].capacity.sum(axis=0)


print(fo.axioms.verify(into_tokens, networks=20, axioms=["efficiency", "symmetry", "linearity"]))
