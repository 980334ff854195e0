"""Every method of explanation on three models: time, passes, what its scores sum to.

    python benchmarks/methods.py              # all methods, 20 sentences: half an hour on 2 cores
    python benchmarks/methods.py --sentences 3
    python benchmarks/methods.py --all        # tensors beside the papers' as well
    python benchmarks/methods.py --methods agf-barrier,attcat

Models: the bundled sentiment classifier (a 6-layer BERT); a decoder classifier (GPT-2 of the same
size) and a three-class BERT, both with random weights, on a quarter of the sentences. Right before
each method the model's own forward and backward pass over the same sentence is timed, so that a
busy machine slows both alike; ratios are medians over sentences. Writes
benchmarks/results/methods.json and methods.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

import flowopt as fo
from flowopt import methods, provenance
from flowopt.errors import FlowoptError
from flowopt.progress import progress_bar

RESULTS = Path(__file__).parent / "results"
PAPERS = ("af", "gf", "agf", "agf-path", "conductance")
OTHER_TENSORS = {f"{name}-barrier" for name in fo.tensors.available_tensors() if name not in PAPERS}
SENTENCES = [
    "A gripping, funny film.",
    "The plot is thin and the jokes fall flat.",
    "An honest, quietly moving portrait of two sisters.",
    "Too long by half, and never half as clever as it believes.",
    "I left the cinema smiling, which is more than I expected.",
    "Nothing here that you have not seen done better elsewhere.",
    "The performances are superb even where the script is not.",
    "A dull, lifeless remake without a single fresh idea.",
    "Warm, strange and beautifully photographed.",
    "It wants to be a thriller but manages only to be loud.",
    "Rarely has such a simple story been told with so much care.",
    "The director mistakes gloom for depth and length for meaning.",
    "Sharp dialogue and a wicked sense of humour carry the day.",
    "A mess, though at times an entertaining one.",
    "The ending does not work, yet I would gladly watch it again.",
    "Clumsy, sentimental and entirely predictable.",
    "One of the most inventive comedies of the year.",
    "Not bad, not good, just there.",
    "The cast deserves better than this tired material.",
    "A small miracle of a film: tender, wise and never sweet.",
]


def models(sentences: list[str]) -> dict[str, tuple]:
    """Name -> model, tokenizer and sentences."""
    import torch
    from transformers import (
        BertForSequenceClassification,
        GPT2Config,
        GPT2ForSequenceClassification,
    )

    from flowopt.assets import load_bundled

    own, tokenizer = load_bundled()
    torch.manual_seed(0)
    shape = own.config
    decoder = GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=shape.vocab_size,
            n_embd=shape.hidden_size,
            n_layer=shape.num_hidden_layers,
            n_head=shape.num_attention_heads,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            num_labels=2,
        )
    ).eval()
    three = type(shape).from_dict({**shape.to_dict(), "id2label": {0: "bad", 1: "fair", 2: "good"}})
    fewer = sentences[: max(2, len(sentences) // 4)]
    return {
        "bundled": (own, tokenizer, sentences),
        "decoder": (decoder, tokenizer, fewer),
        "three classes": (BertForSequenceClassification(three).eval(), tokenizer, fewer),
    }


def one_pass(model, tokenizer, text: str) -> float:
    """Seconds of a forward and a backward pass."""
    inputs = tokenizer(text, return_tensors="pt")
    start = time.perf_counter()
    model(**inputs).logits.max().backward()
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds


def measure(names: list[str], sentences: list[str]) -> list[dict]:
    """One row per model and method."""
    chosen = models(sentences)
    rows = []
    with progress_bar(len(names) * len(chosen), True, "method", "measuring") as advance:
        for kind, (model, tokenizer, texts) in chosen.items():
            for name in names:
                facts = row(model, tokenizer, texts, name, warm=kind == "bundled")
                rows.append({"model": kind, "method": name, **facts})
                advance()
    return rows


def row(model, tokenizer, texts: list[str], name: str, warm: bool) -> dict:
    """Medians over the texts, or why the method refuses the model."""
    spec = methods.method_spec(name)
    found, seconds, ratios = [], [], []
    try:
        if warm:
            fo.explain(model, tokenizer, texts[0], method=name)  # imports and compiled code
        for text in texts:
            base = one_pass(model, tokenizer, text)
            start = time.perf_counter()
            found.append(fo.explain(model, tokenizer, text, method=name))
            seconds.append(time.perf_counter() - start)
            ratios.append(seconds[-1] / base)
    except FlowoptError as error:
        return {"refused": str(error)}
    passes = [each.settings["passes"] for each in found]
    promised = [each.settings.get("expected_sum") for each in found]
    errors = [
        abs(each.scores.sum() - total) / max(abs(total), 1e-9)
        for each, total in zip(found, promised, strict=True)
        if total is not None
    ]
    return {
        "seconds": statistics.median(seconds),
        "of_a_pass": statistics.median(ratios),
        "forward": float(np.mean([each["forward"] for each in passes])),
        "backward": float(np.mean([each["backward"] for each in passes])),
        "sum": statistics.median(float(each.scores.sum()) for each in found),
        "least_share": min(float(each.scores.min() / np.abs(each.scores).max()) for each in found),
        "sum_error": statistics.median(errors) if errors else None,
        "signed": spec.signed,
        "sums_to": spec.sums_to,
        "texts": len(texts),
    }


def table(rows: list[dict], kind: str) -> str:
    """Markdown table of one model."""
    head = "| method | s/text | of a pass | forward | backward | signed | sum | should be | error |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for one in (each for each in rows if each["model"] == kind):
        if "refused" in one:
            lines.append(f"| {one['method']} | | | | | | | | {one['refused']} |")
            continue
        error = "" if one["sum_error"] is None else f"{one['sum_error']:.0e}"
        lines.append(
            f"| {one['method']} | {one['seconds']:.3f} | {one['of_a_pass']:.1f} | "
            f"{one['forward']:.0f} | {one['backward']:.0f} | {'yes' if one['signed'] else 'no'} | "
            f"{one['sum']:.3g} | {one['sums_to'] or ''} | {error} |".replace("|f|", "\\|f\\|")
        )
    return "\n".join(lines)


def report(rows: list[dict], facts: dict, sentences: int) -> str:
    """The whole page."""
    parts = ["# Methods\n"]
    titles = {
        "bundled": f"Bundled 6-layer BERT, {sentences} sentences",
        "decoder": "Decoder classifier: GPT-2 of the same size, random weights",
        "three classes": "Three classes: the same BERT, random weights",
    }
    for kind, title in titles.items():
        parts.append(f"## {title}\n\n{table(rows, kind)}\n")
    parts.append(
        "'of a pass' divides by the model's own forward and backward pass over the same sentence, "
        "timed right before; 'forward' and 'backward' count texts the model read; 'error' is "
        "|sum of scores - what it should be| relative to the latter, where the method names a "
        "number; all are medians over sentences (passes: means). Defaults everywhere.\n\n"
        f"Made by `python benchmarks/methods.py --sentences {sentences}`; "
        f"{provenance.describe(facts)}\n"
    )
    return "\n".join(parts)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sentences", type=int, default=len(SENTENCES), help="how many")
    parser.add_argument("--all", action="store_true", help="with all tensors")
    parser.add_argument("--methods", help="names, separated by commas; default: all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    names = [name for name in methods.available() if arguments.all or name not in OTHER_TENSORS]
    if arguments.methods:
        names = [methods.method_spec(name).name for name in arguments.methods.split(",")]
    sentences = SENTENCES[: max(2, arguments.sentences)]
    facts = provenance.facts()
    facts["versions"]["captum"] = version("captum")
    rows = measure(names, sentences)
    text = report(rows, facts, len(sentences))
    arguments.out.mkdir(parents=True, exist_ok=True)
    result = {"facts": facts, "sentences": sentences, "rows": rows}
    (arguments.out / "methods.json").write_text(json.dumps(result, indent=1))
    (arguments.out / "methods.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
