"""Straight paths of inputs, from baselines to an example, and the quadrature along them.

Along a path every token that may move has the embedding x' + alpha (x - x'), alpha from 0 to 1;
the pixels of an image move instead of its patches. Special tokens keep their embeddings, position
and segment embeddings stay as they are. From the baseline "absent" embeddings stay too, and tokens
fade into the attention of the others (`flowopt.trace.fading`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowopt.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PreTrainedModel

    from flowopt.trace.batch import Batch

__all__ = ["ABSENT", "BASELINES", "MIXED", "Path", "PathOptions", "path_of"]

ABSENT = "absent"
"""The start of a path at which no token that moves is read by any other."""

MIXED = "mixed"
"""Half of what comes from "absent", and half of what comes from the model's own tokens (None)."""

BASELINES = ("pad", "mask", "unknown", "zero", ABSENT, MIXED)
"""Named starts of a path: the embedding of that token, or zeros, at every token that moves."""

_TOKENS = BASELINES[:3]
_FIXED = ("pad", "bos", "eos", "sep", "cls", "mask", "decoder_start")


@dataclass(frozen=True, eq=False)
class PathOptions:
    """From where to where a path leads, and at how many points it is looked at.

    Parameters
    ----------
    steps : int
        Points of the Gauss-Legendre quadrature on each path.
    baselines : None, or one baseline, or a sequence of them
        "pad", "mask", "unknown" (embeddings of these tokens) or "zero"; "absent" (tokens fade out
        of attention: as near as a path comes to deleting them); "mixed" (alone: half "absent",
        half None); a token id; token ids (t,); embeddings (t, d); for an image pixels (channels,
        height, width). Results of several are averaged. None takes those of "pad", "mask" and
        "unknown" that the model has (and whose embedding is not zero), "zero" where it has none,
        and zeros for images. Arrays are meant for the input's tokens; the prefix of an
        encoder-decoder does not move along their paths.
    prefix : bool
        Whether generated tokens move too. If not, what is integrated is the effect of the given
        tokens alone, the generated ones being as they are.
    tolerance : float or None
        Largest relative error of y(x) - y(x') (`flowopt.trace.conductance`): where it is larger,
        steps are doubled up to three times, and a `FlowoptWarning` says if that did not help.
        None leaves it at `steps`.

    Raises
    ------
    InputError
        If `steps` is no positive integer, the tolerance not positive, or there is no such
        baseline.
    """

    steps: int = 32
    baselines: Any = None
    prefix: bool = True
    tolerance: float | None = 0.05

    def __post_init__(self) -> None:
        steps = self.steps
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
            raise InputError(f"steps must be a positive integer, not {steps!r}")
        limit = self.tolerance
        if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
            raise InputError(f"tolerance must be a positive number or None, not {limit!r}")
        listed = self.listed
        if listed == ():
            raise InputError("give at least one baseline, or None for the default ones")
        if listed and len(listed) > 1 and MIXED in [each for each in listed if _plain(each)]:
            raise InputError('"mixed" is a mixture already: give it alone, or list its parts')

    @property
    def listed(self) -> tuple[int | str | np.ndarray[Any, Any], ...] | None:
        """The baselines as names, ids and arrays; None for the default ones."""
        given = self.baselines
        if given is None:
            return None
        return tuple(
            _checked(each) for each in (given if isinstance(given, (list, tuple)) else (given,))
        )


