"""Time of a certified barrier solve against the model's own forward and backward pass.

    python benchmarks/speed.py                 # all figures: about 10 minutes on 2 cores
    python benchmarks/speed.py --quick         # small sizes only: about a minute

For every text length t, on random AGF-like capacities (12 layers; mean over 12 heads of the
positive part of attention x gradient), it times the native solver at several mu and other
backends where they can finish, and BERT-base's forward + backward pass (random weights from its
configuration, eager attention, gradients of one logit by every layer's attention). Repetitions of
all of them alternate in one process, so that a busy machine slows all alike; medians are
reported. Writes benchmarks/results/speed.json, speed.md and speed.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import flowopt as fo
from flowopt import provenance

RESULTS = Path(__file__).parent / "results"
NATIVE = {
    "mu=1e-3": fo.LogBarrier(mu=1e-3),
    "mu=1e-5": fo.LogBarrier(mu=1e-5),
    "mu=1e-8": fo.LogBarrier(mu=1e-8),
    "gap=0.05": fo.LogBarrier(gap=0.05),
}
OTHERS = {"CLARABEL": 32, "ECOS": 16, "SCS": 16, "torch": 512}  # largest t that ends in minutes


def agf_like(layers: int, t: int, heads: int, seed: int) -> np.ndarray:
    """Capacities (layers, t, t): mean over heads of max(attention * gradient, 0)."""
    rng = np.random.default_rng(seed)
    capacity = np.zeros((layers, t, t))
    for layer in range(layers):
        for _ in range(heads):
            scores = 2 * rng.standard_normal((t, t))
            attention = np.exp(scores - scores.max(axis=1, keepdims=True))
            attention /= attention.sum(axis=1, keepdims=True)
            capacity[layer] += np.maximum(attention * rng.standard_normal((t, t)), 0) / heads
    return capacity


def bert_base():
    """BERT-base with random weights: time does not depend on their values."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(attn_implementation="eager", max_position_embeddings=2048)
    return BertForSequenceClassification(config).eval()


