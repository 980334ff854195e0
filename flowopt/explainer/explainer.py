"""Explain predictions: model -> trace -> capacities -> flow -> attribution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self, overload

from flowopt.attribution import Attribution, AttributionMatrix
from flowopt.capacities import CapacityVariant, compose
from flowopt.errors import InputError, UnsupportedError
from flowopt.explainer import generation, images
from flowopt.explainer.flow import FlowSettings, flow_attribution
from flowopt.explainer.loading import load_model, move_model
from flowopt.explainer.networks import Wiring
from flowopt.explainer.passes import explain_batch, explain_encoded, explain_images
from flowopt.explainer.receptive_field import check_normalisation
from flowopt.explainer.sources import Sources, check_sources
from flowopt.objectives import LogBarrier, Objective
from flowopt.solvers import Solver, get_solver
from flowopt.tensors import Specified, TensorFunction, TensorSpec, tensor_spec
from flowopt.trace import batch_of_inputs, encode_texts, family_of
from flowopt.trace.goals import emits_tokens, goals_of

if TYPE_CHECKING:
    from os import PathLike

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from flowopt.trace import Target, Trace

__all__ = ["Explainer"]


@dataclass(frozen=True, eq=False)
class Explainer:
    """Explain a model's predictions by network flow.

    Classifiers of texts and images, decoders and encoder-decoders; see
    `flowopt.trace.known_families`.

    Parameters
    ----------
    model : PreTrainedModel
        A transformers model with its head; it is left as it was found.
    tokenizer : PreTrainedTokenizerBase or image processor, optional
        Needed to explain texts, or images of any size; `explain_inputs` works without.
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
    unroll : bool
        For generated text: whether flow through a generated token goes on to the position that
        emitted it, so that all of it ends in the prompt or the source (True), or generated tokens
        get scores of their own, `Attribution.prefix_scores` (False).
    stages : "parallel" or "sequential"
        For encoder-decoders: whether a decoder layer's self- and cross-attention leave one node,
        or two joined by a residual edge, which needs `Residual` among `capacities`.
    contrast : int, str or None
        Class or token whose logit is subtracted from the explained one; "runner-up" is the best
        besides it.
    normalise : str
        For decoders, against the advantage of early tokens: "none", "inverse_receptive_field"
        or "uniform_reference"; see `flowopt.explainer.receptive_field`.
    output_tokenizer : PreTrainedTokenizerBase, optional
        Of an encoder-decoder whose output has a vocabulary of its own.
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
    tokenizer: Any = None
    _: KW_ONLY
    tensor: str | TensorFunction | TensorSpec | Specified = "agf"
    objective: Objective | None = None
    solver: str | Solver | None = None
    sources: Sources = None
    capacities: CapacityVariant | Sequence[CapacityVariant] = ()
    unroll: bool = True
    stages: str = "parallel"
    contrast: Target = None
    normalise: str = "none"
    output_tokenizer: PreTrainedTokenizerBase | None = None
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
        given: Any = self.capacities
        # what is no sequence of variants is no variant either; compose says so
        one = callable(given) or isinstance(given, str) or not isinstance(given, Iterable)
        variants = compose(*([given] if one else given))
        if self.solver is not None:
            get_solver(self.solver)
        object.__setattr__(self, "objective", objective)
        object.__setattr__(self, "capacities", variants.variants)
        check_normalisation(self.normalise, family_of(self.model).kind)
        goals_of(self.model, None, (), self.names, self.contrast)
        Wiring(self.sources, variants.variants, self.unroll, self.stages)
        if self.device is not None:
            move_model(self.model, self.device)

    @classmethod
    def from_pretrained(cls, name: str | PathLike[str] | None = None, **options: Any) -> Self:
        """Load a model with its tokenizer or image processor, and make an explainer of them.

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

        Language models explain the token that they predict next, encoder-decoders the first of
        their output; see `explain_generation` for all of them.

        Parameters
        ----------
        text : str or iterable of str
        target : int, str, None, or one of these per text
            The class to explain, by index or label, or the token, by id or text; None for the
            predicted one.
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
        self._check_reads_text()
        texts = _as_list(text)
        targets = self._targets(target, len(texts))
        encoded = encode_texts(self.model, self.tokenizer, texts)
        alone = isinstance(text, str)
        ordered = explain_encoded(self, encoded, targets, alone=alone, progress=progress)
        return ordered[0] if alone else ordered

    def explain_generation(
        self,
        text: str,
        continuation: str | Sequence[int] | None = None,
        max_new_tokens: int = 20,
        progress: bool = False,
        **generate_options: Any,
    ) -> AttributionMatrix:
        """Explain every token that a language model generates after a text.

        Each token is explained as the model emitted it: after the text and the tokens before it.

        Parameters
        ----------
        text : str
            The prompt of a decoder, the source of an encoder-decoder.
        continuation : str or sequence of int, optional
            What to explain instead of what the model generates: text that follows directly, with
            its first blank; token ids.
        max_new_tokens : int
            Most tokens to generate; fewer where the model ends the sequence.
        progress : bool
            Whether to show a progress bar on standard error.
        **generate_options
            Of the model's ``generate``, which is greedy without them, such as ``num_beams=4`` or
            ``forced_bos_token_id``.

        Returns
        -------
        AttributionMatrix
            A row for each generated token, a column for each token of `text`.

        Raises
        ------
        UnsupportedError
            If the model generates no text.
        InputError
            If the text, the continuation or an option cannot be used.
        SolverError
            If a flow problem could not be solved; the message says for which token.
        """
        self.check_generates()
        self._check_reads_text()
        if not isinstance(text, str):
            raise InputError(f"explain_generation takes one text, a str, not {type(text).__name__}")
        (encoded,) = encode_texts(self.model, self.tokenizer, [text])
        if continuation is None:
            encoded, tokens = generation.generated(
                self.model, encoded, max_new_tokens, generate_options
            )
        elif generate_options:
            raise InputError(
                f"{', '.join(generate_options)}: options of generate go without a continuation"
            )
        else:
            tokens = generation.continued(self.model, self.names, encoded, continuation)
        names = self.names.convert_ids_to_tokens(tokens)
        labels = [f"generated token {place} ({name!r})" for place, name in enumerate(names)]
        rows = explain_encoded(
            self, generation.steps(encoded, tokens), tokens, progress=progress, labels=labels
        )
        return AttributionMatrix(tuple(rows), generation.decoded(self.names, tokens))

    @overload
    def explain_image(
        self, image: list[Any], target: Target | Sequence[Target] = None, progress: bool = False
    ) -> list[Attribution]: ...

    @overload
    def explain_image(
        self, image: Any, target: Target = None, progress: bool = False
    ) -> Attribution: ...

    def explain_image(
        self, image: Any, target: Target | Sequence[Target] = None, progress: bool = False
    ) -> Attribution | list[Attribution]:
        """Explain an image, or several: a score for every patch.

        Parameters
        ----------
        image : PIL image, or array (h, w, 3) of integers 0 to 255 or floats 0 to 1; or a list
            Without an image processor arrays (3, h, w) of floats, as the model reads them.
        target : int, str, None, or one of these per image
        progress : bool
            Whether to show a progress bar on standard error.

        Returns
        -------
        Attribution, or a list of them for a list
            With `Attribution.grid`, and in `Attribution.image` what the model saw.

        Raises
        ------
        InputError, UnsupportedError, SolverError
        MissingDependencyError
            If the processor needs a package that is not installed.
        """
        images.check_reads_images(self.model)
        pictures, alone = images.as_list(image)
        targets = self._targets(target, len(pictures))
        found = explain_images(self, pictures, targets, alone=alone, progress=progress)
        return found[0] if alone else found

    def check_generates(self) -> None:
        """Refuse models that generate no text.

        Raises
        ------
        UnsupportedError
        """
        generation.check_generates(self.model)

    def target_index(self, target: Target) -> int | None:
        """Index of a class or token, given by index, label or text; None stays None.

        Raises
        ------
        InputError
            If the model has no such class or token.
        """
        (goal,) = goals_of(self.model, target, (None,), self.names)
        return goal.target

    def _check_reads_text(self) -> None:
        if images.reads_images(self.model):
            raise UnsupportedError(
                f"{type(self.model).__name__} reads images, not text: call explain_image(image)"
            )
        if self.tokenizer is None:
            raise InputError(
                "this explainer has no tokenizer: give Explainer(model, tokenizer), or explain "
                "token ids with explain_inputs(input_ids=...)"
            )

    @property
    def names(self) -> Any:
        """The tokenizer that names predicted tokens."""
        return self.tokenizer if self.output_tokenizer is None else self.output_tokenizer

    def _targets(self, target: Target | Sequence[Target], count: int) -> list[Target]:
        """One target per text; refused early if the model has no such class or token."""
        goals = goals_of(self.model, target, (None,) * count, self.names, self.contrast)
        return [goal.target for goal in goals]

    def explain_inputs(
        self,
        target: Target | Sequence[Target] = None,
        *,
        prompt_length: int | Sequence[int] | None = None,
        **model_inputs: Any,
    ) -> Attribution | list[Attribution]:
        """Explain inputs that are tensors already, in one forward pass.

        Language models explain the token that follows the last one given.

        Parameters
        ----------
        target : int, str, None, or one of these per example
        prompt_length : int, or one per example, optional
            Of a decoder's tokens, how many were given rather than generated. None: all of them;
            of an encoder-decoder's those that it starts with.
        **model_inputs : arrays or tensors
            ``input_ids`` (b, t), ``inputs_embeds`` (b, t, d) or ``pixel_values`` (b, c, h, w),
            with ``attention_mask`` (b, t), ``decoder_input_ids`` (b, n) and the like. Without a
            tokenizer, and for embeddings, tokens are the positions "0", "1", ...

        Returns
        -------
        Attribution for one example, else a list of them

        Raises
        ------
        InputError, UnsupportedError, SolverError
        """
        batch = batch_of_inputs(
            self.model,
            model_inputs,
            target,
            self.tokenizer,
            output_tokenizer=self.names,
            prompt_length=prompt_length,
            unroll=self.unroll,
            contrast=self.contrast,
        )
        count = len(batch.infos)
        found = list(explain_batch(self, batch, range(count), alone=count == 1))
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
        return flow_attribution(trace, self.settings, seconds)

    @property
    def settings(self) -> FlowSettings:
        """What turns a trace into an attribution."""
        assert self.objective is not None  # set by __post_init__, as the variants
        assert isinstance(self.capacities, tuple)
        wiring = Wiring(self.sources, self.capacities, self.unroll, self.stages)
        return FlowSettings(
            tensor_spec(self.tensor),
            wiring,
            self.objective,
            self.solver,
            self.normalise,
            model=str(getattr(self.model, "name_or_path", "") or type(self.model).__name__),
            output="token" if emits_tokens(self.model) else "class",
        )


def _as_list(text: str | Iterable[str]) -> list[str]:
    if isinstance(text, str):
        return [text]
    if isinstance(text, (bytes, Mapping)) or not isinstance(text, Iterable):
        raise InputError(f"give a str, or a list of them, not {type(text).__name__}")
    return list(text)
