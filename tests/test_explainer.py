"""The explainer: texts in, attributions out, in order, and errors that name their text."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from model_fixtures import tiny_model

import flowopt.explainer.flow as flow
import flowopt.explainer.passes as module
from flowopt.attribution import Attribution
from flowopt.capacities import GammaScale, Residual, RowNormalize, compose
from flowopt.errors import FlowoptWarning, InputError, SolverError, UnsupportedError
from flowopt.explainer import Explainer
from flowopt.explainer.sources import check_sources, top_nodes
from flowopt.network import FlowNetwork
from flowopt.objectives import LogBarrier, MaxFlow
from flowopt.solvers import solve
from flowopt.tensors import information_tensor
from flowopt.trace import batch_of_inputs, trace_batch
from flowopt.trace.batch import similar_lengths

TEXT = "The film is not very good, but the actor was great!"
TEXTS = [TEXT, "great", "it was unbelievable and slow", "bad bad film"]


@pytest.fixture
def explainer(tiny_bert, tiny_tokenizer) -> Explainer:
    return Explainer(tiny_bert, tiny_tokenizer)


def test_scores_are_the_flow_through_the_tokens(explainer, tiny_bert):
    attribution = explainer(TEXT)
    assert isinstance(attribution, Attribution)
    (solution,) = attribution.solutions
    np.testing.assert_array_equal(attribution.scores, solution.attributions)
    assert attribution.scores.sum() == pytest.approx(attribution.value)
    assert attribution.value == pytest.approx(attribution.max_flow, rel=0.05)
    assert attribution.value <= attribution.max_flow
    assert attribution.status == "optimal"
    assert attribution.certificate.conservation <= 1e-9
    assert attribution.certificate.attribution_error.shape == attribution.scores.shape
    assert attribution.tokens[0] == "[CLS]"
    assert list(np.flatnonzero(attribution.special)) == [0, len(attribution.tokens) - 1]
    settings = attribution.settings
    assert settings["tensor"] == "agf"
    assert settings["objective"] == repr(LogBarrier(gap=0.05))
    assert settings["sources"] == "all"
    assert set(settings["seconds"]) == {"trace", "tensor", "solve"}
    assert all(seconds > 0 for seconds in settings["seconds"].values())


@pytest.mark.parametrize("tensor", ["af", "gf", "agf"])
def test_the_steps_done_by_hand(tiny_bert, tiny_tokenizer, tensor):
    attribution = Explainer(tiny_bert, tiny_tokenizer, tensor=tensor)(TEXT, target="negative")
    batch = batch_of_inputs(tiny_bert, dict(tiny_tokenizer(TEXT, return_tensors="pt")), 0)
    (trace,) = trace_batch(tiny_bert, batch)
    capacities = information_tensor(tensor, trace.attention, trace.gradient)
    expected = solve(FlowNetwork.layered(capacities), LogBarrier(gap=0.05))
    np.testing.assert_allclose(attribution.scores, expected.attributions, rtol=1e-4, atol=1e-9)
    assert attribution.target.index == 0


def test_lists_keep_their_order(explainer):
    attributions = explainer(TEXTS)
    assert [attribution.text for attribution in attributions] == TEXTS
    for text, attribution in zip(TEXTS, attributions, strict=True):
        alone = explainer(text)
        assert alone.tokens == attribution.tokens
        np.testing.assert_allclose(
            attribution.scores, alone.scores, rtol=1e-3, atol=1e-5 * alone.value
        )
    assert explainer([]) == []
    assert [a.text for a in explainer(iter(TEXTS[:2]))] == TEXTS[:2]
    assert [a.text for a in explainer((TEXT,))] == [TEXT]


def test_targets(explainer):
    first, second = explainer([TEXT, TEXT], target=["negative", 1])
    assert (first.target.label, second.target.label) == ("negative", "positive")
    predicted = explainer(TEXT)
    assert predicted.target == predicted.prediction
    with pytest.raises(InputError, match="1 targets for 2 inputs"):
        explainer([TEXT, TEXT], target=["negative"])
    with pytest.raises(InputError, match="negative, positive"):
        explainer(TEXT, target="neutral")


def test_a_single_logit(tiny_tokenizer):
    attribution = Explainer(tiny_model("roberta", labels=("score",)), tiny_tokenizer)(TEXT)
    assert 0 < attribution.prediction.probability < 1
    assert attribution.prediction.label == "score"


@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "electra", "albert"])
def test_other_families(model_type, tiny_tokenizer):
    attribution = Explainer(tiny_model(model_type), tiny_tokenizer)(TEXT)
    assert attribution.status == "optimal"
    assert attribution.value > 0


def test_sources_and_capacities(tiny_bert, tiny_tokenizer):
    def used(**options):
        attribution = Explainer(tiny_bert, tiny_tokenizer, **options)(TEXT)
        assert attribution.status == "optimal"
        return attribution.settings["sources"], attribution.settings["capacities"]

    assert used(sources="cls") == ([0], [])
    assert used(sources=-1, tensor="af") == ([14], [])
    assert used(sources=[2, 0], tensor="af") == ([0, 2], [])
    residual = ["Residual(alpha=0.5)", "RowNormalize()"]
    # A residual revives top nodes that the head does not read: the default becomes its position.
    assert used(capacities=(Residual(), RowNormalize())) == ([0], residual)
    assert used(capacities=[Residual(), RowNormalize()], sources="all") == ("all", residual)
    assert used(capacities=compose(Residual()))[0] == [0]
    assert used(capacities=GammaScale())[1] == ["GammaScale(beta=None)"]


def test_gamma_scale_only_rescales_the_result(tiny_bert, tiny_tokenizer):
    plain = Explainer(tiny_bert, tiny_tokenizer)(TEXT)
    scaled = Explainer(tiny_bert, tiny_tokenizer, capacities=GammaScale(2))(TEXT)
    np.testing.assert_allclose(scaled.scores, 100 * plain.scores, rtol=1e-6, atol=1e-9)


def test_sources_of_a_network():
    assert top_nodes(None, 5, None, residual=True) == "all"
    assert top_nodes(np.int64(2), 5, 0, residual=True) == [2]
    assert top_nodes("all", 5, 0, residual=True) == "all"
    with pytest.raises(InputError, match="several positions"):
        top_nodes("cls", 5, None, residual=False)
    with pytest.raises(InputError, match=r"\[5\] are out of range"):
        top_nodes([0, 5], 5, 0, residual=False)
    for wrong in ("first", 1.5, True, [], [0.5], ["cls"], {"a": 1}):
        with pytest.raises(InputError, match="sources must"):
            check_sources(wrong)


def test_user_tensors(tiny_bert, tiny_tokenizer, monkeypatch):
    def largest_head(trace):
        assert trace.text == TEXT
        return trace.attention.max(axis=1)

    attribution = Explainer(tiny_bert, tiny_tokenizer, tensor=largest_head)(TEXT)
    assert attribution.settings["tensor"] == "largest_head"
    monkeypatch.setattr(torch.autograd, "grad", None)  # "af" must not run the backward pass
    assert Explainer(tiny_bert, tiny_tokenizer, tensor="af")(TEXT).status == "optimal"


def test_explain_inputs(tiny_bert, tiny_tokenizer):
    with_names = Explainer(tiny_bert, tiny_tokenizer)
    without = Explainer(tiny_bert)
    expected = with_names(TEXT)
    one = dict(tiny_tokenizer(TEXT, return_tensors="pt"))
    attribution = without.explain_inputs(**one)
    np.testing.assert_allclose(attribution.scores, expected.scores, rtol=1e-5)
    assert attribution.tokens == tuple(str(i) for i in range(len(expected.tokens)))
    assert not attribution.special.any()
    assert attribution.text is None
    assert [word.word for word in attribution.words()] == list(attribution.tokens)
    assert with_names.explain_inputs(**one).tokens == expected.tokens
    several = dict(tiny_tokenizer(TEXTS[:2], return_tensors="pt", padding=True))
    attributions = without.explain_inputs(target="positive", **several)
    assert [len(a.tokens) for a in attributions] == [15, 3]
    assert all(a.target.label == "positive" for a in attributions)
    with pytest.raises(InputError, match="explain_inputs"):
        without(TEXT)


def test_nothing_is_computed_when_a_text_is_wrong(explainer, monkeypatch):
    def never(*_, **__):
        raise AssertionError("computed")

    monkeypatch.setattr(module, "explain_batch", never)
    for wrong in ("", None, 3):
        with pytest.raises(InputError, match="text 2 "):
            explainer(["good", "bad", wrong])
    for wrong in (None, 3, b"good", {"text": 1}):
        with pytest.raises(InputError, match="a str, or a list of them"):
            explainer(wrong)


def test_errors_say_which_text(explainer, monkeypatch):
    def fails_for_long(net, *_, **__):
        if net.groups["layer0"] > 10:
            raise SolverError("no answer", solution="best")
        return solve(net)

    monkeypatch.setattr(flow, "solve", fails_for_long)
    with pytest.raises(SolverError, match=r"text 1 \('The film is not very.*no answer") as caught:
        explainer(["great", TEXT, "bad"])
    assert caught.value.solution == "best"
    with pytest.raises(SolverError, match=r"^no answer"):
        explainer(TEXT)


def test_long_texts_are_cut_with_a_warning(explainer):
    with pytest.warns(FlowoptWarning, match="62 tokens") as caught:
        attribution = explainer("good " * 60)
    assert caught[0].filename == __file__
    assert len(attribution.tokens) == 40


def test_progress_bar(explainer, capsys):
    explainer(TEXTS[:2])
    assert capsys.readouterr().err == ""
    explainer(TEXTS[:2], progress=True)
    assert "2/2" in capsys.readouterr().err


def test_batches_are_complete_sorted_and_bounded():
    lengths = [5, 512, 3, 512, 512, 4, 100, 1]
    groups = similar_lengths(lengths, 3)
    assert sorted(i for group in groups for i in group) == list(range(8))
    assert groups == [[7, 2, 5], [0, 6], [1, 3], [4]]
    assert similar_lengths([10**6], 4) == [[0]]
    assert similar_lengths([], 4) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor": "agg"}, "did you mean 'agf'"),
        ({"objective": "barrier"}, r"LogBarrier\(gap=0.05\)"),
        ({"objective": MaxFlow}, r"LogBarrier\(gap=0.05\)"),
        ({"sources": "first"}, "sources must"),
        ({"capacities": "residual"}, "capacity variant"),
        ({"capacities": (Residual,)}, "capacity variant"),
        ({"batch_size": 0}, "batch_size"),
        ({"solver": "nobody"}, "nobody"),
        ({"device": "nowhere"}, "cannot use device 'nowhere'"),
    ],
)
def test_wrong_options(tiny_bert, tiny_tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        Explainer(tiny_bert, tiny_tokenizer, **options)


def test_other_objectives(tiny_bert, tiny_tokenizer):
    attribution = Explainer(tiny_bert, tiny_tokenizer, objective=MaxFlow(), device="cpu")(TEXT)
    assert attribution.value == pytest.approx(attribution.max_flow)
    assert attribution.settings["objective"] == "MaxFlow()"


def test_from_pretrained_folder(tiny_bert, tiny_tokenizer, tmp_path):
    tiny_bert.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    expected = Explainer(tiny_bert, tiny_tokenizer, tensor="gf")(TEXT)
    for name in (tmp_path, str(tmp_path)):
        attribution = Explainer.from_pretrained(name, tensor="gf")(TEXT)
        np.testing.assert_allclose(attribution.scores, expected.scores, rtol=1e-6)
    assert attribution.settings["model"] == str(tmp_path)


def test_from_pretrained_bundled():
    attribution = Explainer.from_pretrained()("A gripping, funny film.")
    assert attribution.status == "optimal"
    assert {attribution.prediction.label} <= {"negative", "positive"}
    assert [word.word for word in attribution.words()] == [
        "A",
        "gripping",
        ",",
        "funny",
        "film",
        ".",
    ]


@pytest.fixture
def offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_from_pretrained_failures(offline, tiny_bert, tiny_tokenizer, tmp_path):
    import transformers

    with pytest.raises(InputError, match=r"there is no folder '\./nowhere'") as caught:
        Explainer.from_pretrained("./nowhere")
    assert caught.value.__cause__ is None
    with pytest.raises(
        InputError, match=r"'nobody/nothing'.*not in the local cache.*without network"
    ) as caught:
        Explainer.from_pretrained("nobody/nothing")
    assert caught.value.__suppress_context__
    assert "\n" not in str(caught.value)
    for wrong in (3, "", " "):
        with pytest.raises(InputError, match="folder, a hub name or None"):
            Explainer.from_pretrained(wrong)
    with pytest.raises(InputError, match=r"configuration in the folder.*save_pretrained"):
        Explainer.from_pretrained(tmp_path)
    transformers.BertModel(tiny_bert.config).save_pretrained(tmp_path / "headless")
    tiny_tokenizer.save_pretrained(tmp_path / "headless")
    with pytest.raises(UnsupportedError, match="no weights for classifier"):
        Explainer.from_pretrained(tmp_path / "headless")
    transformers.XLNetConfig(architectures=["XLNetModel"]).save_pretrained(tmp_path / "xlnet")
    with pytest.raises(UnsupportedError, match=r"'xlnet' are not known.*register_family"):
        Explainer.from_pretrained(tmp_path / "xlnet")


@pytest.mark.slow
def test_importing_stays_light():
    code = (
        "import sys, flowopt, flowopt.explainer, flowopt.attribution, flowopt.trace;"
        "names = {'torch', 'transformers', 'cvxpy', 'matplotlib', 'tqdm', 'rich'};"
        "heavy = names & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
