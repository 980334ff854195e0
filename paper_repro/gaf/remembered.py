"""Methods that remember what they said, so that three protocols cost one explanation."""

from __future__ import annotations

from typing import Any

from flowopt.methods import MethodSpec, Subject, explain_subject, method_spec

Memory = dict[tuple[Any, ...], Any]


def remembered(name: str) -> MethodSpec:
    """A method by name that explains a text, a class and a seed once.

    The seconds and passes of later calls are those of looking it up: only the first protocol's
    say what a method costs.
    """
    spec = method_spec(name)
    memory: Memory = {}

    def scores(subject: Subject, options: dict[str, Any]) -> Any:
        key = (subject.text, subject.target.index, *sorted(options.items()))
        if key not in memory:
            memory[key] = explain_subject(subject, spec, options).scores
        return memory[key]

    if spec.seeded:

        def function(subject: Subject, *, seed: int = 0, **options: Any) -> Any:
            return scores(subject, {**options, "seed": seed})

    else:

        def function(subject: Subject, **options: Any) -> Any:
            return scores(subject, options)

    return MethodSpec(
        spec.name, function, spec.summary, spec.family, spec.source, spec.cost, spec.signed,
        spec.sums_to, spec.seeded, spec.requires,
    )  # fmt: skip
