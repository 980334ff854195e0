"""The small bundled SST-2 sentiment classifier: a 6-layer BERT, stored as 8-bit integers.

`load_bundled` needs no network; `assets/sst2-minilm/README.md` is the model card.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["BUNDLED_FOLDER", "BUNDLED_NAME", "expand_int8", "load_bundled", "quantise_int8"]

BUNDLED_NAME = "flowopt/sst2-minilm-int8"
BUNDLED_FOLDER = Path(__file__).parent / "sst2-minilm"

_LARGEST = 127
_SCALE = ".int8_scale"


def load_bundled() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the bundled sentiment classifier and its tokenizer, without network.

    Returns
    -------
    model : transformers.BertForSequenceClassification
        Labels 0 ``negative`` and 1 ``positive``; float32 weights on the CPU, evaluation mode.
    tokenizer : transformers.PreTrainedTokenizerFast
        Uncased WordPiece tokenizer; ``model_max_length`` is 512.

    Raises
    ------
    FileNotFoundError
        If the package was installed without its asset files.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    weights_file = BUNDLED_FOLDER / "model.safetensors"
    if not weights_file.is_file():
        raise FileNotFoundError(
            f"the bundled model is missing from {BUNDLED_FOLDER}: reinstall flowopt with its data"
        )
    config = BertConfig.from_json_file(str(BUNDLED_FOLDER / "config.json"))
    # The meta device allocates and initialises nothing: every weight comes from the file.
    with torch.device("meta"):
        model = BertForSequenceClassification(config)
    model.load_state_dict(expand_int8(load_file(weights_file)), assign=True)
    positions = torch.arange(config.max_position_embeddings).unsqueeze(0)
    # Index buffers that BERT does not store with its weights.
    model.bert.embeddings.position_ids = positions
    model.bert.embeddings.token_type_ids = torch.zeros_like(positions)
    model.name_or_path = model.config.name_or_path = BUNDLED_NAME
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUNDLED_FOLDER, local_files_only=True)
    tokenizer.name_or_path = BUNDLED_NAME
    return model.eval(), tokenizer


def quantise_int8(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round every matrix to 8-bit integers with one scale per row; keep the other tensors.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Floating-point tensors by name. Matrices W (two axes) become
        ``round(W[i] / scale[i])`` with ``scale[i] = max_j |W[i, j]| / 127``.

    Returns
    -------
    dict of str to Tensor
        int8 matrices under their names, their scales (float32, one per row) under the name
        followed by ``.int8_scale``, and all other tensors in float32. An entry of a matrix
        moves by at most half the scale of its row.
    """
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim != 2:
            stored[name] = weight.detach().float().contiguous()
            continue
        matrix = weight.detach().float()
        scale = matrix.abs().amax(dim=1).clamp_min(1e-12) / _LARGEST
        stored[name] = (matrix / scale.unsqueeze(1)).round().char().contiguous()
        stored[name + _SCALE] = scale
    return stored


def expand_int8(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Expand what `quantise_int8` stored to float32 tensors under their first names.

    Raises
    ------
    ValueError
        If an int8 matrix lacks its scales, or scales lack their matrix.
    """
    matrices = {name.removesuffix(_SCALE) for name in stored if name.endswith(_SCALE)}
    _check_pairs(stored, matrices)
    weights: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name in matrices:
            weights[name] = tensor.float().mul_(stored[name + _SCALE].unsqueeze(1))
        elif not name.endswith(_SCALE):
            weights[name] = tensor
    return weights


def _check_pairs(stored: Mapping[str, Tensor], scaled: Iterable[str]) -> None:
    integer = {name for name, tensor in stored.items() if not tensor.is_floating_point()}
    unpaired = sorted(integer.symmetric_difference(scaled))
    if unpaired:
        raise ValueError(f"int8 weights and scales do not pair up for: {', '.join(unpaired)}")
