"""Tables of a run: every mean with its interval, and how each method differs from another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from settings import METRICS, PROTOCOLS

from flowopt import provenance
from flowopt.evaluation.statistics import compare_to, mean_interval

REFERENCE = "agf-barrier"
NUMBERS = ["mean", "low", "high", "p_value", "p_holm", "texts"]
SAID = {
    "default": "predicted class, tokens deleted, 10 % to 50 %, signed difference",
    "attcat": "labelled class, tokens deleted, nine levels 1/9 to 9/9, size of the difference",
    "attcat-pad": "labelled class, tokens replaced by [PAD], nine levels, size of the difference",
}
BETTER = {"aopc": "higher is better", "log-odds": "lower is better"}


def write_tables(rows: pd.DataFrame, facts: dict[str, Any], out: Path) -> None:
    """Write means.csv, differences.csv, cost.csv, run.json and gaf.md to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    averages, gaps, costs = means(rows), differences(rows), cost(rows)
    averages.to_csv(out / "means.csv", index=False, float_format="%.4f")
    gaps.to_csv(out / "differences.csv", index=False, float_format="%.4f")
    costs.to_csv(out / "cost.csv", index=False, float_format="%.4f")
    by_set = {name: _facts(part) for name, part in rows.groupby("set", sort=False)}
    facts = {**facts, "sets": by_set}
    (out / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (out / "gaf.md").write_text(page(averages, gaps, costs, facts), encoding="utf-8")


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and bootstrap interval of every set, protocol, method and metric."""
    found = []
    for (name, protocol, method), part in rows.groupby(["set", "protocol", "method"], sort=False):
        for metric in METRICS:
            interval = mean_interval(part[metric])
            found.append(
                {
                    "set": name,
                    "protocol": protocol,
                    "method": method,
                    "metric": metric,
                    "mean": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "texts": interval.n,
                    "failed": int((part.status == "failed").sum()),
                }
            )
    return pd.DataFrame(found)


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method minus `REFERENCE` on the same texts of all sets together."""
    found = []
    for protocol in rows.protocol.unique():
        part = rows[rows.protocol == protocol]
        for metric in METRICS:
            wide = part.pivot_table(
                index=["set", "id"], columns="method", values=metric, dropna=False, sort=False
            )
            values = {method: wide[method].to_numpy() for method in part.method.unique()}
            if REFERENCE not in values:
                continue
            for method, gap in compare_to(REFERENCE, values).items():
                found.append(
                    {
                        "protocol": protocol,
                        "metric": metric,
                        "method": method,
                        "minus": REFERENCE,
                        "mean": gap.mean,
                        "low": gap.low,
                        "high": gap.high,
                        "p_value": gap.p_value,
                        "p_holm": gap.adjusted,
                        "texts": gap.n,
                    }
                )
    columns = ["protocol", "metric", "method", "minus", *NUMBERS]
    return pd.DataFrame(found, columns=columns)


def cost(rows: pd.DataFrame) -> pd.DataFrame:
    """Median seconds and passes of one explanation, where nothing had been remembered."""
    first = rows[rows.protocol == PROTOCOLS[0]]
    grouped = first.groupby(["set", "method"], sort=False)
    return grouped[["tokens", "seconds", "forward", "backward"]].median().reset_index()


def page(
    averages: pd.DataFrame, gaps: pd.DataFrame, costs: pd.DataFrame, facts: dict[str, Any]
) -> str:
    """All tables in Markdown."""
    parts = ["# Faithfulness of flow on attention tensors, and of other methods\n", _setting(facts)]
    for protocol in averages.protocol.unique():
        parts.append(f"\n## Protocol `{protocol}`: {SAID.get(protocol, '')}\n")
        for metric in METRICS:
            parts.append(f"\n### {metric} ({BETTER[metric]})\n\n")
            parts.append(_table(averages, gaps, protocol, metric))
    parts.append("\n## Median seconds of one explanation\n\n")
    seconds = costs.pivot_table(index="method", columns="set", values="seconds", sort=False)
    parts.append(_markdown(seconds.map("{:.3f}".format).reset_index()))
    parts.append(f"\n{provenance.describe(facts)}\n")
    return "".join(parts)


def _setting(facts: dict[str, Any]) -> str:
    lines = [
        f"\nSize `{facts['size']}`, seed {facts['seed']}; texts of the test splits, cut to "
        f"{facts['longest_text']} tokens. LIME, KernelSHAP and SLALOM fit their surrogates to "
        f"{facts['texts_per_surrogate']} texts each (SLALOM asks about half as many again, at "
        f"least 52, to check itself). Integrated gradients and conductance-flow: "
        f"{facts['path_steps']} points from [PAD]; presence-flow (paper_repro/beyond): as many on "
        "each of four paths. Brackets: 95 % bootstrap intervals over texts. "
        f"The last column compares with `{REFERENCE}` on the same texts of all sets together "
        "(sets with more texts weigh more); * is a Holm-corrected p below .05.\n",
        "\n| set | texts | median tokens | prediction right | weights |",
        "|---|---|---|---|---|",
    ]
    for name, part in facts["sets"].items():
        lines.append(
            f"| {name} | {part['texts']} | {part['median_tokens']:.0f} | {part['right']:.0%} | "
            f"{part['model_revision'][:12]} |"
        )
    return "\n".join(lines) + "\n"


def _table(averages: pd.DataFrame, gaps: pd.DataFrame, protocol: str, metric: str) -> str:
    """Methods by sets, the best mean over sets first."""
    part = averages[(averages.protocol == protocol) & (averages.metric == metric)]
    wide = part.pivot_table(index="method", columns="set", values="mean", sort=False)
    order = wide.mean(axis=1).sort_values(ascending=metric != "aopc").index
    cells = {(row.method, row.set): row for row in part.itertuples()}
    against = gaps[(gaps.protocol == protocol) & (gaps.metric == metric)].set_index("method")
    lines = []
    for method in order:
        line = {"method": f"**{method}**" if method == REFERENCE else method}
        line |= {name: _cell(cells.get((method, name))) for name in wide.columns}
        line[f"minus {REFERENCE}"] = _gap(against.loc[method]) if method in against.index else "–"
        lines.append(line)
    return _markdown(pd.DataFrame(lines))


def _cell(row: Any) -> str:
    if row is None or np.isnan(row.mean):
        return "–"
    return f"{row.mean:.3f} [{row.low:.2f}, {row.high:.2f}]"


def _gap(row: Any) -> str:
    star = " *" if row["p_holm"] < 0.05 else ""
    return f"{row['mean']:+.3f} [{row['low']:+.2f}, {row['high']:+.2f}]{star}"


def _facts(part: pd.DataFrame) -> dict[str, Any]:
    """What stands behind the rows of one set."""
    texts = part.drop_duplicates("id")
    return {
        "texts": len(texts),
        "ids": texts["id"].tolist(),
        "median_tokens": float(texts.tokens.median()),
        "right": _right(part),
        "model": Path(str(texts.model.iloc[0])).name,
        "model_revision": str(texts.model_revision.iloc[0]),
        "dataset": str(texts.dataset.iloc[0]),
        "failed_rows": int((part.status == "failed").sum()),
        "flowopt": str(texts.flowopt.iloc[0]),
    }


def _right(part: pd.DataFrame) -> float:
    """Share of texts whose predicted class is their label: there both protocols explain one."""
    named = part[part.protocol == "attcat"].drop_duplicates("id")
    return float((named.prediction == named.target).mean()) if len(named) else float("nan")


def _markdown(table: pd.DataFrame) -> str:
    """A table without the package tabulate."""
    head = "| " + " | ".join(map(str, table.columns)) + " |\n"
    rule = "|---" * len(table.columns) + "|\n"
    body = ("| " + " | ".join(map(str, row)) + " |\n" for row in table.itertuples(index=False))
    return head + rule + "".join(body)
