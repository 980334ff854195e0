"""How far attributions are from the Shapley values of a game."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowopt.axioms.methods import as_method
from flowopt.errors import InputError
from flowopt.games import Game, RestrictedGame, shapley_values
from flowopt.network import FloatArray, FlowNetwork


@dataclass(frozen=True)
class Distance:
    """Between attributions and Shapley values.

    Attributes
    ----------
    share : float
        Half the sum of |differences| after both are divided by the sum of their absolute values:
        0 for equal shares, 1 for shares on different tokens. Between signed values it may exceed
        what moving shares can explain, up to 1.
    absolute : float
        Sum of |differences| relative to the sum of the |Shapley values|, nothing rescaled.
    rank : float
        Spearman's correlation; NaN where one of the two is constant.
    """

    share: float
    absolute: float
    rank: float


def distances(attributions: ArrayLike, shapley: ArrayLike) -> Distance:
    """Distance of attributions from Shapley values, in three senses.

    Parameters
    ----------
    attributions, shapley : array_like, shape (t,)

    Raises
    ------
    InputError
        For different shapes, or numbers that are not finite.
    """
    a, b = np.asarray(attributions, dtype=np.float64), np.asarray(shapley, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(
            f"Give two lists of finite numbers of the same length, not shapes {a.shape} and "
            f"{b.shape}."
        )
    size_a, size_b = float(np.abs(a).sum()), float(np.abs(b).sum())
    apart = np.abs(a / (size_a or 1.0) - b / (size_b or 1.0)).sum() / 2
    if (size_a == 0) != (size_b == 0):
        apart = 1.0
    return Distance(
        float(apart), float(np.abs(a - b).sum()) / (size_b or 1.0), _rank_correlation(a, b)
    )


def shapley_distances(
    net: FlowNetwork,
    methods: Iterable[Any] | Mapping[str, Any],
    game: Game | None = None,
    positions: Iterable[int] | None = None,
    **options: Any,
) -> dict[str, Distance]:
    """Distance of several methods' attributions from the Shapley values of one game.

    Parameters
    ----------
    net : FlowNetwork
    methods : iterable of methods, or mapping of names to them
        As for `flowopt.axioms.verify`.
    game : Game, optional
        ``RestrictedGame(net)`` by default.
    positions : iterable of int, optional
        Tokens that are the game's players, in its order, if they are not all; attributions of
        the others are left out.
    **options
        For `shapley_values`: samples, precision, seed, progress.

    Returns
    -------
    dict of str to Distance
        By method.
    """
    game = RestrictedGame(net) if game is None else game
    chosen = list(range(net.n_players) if positions is None else positions)
    if len(chosen) != game.n_players:
        raise InputError(
            f"The game has {game.n_players} players, but {len(chosen)} tokens are compared; say "
            "which by `positions`."
        )
    values = shapley_values(game, **options)
    given = methods.items() if isinstance(methods, Mapping) else ((None, m) for m in methods)
    asked = [as_method(method, name) for name, method in given]
    return {each.name: distances(each(net).attributions[chosen], values) for each in asked}


def _rank_correlation(a: FloatArray, b: FloatArray) -> float:
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else float("nan")
