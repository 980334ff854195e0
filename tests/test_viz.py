"""Pictures of attributions: what they say, what they must never say, and that they draw."""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from rich.console import Console

import flowopt as fo
from flowopt.attribution import Attribution, CertificateSummary
from flowopt.trace.record import Prediction
from flowopt.viz import content, diagram, html, palette, plot_attribution, plot_flow, terminal

mpl.use("Agg")

TEXT = "A <b>gripping</b>, funny & [red]short[/red] film $x$ \x1b[31m!"


def attribution(
    words: tuple[str, ...] = ("A", "gripping", "film"),
    scores: tuple[float, ...] = (0.1, 0.2, 0.3, 0.15, 0.25),
    error: float | None = 3e-12,
    **changes: Any,
) -> Attribution:
    """[CLS] words [SEP], the words one blank apart."""
    text, offsets = " ".join(words), []
    at = 0
    for word in words:
        offsets.append((at, at + len(word)))
        at += len(word) + 1
    t = len(words) + 2
    made = Attribution(
        text=text,
        tokens=("[CLS]", *(word.lower() for word in words), "[SEP]"),
        scores=np.array(scores),
        special=np.array([True, *[False] * len(words), True]),
        word_ids=(None, *range(len(words)), None),
        offsets=((0, 0), *offsets, (0, 0)),
        prediction=Prediction("positive", 1, 0.973, 3.1),
        target=Prediction("positive", 1, 0.973, 3.1),
        value=float(np.sum(scores)),
        max_flow=1.25,
        status="optimal",
        certificate=CertificateSummary(
            1e-16, 0.0, 1e-13, None if error is None else np.full(t, error)
        ),
        settings={"tensor": "agf", "objective": "LogBarrier(gap=0.05)"},
    )
    return replace(made, **changes)


def solved(words: tuple[str, ...] = ("A", "gripping", "film"), layers: int = 3) -> Attribution:
    """An attribution with a real solution behind it."""
    t = len(words) + 2
    capacity = np.random.default_rng(5).uniform(0.1, 1.0, (layers, t, t))
    solution = fo.solve(fo.FlowNetwork.layered(capacity, sources=[0]), fo.LogBarrier(gap=0.05))
    return attribution(
        words,
        tuple(solution.attributions),
        value=solution.value,
        max_flow=solution.max_flow,
        certificate=CertificateSummary.of(solution),
        solutions=(solution,),
    )


def printed(att: Attribution, width: int = 100, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
    )
    with console.capture() as capture:
        console.print(terminal.render(att))
    return capture.get()


