"""Which axioms hold for which method, and how far each is from Shapley values.

    python benchmarks/axioms.py                   # all parts: about half an hour on one free core
    python benchmarks/axioms.py --part claims     # one part; the others are kept as they were
    python benchmarks/axioms.py --quick --out /tmp/axioms

Parts: claims (the papers' claims on 1,000 random networks), axioms (all methods and axioms on 100),
sentences (distance from the Shapley values of the restricted game, on sentences read through the
bundled model), model (distance from the Shapley values of the model when tokens are removed).
Writes benchmarks/results/axioms.json and axioms.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import flowopt.axioms as ax
from flowopt import provenance
from flowopt.comparison import problem_set
from flowopt.comparison.problem_sets import SENTENCES
from flowopt.network import FlowNetwork
from flowopt.objectives import LogBarrier
from flowopt.progress import progress_bar

PARTS = ("claims", "axioms", "sentences", "model")
RESULTS = Path(__file__).parent / "results"
CLAIMS = ("efficiency", "symmetry", "nullity", "uniqueness")
METHODS: dict[str, Any] = {
    "maxflow": "maxflow",
    **{f"maxflow@{name}": f"maxflow@{name}" for name in ("dinic", "scipy", "HIGHS", "CLARABEL")},
    "barrier:gap=0.05": LogBarrier(gap=0.05),
    "barrier:mu=0.1": LogBarrier(mu=0.1),
    "barrier:mu=0.01": LogBarrier(mu=0.01),
    "barrier:mu=0.001": LogBarrier(mu=0.001),
    "barrier, absolute mu=0.01": LogBarrier(mu=0.01, relative=False),
    "quadratic": "quadratic",
    "entropy": "entropy",
    "maxminfair": "maxminfair",
    "shapley-flow": "shapley-flow",
    "rollout": "rollout",
    "per-pair": "per-pair",
}
CLAIMANTS = {
    name: method
    for name, method in METHODS.items()
    if name.startswith("maxflow") or name in ("barrier:gap=0.05", "barrier:mu=0.01")
}
DISTANT: dict[str, Any] = {
    **{
        name: method
        for name, method in METHODS.items()
        if name not in ("maxflow", "maxflow@CLARABEL")
    },
    "equal parts": lambda net: np.full(net.n_players, net.max_flow / net.n_players),
}
PRECISION = 2e-3  # standard error of Shapley values of the restricted game, relative to |f|


def axiom_table(methods: dict[str, Any], count: int, axioms: Any = None) -> dict[str, Any]:
    """A survey on random networks: the table, and its rows."""
    found = ax.survey(methods, ax.random_networks(count), axioms, shrink=False, progress=True)
    rows = json.loads(found.to_pandas().to_json(orient="records"))
    return {"networks": count, "table": found.to_markdown(), "rows": rows}


def sentence_rows(networks: list[FlowNetwork]) -> list[dict[str, Any]]:
    """Ambiguity of each sentence, and distances from the restricted game's Shapley values."""
    rows = []
    with progress_bar(len(networks), True, "sentence", "restricted game") as advance:
        for net in networks:
            open_ = ax.well_defined(net)
            found = ax.shapley_distances(net, DISTANT, precision=PRECISION)
            rows.append(
                {
                    "tokens": net.n_players,
                    "determined": int(open_.determined.sum()),
                    "excess": open_.excess,
                    "widest": float(open_.widths.max()),
                    "distances": {name: _known(vars(each)) for name, each in found.items()},
                }
            )
            advance()
    return rows


def model_rows(networks: list[FlowNetwork], samples: int) -> list[dict[str, Any]]:
    """Distances from the Shapley values of the model, by way of removing tokens."""
    from flowopt.assets import load_bundled

    model, tokenizer = load_bundled()
    rows = []
    with progress_bar(2 * len(networks), True, "game", "model's game") as advance:
        for removal in ("mask", "attention"):
            for net, text in zip(networks, SENTENCES, strict=False):
                game = ax.ModelGame.from_text(model, tokenizer, text, removal=removal)
                exact = game.n_players <= game.exact_players
                values = ax.shapley_values(game, samples=None if exact else samples)
                rows.append(
                    {
                        "removal": removal,
                        "players": game.n_players,
                        "stderr": float(values.stderr.max() / np.abs(values.values).max()),
                        **_model_distances(net, game, values),
                    }
                )
                advance()
    return rows


def _model_distances(
    net: FlowNetwork, game: ax.ModelGame, values: ax.ShapleyValues
) -> dict[str, Any]:
    """Shares of |value|, and rank correlation with the size and the signed value."""
    assert game.positions is not None
    share, size, signed = {}, {}, {}
    shapley = {"Shapley values of the restricted game": _restricted(net)}
    for name, method in {**DISTANT, **shapley}.items():
        scores = ax.as_method(method)(net).attributions[list(game.positions)]
        absolute = ax.distances(scores, np.abs(values.values))
        share[name], size[name] = absolute.share, absolute.rank
        signed[name] = ax.distances(scores, values.values).rank
    return {"share": share, "rank": _known(size), "signed rank": _known(signed)}


def _known(numbers: dict[str, float]) -> dict[str, float | None]:
    """NaN, which JSON does not know, as None."""
    return {name: None if np.isnan(each) else float(each) for name, each in numbers.items()}


