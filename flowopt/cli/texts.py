"""The texts to explain: from the arguments, a file, or standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flowopt.cli.shell import say
from flowopt.errors import InputError

__all__ = ["EXAMPLE", "Line", "from_arguments", "from_file"]

EXAMPLE = 'flowopt explain "A gripping, funny film."'


@dataclass(frozen=True)
class Line:
    """A text, and its line in the file it came from."""

    text: str
    number: int | None = None


def from_arguments(texts: list[str] | None) -> list[Line]:
    """Texts given as arguments.

    Raises
    ------
    InputError
        If there is none, or one is empty.
    """
    if not texts:
        raise InputError(f"nothing to explain; try: {EXAMPLE}")
    for text in texts:
        if not text.strip():
            raise InputError(f"the text is empty; try: {EXAMPLE}")
    return [Line(text) for text in texts]


def from_file(file: str, texts: list[str] | None) -> list[Line] | Iterator[Line]:
    """Lines of a file, read at once; of standard input ("-"), as they come.

    Raises
    ------
    InputError
        If texts were given as well, or the file cannot be read or holds no text.
    """
    if texts:
        raise InputError("give texts or --file, not both")
    if file == "-":
        return _not_blank(sys.stdin)
    try:
        with open(file, encoding="utf-8-sig") as stream:
            lines = list(_not_blank(stream))
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text ({error.reason}); convert it first") from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from None
    if not lines:
        raise InputError(f"{file} has no line with text")
    return lines


def _not_blank(stream: Iterable[str]) -> Iterator[Line]:
    blank = []
    for number, text in enumerate(stream, start=1):
        if text.strip():
            yield Line(text.rstrip("\n"), number)
        else:
            blank.append(number)
    if blank:
        numbers = ", ".join(map(str, blank[:8])) + (", ..." if len(blank) > 8 else "")
        say("note", f"skipped blank line{'s' if len(blank) > 1 else ''} {numbers}")
