"""The bundled sentiment classifier: offline loading, size, tokenizer, weights, accuracy."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from flowopt import assets
from flowopt.assets import (
    BUNDLED_FOLDER,
    BUNDLED_NAME,
    expand_int8,
    load_bundled,
    quantise_int8,
)

DEV_FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "sst2.jsonl"
LOADED_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
Bundled = tuple[PreTrainedModel, PreTrainedTokenizerBase]

POSITIVE = (
    "A gripping, funny film.",
    "I loved every minute of it!",
    "The acting is superb and the story is deeply moving.",
    "One of the best movies of the year.",
    "Warm, witty and beautifully photographed.",
)
NEGATIVE = (
    "A dull, lifeless mess.",
    "I hated every minute of it!",
    "The acting is terrible and the story makes no sense.",
    "One of the worst movies of the year.",
    "It is not funny, and it is far too long.",
)


@pytest.fixture(scope="module")
def bundled() -> Bundled:
    return load_bundled()


@pytest.fixture(scope="module")
def metrics() -> dict:
    return json.loads((BUNDLED_FOLDER / "metrics.json").read_text(encoding="utf-8"))


def predictions(bundled: Bundled, texts: list[str]) -> list[int]:
    model, tokenizer = bundled
    predicted = [0] * len(texts)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        inputs = tokenizer([texts[row] for row in rows], padding=True, return_tensors="pt")
        with torch.inference_mode():
            labels = model(**inputs).logits.argmax(-1).tolist()
        for row, label in zip(rows, labels, strict=True):
            predicted[row] = label
    return predicted


def test_loads_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the bundled model must load without network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model, tokenizer = load_bundled()
    assert model.name_or_path == tokenizer.name_or_path == BUNDLED_NAME
    assert tokenizer.model_max_length == 512
    assert not model.training


def test_every_tensor_is_real_and_float32(bundled: Bundled) -> None:
    model, _ = bundled
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert not [name for name, tensor in tensors.items() if tensor.is_meta]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_missing_weights_name_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assets, "BUNDLED_FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="reinstall flowopt"):
        load_bundled()


def test_folder_is_under_20_megabytes() -> None:
    size = sum(path.stat().st_size for path in BUNDLED_FOLDER.rglob("*") if path.is_file())
    assert size < 20_000_000


def test_tokenizer_round_trip(bundled: Bundled) -> None:
    _, tokenizer = bundled
    text = "A gripping, funny film about two sisters who run a lighthouse."
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["[CLS]", "[SEP]"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.lower()
    assert tokenizer(text.upper())["input_ids"] == ids


def test_plain_english_has_no_unknown_pieces(bundled: Bundled) -> None:
    _, tokenizer = bundled
    text = (
        "The quick brown fox's naïve café isn't far from Łódź -- it costs £3.50 (or €4) & it's "
        "“great”: zymurgy, quokkas, xylophonist, antidisestablishmentarianism; 1987/2026, 100 %!"
    )
    latin = " ".join(chr(code) for code in range(0xC0, 0x132) if chr(code).isalpha())
    assert tokenizer.unk_token_id not in tokenizer(text + " " + latin)["input_ids"]


def test_removed_words_split_into_their_letters(bundled: Bundled) -> None:
    _, tokenizer = bundled
    vocabulary = tokenizer.get_vocab()
    removed = [word for word in ("calabria", "paralympics", "sanjay") if word not in vocabulary]
    assert removed, "these words should not fit into the smaller vocabulary"
    for word in removed:
        pieces = tokenizer.tokenize(word)
        assert len(pieces) > 1
        assert "".join(piece.removeprefix("##") for piece in pieces) == word


def test_vocabulary_matches_embeddings(bundled: Bundled) -> None:
    model, tokenizer = bundled
    ids = sorted(tokenizer.get_vocab().values())
    assert ids == list(range(model.config.vocab_size))
    assert model.get_input_embeddings().weight.shape[0] == len(ids)
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0


def test_auto_tokenizer_reads_the_folder(bundled: Bundled) -> None:
    _, tokenizer = bundled
    text = "A gripping, funny film."
    assert AutoTokenizer.from_pretrained(BUNDLED_FOLDER)(text) == tokenizer(text)


def test_padding_does_not_change_the_answer(bundled: Bundled) -> None:
    model, tokenizer = bundled
    inputs = tokenizer([POSITIVE[0], " ".join(NEGATIVE)], padding=True, return_tensors="pt")
    with torch.inference_mode():
        padded = model(**inputs).logits[0]
        alone = model(**tokenizer(POSITIVE[0], return_tensors="pt")).logits[0]
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-4)


def test_reads_512_pieces(bundled: Bundled) -> None:
    model, tokenizer = bundled
    inputs = tokenizer("good " * 2000, truncation=True, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 512)
    with torch.inference_mode():
        assert torch.isfinite(model(**inputs).logits).all()


def test_clear_sentences(bundled: Bundled) -> None:
    expected = [1] * len(POSITIVE) + [0] * len(NEGATIVE)
    assert predictions(bundled, [*POSITIVE, *NEGATIVE]) == expected


def test_rounding_error_is_at_most_half_a_step() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(50, 30, generator=generator) * torch.logspace(-6, 3, 50).unsqueeze(1)
    matrix[7] = 0.0
    vector = torch.randn(5, generator=generator)
    stored = quantise_int8({"matrix": matrix, "vector": vector})
    assert stored["matrix"].dtype == torch.int8
    expanded = expand_int8(stored)
    assert set(expanded) == {"matrix", "vector"}
    step = matrix.abs().amax(dim=1, keepdim=True) / 127
    assert ((expanded["matrix"] - matrix).abs() <= step * (0.5 + 1e-4)).all()
    assert torch.equal(expanded["vector"], vector)


def test_quantising_twice_changes_nothing() -> None:
    matrix = torch.randn(20, 10, generator=torch.Generator().manual_seed(1))
    once = quantise_int8({"matrix": matrix})
    twice = quantise_int8(expand_int8(once))
    assert torch.equal(once["matrix"], twice["matrix"])


def test_int8_and_scales_must_pair_up() -> None:
    stored = quantise_int8({"matrix": torch.ones(2, 2)})
    for name in list(stored):
        with pytest.raises(ValueError, match="do not pair up for: matrix"):
            expand_int8({key: value for key, value in stored.items() if key != name})


def test_metrics_describe_these_files(bundled: Bundled, metrics: dict) -> None:
    for name in LOADED_FILES:
        assert metrics["bytes"][name] == (BUNDLED_FOLDER / name).stat().st_size
    assert metrics["bytes"]["total"] == sum(metrics["bytes"][name] for name in LOADED_FILES)
    assert metrics["vocabulary"]["after"] == bundled[0].config.vocab_size


def test_model_card_agrees_with_metrics(metrics: dict) -> None:
    card = (BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8")
    dev = metrics["dev"]
    for stage in ("before", "after"):
        assert f"{dev[stage]['correct']} of {dev['sentences']}" in card
        assert dev[stage]["accuracy"] == round(dev[stage]["correct"] / dev["sentences"], 4)
    assert f"{metrics['bytes']['total']:,} bytes" in card
    assert dev["after"]["accuracy"] >= 0.89


@pytest.mark.skipif(not DEV_FILE.is_file(), reason="the SST-2 sentences are not beside the code")
def test_accuracy_on_dev_sentences(bundled: Bundled, metrics: dict) -> None:
    with DEV_FILE.open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == "dev"]
    predicted = predictions(bundled, [row["text"] for row in rows])
    correct = sum(p == row["label"] for p, row in zip(predicted, rows, strict=True))
    assert correct / len(rows) >= 0.89
    # Another processor may tip a sentence that lies on the fence.
    assert abs(correct - metrics["dev"]["after"]["correct"]) <= 2
