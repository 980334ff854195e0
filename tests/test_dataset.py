"""Data sets for evaluations: lists, files, names of a hub."""

from __future__ import annotations

import itertools
import json
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import parquet

import flowopt as fo
from flowopt.evaluation import Example, read_dataset

ROWS = [
    {"id": "a", "split": "train", "label": 0, "text": "A dull film."},
    {"id": "b", "split": "dev", "label": 1, "text": 'A "fine", long\u2028one.'},
    {"id": "c", "split": "dev", "label": 1, "text": "Funny."},
]


def write(path, rows=ROWS):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_files_say_the_same(tmp_path, ending):
    data = read_dataset(write(tmp_path / f"films.{ending}"))
    expected = [Example(row["id"], row["text"], row["label"]) for row in ROWS]
    assert list(data) == expected
    assert list(data) == expected, "it can be read again"
    assert data.name == f"films.{ending}"
    chosen = read_dataset(tmp_path / f"films.{ending}", where={"split": "dev"}, limit=1)
    assert [example.id for example in chosen] == ["b"]


def test_a_text_per_line(tmp_path):
    path = tmp_path / "films.txt"
    path.write_text("A dull film.\n\nFunny.\n", encoding="utf-8")
    assert [(e.id, e.text) for e in read_dataset(path)] == [("0", "A dull film."), ("1", "Funny.")]


def test_lists_of_anything():
    mixed = ["one", Example("x", "two", "good"), {"sentence": "three", "label": "bad"}]
    data = read_dataset(mixed)
    assert data.size == 3
    assert [(e.id, e.text, e.label) for e in data] == [
        ("0", "one", None),
        ("x", "two", "good"),
        ("2", "three", "bad"),
    ]


def test_a_generator_is_not_read_ahead():
    taken = []

    def texts():
        for number in itertools.count():
            taken.append(number)
            yield f"text {number}"

    data = read_dataset(texts(), limit=3)
    assert taken == [0]
    assert [example.text for example in data] == ["text 0", "text 1", "text 2"]
    assert len(taken) <= 4


def test_marks_and_their_words():
    row = {"tokens": ["A", "dull", "film"], "mean_mask": [0, 1, 0.5], "text": "A  dull film"}
    (example,) = read_dataset([row])
    assert (example.words, example.marks) == (("A", "dull", "film"), (0.0, 1.0, 0.5))
    assert example.text == "A dull film", "marks refer to words, so these make the text"
    with pytest.raises(fo.InputError, match="3 words and 2 marks"):
        list(read_dataset([{**row, "mean_mask": [0, 1]}]))
    with pytest.raises(fo.InputError, match="finite numbers"):
        list(read_dataset([{**row, "mean_mask": [0, 1, "x"]}]))


def test_columns_can_be_named(tmp_path):
    rows = [{"body": "A dull film.", "stars": 1, "key": "k"}]
    path = write(tmp_path / "films.jsonl", rows)
    (example,) = read_dataset(path, text="body", label="stars", id="key")
    assert example == Example("k", "A dull film.", 1)
    with pytest.raises(fo.InputError, match=r"which column .* body, stars, key"):
        read_dataset(path)
    with pytest.raises(fo.InputError, match=r"no column 'rating'; it has: body, stars, key"):
        read_dataset(path, text="body", label="rating")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text"\n', "line 2 is not JSON"),
        ("a.jsonl", '{"text": "x"}\n[1]\n', "line 2 is no JSON object"),
        ("a.csv", "id,text\n1,x\n2,x,y\n", "line 3 has another number of fields"),
        ("a.tsv", "id\ttext\n1\n", "line 2 has another number of fields"),
        ("a.parquet", "PAR0", "cannot read a.parquet as parquet"),
        ("a.txt", "\n", "holds no text"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(fo.InputError, match=message):
        list(read_dataset(path))


def test_a_file_that_is_no_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("schön\n".encode("latin-1"))
    with pytest.raises(fo.InputError, match="not UTF-8"):
        read_dataset(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.jsonl", "no file 'nowhere.jsonl'"),
        ("nowhere", "name with its split"),
        ([], "holds no text"),
        ({"text": "x"}, "a data set is"),
        (3, "a data set is"),
        ([3], "not int"),
    ],
)
def test_what_is_no_dataset(source, message):
    with pytest.raises(fo.InputError, match=message):
        list(read_dataset(source))


@pytest.mark.parametrize("limit", [0, -1, True, 2.5])
def test_limits_that_are_none(limit):
    with pytest.raises(fo.InputError, match="limit"):
        read_dataset(["a"], limit=limit)


@pytest.fixture
def hub(monkeypatch):
    """A package `datasets` that knows glue with its configuration, and someone/films."""
    asked = []

    def load_dataset(*name, split):
        asked.append((*name, split))
        if name not in (("glue", "sst2"), ("someone/films",)):
            raise ValueError(f"Dataset {name} not found.")
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_names_of_a_hub(hub):
    data = read_dataset("glue/sst2:validation")
    assert (data.name, data.size, len(list(data))) == ("glue/sst2:validation", 3, 3)
    assert hub == [("glue/sst2", "validation"), ("glue", "sst2", "validation")]
    assert read_dataset("someone/films:test").size == 3
    with pytest.raises(fo.InputError, match=r"cannot load 'nobody/films:test'.*not found"):
        read_dataset("nobody/films:test")


def test_without_the_package_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"flowopt\[datasets\]"):
        read_dataset("imdb:test")


def test_digests_tell_texts_and_marks_apart():
    plain, marked = Example("a", "A film"), Example("a", "A film", marks=(1.0, 0.0))
    assert plain.text_digest == marked.text_digest != Example("a", "A Film").text_digest
    assert plain.data_digest != marked.data_digest
    assert plain.data_digest != Example("a", "A film", 1).data_digest


def test_labels_that_only_look_like_numbers():
    labels = ["²", "--5", "-3", " 4 "]
    found = read_dataset([{"text": "a", "label": label} for label in labels])
    assert [example.label for example in found] == ["²", "--5", -3, 4]


def test_a_named_column_that_a_later_row_lacks():
    with pytest.raises(fo.InputError, match="number 1 has no 'body'"):
        list(read_dataset([{"body": "a"}, {"id": "b"}], text="body"))


def test_a_generator_with_a_filter_loses_nothing_to_a_first_look():
    rows = ({"text": letter, "split": letter} for letter in "ABABAB")
    found = read_dataset(rows, where={"split": "B"})
    assert next(iter(found)).text == "B"
    assert len(list(found)) == 3
