"""Where outputs go: to the standard output or a pipe as they come, into a file as a whole."""

import contextlib
import dataclasses
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import Progress

from spade_jax import hosts
from spade_jax.decoding.lines import Line
from spade_jax.decoding.partial import Partial
from spade_jax.files import errors_of, open_output


@dataclasses.dataclass(frozen=True)
class Form:
    """How outputs stand in a file.

    Attributes:
      entry: (number of the document, its output) -> what is written of it.
      head: what is written before the first one.
      save: (file of bytes, all outputs), where a file is written at once; None of text.
    """

    entry: Callable[[int, str], str]
    head: str = ""
    save: Callable[[IO[bytes], Sequence[str]], None] | None = None


@dataclasses.dataclass(frozen=True)
class Documents:
    """What is decoded.

    Attributes:
      lines: the text of each, and where it stands.
      total: how many there are, where that is known.
    """

    lines: Iterable[Line]
    total: int | None
    form: Form


def write_outputs(
    outputs: Iterable[list[str]], documents: Documents, file: str | None, partial: Partial | None
) -> None:
    """Writes batches of outputs, and shows how far it is.

    Args:
      file: None is the standard output.
      partial: has the batches before these, and keeps these until all are there.
    """
    console = Console(stderr=True, quiet=not hosts.is_first())
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("decoding", total=documents.total)

        def shown(batches: Iterable[list[str]]) -> Iterator[list[str]]:
            for batch in batches:
                yield batch
                progress.advance(task, len(batch))

        if partial is None and documents.form.save is None:
            _write(shown(outputs), documents.form, file)
            return
        kept = [*shown(partial.batches)] if partial else []
        for batch in shown(outputs):
            if partial is not None:
                partial.add(batch)
            kept.append(batch)
    if hosts.is_first():
        _write(kept, documents.form, file)
        if partial is not None:
            partial.remove()


def _write(batches: Iterable[list[str]], form: Form, file: str | None) -> None:
    if form.save is not None:
        assert file is not None
        with open_output(Path(file), "wb") as output, errors_of(file):
            form.save(output, [text for batch in batches for text in batch])
        return
    with open_text(file, hosts.is_first()) as write_text:
        number = 0
        if form.head:
            write_text(form.head)
        for batch in batches:
            write_text("".join(form.entry(number + i, text) for i, text in enumerate(batch)))
            number += len(batch)


@contextlib.contextmanager
def open_text(file: str | None, first: bool) -> Iterator[Callable[[str], None]]:
    """What writes text, into a file that is there when all is: of several processes only that of
    the first one stays. Its errors name the output."""
    if not first:
        yield lambda text: None
        return
    with contextlib.ExitStack() as stack:
        output: Any = sys.stdout if file is None else stack.enter_context(open_output(Path(file)))
        if file is None and isinstance(output, io.TextIOWrapper):
            output.reconfigure(encoding="utf-8")

        def write(text: str) -> None:
            try:
                with errors_of(file or "the standard output"):
                    output.write(text)
                    output.flush()
            except OSError:
                if file is None:
                    # Python would try, and complain, once more at its end.
                    with contextlib.suppress(OSError):
                        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
                raise

        yield write
