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
# # Explain an image
#
# In a vision transformer the players are patches. So that there is a right answer, this notebook
# trains a tiny ViT on pictures of noise with grey squares and one coloured square, whose colour is
# the class: only that square's patch can decide.

# %%
import numpy as np
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

import flowopt as fo
from flowopt.capacities import Residual, RowNormalize

SIDE, PATCH = 24, 4
COLOURS = {"red": (0.9, 0.2, 0.2), "green": (0.2, 0.8, 0.2), "blue": (0.2, 0.3, 0.9)}
rng = np.random.default_rng(0)


def picture():
    """A picture (h, w, 3) in [0, 1], the class, and the patch that shows it."""
    image = rng.uniform(0.35, 0.65, (SIDE, SIDE, 3))
    places = rng.choice((SIDE // PATCH) ** 2, 4, replace=False)
    label = rng.integers(len(COLOURS))
    for number, place in enumerate(places):
        row, column = PATCH * np.array(divmod(place, SIDE // PATCH))
        colour = list(COLOURS.values())[label] if number == 0 else rng.uniform(0.2, 0.9)
        image[row : row + PATCH, column : column + PATCH] = colour
    return image, int(label), int(places[0])


processor = ViTImageProcessorPil(
    size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.25] * 3
)
config = ViTConfig(
    image_size=SIDE,
    patch_size=PATCH,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    hidden_dropout_prob=0.0,
    id2label=dict(enumerate(COLOURS)),
    label2id={name: i for i, name in enumerate(COLOURS)},
)
_ = torch.manual_seed(0)
model = ViTForImageClassification(config)

# %% [markdown]
# ## Train it
# Some ten seconds on one core.

# %%
optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
for _step in range(300):
    batch = [picture() for _ in range(64)]
    pixels = torch.tensor(np.stack([(image - 0.5) / 0.25 for image, _, _ in batch])).float()
    labels = torch.tensor([label for _, label, _ in batch])
    loss = model(pixel_values=pixels.permute(0, 3, 1, 2), labels=labels).loss
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
_ = model.eval()
print(f"loss of the last batch: {loss.item():.4f}")

# %% [markdown]
# ## Explain a picture
# `explain_image` takes a PIL image or an array, and the image processor does the rest. The grid
# of patches is `patch_scores`; `plot` lays it over what the model saw.

# %%
explainer = fo.Explainer(model, processor, tensor="conductance")
image, label, place = picture()
attribution = explainer.explain_image(image)
attribution

# %%
axes = attribution.plot()

# %%
found = divmod(int(attribution.patch_scores.argmax()), SIDE // PATCH)
print("patch with the largest score:", found, " patch that shows the class:", divmod(place, 6))

# %% [markdown]
# ## Which tensor finds the square?
# Over thirty pictures: how often the largest score is the right patch's, and its share of all
# |scores| of patches. Attention times gradient has no residual connection, through which most of
# the signal goes; edge conductance has it in its own units, with all that layers do.

# %%
pictures = [picture() for _ in range(30)]
choices = {
    "af": {"tensor": "af"},
    "agf": {"tensor": "agf"},
    "agf + residual": {"tensor": "agf", "capacities": (RowNormalize(), Residual(0.5))},
    "conductance": {"tensor": "conductance"},
}
for name, options in choices.items():
    explainer = fo.Explainer(model, processor, **options)
    scores = [a.patch_scores.ravel() for a in explainer.explain_image([p[0] for p in pictures])]
    places = [p[2] for p in pictures]
    hits = np.mean([s.argmax() == at for s, at in zip(scores, places, strict=True)])
    wholes = [max(abs(s).sum(), 1e-12) for s in scores]  # 0 where nothing flows
    shares = np.mean([abs(s[at]) / w for s, at, w in zip(scores, places, wholes, strict=True)])
    print(f"{name:15s} right patch: {hits:4.0%}   its share of all: {shares:4.0%}")
