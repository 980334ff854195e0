"""The comparison behind presence flow: its tables say what the rows say."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from model_fixtures import tiny_model, wordpiece_tokenizer

import flowopt as fo
from flowopt.methods.subject import subject_of
from flowopt.trace import encode_texts

FOLDER = Path(__file__).parents[1] / "paper_repro" / "beyond"


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The folder's modules, found as its scripts find them; names are free again afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in ("contenders", "verdict")}
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(sys.modules) - before:
            if "flowopt" not in name and str(FOLDER) in str(
                getattr(sys.modules[name], "__file__", "")
            ):
                del sys.modules[name]


def rows(better: float) -> pd.DataFrame:
    """Twenty texts on which presence flow is better than agf-barrier by about `better`."""
    rng = np.random.default_rng(0)
    found = []
    for text in range(20):
        base = rng.uniform(0.2, 0.6)
        for method, value in (
            ("presence-flow", base + better + rng.normal(scale=0.01)),
            ("agf-barrier", base),
        ):
            found.append(
                {
                    "set": "some",
                    "protocol": "default",
                    "id": str(text),
                    "method": method,
                    "aopc": value,
                    "tokens": 12,
                    "seconds": 0.1,
                    "forward": 1,
                    "backward": 1,
                    "model_revision": "0" * 64,
                }
            )
    return pd.DataFrame(found)


@pytest.mark.parametrize(("better", "beaten", "sure"), [(0.1, 1, 1), (-0.1, 0, 0)])
def test_wins_are_counted_with_their_sign(scripts, better, beaten, sure):
    verdict = scripts["verdict"]
    found = verdict.tables(rows(better))
    gap = found["differences"].set_index("minus").loc["agf-barrier"]
    assert gap["mean"] == pytest.approx(better, abs=0.01)
    assert gap["low"] < gap["mean"] < gap["high"]
    (row,) = verdict.wins(found["differences"], ["agf-barrier"], "default").to_dict("records")
    assert row["beaten"] == f"{beaten} of 1"
    assert row["beyond chance (Holm)"] == f"{sure} of 1"


def test_a_difference_within_chance_is_not_sure(scripts):
    verdict = scripts["verdict"]
    found = verdict.tables(rows(0.0005))
    (row,) = verdict.wins(found["differences"], ["agf-barrier"], "default").to_dict("records")
    assert row["beyond chance (Holm)"] == "0 of 1"


def test_every_contender_is_a_method_with_such_options(scripts):
    contenders = scripts["contenders"]
    for chosen in (*contenders.rivals().values(), *contenders.steps().values()):
        method, options = chosen if isinstance(chosen, tuple) else (chosen, {})
        fo.methods.method_spec(method).check(options)
    assert set(contenders.RIVALS) <= set(contenders.rivals())


@pytest.fixture(scope="module")
def subject() -> Any:
    model, tokenizer = tiny_model(), wordpiece_tokenizer()
    (encoded,) = encode_texts(model, tokenizer, ["a gripping film"])
    return subject_of(model, tokenizer, encoded, None)


def test_saturated_edges_are_integrated_gradients(scripts, subject):
    from flowopt.methods import explain_subject

    ours = scripts["contenders"].conserved(subject)
    theirs = explain_subject(
        subject,
        "integrated-gradients",
        {"baselines": ("mask", "unknown"), "steps": 64},  # those that are not zero
    ).scores
    np.testing.assert_allclose(ours, theirs, atol=2e-2 * np.abs(theirs).max())


def test_direct_reads_leave_a_token_its_own(scripts, subject):
    """Rows of A (G - mean G) sum to nothing, so what tokens do not read of themselves is left."""
    reads = scripts["contenders"].direct_reads(subject)
    assert reads.shape == (len(subject),)
    assert np.isfinite(reads).all()
    assert reads.any()
