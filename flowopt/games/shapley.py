"""Shapley values: exactly from all coalitions, or from sampled permutations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from math import comb
from typing import Any

import numpy as np

from flowopt.errors import FlowoptWarning, InputError
from flowopt.games.base import Game
from flowopt.network import FloatArray
from flowopt.progress import progress_bar

SAMPLES = 2_000  # permutations when nothing else is said
MOST_SAMPLES = 200_000  # when only a precision is asked for
_CHUNK = 64
_LEAST = 64  # permutations before standard errors are believed


@dataclass(frozen=True, eq=False)
class ShapleyValues:
    """Shapley values of a game; usable as an array.

    Attributes
    ----------
    values : ndarray, shape (t,)
        They sum to v(N) - v({}).
    stderr : ndarray, shape (t,)
        Standard errors; zeros where the values are exact.
    method : str
        "exact" (all coalitions), "additive" (known from the game), or "sampled".
    samples : int
        Permutations that were drawn; 0 unless sampled.
    converged : bool
        Whether the wanted precision was reached; True if none was asked for.
    players : tuple of str
    """

    values: FloatArray
    stderr: FloatArray
    method: str
    samples: int = 0
    converged: bool = True
    players: tuple[str, ...] = field(default=(), repr=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "players": list(self.players),
            "values": self.values.tolist(),
            "stderr": self.stderr.tolist(),
            "method": self.method,
            "samples": self.samples,
            "converged": self.converged,
        }

    def __str__(self) -> str:
        how = f"{self.method}, {self.samples} permutations" if self.samples else self.method
        width = max((len(name) for name in self.players), default=0)
        lines = [f"Shapley values ({how}), sum {self.values.sum():.6g}"]
        for name, value, error in zip(self.players, self.values, self.stderr, strict=True):
            spread = f" +- {error:.1e}" if self.samples else ""
            lines.append(f"  {name:{width}s} {value:.6g}{spread}")
        return "\n".join(lines)


def shapley_values(
    game: Game,
    *,
    samples: int | None = None,
    precision: float | None = None,
    exact: bool | None = None,
    antithetic: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> ShapleyValues:
    """Shapley value of every player.

    Parameters
    ----------
    game : Game
    samples : int, optional
        Permutations to draw; with `precision` at most so many. Given, it means sampling.
    precision : float, optional
        Sample until every standard error is at most this part of |v(N) - v({})| (of the largest
        |value| where that difference is 0).
    exact : bool, optional
        Take all 2^t coalitions (24 players at most). By default, where no samples are asked for,
        if the game has at most `Game.exact_players` players.
    antithetic : bool
        Draw permutations in pairs, each with its reverse: their errors partly cancel.
    seed : int
    progress : bool
        Whether to show a progress bar.

    Raises
    ------
    InputError
        For arguments that cannot be used.

    Warns
    -----
    FlowoptWarning
        If the precision was not reached; `converged` is then False.

    Examples
    --------
    >>> net = fo.FlowNetwork.layered(np.random.default_rng(0).uniform(size=(2, 4, 4)))
    >>> values = fo.axioms.shapley_values(fo.axioms.RestrictedGame(net))
    >>> bool(np.isclose(sum(values), net.max_flow))
    True
    """
    _check(game, samples, precision, exact)
    if exact is None:
        exact = samples is None and game.n_players <= game.exact_players
        worth = game.additive if samples is None and precision is None else None
        if worth is not None:
            zeros = np.zeros(game.n_players)
            return ShapleyValues(np.array(worth), zeros, "additive", players=game.players)
    if exact:
        values = _from_table(game.all_values(progress), _shapley_weights(game.n_players))
        return ShapleyValues(values, np.zeros(game.n_players), "exact", players=game.players)
    most = samples or (SAMPLES if precision is None else MOST_SAMPLES)
    return _sampled(game, most, precision, antithetic, seed, progress)


def banzhaf_values(game: Game, progress: bool = False) -> FloatArray:
    """Banzhaf value of every player, shape (t,): its mean gain over all coalitions of others.

    They need not sum to v(N). At most 24 players.
    """
    _check(game)
    weights = np.full(game.n_players, 0.5 ** (game.n_players - 1))
    return _from_table(game.all_values(progress), weights)


def interaction_values(game: Game, kind: str = "shapley", progress: bool = False) -> FloatArray:
    """Interaction index of every pair of players, shape (t, t), zeros on the diagonal.

    The weighted mean over coalitions S of the others of v(S+i+j) - v(S+i) - v(S+j) + v(S):
    negative where two players stand in for one another, as for every pair of a `RestrictedGame`.

    Parameters
    ----------
    kind : str
        "shapley" (Grabisch & Roubens 1999) or "banzhaf". At most 24 players.
    """
    _check(game)
    t = game.n_players
    if kind not in ("shapley", "banzhaf"):
        raise InputError(f"kind must be 'shapley' or 'banzhaf', not {kind!r}.")
    if t < 2:
        return np.zeros((t, t))
    weights = _shapley_weights(t - 1) if kind == "shapley" else np.full(t - 1, 0.5 ** (t - 2))
    table, sizes = game.all_values(progress), _sizes(t)
    found = np.zeros((t, t))
    for j in range(1, t):
        gain, size = _gains(table, j), _without(sizes, j)
        for i in range(j):  # player i < j keeps its bit in the table without j
            found[i, j] = found[j, i] = _gains(gain, i) @ weights[_without(size, i)]
    return found


def _check(
    game: object,
    samples: int | None = None,
    precision: float | None = None,
    exact: bool | None = None,
) -> None:
    if not isinstance(game, Game):
        raise InputError(
            f"Give a game, such as RestrictedGame(net), or FunctionGame(function, n_players) for "
            f"your own; not {type(game).__name__}."
        )
    if samples is not None and (isinstance(samples, bool) or not samples == int(samples) >= 2):
        raise InputError(f"samples must be a whole number of at least 2, not {samples!r}.")
    if precision is not None and not 0 < precision < np.inf:
        raise InputError(f"precision must be a positive number, not {precision!r}.")
    if exact and samples is not None:
        raise InputError("exact=True takes all coalitions; leave samples out, or exact.")


# --- all coalitions ------------------------------------------------------------------------------
def _shapley_weights(t: int) -> FloatArray:
    """Weights s! (t-s-1)! / t! of coalitions of s = 0 .. t-1 others."""
    return np.array([1 / (t * comb(t - 1, s)) for s in range(t)])


def _sizes(t: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    sizes = np.zeros(1, dtype=np.int8)
    for _ in range(t):
        sizes = np.concatenate([sizes, sizes + 1])
    return sizes


def _gains(table: FloatArray, player: int) -> FloatArray:
    """v(S + player) - v(S) over the coalitions S without the player, by index without its bit."""
    halves = table.reshape(-1, 2, 2**player)
    return np.asarray(halves[:, 1] - halves[:, 0]).reshape(-1)


def _without(table: Any, player: int) -> Any:
    return table.reshape(-1, 2, 2**player)[:, 0].reshape(-1)


def _from_table(table: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mean gain of each player; weights by the number of others."""
    t = len(weights)
    weight = weights[_sizes(t - 1)]
    return np.array([_gains(table, j) @ weight for j in range(t)])