def _restricted(net: FlowNetwork) -> Any:
    values = ax.shapley_values(ax.RestrictedGame(net), precision=PRECISION)
    return lambda _: values


# --- writing --------------------------------------------------------------------------------------
def markdown(results: dict[str, Any]) -> str:
    """The report of the parts that there are."""
    parts = ["# Axioms and Shapley values, by machine"]
    if "claims" in results:
        parts.append(
            f"\n## The papers' claims\n\nViolations on {results['claims']['networks']} random "
            "networks of 2 to 6 tokens and 1 to 4 layers (`flowopt.axioms.random_networks`, seed "
            "0), beyond 1e-6 of the maximum flow; in brackets the worst. Efficiency: scores sum to "
            "the method's own |f|, or to the maximum flow where it has none. Uniqueness by "
            "solvers: all backends that solve the problem, beyond their certified errors; `-`: "
            "one backend was asked for.\n"
        )
        parts.append(results["claims"]["table"])
    if "axioms" in results:
        parts.append(
            f"\n## All axioms\n\n{results['axioms']['networks']} networks. Maximality: scores sum "
            "to the maximum flow. Continuity: K, the change of scores per change of capacities "
            "(for changes of a millionth); violated above 1e4.\n"
        )
        parts.append(results["axioms"]["table"])
    if "sentences" in results:
        rows = results["sentences"]["rows"]
        parts += [_ambiguity(rows), _restricted_table(rows)]
    if "model" in results:
        parts.append(_model_table(results["model"]["rows"]))
    parts.append("\n## Measured on\n")
    parts += [f"- {name}: {part['made']}" for name, part in results.items()]
    return "\n".join(parts) + "\n"


def _ambiguity(rows: list[dict[str, Any]]) -> str:
    lines = [
        "\n## What plain maximum flow leaves open\n",
        "Sentences read through the bundled model (agf, all top nodes). Determined: tokens with "
        "the same flow in all maximum flows. Widest: the widest interval, as a part of |f|. "
        "Excess: (sum of v({j}) - v(N)) / v(N), 0 if attributions are well defined.\n",
        "| tokens | determined | widest | excess |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = (row["tokens"], row["determined"], f"{row['widest']:.1%}", f"{row['excess']:.2f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _restricted_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "\n## Distance from the Shapley values of the restricted game\n",
        "The same sentences. Share: half the sum of differences after both are divided by their "
        "sums (what part of the flow is on the wrong token); mean and worst over sentences. Rank: "
        "Spearman's correlation, mean. Shapley values of more than 16 tokens are sampled to a "
        f"standard error of {PRECISION:g} of |f|.\n",
        "| method | share | worst | rank |",
        "| --- | --- | --- | --- |",
    ]
    table = []
    for name in DISTANT:
        share = [row["distances"][name]["share"] for row in rows]
        rank = [row["distances"][name]["rank"] for row in rows]
        table.append((float(np.mean(share)), name, float(np.max(share)), _mean(rank)))
    for mean, name, worst, rank_ in sorted(table):
        lines.append(f"| {name} | {mean:.1%} | {worst:.1%} | {rank_} |")
    return "\n".join(lines)


def _model_table(rows: list[dict[str, Any]]) -> str:
    worst = max(row["stderr"] for row in rows)
    lines = [
        "\n## Distance from the Shapley values of the model\n",
        "v(S) = logit of the predicted class when only the tokens in S are kept ([CLS] and [SEP] "
        "always are); others are replaced by [MASK], or hidden from attention. Share: of the "
        "absolute values; rank: Spearman's correlation with the absolute values, signed: with the "
        f"values themselves; means over sentences. Largest standard error: {worst:.0%} of a "
        "sentence's largest value.\n",
        "| method | mask: share | rank | signed | attention: share | rank | signed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    table = []
    for name in rows[0]["share"]:
        cells: list[str] = []
        for removal in ("mask", "attention"):
            mine = [row for row in rows if row["removal"] == removal]
            cells.append(f"{np.mean([row['share'][name] for row in mine]):.1%}")
            cells += [_mean([row[kind][name] for row in mine]) for kind in ("rank", "signed rank")]
        table.append((float(cells[0].rstrip("%")), f"| {name} | {' | '.join(cells)} |"))
    return "\n".join([*lines, *(line for _, line in sorted(table))])


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.2f}" if known else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; repeatable")
    parser.add_argument("--quick", action="store_true", help="fewer networks and sentences")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    stored = arguments.out / "axioms.json"
    results = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    for part in arguments.part or PARTS:
        found = measured(part, arguments.quick)
        results[part] = found | {"made": provenance.describe(provenance.facts())}
        results = {name: results[name] for name in PARTS if name in results}
        stored.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (arguments.out / "axioms.md").write_text(markdown(results), encoding="utf-8")


def measured(part: str, quick: bool) -> dict[str, Any]:
    """One part of the results."""
    if part == "claims":
        return axiom_table(CLAIMANTS, 100 if quick else 1000, CLAIMS)
    if part == "axioms":
        return axiom_table(METHODS, 50 if quick else 100)
    problems = problem_set("sentences")[: 4 if quick else 12]
    networks = [problem.make() for problem in problems]
    if part == "sentences":
        return {"rows": sentence_rows(networks)}
    return {"rows": model_rows(networks, 40 if quick else 60)}


if __name__ == "__main__":
    main()
