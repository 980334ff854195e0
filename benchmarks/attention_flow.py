"""Attention flow per pair: against networkx as the authors call it, and at larger sizes.

    python benchmarks/attention_flow.py            # all sizes: a few minutes
    python benchmarks/attention_flow.py --quick    # without the largest

The authors build one graph of all (L + 1) t nodes from an adjacency matrix and call
``networkx.maximum_flow_value(graph, node, token, flow_func=edmonds_karp)`` for every pair. Here
that is timed on a random sample of pairs (drawn per layer, so that every layer counts) and scaled
to all of them; the sampled values are compared with ours. Inputs: softmax attention of random
scores, and the attention of the bundled 6-layer classifier on film reviews ("twice": its six
layers one on top of the other, for the cost of twelve). Seconds are processor seconds of one
thread, which a busy machine leaves nearly alone; medians of several runs up to 64 tokens. Writes
benchmarks/results/attention_flow.md and .json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from flowopt import provenance
from flowopt.methods import PairFlows, pair_flows, residual_attention

RESULTS = Path(__file__).parent / "results"
TEXT = (
    "A gripping, funny film, though the ending is weak. The first hour is a pleasure: two clerks "
    "in a small harbour town find a chest of letters, and each letter sends them on a journey "
    "that neither of them wanted. The actors are splendid, above all the old captain, who never "
    "raises his voice and is still the most frightening man on the screen. Then the plot forgets "
    "what it was about, the music grows loud, and a chase through the fog goes on for twenty "
    "minutes without a single surprise. Still, I left the cinema smiling, and I would see it "
    "again for the letters alone, which are read by candlelight and sound like real people."
)


def softmax_attention(layers: int, heads: int, t: int, scale: float, seed: int) -> np.ndarray:
    """Attention (L, H, t, t) of normally distributed scores."""
    scores = scale * np.random.default_rng(seed).standard_normal((layers, heads, t, t))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def model_attention(t: int, times: int = 1) -> np.ndarray:
    """Attention (6 * times, H, t, t) of the bundled classifier on the first t tokens of a text."""
    import torch

    from flowopt.assets import load_bundled

    model, tokenizer = load_bundled()
    model.set_attn_implementation("eager")
    inputs = tokenizer(TEXT, truncation=True, max_length=t, return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs, output_attentions=True).attentions
    attention = np.concatenate([layer.double().numpy() for layer in found] * times)
    if attention.shape[-1] != t:
        raise ValueError(f"the text has only {attention.shape[-1]} tokens, not {t}")
    return attention


def authors_way(attention: np.ndarray, sample: int, seed: int) -> tuple[float, list[tuple]]:
    """Seconds that networkx needs for all pairs, from a sample; pairs and their values."""
    import networkx

    residual = residual_attention(attention)
    layers, t, _ = residual.shape
    adjacency = np.zeros(((layers + 1) * t,) * 2)
    for layer in range(layers):
        adjacency[(layer + 1) * t : (layer + 2) * t, layer * t : (layer + 1) * t] = residual[layer]
    began = time.process_time()
    graph = networkx.from_numpy_array(adjacency, create_using=networkx.DiGraph)
    networkx.set_edge_attributes(
        graph, {(u, v): adjacency[u, v] for u, v in graph.edges}, "capacity"
    )
    seconds = time.process_time() - began
    find = networkx.algorithms.flow.edmonds_karp
    rng, found = np.random.default_rng(seed), []
    for layer in range(layers):
        began = time.process_time()
        for i, j in rng.integers(t, size=(sample, 2)):
            node = (layer + 1) * t + int(i)
            value = networkx.maximum_flow_value(graph, node, int(j), flow_func=find)
            found.append((layer, int(i), int(j), value))
        seconds += (time.process_time() - began) / sample * t * t
    return seconds, found


def timed(attention: np.ndarray, repeats: int) -> tuple[float, PairFlows]:
    """Median processor seconds of several runs, and the flows."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        flows = pair_flows(attention, workers=1)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds), flows


