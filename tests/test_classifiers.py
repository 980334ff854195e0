"""paper_repro/classifiers and paper_repro/gaf: splits, training, and tables of a small run."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from model_fixtures import tiny_model, wordpiece_tokenizer

import flowopt as fo

ROOT = Path(__file__).resolve().parents[1]
CLASSIFIERS, GAF = ROOT / "paper_repro" / "classifiers", ROOT / "paper_repro" / "gaf"
if not CLASSIFIERS.is_dir() or not GAF.is_dir():
    pytest.skip(f"{CLASSIFIERS} or {GAF} is not here", allow_module_level=True)
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here")
KINDS = {0: ["bad", "dull", "hate", "slow"], 1: ["great", "funny", "love", "good"]}
FILLERS = ["the", "film", "movie", "is", "story", "plot", "and", "a", "this", "ending"]


def script(folder: Path, name: str) -> Any:
    """A script, without leaving its folder and the short names of its parts to other tests."""
    path, modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"{folder.name}_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
        for new in set(sys.modules) - modules - {spec.name}:
            where = getattr(sys.modules[new], "__file__", None) or ""
            if str(ROOT / "paper_repro") in where:
                del sys.modules[new]
    return module


splits, train = script(CLASSIFIERS, "splits"), script(CLASSIFIERS, "train")
run, tables = script(GAF, "run"), script(GAF, "tables")


def sentence(label: int, generator: random.Random) -> str:
    words = generator.choices(FILLERS, k=6) + generator.choices(KINDS[label], k=6)
    return " ".join(generator.sample(words, 12))


def write_set(folder: Path, labels: Any = None) -> Path:
    """sst2.jsonl whose sentences have words that tell the label, unless others are given."""
    generator, rows = random.Random(0), []
    for number in range(900):
        true = number % 2
        label = true if labels is None else labels(generator)
        rows.append(
            {
                "id": f"s{number}",
                "split": "train" if number < 800 else "dev",
                "label": label,
                "label_name": ("negative", "positive")[label],
                "text": sentence(true, generator),
            }
        )
    folder.mkdir(exist_ok=True)
    lines = "\n".join(map(json.dumps, rows))
    (folder / "sst2.jsonl").write_text(lines + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: Any) -> Path:
    """A tiny encoder that knows nothing, as the pretrained one is kept."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model("bert").bert.save_pretrained(folder)
    wordpiece_tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: Any) -> Path:
    """Folder with data, models/sst2 and results/sst2.json, as one command makes them."""
    work = tmp_path_factory.mktemp("trained")
    fine_tune(base, write_set(work / "data"), work)
    return work


def fine_tune(base: Path, data: Path, work: Path) -> dict[str, Any]:
    places = {"--base": base, "--data": data, "--out": work / "models", "--results": work}
    options = {**places, "--epochs": 3, "--learning-rate": 0.003}
    train.main(["sst2", *(str(word) for pair in options.items() for word in pair)])
    found: dict[str, Any] = json.loads((work / "sst2.json").read_text())
    return found


def forget() -> None:
    splits._rows.cache_clear()
    splits._dealt.cache_clear()


# --- splits -----------------------------------------------------------------------------------
def test_splits_are_fixed_and_apart(tmp_path: Path) -> None:
    data = write_set(tmp_path)
    parts = {part: splits.examples("sst2", part, data) for part in splits.SPLITS}
    assert len(parts["train"]) <= 800
    assert len(parts["dev"]) + len(parts["test"]) == 100
    assert 30 < len(parts["dev"]) < 70
    ids = [{each.id for each in part} for part in parts.values()]
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    forget()
    assert splits.examples("sst2", "dev", data) == parts["dev"]


def test_a_training_text_that_is_held_out_is_left_out(tmp_path: Path) -> None:
    data = write_set(tmp_path)
    known = splits.examples("sst2", "test", data)[0]
    with (data / "sst2.jsonl").open("a") as out:
        leak = {"id": "leak", "split": "train", "label": 1, "label_name": "positive"}
        out.write(json.dumps({**leak, "text": known.text.upper() + " !"}) + "\n")
    forget()
    assert "leak" not in {each.id for each in splits.examples("sst2", "train", data)}
    assert known in splits.examples("sst2", "test", data)


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="sst2, imdb"):
        splits.examples("sst3", "test", tmp_path)
    with pytest.raises(SystemExit, match="train, dev, test"):
        splits.examples("sst2", "validation", tmp_path)
    with pytest.raises(SystemExit, match=r"sst2\.jsonl is not in"):
        splits.examples("sst2", "test", tmp_path)


@needs_data
@pytest.mark.parametrize("name", list(splits.SOURCES))
def test_the_real_sets_split_without_a_shared_text(name: str) -> None:
    parts = {part: splits.examples(name, part) for part in splits.SPLITS}
    keys = {part: {splits._key(each.text) for each in rows} for part, rows in parts.items()}
    assert not keys["train"] & (keys["dev"] | keys["test"])
    assert not keys["dev"] & keys["test"]
    labels = range(len(splits.label_names(name)))
    for rows in parts.values():
        shares = np.bincount([each.label for each in rows], minlength=len(labels)) / len(rows)
        assert np.abs(shares - 1 / len(labels)).max() < 0.1  # all sets are balanced
        assert all(each.marks is None or len(each.marks) == len(each.words) for each in rows)


