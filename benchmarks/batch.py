"""Throughput of `solve_batch` against a loop over `solve`, on networks of mixed sizes.

    python benchmarks/batch.py                 # all figures: about 4 minutes on 2 cores
    python benchmarks/batch.py --quick         # few small networks: about 20 seconds

Random AGF-like capacities (mean over 3 heads of the positive part of attention x gradient), 6 to
12 layers, 16 to 160 tokens. Loop, threads, PyTorch on the processor and, where there is one, on a
GPU alternate in one process, so that a busy machine slows all alike; medians are reported. Beside
them stands what the machine itself gave at that moment: how much faster plain arithmetic ran on
two threads than on one ("ceiling"; 2 on two free cores). Writes benchmarks/results/batch.json
and batch.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

import flowopt as fo
from flowopt import provenance

RESULTS = Path(__file__).parent / "results"
OBJECTIVES = {
    "mu=1e-3": fo.LogBarrier(mu=1e-3),
    "mu=1e-5": fo.LogBarrier(mu=1e-5),
    "gap=0.05": fo.LogBarrier(gap=0.05),
}
QUIET = 1.7  # least ceiling, before and after, of a repetition on a machine that was free


def capacities(
    count: int, layers: tuple[int, int], tokens: tuple[int, int], seed: int
) -> list[Any]:
    """AGF-like capacities (L, t, t) of mixed sizes; limits included."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        n, t = (int(rng.integers(low, high + 1)) for low, high in (layers, tokens))
        attention = np.exp(2 * rng.normal(size=(n, 3, t, t)))
        attention /= attention.sum(-1, keepdims=True)
        gradient = rng.normal(size=(n, 3, t, t)) / 10
        found.append(np.maximum(attention * gradient, 0).mean(axis=1))
    return found


def ways(with_torch: bool) -> dict[str, Callable[[list[Any], Any], list[Any]]]:
    """What is compared: each takes networks and an objective."""
    found: dict[str, Callable[[list[Any], Any], list[Any]]] = {
        "loop": lambda nets, objective: [fo.solve(net, objective) for net in nets],
        "threads": lambda nets, objective: fo.solve_batch(nets, objective),
    }
    if with_torch:
        import torch

        found["torch, processor"] = lambda nets, objective: fo.solve_batch(
            nets, objective, device="cpu:torch"
        )
        if torch.cuda.is_available():
            found["torch, GPU"] = lambda nets, objective: fo.solve_batch(
                nets, objective, device="cuda"
            )
    return found


@numba.njit(nogil=True)
def _arithmetic(n: int) -> float:
    total = 0.0
    for i in range(n):
        total += np.sqrt(i + total * 1e-9)
    return total


def ceiling(n: int = 10**7) -> float:
    """Speed of two threads of plain arithmetic relative to one."""
    began = time.perf_counter()
    _arithmetic(n)
    _arithmetic(n)
    alone = time.perf_counter() - began
    threads = [threading.Thread(target=_arithmetic, args=(n,)) for _ in range(2)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return alone / (time.perf_counter() - began)


def measure(arrays: list[Any], objective: Any, repeats: int, with_torch: bool) -> dict[str, Any]:
    """Seconds of every way and repetition, ceilings, and the largest difference of attributions."""
    compared = ways(with_torch)
    seconds: dict[str, list[float]] = {name: [] for name in compared}
    ceilings, loads, worst = [], [], dict.fromkeys(compared, 0.0)
    for repeat in range(repeats + 1):  # the first warms up: compiling, threads, the GPU
        before = ceiling()
        reference: list[Any] = []
        for name, run in compared.items():
            nets = [fo.FlowNetwork.layered(array) for array in arrays]
            began = time.perf_counter()
            solutions = run(nets, objective)
            taken = time.perf_counter() - began
            assert all(s.status == "optimal" for s in solutions)
            reference = reference or solutions
            for solution, one in zip(solutions, reference, strict=True):
                error = float(np.abs(solution.attributions - one.attributions).max() / one.value)
                worst[name] = max(worst[name], error)
            if repeat:
                seconds[name].append(taken)
            if repeat and name == "threads":
                ceilings.append(min(before, ceiling()))
        if repeat:
            loads.append(os.getloadavg()[0])
    return {"seconds": seconds, "ceiling": ceilings, "load": loads, "difference": worst}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Medians, and the gain of threads over the loop; `quiet` on repetitions on a free machine."""
    seconds = found["seconds"]
    gains = [a / b for a, b in zip(seconds["loop"], seconds["threads"], strict=True)]
    quiet = [g for g, c in zip(gains, found["ceiling"], strict=True) if c >= QUIET]
    return {
        "median_seconds": {name: statistics.median(taken) for name, taken in seconds.items()},
        "gain": statistics.median(gains),
        "ceiling": statistics.median(found["ceiling"]),
        "load": statistics.median(found["load"]),
        "quiet_repetitions": len(quiet),
        "quiet_gain": statistics.median(quiet) if quiet else None,
    }


def table(report: dict[str, Any]) -> str:
    """The report as markdown."""
    names = list(next(iter(report["objectives"].values()))["seconds"])
    head = ["objective", *(f"{name} (s)" for name in names), "threads / loop", "ceiling",
            f"gain where ceiling >= {QUIET}", "load"]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    for name, found in report["objectives"].items():
        s = found["summary"]
        gain = "none" if s["quiet_gain"] is None else f"{s['quiet_gain']:.2f}x"
        rows.append(
            [
                name,
                *(f"{s['median_seconds'][way]:.3f}" for way in names),
                f"{s['gain']:.2f}x",
                f"{s['ceiling']:.2f}",
                f"{gain} ({s['quiet_repetitions']} of {len(found['ceiling'])})",
                f"{s['load']:.1f}",
            ]
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    gpu = "" if "torch, GPU" in names else " No GPU was visible: the GPU is unmeasured."
    about = (
        f"{report['networks']} networks, {report['edges']:,} edges, seed {report['seed']}; medians "
        f"of {report['repeats']} alternating repetitions, in seconds for all networks.{gpu}"
    )
    return "\n".join(
        ["# Many networks at once", "", about, "", *lines, "", provenance.describe(report["facts"])]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=24, help="how many networks")
    parser.add_argument("--repeats", type=int, default=9, help="repetitions of every way")
    parser.add_argument("--seed", type=int, default=0, help="of the capacities")
    parser.add_argument("--quick", action="store_true", help="few small networks, 3 repetitions")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args()
    tokens = (16, 48) if given.quick else (16, 160)
    count, repeats = (8, 3) if given.quick else (given.networks, given.repeats)
    arrays = capacities(count, (6, 12), tokens, given.seed)
    report: dict[str, Any] = {
        "networks": count,
        "edges": int(sum(array.size for array in arrays)),
        "seed": given.seed,
        "repeats": repeats,
        "facts": provenance.facts(),
        "objectives": {},
    }
    for name, objective in OBJECTIVES.items():
        found = measure(arrays, objective, repeats, not given.no_torch)
        report["objectives"][name] = {**found, "summary": summary(found)}
        print(name, json.dumps(report["objectives"][name]["summary"]), flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "batch.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.output / "batch.md").write_text(table(report) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
