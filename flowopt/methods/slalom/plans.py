"""Which variations of a text the model is asked about (slalom.md, query plans)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flowopt.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowopt.methods.slalom.options import Options

__all__ = [
    "PLANS",
    "Plan",
    "Tokens",
    "best_reference",
    "count_tokens",
    "deletions",
    "draw",
    "hold_out",
    "pairs_with",
    "short_sequences",
]

Tokens = tuple[int, ...]
"""Token ids of one query, without special tokens."""

Plan = Callable[[Sequence[int], int, np.random.Generator], Sequence[Sequence[int]]]
"""A user's own plan: (token ids of the text, number of queries, generator) -> queries."""

PLANS = ("short", "deletion", "exact")

_FEWEST_APART = 3


def short_sequences(
    ids: Sequence[int], samples: int, generator: np.random.Generator, length: int = 3
) -> list[Tokens]:
    """Random sequences of the text's distinct tokens, drawn evenly and with replacement.

    The authors' "eff" sampling: few tokens a query, so it is fast on long texts.
    """
    distinct = np.array(list(dict.fromkeys(ids)))
    drawn = generator.integers(len(distinct), size=(samples, length))
    return [tuple(row) for row in distinct[drawn].tolist()]


def deletions(
    ids: Sequence[int], samples: int, generator: np.random.Generator, most: int = 5
) -> list[Tokens]:
    """The text without m random positions, m even among 0..most; empty texts are dropped.

    The authors' "fidel" sampling: close to the text, so it is true to the model there, but nearly
    collinear, so single values are known less well.
    """
    text = np.array(ids)
    removed = np.minimum(generator.integers(most + 1, size=samples), len(text))
    # The positions with the smallest of t random numbers are m positions drawn evenly.
    ranks = generator.random((samples, len(text))).argsort(axis=1).argsort(axis=1)
    kept = ranks >= removed[:, None]
    return [tuple(text[row].tolist()) for row in kept if row.any()]


def pairs_with(distinct: Sequence[int], reference: int) -> list[Tokens]:
    """Every token of `distinct` followed by the one in column `reference`, that one left out."""
    partner = distinct[reference]
    return [(token, partner) for token in distinct if token != partner]


def best_reference(singles: NDArray[np.float64]) -> int:
    """Column whose value is farthest from the nearest other one: pairs with it tell the most."""
    distance = np.abs(singles[:, None] - singles[None, :])
    np.fill_diagonal(distance, np.inf)
    return int(distance.min(axis=1).argmax())


def count_tokens(queries: Sequence[Sequence[int]], distinct: Sequence[int]) -> NDArray[np.int32]:
    """How often each distinct token occurs in each query, (n, V).

    Raises
    ------
    InputError
        If a query has a token that is not in the text.
    """
    column = {token: place for place, token in enumerate(distinct)}
    counts = np.zeros((len(queries), len(distinct)), dtype=np.int32)
    lengths = [len(query) for query in queries]
    try:
        columns = np.array([column[token] for query in queries for token in query], dtype=np.intp)
    except KeyError as error:
        raise InputError(
            f"a query has the token {error.args[0]!r}, which is not in the text: a plan may only "
            "use the tokens it is given"
        ) from None
    np.add.at(counts, (np.repeat(np.arange(len(queries)), lengths), columns), 1)
    return counts


def draw(ids: Tokens, options: Options, samples: int, stream: int = 0) -> list[Tokens]:
    """Queries of the plan, empty ones dropped; each stream has random numbers of its own.

    Raises
    ------
    InputError
        If none is left.
    """
    generator = np.random.default_rng([options.seed, stream])
    if callable(options.plan):
        drawn = [tuple(int(i) for i in q) for q in options.plan(ids, samples, generator) if len(q)]
    elif options.plan == "deletion":
        drawn = deletions(ids, samples, generator, options.max_deletions)
    else:
        drawn = short_sequences(ids, samples, generator, options.length)
    if not drawn:
        raise InputError(
            "the plan gave no query that is not empty; ask for more samples, or explain a longer "
            "text"
        )
    return drawn


def hold_out(
    queries: Sequence[Tokens], wanted: int, generator: np.random.Generator, keep: Tokens
) -> tuple[list[Tokens], list[Tokens], bool]:
    """Part queries so that no sequence is on both sides; each is as likely to be held out.

    Parameters
    ----------
    queries : sequence of Tokens
    wanted : int
        About how many to hold out.
    generator : Generator
    keep : Tokens
        A sequence that is never held out: the text itself.

    Returns
    -------
    list of Tokens
        To fit to.
    list of Tokens
        Held out.
    bool
        Whether they are apart. Too few distinct queries serve for both.
    """
    times = Counter(queries)
    distinct = [query for query in times if query != keep]
    held: set[Tokens] = set()
    count = 0
    for place in generator.permutation(len(distinct)):
        query = distinct[place]
        if count >= wanted or len(held) >= len(distinct) // 4:
            break
        held.add(query)
        count += times[query]
    if len(held) < min(wanted, _FEWEST_APART):
        return list(queries), list(queries), False
    fitted = [query for query in queries if query not in held]
    return fitted, [query for query in queries if query in held], True
