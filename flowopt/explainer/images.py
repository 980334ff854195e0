"""From pictures to the pixels that a vision model reads, and back to what it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, MissingDependencyError, UnsupportedError
from flowopt.trace.families import family_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    Array = NDArray[np.float64]

__all__ = ["as_list", "check_reads_images", "pixels_of", "reads_images", "seen"]


def reads_images(model: PreTrainedModel) -> bool:
    """Whether a model's input are pixels."""
    return family_of(model).patches is not None or model.main_input_name == "pixel_values"


def check_reads_images(model: PreTrainedModel) -> None:
    """Refuse models that read text.

    Raises
    ------
    UnsupportedError
    """
    if not reads_images(model):
        raise UnsupportedError(
            f"{type(model).__name__} reads text, not images: call explainer(text), or load an "
            "image model such as ViT with AutoModelForImageClassification"
        )


def as_list(images: Any) -> tuple[list[Any], bool]:
    """The images one by one, and whether there is only one, not in a list.

    A stack of images (n, h, w, 3) is a list of them.
    """
    if isinstance(images, (list, tuple)):
        return list(images), False
    if getattr(images, "ndim", None) == 4:
        return list(images), False
    return [images], True


def pixels_of(
    model: PreTrainedModel, processor: Any, images: Sequence[Any], first: int = 0
) -> Array:
    """What the model reads of images of any size.

    Parameters
    ----------
    model : PreTrainedModel
    processor : image processor or None
        It resizes, crops and standardises; without it images must be as the model reads them.
    images : sequence
        PIL images, or arrays (h, w, 3) of integers 0 to 255 or floats 0 to 1; without a
        processor arrays (3, h, w) of floats.
    first : int
        Number of the first image, for messages.

    Returns
    -------
    ndarray (n, 3, h, w)

    Raises
    ------
    InputError
        If there is no image, or one cannot be read.
    MissingDependencyError
        If the processor needs a package that is not installed.
    """
    if not images:
        raise InputError("there is no image to explain")
    if processor is None:
        return _stacked([_as_read(model, image, n) for n, image in enumerate(images, first)])
    pictures = [_picture(image, n) for n, image in enumerate(images, first)]
    try:
        # One by one: pictures of a list may differ in size.
        made = [processor(images=picture, return_tensors="np") for picture in pictures]
    except ImportError as error:
        raise MissingDependencyError(
            f"the image processor needs a package ({str(error).strip().splitlines()[0]}); "
            "pip install pillow, and torchvision for the fast processors"
        ) from None
    return _stacked([np.asarray(each["pixel_values"], dtype=np.float64)[0] for each in made])


def seen(pixels: Array, processor: Any) -> NDArray[np.uint8]:
    """A picture (h, w, 3) of what the model has read, after resizing and cropping.

    Parameters
    ----------
    pixels : ndarray (3, h, w)
    processor : image processor or None
        Says how pixels were standardised; without it they are stretched from black to white.
    """
    picture = np.moveaxis(np.asarray(pixels, dtype=np.float64), 0, -1)
    mean, deviation = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
    if getattr(processor, "do_normalize", False) and mean is not None and deviation is not None:
        picture = picture * np.asarray(deviation) + np.asarray(mean)
    elif processor is None:
        low, high = picture.min(), picture.max()
        picture = (picture - low) / (high - low) if high > low else np.zeros_like(picture)
    if picture.shape[-1] == 1:
        picture = np.repeat(picture, 3, axis=-1)
    return np.round(255 * np.clip(picture[..., :3], 0.0, 1.0)).astype(np.uint8)


def _stacked(pixels: list[Array]) -> Array:
    shapes = {each.shape for each in pixels}
    if len(shapes) > 1:
        listed = ", ".join(map(str, sorted(shapes)))
        raise InputError(
            f"the model would read images of different shapes at once: {listed}; explain them one "
            "by one"
        )
    return np.stack(pixels)


def _picture(image: Any, place: int) -> Any:
    """A PIL image in RGB, or an array (h, w, 3) of bytes."""
    if hasattr(image, "convert"):
        return image.convert("RGB")
    if isinstance(image, (str, bytes)):
        raise InputError(
            f"image {place} is a {type(image).__name__}; open it first: PIL.Image.open(path)"
        )
    array = _array(image, place)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] not in (3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise InputError(f"image {place} must have shape (height, width, 3), not {array.shape}")
    array = array[..., :3]
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        array = np.round(255 * array)
    if array.min() < 0 or array.max() > 255:
        raise InputError(
            f"image {place} has values from {array.min():g} to {array.max():g}; give integers from "
            "0 to 255 or floats from 0 to 1"
        )
    return array.astype(np.uint8)


def _as_read(model: PreTrainedModel, image: Any, place: int) -> Array:
    if hasattr(image, "convert"):
        raise InputError(
            "this explainer has no image processor, so it cannot read PIL images: give "
            "Explainer(model, AutoImageProcessor.from_pretrained(...)), or arrays (3, h, w)"
        )
    array = _array(image, place)
    channels = int(getattr(model.config, "num_channels", 3))
    if array.ndim != 3 or array.shape[0] != channels or array.dtype.kind != "f":
        raise InputError(
            f"without an image processor, image {place} must be an array of floats ({channels}, "
            f"height, width) as the model reads it; it has shape {array.shape} and type "
            f"{array.dtype}"
        )
    return array.astype(np.float64)


def _array(image: Any, place: int) -> NDArray[Any]:
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    try:
        array = np.asarray(image)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "uif" or array.size == 0:
        raise InputError(
            f"image {place} must be a PIL image or an array (height, width, 3), not "
            f"{type(image).__name__}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"image {place} has values that are not finite")
    return array
