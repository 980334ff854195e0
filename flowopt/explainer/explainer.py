"""Explain predictions: model -> trace -> capacities -> flow -> attribution."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from flowopt.attribution import Attribution, CertificateSummary
from flowopt.capacities import CapacityVariant, adds_residual, compose
from flowopt.errors import InputError
from flowopt.explainer.loading import load_model, move_model
from flowopt.explainer.sources import Sources, check_sources, top_nodes
from flowopt.network import FlowNetwork
from flowopt.objectives import LogBarrier, Objective
from flowopt.progress import progress_bar
from flowopt.solvers import Solver, get_solver, solve
from flowopt.tensors import TensorFunction, capacities_of, tensor_spec
from flowopt.trace import batch_of_inputs, collate, encode_texts, family_of, trace_batch
from flowopt.trace.batch import class_indices, similar_lengths
from flowopt.trace.text import named_example

if TYPE_CHECKING:
    from os import PathLike

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flowopt.trace import Batch, Encoded, Target, Trace

__all__ = ["Explainer"]


@dataclass(frozen=True, eq=False)
class Explainer:
    """Explain a classifier's predictions by network flow.

    Parameters
    ----------
    model : PreTrainedModel
        A transformers classifier of a supported family; it is left as it was found.
    tokenizer : PreTrainedTokenizerBase, optional
        Needed to explain texts; `explain_inputs` works without.
    tensor : str or callable
        "af", "gf", "agf", another registered name, or a function ``Trace -> (L, t, t)``.
    objective : Objective, optional
        What the flow maximises; ``LogBarrier(gap=0.05)`` by default.
    solver : str or Solver, optional
        Who solves it; None takes the best one for the objective.
    sources : None, "all", "cls", int, or sequence of int
        Top nodes that the source feeds; "cls" is the position the model's head reads, negative
        numbers count from the end. None means all, but with a residual among `capacities` and a
        head that reads one position it means that position: the residual would revive top nodes
        that the prediction does not depend on (method.md, section 4).
    capacities : variant or sequence of variants
        Applied to the tensor, first to last; see `flowopt.capacities`.
    device : str or torch.device, optional
        Where the model runs; it is moved there. None leaves it where it is.
    batch_size : int
        Most texts in one forward pass; fewer where texts are long.

    Raises
    ------
    InputError
        If an argument cannot be used.
    UnsupportedError
        If the model's architecture is not supported.

    Examples
    --------
    >>> explainer = Explainer.from_pretrained(None)
    >>> print(explainer("A gripping, funny film."))  # doctest: +SKIP
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None = None
    _: KW_ONLY
    tensor: str | TensorFunction = "agf"
    objective: Objective | None = None
    solver: str | Solver | None = None
    sources: Sources = None
    capacities: CapacityVariant | Sequence[CapacityVariant] = ()
    device: str | torch.device | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        family_of(self.model)
        tensor_spec(self.tensor)
        check_sources(self.sources)
        objective = LogBarrier(gap=0.05) if self.objective is None else self.objective
        if not isinstance(objective, Objective):
            raise InputError(
                f"objective must be an objective such as LogBarrier(gap=0.05), not {objective!r}"
            )
        size = self.batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"batch_size must be a positive integer, not {size!r}")
        given = self.capacities
        one = callable(given) or isinstance(given, str)  # a name is no variant; compose says so
        variants = compose(*([given] if one else given))  # type: ignore[misc]
        if self.solver is not None:
            get_solver(self.solver)
        object.__setattr__(self, "objective", objective)
        object.__setattr__(self, "capacities", variants.variants)
        if self.device is not None:
            move_model(self.model, self.device)

    @classmethod
    def from_pretrained(cls, name: str | PathLike[str] | None = None, **options: Any) -> Self:
        """Load a model with its tokenizer, and make an explainer of them.

        Parameters
        ----------
        name : str, path or None
            A folder written by ``save_pretrained``, a name on the Hugging Face hub, or None for
            the bundled sentiment classifier (no network needed).
        **options
            The keyword arguments of `Explainer`.

        Raises
        ------
        InputError, UnsupportedError
            If it cannot be loaded, or an option cannot be used.
        """
        return cls(*load_model(name), **options)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is an iterable of str as well
        self, text: str, target: Target = None, progress: bool = False
    ) -> Attribution: ...

    @overload
    def __call__(
        self,
        text: Iterable[str],
        target: Target | Sequence[Target] = None,
        progress: bool = False,
    ) -> list[Attribution]: ...

    def __call__(
        self,
        text: str | Iterable[str],
        target: Target | Sequence[Target] = None,
        progress: bool = False,
    ) -> Attribution | list[Attribution]:
        """Explain a text, or several.

        Parameters
        ----------
        text : str or iterable of str
        target : int, str, None, or one of these per text
            The class to explain, by index or label; None for the predicted one.
        progress : bool
            Whether to show a progress bar on standard error.

        Returns
        -------
        Attribution, or a list of them in the order of the texts

        Raises
        ------
        InputError
            If a text or the target cannot be used; nothing has been computed then.
        SolverError
            If a flow problem could not be solved; the message says for which text.
        """
        if self.tokenizer is None:
            raise InputError(
                "this explainer has no tokenizer: give Explainer(model, tokenizer), or explain "
                "token ids with explain_inputs(input_ids=...)"
            )
        texts = _as_list(text)
        classes = class_indices(self.model, target, len(texts))
        encoded = encode_texts(self.model, self.tokenizer, texts)
        found: dict[int, Attribution] = {}
        with progress_bar(len(texts), progress) as advance:
            for group in similar_lengths([len(each) for each in encoded], self.batch_size):
                batch = self._collate(encoded, classes, group)
                done = self._explain(batch, group, alone=isinstance(text, str))
                for index, attribution in zip(group, done, strict=True):
                    found[index] = attribution
                    advance()
        ordered = [found[index] for index in range(len(texts))]
        return ordered[0] if isinstance(text, str) else ordered

    def explain_inputs(
        self, target: Target | Sequence[Target] = None, **model_inputs: Any
    ) -> Attribution | list[Attribution]:
        """Explain inputs that are tensors already, in one forward pass.

        Parameters
        ----------
        target : int, str, None, or one of these per example
        **model_inputs : arrays or tensors
            ``input_ids`` (b, t) or ``inputs_embeds`` (b, t, d), with ``attention_mask`` (b, t)
            and the like. Without a tokenizer, and for embeddings, tokens are the positions "0",
            "1", ...

        Returns
        -------
        Attribution for one example, else a list of them

        Raises
        ------
        InputError, UnsupportedError, SolverError
        """
        batch = batch_of_inputs(self.model, model_inputs, target, self.tokenizer)
        count = len(batch.infos)
        found = list(self._explain(batch, range(count), alone=count == 1))
        return found[0] if len(found) == 1 else found

    def explain_trace(self, trace: Trace, seconds: float | None = None) -> Attribution:
        """Solve the flow problem of one trace, and read the scores.

        Parameters
        ----------
        trace : Trace
            With `prediction` and `target`.
        seconds : float, optional
            What it took to make the trace; goes into the settings.
        """
        assert self.objective is not None  # set by __post_init__
        if trace.prediction is None or trace.target is None:
            raise InputError("the trace needs prediction and target; make it with trace_batch")
        variants = compose(*self._variants)
        start = time.perf_counter()
        capacities = variants(capacities_of(trace, self.tensor))
        middle = time.perf_counter()
        sources = top_nodes(
            self.sources, len(trace.tokens), trace.readout, adds_residual(self._variants)
        )
        network = FlowNetwork.layered(capacities, sources=sources)
        solution = solve(network, self.objective, solver=self.solver)
        limit = solution.max_flow
        end = time.perf_counter()
        return Attribution(
            text=trace.text,
            tokens=trace.tokens,
            scores=solution.attributions,
            special=np.array(trace.special),
            word_ids=trace.word_ids,
            offsets=trace.offsets,
            prediction=trace.prediction,
            target=trace.target,
            value=float(solution.value),
            max_flow=None if limit is None else float(limit),
            status=str(solution.status),
            certificate=CertificateSummary.of(solution),
            settings={
                "model": str(getattr(self.model, "name_or_path", "") or type(self.model).__name__),
                "tensor": tensor_spec(self.tensor).name,
                "objective": repr(self.objective),
                "solver": str(solution.solver),
                "capacities": [_name(variant) for variant in self._variants],
                "sources": sources,
                "seconds": {"trace": seconds, "tensor": middle - start, "solve": end - middle},
            },
            solutions=(solution,),
        )

    @property
    def _variants(self) -> tuple[CapacityVariant, ...]:
        assert isinstance(self.capacities, tuple)  # set by __post_init__
        return self.capacities

    def _collate(
        self, encoded: Sequence[Encoded], classes: Sequence[int | None], group: Sequence[int]
    ) -> Batch:
        assert self.tokenizer is not None
        return collate([encoded[i] for i in group], [classes[i] for i in group], self.tokenizer)

    def _explain(self, batch: Batch, indices: Sequence[int], alone: bool) -> Iterator[Attribution]:
        """Explain a batch; each example's trace is dropped before the next one is made."""
        traces = trace_batch(self.model, batch, tensor_spec(self.tensor).needs_gradient)
        shared = 0.0
        for place, (index, info) in enumerate(zip(indices, batch.infos, strict=True)):
            with named_example(index, info.text, alone):
                start = time.perf_counter()
                trace = next(traces)
                seconds = time.perf_counter() - start
                if place == 0:
                    # The first trace of a batch includes the forward and backward pass of all.
                    shared = seconds / len(indices)
                attribution = self.explain_trace(trace, shared + (seconds if place else 0.0))
            yield attribution


def _as_list(text: str | Iterable[str]) -> list[str]:
    if isinstance(text, str):
        return [text]
    if isinstance(text, (bytes, Mapping)) or not isinstance(text, Iterable):
        raise InputError(f"give a str, or a list of them, not {type(text).__name__}")
    return list(text)


def _name(variant: CapacityVariant) -> str:
    return str(getattr(variant, "__name__", None) or repr(variant))