@dataclass(frozen=True, eq=False)
class Path:
    """The paths of one example.

    Parameters
    ----------
    starts : tuple of int, "zero", "absent" or ndarray
        Baselines; names of tokens have become ids.
    fixed : mapping of str to Tensor (positions,)
        For "source" and "prefix" which positions, padding included, do not move.
    given : tuple of float or None
        The share that each start has in the average; None: equal ones.
    """

    starts: tuple[Any, ...]
    fixed: Mapping[str, Tensor]
    given: tuple[float, ...] | None = None

    @property
    def shares(self) -> tuple[float, ...]:
        """What part each start has in the average; they sum to 1."""
        return self.given or (1.0 / len(self.starts),) * len(self.starts)

    @property
    def fades(self) -> tuple[bool, ...]:
        """From which starts tokens fade in, instead of being moved."""
        return tuple(_plain(start) and start == ABSENT for start in self.starts)

    @property
    def moving(self) -> dict[str, Tensor]:
        """For "source" and "prefix", which positions move."""
        return {side: ~fixed for side, fixed in self.fixed.items()}

    def ends(self, x: Tensor, side: str, lookup: Callable[[Tensor], Tensor]) -> Tensor:
        """Baselines (B, t, d) of an input x (1, t, d); `lookup` embeds ids (1, t)."""
        import torch

        fixed = self.fixed[side].to(x.device)
        keep = fixed.reshape(1, -1, *[1] * (x.ndim - 2)) if len(fixed) else fixed
        found = []
        for start in self.starts:
            if isinstance(start, np.ndarray):
                found.append(x if side == "prefix" else _given(start, x, lookup))
                continue
            if start == ABSENT:
                found.append(x)
                continue
            end = torch.zeros_like(x)
            if start != "zero":
                end = lookup(torch.full(x.shape[:2], start, device=x.device)).to(x.dtype)
            found.append(torch.where(keep, x, end) if len(fixed) else end)
        return torch.cat(found)


def path_of(model: PreTrainedModel, batch: Batch, options: PathOptions) -> Path:
    """Paths of a batch of one example.

    Raises
    ------
    InputError
        If a baseline does not fit the input, or the model has no such token.
    """
    listed = options.listed
    names = [each for each in listed or () if _plain(each)]
    if ABSENT in names or MIXED in names:
        _check_fades(model)
    if "pixel_values" in batch.inputs:
        import torch

        starts = listed or ("zero",)
        if ABSENT in names or MIXED in names:
            raise InputError(
                "patches of an image cannot fade yet: its baselines are 'zero' or pixels (c, h, w)"
            )
        if any(isinstance(start, int) or start in _TOKENS for start in starts if _plain(start)):
            raise InputError(
                "images have no tokens: their baselines are 'zero' or pixels (c, h, w)"
            )
        return Path(starts, {"source": torch.zeros(0, dtype=torch.bool)})
    ids = {name: _token_id(model, batch.tokenizer, name) for name in _TOKENS}
    fixed = _fixed(model, batch, options.prefix)
    # the same token under two names (as in GPT-2) is one baseline
    trained = (i for i in ids.values() if i is not None and _trained(model, i))
    own: tuple[int | str, ...] = tuple(dict.fromkeys(trained)) or ("zero",)
    if names == [MIXED]:
        return Path((ABSENT, *own), fixed, (0.5, *[0.5 / len(own)] * len(own)))
    return Path(tuple(_start(each, ids, model) for each in listed or own), fixed)


def _fixed(model: PreTrainedModel, batch: Batch, prefix_moves: bool) -> dict[str, Tensor]:
    """Positions that stay: padding, special tokens and, if asked for, generated ones."""
    import torch

    config = getattr(model.config, "text_config", None) or model.config
    places = [(where, name) for where in (batch.tokenizer, config) for name in _FIXED]
    named = [getattr(where, f"{name}_token_id", None) for where, name in places]
    special_ids = {i for i in named if isinstance(i, int)}
    # tokenizers call it special, but it stands for a word
    unknown = getattr(batch.tokenizer, "unk_token_id", None)
    prompt = None if batch.prompts is None else batch.prompts[0]
    sides = {"source": (batch.kept[0], batch.infos[0], prompt)}
    if batch.decoder_kept is not None and batch.prefixes is not None:
        sides = {
            "source": (batch.kept[0], batch.infos[0], None),
            "prefix": (batch.decoder_kept[0], batch.prefixes[0], None if batch.echo else 0),
        }
    found = {}
    for side, (kept, info, given) in sides.items():
        mask = torch.ones(kept[-1] + 1, dtype=torch.bool)
        ids = info.input_ids or (None,) * len(kept)
        for place, (at, special, i) in enumerate(zip(kept, info.special, ids, strict=True)):
            generated = given is not None and place >= given and not prefix_moves
            mask[at] = (special and (i is None or i != unknown)) or i in special_ids or generated
        found[side] = mask
    if batch.echo and batch.decoder_kept is not None:
        # the decoder reads the source's tokens one position later, and they are what stays
        echoed = zip(batch.decoder_kept[0][1:], batch.kept[0], strict=False)
        for at, read in echoed:
            found["prefix"][at] = found["source"][read]
    return found


