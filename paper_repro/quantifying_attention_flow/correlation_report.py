"""Tables and pictures of correlations, beside the published ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowopt.assets import BUNDLED_FOLDER

METHODS = ("raw", "rollout", "flow")
# Means of Abnar & Zuidema (2020) for layers 1 to 6 of their verb-number model.
PUBLISHED: dict[tuple[str, str], tuple[float, ...]] = {
    ("blank-out", "raw"): (0.69, 0.10, -0.11, -0.09, 0.20, 0.29),
    ("blank-out", "rollout"): (0.32, 0.38, 0.51, 0.62, 0.70, 0.71),
    ("blank-out", "flow"): (0.32, 0.44, 0.70, 0.70, 0.71, 0.70),
    ("gradient", "raw"): (0.53, 0.16, -0.06, 0.00, 0.24, 0.46),
    ("gradient", "rollout"): (0.22, 0.27, 0.39, 0.47, 0.53, 0.54),
    ("gradient", "flow"): (0.22, 0.31, 0.54, 0.61, 0.60, 0.61),
}


@dataclass(frozen=True)
class Summary:
    """One correlation over many texts.

    Parameters
    ----------
    protocol, reference, method : str
    layer : int
        1 is the layer that reads the input.
    mean, std : float
        Over the texts.
    error : float
        Standard error of the mean.
    texts : int
        Texts that have this correlation.
    """

    protocol: str
    reference: str
    method: str
    layer: int
    mean: float
    std: float
    error: float
    texts: int

    @classmethod
    def of(cls, key: tuple[str, str, str, int], values: Sequence[float]) -> Summary:
        """Summarise one correlation."""
        std = float(np.std(values))
        return cls(*key, float(np.mean(values)), std, std / len(values) ** 0.5, len(values))

    def cells(self) -> tuple[Any, ...]:
        """A row for csv."""
        return tuple(round(v, 5) if isinstance(v, float) else v for v in astuple(self))


def model_revision(model: Any, folder: str | None) -> str:
    """What names the weights: the digest of their file, or the hub's commit."""
    path = (BUNDLED_FOLDER if folder is None else Path(folder)) / "model.safetensors"
    if path.is_file():
        return f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return str(getattr(model.config, "_commit_hash", None) or "unknown")


def markdown(about: Mapping[str, Any], summaries: Sequence[Summary], foot: str) -> str:
    """All tables of one part."""
    part = about["part"]
    lines = [f"# Correlation with what the model relies on: {part}", ""]
    lines += [f"- {name}: {value}" for name, value in about.items() if name != "part"]
    for protocol in dict.fromkeys(s.protocol for s in summaries):
        for reference in dict.fromkeys(s.reference for s in summaries):
            chosen = [s for s in summaries if (s.protocol, s.reference) == (protocol, reference)]
            lines += ["", f"## {reference}, {protocol}: mean ± standard deviation", ""]
            lines += _table(
                chosen, reference, published=part == "agreement" and protocol == "every position"
            )
    lines += [
        "",
        "Spearman's rank correlation over the tokens of one text. Published: Abnar & Zuidema "
        "(2020), means; their model and data are others than ours.",
        "",
        f"Seed {about['seed']}; {foot}",
    ]
    return "\n".join(lines) + "\n"


def _table(chosen: Sequence[Summary], reference: str, published: bool) -> list[str]:
    depth = max(s.layer for s in chosen)
    lines = ["| | " + " | ".join(f"layer {layer + 1}" for layer in range(depth)) + " |"]
    lines.append("|---" * (depth + 1) + "|")
    by_place = {(s.method, s.layer): s for s in chosen}
    for method in METHODS:
        found = [by_place.get((method, layer + 1)) for layer in range(depth)]
        cells = ["–" if s is None else f"{s.mean:.2f} ± {s.std:.2f}" for s in found]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
        known = PUBLISHED.get((reference, method))
        if published and known:
            lines.append(f"| {method}, published | " + " | ".join(f"{m:.2f}" for m in known) + " |")
    return lines


def picture(part: str, summaries: Sequence[Summary], path: Path) -> None:
    """Mean correlation by layer, both references side by side; published means are dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    references = ("blank-out", "gradient")
    for axes, reference in zip(figure.subplots(1, 2, sharey=True), references, strict=True):
        for colour, method in zip(("C7", "C0", "C1"), METHODS, strict=True):
            points = [s for s in summaries if s.protocol == "every position"]
            points = [s for s in points if (s.reference, s.method) == (reference, method)]
            layers, means = [s.layer for s in points], [s.mean for s in points]
            axes.plot(layers, means, colour, marker="o", label=method)
            if part == "agreement":
                known = PUBLISHED[reference, method]
                axes.plot(range(1, 7), known, colour, linestyle="--", linewidth=1)
        axes.axhline(0, color="black", linewidth=0.5)
        dashed = " (dashed: published)" if part == "agreement" else ""
        axes.set(title=reference, xlabel=f"layer{dashed}")
    figure.axes[0].set_ylabel("mean Spearman correlation")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
