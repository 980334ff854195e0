"""Matrices of attributions: numbers, storage, and pictures; no model is needed for them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from rich.console import Console
from test_viz import Checker

from flowopt.attribution import Attribution, AttributionMatrix, CertificateSummary
from flowopt.errors import InputError
from flowopt.trace.record import Prediction
from flowopt.viz import plot_matrix
from flowopt.viz.html import fragment, to_html
from flowopt.viz.matrix import levels_of, shares_of

mpl.use("Agg")

SOURCE = ("\u2581der", "\u2581gro", "\u00dfe", "\u2581Hund", "</s>")
OUTPUT = ("\u2581the", "\u2581big", "\u2581<b>dog</b>")


def row(place: int, scores: list[float], **changes: Any) -> Attribution:
    label = Prediction(OUTPUT[place], 10 + place, 0.9, 2.0)
    fields: dict[str, Any] = {
        "text": "der gro\u00dfe Hund",
        "tokens": SOURCE,
        "scores": np.array(scores),
        "special": np.array([False] * 4 + [True]),
        "word_ids": (0, 1, 1, 2, None),
        "offsets": ((0, 3), (4, 7), (7, 9), (10, 14), (0, 0)),
        "prediction": label,
        "target": label,
        "value": float(np.sum(scores)),
        "max_flow": 5.0,
        "status": "optimal",
        "certificate": CertificateSummary(1e-16, 0.0, 1e-12, np.full(5, 1e-9)),
        "settings": {"tensor": "af", "objective": "LogBarrier(gap=0.05)", "output": "token"},
    }
    return Attribution(**{**fields, **changes})


SCORES = [[3.0, 0.5, 0.5, 0.0, 1.0], [0.1, 0.6, 0.2, 0.1, 0.0], [0.0, 0.0, 0.0, 2.0, 2.0]]


@pytest.fixture
def matrix() -> AttributionMatrix:
    return AttributionMatrix(tuple(row(i, s) for i, s in enumerate(SCORES)), "the big dog")


@pytest.fixture
def with_prefix() -> AttributionMatrix:
    rows = [
        row(
            i,
            s,
            prefix_tokens=OUTPUT[:i],
            prefix_scores=np.full(i, 0.5) if i else None,
            value=float(np.sum(s)) + 0.5 * i,
        )
        for i, s in enumerate(SCORES)
    ]
    return AttributionMatrix(tuple(rows), "the big dog")


def printed(shown: Any, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


# --- numbers ---------------------------------------------------------------------------------
def test_rows_and_columns(matrix):
    np.testing.assert_array_equal(matrix.scores, SCORES)
    assert matrix.source_tokens == SOURCE
    assert matrix.output_tokens == OUTPUT
    assert matrix.text == "der gro\u00dfe Hund"
    np.testing.assert_allclose(matrix.values, [5, 1, 4])
    np.testing.assert_allclose(matrix.normalised().sum(axis=1), 1)
    assert [len(matrix), matrix[1].target.label, len(list(matrix))] == [3, OUTPUT[1], 3]
    assert matrix.prefix_scores is None
    assert matrix.attribution_error.shape == (3, 5)
    assert [[word.word for word in words] for words in matrix.words()] == [
        ["der", "gro\u00dfe", "Hund"]
    ] * 3
    assert matrix.words()[0][1].score == 1.0


def test_rows_without_flow_or_with_signs():
    rows = (row(0, [0.0] * 5), row(1, [1.0, -3.0, 0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(
        AttributionMatrix(rows).normalised(), [[0] * 5, [0.25, -0.75, 0, 0, 0]]
    )


def test_the_status_is_the_worst_row(matrix):
    rows = list(matrix)
    assert matrix.status == "optimal"
    for status in ("feasible", "inaccurate", "failed"):  # each worse than the last
        rows[1] = replace(rows[1], status=status)
        assert AttributionMatrix(tuple(rows)).status == status
        rows.append(rows[1])
    unproved = replace(rows[0], certificate=CertificateSummary(0.0, 0.0, None, None))
    assert AttributionMatrix((*matrix, unproved)).attribution_error is None


def test_rows_must_fit_together(matrix):
    for rows in ((), ("row",), (matrix[0], replace(matrix[0], tokens=("a",) * 5))):
        with pytest.raises(InputError, match="matri"):
            AttributionMatrix(rows)


def test_shares_are_of_the_whole_row(matrix, with_prefix):
    shares, earlier = shares_of(matrix)
    assert earlier is None
    np.testing.assert_allclose(shares, matrix.normalised())
    shares, earlier = shares_of(with_prefix)
    np.testing.assert_allclose(shares.sum(axis=1) + earlier, 1)
    np.testing.assert_allclose(earlier, [0, 0.5 / 1.5, 1 / 5])
    np.testing.assert_array_equal(with_prefix.prefix_scores[2], [0.5, 0.5])
    assert len(with_prefix.prefix_scores[0]) == 0
    levels = levels_of(matrix, matrix.normalised())
    assert levels.max() == 1
    # special tokens do not make the others pale
    assert levels[:, :4].max() == 1


# --- storage ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["matrix", "with_prefix"])
def test_json_round_trip(name, request, tmp_path):
    matrix = request.getfixturevalue(name)
    text = matrix.to_json(tmp_path / "m.json")
    values = json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no standard JSON"))
    assert values["schema"] == "flowopt.attribution-matrix/1"
    assert {"text", "output", "source_tokens", "output_tokens", "status", "rows"} <= set(values)
    for source in (text, tmp_path / "m.json", str(tmp_path / "m.json")):
        back = AttributionMatrix.from_json(source)
        assert back.to_json() == text
        assert back.output == "the big dog"
        np.testing.assert_array_equal(back.scores, matrix.scores)
        assert (back.prefix_scores is None) == (matrix.prefix_scores is None)


def test_json_of_something_else(matrix):
    for source, message in (
        (matrix[0].to_json(), "expected schema 'flowopt.attribution-matrix/1'"),
        ("{}", "write it again with AttributionMatrix.to_json"),
        ("/no/such.json", "AttributionMatrix.to_json wrote"),
        ('{"schema": "flowopt.attribution-matrix/1"}', "damaged"),
        ('{"schema": "flowopt.attribution-matrix/1", "rows": [], "output": ""}', "at least one"),
        ('{"schema": "flowopt.attribution-matrix/1", "rows": 3, "output": ""}', "damaged"),
    ):
        with pytest.raises(InputError, match=message):
            AttributionMatrix.from_json(source)
    with pytest.raises(InputError, match=r"expected schema 'flowopt\.attribution/1'"):
        Attribution.from_json(matrix.to_json())


# --- pictures --------------------------------------------------------------------------------
def test_terminal_shows_percent_of_every_row(matrix):
    lines = printed(matrix).splitlines()
    assert lines[0] == "der gro\u00dfe Hund \u2192 the big dog"
    (the,) = [line for line in lines if line.startswith(" the")]
    assert the.split()[1:] == ["60", "10", "10", "\u00b7", "20"]
    (heads,) = [line for line in lines if "Hund" in line and "\u2192" not in line]
    assert heads.split() == ["der", "gro", "\u00dfe", "Hund", "</s>"]
    assert "every row proved optimal: scores within 1e-09" in lines[-1]
    assert str(matrix).splitlines()[0] == lines[0]


def test_terminal_without_room_lists_the_largest(matrix, with_prefix):
    text = printed(matrix, width=34)
    assert "der 60.0 %" in text
    assert max(map(len, text.splitlines())) <= 34
    assert "earlier output 33.3 %" in " ".join(printed(with_prefix, width=34).split())
    assert "earli" in printed(with_prefix)


def test_terminal_says_what_is_not_proved_and_why_nothing_flows(matrix):
    rows = (matrix[0], replace(matrix[1], status="inaccurate"))
    assert "row 1 (\u2581big): NOT proved optimal" in printed(AttributionMatrix(rows))
    rows = (matrix[0], row(1, [0.0] * 5, settings={"sources": "all"}))
    assert "nothing flows: no path" in printed(AttributionMatrix(rows))
    proofless = tuple(
        replace(each, certificate=CertificateSummary(0.0, 0.0, 0.0, None)) for each in matrix
    )
    assert "no error bound" in printed(AttributionMatrix(proofless))


def test_page_is_whole_and_escapes(matrix, with_prefix):
    for shown in (matrix, with_prefix, [matrix, with_prefix], [matrix, matrix[0]]):
        page = to_html(shown)
        Checker(page)
        assert "<b>dog</b>" not in page
        assert "&lt;b&gt;dog" in page
    page = Checker(to_html(matrix))
    assert any(title.startswith(" the from  der: 3 (60.0 %)") for title in page.titles)
    assert "earlier output" not in to_html(matrix)
    assert "earlier output" in to_html(with_prefix)
    assert "der gro\u00dfe Hund \u2192 the big dog" in to_html(matrix)
    assert matrix._repr_html_() == fragment(matrix)
    assert Checker(fragment(matrix)).tags["article"] == 4  # the matrix and a card for each row


def test_page_in_a_file(matrix, tmp_path):
    assert matrix.to_html(tmp_path / "m.html") == (tmp_path / "m.html").read_text("utf-8")


def test_plot(matrix, with_prefix):
    ax = matrix.plot()
    (image,) = ax.get_images()
    np.testing.assert_allclose(image.get_array(), matrix.normalised())
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [" the", " big", " <b>dog</b>"]
    assert len(ax.get_xticklabels()) == 5
    ax.figure.canvas.draw()
    assert len(plot_matrix(matrix, include_special=False).get_xticklabels()) == 4
    wide = with_prefix.plot()
    assert wide.get_xticklabels()[-1].get_text() == "earlier output"
    _, given = mpl.pyplot.subplots()
    assert matrix.plot(given) is given
    signed = AttributionMatrix((row(0, [1.0, -3.0, 0.0, 0.0, 0.0]),)).plot().get_images()[0]
    assert (signed.norm.vmin, signed.norm.vmax) == (-0.75, 0.75)
    zero = AttributionMatrix((row(0, [0.0] * 5),)).plot().get_images()[0]
    assert zero.norm.vmax == 1
    mpl.pyplot.close("all")
