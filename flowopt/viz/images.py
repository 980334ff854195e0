"""Heat maps with matplotlib: an image's patches over the image, and matrices of attributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError
from flowopt.viz import content
from flowopt.viz.matrix import shares_of
from flowopt.viz.palette import LIGHT, shade
from flowopt.viz.patches import grey

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from flowopt.attribution import Attribution, AttributionMatrix

__all__ = ["plot_image", "plot_matrix"]

_OPACITY = 0.8  # of the patch with the largest score


def plot_image(att: Attribution, image: Any = None, ax: Axes | None = None) -> Axes:
    """Draw the scores of an image's patches over the image in grey, with a colour bar.

    Parameters
    ----------
    att : Attribution
        Of an image.
    image : PIL image or array (h, w, 3), optional
        Stretched under the scores, so it should be what the model saw, not cropped otherwise;
        None takes `Attribution.image`, and the scores alone where there is none.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If the input was no image, or `image` is none.
    """
    scores = att.patch_scores
    below = att.image if image is None else _as_picture(image)
    rows, columns = scores.shape
    high, wide = (rows, columns) if below is None else below.shape[:2]
    ax = ax or _new_axes(5.2, 0.4 + 4.4 * high / wide)
    extent = (0.0, float(wide), float(high), 0.0)
    top = float(np.abs(scores).max(initial=0.0)) or 1.0
    signed = bool((scores < 0).any())
    if below is not None:
        ax.imshow(grey(below), cmap="gray", vmin=0.0, vmax=1.0, extent=extent)
    drawn = ax.imshow(
        _upsampled(scores, 1 if below is None else 8),
        extent=extent,
        cmap=_colours(signed, clear=below is not None),
        vmin=-top if signed else 0.0,
        vmax=top,
        interpolation="nearest",
    )
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8)
    bar.set_label("flow through the patch")
    label = content.label(att, att.target)
    title = f"{label} {content.percent(att.target.probability)}"
    ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    ax.set_axis_off()
    return ax


def plot_matrix(
    matrix: AttributionMatrix, ax: Axes | None = None, *, include_special: bool = True
) -> Axes:
    """Draw a matrix as a heat map: rows are generated tokens, columns the tokens they come from.

    Parameters
    ----------
    matrix : AttributionMatrix
    ax : matplotlib Axes, optional
    include_special : bool
        Whether special tokens of the source get columns; without them rows sum to less than 1.

    Returns
    -------
    matplotlib Axes
    """
    shares, earlier = shares_of(matrix)
    special = matrix.rows[0].special
    shown = np.ones(len(special), dtype=bool) if include_special else ~special
    names = [
        content.spelled(t) for t, keep in zip(matrix.source_tokens, shown, strict=True) if keep
    ]
    values, faint = shares[:, shown], [bool(flag) for flag in special[shown]]
    if earlier is not None:
        values = np.hstack([values, earlier[:, None]])
        names, faint = [*names, "earlier output"], [*faint, True]
    count, width = values.shape
    ax = ax or _new_axes(min(2.0 + 0.36 * width, 16.0), min(1.2 + 0.3 * count, 16.0))
    # what special tokens and earlier output take would leave the others pale
    plain = np.abs(values[:, ~np.array(faint, dtype=bool)])
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    top = float(plain.max(initial=0.0)) or largest
    signed = bool((values < 0).any())
    drawn = ax.imshow(
        values, cmap=_colours(signed), vmin=-top if signed else 0.0, vmax=top, aspect="auto"
    )
    beyond = "neither" if largest <= top else "both" if signed else "max"
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.9, extend=beyond)
    bar.set_label("share of the row's flow")
    size = {"fontsize": min(10.0, max(4.0, 500.0 / max(width, count)))}
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(width), labels=names, parse_math=False, **turned, **size)
    tokens = [content.spelled(token) for token in matrix.output_tokens]
    ax.set_yticks(range(count), labels=tokens, parse_math=False, **size)
    for tick, dim in zip(ax.get_xticklabels(), faint, strict=True):
        tick.set_color(LIGHT.faint if dim else LIGHT.text)
    ax.set_xlabel("source" if matrix.rows[0].settings.get("unroll", True) else "source and output")
    ax.set_ylabel("generated")
    ax.tick_params(length=0)
    return ax


def _colours(signed: bool, clear: bool = False) -> Colormap:
    """The palette as a colour map; over a picture, scores near 0 let it through."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    levels = np.linspace(-1.0 if signed else 0.0, 1.0, 129)
    colours = [to_rgba(shade(float(level))) for level in levels]
    if clear:
        colours = [
            (*to_rgba(shade(1.0 if level >= 0 else -1.0))[:3], _OPACITY * abs(float(level)))
            for level in levels
        ]
    return LinearSegmentedColormap.from_list("flowopt", colours)


def _upsampled(scores: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Linear between the centres of patches, constant beyond the outermost."""
    for axis in (0, 1):
        count = scores.shape[axis]
        places = (np.arange(count * factor) + 0.5) / factor - 0.5
        below = np.clip(np.floor(places), 0, count - 1).astype(int)
        above = np.minimum(below + 1, count - 1)
        weight = np.clip(places - below, 0.0, 1.0)
        weight = weight[:, None] if axis == 0 else weight[None, :]
        scores = scores.take(below, axis) * (1 - weight) + scores.take(above, axis) * weight
    return scores


def _as_picture(image: Any) -> NDArray[Any]:
    picture = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    if picture.ndim == 3 and picture.shape[0] == 3 and picture.shape[2] not in (3, 4):
        picture = np.moveaxis(picture, 0, -1)
    if picture.ndim not in (2, 3) or picture.dtype.kind not in "uif" or picture.size == 0:
        raise InputError(
            f"image must be a PIL image or an array (height, width, 3), not {type(image).__name__} "
            f"of shape {picture.shape}"
        )
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=-1)
    if picture.dtype.kind == "f" and picture.max() > 1:
        picture = picture / 255
    return np.asarray(np.clip(picture, 0, 1 if picture.dtype.kind == "f" else 255))


def _new_axes(width: float, height: float) -> Axes:
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax
