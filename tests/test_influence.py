"""Influence maps of paper_repro/real_models: what flow must recover, and what must fail."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowopt.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "paper_repro" / "real_models"
if not SCRIPTS.is_dir():
    pytest.skip(f"{SCRIPTS} is not here", allow_module_level=True)
sys.path.insert(0, str(SCRIPTS))

import influence  # noqa: E402
import influence_maps as maps  # noqa: E402
import influence_stories as stories  # noqa: E402
import influence_tasks as tasks  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "models"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here")

RESIDUAL = maps.Setting("af", "rows + residual")
CONDUCTANCE = maps.Setting("conductance", unroll=False)
WITHOUT = maps.Setting("af")


def reversal(count: int = 4) -> tasks.Task:
    return tasks.reversal_task(1, count)


def counts(task: tasks.Task, settings: list[maps.Setting]) -> dict[str, tasks.Tally]:
    total: dict[str, tasks.Tally] = {}
    for text in task.reporting:
        for name, count in tasks.tallies_of(task, settings, text).items():
            total[name] = total.get(name, tasks.Tally()) + count
    return total


@pytest.fixture(scope="module")
def trained() -> dict[str, tasks.Tally]:
    return counts(reversal(), [RESIDUAL, WITHOUT])


# --- flow on the model that reverses strings ---------------------------------------------------
def test_flow_recovers_the_anti_diagonal(trained: dict[str, tasks.Tally]) -> None:
    count = trained[RESIDUAL.label]
    assert count.rows >= 20
    assert count.certified == count.rows
    assert count.share("within") >= 0.9
    assert count.share("exact") >= 0.9


def test_attention_without_residual_does_not(trained: dict[str, tasks.Tally]) -> None:
    assert trained[WITHOUT.label].share("within") < 0.6


def test_conductance_recovers_the_anti_diagonal() -> None:
    count = counts(reversal(1), [CONDUCTANCE])[CONDUCTANCE.label]
    assert count.certified == count.rows > 0
    assert count.share("exact") >= 0.9


def test_a_model_with_shuffled_positions_does_not() -> None:
    task = reversal()
    table = task.model.model.encoder.embed_positions.weight
    order = torch.randperm(len(table) - 2, generator=torch.Generator().manual_seed(0)) + 2
    table.data[2:] = table.data[order].clone()
    assert counts(task, [RESIDUAL])[RESIDUAL.label].share("within") < 0.7


def test_a_map_read_the_wrong_way_round_does_not() -> None:
    task = dataclasses.replace(reversal(), aim=tasks.scaled_diagonal)
    assert counts(task, [RESIDUAL])[RESIDUAL.label].share("within") < 0.6


def test_settings_are_chosen_on_strings_that_are_not_reported() -> None:
    from reversal import is_held_out

    task = tasks.reversal_task(20, 20)
    assert len(task.development) == len(task.reporting) == 20
    assert not any(is_held_out(text) for text in task.development)
    assert all(is_held_out(text) for text in task.reporting)


# --- counting ----------------------------------------------------------------------------------
def test_tally_counts_by_hand() -> None:
    scores = np.array([[0.1, 0.2, 0.9], [0.5, 0.4, 0.1], [0.0, 0.0, 0.0], [0.3, 0.3, 0.1]])
    own = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=bool)
    found = tasks.tally(scores, np.array([2.0, 1.0, 0.0, 0.0]), own, certified=3)
    assert found == tasks.Tally(rows=4, exact=1, within=2, named=3, own=1, certified=3)
    assert (found + found).share("exact") == 0.25
    assert found.share("own") == pytest.approx(1 / 3)
    assert np.isnan(tasks.Tally().share("own"))


@pytest.mark.parametrize(("shape", "aims"), [((0, 3), 0), ((3,), 3), ((2, 3), 3)])
def test_tally_refuses_what_is_no_map(shape: tuple[int, ...], aims: int) -> None:
    with pytest.raises(InputError, match="needs n aims"):
        tasks.tally(np.zeros(shape), np.zeros(aims))


@given(st.integers(1, 30), st.integers(1, 30))
def test_scaled_diagonal_is_monotone_inside_and_symmetric(n: int, t: int) -> None:
    aim = tasks.scaled_diagonal(n, t)
    assert (np.diff(aim) > 0).all()
    assert aim.min() >= -0.5
    assert aim.max() <= t - 0.5
    np.testing.assert_allclose(aim + aim[::-1], t - 1, atol=1e-9)
    if n == t:
        np.testing.assert_allclose(aim, np.arange(n), atol=1e-9)


def test_reversed_places() -> None:
    assert tasks.reversed_places(3, 3).tolist() == [2, 1, 0]


def test_own_letters() -> None:
    found = tasks.own_letters("mahd", "محمد")
    assert found.tolist() == [
        [True, False, True, False],
        [False] * 4,
        [False, True, False, False],
        [False, False, False, True],
    ]


def test_words_are_arabic_letters_without_diacritics_and_none_twice() -> None:
    words = tasks.WORDS.read_text(encoding="utf-8").split()
    assert len(words) == len(set(words)) >= 200
    assert all("\u0621" <= letter <= "\u064a" for word in words for letter in word)


# --- rollout -----------------------------------------------------------------------------------
def attention(seed: int, layers: int = 2, n: int = 3, t: int = 4) -> maps.Attention:
    rng = np.random.default_rng(seed)

    def rows(*shape: int, causal: bool = False) -> Any:
        drawn = rng.random((layers, 2, *shape))
        drawn = np.tril(drawn) if causal else drawn
        return drawn / drawn.sum(axis=-1, keepdims=True)

    return maps.Attention(rows(t, t), rows(n, n, causal=True), rows(n, t))


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
def test_rollout_is_a_mixture_and_causal(seed: int, layers: int, n: int, t: int) -> None:
    across, own = maps.cross_rollout(attention(seed, layers, n, t))
    np.testing.assert_allclose(across.sum(axis=1) + own.sum(axis=1), 1, atol=1e-12)
    assert (np.triu(own, 1) == 0).all()
    passed = maps.unrolled(across, own)
    assert (passed >= across - 1e-12).all()
    assert (passed.sum(axis=1) <= 1 + 1e-12).all()
    np.testing.assert_allclose(passed[0], across[0])


def test_rollout_sums_over_all_paths() -> None:
    found = attention(3, layers=1)
    across, own = maps.cross_rollout(found)
    inside = (found.decoder.mean(axis=1)[0] + np.eye(3)) / 2
    bottom = (found.encoder.mean(axis=1)[0] + np.eye(4)) / 2
    np.testing.assert_allclose(own, inside / 2)
    np.testing.assert_allclose(across, found.cross.mean(axis=1)[0] @ bottom / 2)
    by_hand = across[1] + own[1, 1] * across[0]
    np.testing.assert_allclose(maps.unrolled(across, own)[1], by_hand)


def test_attention_is_that_of_the_model() -> None:
    task = reversal(1)
    source, target = task.tokenizers
    (text,) = task.reporting
    answer = text[::-1]
    found = maps.attention_of(
        task.model, source(text)["input_ids"], target.convert_tokens_to_ids(list(answer))
    )
    n, t = len(text), len(text) + 1
    assert found.cross.shape == (2, 4, n, t)
    assert found.decoder.shape == (2, 4, n, n)
    assert found.encoder.shape == (2, 4, t, t)
    named = maps.attention_maps(found)
    np.testing.assert_array_equal(named["raw: layer 1"], named["raw: last layer"])
    np.testing.assert_allclose(
        np.mean([named[f"raw: layer 0, head {head}"] for head in range(4)], axis=0),
        named["raw: layer 0"],
    )


# --- settings and tables -----------------------------------------------------------------------
def test_a_reading_is_shared_by_settings_that_solve_on_it(monkeypatch: Any) -> None:
    read: list[int] = []
    inner = maps.tensor_spec("af")

    def counted(model: Any, batch: Any) -> Any:
        read.append(len(batch.goals))
        return inner.read(model, batch)

    spec = dataclasses.replace(inner, layer=None, reader=counted)
    monkeypatch.setattr(maps, "tensor_spec", lambda name: spec)
    task = reversal(1)
    tokens = task.tokenizers[1].convert_tokens_to_ids(list(task.reporting[0][::-1]))
    text, pair = task.reporting[0], task.tokenizers
    alone = maps.flow_matrices(task.model, pair, text, tokens, [RESIDUAL])
    assert read == [len(tokens)]
    both = maps.flow_matrices(task.model, pair, text, tokens, [WITHOUT, RESIDUAL])
    assert read == [len(tokens)] * 2
    label = RESIDUAL.label
    np.testing.assert_array_equal(both[label].scores, alone[label].scores)
    assert not np.array_equal(both[WITHOUT.label].scores, both[label].scores)


def test_variations_change_one_thing() -> None:
    base = maps.Setting("agf", "rows")
    changed = influence.variations([base])
    assert [each.label for each in changed] == [
        "flow: agf; rows; maximum; unrolled",
        "flow: agf; rows; barrier; not unrolled",
    ]


def test_the_best_is_chosen_and_marked() -> None:
    found = {
        "flow: a": tasks.Tally(10, 9, 10, certified=10),
        "flow: b": tasks.Tally(10, 2, 5, certified=10),
    }
    assert influence.best_of(found, found) == "flow: a"
    text = influence.table(list(found), found, {"flow": "flow: a"}, named=False)
    first = text.splitlines()[2]
    assert first == "| **flow: a** (chosen flow) | 90.0% | 100.0% | 10 of 10 |"


def test_the_command_writes_table_csv_and_picture(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(influence, "first_settings", lambda: [RESIDUAL, WITHOUT])
    monkeypatch.setattr(influence, "TENSORS", ("af",))
    text = influence.letters_part("reversal", partial(tasks.reversal_task, 1, 1), tmp_path, 1, "x")
    assert "chosen flow" in text
    assert "rows + residual" in text
    assert (tmp_path / "reversal.md").read_text(encoding="utf-8") == text
    lines = (tmp_path / "reversal.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "map,part,rows,exact,within,named,own,certified"
    assert (tmp_path / "reversal.png").stat().st_size > 5000


# --- stories -----------------------------------------------------------------------------------
def test_place_of_the_flow() -> None:
    assert stories.place_of(np.array([1.0, 0.0, 0.0])) == 0
    assert stories.place_of(np.array([0.0, 0.0, 1.0])) == 1
    assert stories.place_of(np.full(5, 0.2)) == pytest.approx(0.5)


@needs_data
def test_agf_favours_the_first_token_until_it_is_corrected() -> None:
    _, rows = stories.measured_story(DATA, 3, tensors=("agf",))
    assert all(row.certified == row.tokens == 3 for row in rows)
    assert all(row.error < 1e-6 for row in rows)
    found = {(row.unroll, row.normalise): row for row in rows}
    for unroll in (True, False):
        raw, corrected = found[unroll, "none"], found[unroll, "uniform_reference"]
        assert raw.first > 2 * raw.equal
        assert corrected.first < 0.75 * raw.first
        assert corrected.place > raw.place
        assert raw.seconds is not None


@needs_data
def test_transliteration_halves_share_no_word() -> None:
    task = tasks.transliteration_task(DATA, 1000, 1000)
    assert not set(task.development) & set(task.reporting)
    assert min(len(task.development), len(task.reporting)) >= 100
    expected = tasks.chance(task, "reporting")
    assert 0 < expected["exact"] < expected["within"] < 0.7
