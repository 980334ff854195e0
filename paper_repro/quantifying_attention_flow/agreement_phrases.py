"""Made-up subjects: noun phrases whose number is known, with other nouns in the way.

The agreement data is far smaller here than the authors' (about a million sentences). What is
missing most is which words are plural, and that a noun inside a modifier is no subject. Both are
taught by phrases such as "in the film , the critic of the new plays that", put together from nouns
that the training texts themselves show in both numbers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Nouns = tuple[tuple[str, str], ...]
"""(singular, plural) of each noun."""

ONE = frozenset(
    ("the", "a", "an", "this", "another", "each", "every", "his", "her", "its", "their")
)
MANY = frozenset(
    ("the", "these", "those", "many", "several", "some", "two", "three", "four", "most", "other",
     "all", "both")
)  # fmt: skip
ARTICLES = (
    ("the", "a", "this", "each", "every", "his", "its", "their", "another", "the", "the"),
    ("the", "these", "many", "several", "two", "some", "his", "its", "their", "the", ""),
)
ADJECTIVES = ("new", "first", "old", "other", "main", "local", "great", "early", "small", "large",
              "major", "black", "young", "public", "best", "last", "american")  # fmt: skip
PREPOSITIONS = ("of", "of", "of", "in", "in", "for", "with", "from", "on", "to", "by", "at",
                "between", "among", "under", "against")  # fmt: skip
PARTICIPLES = ("made", "used", "found", "taken", "written", "given", "known", "seen", "held",
               "produced", "played", "based", "created", "built", "released")  # fmt: skip
PAST = ("said", "wrote", "made", "showed", "found", "took", "saw", "gave", "won", "played", "led")
OPENINGS = ("however ,", "today ,", "although", "because", "while", "if", "and", "but", "since",
            "when", "in addition ,", "for example ,", "according to")  # fmt: skip


def plural_of(noun: str) -> str:
    """The regular plural."""
    if noun.endswith("y") and noun[-2:-1] not in {"a", "e", "i", "o", "u"}:
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def nouns_of(texts: Iterable[Sequence[str]], least: int = 2) -> Nouns:
    """Nouns that the texts show in both numbers, each after a word that fits the number.

    Parameters
    ----------
    texts : iterable of sequences of str
        Words of each text.
    least : int
        How often each form must follow such a word.
    """
    one: Counter[str] = Counter()
    many: Counter[str] = Counter()
    for words in texts:
        for before, word in pairwise(words):
            if before in ONE:
                one[word] += 1
            if before in MANY:
                many[word] += 1
    found = (
        (noun, plural_of(noun))
        for noun, count in one.items()
        if count >= least and noun.isalpha() and len(noun) > 2 and not noun.endswith("s")
    )
    return tuple(sorted(pair for pair in found if many[pair[1]] >= least))


@dataclass(frozen=True)
class Phrases:
    """Draws prefixes from a list of nouns.

    Parameters
    ----------
    nouns : tuple of (str, str)
    """

    nouns: Nouns

    def prefix(self, rng: random.Random) -> tuple[tuple[str, ...], int]:
        """Words before a verb, and the verb's number (1 plural)."""
        number = rng.randrange(2)
        words = self._opening(rng)
        if number == 1 and rng.random() < 0.12:  # two subjects make a plural
            words += [*self._noun(rng, rng.randrange(2)), "and", *self._noun(rng, rng.randrange(2))]
        else:
            words += self._noun(rng, number)
        while rng.random() < 0.62 and len(words) < 24:
            words += self._modifier(rng)
        if rng.random() < 0.05:
            words.append(rng.choice(("also", "often", "now", "still")))
        elif rng.random() < 0.08:
            words.append(rng.choice(("that", "which")))
            return tuple(words), self._last_number(words, number)
        return tuple(words), number

    def _last_number(self, words: Sequence[str], number: int) -> int:
        """Before "that", the nearest noun is the subject of what follows."""
        plural = {many for _, many in self.nouns}
        single = {one for one, _ in self.nouns}
        for word in reversed(words):
            if word in plural or word in single:
                return int(word in plural)
        return number

    def _noun(self, rng: random.Random, number: int) -> list[str]:
        words = [rng.choice(ARTICLES[number])]
        if rng.random() < 0.35:
            words.append(rng.choice(ADJECTIVES))
        if rng.random() < 0.2:  # the first noun of a compound is singular
            words.append(rng.choice(self.nouns)[0])
        words.append(rng.choice(self.nouns)[number])
        return [word for word in words if word]

    def _opening(self, rng: random.Random) -> list[str]:
        kind = rng.random()
        if kind < 0.45:
            return []
        if kind < 0.6:
            return rng.choice(OPENINGS).split()
        other = self._noun(rng, rng.randrange(2))
        if kind < 0.85:
            return [rng.choice(PREPOSITIONS), *other, ","]
        return [*other, rng.choice(PAST), *rng.choice(((), ("that",)))]

    def _modifier(self, rng: random.Random) -> list[str]:
        other = self._noun(rng, rng.randrange(2))
        kind = rng.random()
        if kind < 0.7:
            return [rng.choice(PREPOSITIONS), *other]
        if kind < 0.85:
            return [rng.choice(PARTICIPLES), rng.choice(("by", "in", "for", "from")), *other]
        if kind < 0.93:
            return [rng.choice(("that", "which", "who")), rng.choice(PAST), *other]
        return [",", *other, ","]