# --- training ---------------------------------------------------------------------------------
def test_training_learns_and_records_what_it_did(trained: Path) -> None:
    found = json.loads((trained / "sst2.json").read_text())
    assert found["accuracy"]["test"]["accuracy"] > 0.95
    assert found["weights_sha256"] == train.digest(trained / "models/sst2/model.safetensors")
    assert found["training"]["examples"] == len(splits.examples("sst2", "train", trained / "data"))


def test_labels_that_mean_nothing_are_not_learned(base: Path, tmp_path: Path) -> None:
    """The accuracy that is written would show a trainer that saw the test texts."""
    data = write_set(tmp_path / "data", labels=lambda generator: generator.randrange(2))
    accuracy = fine_tune(base, data, tmp_path)["accuracy"]
    assert all(part["accuracy"] < 0.75 for part in accuracy.values())


def test_the_folder_loads_and_embeddings_stayed(trained: Path, base: Path) -> None:
    import torch
    from transformers import AutoModel

    explainer = fo.Explainer.from_pretrained(trained / "models" / "sst2")
    long = " ".join(["the", "film"] * 18)
    found = explainer("a film that is very good " + long)
    assert len(found.scores) == 44  # neither cut nor padded by the tokenizer's file
    assert found.prediction.label == "positive"
    before = AutoModel.from_pretrained(base).embeddings.word_embeddings.weight
    after = explainer.model.bert.embeddings.word_embeddings.weight
    assert torch.equal(before, after)


# --- what is measured -------------------------------------------------------------------------
def test_a_run_writes_its_tables(trained: Path, tmp_path: Path) -> None:
    words = ["--models", str(trained / "models"), "--data", str(trained / "data"), "--quick"]
    words += ["--sets", "sst2", "--methods", "agf-barrier", "agf-maxflow", "random", "lime"]
    run.main([*words, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")])
    means = pd.read_csv(tmp_path / "out" / "means.csv")
    assert set(means.method) == {"agf-barrier", "agf-maxflow", "random", "lime"}
    assert set(means.protocol) == {"default", "attcat", "attcat-pad"}
    assert (means.texts == 2).all()
    assert not means["mean"].isna().any()
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    assert facts["sets"]["sst2"]["texts"] == 2
    page = (tmp_path / "out" / "gaf.md").read_text()
    assert "**agf-barrier**" in page
    first = pd.read_csv(tmp_path / "out" / "means.csv")
    run.main([*words, "--out", str(tmp_path / "again"), "--work", str(tmp_path / "work")])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "again" / "means.csv"), first)


def test_missing_models_are_named_with_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"classifiers/train\.py sst2"):
        run.main(["--models", str(tmp_path), "--sets", "sst2"])
    with pytest.raises(SystemExit, match="--models"):
        run.main(["--sets", "sst2"])


def test_what_is_remembered_is_what_was_said(tiny_bert: Any, tiny_tokenizer: Any) -> None:
    text, method = "a very good film", run.remembered("agf-barrier")
    for _ in range(2):
        for target in (0, 1):
            asked = {"text": text, "target": target}
            said = fo.explain(tiny_bert, tiny_tokenizer, method=method, **asked)
            direct = fo.explain(tiny_bert, tiny_tokenizer, method="agf-barrier", **asked)
            np.testing.assert_array_equal(said.scores, direct.scores)
    assert said.settings["passes"]["backward"] == 0  # the second time nothing is computed
    seeded = run.remembered("random")
    one, two = (
        fo.explain(tiny_bert, tiny_tokenizer, text, method=seeded, seed=seed) for seed in (0, 1)
    )
    assert not np.array_equal(one.scores, two.scores)


def rows_of(values: dict[str, list[float]], order: dict[str, list[int]]) -> pd.DataFrame:
    """Rows as an evaluation has them, those of a method in any order of texts."""
    found = [
        {"set": "s", "protocol": "default", "method": method, "id": str(i), "status": "measured",
         "aopc": values[method][i], "log-odds": -values[method][i]}
        for method in values for i in order[method]
    ]  # fmt: skip
    return pd.DataFrame(found)


def test_differences_pair_texts_not_rows() -> None:
    easy = np.linspace(0, 1, 30)
    values = {"agf-barrier": list(easy), "other": list(easy + 0.1)}
    forwards = list(range(30))
    tidy = rows_of(values, {"agf-barrier": forwards, "other": forwards})
    mixed = rows_of(values, {"agf-barrier": forwards, "other": forwards[::-1]})
    for rows in (tidy, mixed):
        gap = tables.differences(rows).set_index("metric").loc["aopc"]
        assert gap["mean"] == pytest.approx(0.1)
        assert gap["high"] - gap["low"] < 1e-9  # paired by the row this would be about 0.4
        assert gap["p_holm"] < 0.01
    mean = tables.means(tidy).set_index(["method", "metric"]).loc[("other", "log-odds")]
    assert mean["mean"] == pytest.approx(-0.6)
    assert mean["low"] < -0.6 < mean["high"]
