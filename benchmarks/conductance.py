"""Edge conductance: its time against integrated gradients, its accuracy, its faithfulness.

    python benchmarks/conductance.py            # all figures: a quarter of an hour on one core
    python benchmarks/conductance.py --quick    # few texts and steps: two minutes

Time: edge conductance and plain integrated gradients (autograd, the model's default attention)
with the same points of the path and the same number of them per pass, alternating in one process
on one thread, in processor time, which other processes disturb little; for the bundled model and
for a random one of the size of BERT-base. Accuracy: how
far the sum of conductances is from y(x) - y(x') on sentences. Faithfulness: AOPC on sentences of
SST-2 (../shared/data, if it is there), predicted class, tokens deleted in descending order of
their scores at nine levels (1/9 to 9/9 of the tokens that are not special), signed difference of
probabilities; intervals are paired bootstraps over sentences. Writes
benchmarks/results/conductance.json and conductance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification

import flowopt as fo
from flowopt import provenance
from flowopt.errors import FlowoptWarning
from flowopt.progress import progress_bar
from flowopt.tensors import AttentionPath, Conductance
from flowopt.trace import batch_of_inputs
from flowopt.trace.conductance import EdgeConductance, edge_conductance
from flowopt.trace.path import PathOptions
from flowopt.trace.walk import chunk_size

RESULTS = Path(__file__).parent / "results"
SENTENCES = Path(__file__).parents[2] / "shared" / "data" / "sst2.jsonl"
BASELINES = ("pad", "mask", "unknown")
Scores = NDArray[np.float64]


# --- time -------------------------------------------------------------------------------------
def integrated_gradients(
    model: Any, ids: torch.Tensor, baseline: int, target: int, steps: int, chunk: int
) -> Scores:
    """Plain integrated gradients (t,), special tokens at the ends fixed."""
    table = model.get_input_embeddings()
    start = torch.full_like(ids, baseline)
    start[:, [0, -1]] = ids[:, [0, -1]]
    with torch.no_grad():
        x, low = table(ids), table(start)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    alpha, weight = (
        torch.tensor(each, dtype=x.dtype)[:, None, None] for each in ((nodes + 1) / 2, weights / 2)
    )
    total = torch.zeros_like(x[0])
    for first in range(0, steps, chunk):
        part = slice(first, first + chunk)
        at = (low + alpha[part] * (x - low)).requires_grad_()
        logits = model(inputs_embeds=at).logits[:, target].sum()
        total += (weight[part] * torch.autograd.grad(logits, at)[0]).sum(0)
    return np.asarray((total * (x - low)[0]).sum(-1).double())


def base_model() -> Any:
    """A random classifier of the size of BERT-base."""
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig()).eval()


def times(model: Any, tokens: int, steps: int, repeats: int) -> dict[str, Any]:
    """Processor seconds of both, alternating."""
    ids = torch.randint(1000, 20000, (1, tokens), generator=torch.Generator().manual_seed(0))
    ids[0, 0], ids[0, -1] = 101, 102
    options = PathOptions(steps=steps, baselines=103, tolerance=None)
    batch = batch_of_inputs(model, {"input_ids": ids}, 1)
    chunk = min(chunk_size(model, batch), steps)
    plain, ours = [], []
    for _ in range(repeats + 1):
        began = time.process_time()
        integrated_gradients(model, ids, 103, 1, steps, chunk)
        middle = time.process_time()
        next(edge_conductance(model, batch, options))
        plain.append(middle - began)
        ours.append(time.process_time() - middle)
    ratios = [b / a for a, b in zip(plain[1:], ours[1:], strict=True)]
    return {
        "tokens": tokens,
        "steps": steps,
        "points_per_pass": chunk,
        "plain_seconds": min(plain[1:]),
        "conductance_seconds": min(ours[1:]),
        "ratio_of_best": min(ours[1:]) / min(plain[1:]),
        "median_ratio": statistics.median(ratios),
        "ratios": ratios,
    }


# --- faithfulness -----------------------------------------------------------------------------
def sentences(count: int) -> list[str]:
    """The first dev sentences of at least 10 words."""
    with SENTENCES.open() as lines:
        rows = [json.loads(line) for line in lines]
    texts = [row["text"] for row in rows if row["split"] == "dev"]
    return [text for text in texts if len(text.split()) >= 10][:count]


def probabilities(model: Any, rows: list[list[int]], target: int) -> Scores:
    """Probability of a class for texts of several lengths."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits.double()
    return np.asarray(logits.softmax(-1)[:, target])


