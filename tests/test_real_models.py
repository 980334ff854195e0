"""Small real and trained models of paper_repro/real_models, against plain references."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_models import plain_encode, plain_llama, plain_transliteration

from flowopt.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "paper_repro" / "real_models"
if not SCRIPTS.is_dir():
    pytest.skip(f"{SCRIPTS} is not here", allow_module_level=True)
sys.path.insert(0, str(SCRIPTS))

import letters  # noqa: E402
import reversal  # noqa: E402
import stories  # noqa: E402
import transliteration  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
STORIES = DATA / "models" / "stories260K"
ARABIC = DATA / "models" / "aren_transliteration"
needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason=f"{STORIES} is not here")
needs_arabic = pytest.mark.skipif(not ARABIC.is_dir(), reason=f"{ARABIC} is not here")

PUBLISHED = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high."
)
KNOWN = {
    "آتزمون": "atzmon",
    "محمد": "mahmad",
    "سوريا": "soria",
    "لندن": "lenden",
    "باريس": "barris",
}


# --- stories260K ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def story() -> Any:
    return stories.load_stories(STORIES)


@pytest.fixture(scope="module")
def story_arrays() -> Any:
    return np.load(STORIES / "stories260K.npz")


@pytest.fixture(scope="module")
def story_vocabulary() -> tuple[list[str], list[float]]:
    content = json.loads((STORIES / "config_vocab.json").read_text(encoding="utf-8"))
    return content["vocab"], content["scores"]


def story_logits(model: Any, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


@needs_stories
def test_greedy_story_is_the_published_one(story: Any) -> None:
    model, tokenizer = story
    output = model.generate(torch.tensor([[tokenizer.bos_token_id]]), max_new_tokens=100)
    text = tokenizer.decode(output[0], skip_special_tokens=True)
    assert text.startswith(PUBLISHED)
    assert model.dtype == torch.float32
    assert not model.training


@needs_stories
def test_story_logits_equal_the_plain_forward_pass(story: Any, story_arrays: Any) -> None:
    model, tokenizer = story
    for ids in (tokenizer(PUBLISHED).input_ids, [1], list(range(0, 512, 3))):
        plain = plain_llama(story_arrays, ids)
        np.testing.assert_allclose(story_logits(model, ids), plain, atol=1e-4)


@needs_stories
def test_unconverted_rotary_layout_is_noticed(story: Any, story_arrays: Any) -> None:
    model, tokenizer = story
    ids = tokenizer(PUBLISHED).input_ids
    arrays = stories.read_arrays(STORIES / stories.ARRAYS)
    layer = model.model.layers[0].self_attn
    kept = layer.k_proj.weight.detach().clone()
    layer.k_proj.weight.data.copy_(arrays["wk"][0])
    try:
        gap = np.abs(story_logits(model, ids) - plain_llama(story_arrays, ids)).max()
    finally:
        layer.k_proj.weight.data.copy_(kept)
    assert gap > 0.1


@needs_stories
def test_tokenizer_equals_the_published_algorithm_on_real_text(
    story: Any, story_vocabulary: Any
) -> None:
    tokenizer = story[1]
    if not (DATA / "sst2.jsonl").is_file():
        pytest.skip("sst2.jsonl is not here")
    lines = (DATA / "sst2.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:150]]
    texts += [PUBLISHED, "", " ", "  two  spaces ", "lllllppppooooo", "Zoë’s 😀 naïve\n\ttabs\x00"]
    for text in texts:
        ids = tokenizer(text).input_ids
        assert ids == plain_encode(*story_vocabulary, text)
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


@needs_stories
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(st.sampled_from(" abedhilnopstuwyTLO.é\n🙂"), max_size=40) | st.text(max_size=20)
)
def test_tokenizer_equals_the_published_algorithm_on_any_text(
    story: Any, story_vocabulary: Any, text: str
) -> None:
    ids = story[1](text).input_ids
    assert ids == plain_encode(*story_vocabulary, text)
    assert story[1].decode(ids, skip_special_tokens=True) == text


@needs_stories
def test_wrong_merge_order_is_noticed(
    story: Any, story_vocabulary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = stories._merges
    monkeypatch.setattr(stories, "_merges", lambda scores: reversed(list(right(scores))))
    sabotaged = stories.story_tokenizer(STORIES / "tok512.bin")
    assert sabotaged(PUBLISHED).input_ids != plain_encode(*story_vocabulary, PUBLISHED)


@needs_stories
def test_broken_story_folders_are_refused(tmp_path: Path, story_arrays: Any) -> None:
    with pytest.raises(InputError, match="is missing"):
        stories.load_stories(tmp_path)
    names = ("stories260K.npz", "tok512.bin", "config_vocab.json")
    for name in names:
        shutil.copyfile(STORIES / name, tmp_path / name)
    kept = {name: story_arrays[name] for name in story_arrays.files}
    np.savez(tmp_path / names[0], **{k: v for k, v in kept.items() if k != "wk"})
    with pytest.raises(InputError, match=r"lacks the arrays \['wk'\]"):
        stories.load_stories(tmp_path)
    np.savez(tmp_path / names[0], **{**kept, "wk": kept["wq"]})
    with pytest.raises(InputError, match="not those of this model"):
        stories.load_stories(tmp_path)
    (tmp_path / names[0]).write_bytes(b"PK not an archive")
    with pytest.raises(InputError, match="cannot be read"):
        stories.load_stories(tmp_path)
    whole = (STORIES / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"not a llama2\.c tokenizer file"):
        stories.load_stories(tmp_path)
    (tmp_path / names[1]).write_bytes(whole[: whole.index(b"~") - 8])
    with pytest.raises(InputError, match="510 tokens where the model has 512"):
        stories.load_stories(tmp_path)
    (tmp_path / names[2]).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="lacks the model's sizes"):
        stories.load_stories(tmp_path)


# --- aren_transliteration ---------------------------------------------------------------------
@pytest.fixture(scope="module")
def arabic() -> Any:
    return transliteration.load_transliteration(ARABIC)


def arabic_gap(loaded: Any, word: str, answer: str) -> float:
    """Largest difference of the logits from the plain forward pass."""
    source = loaded.source(word).input_ids
    prefix = [1, *loaded.target(answer).input_ids[:-1]]
    plain = plain_transliteration(np.load(ARABIC / transliteration.ARRAYS), source, prefix)
    with torch.no_grad():
        output = loaded.model(
            input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([prefix])
        )
    return float(np.abs(output.logits[0].numpy() - plain).max())


@needs_arabic
def test_known_transliterations(arabic: Any) -> None:
    assert transliteration.transliterate(arabic, list(KNOWN)) == list(KNOWN.values())
    alone = [transliteration.transliterate(arabic, [word])[0] for word in KNOWN]
    assert alone == list(KNOWN.values())
    assert transliteration.transliterate(arabic, []) == []


@needs_arabic
def test_transliteration_logits_equal_the_plain_forward_pass(arabic: Any) -> None:
    for word, answer in KNOWN.items():
        assert arabic_gap(arabic, word, answer) < 1e-4
    assert arabic_gap(arabic, "مXم" * 10, "xø" * 15) < 1e-4


@needs_arabic
def test_wrong_positions_or_vocabularies_are_noticed(arabic: Any) -> None:
    encoder = arabic.model.model.encoder
    for weight in (encoder.embed_positions.weight, encoder.embed_tokens.weight):
        kept = weight.detach().clone()
        weight.data.copy_(kept.roll(1, dims=0))
        try:
            assert arabic_gap(arabic, "محمد", "mahmad") > 0.1
            answers = transliteration.transliterate(arabic, list(KNOWN))
        finally:
            weight.data.copy_(kept)
        assert answers != list(KNOWN.values())


@needs_arabic
def test_transliteration_shape_and_tokens(arabic: Any) -> None:
    model, source, target = arabic
    assert (len(source), len(target)) == (51, 43)
    assert model.get_input_embeddings().weight.shape == (51, 32)
    assert model.model.decoder.embed_tokens.weight.shape == (43, 32)
    assert not model.training
    assert source.convert_ids_to_tokens(source("محX م").input_ids) == [
        "م",
        "ح",
        "<unk>",
        "<unk>",
        "م",
    ]
    assert target.decode(target("soria").input_ids, skip_special_tokens=True) == "soria"
    labels = target(["soria"], return_tensors="pt").input_ids
    inputs = letters.encoded(source, ["سوريا"])
    with torch.no_grad():
        right = model(**inputs, labels=labels).loss
        wrong = model(**inputs, labels=labels.flip(1)).loss
    assert 0 < right < 1 < wrong


@needs_arabic
def test_unusable_words_are_refused(arabic: Any) -> None:
    longest = transliteration.MAX_LENGTH
    assert len(transliteration.transliterate(arabic, ["م" * longest])) == 1
    with pytest.raises(InputError, match="129 tokens"):
        transliteration.transliterate(arabic, ["م" * (longest + 1)])
    with pytest.raises(InputError, match="empty text"):
        transliteration.transliterate(arabic, ["محمد", ""])
    with pytest.raises(InputError, match="list of strings"):
        transliteration.transliterate(arabic, "محمد")


@needs_arabic
def test_broken_transliteration_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        transliteration.load_transliteration(tmp_path)
    names = (transliteration.ARRAYS, "source_vocabulary.txt", "target_vocabulary.txt")
    for name in names:
        shutil.copyfile(ARABIC / name, tmp_path / name)
    with np.load(ARABIC / names[0]) as archive:
        kept = {name: archive[name] for name in archive.files}
    np.savez(tmp_path / names[0], **kept, **{"decoder/extra/bias": np.zeros(3)})
    with pytest.raises(InputError, match="unknown meaning: decoder/extra/bias"):
        transliteration.load_transliteration(tmp_path)
    np.savez(tmp_path / names[0], wrong=np.zeros(3))
    with pytest.raises(InputError, match="lacks the arrays"):
        transliteration.load_transliteration(tmp_path)
    projection = {k: v for k, v in kept.items() if k != "decoder/projection/bias"}
    np.savez(tmp_path / names[0], **projection)
    with pytest.raises(InputError, match="not those of this model"):
        transliteration.load_transliteration(tmp_path)
    vocabulary = (ARABIC / names[1]).read_text(encoding="utf-8")
    (tmp_path / names[1]).write_text(vocabulary + "ي\n", encoding="utf-8")
    with pytest.raises(InputError, match="names a token twice"):
        transliteration.load_transliteration(tmp_path)
    (tmp_path / names[1]).write_text(vocabulary.replace("<s>\n", ""), encoding="utf-8")
    with pytest.raises(InputError, match=r"lacks the special tokens \['<s>'\]"):
        transliteration.load_transliteration(tmp_path)


# --- reversal ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def reverser() -> Any:
    return reversal.load_reversal()


def prefix_logits(loaded: Any, text: str, answer: str) -> torch.Tensor:
    """Logits (n, vocabulary) of the letters of the answer, given all letters before them."""
    model, tokenizer = loaded
    prefix = torch.tensor([[tokenizer.bos_token_id, *tokenizer(answer).input_ids[:-2]]])
    with torch.no_grad():
        return model(**letters.encoded(tokenizer, [text]), decoder_input_ids=prefix).logits[0]


def misplaced_influence(loaded: Any, texts: list[str]) -> int:
    """Single-letter changes of the source that change any answer letter but the mirrored one."""
    wrong = 0
    for number, text in enumerate(texts):
        at = number % len(text)
        other = "q" if text[at] != "q" else "z"
        changed = text[:at] + other + text[at + 1 :]
        before, after = (
            prefix_logits(loaded, source, text[::-1]).argmax(-1) for source in (text, changed)
        )
        moved = torch.nonzero(before != after).flatten().tolist()
        wrong += moved != [len(text) - 1 - at]
    return wrong


def test_bundled_checkpoint_reverses_strings_never_trained_on(reverser: Any) -> None:
    texts = reversal.held_out_strings(1000)
    assert len(set(texts)) == 1000
    assert all(reversal.is_held_out(text) and 4 <= len(text) <= 10 for text in texts)
    assert reversal.exact_accuracy(reverser, texts) >= 0.99
    size = sum(file.stat().st_size for file in reversal.CHECKPOINT.iterdir())
    assert size < 300_000
    assert reverser[0].dtype == torch.float32


def test_extreme_strings_are_reversed(reverser: Any) -> None:
    texts = ["aaaa", "aaaaaaaaaa", "zzzzzzzzzy", "abab", "abcdefghij"]
    answers = letters.greedy(reverser[0], reverser[1], reverser[1], texts, batch_size=2)
    assert answers == [text[::-1] for text in texts]


def test_each_letter_decides_its_mirror_image_alone(reverser: Any) -> None:
    texts = reversal.held_out_strings(100, seed=5)
    assert misplaced_influence(reverser, texts) <= 1
    model, tokenizer = reversal.load_reversal()
    table = model.model.encoder.embed_positions.weight
    table.data.copy_(table.detach().flip(0))
    assert misplaced_influence((model, tokenizer), texts) > 50
    assert reversal.exact_accuracy((model, tokenizer), texts) < 0.5


def test_training_learns_and_can_be_repeated() -> None:
    state = torch.random.get_rng_state()
    first, tokenizer = reversal.train_reversal(steps=40, seed=3, batch_size=32)
    assert torch.equal(torch.random.get_rng_state(), state)
    again, _ = reversal.train_reversal(steps=40, seed=3, batch_size=32)
    other, _ = reversal.train_reversal(steps=1, seed=4, batch_size=32)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.model.shared.weight, other.model.shared.weight)
    texts = reversal.held_out_strings(64)
    labels = tokenizer([text[::-1] for text in texts], padding=True, return_tensors="pt").input_ids
    labels[labels == tokenizer.pad_token_id] = -100
    inputs = letters.encoded(tokenizer, texts)
    untrained = reversal.new_model(tokenizer).eval()
    with torch.no_grad():
        losses = [model(**inputs, labels=labels).loss.item() for model in (untrained, first)]
    assert losses[1] < 0.8 * losses[0]
    assert reversal.exact_accuracy((first, tokenizer), texts) < 0.5


def test_split_keeps_held_out_strings_from_training() -> None:
    strings = reversal.random_strings(held_out=False, seed=0)
    seen = [next(strings) for _ in range(2000)]
    assert not any(reversal.is_held_out(text) for text in seen)
    assert {len(text) for text in seen} == set(range(4, 11))
    rng = random.Random(0)
    words = ["".join(rng.choices(reversal.LETTERS, k=8)) for _ in range(5000)]
    assert 0.08 < sum(map(reversal.is_held_out, words)) / 5000 < 0.12


def test_command_line_trains_measures_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    monkeypatch.setattr(sys, "argv", ["reversal.py", "--out", str(out), "--steps", "2"])
    sys.argv += ["--test", "20"]
    reversal.main()
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == run
    assert run["steps"] == 2
    assert run["held_out_strings"] == 20
    trained, tokenizer = reversal.train_reversal(steps=2, seed=0)
    loaded, loaded_tokenizer = reversal.load_reversal(out)
    pairs = zip(trained.parameters(), loaded.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert loaded_tokenizer("abcX").input_ids == tokenizer("abcX").input_ids
    for bad in ("--steps", "--test"):
        monkeypatch.setattr(sys, "argv", ["reversal.py", "--out", str(out), bad, "0"])
        with pytest.raises(SystemExit) as stopped:
            reversal.main()
        assert stopped.value.code == 2
        assert "at least 1" in capsys.readouterr().err


def test_help_of_the_script() -> None:
    command = [sys.executable, str(SCRIPTS / "reversal.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "--out" in done.stdout


def test_unusable_input_of_the_reversal_is_refused(reverser: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        reversal.load_reversal(tmp_path)
    with pytest.raises(InputError, match="at least 1"):
        reversal.train_reversal(steps=0)
    with pytest.raises(InputError, match="ask for 0 or more"):
        reversal.held_out_strings(-1)
    with pytest.raises(InputError, match="no strings"):
        reversal.exact_accuracy(reverser, [])
    with pytest.raises(InputError, match="12 tokens"):
        reversal.exact_accuracy(reverser, ["abcdefghijk"])
