"""Protocols: which tokens are removed and how, of which class, and what is averaged."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from flowopt.errors import InputError

__all__ = ["ERASER_BINS", "PROTOCOLS", "REMOVALS", "Protocol", "protocol_named"]

REMOVALS = ("delete", "pad", "mask", "unknown")
"""Positions close up, or the tokenizer's token stands in the place of what is removed."""
TARGETS = ("predicted", "label")
ERASER_BINS = (0.01, 0.05, 0.10, 0.20, 0.50)
"""Shares of the tokens at which ERASER measures comprehensiveness and sufficiency."""
_STEP = 0.1


@dataclass(frozen=True)
class Protocol:
    """How attributions are measured by removing tokens.

    Parameters
    ----------
    name : str
    levels : tuple of float
        Shares of the tokens, above 0 and at most 1, ascending: AOPC and log-odds are means over
        them.
    removal : str
        One of `REMOVALS`. With "delete" the positions close up; otherwise the *embedding* of the
        token that stands in is put in place of the removed token's, the ids stay: what a model
        reads off its ids (RoBERTa's positions, a decoder's last token) does not change.
    target : str
        "predicted": the class the model predicts; "label": the one the data set names.
    absolute : bool
        Whether AOPC takes the size of a change of probability instead of the change.
    least_tokens : int
        Texts with fewer tokens, special ones not counted, are not measured.

    Raises
    ------
    InputError
        If a part cannot be used.
    """

    name: str
    levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)
    removal: str = "delete"
    target: str = "predicted"
    absolute: bool = False
    least_tokens: int = 1

    def __post_init__(self) -> None:
        try:
            levels = tuple(float(level) for level in self.levels)
        except (TypeError, ValueError):
            raise InputError(f"levels must be shares of the tokens, not {self.levels!r}") from None
        object.__setattr__(self, "levels", levels)
        ascending = all(a < b for a, b in zip((0.0, *levels), levels, strict=False))
        if not levels or not ascending or not levels[-1] <= 1.0:
            raise InputError(
                f"levels must be shares of the tokens above 0 and at most 1, ascending: {levels}"
            )
        for what, value, known in (
            ("removal", self.removal, REMOVALS),
            ("target", self.target, TARGETS),
        ):
            if value not in known:
                raise InputError(f"{what} must be one of {', '.join(known)}; not {value!r}")
        if not isinstance(self.least_tokens, int) or self.least_tokens < 1:
            raise InputError(f"least_tokens must be at least 1, not {self.least_tokens!r}")

    @property
    def fractions(self) -> tuple[float, ...]:
        """Shares at which curves are drawn: 0, the levels, then steps of a tenth up to 1."""
        after = (i * _STEP for i in range(1, 10))
        return (
            0.0,
            *self.levels,
            *(step for step in after if step > self.levels[-1] + 1e-9),
            *(() if self.levels[-1] == 1.0 else (1.0,)),
        )


def count_at(level: float, tokens: int) -> int:
    """Tokens that a level stands for: rounded up, so that no level above 0 removes nothing."""
    return min(tokens, math.ceil(level * tokens - 1e-9))


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("default"),
        Protocol(
            "attcat",
            levels=tuple(i / 9 for i in range(1, 10)),
            target="label",
            absolute=True,
            least_tokens=10,
        ),
        Protocol(
            "attcat-pad",
            levels=tuple(i / 9 for i in range(1, 10)),
            removal="pad",
            target="label",
            absolute=True,
            least_tokens=10,
        ),
        Protocol("eraser", levels=ERASER_BINS),
    )
}
"""The protocols with names. "attcat" follows what is known of AttCAT's code (Qiang et al. 2022),
which deletes in one table and pads in the other; "eraser" is DeYoung et al. (2020). Of a decoder
without special tokens nothing is left at the last level of "attcat": take "attcat-pad" there."""


def protocol_named(protocol: str | Protocol) -> Protocol:
    """Look a protocol up by name; a protocol is itself.

    Raises
    ------
    InputError
        If there is no such name.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        close = difflib.get_close_matches(str(protocol), PROTOCOLS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(
            f"there is no protocol {protocol!r}; {hint}Known names: {', '.join(PROTOCOLS)}; or "
            "give a flowopt.evaluation.Protocol of your own"
        )
    return PROTOCOLS[protocol]