def drops(model: Any, ids: list[int], scores: Scores, target: int) -> float:
    """Mean drop of the probability over nine levels of deletion, highest scores first."""
    inner = np.arange(1, len(ids) - 1)
    order = inner[np.argsort(-scores[inner], kind="stable")]
    rows = [ids]
    for level in range(1, 10):
        gone = set(order[: round(level * len(order) / 9)].tolist())
        rows.append([token for at, token in enumerate(ids) if at not in gone])
    found = probabilities(model, rows, target)
    return float((found[0] - found[1:]).mean())


def explanations(
    explainer: fo.Explainer, text: str, rng: np.random.Generator, steps: int
) -> Iterator[tuple[str, Scores]]:
    """Scores (t,) of every method compared."""
    model, tokenizer = explainer.model, explainer.tokenizer
    assert tokenizer is not None
    encoded = dict(tokenizer(text, return_tensors="pt"))
    batch = batch_of_inputs(model, encoded, None, tokenizer)
    ids = encoded["input_ids"][0].tolist()
    for name, baselines in (("three baselines", BASELINES), ("pad baseline", "pad")):
        options = PathOptions(steps=steps, baselines=baselines, tolerance=None)
        trace, found = next(edge_conductance(model, batch, options))
        rows = found.nodes["encoder"]
        tensor = Conductance(steps=steps, baselines=baselines, tolerance=None)
        attribution = fo.Explainer(model, tokenizer, tensor=tensor).explain_trace(trace)
        yield f"conductance flow, {name}", attribution.scores
        positive = attribution.solutions[0].attributions
        yield f"conductance flow, positive part, {name}", positive
        yield f"integrated gradients, {name}", rows[0]
        yield f"node conductances of layers 0-2, {name}", rows[:3].sum(axis=0)
    tensors: list[Any] = ["agf", "agf-signed", "agf-netted", "af", "af-entropy", "value-norm"]
    for each in (*tensors, AttentionPath(steps=steps, baselines="pad")):
        flow = fo.Explainer(model, tokenizer, tensor=each)
        name = each if isinstance(each, str) else "agf-path, pad baseline"
        yield f"{name}, flow", flow.explain_inputs(**encoded).scores
    with torch.no_grad():
        target = int(model(**encoded).logits.argmax())
    kept = [ids, *(ids[:at] + ids[at + 1 :] for at in range(len(ids)))]
    p = probabilities(model, kept, target)
    yield "leave one out", p[0] - p[1:]
    yield "random", rng.normal(size=len(ids))


def faithfulness(count: int, steps: int, progress: bool) -> dict[str, Any]:
    """AOPC of every method on every sentence."""
    explainer, rng = fo.Explainer.from_pretrained(None), np.random.default_rng(0)
    model, tokenizer = explainer.model, explainer.tokenizer
    found: dict[str, list[float]] = {}
    texts = sentences(count)
    with progress_bar(len(texts), progress) as advance:
        for text in texts:
            ids = tokenizer(text)["input_ids"]
            with torch.no_grad():
                target = int(model(input_ids=torch.tensor([ids])).logits.argmax())
            for name, scores in explanations(explainer, text, rng, steps):
                found.setdefault(name, []).append(drops(model, ids, scores, target))
            advance()
    return {"sentences": len(texts), "steps": steps, "aopc": found}


