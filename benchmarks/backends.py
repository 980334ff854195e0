"""Every backend on every problem set, for three objectives: who is certified, how fast.

    python benchmarks/backends.py                       # 60 s per solve: over an hour on 2 cores
    python benchmarks/backends.py --time-limit 2        # about ten minutes

Results are kept in benchmarks/results/backends/results.jsonl as they come: an interrupted run goes
on where it stopped, and --fresh starts again. Writes benchmarks/results/backends.md and .csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import flowopt as fo
from flowopt.comparison.problem_sets import available_problem_sets
from flowopt.comparison.report import BenchmarkReport
from flowopt.comparison.report_tables import markdown

RESULTS = Path(__file__).parent / "results"
OBJECTIVES = (fo.LogBarrier(gap=0.05), fo.LogBarrier(mu=1e-3), fo.MaxFlow())


def measure(folder: Path, time_limit: float, repeats: int) -> list[BenchmarkReport]:
    """One report per problem set and objective, shortest first."""
    reports = []
    for name in reversed(available_problem_sets()):
        for objective in reversed(OBJECTIVES):
            print(f"{objective} on {name}", flush=True)
            report = fo.benchmark_solvers(
                name, objective, out=folder, time_limit=time_limit, repeats=repeats
            )
            print(report, flush=True)
            reports.append(report)
    return reports


def write(reports: list[BenchmarkReport], out: Path) -> None:
    """One markdown file and one table of all rows."""
    text = "# Backends\n\n" + "\n".join(markdown(report, level=2) for report in reports)
    text += f"\nMade by `python benchmarks/backends.py --time-limit {reports[0].time_limit:g}`."
    (out / "backends.md").write_text(text + "\n", encoding="utf-8")
    rows = []
    for report in reports:
        part = out / "backends" / "results.csv"
        report.to_csv(part)
        with part.open(newline="", encoding="utf-8") as lines:
            rows += list(csv.DictReader(lines))
    with (out / "backends.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per solve")
    parser.add_argument("--repeats", type=int, default=1, help="solves per problem and solver")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    folder = arguments.out / "backends"
    if arguments.fresh:
        (folder / "results.jsonl").unlink(missing_ok=True)
    write(measure(folder, arguments.time_limit, arguments.repeats), arguments.out)


if __name__ == "__main__":
    main()
