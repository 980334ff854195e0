"""Model inputs of every kind: those that fit are read, the others refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_fixtures import CASES
from generation_fixtures import decoder as small_decoder
from generation_fixtures import word_tokenizer

import flowopt as fo
from flowopt.errors import InputError

IDS = [1, 5, 9, 7, 6, 8, 4]


def _explainer(family: str, head: str, **options):
    return fo.Explainer(CASES[family].model(head), **options)


@pytest.fixture(scope="module")
def classifier():
    return _explainer("bert", "SequenceClassification")


@pytest.fixture(scope="module")
def decoder():
    return _explainer("gpt2", "CausalLM")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint64"])
def test_integers_of_any_width(classifier, dtype):
    expected = classifier.explain_inputs(input_ids=[IDS])
    found = classifier.explain_inputs(input_ids=np.array([IDS], dtype=dtype), attention_mask=None)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_ids": torch.tensor([IDS]).bool()}, "input_ids must be integers"),
        ({"input_ids": torch.tensor([IDS]) + 0j}, "input_ids must be integers"),
        ({"input_ids": [IDS], "token_type_ids": [[0] * 6]}, "token_type_ids must have shape"),
        ({"input_ids": [IDS], "token_type_ids": [[5] * 7]}, "token_type_ids run up to 5"),
        ({"input_ids": [IDS], "token_type_ids": [[0.0] * 7]}, "token_type_ids must be integers"),
        ({"input_ids": [IDS], "position_ids": [[*range(20, 27)]]}, "position_ids run up to 26"),
        ({"input_ids": [IDS], "position_ids": [[*range(-1, 6)]]}, "must not be negative"),
        ({"input_ids": [IDS], "labels": [7]}, "leave labels out"),
        ({"input_ids": [IDS], "kwargs": 1}, "takes no input 'kwargs'"),
        ({"inputs_embeds": np.zeros((1, 7, 5))}, "inputs_embeds must have shape"),
        ({"inputs_embeds": np.zeros((1, 7, 12), dtype=int)}, "inputs_embeds must be floating"),
        ({"input_ids": [IDS], "target": 1.0}, "target must be"),
    ],
)
def test_inputs_that_do_not_fit(classifier, given, message):
    with pytest.raises(InputError, match=message):
        classifier.explain_inputs(**given)


@pytest.mark.parametrize("name", ["logits_to_keep", "use_cache", "past_key_values"])
def test_arguments_that_are_no_inputs(decoder, name):
    with pytest.raises(InputError, match=f"leave {name} out"):
        decoder.explain_inputs(input_ids=[IDS], **{name: 1})


def test_embeddings_of_a_decoders_prefix(decoder):
    seq2seq = _explainer("bart", "Seq2SeqLM")
    with pytest.raises(InputError, match="decoder_input_ids"):
        seq2seq.explain_inputs(input_ids=[IDS], decoder_inputs_embeds=np.zeros((1, 2, 12)))
    with pytest.raises(InputError, match="decoder_input_ids run from 1 to 77"):
        seq2seq.explain_inputs(input_ids=[IDS], decoder_input_ids=[[1, 77]])
    embeds = decoder.model.get_input_embeddings()(torch.tensor([IDS])).detach()
    # their generated part would silently drop out of an unrolled network
    with pytest.raises(InputError, match="unroll=False"):
        decoder.explain_inputs(inputs_embeds=embeds, prompt_length=3)
    whole = decoder.explain_inputs(inputs_embeds=embeds, prompt_length=len(IDS))
    expected = decoder.explain_inputs(input_ids=[IDS])
    np.testing.assert_allclose(whole.scores, expected.scores, atol=1e-12)


@pytest.mark.parametrize("number", [np.int64(3), torch.tensor(3), np.array([3])])
def test_numbers_of_arrays(decoder, number):
    expected = decoder.explain_inputs(5, input_ids=[IDS], prompt_length=3)
    found = decoder.explain_inputs(torch.tensor(5), input_ids=[IDS], prompt_length=number)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.target == expected.target


@pytest.mark.parametrize("length", ["a", 1.0, True, [None], [1.5]])
def test_prompt_lengths_that_are_no_numbers(decoder, length):
    with pytest.raises(InputError, match=r"prompt_length|prompt lengths"):
        decoder.explain_inputs(input_ids=[IDS], prompt_length=length)


@pytest.mark.parametrize("tensor", ["agf", "agf-path", "conductance"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_padding_on_the_left_changes_nothing(family, tensor):
    explainer = _explainer(family, "CausalLM", tensor=tensor)
    short = IDS[:4]
    padded = {
        "input_ids": [IDS, [0, 0, 0, *short]],
        "attention_mask": [[1] * 7, [0, 0, 0, 1, 1, 1, 1]],
    }
    found = explainer.explain_inputs(**padded)
    for attribution, ids in zip(found, (IDS, short), strict=True):
        alone = explainer.explain_inputs(input_ids=[ids])
        assert alone.prediction.index == attribution.prediction.index
        np.testing.assert_allclose(attribution.scores, alone.scores, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"unroll": "no"}, "unroll must be"), ({"capacities": 5}, "capacity variant")],
)
def test_options_that_cannot_be_used(decoder, options, message):
    with pytest.raises(InputError, match=message):
        fo.Explainer(decoder.model, **options)


def test_a_contrast_with_the_target_itself(decoder):
    explainer = fo.Explainer(decoder.model, contrast=5)
    with pytest.raises(InputError, match="is the target itself"):
        explainer.explain_inputs(5, input_ids=[IDS])


def test_attention_of_complex_numbers():
    with pytest.raises(InputError, match="array of numbers"):
        fo.rollout(np.eye(3)[None, None] + 0j)


@pytest.mark.parametrize(
    ("family", "head"), [("bert", "SequenceClassification"), ("t5", "Seq2SeqLM")]
)
def test_a_folder_without_a_tokenizer(tmp_path, family, head):
    model = CASES[family].model(head)
    model.float().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="tokenizer"):
        fo.Explainer.from_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    explainer = fo.Explainer.from_pretrained(tmp_path)
    assert "\u2581once" in explainer.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pixel_values": np.zeros((1, 3, 12, 8), np.uint8)}, "pixel_values must be floating"),
        ({"pixel_values": np.zeros((1, 1, 12, 8))}, "pixel_values must have shape"),
        ({"pixel_values": np.zeros((1, 3, 12, 8)), "prompt_length": 2}, "prompt_length"),
    ],
)
def test_pixels_that_do_not_fit(given, message):
    with pytest.raises(InputError, match=message):
        _explainer("vit", "ImageClassification").explain_inputs(**given)


@pytest.mark.parametrize("options", [{"no_option": 2}, {"do_sample": True, "temperature": -1.0}])
def test_options_that_generate_refuses(options):
    with pytest.raises(InputError, match="generate cannot use"):
        fo.Explainer(*small_decoder()).explain_generation("once upon", **options)
