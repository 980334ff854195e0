"""Reading the files of a published model."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from flowopt.errors import InputError


def read_file(folder: str | Path, name: str) -> Path:
    """Path of a file that must be in the folder.

    Raises
    ------
    InputError
        If the file is not there.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(f"{path} is missing: give the folder that holds the model's files")
    return path


def read_arrays(path: Path) -> dict[str, torch.Tensor]:
    """All arrays of an .npz file as float32 tensors, by name.

    Raises
    ------
    InputError
        If the file holds no plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key].astype(np.float32)) for key in arrays.files}
    except (ValueError, OSError, AttributeError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an .npz file of arrays: {error}") from error


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], source: Path) -> None:
    """Put the weights into the model: every parameter, each of the right shape.

    Raises
    ------
    InputError
        If a parameter has no array or one of another shape.
    """
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise InputError(f"the arrays in {source} are not those of this model: {error}") from error
