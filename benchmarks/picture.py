"""The README's picture: a sentence explained by the bundled model.

    python benchmarks/picture.py

Writes benchmarks/results/explanation.png: the words' shares of the flow with their error bounds,
and the flow through the six layers.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import flowopt as fo
from flowopt.viz.figures import plot_attribution, plot_flow

TEXT = "A gripping, funny film, though the ending is weak."


def main() -> None:
    """Draw and save."""
    attribution = fo.Explainer.from_pretrained(None)(TEXT)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    plot_attribution(attribution, ax=left)
    plot_flow(attribution, ax=right)
    path = Path(__file__).parent / "results" / "explanation.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    print(path)


if __name__ == "__main__":
    main()
