"""CVXPY without the solvers that nobody chose: ``from flowopt.lazy_cvxpy import cp``.

``import cvxpy`` imports every solver package it finds, to learn which are installed. ECOS is
under the GPL-3 and is to be loaded by those only who ask for it, so it is hidden during that
import and entered as installed afterwards: CVXPY loads it when it is named, as ever.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

_HIDDEN = {"ecos": ("ECOS", "ECOS_BB")}  # package -> CVXPY's names for its solvers


def _load() -> Any:
    hidden = []
    if "cvxpy" not in sys.modules:
        hidden = [name for name in _HIDDEN if name not in sys.modules and find_spec(name)]
    for package in hidden:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        import cvxpy
    finally:
        for package in hidden:
            del sys.modules[package]
    from cvxpy.reductions.solvers import defines

    for package in hidden:
        _enter(defines, _HIDDEN[package])
    return cvxpy


def _enter(defines: Any, solvers: tuple[str, ...]) -> None:
    """Put solvers into CVXPY's lists of installed ones, in its order of preference."""
    order = [*defines.SOLVER_MAP_CONIC, *defines.SOLVER_MAP_QP]
    for installed, known in (
        (defines.INSTALLED_SOLVERS, order),
        (defines.INSTALLED_CONIC_SOLVERS, defines.CONIC_SOLVERS),
        (defines.INSTALLED_MI_SOLVERS, defines.MI_SOLVERS),
    ):
        installed += [name for name in solvers if name in known and name not in installed]
        installed.sort(key=lambda name: order.index(name) if name in order else len(order))


cp: Any = _load()
