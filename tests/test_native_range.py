"""The script that measures the proven range, on small networks."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest

import flowopt as fo

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    if not FOLDER.is_dir():
        pytest.skip("benchmarks are not part of an installed package")
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("flowopt_range", FOLDER / "range.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_quick_grid_is_certified_and_written(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["range.py", "--quick", "--out", str(tmp_path)])
    script.main()
    with (tmp_path / "range.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 6 * 2 * 9
    assert {row["status"] for row in rows} == {"optimal"}
    assert {row["t"] for row in rows} == {"1", "2", "16"}
    barriers = [row for row in rows if row["objective"] != "MaxFlow"]
    assert max(float(row["delta"] or 0) for row in barriers) <= script.DELTA
    assert all(float(row["seconds"]) > 0 and float(row["memory"]) > 0 for row in rows)
    text = (tmp_path / "range.md").read_text(encoding="utf-8")
    assert f"{len(rows)} of {len(rows)} answers are certified" in text
    assert "seed 0" in text
    assert "numpy" in text
    assert text.strip() in capsys.readouterr().out


def test_what_is_not_certified_is_told(script):
    """Sabotage: a row without proof must not vanish in the summary."""
    net = script.network(2, 1, 0, seed=0)
    rows = [
        {"t": 2, "layers": 1, "decades": 0, "edges": 4, "objective": name,
         **script.solved(net, objective)}
        for name, objective in (("MaxFlow", fo.MaxFlow()), ("mu=1e-08", fo.LogBarrier(mu=1e-8)))
    ]  # fmt: skip
    assert "2 of 2 answers are certified; 2 have delta" in script.summary(rows)
    rows[1] |= {"status": "inaccurate", "delta": 0.5}
    told = script.summary(rows)
    assert "1 of 2 answers are certified; 1 have delta" in told
    assert "t = 2, L = 1, 0 decades, mu=1e-08: 5.0e-01" in told
