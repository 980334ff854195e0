"""Where flow ends and where it is held up: special tokens, the minimum cut, layers read.

    python why.py                 # 20 development sentences of SST-2, the bundled classifier
    python why.py --texts 3 --out O

For a tensor and a choice of sources: the share of all flow (sizes, where signed) that ends in
[CLS] and [SEP]; by layer the capacity of a minimum cut; and, where tokens fade, from which layers
flow goes straight to the tokens. Writes why.csv and why.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "gaf"))

import numpy as np
import pandas as pd
from contenders import STEPS
from corpus import corpus
from verdict import markdown

import flowopt as fo
from flowopt import provenance
from flowopt.errors import FlowoptWarning
from flowopt.tensors import Conductance

HERE = Path(__file__).resolve().parent
DEFAULT_DATA = HERE.parents[1].parent / "shared" / "data"
INPUT = "layer0"
TENSORS: dict[str, dict[str, Any]] = {
    "agf, all tops (GAF)": {"tensor": "agf"},
    "agf, from [CLS]": {"tensor": "agf", "sources": "cls"},
    "agf signed, from [CLS]": {"tensor": "agf-signed", "sources": "cls"},
    "conductances of replacing": {"tensor": Conductance(steps=STEPS)},
    "conductances of fading": {"tensor": Conductance(steps=STEPS, baselines="absent")},
    "half of each (presence)": {"tensor": Conductance(steps=STEPS, baselines="mixed")},
}


def cut_by_layer(solution: fo.FlowSolution) -> dict[int, float]:
    """Capacity of a minimum cut, by the layer its edges come down from (1 next to the input)."""
    found: dict[int, float] = {}
    potential = {group: y > 0.5 for group, y in solution.potentials.items()}
    for block in solution.network.blocks:
        crossed = potential[block.tail][:, None] & ~potential[block.head][None, :]
        layer = int(block.tail.removeprefix("layer"))
        found[layer] = found.get(layer, 0.0) + float(block.capacity[crossed].sum())
    return found


def ends_by_layer(solution: fo.FlowSolution) -> dict[int, float]:
    """Flow that goes from each layer to the input."""
    pairs = zip(solution.network.blocks, solution.flows, strict=True)
    return {
        int(block.tail.removeprefix("layer")): float(flow.sum())
        for block, flow in pairs
        if block.head == INPUT
    }


def look(explainer: fo.Explainer, text: str) -> dict[str, Any]:
    """What one text shows under one tensor."""
    found = explainer(text)
    sizes = np.abs(found.scores)
    cut: dict[int, float] = {}
    ends: dict[int, float] = {}
    for solution in found.solutions:
        for total, part in ((cut, cut_by_layer(solution)), (ends, ends_by_layer(solution))):
            for layer, amount in part.items():
                total[layer] = total.get(layer, 0.0) + amount
    return {
        "special": float(sizes[found.special].sum() / sizes.sum()),
        **{f"cut {layer}": amount / sum(cut.values()) for layer, amount in cut.items()},
        **{f"ends {layer}": amount / sum(ends.values()) for layer, amount in ends.items()},
    }


def main() -> None:
    """Look at all tensors, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    warnings.simplefilter("ignore", FlowoptWarning)
    bundled = fo.Explainer.from_pretrained(None)
    texts = [e.text for e in corpus("sst2", given.data, bundled.tokenizer, given.texts, "dev")]
    rows = []
    for name, options in TENSORS.items():
        explainer = fo.Explainer(
            bundled.model, bundled.tokenizer, objective=fo.MaxFlow(), **options
        )
        rows += [{"network": name, **look(explainer, text)} for text in texts]
    means = pd.DataFrame(rows).fillna(0.0).groupby("network", sort=False).mean()
    given.out.mkdir(parents=True, exist_ok=True)
    means.to_csv(given.out / "why.csv", float_format="%.4f")
    shown = means.map("{:.0%}".format).reset_index()
    page = (
        f"# Where flow ends, and where it is held up\n\n`python paper_repro/beyond/why.py`: "
        f"{len(texts)} development sentences of SST-2, the bundled classifier, maximum flow. "
        "special: share of the flow that ends in [CLS] and [SEP]; cut 1 (next to the input) to "
        "6: capacity of a minimum cut by layer; ends: layers from which flow goes to the "
        f"tokens.\n\n{markdown(shown)}\n{provenance.describe(provenance.facts())}\n"
    )
    (given.out / "why.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