def _check_fades(model: PreTrainedModel) -> None:
    from flowopt.trace.shared import shares_attention

    if not shares_attention(model):
        raise UnsupportedError(
            f"{type(model).__name__} computes attention by code of its own, so that tokens cannot "
            'fade out of it: choose another baseline than "absent"'
        )


def _start(baseline: Any, ids: Mapping[str, int | None], model: PreTrainedModel) -> Any:
    """A baseline whose name has become a token id that the model has."""
    if not _plain(baseline) or baseline in ("zero", ABSENT):
        return baseline
    if isinstance(baseline, str):
        if ids[baseline] is None:
            known = [name for name, i in ids.items() if i is not None]
            raise InputError(
                f"the model has no token for the baseline {baseline!r}; it has "
                f"{', '.join([*known, 'zero'])}"
            )
        return ids[baseline]
    rows = getattr(model.get_input_embeddings(), "num_embeddings", baseline + 1)
    if not 0 <= baseline < rows:
        raise InputError(f"baseline token {baseline} is out of range: there are {rows} embeddings")
    return baseline


def _token_id(model: PreTrainedModel, tokenizer: Any, name: str) -> int | None:
    attribute = f"{'unk' if name == 'unknown' else name}_token_id"
    rows = getattr(model.get_input_embeddings(), "num_embeddings", 0)
    for where in (tokenizer, model.config):
        found = getattr(where, attribute, None)
        # some tokenizers name tokens that the model has no embedding for
        if isinstance(found, int) and 0 <= found < rows:
            return found
    return None


def _trained(model: PreTrainedModel, token: int) -> bool:
    """Whether a token has an embedding other than zero, as a padding token may not."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    return weight is None or bool(weight[token].any())


def _given(start: np.ndarray[Any, Any], x: Tensor, lookup: Callable[[Tensor], Tensor]) -> Tensor:
    """A baseline that is an array: ids (t,), or what replaces x itself."""
    import torch

    shapes = [tuple(x.shape[1:])]
    if x.ndim == 3:
        shapes.append((x.shape[1],))
    if start.shape not in shapes:
        raise InputError(
            f"a baseline of shape {start.shape} does not fit this input; it must have shape "
            f"{' or '.join(map(str, shapes))}"
        )
    if start.ndim == 1:
        if not np.issubdtype(start.dtype, np.integer):
            raise InputError("a baseline (t,) holds token ids, which are integers")
        return lookup(torch.as_tensor(start, device=x.device)[None]).to(x.dtype)
    return torch.as_tensor(start, dtype=x.dtype, device=x.device)[None]


def _checked(baseline: Any) -> int | str | np.ndarray[Any, Any]:
    """A baseline as a name, an integer or an array of finite numbers."""
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise InputError(
                f"there is no baseline {baseline!r}; known are {', '.join(BASELINES)}, a token id, "
                "token ids (t,) and embeddings (t, d)"
            )
        return baseline
    if isinstance(baseline, (int, np.integer)) and not isinstance(baseline, bool):
        return int(baseline)
    if hasattr(baseline, "detach"):
        baseline = baseline.detach().cpu().numpy()
    try:
        array = np.asarray(baseline)
        finite = bool(np.isfinite(array).all())
    except (TypeError, ValueError):
        raise InputError("a baseline must be a name, a token id or an array of numbers") from None
    if array.ndim == 0 or not finite:
        raise InputError(
            "a baseline that is an array must hold finite numbers: token ids (t,), embeddings "
            "(t, d) or pixels (channels, height, width)"
        )
    return array


def _plain(baseline: Any) -> bool:
    return isinstance(baseline, (int, str))
