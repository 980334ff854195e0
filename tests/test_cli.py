"""The command line: exit codes, one line for an error, JSON, files, pages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import flowopt as fo
from flowopt import assets
from flowopt.cli import app, compare, explain, options
from flowopt.cli.shell import paragraphs, verdict
from flowopt.errors import InputError, MissingDependencyError, SolverError

TEXT = "A gripping, funny film."
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def bundled() -> Any:
    return assets.load_bundled()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, bundled: Any) -> Run:
    """Run a command in this process, with a model that is loaded once for all tests."""
    monkeypatch.setattr(assets, "load_bundled", lambda: bundled)
    monkeypatch.setenv("COLUMNS", "100")
    # What helps a process that soon ends has no place in one that goes on.
    for module in (explain, compare):
        monkeypatch.setattr(module, "swift_start", nullcontext)
    runner = CliRunner()
    return lambda *words, **more: runner.invoke(app, [str(word) for word in words], **more)


def one_line_error(result: Any, code: int = 2) -> str:
    """Check that a run failed as it should, and return its message."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("flowopt: error: ")
    assert "Traceback" not in lines[0]
    return str(lines[0].removeprefix("flowopt: error: "))


# --- explain: answers ----------------------------------------------------------------------------
def test_explain_prints_words_and_proof(run: Run) -> None:
    result = run("explain", TEXT)
    assert (result.exit_code, result.stderr) == (0, "")
    for expected in ("positive", "gripping", "proved optimal", "[CLS]+[SEP] take", "|f| ="):
        assert expected in result.stdout


def test_json_is_one_object_in_one_line(run: Run) -> None:
    result = run("explain", TEXT, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 1
    answer = json.loads(result.stdout)
    wanted = {"text", "tokens", "scores", "prediction", "value", "max_flow", "status"}
    assert wanted | {"certificate"} <= answer.keys()
    assert {"label", "index", "probability"} <= answer["prediction"].keys()
    assert answer["text"] == TEXT
    assert len(answer["tokens"]) == len(answer["scores"]) == 8
    assert sum(answer["scores"]) == pytest.approx(answer["value"])
    assert answer["status"] == "optimal"
    assert fo.Attribution.from_json(result.stdout).tokens[2] == "gripping"


def test_json_says_what_the_library_says(run: Run, bundled: Any) -> None:
    answer = json.loads(run("explain", TEXT, "--json").stdout)
    att = fo.Explainer(*bundled)(TEXT)
    np.testing.assert_allclose(answer["scores"], att.scores, rtol=1e-9)


def test_several_texts_give_one_line_each(run: Run) -> None:
    result = run("explain", TEXT, "A dull plot.", "--json")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["text"] for answer in answers] == [TEXT, "A dull plot."]
    assert "line" not in answers[0]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--objective", "maxflow"), "MaxFlow()"),
        (("--mu", "0.01"), "LogBarrier(mu=0.01)"),
        (("--objective", "BARRIER", "--gap", "0.1"), "LogBarrier(gap=0.1)"),
    ],
)
def test_options_reach_the_objective(run: Run, words: tuple[str, ...], name: str) -> None:
    answer = json.loads(run("explain", TEXT, "--json", *words).stdout)
    assert answer["settings"]["objective"] == name


def test_options_reach_the_explainer(run: Run) -> None:
    words = ("--tensor", "af", "--target", "negative", "--sources", "0,3", "--solver", "native")
    answer = json.loads(run("explain", TEXT, "--json", *words).stdout)
    assert answer["settings"]["tensor"] == "af"
    assert answer["settings"]["sources"] == [0, 3]
    assert answer["settings"]["solver"] == "native"
    assert (answer["target"]["label"], answer["prediction"]["label"]) == ("negative", "positive")
    answer = json.loads(run("explain", TEXT, "--json", "--target", "0").stdout)
    assert answer["target"]["index"] == 0


def test_residual_normalises_rows_and_reads_one_position(run: Run) -> None:
    answer = json.loads(run("explain", TEXT, "--json", "--residual", "0.5").stdout)
    assert answer["settings"]["capacities"] == ["RowNormalize()", "Residual(alpha=0.5)"]
    assert answer["settings"]["sources"] == [0]
    assert answer["max_flow"] <= 1 + 1e-9  # rows sum to 1 at most


