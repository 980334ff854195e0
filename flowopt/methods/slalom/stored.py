"""The stored form of a SLALOM explanation: a dict of plain values, and its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError
from flowopt.methods.slalom.explanation import SlalomExplanation
from flowopt.methods.slalom.fit import SlalomFit
from flowopt.methods.slalom.quality import FitQuality, LinearFit
from flowopt.methods.slalom.texts import Wrapped
from flowopt.trace.record import Prediction, TokenInfo

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["SCHEMA", "dumps", "from_dict", "loads", "to_dict"]

SCHEMA = "flowopt.slalom/1"
"""Name and version of the stored form; the number grows when a field changes its meaning."""


def to_dict(explanation: SlalomExplanation) -> dict[str, Any]:
    """Everything but the samples, as plain values."""
    fit, linear, info = explanation.fit, explanation.linear, explanation.source.info
    return {
        "schema": SCHEMA,
        "text": info.text,
        "tokens": list(info.tokens),
        "special": list(info.special),
        "word_ids": list(info.word_ids),
        "input_ids": None if info.input_ids is None else list(info.input_ids),
        "offsets": None if info.offsets is None else [list(pair) for pair in info.offsets],
        "start": explanation.source.start,
        "stop": explanation.source.stop,
        "vocabulary": list(explanation.vocabulary),
        "values": fit.values.tolist(),
        "importances": fit.importances.tolist(),
        "fit": {name: getattr(fit, name) for name in ("mse", "ridge", "evaluations", "converged")},
        "linear": {
            "coefficients": linear.coefficients.tolist(),
            "intercept": linear.intercept,
            "mse": linear.mse,
        },
        "quality": asdict(explanation.quality),
        "prediction": asdict(explanation.prediction),
        "target": asdict(explanation.target),
        "log_odds": explanation.log_odds,
        "settings": dict(explanation.settings),
    }


def from_dict(stored: Mapping[str, Any]) -> SlalomExplanation:
    """Rebuild an explanation from `to_dict`.

    Raises
    ------
    InputError
        If a field is missing or has another type.
    """
    try:
        return SlalomExplanation(
            source=_source(stored),
            vocabulary=tuple(str(token) for token in stored["vocabulary"]),
            fit=SlalomFit(
                np.array(stored["values"], dtype=np.float64),
                np.array(stored["importances"], dtype=np.float64),
                **stored["fit"],
            ),
            linear=LinearFit(
                np.array(stored["linear"]["coefficients"], dtype=np.float64),
                float(stored["linear"]["intercept"]),
                float(stored["linear"]["mse"]),
            ),
            quality=FitQuality(**stored["quality"]),
            prediction=Prediction(**stored["prediction"]),
            target=Prediction(**stored["target"]),
            log_odds=float(stored["log_odds"]),
            settings=dict(stored["settings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the stored explanation is damaged ({type(error).__name__}: {error}); write it again "
            "with SlalomExplanation.to_json"
        ) from None


def dumps(values: Mapping[str, Any]) -> str:
    """JSON by the standard, which has no infinity or NaN: these become strings."""
    return json.dumps(_plain(values), indent=2, allow_nan=False)


def loads(source: str | PathLike[str]) -> dict[str, Any]:
    """Parse JSON text, or the file at a path.

    Raises
    ------
    InputError
    """
    text = source if isinstance(source, str) and source.lstrip().startswith("{") else None
    try:
        text = Path(source).read_text(encoding="utf-8") if text is None else text
        values = json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read an explanation from {str(source)[:80]!r} ({error}); give JSON text or "
            "the path of a file that SlalomExplanation.to_json wrote"
        ) from None
    found = values.get("schema") if isinstance(values, dict) else type(values).__name__
    if found != SCHEMA:
        raise InputError(
            f"expected schema {SCHEMA!r}, found {found!r}; give what SlalomExplanation.to_json "
            "wrote"
        )
    return dict(values)


def _source(stored: Mapping[str, Any]) -> Wrapped:
    offsets = stored["offsets"]
    info = TokenInfo(
        tokens=tuple(stored["tokens"]),
        special=tuple(bool(flag) for flag in stored["special"]),
        word_ids=tuple(stored["word_ids"]),
        input_ids=tuple(int(i) for i in stored["input_ids"]),
        offsets=None if offsets is None else tuple((int(a), int(b)) for a, b in offsets),
        text=stored["text"],
    )
    return Wrapped(info, int(stored["start"]), int(stored["stop"]))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