# --- permutations --------------------------------------------------------------------------------
def _sampled(
    game: Game, most: int, precision: float | None, antithetic: bool, seed: int, progress: bool
) -> ShapleyValues:
    rng = np.random.default_rng(seed)
    t, group = game.n_players, 2 if antithetic else 1
    draws = max(-(-most // group), 2)  # one alone would show no spread
    count, mean, squares = 0, np.zeros(t), np.zeros(t)
    stderr = np.full(t, np.inf)
    converged = precision is None
    with progress_bar(draws * group, progress, "permutation", "sampling") as advance:
        while count < draws:
            size = min(_CHUNK // group, draws - count)
            orders = rng.permuted(np.tile(np.arange(t), (size, 1)), axis=1)
            if antithetic:
                orders = np.concatenate([orders, orders[:, ::-1]])
            gains = game.marginals(orders).reshape(group, size, t).mean(axis=0)
            own, shift = gains.mean(axis=0), gains.mean(axis=0) - mean
            squares += ((gains - own) ** 2).sum(axis=0) + shift**2 * count * size / (count + size)
            mean = mean + shift * size / (count + size)
            count += size
            stderr = np.sqrt(squares / (max(count - 1, 1) * count))
            for _ in range(size * group):
                advance()
            unit = abs(mean.sum()) or float(np.abs(mean).max(initial=0.0))
            if precision is not None and count * group >= min(_LEAST, draws * group):
                converged = bool(stderr.max() <= precision * unit)
                if converged:
                    break
    if not converged:
        worst = float(stderr.max()) / (unit or 1.0)
        warnings.warn(
            f"{count * group} permutations gave a precision of {worst:.1e}, not {precision:.1e}; "
            "allow more samples",
            FlowoptWarning,
            stacklevel=3,
        )
    return ShapleyValues(mean, stderr, "sampled", count * group, converged, game.players)
