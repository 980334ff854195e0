"""How the program behaves in a shell: one line for an error, silence from libraries, exit codes.

0: an answer. 1: something failed on the way. 2: input that cannot be used.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "FAILED",
    "UNUSABLE",
    "OneLineErrors",
    "leave",
    "paragraphs",
    "say",
    "silent_loading",
    "stdout_console",
    "swift_start",
]

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


class OneLineErrors(TyperGroup):
    """A command group that reports every error in one line on standard error."""

    def main(  # noqa: D102
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in given
        try:
            with quiet(debug):
                code = super().main(
                    given, "flowopt", complete_var, False, windows_expand_args, **extra
                )
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                raise
            code, message = verdict(error)
            if message:
                say("error", message)
        # The return value of a command is no exit code.
        code = code if isinstance(code, int) else 0
        if standalone_mode:
            sys.exit(code)
        return code


def verdict(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an error."""
    from flowopt.errors import FlowoptError, InputError, MissingDependencyError

    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, BrokenPipeError):  # the reader has gone, as in `flowopt ... | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return FAILED, ""
    # Errors of click, or of the copy of it that newer versions of typer bring.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        return int(error.exit_code), str(error.format_message())
    if isinstance(error, (InputError, MissingDependencyError)):
        return UNUSABLE, str(error)
    if isinstance(error, FlowoptError):
        return FAILED, str(error)
    if isinstance(error, OSError):
        return UNUSABLE, str(error)
    return FAILED, f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def leave(code: int) -> NoReturn:
    """End the process at once: taking torch apart politely lasts a second and saves nothing."""
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


@contextmanager
def swift_start() -> Iterator[None]:
    """Import without garbage collection, which spends a second on modules that will stay."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def silent_loading() -> Iterator[None]:
    """Load models without the progress bars of transformers, which it draws on any stream."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def quiet(debug: bool) -> Iterator[None]:
    """Keep libraries silent; flowopt's own warnings become one line each."""
    from flowopt.errors import FlowoptWarning

    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        say("warning", str(message))

    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", FlowoptWarning)
            warnings.showwarning = show
        yield


def say(kind: str, message: str) -> None:
    """Print one line on standard error: ``flowopt: error: ...``."""
    from flowopt.viz.content import printable

    sys.stderr.write(f"flowopt: {kind}: {printable(' '.join(message.split()))}\n")
    sys.stderr.flush()


def paragraphs(docstring: str | None) -> str:
    """A docstring as help: lines of a paragraph joined, for the terminal to fold."""
    parts = (docstring or "").strip().split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in parts)


def stdout_console(least: int = 0) -> Console:
    """A console that prints text as it is: no markup, no emoji codes, no guessed colours.

    Parameters
    ----------
    least : int
        Columns to use at least where the output goes to a file or a pipe.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and console.width < least:
        console.width = least
    return console
