"""`flowopt.evaluate`: rows, seeds, failures, resuming, interrupts, kills, reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import flowopt as fo
from flowopt.evaluation import Example, evaluate, mean_interval, store

TEXTS = [
    Example("a", "the film is not very good", 0),
    Example("b", "a great , funny story !", 1),
    Example("c", "this movie was dull and slow", 0),
    Example("d", "love it", 1),
]
METHODS = ["saliency", "rollout"]
METRICS = ["aopc", "log-odds", "tau-loo"]
TIMES = ("time", "seconds", "measure_seconds", "measure_forward")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums in another order would differ in the last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tiny_bert, tiny_tokenizer):
    def call(texts=TEXTS, methods=METHODS, metrics=METRICS, **more):
        return evaluate(
            tiny_bert, methods, texts, metrics, tokenizer=tiny_tokenizer, progress=False, **more
        )

    return call


def plain(found):
    """Rows without what differs from run to run."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found.rows]


def test_rows_say_where_they_come_from(run, tiny_bert):
    found = run()
    assert [(row["id"], row["method"]) for row in found.rows] == [
        (example.id, method)
        for example in TEXTS
        for method in ("saliency", "rollout", "random", "leave-one-out")
    ]
    row = found.rows[0]
    digest = fo.evaluation.identity.model_revision(tiny_bert)
    assert (row["model_revision"], row["status"], row["error"]) == (digest, "measured", None)
    assert (row["label"], row["protocol"], row["seed"]) == ("0", "default", 0)
    assert json.loads(row["settings"]) == {"method": "saliency", "options": {"norm": "l2"}}
    assert (row["forward"], row["backward"]) == (2, 1)
    assert row["flowopt"] == fo.__version__
    assert len(row["scores"]) == row["tokens"] + 2 == 8


def test_values_are_those_of_measure(run, tiny_bert, tiny_tokenizer):
    from flowopt.trace import encode_texts

    found = run(references=False)
    for example, row in zip(TEXTS, found.rows[::2], strict=True):
        att = fo.explain(tiny_bert, tiny_tokenizer, example.text, method="saliency")
        (encoded,) = encode_texts(tiny_bert, tiny_tokenizer, [example.text])
        subject = fo.methods.subject_of(tiny_bert, tiny_tokenizer, encoded, None)
        expected = fo.evaluation.measure(subject, {"it": att.scores}, METRICS)["it"]
        assert row["aopc"] == pytest.approx(expected.values["aopc"], abs=1e-6)
        assert row["deletion curve"] == pytest.approx(expected.curves["deletion"], abs=1e-6)


def test_weights_change_the_revision(tiny_bert):
    revision = fo.evaluation.identity.model_revision
    before = revision(tiny_bert)
    assert before == revision(tiny_bert)
    with torch.no_grad():
        tiny_bert.classifier.bias[0] += 1e-6
    assert revision(tiny_bert) != before


def test_seeds_depend_on_the_text_alone(run):
    forward, backward = run(methods=["random"]), run(TEXTS[::-1], methods=["random"])
    scores = {row["id"]: row["scores"] for row in forward.rows if row["method"] == "random"}
    for row in backward.rows:
        if row["method"] == "random":
            assert row["scores"] == scores[row["id"]]
    other = run(methods=["random"], seed=1)
    assert all(row["scores"] != scores[row["id"]] for row in other.rows[::2])


def test_a_failing_text_does_not_stop_the_others(run, tmp_path):
    broken = {"now": True}

    def fragile(subject):
        if broken["now"] and "dull" in subject.text:
            raise RuntimeError("out of luck")
        return np.arange(len(subject), dtype=float)

    texts = [*TEXTS, Example("e", " ")]
    methods = {"fragile": fragile, "rollout": "rollout"}
    found = run(texts, methods, out=tmp_path / "out")
    status = {(row["id"], row["method"]): row["status"] for row in found.rows}
    assert status["c", "fragile"] == status["e", "rollout"] == "failed"
    assert list(status.values()).count("failed") == 1 + 4
    assert ("fragile", "RuntimeError: out of luck", 1, "c") in [
        (f.method, f.reason, f.count, f.example) for f in found.failures()
    ]
    assert np.isnan(found.values("aopc")["fragile"][2])
    assert found.summary()["aopc"]["fragile"].n == 3
    # not again unless asked for
    broken["now"] = False
    assert run(texts, methods, out=tmp_path / "out").failed == 5
    retried = run(texts, methods, out=tmp_path / "out", retry_errors=True)
    assert [f.example for f in retried.failures()] == ["e"] * 4
    assert len(retried) == len(found) == 20


