"""What the options of ``flowopt evaluate`` mean: methods with options, filters, workers."""

from __future__ import annotations

import ast
from typing import Any

from flowopt.errors import InputError

__all__ = ["methods_of", "pairs_of", "workers_of"]


def methods_of(given: list[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Read LABEL=NAME:OPTION=VALUE,...; without a label all of it is the label.

    Raises
    ------
    InputError
        If one cannot be read, or two have one label.
    """
    found = dict(_method(each) for each in given)
    if len(found) < len(given):
        raise InputError("two methods have one label; tell them apart with --method LABEL=NAME")
    return found


def pairs_of(given: list[str] | None) -> dict[str, str]:
    """Read COLUMN=VALUE.

    Raises
    ------
    InputError
    """
    found = {}
    for pair in given or ():
        column, equals, value = pair.partition("=")
        if not equals or not column:
            raise InputError(f"--where takes COLUMN=VALUE, such as split=dev; not {pair!r}")
        found[column] = value
    return found


def workers_of(given: str | None) -> int | str | None:
    """Read a number of processes or an address.

    Raises
    ------
    InputError
    """
    if given is None:
        return None
    try:
        return int(given)
    except ValueError:
        if "://" not in given:
            raise InputError(
                f"--workers takes a number or an address such as tcp://host:8786; not {given!r}"
            ) from None
        return given


def _method(given: str) -> tuple[str, tuple[str, dict[str, Any]]]:
    head, colon, rest = given.partition(":")
    label, equals, name = head.partition("=")
    if not equals:
        label, name = given, head
    chosen: dict[str, Any] = {}
    for pair in _split(rest) if colon else ():
        option, equals, value = pair.partition("=")
        option = option.strip().replace("-", "_")
        if not equals or not option:
            raise InputError(
                "--method takes NAME:OPTION=VALUE,... such as integrated-gradients:steps=16; not "
                f"{given!r}"
            )
        try:
            chosen[option] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            chosen[option] = value
    return label.strip(), (name.strip(), chosen)


def _split(text: str) -> list[str]:
    """At commas outside of brackets: baselines=['pad','mask'],steps=4."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
