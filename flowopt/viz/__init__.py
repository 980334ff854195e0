"""Pictures of an attribution: terminal, HTML and notebook, matplotlib.

Nothing is imported before it is used: the terminal needs rich, pages need jinja2, and only
figures need matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowopt.viz.figures import plot_attribution, plot_flow
    from flowopt.viz.html import fragment, to_html
    from flowopt.viz.images import plot_image, plot_matrix
    from flowopt.viz.matrix import render_matrix
    from flowopt.viz.terminal import render

__all__ = [
    "fragment",
    "plot_attribution",
    "plot_flow",
    "plot_image",
    "plot_matrix",
    "render",
    "render_matrix",
    "to_html",
]

_MODULES = {
    "fragment": "html",
    "plot_attribution": "figures",
    "plot_flow": "figures",
    "plot_image": "images",
    "plot_matrix": "images",
    "render": "terminal",
    "render_matrix": "matrix",
    "to_html": "html",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'flowopt.viz' has no attribute {name!r}")
    return getattr(import_module(f"flowopt.viz.{_MODULES[name]}"), name)