def against_networkx(name: str, attention: np.ndarray, sample: int, seed: int) -> dict:
    """One row: both times, their ratio, the largest difference of a sampled value."""
    before, flows = timed(attention, 5)
    theirs, found = authors_way(attention, sample, seed)
    ours = statistics.median([before, timed(attention, 5)[0]])  # on a machine as busy as for them
    difference = max(abs(flows.values[layer, i, j] - value) for layer, i, j, value in found)
    row = {"input": name, "networkx_seconds": theirs, "seconds": ours, "ratio": theirs / ours,
           "sample": len(found), "difference": difference, "gap": flows.worst_gap}  # fmt: skip
    print(f"{name:28s} networkx {theirs:8.1f} s, ours {ours:.3f} s: {theirs / ours:.0f} times")
    return row


def alone(name: str, attention: np.ndarray) -> dict:
    """One row: seconds for all nodes of all layers, and for one node of the last."""
    layers, _, t, _ = attention.shape
    seconds, flows = timed(attention, 3 if t <= 64 else 1)
    began = time.process_time()
    pair_flows(attention, layers=[-1], positions=[0], workers=1)
    one_node = time.process_time() - began
    row = {"input": name, "layers": layers, "t": t, "seconds": seconds, "one_node": one_node,
           "pairs": flows.values.size, "solved": flows.solved, "gap": flows.worst_gap}  # fmt: skip
    print(f"{name:28s} {layers:2d} x {t:3d}: {seconds:8.3f} s, "
          f"{flows.solved / flows.values.size:.0%} sent, gap {flows.worst_gap:.0e}")  # fmt: skip
    return row


def tables(result: dict) -> str:
    """The results as Markdown."""
    text = "# Attention flow per pair\n\n## Against networkx (6 layers, 24 tokens, 3,456 pairs)\n\n"
    text += "| attention | networkx s (scaled) | flowopt s | times | largest difference | gap |\n"
    text += "|---|---|---|---|---|---|\n"
    for row in result["networkx"]:
        text += (
            f"| {row['input']} | {row['networkx_seconds']:.1f} | {row['seconds']:.3f} | "
            f"{row['ratio']:.0f} | {row['difference']:.0e} | {row['gap']:.0e} |\n"
        )
    sample = result["networkx"][0]["sample"]
    text += f"\nnetworkx timed on {sample} pairs, edmonds_karp, whole graph as in the authors' "
    text += "code. 'gap': largest relative distance between a flow and the cut that proves it.\n\n"
    text += "## All pairs at larger sizes\n\n| attention | layers | tokens | pairs | needed a flow "
    text += "| seconds | last layer, one node ms | gap |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for row in result["sizes"]:
        text += (
            f"| {row['input']} | {row['layers']} | {row['t']} | {row['pairs']} | "
            f"{row['solved'] / row['pairs']:.0%} | {row['seconds']:.2f} | "
            f"{row['one_node'] * 1e3:.0f} | {row['gap']:.0e} |\n"
        )
    text += "\nPairs that need no flow are those whose bounds, from the flows of the layer below "
    text += "and from trivial cuts, meet. Seconds are those of the processor, on one thread; "
    text += (
        "threads share the tokens (`workers=`).\n\nMade by `python benchmarks/attention_flow.py`; "
    )
    return text + f"seed {result['seed']}; {provenance.describe(result['facts'])}\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="at most 64 tokens, small samples")
    parser.add_argument("--seed", type=int, default=0, help="of attention and samples")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    facts, seed = provenance.facts(), arguments.seed
    pair_flows(softmax_attention(4, 1, 8, 4.0, seed), workers=1)  # compiles where needed
    sample = 2 if arguments.quick else 15
    small = {
        "random, 12 heads": softmax_attention(6, 12, 24, 2.0, seed),
        "random, 1 sharp head": softmax_attention(6, 1, 24, 4.0, seed),
        "bundled model": model_attention(24),
    }
    versus = [against_networkx(name, array, sample, seed) for name, array in small.items()]
    sizes = []
    for t in (64,) if arguments.quick else (64, 128):
        sizes.append(alone("random, 12 heads", softmax_attention(12, 12, t, 2.0, seed)))
        sizes.append(alone("random, 1 sharp head", softmax_attention(12, 1, t, 4.0, seed)))
        sizes.append(alone("bundled model", model_attention(t)))
        sizes.append(alone("bundled model, twice", model_attention(t, times=2)))
    result = {"facts": facts, "seed": seed, "networkx": versus, "sizes": sizes}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "attention_flow.json").write_text(json.dumps(result, indent=1))
    (arguments.out / "attention_flow.md").write_text(tables(result))
    print(tables(result))


if __name__ == "__main__":
    main()