class Checker(HTMLParser):
    """Counts tags, collects text, and insists that every tag is closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text: list[str] = []
        self.titles: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.titles += [value or "" for name, value in attrs if name == "title"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


# --- colour --------------------------------------------------------------------------------------
@pytest.mark.parametrize("scheme", [palette.LIGHT, palette.DARK])
def test_every_shade_carries_readable_text(scheme: palette.Scheme) -> None:
    for level in np.linspace(-1, 1, 401):
        background = palette.shade(float(level), scheme)
        assert palette.contrast(palette.ink(background), background) >= 4.5
    assert palette.contrast(scheme.text, palette.shade(0.0, scheme)) >= 7
    assert palette.contrast(scheme.faint, palette.shade(0.0, scheme)) >= 4.5


@pytest.mark.parametrize("scheme", [palette.LIGHT, palette.DARK])
@pytest.mark.parametrize("sign", [1, -1])
def test_more_score_stands_out_more_from_paper(scheme: palette.Scheme, sign: int) -> None:
    paper = palette.shade(0.0, scheme)
    steps = [palette.shade(sign * i / 40, scheme) for i in range(41)]
    seen = [palette.contrast(step, paper) for step in steps]
    assert all(a < b for a, b in pairwise(seen))
    assert palette.shade(sign * 7.0, scheme) == steps[-1]


def test_known_colours_of_the_conversion() -> None:
    # OKLab of white, black, and sRGB red (Ottosson's own values).
    red = (0.6280, math.hypot(0.2249, 0.1258), math.degrees(math.atan2(0.1258, 0.2249)))
    for lch, expected in [((1, 0, 0), "#ffffff"), ((0, 0, 0), "#000000"), (red, "#ff0000")]:
        scheme = replace(palette.LIGHT, positive=lch)
        got = palette.shade(1.0, scheme)
        assert np.allclose(_rgb(got), _rgb(expected), atol=1)


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_levels_are_relative_and_finite() -> None:
    assert palette.relative_levels([0.0, 0.0]).tolist() == [0.0, 0.0]
    assert palette.relative_levels([]).tolist() == []
    assert palette.relative_levels([1.0, -2.0, math.nan]).tolist() == [0.5, -1.0, 0.0]
    assert palette.relative_levels([4.0], largest=2.0).tolist() == [1.0]


# --- content -------------------------------------------------------------------------------------
def test_rows_carry_scores_shares_and_bounds() -> None:
    found = content.rows(attribution())
    assert [row.word for row in found] == ["[CLS]", "A", "gripping", "film", "[SEP]"]
    assert sum(row.share for row in found) == pytest.approx(1.0)
    assert [row.error for row in found] == [3e-12] * 5
    assert max(abs(row.level) for row in found if not row.special) == 1.0
    assert content.special_line(found) == "[CLS]+[SEP] take 35.0 % of the flow"


def test_subwords_add_up_with_their_bounds() -> None:
    att = attribution(("un", "real", "film"), word_ids=(None, 0, 0, 1, None))
    word = content.rows(att)[1]
    assert word.score == pytest.approx(0.5)
    assert word.error == pytest.approx(6e-12)
    assert word.tokens == (("un", 0.2), ("real", 0.3))
    # the promise of the sentence covers the words in the table
    assert "within 6e-12 of" in content.proof(att)


@pytest.mark.parametrize("words", [("A", "film"), ("  A", "film \t"), ("Ünïcode", "日本語")])
def test_pieces_lose_nothing_of_the_text(words: tuple[str, ...]) -> None:
    scores = tuple(np.linspace(0.1, 0.4, len(words) + 2))
    att = attribution(words, scores)
    cut = content.pieces(att, content.rows(att))
    assert "".join(text for text, _ in cut) == content.printable(att.text or "")
    assert [row.word for _, row in cut if row] == [word.strip() for word in words]


def test_pieces_without_text_join_the_words() -> None:
    att = attribution(text=None, offsets=None)
    cut = content.pieces(att, content.rows(att))
    assert "".join(text for text, _ in cut) == "a gripping film"


def test_text_that_was_cut_off_is_shown_as_unread() -> None:
    att = attribution(text="A gripping film that nobody read")
    assert content.pieces(att, content.rows(att))[-1] == (" that nobody read", None)
    assert "unread" in html.fragment(att)


def test_proof_in_plain_words() -> None:
    assert content.proof(attribution()) == (
        "proved optimal: every score is within 3e-12 of the exact optimum"
    )
    loose = content.proof(attribution(error=0.004))
    assert "within 0.004 (0.4 % of the whole) of the exact optimum" in loose
    plain = attribution(error=None, settings={"objective": "MaxFlow()"})
    assert "not unique" in content.proof(plain)
    unknown = content.proof(attribution(error=None, settings={"objective": "Mine()"}))
    assert "no error bound" in unknown
    nothing = content.proof(attribution(scores=(0.0,) * 5))
    assert "every score is 0" in nothing


@pytest.mark.parametrize("status", ["inaccurate", "feasible", "failed"])
def test_what_is_not_proved_is_never_called_proved(status: str) -> None:
    for error in (None, 1e-3, math.inf):
        att = attribution(error=error, status=status)
        text = printed(att) + html.to_html(att)
        assert "proved optimal" not in text.replace("NOT proved optimal", "")
        assert "proof open" in html.to_html(att)


def test_printed_bounds_are_bounds() -> None:
    values = 10 ** np.random.default_rng(0).uniform(-20, 5, 500)
    for value in values:
        shown = float(content.upper(float(value)))
        assert value * (1 - 1e-9) <= shown <= 2.0 * value
    assert content.upper(0.0) == "0"
    assert content.upper(3e-12) == "3e-12"
    assert content.upper(3.1e-12) == "4e-12"
    assert content.upper(math.inf) == "inf"


def test_percent_never_rounds_up_to_all() -> None:
    assert content.percent(0.99999) == "> 99.9 %"
    assert content.percent(1.0) == "100.0 %"
    assert content.percent(0.1234) == "12.3 %"


def test_score_column_uses_one_unit() -> None:
    assert content.score_column([1.208e-4, 8.76e-5]) == ("score ×1e-4", ["1.208", "0.876"])
    assert content.score_column([0.5, -0.25]) == ("score", ["0.5000", "-0.2500"])
    assert content.score_column([]) == ("score", [])
    assert content.score_column([0.0])[1] == ["0.000"]


# --- terminal ------------------------------------------------------------------------------------
@pytest.mark.parametrize("width", [60, 100])
def test_terminal_without_colour_has_the_numbers(width: int) -> None:
    text = printed(attribution(), width)
    assert "\x1b" not in text
    assert all(len(line) <= width for line in text.splitlines())
    for expected in ("positive", "97.3 %", "0.3000", "30.0 %", "± 3e-12", "80.0 % of the maximum"):
        assert expected in text
    assert "[CLS]+[SEP] take 35.0 %" in text
    assert "proved optimal" in text
    assert len([line for line in text.splitlines() if "█" in line]) == 3


def test_terminal_shades_with_colour_and_escapes_nothing_of_the_text() -> None:
    att = attribution(tuple(TEXT.split(" ")), tuple(np.linspace(0.1, 1, len(TEXT.split()) + 2)))
    text = printed(att, colour=True)
    assert "\x1b[38;2;" in text
    assert "[red]short[/red]" in text  # rich markup stays text
    assert "\x1b[31m" not in text  # the text cannot steer the terminal
    assert "\x1b" not in printed(att)


def test_str_and_rich_show_the_same() -> None:
    att = attribution()
    assert str(att).splitlines()[0] == printed(att).splitlines()[0].rstrip()


def test_terminal_shows_the_largest_of_many_words() -> None:
    words = tuple(f"w{i}" for i in range(60))
    text = printed(attribution(words, tuple(np.arange(62) / 100)))
    assert "the 24 largest of 60 words" in text
    rows = [line.split()[0] for line in text.splitlines() if "█" in line]
    assert rows == [f"w{i}" for i in range(36, 60)]  # those, in the order of the text


def test_signed_scores_have_two_colours_and_bars_from_the_middle() -> None:
    att = attribution(scores=(0.1, -0.3, 0.3, 0.1, -0.1), value=0.1)
    text = printed(att)
    assert "flow for minus flow against = 0.1" in text
    assert "-33.3 %" in text
    bars = [line for line in text.splitlines() if "█" in line]
    assert bars[1].index("█") > bars[0].index("█")
    page = html.fragment(att)
    assert 'class="m32"' in page
    assert 'class="p32"' in page


def test_explained_class_is_named_where_it_is_another() -> None:
    att = attribution(target=Prediction("negative", 0, 0.027, -3.1))
    assert "explained class: negative 2.7 %" in printed(att)
    assert "explained class" in html.to_html(att)
    assert "explained class" not in printed(attribution())


# --- html ----------------------------------------------------------------------------------------
def nasty() -> Attribution:
    words = tuple(TEXT.split(" "))
    att = attribution(words, tuple(np.linspace(0.1, 1, len(words) + 2)))
    bad = Prediction("<script>alert(1)</script>", 0, 0.5, 0.0)
    return replace(
        att,
        prediction=bad,
        settings={"model": '"><img src=x onerror=alert(1)>', "tensor": "</style><b>"},
    )


def is_escaped(page: str) -> bool:
    return not any(bad in page for bad in ("<script", "<img", "<b>gripping", "</style><b>"))


def test_html_escapes_all_text() -> None:
    for page in (html.to_html(nasty()), html.fragment(nasty())):
        assert is_escaped(page)
        assert "\x1b" not in page
        found = Checker(page)
        assert found.tags["script"] == found.tags["img"] == 0
        assert "<b>gripping</b>," in found.text[found.text.index("A") + 2]


def test_the_escaping_check_notices_a_page_that_does_not_escape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    careless = html._environment().overlay(autoescape=False, cache_size=0)
    monkeypatch.setattr(html, "_environment", lambda: careless)
    assert not is_escaped(html.to_html(nasty()))


def test_page_is_whole_and_stands_alone() -> None:
    att = solved()
    page = html.to_html(att)
    found = Checker(page)
    assert page.startswith("<!DOCTYPE html>")
    assert found.tags["html"] == found.tags["body"] == found.tags["svg"] == 1
    assert not any(word in page for word in ("http://", "https://", "@import", "url("))
    assert "prefers-color-scheme:dark" in page
    assert found.tags["details"] == 3
    assert "proved optimal" in "".join(found.text)


def test_hovering_shows_the_scores_of_tokens() -> None:
    att = attribution(("un", "real", "film"), word_ids=(None, 0, 0, 1, None))
    titles = Checker(html.to_html(att)).titles
    assert any(title.startswith("un real: 0.5 (50.0 %)") for title in titles)
    assert any("un: 0.2\nreal: 0.3" in title for title in titles)


def test_flow_diagram_has_a_circle_per_node_and_a_path_per_edge() -> None:
    att = solved(layers=3)
    found = Checker(html.to_html(att, max_edges=10_000))
    assert found.tags["circle"] == 4 * 5
    assert found.tags["path"] == int((np.concatenate(att.solutions[0].flows) > 0).sum())
    assert Checker(html.to_html(att, max_edges=0)).tags["svg"] == 0
    assert Checker(html.to_html(replace(att, solutions=()))).tags["svg"] == 0


def test_signed_flow_draws_both_halves() -> None:
    one, other = solved(), solved(layers=2)
    halves = (*one.solutions, *other.solutions)
    both = replace(one, scores=one.scores - other.scores, solutions=halves)
    page = html.to_html(both)
    assert "For the class." in page
    assert "Against the class." in page
    assert "Flow 1 of 2." in html.to_html(replace(one, solutions=halves))


def test_several_attributions_make_one_page() -> None:
    page = html.to_html([solved(), attribution(), nasty()])
    found = Checker(page)
    assert found.tags["article"] == 3
    assert found.tags["svg"] == 1
    many = Checker(html.to_html([solved()] * 13))
    assert (many.tags["article"], many.tags["svg"]) == (13, 0)


def test_fragment_is_no_page() -> None:
    page = html.fragment(attribution())
    assert page.startswith('<div class="flowopt">')
    assert Checker(page).tags["html"] == 0


# --- diagram -------------------------------------------------------------------------------------
def test_diagram_places_layers_above_one_another() -> None:
    solution = solved(layers=3).solutions[0]
    plan = diagram.lay_out(solution, max_edges=30)
    assert plan.groups == ("layer0", "layer1", "layer2", "layer3")
    assert all(edge.y0 == edge.y1 + 1 for edge in plan.edges)
    assert sum(node.flow for node in plan.nodes if node.player) == pytest.approx(solution.value)
    # every layer gets its part of the edges, and of each layer the largest
    assert Counter(edge.y1 for edge in plan.edges) == {0: 10, 1: 10, 2: 5}
    smallest = min(edge.flow for edge in plan.edges if edge.y1 == 0)
    assert (solution.flows[0] > smallest).sum() == 9
    assert 0 < plan.share < 1
    assert diagram.lay_out(solution, 10_000).share == pytest.approx(1.0)


def test_diagram_of_groups_of_different_sizes_with_links() -> None:
    net = fo.FlowNetwork(
        groups={"in": 3, "middle": 2, "out": 1},
        blocks=[fo.Block("out", "middle", [[1.0, 1.0]]), fo.Block("middle", "in", np.ones((2, 3)))],
        links=[fo.Link("out", "in", [[0, 1]], [0.5])],
        sources={"out": [0]},
        sinks={"in": [0, 1, 2]},
    )
    plan = diagram.lay_out(fo.solve(net, fo.MaxFlow()))
    assert plan.groups == ("in", "middle", "out")
    assert plan.columns == 3
    assert {node.x for node in plan.nodes if node.group == "out"} == {1.5}
    assert any((edge.y0, edge.y1) == (2, 0) for edge in plan.edges)


def test_diagram_without_any_flow() -> None:
    solution = fo.solve(fo.FlowNetwork.layered(np.zeros((2, 3, 3))), fo.MaxFlow())
    plan = diagram.lay_out(solution)
    assert (plan.edges, plan.carrying, plan.share) == ((), 0, 1.0)
    att = attribution(("A",), (0.0,) * 3, value=0.0, max_flow=0.0, solutions=(solution,))
    assert Checker(html.to_html(att)).tags["circle"] == 9
    assert "nan" not in printed(att).lower()


# --- matplotlib ----------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_bars_are_the_scores() -> None:
    backend = mpl.get_backend()
    ax = plot_attribution(attribution())
    assert [bar.get_width() for bar in ax.patches] == [0.2, 0.3, 0.15]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "gripping", "film"]
    assert "[CLS]+[SEP] take 35.0 %" in ax.get_xlabel()
    assert mpl.get_backend() == backend
    assert len(plot_attribution(attribution(), include_special=True).patches) == 5


def test_whiskers_are_the_error_bounds() -> None:
    ax = plot_attribution(attribution(error=0.05))
    segments = ax.collections[0].get_segments()
    assert [seg[:, 0].tolist() for seg in segments] == [
        pytest.approx([s - 0.05, s + 0.05]) for s in (0.2, 0.3, 0.15)
    ]
    assert not plot_attribution(attribution(error=None)).collections
    assert not plot_attribution(attribution(error=math.inf)).collections


def test_figures_draw_into_given_axes_and_take_any_text() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    ax, other = figure.subplots(1, 2)
    words = ("$a$", "$", "\\frac", "x_{", "film")
    att = solved(words)
    att = replace(att, target=Prediction("$bad$ \\label", 0, 0.5, 0.0))
    assert plot_attribution(att, ax=ax) is ax
    assert plot_flow(att, ax=other) is other
    figure.savefig(io.BytesIO(), format="png")


def test_many_words_and_signed_scores() -> None:
    scores = tuple(np.linspace(-1, 1.1, 62))
    ax = plot_attribution(attribution(tuple(f"w{i}" for i in range(60)), scores))
    assert len(ax.patches) == 40
    assert "20 more words" in ax.get_xlabel()
    colours = {bar.get_facecolor() for bar in ax.patches}
    assert len(colours) == 2
    with pytest.raises(fo.InputError, match="max_words"):
        plot_attribution(attribution(), max_words=0)


def test_plot_flow_of_attribution_and_of_solution() -> None:
    att = solved(layers=3)
    ax = plot_flow(att, max_edges=30)
    assert len(ax.lines) == 25
    assert [label.get_text() for label in ax.get_xticklabels()] == list(att.tokens)
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["input", "layer 1"]
    ax = plot_flow(att.solutions[0])
    assert [label.get_text() for label in ax.get_xticklabels()] == list("01234")
    with pytest.raises(fo.InputError, match="no solution 0"):
        plot_flow(attribution())
    with pytest.raises(fo.InputError, match="no solution 1"):
        plot_flow(att, which=1)


def test_attribution_methods_reach_the_pictures(tmp_path: Any) -> None:
    att = attribution()
    path = tmp_path / "page.html"
    assert att.to_html(path) == path.read_text(encoding="utf-8")
    assert len(att.plot().patches) == 3
    assert "flowopt" in att._repr_html_()
    with pytest.raises(AttributeError, match="nothing"):
        _ = fo.viz.nothing


# --- language models, normalised and signed scores ------------------------------------------------
def language(att: Attribution | None = None, **changes: Any) -> Attribution:
    """Scores of a token after two generated ones."""
    fields: dict[str, Any] = {
        "settings": {"tensor": "agf", "objective": "LogBarrier(gap=0.05)", "output": "token"},
        "prediction": Prediction("\u0120park", 7, 0.5, 1.0),
        "target": Prediction("\u0120park", 7, 0.5, 1.0),
        "prefix_tokens": ("\u0120to", "\u2581<i>"),
        "prefix_scores": np.array([0.5, 0.25]),
        "value": 1.75,
    }
    return replace(att or attribution(), **{**fields, **changes})


def test_the_predicted_token_is_quoted() -> None:
    assert printed(language()).startswith("token \u2018 park\u2019  50.0 %")
    other = language(target=Prediction("ball", 3, 0.1, 0.2))
    assert "explained token: \u2018ball\u2019 10.0 %" in printed(other)
    assert "explained token: <b>token \u2018ball\u2019" in html.to_html(other)
    assert plot_attribution(other).get_title(loc="left").startswith("token \u2018ball\u2019 10.0 %")
    mpl.pyplot.close("all")
    assert "explained class: negative" in printed(
        attribution(target=Prediction("negative", 0, 0.1, 0.2))
    )


def test_generated_tokens_with_scores_are_shown() -> None:
    att = language()
    found = content.rows(att)
    assert [row.word for row in found if row.generated] == ["to", "<i>"]
    assert sum(row.share for row in found) == pytest.approx(1)
    assert content.total(att) == pytest.approx(1.75)
    text = printed(att)
    assert "generated before" in text
    assert "to <i>" in text
    assert [line.split()[-2:] for line in text.splitlines() if line.startswith("to ")][-1] == [
        "28.6",
        "%",
    ]
    page = html.to_html(att)
    Checker(page)
    assert "generated before" in page
    assert "<i>" not in page.replace("<i class", "")
    assert [tick.get_text() for tick in plot_attribution(att).get_yticklabels()][-2:] == [
        "to",
        "<i>",
    ]
    mpl.pyplot.close("all")
    assert "generated before" not in printed(attribution())


def test_scores_before_a_normalisation_are_shown() -> None:
    att = attribution(raw_scores=np.array([0.5, 0.11, 0.12, 0.13, 0.14]))
    text = printed(att)
    assert "raw" in text
    assert "0.1300" in text
    page = html.to_html(att)
    Checker(page)
    assert "<th>before normalisation</th>" in page
    assert "before normalisation: 0.13" in page
    assert "raw" not in printed(attribution())
    assert "before normalisation" not in html.to_html(attribution())


def test_signed_prefix_scores_make_it_signed() -> None:
    att = language(prefix_scores=np.array([-0.5, 0.25]))
    assert content.is_signed(att)
    assert content.rows(att)[-2].level < 0
    assert "flow for minus flow against" in printed(att)
    assert 'class="m' in html.to_html(att)


def test_a_zero_says_why() -> None:
    zero = {"scores": np.zeros(5), "value": 0.0, "max_flow": 0.0, "error": 0.0}
    settings = {"sources": [4], "sources_given": True}
    chosen = attribution(**zero, settings=settings)
    hint = content.hint(chosen)
    assert hint is not None
    assert (
        "nothing flows: the prediction does not depend on the chosen source positions (4)" in hint
    )
    assert hint in " ".join(printed(chosen, width=200).split())
    assert hint in html.to_html(chosen)
    for other in ({"sources": "all"}, {}, {**settings, "sources_given": False}):
        assert "no path of positive capacities" in str(
            content.hint(attribution(**zero, settings=other))
        )
    assert content.hint(attribution(settings=settings)) is None
    assert content.hint(attribution(**zero, status="failed", settings=settings)) is None
    assert "nothing flows" not in printed(attribution())


def test_players_of_unrolled_networks_have_names() -> None:
    att = attribution()
    assert content.player_names(att, 5) == (
        ["[CLS]", "a", "gripping", "film", "[SEP]"],
        [True, False, False, False, True],
    )
    names, dim = content.player_names(att, 7) or ([], [])
    assert names[-2:] == ["+1", "+2"]
    assert dim[-2:] == [True, True]
    names, _ = content.player_names(language(), 7) or ([], [])
    assert names[-2:] == ["\u0120to", "\u2581<i>"]
    assert content.player_names(att, 4) is None
