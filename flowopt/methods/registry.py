"""The registry of methods: what each is, what it costs, whether it has signs, what it sums to."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from flowopt.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from flowopt.attribution import Attribution

__all__ = [
    "FAMILIES",
    "Method",
    "MethodSpec",
    "Scores",
    "available",
    "method_spec",
    "register",
]

FAMILIES = ("flow", "attention", "gradient", "perturbation", "surrogate", "reference", "user")
"""What methods are made of; "surrogate" fits a simple model, "reference" is a floor."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a method returns if it has more to say than the scores.

    Parameters
    ----------
    values : array (t,)
        One score per position, special tokens included.
    total : float, optional
        What they should sum to by the method's own promise, such as y(x) - y(baseline).
    notes : mapping
        What was chosen for the user (the baseline), and what else is worth keeping.
    """

    values: ArrayLike
    total: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


Method = Callable[..., "ArrayLike | Scores | Attribution"]
"""``(subject, **options) -> scores (t,)``, or `Scores`, or a whole `Attribution`."""
F = TypeVar("F", bound=Method)


@dataclass(frozen=True)
class MethodSpec:
    """A method and what is to be known of it before it is used.

    Parameters
    ----------
    name : str
    function : callable
        ``(subject, **options) -> scores``; see `Method`.
    summary : str
        One line.
    family : str
        One of `FAMILIES`.
    source : str
        Paper.
    cost : str
        Texts read forwards and backwards, with t tokens, p of them not special. What a run
        really took is in ``attribution.settings["passes"]``.
    signed : bool
        Whether scores may be negative: against the class.
    sums_to : str or None
        What the scores sum to; None: nothing in particular.
    seeded : bool
        Whether it draws random numbers; it has then an option `seed`.
    requires : str or None
        An optional package.
    """

    name: str
    function: Method
    summary: str = ""
    family: str = "user"
    source: str = ""
    cost: str = ""
    signed: bool = True
    sums_to: str | None = None
    seeded: bool = False
    requires: str | None = None

    @property
    def usable(self) -> bool:
        """Whether the package that it requires is installed."""
        return self.requires is None or find_spec(self.requires) is not None

    @property
    def options(self) -> dict[str, Any]:
        """Its options and their defaults."""
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        return {
            each.name: None if each.default is each.empty else each.default
            for each in parameters
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        }

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options that the method does not have, and a package that is missing.

        Raises
        ------
        InputError, MissingDependencyError
        """
        if not self.usable:
            raise MissingDependencyError(
                f"the method {self.name!r} needs the package {self.requires}: "
                f"pip install 'flowopt[{self.requires}]'"
            )
        parameters = inspect.signature(self.function).parameters.values()
        if any(each.kind is each.VAR_KEYWORD for each in parameters):
            return
        for name in options:
            if name not in self.options:
                close = difflib.get_close_matches(name, self.options, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                known = ", ".join(self.options) or "none"
                raise InputError(
                    f"the method {self.name!r} has no option {name!r}; {hint}Its options: {known}"
                )


_REGISTRY: dict[str, MethodSpec] = {}


def register(
    name: str,
    *,
    signed: bool,
    sums_to: str | None = None,
    summary: str | None = None,
    family: str = "user",
    source: str = "",
    cost: str = "",
    seeded: bool = False,
    requires: str | None = None,
) -> Callable[[F], F]:
    """Register a function as a method; `flowopt.explain` then takes it by name.

    Parameters
    ----------
    name : str
    signed, sums_to, family, source, cost, seeded, requires
        See `MethodSpec`.
    summary : str, optional
        By default the first line of the function's docstring.

    Raises
    ------
    InputError
        If the name is empty or belongs to another function, or the family is unknown.

    Examples
    --------
    >>> @register("length", signed=False)
    ... def length(subject):
    ...     '''Long tokens matter.'''
    ...     return [len(token) for token in subject.info.tokens]
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a method's name must be a string that is not empty, not {name!r}")
    if family not in FAMILIES:
        raise InputError(f"family must be one of {', '.join(FAMILIES)}; not {family!r}")

    def add(function: F) -> F:
        from flowopt.methods.flow_methods import flow_spec

        held = _REGISTRY.get(name) or flow_spec(name)
        if held is not None and not _same(held.function, function):
            raise InputError(f"the method name {name!r} is taken; choose another name")
        line = _first_line(function) if summary is None else summary
        _REGISTRY[name] = MethodSpec(
            name, function, line, family, source, cost, signed, sums_to, seeded, requires
        )
        return function

    return add


def available() -> tuple[str, ...]:
    """Names of the methods that can be used here, family by family.

    A flow method exists for every registered tensor: "agf-maxflow", "agf-barrier"; the other
    objectives go by the same pattern, as "af-quadratic".
    """
    return tuple(spec.name for spec in all_specs() if spec.usable)


def all_specs() -> list[MethodSpec]:
    """Every method, also those whose package is missing; family by family."""
    from flowopt.methods.flow_methods import flow_specs

    specs = [*flow_specs(), *_REGISTRY.values()]
    return sorted(specs, key=lambda spec: FAMILIES.index(spec.family))


def method_spec(method: str | Method | MethodSpec) -> MethodSpec:
    """Look a method up by name; a function is its own method.

    Raises
    ------
    InputError
        If there is no such name, or the argument is neither a name nor a function.
    """
    if isinstance(method, MethodSpec):
        return method
    if isinstance(method, str):
        from flowopt.methods.flow_methods import flow_spec

        found = _REGISTRY.get(method) or flow_spec(method)
        if found is None:
            names = [spec.name for spec in all_specs()]
            close = difflib.get_close_matches(method.lower(), names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(
                f"there is no method {method!r}; {hint}Known names: {', '.join(names)}"
            )
        return found
    if not callable(method) or isinstance(method, type):
        raise InputError(
            "method must be a name (flowopt.methods.available() lists them) or a function "
            f"subject -> scores (t,), not {method!r}"
        )
    name = getattr(method, "__name__", type(method).__name__)
    return MethodSpec(name, method, _first_line(method))


def _first_line(function: Any) -> str:
    return (inspect.getdoc(function) or "").strip().partition("\n")[0]


def _same(first: Any, second: Any) -> bool:
    """Whether a notebook cell was simply run again: same function name in the same module."""
    names = [
        (getattr(f, "__module__", None), getattr(f, "__qualname__", None)) for f in (first, second)
    ]
    return first is second or (names[0] == names[1] and names[0] != (None, None))
