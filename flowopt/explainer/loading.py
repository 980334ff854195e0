"""Load a model and its tokenizer or image processor: bundled, from a folder, or a hub name."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowopt.errors import InputError, UnsupportedError
from flowopt.trace.families import guess_family

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["load_model", "move_model"]


def load_model(
    name: str | os.PathLike[str] | None = None,
) -> tuple[PreTrainedModel, Any]:
    """Load a model in float32, in evaluation mode, with its tokenizer or image processor.

    Parameters
    ----------
    name : str, path or None
        A folder written by ``save_pretrained``, a name on the Hugging Face hub (the local cache
        is tried first), or None for the bundled sentiment classifier, which needs no network.

    Raises
    ------
    InputError
        If there is no such folder or name, or it cannot be read.
    UnsupportedError
        If the architecture is not supported, or the weights lack the classification head.
    """
    if name is None:
        from flowopt.assets import load_bundled

        return load_bundled()
    place = os.fspath(name) if isinstance(name, (str, os.PathLike)) else ""
    if not place.strip():
        raise InputError(f"a model is a folder, a hub name or None (the bundled one), not {name!r}")
    if Path(place).expanduser().is_dir():
        return _load(str(Path(place).expanduser()), place, local=True)
    if _looks_like_path(name, place):
        raise InputError(
            f"there is no folder {place!r}; give the folder that save_pretrained wrote, a name on "
            "the hub, or None for the bundled model"
        )
    try:
        return _load(place, place, local=True)
    except UnsupportedError:
        raise
    except InputError:
        return _load(place, place, local=False)


def _looks_like_path(name: str | os.PathLike[str], place: str) -> bool:
    starts = (".", "~", "/", os.sep)
    return not isinstance(name, str) or place.startswith(starts) or place.count("/") > 1


def _load(place: str, name: str, local: bool) -> tuple[PreTrainedModel, Any]:
    import torch
    import transformers

    def attempt(what: str, load: Any, **options: Any) -> Any:
        try:
            return load(place, local_files_only=local, **options)
        # Everything from a broken JSON file to a network failure ends up here, under many types.
        except Exception as error:
            raise InputError(_advice(name, what, error)) from None

    config = attempt("configuration", transformers.AutoConfig.from_pretrained)
    architecture = next(iter(getattr(config, "architectures", None) or ()), "")
    guess_family(config, architecture)  # before the weights, which may be large
    reader = attempt(*_reader_of(architecture))
    if _knows_no_words(reader):
        raise InputError(_advice(name, "tokenizer", OSError("it has no vocabulary.")))
    model, info = attempt(
        "weights",
        getattr(transformers, _auto_class(architecture)).from_pretrained,
        dtype=torch.float32,
        output_loading_info=True,
    )
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise UnsupportedError(
            f"{name!r} has no weights for {', '.join(missing[:3])}: it is no trained classifier, "
            "and random weights explain nothing. Give a model fine-tuned for classification"
        )
    return model.eval(), reader


_AUTO_CLASSES = {
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "MTModel": "AutoModelForSeq2SeqLM",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForImageClassification": "AutoModelForImageClassification",
    "ForImageClassificationWithTeacher": "AutoModelForImageClassification",
}


def _auto_class(architecture: str) -> str:
    """The transformers class that loads a model with the head it was saved with."""
    for ending, name in _AUTO_CLASSES.items():
        if architecture.endswith(ending):
            return name
    return "AutoModelForSequenceClassification"


def _reader_of(architecture: str) -> tuple[str, Any]:
    """What turns texts, or images, into a model's inputs: its name, and how it is loaded."""
    import transformers

    if "ForImageClassification" not in architecture:
        return "tokenizer", transformers.AutoTokenizer.from_pretrained
    # Without torchvision the default backend is not there, and transformers would log so.
    fast = importlib.util.find_spec("torchvision") is not None
    backend = "torchvision" if fast else "pil"
    load = functools.partial(transformers.AutoImageProcessor.from_pretrained, backend=backend)
    return "image processor", load


def _knows_no_words(reader: Any) -> bool:
    """Whether a tokenizer has special tokens only: transformers makes one up without its files."""
    vocabulary: dict[str, int] = getattr(reader, "get_vocab", dict)()
    return bool(vocabulary) and set(vocabulary) <= {*reader.all_special_tokens, "\u2581"}


def _advice(name: str, what: str, error: Exception) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    reason = reason[:200] or type(error).__name__
    if "couldn't connect" in reason.lower() or "offline mode" in str(error).lower():
        reason = "it is not in the local cache, and the hub cannot be reached (offline)."
    if Path(name).expanduser().is_dir():
        return (
            f"cannot read the {what} in the folder {name!r}: {reason} Save model and tokenizer "
            "there with save_pretrained"
        )
    return (
        f"cannot load the {what} of {name!r}, tried as a folder, in the local cache and on the "
        f"hub: {reason} Check the name; without network run `hf download {name}` on a machine "
        "that has it and give the folder, or use None for the bundled model"
    )


def move_model(model: PreTrainedModel, device: str | torch.device) -> None:
    """Move a model to a device.

    Raises
    ------
    InputError
        If there is no such device here.
    """
    try:
        model.to(device)
    # torch raises AssertionError where it was built without the device.
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot use device {str(device)!r}: {reason}; try device='cpu'") from None