def interval(values: Scores, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a mean."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


# --- accuracy ---------------------------------------------------------------------------------
def accuracy(count: int) -> dict[str, Any]:
    """Error of the sum of conductances, relative to y(x) - y(x'), mean of three baselines."""
    explainer = fo.Explainer.from_pretrained(None)
    assert explainer.tokenizer is not None
    errors: dict[int, list[float]] = {16: [], 32: [], 64: []}
    leaks = []
    for text in sentences(count):
        encoded = dict(explainer.tokenizer(text, return_tensors="pt"))
        batch = batch_of_inputs(explainer.model, encoded, None, explainer.tokenizer)
        for steps, kept in errors.items():
            options = PathOptions(steps=steps, baselines=BASELINES, tolerance=None)
            _, found = next(edge_conductance(explainer.model, batch, options))
            kept.append(abs(found.total - found.change) / abs(found.change))
            leaks.append(leak(found))
    return {"errors": {str(steps): kept for steps, kept in errors.items()}, "leaks": leaks}


def leak(found: EdgeConductance) -> float:
    """Largest loss at a node, relative to the sum of |node conductances| of a layer."""
    rows, edges = found.nodes["encoder"], found.edges["encoder"]
    return float(np.abs(edges.sum(axis=2) - rows[1:]).max() / np.abs(rows).sum(axis=1).max())


# --- report -----------------------------------------------------------------------------------
def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def time_section(report: dict[str, Any]) -> str:
    rows = [
        [name, *(str(found[key]) for key in ("tokens", "steps", "points_per_pass")),
         f"{found['plain_seconds']:.2f}", f"{found['conductance_seconds']:.2f}",
         f"{found['ratio_of_best']:.2f}",
         f"{found['median_ratio']:.2f} ({min(found['ratios']):.2f} to {max(found['ratios']):.2f})"]
        for name, found in report["times"].items()
    ]  # fmt: skip
    head = ["model", "tokens", "steps", "points per pass", "integrated gradients (s)",
            "edge conductance (s)", "ratio of best", "median ratio (range)"]  # fmt: skip
    return "## Time\n\nOne baseline, one thread, float32; seconds of processor time.\n\n" + table(
        head, rows
    )


def accuracy_section(found: dict[str, Any]) -> str:
    rows = [
        [steps, *(f"{q:.1e}" for q in np.quantile(errors, (0.5, 0.9, 1.0))),
         f"{np.mean(np.array(errors) <= 1e-3):.0%}"]
        for steps, errors in found["errors"].items()
    ]  # fmt: skip
    head = ["steps", "median", "90 % of sentences", "worst", "within 1e-3"]
    return (
        "## Accuracy\n\n|sum of conductances - (y(x) - y(x'))| / |y(x) - y(x')|, bundled model, "
        f"{len(found['errors']['32'])} sentences, three baselines averaged. Largest loss at any "
        f"node, whatever the steps: {max(found['leaks']):.1e} of all that passes (float32).\n\n"
        + table(head, rows)
    )


def faithfulness_section(found: dict[str, Any]) -> str:
    aopc = {name: np.array(values) for name, values in found["aopc"].items()}
    reference = aopc["integrated gradients, three baselines"]
    rows = []
    for name, values in sorted(aopc.items(), key=lambda item: -item[1].mean()):
        low, high = interval(values)
        below, above = interval(values - reference)
        rows.append(
            [name, f"{values.mean():.3f} ({low:.3f} to {high:.3f})",
             f"{(values - reference).mean():+.3f} ({below:+.3f} to {above:+.3f})"]
        )  # fmt: skip
    head = ["method", "AOPC (95 %)", "minus integrated gradients, three baselines (95 %)"]
    return (
        f"## Faithfulness\n\n{found['sentences']} dev sentences of SST-2, bundled model, predicted "
        f"class, deletion at nine levels, {found['steps']} steps, barrier flow (gap 0.05).\n\n"
        + table(head, rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sentences", type=int, default=60, help="for faithfulness and accuracy")
    parser.add_argument("--repeats", type=int, default=5, help="of the times")
    parser.add_argument("--quick", action="store_true", help="few of everything")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args()
    count, repeats = (5, 1) if given.quick else (given.sentences, given.repeats)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FlowoptWarning)
    bundled = fo.Explainer.from_pretrained(None).model
    sizes: dict[str, Callable[[], dict[str, Any]]] = {
        "bundled, 6 layers, width 384": lambda: times(bundled, 32, 32, repeats),
        "bundled, longer text": lambda: times(bundled, 128, 32, repeats),
        "BERT-base, random": lambda: times(base_model(), 64, 2 if given.quick else 16, repeats),
    }
    report: dict[str, Any] = {"facts": provenance.facts(), "times": {}}
    sections = []
    for name, run in sizes.items():
        report["times"][name] = run()
        print(name, report["times"][name], flush=True)
    sections.append(time_section(report))
    if SENTENCES.exists():
        report["accuracy"] = accuracy(max(count // 4, 2))
        sections.append(accuracy_section(report["accuracy"]))
        print(sections[-1], flush=True)
        report["faithfulness"] = faithfulness(count, 8 if given.quick else 32, True)
        sections.append(faithfulness_section(report["faithfulness"]))
    else:
        sections.append(f"Accuracy and faithfulness: left out, {SENTENCES.name} is not there.")
    text = "\n\n".join(["# Edge conductance", *sections, provenance.describe(report["facts"])])
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "conductance.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.output / "conductance.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
