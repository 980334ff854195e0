"""An image's patches as a grid: for pages over the picture itself, for terminals as cells."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.style import Style
from rich.text import Text

from flowopt.viz.numbers import number, percent
from flowopt.viz.palette import ink, relative_levels, shade

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowopt.attribution import Attribution

__all__ = ["Patches", "grey", "patch_levels", "patches_of", "png", "render_patches"]

_SIDE = 420  # pixels of the longer side on a page


@dataclass(frozen=True)
class Cell:
    """A patch in pixels, its colour and what hovering shows."""

    x: float
    y: float
    colour: str
    opacity: float
    title: str


@dataclass(frozen=True)
class Patches:
    """A grid of patches, over the picture where that is known.

    Parameters
    ----------
    width, height : int
        Of the whole, in pixels.
    cell_width, cell_height : float
    cells : tuple of Cell
    source : str
        Data URL of the picture; empty without one.
    """

    width: int
    height: int
    cell_width: float
    cell_height: float
    cells: tuple[Cell, ...]
    source: str


def patch_levels(att: Attribution) -> NDArray[np.float64]:
    """Scores of the patches (rows, columns) over the largest, in [-1, 1]."""
    scores = att.patch_scores
    return relative_levels(scores.ravel()).reshape(scores.shape)


def patches_of(att: Attribution) -> Patches | None:
    """Lay the patches of an image out; None for what is no image."""
    if att.grid is None:
        return None
    scores, levels = att.patch_scores, patch_levels(att)
    rows, columns = att.grid
    shape = (rows, columns) if att.image is None else att.image.shape[:2]
    scale = _SIDE / max(shape)
    width, height = round(shape[1] * scale), round(shape[0] * scale)
    wide, high = width / columns, height / rows
    whole = float(np.abs(att.scores).sum())
    cells = []
    for (row, column), score in np.ndenumerate(scores):
        level = float(levels[row, column])
        share = percent(float(score) / whole) if whole > 0 else "0.0 %"
        # over a picture a patch without score is clear, without one it is paper
        opacity = 1.0 if att.image is None else round(0.75 * abs(level), 3)
        colour = shade(level) if att.image is None else shade(1.0 if level >= 0 else -1.0)
        title = f"row {row}, column {column}: {number(float(score))} ({share})"
        place = (round(column * wide, 2), round(row * high, 2))
        cells.append(Cell(*place, colour, opacity, title))
    source = "" if att.image is None else f"data:image/png;base64,{_encoded(grey(att.image))}"
    return Patches(width, height, round(wide, 2), round(high, 2), tuple(cells), source)


def render_patches(att: Attribution) -> Text:
    """Shaded cells for a terminal, each with tenths of the largest score.

    Numbers make it readable without colours.
    """
    text = Text()
    for row in patch_levels(att):
        for level in row:
            background = shade(float(level))
            style = Style(color=ink(background), bgcolor=background)
            text.append(f"{round(10 * level):3d}", style=style)
        text.append("\n")
    text.append("tenths of the largest patch's score", style="dim")
    return text


def grey(picture: NDArray[Any]) -> NDArray[np.float64]:
    """Lightness (h, w) from 0.3 to 1 of a picture: colours are left to the scores."""
    scale = 1.0 if picture.dtype.kind == "f" else 255.0
    luma = picture[..., :3] @ np.array([0.299, 0.587, 0.114]) / scale
    return np.asarray(0.3 + 0.7 * luma, dtype=np.float64)


def _encoded(lightness: NDArray[np.float64]) -> str:
    return base64.b64encode(png(np.round(255 * lightness).astype(np.uint8))).decode("ascii")


def png(grey: NDArray[np.uint8]) -> bytes:
    """A grey picture (h, w) as a PNG file."""
    height, width = grey.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    lines = np.zeros((height, 1 + width), dtype=np.uint8)  # each begins with "no filter"
    lines[:, 1:] = grey
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")
