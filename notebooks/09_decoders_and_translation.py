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
# # Generated text, token by token
#
# `explain_generation` explains every token that a language model emits, each after the tokens
# before it: a matrix with a row for each generated token and a column for each token of the
# source or the prompt.
#
# The model here is a tiny encoder-decoder that has been trained to reverse strings, so there is a
# right answer: letter k of the output comes from letter n - 1 - k of the source. The matrix must
# be anti-diagonal.

# %%
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

import flowopt as fo
from flowopt.capacities import Residual

transformers.utils.logging.disable_progress_bar()
root = next(p for p in [Path.cwd(), *Path.cwd().parents] if (p / "paper_repro").is_dir())
sys.path.insert(0, str(root / "paper_repro" / "real_models"))

from reversal import held_out_strings, load_reversal

model, tokenizer = load_reversal()
explainer = fo.Explainer(model, tokenizer, tensor="conductance", unroll=False)
matrix = explainer.explain_generation("network")
matrix

# %%
axes = matrix.plot(include_special=False)

# %% [markdown]
# A row is an ordinary attribution, with its certificate and its network. With `unroll=False` the
# tokens generated before have scores of their own; with `unroll=True`, the default, their flow
# goes on to the positions that emitted them, until all of it ends in the source.

# %%
row = matrix[2]
print(row)

# %% [markdown]
# ## Which tensor recovers it?
# Over ten strings that the model has not been trained on: how many output letters have their
# largest score at the right source letter, and how much of a row's scores is there. Attention
# times gradient does not see the residual connection, through which most of the signal goes:
# without it the answer is no better than chance.

# %%
strings = held_out_strings(10)
choices = {
    "agf": {"tensor": "agf"},
    "agf-abs + residual": {"tensor": "agf-abs", "capacities": Residual(0.5)},
    "af + residual": {"tensor": "af", "capacities": Residual(0.5)},
    "conductance": {"tensor": "conductance"},
}
for name, options in choices.items():
    chosen = fo.Explainer(model, tokenizer, unroll=False, **options)
    right, share = [], []
    for string in strings:
        found = chosen.explain_generation(string)
        n = len(string)
        assert found.output == string[::-1]
        letters = found.scores[:n, :n]
        right += list(letters.argmax(axis=1) == np.arange(n)[::-1])
        share += list(found.normalised()[np.arange(n), np.arange(n)[::-1]])
    print(f"{name:20s} right letter: {np.mean(right):4.0%}   its share: {np.mean(share):4.0%}")

# %% [markdown]
# ## Decoders
# A decoder explains the token that comes next, or a continuation. This one has random weights:
# what it says means nothing, but the networks are those of any Llama. `normalise` divides out the
# advantage that early tokens have in a causal model; the raw scores are kept.

# %%
_ = torch.manual_seed(0)
config = transformers.LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    initializer_range=0.3,
)
decoder = transformers.LlamaForCausalLM(config).eval()
explainer = fo.Explainer(decoder, tokenizer, tensor="af", normalise="uniform_reference")
attribution = explainer("network", target="f")
print(attribution)

# %%
matrix = explainer.explain_generation("network", continuation="flow")
print(matrix)
again = fo.attribution.AttributionMatrix.from_json(matrix.to_json())
assert np.array_equal(again.scores, matrix.scores)