def test_texts_that_a_protocol_excludes_are_skipped(run):
    found = run(protocol=fo.evaluation.Protocol("long", least_tokens=4))
    assert [row["status"] for row in found.rows if row["id"] == "d"] == ["skipped"] * 4
    assert found.failed == 0
    assert found.summary()["aopc"]["saliency"].n == 3
    labelled = run([*TEXTS[:2], "no label"], protocol="attcat")
    assert [row["status"] for row in labelled.rows[-4:]] == ["failed"] * 4
    assert {row["target"] for row in labelled.rows[:4]} == {"negative"}


def test_the_same_text_twice(run):
    twice = [TEXTS[0], TEXTS[0], Example("other", TEXTS[0].text, 0)]
    found = run(twice)
    assert [row["id"] for row in found.rows[::4]] == ["a", "other"]
    assert found.rows[0]["aopc"] == found.rows[4]["aopc"]


def test_resumed_in_parts_equals_at_once(run, tmp_path, monkeypatch):
    whole = run(out=tmp_path / "whole")
    asked = []
    rows_of = fo.evaluation.engine.rows_of

    def counted(job, unit):
        asked.append((unit.example.id, unit.tasks))
        return rows_of(job, unit)

    monkeypatch.setattr(fo.evaluation.engine, "rows_of", counted)
    run(TEXTS[:2], out=tmp_path / "parts")
    found = run(TEXTS, out=tmp_path / "parts")
    assert asked == [(e.id, (0, 1, 2, 3)) for e in TEXTS], "nothing was done twice"
    assert plain(found) == plain(whole)
    run(TEXTS, out=tmp_path / "parts")
    assert len(asked) == 4
    more = run(TEXTS, ["saliency", "rollout", "attcat"], out=tmp_path / "parts")
    assert asked[4:] == [(e.id, (2,)) for e in TEXTS], "only the new method"
    assert [row["method"] for row in more.rows[:5]][2] == "attcat"
    run(TEXTS, [*METHODS], ["aopc", "sufficiency"], out=tmp_path / "parts")
    assert len(asked) == 12, "a metric that is not there yet is measured"
    assert plain(fo.Evaluation.load(tmp_path / "parts", run=1)) != []
    assert fo.Evaluation.load(tmp_path / "parts").metrics[-1].name == "sufficiency"


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_goes_on(run, tmp_path, after):
    whole = run(methods={"it": ordinary}, out=tmp_path / "whole")
    calls = []

    def interrupted(subject):
        calls.append(1)
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        return ordinary(subject)

    # the same work by its name and source, so that the second run may take it up
    interrupted.__module__ = "flowopt.pretended"
    keep = fo.evaluation.identity._own_source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fo.evaluation.identity, "_own_source", lambda function: "same")
        method = fo.methods.MethodSpec("ordinary", interrupted)
        with pytest.raises(KeyboardInterrupt, match="run the same again"):
            run(methods={"it": method}, out=tmp_path / "out")
        left = fo.Evaluation.load(tmp_path / "out")
        assert [row["id"] for row in left.rows[::3]] == [e.id for e in TEXTS[:after]]
        found = run(methods={"it": method}, out=tmp_path / "out")
    assert keep is fo.evaluation.identity._own_source
    assert len(calls) == len(TEXTS) + 1, "finished texts were not done again"
    keys = ("work", "settings", "settings_digest")
    strip = [
        [{k: v for k, v in r.items() if k not in keys} for r in plain(f)] for f in (found, whole)
    ]
    assert strip[0] == strip[1]


def ordinary(subject):
    return np.arange(len(subject), dtype=float)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import torch
    torch.set_num_threads(1)
    from model_fixtures import tiny_model, wordpiece_tokenizer
    from test_evaluate import METHODS, METRICS, TEXTS
    import flowopt as fo
    from flowopt.evaluation import store

    add = store.Store.add
    def counted(self, rows, done=[]):
        done.append(1)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, rows)
    store.Store.add = counted
    fo.evaluate(tiny_model("bert"), METHODS, TEXTS, METRICS, {out!r},
                tokenizer=wordpiece_tokenizer(), progress=False)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_killed_driver_loses_unfinished_texts_only(run, tmp_path):
    out = tmp_path / "out"
    script = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent), out=str(out))
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((out / "rows").glob("part-*.parquet"))) == 2
    left = fo.Evaluation.load(out)
    assert [row["id"] for row in left.rows[::4]] == ["a", "b"]
    assert plain(run(out=out)) == plain(run(out=tmp_path / "whole"))


