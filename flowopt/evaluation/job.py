"""What is to be done: the job, the same for all texts, and a unit of it, one text."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowopt.errors import FlowoptError, InputError
from flowopt.evaluation.dataset import Example
from flowopt.evaluation.identity import Task, model_revision, text_seed
from flowopt.evaluation.metric import Metric
from flowopt.evaluation.protocol import Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flowopt.attribution import Attribution
    from flowopt.methods import Subject

__all__ = ["Job", "Unit"]

_WARM_UP = "A short text, so that compilers have run."


@dataclass(frozen=True)
class Job:
    """What is the same for all texts.

    Parameters
    ----------
    model : PreTrainedModel, str or None
        A name or None is loaded where the work is done.
    tokenizer : PreTrainedTokenizerBase or None
    name, revision, tokenizer_revision, dataset : str
    tasks, keys : tuple
        The methods, and for each its `work_key`.
    metrics : tuple of Metric
    protocol : Protocol
    seed : int
    threads : int or None
        Of torch; None leaves them as they are.
    """

    model: PreTrainedModel | str | None
    tokenizer: PreTrainedTokenizerBase | None
    name: str
    revision: str
    tokenizer_revision: str
    dataset: str
    tasks: tuple[Task, ...]
    keys: tuple[str, ...]
    metrics: tuple[Metric, ...]
    protocol: Protocol
    seed: int
    threads: int | None = None

    def loaded(self) -> Job:
        """The same with its model in memory, and compilers warm.

        Raises
        ------
        InputError
            If the model of that name has other weights here.
        """
        from flowopt.methods.answer import loaded

        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        found = self
        if self.model is None or isinstance(self.model, str):
            model, tokenizer = loaded(self.model, self.tokenizer)
            if (here := model_revision(model)) != self.revision:
                raise InputError(
                    f"the model {self.name!r} has other weights where the work is done "
                    f"({here[:12]}, not {self.revision[:12]}); give every machine the same files"
                )
            found = replace(self, model=model, tokenizer=tokenizer)
        found._warm_up()
        return found

    def _warm_up(self) -> None:
        """Let numba compile before anything is timed; it is flows that need it."""
        example = Example("warm-up", _WARM_UP)
        for task in self.tasks:
            if task.spec.family == "flow":
                with suppress(FlowoptError):
                    self.explained(example, task)

    def subject(self, example: Example) -> Subject:
        """The text with its model and the class that the protocol explains.

        Raises
        ------
        InputError
            If the text cannot be used, or has no label where the protocol explains it.
        """
        from flowopt.methods import subject_of
        from flowopt.trace import encode_texts
        from flowopt.trace.goals import goals_of

        model: Any = self.model
        tokenizer: Any = self.tokenizer
        wanted = None
        if self.protocol.target == "label":
            wanted = example.label
            if wanted is None:
                raise InputError(
                    f"the protocol {self.protocol.name!r} explains the right class, and the text "
                    "has no label"
                )
        (goal,) = goals_of(model, wanted, (None,), tokenizer)
        (encoded,) = encode_texts(model, tokenizer, [example.text])
        return subject_of(model, tokenizer, encoded, goal.target)

    def explained(self, example: Example, task: Task) -> Attribution:
        """One method's attribution; a subject of its own, so that its passes are all counted."""
        from flowopt.methods import explain_subject

        options = dict(task.options)
        if task.spec.seeded and "seed" in task.spec.options:
            options.setdefault("seed", text_seed(self.seed, example))
        return explain_subject(self.subject(example), task.spec, options)


@dataclass(frozen=True)
class Unit:
    """One text, and those of the job's tasks that are still to be done for it.

    Parameters
    ----------
    key : str
        Of the example.
    position : int
        Its number in the data set.
    example : Example
    tasks : tuple of int
    """

    key: str
    position: int
    example: Example
    tasks: tuple[int, ...]
