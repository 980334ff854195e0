"""Tables of the comparison: means, paired differences from presence flow, and who wins where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from contenders import OURS

from flowopt import provenance
from flowopt.evaluation.statistics import compare_to, mean_interval

METRICS = ("aopc", "log-odds", "comprehensiveness", "sufficiency")
Tables = dict[str, pd.DataFrame]
SAID = {
    "default": "predicted class, tokens deleted, 10 % to 50 %, signed difference",
    "attcat": "labelled class, tokens deleted, nine levels 1/9 to 9/9, size of the difference",
}


def ours_in(rows: pd.DataFrame) -> str:
    """The label of presence flow."""
    return next(label for label in rows.method.unique() if OURS in label)


def tables(rows: pd.DataFrame) -> Tables:
    """Means, and presence flow minus every other method on the same texts, by set and protocol."""
    metrics = [
        name for name in ("aopc", "log-odds", "comprehensiveness", "sufficiency") if name in rows
    ]
    ours = ours_in(rows)
    averages, gaps = [], []
    for (name, protocol), part in rows.groupby(["set", "protocol"], sort=False):
        for metric in metrics:
            wide = part.pivot_table(
                index="id", columns="method", values=metric, dropna=False, sort=False
            )
            values = {method: wide[method].to_numpy() for method in part.method.unique()}
            where = {"set": name, "protocol": protocol, "metric": metric}
            for method, numbers in values.items():
                mean = mean_interval(numbers)
                shown = {"mean": mean.mean, "low": mean.low, "high": mean.high, "texts": mean.n}
                averages.append({**where, "method": method, **shown})
            for method, gap in compare_to(ours, values).items():
                # the library says method minus ours
                shown = {"mean": -gap.mean, "low": -gap.high, "high": -gap.low, "texts": gap.n}
                chance = {"p_value": gap.p_value, "p_holm": gap.adjusted}
                gaps.append({**where, "minus": method, **shown, **chance})
    cost = rows[rows.protocol == "default"].groupby(["set", "method"], sort=False)
    return {
        "means": pd.DataFrame(averages),
        "differences": pd.DataFrame(gaps),
        "cost": cost[["tokens", "seconds", "forward", "backward"]].median().reset_index(),
    }


def wins(gaps: pd.DataFrame, rivals: Sequence[str], protocol: str) -> pd.DataFrame:
    """Per set, the rival that comes nearest, and how many are beaten."""
    part = gaps[(gaps.protocol == protocol) & (gaps.metric == "aopc") & gaps.minus.isin(rivals)]
    found = []
    for name, group in part.groupby("set", sort=False):
        near = group.loc[group["mean"].idxmin()]
        beaten = group["mean"] > 0
        sure = beaten & (group.p_holm < 0.05)
        found.append(
            {
                "set": name,
                "beaten": f"{beaten.sum()} of {len(group)}",
                "beyond chance (Holm)": f"{sure.sum()} of {len(group)}",
                "nearest rival": near.minus,
                "presence-flow minus it": gap_cell(near),
            }
        )
    return pd.DataFrame(found)


def page(rows: pd.DataFrame, found: Tables, facts: dict[str, Any], rivals: Sequence[str]) -> str:
    """All of it in Markdown."""
    split = facts["split"]
    where = "the search, on development splits" if split == "dev" else "test splits"
    parts = [f"# Presence flow: {where}\n", _setting(rows, facts)]
    for protocol in rows.protocol.unique():
        parts.append(f"\n## AOPC, protocol `{protocol}`: {SAID[protocol]}\n\n")
        parts.append(_means(found, protocol, "aopc"))
        if rivals:
            parts.append("\nPresence flow against each rival, texts paired:\n\n")
            parts.append(markdown(wins(found["differences"], rivals, protocol)))
            parts.append("\n")
            parts.append(_gaps(found["differences"], protocol))
    parts.append("\n## Sufficiency, protocol `default` (lower is better)\n\n")
    parts.append(_means(found, "default", "sufficiency"))
    parts.append("\n## Median seconds of one explanation\n\n")
    seconds = found["cost"].pivot_table(index="method", columns="set", values="seconds", sort=False)
    parts.append(markdown(seconds.map("{:.2f}".format).reset_index()))
    parts.append(f"\n{provenance.describe(facts)}\n")
    return "".join(parts)


def _setting(rows: pd.DataFrame, facts: dict[str, Any]) -> str:
    lines = [
        f"\n`{facts['command']} --models FOLDER`; seed {facts['seed']}, texts cut to 128 tokens. "
        f"Our methods: {facts['points_per_path']} points on each of 4 paths (conductance-flow 3); "
        f"integrated gradients: 32 on each of 3; KernelSHAP: {facts['kernel_shap_calls']} calls. "
        "Brackets: 95 % bootstrap intervals; * a Holm-corrected p of sign flips below .05 within "
        "the set. The primary measure is AOPC under the default protocol.\n",
        "\n| set | texts | median tokens | weights |\n|---|---|---|---|",
    ]
    for name, part in rows.groupby("set", sort=False):
        one = part.drop_duplicates("id")
        weights = one.model_revision.iloc[0][:12]
        lines.append(f"| {name} | {len(one)} | {one.tokens.median():.0f} | {weights} |")
    return "\n".join(lines) + "\n"


def _means(found: Tables, protocol: str, metric: str) -> str:
    """Methods by sets; on development splits in the order of the steps, else the best first."""
    table = found["means"]
    part = table[(table.protocol == protocol) & (table.metric == metric)]
    wide = part.pivot_table(index="method", columns="set", values="mean", sort=False)
    cells = {(row.method, row.set): row for row in part.itertuples()}
    order = wide.mean(axis=1).sort_values(ascending=metric in ("log-odds", "sufficiency")).index
    lines = []
    for method in order:
        line: dict[str, str] = {"method": f"**{method}**" if OURS in method else method}
        for name in wide.columns:
            row = cells[method, name]
            line[name] = f"{row.mean:.3f} [{row.low:.2f}, {row.high:.2f}]"
        lines.append({**line, "mean of sets": f"{wide.loc[method].mean():.3f}"})
    return markdown(pd.DataFrame(lines))


def _gaps(gaps: pd.DataFrame, protocol: str) -> str:
    part = gaps[(gaps.protocol == protocol) & (gaps.metric == "aopc")]
    lines = []
    for method, group in part.groupby("minus", sort=False):
        cells = {row["set"]: gap_cell(row) for _, row in group.iterrows()}
        lines.append({"presence-flow minus": method, **cells})
    return markdown(pd.DataFrame(lines))


def gap_cell(row: Any) -> str:
    """A difference with its interval; a star where it is beyond chance."""
    star = " *" if row["p_holm"] < 0.05 else ""
    return f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{star}"


def markdown(table: pd.DataFrame) -> str:
    """A table without the package tabulate."""
    head = "| " + " | ".join(map(str, table.columns)) + " |\n"
    body = ("| " + " | ".join(map(str, row)) + " |\n" for row in table.itertuples(index=False))
    return head + "|---" * len(table.columns) + "|\n" + "".join(body)