def forward_backward(model, t: int) -> float:
    """Seconds of one forward and backward pass with the gradients that AGF needs."""
    import torch

    ids = torch.randint(1000, 20000, (1, t), generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    output = model(input_ids=ids, output_attentions=True)
    torch.autograd.grad(output.logits[0, 0], output.attentions)
    return time.perf_counter() - began


def one_solve(capacity: np.ndarray, objective, solver: str) -> dict:
    """Time of one certified solve from the capacities, network and pruning included."""
    began = time.perf_counter()
    net = fo.FlowNetwork.layered(capacity)
    _ = net.graph
    built = time.perf_counter()
    _ = objective.resolve(net)  # the maximum flow, for gap=
    resolved = time.perf_counter()
    solution = fo.solve(net, objective, solver, throw=False)
    certified = time.perf_counter()
    bound = solution.certificate.attribution_error
    return {
        "seconds": solution.stats["build_seconds"] + solution.stats["solve_seconds"],
        "network_seconds": built - began,
        "resolve_seconds": resolved - built,
        "certify_seconds": solution.stats["certify_seconds"],
        "total_seconds": certified - began,
        "status": solution.status.value,
        "delta": solution.certificate.delta,
        "attribution_error": None if bound is None else float(bound.max() / solution.value),
        "iterations": solution.stats["iterations"],
        "cg_steps": solution.stats.get("cg_steps"),
        "value_over_maximum": solution.value / net.max_flow,
    }


def measure(sizes: list[int], repeats: int, seed: int) -> list[dict]:
    """Rows of medians, one per size and solver."""
    model = bert_base()
    rows = []
    for t in sizes:
        capacity = agf_like(12, t, 12, seed)
        jobs = {f"native {name}": (objective, "native") for name, objective in NATIVE.items()}
        jobs |= {
            f"{name} mu=1e-3": (fo.LogBarrier(mu=1e-3), name)
            for name, limit in OTHERS.items()
            if t <= limit and name in fo.solvers.available()
        }
        times: dict[str, list[dict]] = {name: [] for name in jobs}
        passes = []
        forward_backward(model, t)  # warm up
        one_solve(capacity, *jobs["native mu=1e-3"])
        for _ in range(repeats):
            passes.append(forward_backward(model, t))
            for name, job in jobs.items():
                slow = times[name] and times[name][0]["seconds"] > 30
                if not slow:
                    times[name].append(one_solve(capacity, *job))
        base = statistics.median(passes)
        rows.append({"t": t, "solver": "BERT-base forward + backward", "seconds": base})
        for name, found in times.items():
            row = dict(found[-1], t=t, solver=name, edges=int(capacity.size))
            for key in ("seconds", "network_seconds", "resolve_seconds", "certify_seconds",
                        "total_seconds"):  # fmt: skip
                row[key] = statistics.median(one[key] for one in found)
            row["of_pass"] = row["seconds"] / base
            row["total_of_pass"] = row["total_seconds"] / base
            rows.append(row)
            print(f"t={t:5d} {name:22s} {row['seconds'] * 1e3:10.1f} ms  {row['of_pass']:.3f} of a "
                  f"pass  {row['status']}", flush=True)  # fmt: skip
        print(f"t={t:5d} {'BERT-base pass':22s} {base * 1e3:10.1f} ms", flush=True)
    return rows


def memory(t: int, seed: int) -> dict:
    """Peak memory of a solve, relative to the capacities, from the allocations of numpy.

    Large mu needs conjugate gradients only, small mu the factors of the Laplacian too.
    """
    import tracemalloc

    capacity = agf_like(12, t, 12, seed)
    net = fo.FlowNetwork.layered(capacity)
    _ = net.graph
    own = capacity.nbytes
    del capacity
    peaks = {}
    for name in ("mu=1e-3", "mu=1e-8"):
        fo.solve(fo.FlowNetwork.layered(np.ones((3, 4, 4))), NATIVE[name], "native")  # compile
        tracemalloc.start()
        solution = fo.solve(net, NATIVE[name], "native", throw=False)
        peaks[name] = tracemalloc.get_traced_memory()[1] / own
        tracemalloc.stop()
        peaks[f"factorisations at {name}"] = solution.stats["factorisations"]
        del solution
    return {"t": t, "capacities_mb": own / 1e6, "peak_beside_them": peaks}


def growth(rows: list[dict], solver: str, low: int, high: int) -> float | None:
    """Exponent p of time ~ t^p between two sizes."""
    found = {row["t"]: row["seconds"] for row in rows if row["solver"] == solver}
    if low not in found or high not in found:
        return None
    return float(np.log(found[high] / found[low]) / np.log(high / low))


def table(rows: list[dict]) -> str:
    """Markdown table, one line per size and solver."""
    lines = ["| t | solver | solve ms | of a pass | all ms | of a pass | status | delta | error |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        if "status" not in row:
            lines.append(
                f"| {row['t']} | {row['solver']} | {row['seconds'] * 1e3:.1f} | 1 | | | | | |"
            )
            continue
        number = {
            k: "" if row[k] is None else f"{row[k]:.0e}" for k in ("delta", "attribution_error")
        }
        lines.append(
            f"| {row['t']} | {row['solver']} | {row['seconds'] * 1e3:.1f} | {row['of_pass']:.3f} | "
            f"{row['total_seconds'] * 1e3:.1f} | {row['total_of_pass']:.3f} | {row['status']} | "
            f"{number['delta']} | {number['attribution_error']} |"
        )
    return "\n".join(lines)


def ratios(rows: list[dict]) -> str:
    """Markdown table of small mu against mu = 1e-3, and of gap = 0.05 with F* apart."""
    lines = ["| t | mu=1e-5 / mu=1e-3 | mu=1e-8 / mu=1e-3 | gap=0.05 solve ms | F* ms | "
             "F* / solve | both of a pass |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for t in dict.fromkeys(row["t"] for row in rows):
        here = {row["solver"]: row for row in rows if row["t"] == t}
        usual = here["native mu=1e-3"]["seconds"]
        gap = here["native gap=0.05"]
        solve, maximum = gap["seconds"], gap["resolve_seconds"]
        both = (solve + maximum) / here["BERT-base forward + backward"]["seconds"]
        lines.append(
            f"| {t} | {here['native mu=1e-5']['seconds'] / usual:.1f} | "
            f"{here['native mu=1e-8']['seconds'] / usual:.1f} | {solve * 1e3:.1f} | "
            f"{maximum * 1e3:.1f} | {maximum / solve:.2f} | {both:.3f} |"
        )
    return "\n".join(lines)


def plot(rows: list[dict], path: Path) -> None:
    """Time against t, log-log."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(8.5, 4.5), layout="constrained")
    for name in dict.fromkeys(row["solver"] for row in rows):
        points = [(row["t"], row["seconds"]) for row in rows if row["solver"] == name]
        passes = name.startswith("BERT")
        style = {"color": "black", "linestyle": "--", "linewidth": 2} if passes else {}
        ax.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name, **style)
    ax.set(xscale="log", yscale="log", xlabel="tokens t", ylabel="seconds",
           title="Certified barrier solve, 12 layers, 2 cores")  # fmt: skip
    ax.grid(alpha=0.3, which="both")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few repetitions")
    parser.add_argument("--seed", type=int, default=0, help="of the capacities")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    sizes = [16, 32, 64, 128] if arguments.quick else [16, 32, 64, 128, 256, 512, 1024]
    began = provenance.facts()
    rows = measure(sizes, 3 if arguments.quick else 5, arguments.seed)
    used = memory(128 if arguments.quick else 512, arguments.seed)
    exponents = {name: growth(rows, f"native {name}", sizes[-4], sizes[-1]) for name in NATIVE}
    arguments.out.mkdir(parents=True, exist_ok=True)
    result = {"facts": began, "seed": arguments.seed, "memory": used, "rows": rows,
              f"growth_{sizes[-4]}_{sizes[-1]}": exponents}  # fmt: skip
    (arguments.out / "speed.json").write_text(json.dumps(result, indent=1))
    peaks = used["peak_beside_them"]
    text = f"# Speed\n\n{table(rows)}\n\n{ratios(rows)}\n\nMemory at t = {used['t']}: peak beside "
    text += f"the network {peaks['mu=1e-3']:.2f} times the capacities' own bytes at mu = 1e-3 "
    text += f"({peaks['factorisations at mu=1e-3']} factorisations), {peaks['mu=1e-8']:.2f} at "
    text += f"mu = 1e-8 ({peaks['factorisations at mu=1e-8']}). Growth from t = {sizes[-4]} to "
    text += f"{sizes[-1]}: "
    text += ", ".join(f"t^{p:.2f} at {name}" for name, p in exponents.items() if p) + ".\n\n"
    text += "'solve' is the solver alone; 'all' adds network, pruning, maximum flow and "
    text += "certificate. F* is the maximum flow that gap= needs first.\n\n"
    text += f"Made by `python benchmarks/speed.py{' --quick' * arguments.quick}`; seed "
    text += f"{arguments.seed}; {provenance.describe(began)}\n"
    (arguments.out / "speed.md").write_text(text)
    plot(rows, arguments.out / "speed.png")
    print(text)


if __name__ == "__main__":
    main()
