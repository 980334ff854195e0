"""The stored form of an attribution: a dict of plain values, and its JSON."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError
from flowopt.trace.record import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from flowopt.attribution import Attribution

__all__ = ["SCHEMA", "dumps", "explained_errors", "fields_of", "loads", "to_dict"]

SCHEMA = "flowopt.attribution/1"
"""Name and version of the stored form; the number grows when a field changes its meaning."""


def to_dict(attribution: Attribution) -> dict[str, Any]:
    """Everything but the solutions and the image, as plain values."""
    proof = attribution.certificate
    return {
        "schema": SCHEMA,
        "text": attribution.text,
        "tokens": list(attribution.tokens),
        "scores": attribution.scores.tolist(),
        "special": attribution.special.tolist(),
        "word_ids": list(attribution.word_ids),
        "offsets": None if attribution.offsets is None else [list(o) for o in attribution.offsets],
        "prediction": asdict(attribution.prediction),
        "target": asdict(attribution.target),
        "value": attribution.value,
        "max_flow": attribution.max_flow,
        "status": str(attribution.status),
        "certificate": None if proof is None else proof.to_dict(),
        "settings": attribution.settings,
        "prefix_tokens": list(attribution.prefix_tokens),
        "prefix_scores": _listed(attribution.prefix_scores),
        "raw_scores": _listed(attribution.raw_scores),
        "grid": None if attribution.grid is None else list(attribution.grid),
    }


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn plain values into the fields of an Attribution, the certificate apart."""
    offsets, limit = values["offsets"], values["max_flow"]
    return {
        "text": values["text"],
        "tokens": tuple(values["tokens"]),
        "scores": np.array([float(score) for score in values["scores"]]),
        "special": np.array(values["special"], dtype=bool),
        "word_ids": tuple(values["word_ids"]),
        "offsets": None if offsets is None else tuple((int(a), int(b)) for a, b in offsets),
        "prediction": _prediction(values["prediction"]),
        "target": _prediction(values["target"]),
        "value": float(values["value"]),
        "max_flow": None if limit is None else float(limit),
        "status": values["status"],
        "settings": dict(values["settings"]),
        # absent from what was written before there were any
        "prefix_tokens": tuple(values.get("prefix_tokens", ())),
        "prefix_scores": _floats(values.get("prefix_scores")),
        "raw_scores": _floats(values.get("raw_scores")),
        "grid": None if values.get("grid") is None else tuple(int(n) for n in values["grid"]),
    }


def _listed(scores: NDArray[np.float64] | None) -> list[float] | None:
    return None if scores is None else scores.tolist()


def _floats(scores: Sequence[Any] | None) -> NDArray[np.float64] | None:
    return None if scores is None else np.array([float(score) for score in scores])


def dumps(values: Mapping[str, Any]) -> str:
    """JSON by the standard, which has no infinity or NaN: these become strings."""
    return json.dumps(_finite(values), indent=2, allow_nan=False)


def loads(
    source: str | PathLike[str], schema: str = SCHEMA, writer: str = "Attribution.to_json"
) -> dict[str, Any]:
    """Parse JSON text, or the file at a path.

    Parameters
    ----------
    source : str or path
    schema : str
        What it must say it is.
    writer : str
        What should have written it, for messages.

    Raises
    ------
    InputError
    """
    text = source if isinstance(source, str) and source.lstrip().startswith("{") else None
    if text is None:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot read an attribution from {str(source)[:80]!r} ({error}); give JSON text "
                f"or the path of a file that {writer} wrote"
            ) from None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"this is not JSON ({error}); give what {writer} wrote") from None
    if not isinstance(values, dict) or values.get("schema") != schema:
        found = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise InputError(
            f"expected schema {schema!r}, found {found!r}: written by something else, or by "
            f"another version of flowopt; write it again with {writer}"
        )
    return values


@contextmanager
def explained_errors(values: Mapping[str, Any]) -> Iterator[None]:
    """Turn the errors of reading a damaged dict into one InputError."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the stored attribution is damaged ({type(error).__name__}: {error}); it has the "
            f"keys {', '.join(map(str, values))}. Write it again with Attribution.to_json"
        ) from None


def _prediction(values: Mapping[str, Any]) -> Prediction:
    return Prediction(
        str(values["label"]),
        int(values["index"]),
        float(values["probability"]),
        float(values["logit"]),
    )


def _finite(value: Any) -> Any:
    """Replace inf and nan by strings that float() reads back, and numpy numbers by Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