def test_a_merge_that_died_half_way_repeats_nothing(run, tmp_path):
    found = run(out=tmp_path)
    (part,) = (tmp_path / "rows").glob("*.parquet")
    part.with_name("part-000000900-0.parquet").write_bytes(part.read_bytes())
    part.with_name("part-000000901-0.tmp").write_bytes(b"half")
    assert plain(fo.Evaluation.load(tmp_path)) == plain(found)
    assert plain(run(out=tmp_path)) == plain(found)
    assert len(list((tmp_path / "rows").iterdir())) == 1


def test_small_files_are_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_MERGED_AT", 3)
    opened = store.open_store(tmp_path / "out")
    for number in range(10):
        opened.add([{"example": str(number), "work": "w", "aopc": float(number)}])
    levels = sorted(p.stem.split("-")[2] for p in (tmp_path / "out" / "rows").glob("*.parquet"))
    assert levels == ["0", "2"]
    opened.add([{"example": "last", "work": "w", "other": 1.0}])
    opened.compact()
    opened.close()
    (table,) = opened.tables()
    assert sorted(table.column("example").to_pylist()) == [*map(str, range(10)), "last"]
    assert sum(value is None for value in table.column("aopc").to_pylist()) == 1


def test_folders_that_are_no_results(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(fo.InputError, match="holds other files"):
        run(out=tmp_path)
    with pytest.raises(fo.InputError, match="is a file"):
        run(out=tmp_path / "notes.txt")
    with pytest.raises(fo.InputError, match="holds no results"):
        fo.Evaluation.load(tmp_path)
    opened = store.open_store(tmp_path / "busy")
    with pytest.raises(fo.InputError, match="another process is writing"):
        run(out=tmp_path / "busy")
    opened.close()


def test_two_models_share_a_folder(run, tmp_path, tiny_bert):
    first = run(out=tmp_path)
    with torch.no_grad():
        tiny_bert.classifier.weight.mul_(-1)
    second = run(out=tmp_path)
    assert len(first) == len(second) == 16
    assert plain(first) != plain(second)
    assert plain(fo.Evaluation.load(tmp_path, run=0)) == plain(first)
    assert plain(fo.Evaluation.load(tmp_path)) == plain(second)
    with pytest.raises(fo.InputError, match="has 2 runs"):
        fo.Evaluation.load(tmp_path, run=2)


def test_options_and_functions_are_part_of_the_key(run):
    def method(subject):
        return np.ones(len(subject))

    def works(methods):
        return [each["work"] for each in run(TEXTS[:1], methods).facts["methods"]]

    steps = {
        "ig": ("integrated-gradients", {"steps": 2}),
        "more": ("integrated-gradients", {"steps": 3}),
    }
    assert len(set(works(steps))) == 4
    first = works({"own": method})

    def method(subject):
        return np.zeros(len(subject))

    assert works({"own": method})[0] != first[0]
    assert works({"own": method})[1:] == first[1:]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"methods": ["nonsense"]}, "no method 'nonsense'"),
        ({"methods": []}, "at least one method"),
        ({"methods": ["rollout", "rollout"]}, "two methods are called 'rollout'"),
        ({"methods": [("rollout", {})]}, "options need a label"),
        ({"methods": {"a": ("rollout", 3)}}, "give \\(name"),
        ({"methods": {"a": ("saliency", {"stops": 3})}}, "no option 'stops'"),
        ({"metrics": ["nonsense"]}, "no metric 'nonsense'"),
        ({"metrics": []}, "at least one metric"),
        ({"protocol": "nonsense"}, "no protocol 'nonsense'"),
        ({"workers": 0}, "workers is a number"),
        ({"workers": 1.5}, "workers is a number"),
        ({"engine": "dask"}, "given by its address"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments(run, more, message):
    given = {"references": False, **more}
    with pytest.raises(fo.InputError, match=message):
        run(**given)


def test_summaries_and_comparisons(run):
    found = run()
    values = found.values("aopc")
    assert set(values) == {"saliency", "rollout", "random", "leave-one-out"}
    assert found.summary()["aopc"]["rollout"] == mean_interval(values["rollout"])
    difference = found.compare("aopc", "random")["rollout"]
    assert difference.mean == pytest.approx((values["rollout"] - values["random"]).mean())
    with pytest.raises(fo.InputError, match="'sufficiency' was not measured"):
        found.values("sufficiency")
    levels, curves = found.curve("deletion")
    assert levels[0] == 0.0
    first = [row["probability"] for row in found.rows if row["method"] == "rollout"]
    assert curves["rollout"][0] == pytest.approx(np.mean(first), abs=1e-6)
    assert found.costs()["leave-one-out"].forward > found.costs()["rollout"].forward
    assert "aopc" in str(found)
    assert list(found.to_pandas()["method"][:2]) == ["saliency", "rollout"]


def test_plausibility_has_a_table_of_its_own(run):
    marked = [
        Example("a", "the film is not very good", marks=(0, 0, 0, 1, 0, 1)),
        Example("b", "a great , funny story !"),
    ]
    found = run(marked, metrics=None)
    assert [row["auprc"] is None for row in found.rows[::4]] == [False, True]
    titles = [table.title for table in fo.evaluation.tables.means(found)]
    assert titles == ["Faithfulness", "Plausibility"]
    assert "auprc" not in {m.name for m in run(TEXTS[:1], metrics=None).metrics}


def test_reports_stand_alone(run, tmp_path):
    found = run([*TEXTS, Example("<b>", "")], {"a|b<i>": "rollout"})
    page = found.report(tmp_path / "report", command="flowopt evaluate <file>")
    text = page.read_text(encoding="utf-8")
    assert "a|b&lt;i&gt;" in text
    assert "<i>" not in text
    assert "&lt;file&gt;" in text
    assert text.count("<polyline") == 3, "deletion curves; a legend line is no polyline"
    for outside in ("http://", "https://", "src=", "@import"):
        assert outside not in text
    lines = (tmp_path / "report" / "report.md").read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("| a\\|b<i> |")]
    assert len(tables) >= 4
    assert found.facts["model_revision"][:16] in "\n".join(lines)
    json.loads(found.to_json())


