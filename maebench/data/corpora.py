"""Text that is there already: Python's own topics, and two packages of Debian's."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PositiveInt

from maebench.data.dataset import Request
from maebench.data.text import Corpus, TextDataset
from maebench.errors import DataError


class PyDoc(TextDataset):
    """The help topics that come with Python: English text about the language; no download.

    Its label is the topic. Topics differ between versions of Python, so that the fingerprint holds
    the version: numbers to be reported come from `fortunes` or `kjv`.
    """

    name: ClassVar[str] = "pydoc"
    length: PositiveInt = Field(
        default=32, le=2**16, description="tokens of a window; paragraphs are short", examples=[16]
    )

    def read_from(self, request: Request) -> tuple[Path, ...] | None:
        """Python's file."""
        found = find_spec("pydoc_data.topics")
        return None if found is None or not found.origin else (Path(found.origin),)

    def read(self, request: Request) -> Corpus:
        """A document for each topic."""
        from pydoc_data.topics import topics

        documents = {name: [text] for name, text in sorted(topics.items()) if text.strip()}
        return Corpus(documents, source={"python.txt": platform.python_version()})


class Fortunes(TextDataset):
    """The fortune cookies of Debian's package `fortunes`: English text in some forty categories.

    Its label is the category; `--data-dir` is the folder of the files where it is another than
    /usr/share/games/fortunes.
    """

    name: ClassVar[str] = "fortunes"
    place: ClassVar[Path] = Path("/usr/share/games/fortunes")

    def read_from(self, request: Request) -> tuple[Path, ...] | None:
        """The folder."""
        return (request.data_dir or self.place,)

    def read(self, request: Request) -> Corpus:
        """A document for each cookie; they stand between lines of a % alone."""
        folder = request.data_dir or self.place
        paths = sorted(path for path in folder.glob("*") if path.is_file() and not path.suffix)
        if not paths:
            raise _missing(self.name, folder, "fortunes")
        documents = {}
        for path in paths:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"dataset {self.name}: {path} cannot be read: {error}") from error
            parts = re.split(r"^%$", text, flags=re.MULTILINE)
            documents[path.name] = [part.strip("\n") for part in parts if part.strip()]
        return Corpus({name: some for name, some in documents.items() if some})


class KJV(TextDataset):
    """The King James Bible of Debian's package `bible-kjv-text`: its label is the book.

    A chapter is a document. `--data-dir` is the folder of `bible.data` where it is another than
    /usr/lib.
    """

    name: ClassVar[str] = "kjv"
    place: ClassVar[Path] = Path("/usr/lib")

    def read_from(self, request: Request) -> tuple[Path, ...] | None:
        """The file."""
        return ((request.data_dir or self.place) / "bible.data",)

    def read(self, request: Request) -> Corpus:
        """A document for each chapter; its lines are verses, such as `Ge1:1 In the beginning`."""
        path = (request.data_dir or self.place) / "bible.data"
        if not path.exists():
            raise _missing(self.name, path, "bible-kjv-text")
        chapters: dict[str, dict[str, list[str]]] = {}
        for book, chapter, verse in VERSE.findall(unsquished(path)):
            chapters.setdefault(book, {}).setdefault(chapter, []).append(verse)
        if not chapters:
            raise DataError(f"dataset {self.name}: {path} holds no verses")
        books = {book: ["\n".join(v) for v in some.values()] for book, some in chapters.items()}
        return Corpus(books)


VERSE = re.compile(r"^(\d?[A-Za-z]+)(\d+):\d+ (.*)$", re.MULTILINE)
# of bible.data: a mark, 80 bytes of title, the size of a block, how many there are, where each
# begins; then the first bytes of `compress`, which each block lacks
MAGIC, HEADER = b"EC02", 84
COMPRESS = b"\x1f\x9d\x90"


def unsquished(path: Path) -> str:
    """The text of a file of the package's own kind: blocks of 64 kB, each as `compress` makes it.

    gzip reads them; Python's own library does not.

    Raises:
        DataError: it is damaged, of another kind, or there is no gzip.
    """
    data = path.read_bytes()

    def number(i: int) -> int:
        return int.from_bytes(data[HEADER + 4 * i :][:4], "big")

    if not data.startswith(MAGIC) or not 0 < number(1) < len(data) // 4:
        raise DataError(f"{path} is no squished text, as of Debian's bible-kjv-text")
    starts = [number(2 + i) for i in range(number(1) + 1)]
    if starts != sorted(starts) or starts[-1] > len(data):
        raise DataError(f"{path} is damaged: it ends before its text does")
    text = b""
    for start, end in pairwise(starts):
        block = COMPRESS + data[start:end]
        try:
            text += subprocess.run(
                ["gzip", "-dc"], input=block, capture_output=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise DataError(f"{path} cannot be unpacked by gzip: {error}") from error
    try:
        return text.decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _missing(name: str, place: Path, package: str) -> DataError:
    return DataError(
        f"dataset {name}: {place} is not there or holds none: install Debian's package {package}, "
        "or give --data-dir"
    )
