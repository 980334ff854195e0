"""What a game is: players, and the value of every coalition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from flowopt.errors import InputError
from flowopt.lazy import lazy
from flowopt.network import FloatArray, IntArray
from flowopt.progress import progress_bar

Coalitions = np.ndarray[Any, np.dtype[np.bool_]]
"""Memberships, shape (k, t): row i holds the i-th coalition, True for its members."""

MOST_PLAYERS = 24  # whose coalitions can be listed: 2^24 values take 128 MiB
_CHUNK = 2**12  # coalitions evaluated between two steps of a progress bar


class Game(ABC):
    """Base of all games; a researcher's own needs `n_players` and `evaluate`.

    Examples
    --------
    >>> class Majority(Game):
    ...     n_players = 3
    ...
    ...     def evaluate(self, coalitions):
    ...         return (coalitions.sum(axis=1) >= 2).astype(float)
    """

    exact_players: ClassVar[int] = 12
    """Players up to which `shapley_values` takes all coalitions unless told otherwise."""

    n_players: int

    @abstractmethod
    def evaluate(self, coalitions: Coalitions) -> FloatArray:
        """Values (k,) of coalitions (k, t) that are all different."""

    @property
    def players(self) -> tuple[str, ...]:
        """Names of the players; their numbers by default."""
        return tuple(str(j) for j in range(self.n_players))

    @property
    def additive(self) -> FloatArray | None:
        """What each player is worth in every coalition, shape (t,); None if that differs."""
        return None

    def __call__(self, members: Iterable[int]) -> float:
        """Value of one coalition, given the numbers of its members."""
        row = np.zeros(self.n_players, dtype=bool)
        row[_member_indices(members, self.n_players)] = True
        return float(self.values(row[None])[0])

    def values(self, coalitions: ArrayLike) -> FloatArray:
        """Values of coalitions; each is evaluated once and kept.

        Parameters
        ----------
        coalitions : array_like of bool, shape (k, t)

        Returns
        -------
        ndarray, shape (k,)

        Raises
        ------
        InputError
            For another shape or type, and for values that are not finite numbers.
        """
        rows = np.asarray(coalitions)
        if rows.dtype != np.bool_ or rows.ndim != 2 or rows.shape[1] != self.n_players:
            raise InputError(
                f"Coalitions are booleans of shape (k, {self.n_players}), one row each, True for "
                f"members; not {rows.dtype} of shape {rows.shape}."
            )
        keys = [row.tobytes() for row in np.packbits(rows, axis=1)]
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self._kept}
        if first:
            missing = rows[list(first.values())]
            self._kept.update(zip(first, self._checked(missing).tolist(), strict=True))
        return np.array([self._kept[key] for key in keys], dtype=np.float64)

    def all_values(self, progress: bool = False) -> FloatArray:
        """Values of all coalitions, shape (2^t,): bit j of the index is player j's membership.

        Raises
        ------
        InputError
            For more than 24 players.
        """
        if self._table is None:
            if self.n_players > MOST_PLAYERS:
                raise InputError(
                    f"{self.n_players} players have 2^{self.n_players} coalitions, too many to "
                    "list; sample permutations: shapley_values(game, samples=1000)."
                )
            table = np.empty(2**self.n_players)
            chunks = list(self._chunks())
            with progress_bar(len(chunks), progress, "chunk", "coalitions") as advance:
                for masks in chunks:
                    table[masks] = self._checked(memberships(masks, self.n_players))
                    advance()
            table.setflags(write=False)
            self.__dict__["_table"] = table
            return table
        return self._table

    def marginals(self, orders: IntArray) -> FloatArray:
        """What each player adds to those before it, shape (k, t), by player.

        Parameters
        ----------
        orders : ndarray of int, shape (k, t)
            Permutations of the players.
        """
        k, t = orders.shape
        rank = np.argsort(orders, axis=1)
        before = np.arange(t + 1)[None, :, None] > rank[:, None, :]
        worth = self.values(before.reshape(-1, t)).reshape(k, t + 1)
        gains = np.empty((k, t))
        np.put_along_axis(gains, orders, np.diff(worth, axis=1), axis=1)
        return gains

    def _checked(self, coalitions: Coalitions) -> FloatArray:
        found = np.asarray(self.evaluate(coalitions), dtype=np.float64)
        if found.shape != (len(coalitions),) or not np.isfinite(found).all():
            raise InputError(
                f"The game's values must be {len(coalitions)} finite numbers, one per coalition; "
                f"it gave shape {found.shape}"
                + ("." if np.isfinite(found).all() else " with NaN or infinity.")
            )
        return found

    def _chunks(self) -> Iterator[IntArray]:
        """All coalitions as indices, in parts that agree in the memberships of the first."""
        fixed = max(self.n_players - int(np.log2(_CHUNK)), 0)
        rest = np.arange(2 ** (self.n_players - fixed)) << fixed
        for low in range(2**fixed):
            yield rest + low

    @lazy
    def _kept(self) -> dict[bytes, float]:
        return {}

    @lazy
    def _table(self) -> FloatArray | None:
        return None


@dataclass(frozen=True, eq=False)
class FunctionGame(Game):
    """A game given by a function.

    Parameters
    ----------
    function : callable
        Coalitions (k, t) to values (k,).
    n_players : int
    names : sequence of str, optional
    """

    function: Callable[[Coalitions], ArrayLike]
    n_players: int
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.n_players, bool) or not isinstance(self.n_players, int | np.integer):
            raise InputError(f"n_players must be a whole number, not {self.n_players!r}.")
        if self.n_players < 1:
            raise InputError("A game needs at least one player.")
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))
            if len(self.names) != self.n_players:
                raise InputError(f"{len(self.names)} names for {self.n_players} players.")

    @property
    def players(self) -> tuple[str, ...]:
        """Names of the players."""
        return super().players if self.names is None else self.names

    def evaluate(self, coalitions: Coalitions) -> FloatArray:  # noqa: D102
        return np.asarray(self.function(coalitions), dtype=np.float64)


def memberships(masks: IntArray, n_players: int) -> Coalitions:
    """Memberships (k, t) of coalitions given as numbers, bit j for player j."""
    return (np.asarray(masks)[:, None] >> np.arange(n_players) & 1).astype(np.bool_)


def _member_indices(members: Iterable[int], n_players: int) -> list[int]:
    found = list(members)
    for j in found:
        whole = isinstance(j, int | np.integer) and not isinstance(j, bool | np.bool_)
        if not whole or not 0 <= j < n_players:
            raise InputError(f"Members are numbers of players, 0 to {n_players - 1}; not {j!r}.")
    return [int(j) for j in found]