# --- explain: files ------------------------------------------------------------------------------
def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_file_keeps_order_and_skips_blank_lines(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "texts.txt", "\ufeffA good film.\n\nBad, truly bad!\r\n   \nGood")
    result = run("explain", "--file", path, "--json")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [(a["line"], a["text"]) for a in answers] == [
        (1, "A good film."),
        (3, "Bad, truly bad!"),
        (5, "Good"),
    ]
    assert result.stderr == "flowopt: note: skipped blank lines 2, 4\n"


def test_a_line_that_fails_does_not_lose_the_others(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "texts.txt", "A good film.\n\u200b\nA bad film.\n")
    result = run("explain", "-f", path, "--json")
    assert [json.loads(line)["line"] for line in result.stdout.splitlines()] == [1, 3]
    assert result.exit_code == 1
    assert re.search(r"^flowopt: error: line 2: .*no token", result.stderr, re.MULTILINE)
    assert "Traceback" not in result.stderr


def test_results_are_streamed_in_order_across_chunks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "_CHUNK", 3)
    texts = ["Good film " + "indeed " * (7 - i) for i in range(8)]
    path = write(tmp_path / "texts.txt", "\n".join(texts))
    result = run("explain", "-f", path, "--json")
    assert [json.loads(line)["line"] for line in result.stdout.splitlines()] == list(range(1, 9))


def test_standard_input(run: Run) -> None:
    result = run("explain", "--file", "-", "--json", input="A good film.\n\nA bad film.\n")
    assert [json.loads(line)["line"] for line in result.stdout.splitlines()] == [1, 3]


def test_output_takes_the_place_of_printing(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "texts.txt", "A good film.\nA bad film.\n")
    output = tmp_path / "results.jsonl"
    result = run("explain", "-f", path, "-o", output)
    assert (result.exit_code, result.stdout) == (0, "")
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [answer["line"] for answer in answers] == [1, 2]
    assert result.stderr.startswith("flowopt: note: wrote ")


