"""The range in which answers are proven: every mu and plain maximum flow, over sizes and scales.

    python benchmarks/range.py                 # the whole grid: about 15 minutes on 2 cores
    python benchmarks/range.py --quick         # up to 16 tokens, 12 layers: ten seconds

Random AGF-like capacities of t tokens and L layers, as they are and with every capacity
multiplied by 10^x, x uniform in -12..0. LogBarrier at mu = 1e-1 .. 1e-8 and MaxFlow are solved
with the backend that flowopt chooses. Seconds are those of a solve with its certificate, compiled
code being warm; memory is the peak of numpy's allocations in a second solve, beside the network
and in units of its capacities (MaxFlow's includes the network's list of edges). Writes
range.csv, with a row for every solve, and range.md, with one for every network.
"""

from __future__ import annotations

import argparse
import csv
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from speed import RESULTS, agf_like

import flowopt as fo
from flowopt import provenance
from flowopt.progress import progress_bar

MUS = tuple(10.0**-k for k in range(1, 9))
# tokens and layers; 2048 tokens in four layers are as many edges as 1200 in twelve
GRID = (
    (1, 1), (1, 12), (1, 48), (2, 1), (2, 12), (2, 48), (16, 1), (16, 12), (16, 48),
    (128, 1), (128, 12), (128, 48), (512, 1), (512, 12), (2048, 1), (2048, 4),
)  # fmt: skip
DECADES = (0, 12)
DELTA = 1e-7  # the native solver's tolerance (certificates)


def network(t: int, layers: int, decades: int, seed: int) -> fo.FlowNetwork:
    """AGF-like capacities whose scales spread over some orders of magnitude."""
    capacity = agf_like(layers, t, 12, seed)
    if decades:
        capacity *= 10 ** np.random.default_rng(seed).uniform(-decades, 0, capacity.shape)
    return fo.FlowNetwork.layered(capacity)


def peak_memory(net: fo.FlowNetwork, objective: Any) -> float:
    """Peak of a solve's own allocations, in units of the capacities."""
    fresh = fo.FlowNetwork(net.groups, net.blocks, sources=net.sources, sinks=net.sinks)
    _ = fresh.graph
    tracemalloc.start()
    fo.solve(fresh, objective, throw=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / sum(block.capacity.nbytes for block in net.blocks)


def solved(net: fo.FlowNetwork, objective: Any) -> dict[str, Any]:
    """What one solve proves, and what it costs."""
    began = time.perf_counter()
    solution = fo.solve(net, objective, throw=False)
    seconds = time.perf_counter() - began
    proof = solution.certificate
    error = proof.attribution_error
    share = None if error is None else float(error.max() / (solution.value or 1.0))
    return {
        "solver": solution.solver,
        "status": solution.status.value,
        "value": solution.value,
        "gap": proof.gap,
        "delta": proof.delta,
        "attribution_error": share,
        "conservation": proof.conservation,
        "iterations": solution.stats["iterations"],
        "seconds": seconds,
        "memory": peak_memory(net, objective),
    }


def measure(grid: tuple[tuple[int, int], ...], seed: int) -> list[dict[str, Any]]:
    """One row for every network and objective."""
    objectives = {f"mu={mu:.0e}": fo.LogBarrier(mu=mu) for mu in MUS}
    every = {"MaxFlow": fo.MaxFlow(), **objectives}
    rows = []
    for objective in (fo.MaxFlow(), fo.LogBarrier(mu=1e-8)):  # compile
        solved(network(4, 3, 0, seed), objective)
        solved(network(4, 3, 16, seed), objective)
    total = len(grid) * len(DECADES) * len(every)
    with progress_bar(total, True, "solve", "solving") as tick:
        for t, layers in grid:
            for decades in DECADES:
                net = network(t, layers, decades, seed)
                about = {"t": t, "layers": layers, "decades": decades, "edges": net.pruned.kept}
                for name, objective in every.items():
                    rows.append({**about, "objective": name, **solved(net, objective)})
                    tick()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line for every network, with the worst over mu."""
    lines = ["| t | layers | decades | edges | certified | delta at mu=1e-8 | worst delta | "
             "worst error | gap of MaxFlow | s at 1e-3 | s at 1e-8 | s MaxFlow | memory | "
             "MaxFlow's |", "|" + "---|" * 14]  # fmt: skip
    for key in dict.fromkeys((row["t"], row["layers"], row["decades"]) for row in rows):
        here = {
            row["objective"]: row
            for row in rows
            if (row["t"], row["layers"], row["decades"]) == key
        }
        plain, first = here["MaxFlow"], next(iter(here.values()))
        barriers = [row for name, row in here.items() if name != "MaxFlow"]
        proven = sum(row["status"] == "optimal" for row in here.values())
        delta = max((row["delta"] or 0.0 for row in barriers), default=0.0)
        error = max((row["attribution_error"] or 0.0 for row in barriers), default=0.0)
        last, usual = here["mu=1e-08"], here["mu=1e-03"]
        memory = "| |"  # of small networks: Python's own few kilobytes
        if key[0] >= 128:
            memory = f"{max(row['memory'] for row in barriers):.2f} | {plain['memory']:.1f} |"
        lines.append(
            f"| {key[0]} | {key[1]} | {key[2]} | {first['edges']:,} | {proven} of {len(here)} | "
            f"{last['delta'] or 0:.0e} | {delta:.0e} | {error:.0e} | {plain['gap'] or 0:.0e} | "
            f"{usual['seconds']:.3g} | {last['seconds']:.3g} | {plain['seconds']:.3g} | "
            f"{memory}"
        )
    return "\n".join(lines)


def summary(rows: list[dict[str, Any]]) -> str:
    """What holds over the whole grid, and where it does not."""
    proven = sum(row["status"] == "optimal" for row in rows)
    loose = [row for row in rows if (row["delta"] or 0.0) > DELTA]
    where = ", ".join(
        f"t = {r['t']}, L = {r['layers']}, {r['decades']} decades, {r['objective']}: "
        f"{r['delta']:.1e}"
        for r in loose
    )
    large = [row["memory"] for row in rows if row["t"] >= 128 and row["objective"] != "MaxFlow"]
    memory = (
        f" Largest memory of a barrier solve from t = 128 on: {max(large):.2f}." if large else ""
    )
    return (
        f"{proven} of {len(rows)} answers are certified; {len(rows) - len(loose)} have delta <= "
        f"{DELTA:.0e}{' (not: ' + where + ')' if loose else ''}.{memory}"
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="up to 16 tokens and 12 layers")
    parser.add_argument("--seed", type=int, default=0, help="of the capacities")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    facts = provenance.facts()
    small = [size for size in GRID if size[0] <= 16 and size[1] <= 12]
    grid = tuple(small) if arguments.quick else GRID
    rows = measure(grid, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "range.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    command = "python benchmarks/range.py" + " --quick" * arguments.quick
    text = (
        f"# Range\n\n{summary(rows)}\n\n{table(rows)}\n\nDecades: orders of magnitude by which "
        "capacities are spread. Errors are bounds on the attributions, as shares of |f|; memory "
        "is in units of the capacities' own bytes, beside the network, from t = 128 on; that of "
        f"MaxFlow includes the network's list of edges.\n\nMade by `{command}`; "
        f"seed {arguments.seed}; {provenance.describe(facts)}\n"
    )
    (arguments.out / "range.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
