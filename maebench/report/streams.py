"""What is printed is text: whatever a name holds, a terminal is told nothing by it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from maebench.errors import plain

STREAMS = ("stdout", "stderr")


class Plain:
    """A stream that shows what a terminal would obey, and what its encoding lacks, as escapes.

    It has no `buffer`: click would write into that, past the escaping, where a stream says nothing
    of its encoding, as rich's does beside a bar.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text, with what nobody would see of it made visible."""
        shown, encoding = plain(text, lines=True), getattr(self._stream, "encoding", None)
        if encoding and not shown.isascii():
            shown = shown.encode(encoding, "backslashreplace").decode(encoding)
        self._stream.write(shown)
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Writes each of the texts."""
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)


def raw(stream: Any) -> TextIO:
    """The stream itself, for those who escape names and then write sequences of their own."""
    inner = stream
    while inner is not None:  # rich has a stream of its own in place while it shows a bar
        stream = inner
        own = isinstance(inner, Plain)
        inner = inner._stream if own else getattr(inner, "rich_proxied_file", None)
    return stream


@contextlib.contextmanager
def as_text() -> Iterator[None]:
    """What is written to the standard streams meanwhile is text and nothing else."""
    before = {name: getattr(sys, name) for name in STREAMS}
    put = {name: stream and Plain(stream) for name, stream in before.items()}  # None: no console
    yield from _with(put, before)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """What is written meanwhile goes out as it is: commands of others have colours of their own."""
    before = {name: getattr(sys, name) for name in STREAMS}
    yield from _with({n: stream and raw(stream) for n, stream in before.items()}, before)


def _with(put: dict[str, Any], before: dict[str, Any]) -> Iterator[None]:
    for name, stream in put.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in put.items():
            if getattr(sys, name) is stream:  # what others put there since is theirs to take away
                setattr(sys, name, before[name])
