"""What every comparison needs as a floor: scores that know nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flowopt.methods.registry import register
from flowopt.methods.seeds import check_seed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from flowopt.methods.subject import Subject

__all__ = ["random"]


@register("random", family="reference", cost="none", signed=False, seeded=True)
def random(subject: Subject, *, seed: int = 0) -> ArrayLike:
    """Independent uniform numbers between 0 and 1, other ones for every text.

    Parameters
    ----------
    subject : Subject
    seed : int
        The same text gets the same scores for the same seed.
    """
    ids = subject.info.input_ids or ()
    return np.random.default_rng([check_seed(seed), *ids]).random(len(subject))
