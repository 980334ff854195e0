"""Digests that make two pieces of work the same: of weights, tokenizers, methods and settings."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flowopt.errors import InputError
from flowopt.evaluation.dataset import Example
from flowopt.evaluation.protocol import Protocol
from flowopt.methods.registry import Method, MethodSpec, method_spec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Task",
    "digest",
    "example_key",
    "model_revision",
    "task_of",
    "text_seed",
    "tokenizer_revision",
    "work_key",
]

_DIGITS = 16


class Task:
    """A method with its options and the name that tables show.

    Parameters
    ----------
    label : str
    method : str, callable or MethodSpec
    options : mapping

    Raises
    ------
    InputError
        If there is no such method or option.
    """

    def __init__(self, label: str, method: str | Method | MethodSpec, options: Mapping[str, Any]):
        self.label = label
        self.spec = method_spec(method)
        self.spec.check(options)
        self.options = dict(options)

    @property
    def given(self) -> dict[str, Any]:
        """The options that are not left at their defaults, as plain values."""
        return {name: _plain(value) for name, value in self.options.items()}

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides its scores besides model, text and seed, as plain values."""
        merged = {**self.spec.options, **self.options}
        # the seed of a text is derived from that of the evaluation, which has a column
        if self.spec.seeded and "seed" not in self.options:
            merged.pop("seed", None)
        found = {"method": self.spec.name, "options": {k: _plain(v) for k, v in merged.items()}}
        source = _own_source(self.spec.function)
        return found if source is None else {**found, "source": digest(source)}


def task_of(label: str, given: Any) -> Task:
    """Read what a user gives for one method: a name, a pair with options, or a function.

    Raises
    ------
    InputError
    """
    if isinstance(given, tuple):
        if len(given) != 2 or not isinstance(given[1], Mapping):
            raise InputError(f"the method {label!r}: give (name, {{option: value}}), not {given!r}")
        return Task(label, given[0], given[1])
    return Task(label, given, {})


def digest(value: Any) -> str:
    """SHA-256 of text, or of a value as JSON; its first 16 hexadecimal digits."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def model_revision(model: PreTrainedModel) -> str:
    """SHA-256 of a model's weights: names, types, shapes and bytes, in the order of names."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        found.update(memoryview(raw.numpy()))
    return found.hexdigest()


def tokenizer_revision(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of what a tokenizer makes of text, apart from padding and truncation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        parts = json.loads(backend.to_str())
        parts.update(padding=None, truncation=None)
    else:
        parts = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    return digest({**parts, "longest": int(getattr(tokenizer, "model_max_length", 0) or 0)})


def example_key(dataset: str, example: Example) -> str:
    """Digest of a text and what is known of it, in its data set."""
    return digest([dataset, example.id, example.text, example.data_digest])


def work_key(model: str, tokenizer: str, protocol: Protocol, seed: int, task: Task) -> str:
    """Digest of what is done to a text."""
    return digest([model, tokenizer, asdict(protocol), seed, task.label, task.settings])


def text_seed(seed: int, example: Example) -> int:
    """Seed for one text: it depends on nothing but the text and the evaluation's seed."""
    return int(digest(f"{seed} {example.text_digest}")[:8], 16)


def _own_source(function: Any) -> str | None:
    """Code of a function that is not flowopt's, and what it holds; None for flowopt's own."""
    bound: list[Any] = []
    while hasattr(function, "func"):
        bound += [*getattr(function, "args", ()), _pairs(getattr(function, "keywords", None))]
        function = function.func
    if str(getattr(function, "__module__", "")).partition(".")[0] == "flowopt":
        return None
    kind = function if inspect.isroutine(function) else type(function)
    # lambdas of one line, closures of one function and objects of one class share their source
    held = [_held(each) for each in (*bound, *_state_of(function))]
    return _code_of(kind) + (json.dumps(held, sort_keys=True) if any(held) else "")


def _code_of(kind: Any) -> str:
    code = getattr(kind, "__code__", None)
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed at a prompt, or compiled
        if code is None:
            return f"{getattr(kind, '__qualname__', kind)}"
        constants = [_held(each) for each in code.co_consts]
        return str(code.co_code.hex()) + json.dumps([constants, code.co_names])


def _state_of(function: Any) -> tuple[Any, ...]:
    """Values that a function closes over and its defaults, or the attributes of an object."""
    if inspect.ismethod(function):
        return (_pairs(getattr(function.__self__, "__dict__", None)), *_state_of(function.__func__))
    if not inspect.isfunction(function):
        return _pairs(getattr(function, "__dict__", None))
    cells = inspect.getclosurevars(function).nonlocals
    return (*_pairs(cells), function.__defaults__, _pairs(function.__kwdefaults__))


def _pairs(given: Mapping[str, Any] | None) -> tuple[Any, ...]:
    return tuple(sorted((given or {}).items(), key=lambda item: item[0]))


def _held(value: Any, depth: int = 8) -> Any:
    """A value as JSON; of others their type: addresses differ between processes.

    Nor do dictionaries count, which are mostly caches: these would end resuming.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist") and getattr(value, "size", 2**20) < 2**20:
        return value.tolist()
    if depth and isinstance(value, (list, tuple)):
        return [_held(each, depth - 1) for each in value]
    if inspect.iscode(value):
        return [value.co_code.hex(), list(value.co_names), [_held(c, 0) for c in value.co_consts]]
    if depth and inspect.isfunction(value):
        return [_code_of(value), _held(_state_of(value), depth - 1)]
    return type(value).__qualname__


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return getattr(value, "__name__", None) or repr(value)