def test_what_a_function_holds_is_part_of_its_key():
    def closure(k):
        return lambda subject: k * np.arange(len(subject))

    class Held:
        def __init__(self, k):
            self.k = k

        def __call__(self, subject):
            return self.k * np.arange(len(subject))

    def typed(k):
        return eval(f"lambda subject: [{k}.5] * len(subject)", {})

    source = fo.evaluation.identity._own_source
    for made in (closure, Held, typed):
        assert source(made(1)) == source(made(1))
        assert source(made(1)) != source(made(2))
    assert source(closure({})) == source(closure({"a": 1}))  # a cache
    assert "0x" not in source(closure(object()))  # an address would end resuming


@pytest.mark.parametrize("value", ["x", [1.0, 2.0], float("nan"), float("inf"), np.float32(0.5)])
def test_own_metrics_that_give_no_number_do_not_stop_the_run(run, value):
    own = fo.evaluation.Metric("own", "", "faithfulness", True, (0, 1), lambda case: value)
    (row,) = run(TEXTS[:1], ["saliency"], [own], references=False).rows
    if isinstance(value, (str, list)):
        assert row["status"] == "failed"
        assert "the metric 'own' gave" in row["error"]
    else:
        assert row["status"] == "measured"
        assert row["own"] == (0.5 if np.isfinite(value) else None)


def test_folders_engines_and_names_that_cannot_be_used(run, tmp_path):
    (tmp_path / "file").write_text("x")
    own = [
        fo.evaluation.Metric("own", "", "faithfulness", True, (0, 1), lambda case, k=k: k)
        for k in (1, 2)
    ]
    for more, message in (
        ({"out": tmp_path / "file" / "a"}, "cannot write to"),
        ({"engine": "nonsense", "workers": 2}, "cannot be used"),
        ({"metrics": own}, "two metrics are called 'own'"),
    ):
        with pytest.raises(fo.InputError, match=message):
            run(TEXTS[:1], **more)