def test_html_page_has_every_text(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = run("explain", TEXT, "Dull & <b>slow</b>.", "--html", page, "--json")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    text = page.read_text(encoding="utf-8")
    assert text.count("<article>") == 2
    assert "<b>slow" not in text


def test_a_text_that_is_cut_warns_in_one_line(run: Run) -> None:
    result = run("explain", "long " * 600, "--json")
    assert result.exit_code == 0
    assert re.fullmatch(r"flowopt: warning: .* were cut; .*\n", result.stderr)


# --- explain: language models --------------------------------------------------------------------
PROMPT = "once upon a time"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a tiny random decoder and a tiny random encoder-decoder."""
    from generation_fixtures import decoder, translator

    found = {}
    for name, (model, tokenizer) in (("decoder", decoder()), ("translator", translator())):
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


@pytest.fixture
def language(run: Run, folders: dict[str, Path]) -> Run:
    def run_with(name: str, *words: Any) -> Any:
        return run("explain", PROMPT, "--model", folders[name], "--tensor", "af", *words)

    return run_with


@pytest.mark.parametrize("name", ["decoder", "translator"])
def test_the_next_token(language: Run, name: str) -> None:
    result = language(name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("token \u2018")
    answer = json.loads(language(name, "--target", "dog", "--json").stdout)
    assert answer["target"]["label"] == "\u2581dog"
    assert answer["settings"]["output"] == "token"
    assert sum(answer["scores"]) == pytest.approx(answer["value"])
    by_id = json.loads(language(name, "--target", answer["target"]["index"], "--json").stdout)
    assert by_id["scores"] == pytest.approx(answer["scores"])


@pytest.mark.parametrize("name", ["decoder", "translator"])
def test_generation_gives_a_matrix(language: Run, name: str) -> None:
    result = language(name, "--generate", 3)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "every row proved optimal" in result.stdout
    assert f"{PROMPT} \u2192" in result.stdout
    result = language(name, "--generate", 3, "--json", "--no-unroll")
    assert len(result.stdout.splitlines()) == 1
    matrix = fo.attribution.AttributionMatrix.from_json(result.stdout)
    assert matrix.scores.shape[0] == 3
    assert matrix.prefix_scores is not None
    assert matrix.text == PROMPT


def test_a_given_continuation(language: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ("--continuation", " there was", "--contrast", "runner-up", "--json", "--html", page)
    answer = json.loads(language("decoder", *words).stdout)
    assert answer["output_tokens"] == ["\u2581there", "\u2581was"]
    assert answer["status"] == "optimal"
    assert 'class="matrix"' in page.read_text("utf-8")


def test_options_of_networks(language: Run) -> None:
    words = ("--stages", "sequential", "--residual", "0.5", "--json")
    settings = json.loads(language("translator", *words).stdout)["settings"]
    assert (settings["stages"], settings["unroll"]) == ("sequential", True)
    words = ("--normalise", "inverse_receptive_field", "--json")
    answer = json.loads(language("decoder", *words).stdout)
    assert answer["settings"]["normalise"] == "inverse_receptive_field"
    assert len(answer["raw_scores"]) == len(answer["scores"])


def test_a_file_of_prompts(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.txt", "the dog\nonce upon a time\n\u200b\n")
    words = ("--model", folders["decoder"], "--tensor", "af", "--generate", 2, "--json")
    result = run("explain", "-f", path, *words)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(answer["line"], len(answer["rows"])) for answer in answers][:2] == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("decoder", ("--target", "elephant trunk"), "is 2 tokens"),
        ("decoder", ("--target", "99"), "token id 99 is out of range"),
        ("decoder", ("--generate", "0"), "--generate must be a positive number of tokens"),
        ("decoder", ("--generate", "2", "--continuation", "x"), "not both"),
        ("decoder", ("--generate", "2", "--target", "dog"), "its own target"),
        ("decoder", ("--continuation", ""), "the continuation is empty"),
        ("decoder", ("--normalise", "reciprocal"), "normalise must be one of"),
        ("translator", ("--normalise", "uniform_reference"), "corrects for causal attention"),
        ("translator", ("--stages", "both"), "--stages must be one of"),
        ("translator", ("--stages", "sequential"), "add --residual 0.5"),
        ("decoder", ("--contrast", "elephant trunk"), "is 2 tokens"),
    ],
)
def test_unusable_options_of_language_models(
    language: Run, name: str, words: tuple[str, ...], message: str
) -> None:
    assert message in one_line_error(language(name, *words))


def test_a_classifier_generates_nothing(run: Run) -> None:
    assert "generates no text" in one_line_error(run("explain", TEXT, "--generate", "2"))


def test_a_zero_is_explained(run: Run) -> None:
    result = run("explain", TEXT, "--sources", "-1")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert (
        "nothing flows: the prediction does not depend on the chosen source positions (7)" in text
    )


# --- explain: input that cannot be used ----------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), 'try: flowopt explain "A gripping'),
        (("",), "empty"),
        ((" \n\t",), "empty"),
        ((TEXT, ""), "empty"),
        (("\u200b",), "no token besides special ones"),
        ((TEXT, "--model", "/no/such/folder"), "no folder"),
        ((TEXT, "--tensor", "agg"), "did you mean 'agf'"),
        ((TEXT, "--objective", "barier"), "did you mean 'barrier'"),
        ((TEXT, "--solver", "gurobi"), "nknown solver"),
        ((TEXT, "--objective", "maxflow", "--solver", "fair"), "fair cannot solve"),
        ((TEXT, "--mu", "0"), "--mu must be a positive number"),
        ((TEXT, "--mu", "-1e-3"), "--mu must be a positive number"),
        ((TEXT, "--mu", "nan"), "--mu must be a positive number"),
        ((TEXT, "--mu", "many"), "--mu"),
        ((TEXT, "--mu", "1", "--gap", "1"), "either --mu or --gap"),
        ((TEXT, "--rho", "1"), "--rho goes with --objective quadratic, not barrier"),
        ((TEXT, "--objective", "maxflow", "--mu", "1"), "--mu goes with --objective barrier"),
        ((TEXT, "--sources", "first"), "--sources must be"),
        ((TEXT, "--sources", "0,99"), "out of range"),
        ((TEXT, "--residual", "1.5"), "--residual must lie between 0 and 1"),
        ((TEXT, "--target", "neutral"), "no label 'neutral'"),
        ((TEXT, "--target", "7"), "out of range"),
        ((TEXT, "--file", "x.txt"), "not both"),
        (("--file", "no-such-file.txt"), "cannot read no-such-file.txt"),
        (("--file", "."), "cannot read ."),
        ((TEXT, "--html", "."), "cannot write"),
        ((TEXT, "--html", "no/such/folder/x.html"), "cannot write"),
        ((TEXT, "-o", "no/such/folder/x.jsonl"), "cannot write"),
        ((TEXT, "--no-such-option"), "--no-such-option"),
    ],
)
def test_unusable_input_is_exit_code_2_and_one_line(
    run: Run, words: tuple[str, ...], message: str
) -> None:
    assert message in one_line_error(run("explain", *words))


def test_files_without_text(run: Run, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.txt", "")
    assert "no line with text" in one_line_error(run("explain", "-f", empty))
    latin = tmp_path / "latin.txt"
    latin.write_bytes("café".encode("latin-1"))
    assert "not UTF-8" in one_line_error(run("explain", "-f", latin))


def test_an_empty_model_folder_is_unusable(run: Run, tmp_path: Path) -> None:
    assert "cannot read the configuration" in one_line_error(
        run("explain", TEXT, "--model", tmp_path)
    )


def test_debug_shows_the_traceback(run: Run) -> None:
    result = run("explain", TEXT, "--mu", "-1", "--debug")
    assert result.exit_code == 1
    assert isinstance(result.exception, InputError)
    assert isinstance(run("--debug", "explain", "").exception, InputError)


def test_a_text_cannot_forge_lines_or_steer_the_terminal(run: Run) -> None:
    message = one_line_error(run("explain", TEXT, "--objective", "x\nflowopt: \x1b[2J"))
    assert "\x1b" not in message


# --- shell ---------------------------------------------------------------------------------------
def test_exit_code_of_each_error() -> None:
    assert verdict(InputError("x")) == (2, "x")
    assert verdict(MissingDependencyError("x")) == (2, "x")
    assert verdict(SolverError("x")) == (1, "x")
    assert verdict(FileNotFoundError("x")) == (2, "x")
    assert verdict(KeyboardInterrupt())[0] == 130
    code, message = verdict(ZeroDivisionError("division"))
    assert code == 1
    assert message.startswith("unexpected ZeroDivisionError: division")


def test_an_unproved_answer_is_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise SolverError("no certified optimum")

    monkeypatch.setattr("flowopt.explainer.flow.solve", fail)
    assert one_line_error(run("explain", TEXT), code=1) == "no certified optimum"


def test_an_unexpected_error_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("flowopt.explainer.flow.solve", fail)
    message = one_line_error(run("explain", TEXT), code=1)
    assert message == "unexpected ZeroDivisionError: two lines (--debug shows where)"


def test_help_teaches(run: Run) -> None:
    for words in ((), ("--help",), ("-h",)):
        result = run(*words)
        assert result.exit_code == 0
        for expected in ("explain", "compare", "solvers", "tensors", 'flowopt explain "A'):
            assert expected in result.stdout
    shown = run("explain", "--help").stdout
    expected_words = ("--file", "--objective", "Examples", "Exit code", "barrier, maxflow")
    for expected in (*expected_words, "--generate", "--continuation", "--no-unroll", "--stages"):
        assert expected in shown
    assert "Examples" in run("compare", "--help").stdout


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"flowopt {fo.__version__}\n"


def test_unknown_command(run: Run) -> None:
    assert "explian" in one_line_error(run("explian"))


def test_paragraphs_join_lines() -> None:
    assert paragraphs("One\n    two.\n\n    Three\n") == "One two.\n\nThree"
    assert paragraphs(None) == ""


@pytest.mark.parametrize("name", options.OBJECTIVES)
def test_every_objective_can_be_made(name: str) -> None:
    kind, weights = options.OBJECTIVES[name]
    assert type(options.objective_of(name)).__name__ == kind
    for weight in weights:
        assert getattr(options.objective_of(name, **{weight: 0.25}), weight) == 0.25


# --- listings ------------------------------------------------------------------------------------
def test_solvers(run: Run) -> None:
    table = run("solvers").stdout
    assert "licence GPL-3" in " ".join(table.split())
    found = {each["name"]: each for each in json.loads(run("solvers", "--json").stdout)}
    assert found.keys() == set(fo.solvers.registered())
    assert "barrier" in found["native"]["objectives"]
    assert found["scipy"]["objectives"] == ["maxflow"]
    assert "quadratic" in found["CLARABEL"]["objectives"]


def test_a_solver_that_is_not_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowopt.solvers.ecos import Ecos

    monkeypatch.setattr(Ecos, "available", classmethod(lambda _: False))
    found = {each["name"]: each for each in json.loads(run("solvers", "--json").stdout)}
    assert found["ECOS"]["available"] is False
    assert "pip install ecos" in found["ECOS"]["note"]
    assert "pip install ecos" in one_line_error(run("explain", TEXT, "--solver", "ecos"))


def test_tensors(run: Run) -> None:
    assert "agf" in run("tensors").stdout
    found = {each["name"]: each for each in json.loads(run("tensors", "--json").stdout)}
    assert found["af"]["gradient"] is False
    assert found["agf"]["gradient"] is True
    assert all(each["summary"] for each in found.values())


# --- compare -------------------------------------------------------------------------------------
def arrays(path: Path, **named: Any) -> Path:
    np.savez(path, **named)
    return path


def test_compare_a_text(run: Run) -> None:
    result = run("compare", TEXT, "--objective", "maxflow", "--solvers", "scipy, highs")
    assert (result.exit_code, result.stderr) == (0, "")
    for expected in ("scipy", "HIGHS", "optimal"):
        assert expected in result.stdout


def test_compare_files(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    capacity = rng.uniform(0.1, 1, (2, 4, 4))
    attention = rng.dirichlet(np.ones(4), size=(2, 3, 4))
    gradient = rng.normal(size=(2, 3, 4, 4))
    words = ("--objective", "maxflow", "--solvers", "scipy", "--json")
    for number, named in enumerate(
        (
            {"capacities": capacity, "other": gradient},
            {"anything": capacity},
            {"attention": attention, "gradient": gradient},
        )
    ):
        path = arrays(tmp_path / f"{number}.npz", **named)
        result = run("compare", path, *words)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "scipy" in json.dumps(json.loads(result.stdout))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("",), "empty"),
        (("no-such.npz",), "cannot read no-such.npz"),
        ((TEXT, "--solvers", "native,gurobi"), "nknown solver"),
        ((TEXT, "--objective", "flow"), "no objective 'flow'"),
        ((), "TEXT|FILE.npz"),
    ],
)
def test_compare_unusable_input(run: Run, words: tuple[str, ...], message: str) -> None:
    assert message in one_line_error(run("compare", *words))


def test_compare_unusable_files(run: Run, tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.npz", "this is no archive")
    assert "no .npz file" in one_line_error(run("compare", broken))
    two = arrays(tmp_path / "two.npz", a=np.ones(3), b=np.ones(3))
    assert "name the array capacities" in one_line_error(run("compare", two))
    flat = arrays(tmp_path / "flat.npz", capacities=np.ones(3))
    assert "(layers, tokens, tokens)" in one_line_error(run("compare", flat))
    objects = arrays(tmp_path / "objects.npz", capacities=np.array([{}], dtype=object))
    assert "no .npz file of plain arrays" in one_line_error(run("compare", objects))
    half = arrays(tmp_path / "half.npz", attention=np.full((1, 1, 2, 2), 0.5))
    assert "gradient" in one_line_error(run("compare", half))


# --- real processes ------------------------------------------------------------------------------
def process(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "flowopt"
    return subprocess.run(
        [str(program), *words], capture_output=True, text=True, timeout=120, **more
    )


def test_process_explains() -> None:
    done = process("explain", TEXT, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["prediction"]["label"] == "positive"


def test_process_refuses_with_one_line() -> None:
    done = process("explain", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from flowopt.cli import app;"
        "app(['explain', '--help'], standalone_mode=False);"
        "print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'torch', 'transformers', 'cvxpy', 'scipy', 'numba', 'matplotlib', 'pandas'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    path = write(tmp_path / "texts.txt", "A good film.\nA bad film.\n")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    program = Path(sys.executable).parent / "flowopt"
    with subprocess.Popen(
        [str(program), "explain", "-f", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as done:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            shown += part
        assert done.stdout is not None
        answers = done.stdout.read().splitlines()
    os.close(ours)
    assert done.returncode == 0
    assert [json.loads(line)["line"] for line in answers] == [1, 2]
    assert b"explaining" in shown
    assert b"2/2" in shown
