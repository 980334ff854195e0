"""The picture of SLALOM: value against importance, a labelled dot for each distinct token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

    from flowopt.methods.slalom.explanation import SlalomExplanation

__all__ = ["plot_scores"]

# Where a label may stand, in points from its dot: what is tried first is read most easily.
_PLACES: tuple[tuple[int, int, Any, Any], ...] = (
    (5, 0, "left", "center"),
    (-5, 0, "right", "center"),
    (0, 5, "center", "bottom"),
    (0, -5, "center", "top"),
    (4, 5, "left", "bottom"),
    (4, -5, "left", "top"),
    (-4, 5, "right", "bottom"),
    (-4, -5, "right", "top"),
)


def plot_scores(
    explanation: SlalomExplanation, ax: Axes | None = None, *, max_labels: int = 60
) -> Axes:
    """Draw value against importance.

    Up: speaks for the class; to the right: outweighs other tokens. The area of a dot grows with
    how often the token occurs.

    Parameters
    ----------
    explanation : SlalomExplanation
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.
    max_labels : int
        Of many tokens, those with the largest |removal| scores have labels.

    Returns
    -------
    matplotlib Axes
    """
    from flowopt.viz.content import percent, printable
    from flowopt.viz.palette import LIGHT, shade

    if isinstance(max_labels, bool) or not isinstance(max_labels, int) or max_labels < 0:
        raise InputError(f"max_labels must be an integer of at least 0, not {max_labels!r}")
    ax = ax or _new_axes()
    x, y = explanation.fit.importances, explanation.fit.values
    colours = [shade(1.0 if value >= 0 else -1.0) for value in y]
    ax.axhline(0.0, color=LIGHT.faint, linewidth=0.8, zorder=1)
    ax.scatter(x, y, s=18.0 * explanation.counts, c=colours, alpha=0.85, zorder=2)
    ax.set_xlabel("importance: weight against the other tokens")
    ax.set_ylabel("value: log odds of the token alone")
    target = explanation.target
    title = f"SLALOM, {printable(target.label)} {percent(target.probability)}"
    ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(0.12)
    strength = np.abs(explanation.token_scores("removal"))
    labelled = np.argsort(-strength, kind="stable")[:max_labels]
    _label(ax, [(x[i], y[i], printable(explanation.vocabulary[i])) for i in labelled])
    return ax


def _label(ax: Axes, dots: list[tuple[float, float, str]]) -> None:
    """Put labels where they overlap neither dots nor one another, as far as there is room."""
    # A canvas that can measure text is made for every figure when it is drawn.
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    points = ax.transData.transform([(x, y) for x, y, _ in dots]) if dots else np.empty((0, 2))
    taken: list[Bbox] = []
    for x, y, word in dots:
        note = ax.annotate(
            word, (x, y), fontsize=8, textcoords="offset points", xytext=(0, 0), parse_math=False
        )
        taken.append(_placed(note, taken, points))


def _placed(note: Annotation, taken: list[Bbox], points: np.ndarray) -> Bbox:
    best: tuple[int, int] | None = None
    for i in range(len(_PLACES)):
        box = _box(note, i)
        hidden = sum(box.overlaps(other) for other in taken)
        hidden += sum(box.contains(px, py) for px, py in points)
        if best is None or hidden < best[0]:
            best = (hidden, i)
        if hidden == 0:
            break
    assert best is not None
    return _box(note, best[1])


def _box(note: Annotation, place: int) -> Bbox:
    x, y, horizontal, vertical = _PLACES[place]
    note.set_position((x, y))
    note.set_horizontalalignment(horizontal)
    note.set_verticalalignment(vertical)
    return note.get_window_extent()


def _new_axes() -> Axes:
    # pyplot rather than a bare Figure: only its figures show up by themselves in a notebook.
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(6.5, 4.8), layout="constrained")
    return ax
