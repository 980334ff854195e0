"""From lines of text to answers: explained several at a time, printed or written as they come."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowopt.cli.shell import say, stdout_console
from flowopt.cli.texts import Line
from flowopt.errors import FlowoptError, InputError

if TYPE_CHECKING:
    from flowopt.attribution import Attribution, AttributionMatrix

    Answer = Attribution | AttributionMatrix
    Method = Callable[[list[str]], Sequence[Answer]]

__all__ = ["Output", "answers", "json_line"]


def answers(
    explain: Method, lines: Sequence[Line] | Iterator[Line], size: int
) -> Iterator[tuple[Line, Answer | FlowoptError]]:
    """Explain lines in order, several at a time; a line that fails does not lose its neighbours.

    Parameters
    ----------
    explain : callable
        From texts to their answers, in order.
    lines : sequence or iterator of Line
    size : int
        Lines explained together, which spares forward passes.

    Yields
    ------
    Line, and its answer or what went wrong
    """
    for chunk in _chunks(lines, size):
        try:
            found = explain([line.text for line in chunk])
        except FlowoptError as error:
            if len(chunk) == 1:
                yield chunk[0], error
            else:
                yield from answers(explain, chunk, 1)
        else:
            yield from zip(chunk, found, strict=True)


def _chunks(lines: Sequence[Line] | Iterator[Line], size: int) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@dataclass(frozen=True)
class Output:
    """Where answers go.

    Parameters
    ----------
    json : bool
        Whether JSON is printed, one object in a line.
    html, file : Path or None
        A page with all answers, and a file of JSON lines that takes the place of printing.
    progress : bool
        Whether a progress bar may be shown.
    """

    json: bool = False
    html: Path | None = None
    file: Path | None = None
    progress: bool = True
    _kept: list[Answer] = field(default_factory=list)

    def check(self) -> None:
        """Refuse bad paths before the work, not after it.

        Raises
        ------
        InputError
        """
        for path in (self.html, self.file):
            if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
                raise InputError(f"cannot write {path}: give a file in a folder that exists")

    def emit_all(
        self, found: Iterator[tuple[Line, Answer | FlowoptError]], total: int | None
    ) -> int:
        """Pass answers on as they come, report lines that fail, and return their number.

        Parameters
        ----------
        found : iterator
            As from `answers`.
        total : int or None
            How many there will be, where that is known.
        """
        bar = self.progress and total is not None and total > 1 and sys.stderr.isatty()
        with ExitStack() as stack:
            emit = self._emitter(stack, bar)
            advance = _progress(stack, total if bar else None)
            failed = 0
            for line, answer in found:
                advance()
                if not isinstance(answer, FlowoptError):
                    emit(line, answer)
                    if self.html is not None:
                        self._kept.append(answer)
                    continue
                if line.number is None:
                    raise answer
                failed += 1
                say("error", f"line {line.number}: {answer}")
        self._finish()
        return failed

    def _emitter(self, stack: ExitStack, bar: bool) -> Callable[[Line, Answer], None]:
        """Return the function that prints or writes one answer."""
        if self.file is None and not self.json:
            return _printer(bar)
        stream = sys.stdout
        if self.file is not None:
            stream = stack.enter_context(self.file.open("w", encoding="utf-8"))

        def write(line: Line, answer: Answer) -> None:
            with _bar_hidden(bar and self.file is None):
                stream.write(json_line(answer, line.number) + "\n")
                stream.flush()

        return write

    def _finish(self) -> None:
        if self.html is not None and self._kept:
            from flowopt.viz.html import to_html

            self.html.write_text(to_html(self._kept), encoding="utf-8")
            say("note", f"wrote {self.html}")
        if self.file is not None:
            say("note", f"wrote {self.file}")


def json_line(answer: Answer, number: int | None = None) -> str:
    """The stored form of an answer in one line, with its line number in a file."""
    values = json.loads(answer.to_json())
    return json.dumps(values if number is None else {"line": number, **values})


def _printer(bar: bool) -> Callable[[Line, Answer], None]:
    console, first = stdout_console(), [True]

    def show(line: Line, answer: Answer) -> None:
        with _bar_hidden(bar):
            if not first[0]:
                console.print()
            console.print(answer)
            first[0] = False

    return show


def _progress(stack: ExitStack, total: int | None) -> Callable[[], object]:
    from flowopt.progress import progress_bar

    return stack.enter_context(progress_bar(total or 0, total is not None))


def _bar_hidden(bar: bool) -> Any:
    """Take the progress bar off the terminal while something else is printed."""
    if not bar:
        return ExitStack()
    from tqdm import tqdm

    return tqdm.external_write_mode()
