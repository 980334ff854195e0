"""Propositional formulas in prefix notation: random ones, their truth, what satisfies them.

Letters a to d are variables; ``!`` is not, ``&`` and, ``|`` or, ``>`` implies, ``=`` the same,
``^`` different. A truth table is an integer of 16 bits, one for each assignment of all four
variables, so that formulas are evaluated in all assignments at once.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import lru_cache

from flowopt.errors import InputError

VARIABLES = "abcd"
ROWS = 1 << len(VARIABLES)
ALL = (1 << ROWS) - 1
BINARY: dict[str, Callable[[int, int], int]] = {
    "&": lambda x, y: x & y,
    "|": lambda x, y: x | y,
    ">": lambda x, y: (ALL ^ x) | y,
    "=": lambda x, y: ALL ^ x ^ y,
    "^": lambda x, y: x ^ y,
}
NOT = "!"
SYMBOLS = VARIABLES + NOT + "".join(BINARY)
SHORTEST, LONGEST = 3, 13
NEGATED = 0.25  # share of negations among the symbols of an inner formula


def column(place: int) -> int:
    """Truth table of the variable at a place in `VARIABLES`: bit r is bit `place` of r."""
    return sum(1 << row for row in range(ROWS) if row >> place & 1)


COLUMNS = {name: column(place) for place, name in enumerate(VARIABLES)}


def truth_table(formula: str) -> int:
    """Bit r is the formula's truth where variable i has the value of bit i of r.

    Raises
    ------
    InputError
        If the text is not one formula.
    """
    stack: list[int] = []
    for symbol in reversed(formula):
        if symbol in COLUMNS:
            stack.append(COLUMNS[symbol])
        elif symbol == NOT and stack:
            stack.append(ALL ^ stack.pop())
        elif symbol in BINARY and len(stack) >= 2:
            left, right = stack.pop(), stack.pop()
            stack.append(BINARY[symbol](left, right))
        else:
            raise InputError(f"{formula!r} is no formula: write it in prefix notation, like '&a!b'")
    if len(stack) != 1:
        raise InputError(f"{formula!r} is {len(stack)} formulas: join them, like '&a!b'")
    return stack[0]


@lru_cache
def partial_assignments() -> tuple[tuple[str, int], ...]:
    """All assignments of some variables, written like ``a1c0``, with their rows.

    Fewest variables first, then in the order of the alphabet, 1 before 0: the order in which
    `answer_to` looks for an answer.
    """
    found = []
    for count in range(1, len(VARIABLES) + 1):
        for names in itertools.combinations(VARIABLES, count):
            for values in itertools.product("10", repeat=count):
                text = "".join(map("".join, zip(names, values, strict=True)))
                found.append((text, rows_of(text)))
    return tuple(found)


def rows_of(assignment: str) -> int:
    """Truth table of an assignment like ``a1c0``: the rows that agree with it.

    Raises
    ------
    InputError
        If the text is no assignment, or names a variable twice.
    """
    names, values = assignment[::2], assignment[1::2]
    wrong = len(names) != len(values) or set(names) - set(VARIABLES) or set(values) - {"0", "1"}
    if wrong or len(set(names)) < len(names):
        raise InputError(f"{assignment!r} is no assignment: write one like 'a1c0'")
    rows = ALL
    for name, value in zip(names, values, strict=True):
        rows &= COLUMNS[name] if value == "1" else ALL ^ COLUMNS[name]
    return rows


def satisfies(assignment: str, formula: str) -> bool:
    """Whether the assignment makes the formula true whatever the other variables are.

    What is no assignment satisfies nothing.
    """
    try:
        rows = rows_of(assignment)
    except InputError:
        return False
    return rows & ~truth_table(formula) == 0


def answer_to(formula: str) -> str | None:
    """The answer that the model is taught: of the shortest assignments the first.

    None where there is nothing to assign: the formula is always true, or never.
    """
    truth = truth_table(formula)
    if truth in (0, ALL):
        return None
    return next(text for text, rows in partial_assignments() if rows & ~truth == 0)


def random_formula(symbols: int, rng: random.Random) -> str:
    """A formula of so many symbols."""
    if symbols == 1:
        return rng.choice(VARIABLES)
    if symbols == 2 or rng.random() < NEGATED:
        return NOT + random_formula(symbols - 1, rng)
    left = rng.randint(1, symbols - 2)
    operator = rng.choice(list(BINARY))
    return operator + random_formula(left, rng) + random_formula(symbols - 1 - left, rng)


def random_formulas(keep: Callable[[str], bool], seed: int) -> Iterator[tuple[str, str]]:
    """Endless formulas with their answers: lengths drawn uniformly, those that have an answer.

    Parameters
    ----------
    keep : callable
        Which formulas to keep: one side of a split.
    seed : int
    """
    rng = random.Random(seed)
    while True:
        formula = random_formula(rng.randint(SHORTEST, LONGEST), rng)
        answer = answer_to(formula)
        if answer is not None and keep(formula):
            yield formula, answer


def edits(formula: str, place: int) -> list[str]:
    """Formulas that differ in one symbol: another variable or operator of two; a negation gone."""
    symbol, before, after = formula[place], formula[:place], formula[place + 1 :]
    if symbol == NOT:
        return [before + after]
    kind = VARIABLES if symbol in VARIABLES else "".join(BINARY)
    return [before + other + after for other in kind if other != symbol]


def deciding(formula: str, piece: str) -> list[float]:
    """For each symbol the share of its `edits` whose answer lacks a piece, like ``b`` or ``b0``.

    By logic alone, no model asked: which symbols decide that the piece is in the answer. An edit
    that leaves nothing to assign (always true, or never) takes every piece away.
    """
    found = []
    for place in range(len(formula)):
        answers = [answer_to(edited) or "" for edited in edits(formula, place)]
        found.append(sum(piece not in answer for answer in answers) / len(answers))
    return found
