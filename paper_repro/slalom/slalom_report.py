"""Tables of the three SLALOM experiments, and means with bootstrap intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowopt.assets import BUNDLED_FOLDER

PUBLISHED_AUROC = (
    "Published (Leemann et al. 2025), value / importance / linearised: BERT .786 / .807 / .801, "
    "DistilBERT .688 / .681 / .686, GPT-2 .674 / .685 / .683."
)
DRAWS = 2000


def model_revision(model: Any, folder: str | None) -> str:
    """What names the weights: the digest of their file, or the hub's commit."""
    path = (BUNDLED_FOLDER if folder is None else Path(folder)) / "model.safetensors"
    if path.is_file():
        return f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return str(getattr(model.config, "_commit_hash", None) or "unknown")


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % bootstrap interval (percentiles, over texts)."""
    array = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(array), size=(DRAWS, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), (2.5, 97.5))
    return float(array.mean()), float(low), float(high)


def cell(values: Sequence[float]) -> str:
    """A mean with its interval."""
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def about_lines(title: str, about: Mapping[str, Any]) -> list[str]:
    """Heading and facts."""
    return [f"# {title}", "", *(f"- {name}: {value}" for name, value in about.items()), ""]


def recovery_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Recovery of known scores."""
    lines = [
        "| source | plan | corr. v | corr. s | RMSE v | RMSE s | error of the source (MSE) | "
        "SLALOM's MSE | linear MSE |",
        "|---" * 9 + "|",
    ]
    for r in rows:
        numbers = (r["value_rmse"], r["importance_rmse"], r["model_mse"], r["slalom_mse"],
                   r["linear_mse"])  # fmt: skip
        lines.append(
            f"| {r['source']} | {r['plan']} | {r['value_correlation']:.4f} | "
            f"{r['importance_correlation']:.4f} | " + " | ".join(f"{x:.3g}" for x in numbers) + " |"
        )
    return lines


def stored_line(row: Mapping[str, Any]) -> str:
    """Fits of the same stored samples."""
    return (
        f"On {row['queries']} samples that the authors' code drew from a one-layer BERT (MSE): "
        f"our fit {row['slalom_mse']:.4f}, theirs {row['authors_mse']:.4f}, best found "
        f"{row['best_mse']:.4f}, linear {row['linear_mse']:.4f}, constant "
        f"{row['constant_mse']:.4f}."
    )


def fidelity_table(texts: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Removal errors relative to the change itself, and AOPC, over texts."""
    lines = [
        "| surrogate | removal error / change, 1-3 removed | 4-6 | 7-10 | median over texts, all "
        "| AOPC |",
        "|---" * 6 + "|",
    ]
    for name in dict.fromkeys(name for text in texts for name in text):
        cells = []
        for numbers in ((1, 2, 3), (4, 5, 6), (7, 8, 9, 10)):
            error = [_over(text, name, numbers) for text in texts]
            change = [_over(text, "no change", numbers) for text in texts]
            both = [(e, c) for e, c in zip(error, change, strict=True) if e is not None and c]
            ratio = sum(e for e, _ in both) / sum(c for _, c in both) if both else None
            cells.append("–" if ratio is None else f"{ratio:.3f}")
        shares = [relative_error(text, name) for text in texts]
        known = [share for share in shares if share is not None]
        cells.append(f"{np.median(known):.3f}" if known else "–")
        aopc = [text[name]["aopc"] for text in texts if "aopc" in text.get(name, {})]
        cells.append(cell(aopc) if aopc else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def relative_error(text: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    """Error of a surrogate on one text over the mean squared change; None without numbers."""
    error, change = (_over(text, which, range(1, 11)) for which in (name, "no change"))
    return None if error is None or not change else error / change


def _over(text: Mapping[str, Mapping[str, Any]], name: str, numbers: Sequence[int]) -> float | None:
    found = text.get(name, {}).get("removal", {})
    values = [found[m] for m in numbers if m in found]
    return float(np.mean(values)) if values else None


def human_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Mean AUROC of every score."""
    lines = ["| score | mean AUROC [95 % interval] |", "|---|---|"]
    lines += [f"| {name} | {cell([row[name] for row in rows])} |" for name in names]
    fits = ", ".join(
        f"{label} {np.mean([row[key] for row in rows]):.3f}"
        for key, label in (("fit", "SLALOM"), ("linear fit", "linear"))
    )
    return [*lines, "", f"Variance of held-out queries explained, mean: {fits}.", PUBLISHED_AUROC]
