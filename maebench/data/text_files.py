"""Your own text: a file, a folder of files, or class folders of files; .txt and .jsonl."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from maebench.data.dataset import Request
from maebench.data.images import OnBadImage
from maebench.data.memory import check_fits
from maebench.data.split_info import Remark, some_of
from maebench.data.text import Corpus, TextDataset
from maebench.data.tree import WholePath, readable
from maebench.errors import DataError

TEXT_COPIES = 4  # bytes in memory for each of a file: itself, its text, its parts, their tokens
SUFFIXES = (".txt", ".jsonl")
SPLITS = ("train", "test")


class TextFiles(TextDataset):
    """Your own text: `text:PATH`, a file or a folder of .txt and .jsonl files in UTF-8.

    - train and test, folders or files of these names: those are the splits.
    - class folders: each folder of files is a class; a fifth of its documents is test.
    - files alone: no classes, unless the lines of .jsonl have labels.

    A .txt file is a document, and so is each line of a .jsonl file, {"text": ..., "label": ...},
    whose label is left out where folders are the classes. Documents that are empty or no UTF-8
    stop the run, or with `--on-bad-image skip` are left out and counted.
    """

    name: ClassVar[str] = "text"
    spec: ClassVar[str | None] = "path"
    path: WholePath = Field(
        description="a .txt or .jsonl file, or a folder of them or of class folders"
    )

    def read_from(self, request: Request) -> tuple[Path, ...] | None:
        """The path."""
        return (self.path,)

    def read(self, request: Request) -> Corpus:
        """The documents by class, of train and test where there are folders or files of them."""
        if not self.path.is_file() and not self.path.is_dir():
            raise DataError(f"dataset text: {readable(str(self.path))} is no file and no folder")
        found = Reader(self.path)
        sides = _sides(self.path)
        if sides is None:
            train, test = found.side(self.path), None
        else:
            train, test = found.side(sides[0]), found.side(sides[1])
            found.beside = sides[2]
        found.refuse(request.on_bad_image)
        if found.bad and not (train and (test is None or test)):
            name, why = found.bad[0]
            raise DataError(f"dataset text: no document is left: {readable(name)} {why}")
        if not train or (test is not None and not test):
            raise DataError(
                f"dataset text: {readable(str(self.path))} holds no document: "
                f"{' and '.join(SUFFIXES)} files are read"
            )
        return Corpus(train, test, found.remarks(), tuple(name for name, _ in found.bad))


def _sides(root: Path) -> tuple[Path, Path, list[str]] | None:
    """Train and test, where the folder has both by name, and what lies beside them.

    Raises:
        DataError: there is one alone, or two of one name.
    """
    if not root.is_dir():
        return None
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    others = []
    for path in sorted(root.iterdir()):
        if path.stem in SPLITS and (path.is_dir() or path.suffix in SUFFIXES):
            found[path.stem].append(path)
        elif not path.name.startswith("."):
            others.append(path.name)
    train, test = found.values()
    if not train and not test:
        return None
    where = f"dataset text: {readable(str(root))} has"
    for split, mine in found.items():
        if not mine:
            raise DataError(f"{where} {SPLITS[split == SPLITS[0]]} and no {split}: give both")
        if len(mine) > 1:
            raise DataError(f"{where} {some_of([p.name for p in mine])}: {split} is one of them")
    return train[0], test[0], others


@dataclass
class Reader:
    """Reads documents and counts what it cannot read.

    Args:
        root: what names are relative to.
        bad: what could not be read, and why.
        unread: suffixes of files that are no text, and how many there are of each.
        beside: names of what lies beside the folders of the splits.
    """

    root: Path
    bad: list[tuple[str, str]] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    beside: Sequence[str] = ()

    def side(self, place: Path) -> dict[str, list[str]]:
        """The documents of a split by class.

        Raises:
            DataError: files stand beside class folders, or some lines have labels and others none.
        """
        if place.is_file():
            return self._by_label([place])
        paths = [path for path in sorted(place.iterdir()) if not path.name.startswith(".")]
        folders = [path for path in paths if path.is_dir()]
        files = [path for path in paths if path.is_file()]
        if not folders:
            return self._by_label(files)
        if texts := [path.name for path in files if path.suffix in SUFFIXES]:
            raise DataError(
                f"dataset text: {readable(str(place))} has class folders, and beside them files: "
                f"{some_of(texts)}"
            )
        for path in files:
            self.unread[path.suffix or path.name] += 1
        made = {
            folder.name: [text for path in _files(folder) for text, _ in self._documents(path)]
            for folder in folders
        }
        return {name: texts for name, texts in made.items() if texts}

    def _by_label(self, paths: Sequence[Path]) -> dict[str, list[str]]:
        found = [each for path in paths for each in self._documents(path)]
        labelled = [label is not None for _, label in found]
        if any(labelled) and not all(labelled):
            raise DataError(
                f"dataset text: {labelled.count(False):,} of {len(found):,} documents of "
                f"{readable(str(self.root))} have no label: give all of them one, or none"
            )
        made: dict[str, list[str]] = {}
        for text, label in found:
            made.setdefault(label or "", []).append(text)
        return dict(sorted(made.items()))

    def _documents(self, path: Path) -> Iterator[tuple[str, str | None]]:
        """The texts of a file, each with its label or None."""
        name = str(path.relative_to(self.root)) if path != self.root else path.name
        if path.suffix not in SUFFIXES:
            self.unread[path.suffix or path.name] += 1
            return
        try:
            size = path.stat().st_size
            check_fits(f"dataset text: {name}", TEXT_COPIES * size, "take a part of it")
            whole = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            self.bad.append((name, error.strerror or "cannot be read"))
            return
        except UnicodeDecodeError as error:
            self.bad.append((name, f"is no UTF-8 at byte {error.start}"))
            return
        if path.suffix == ".txt":
            yield from self._kept(name, whole, None)
            return
        for number, line in enumerate(whole.split("\n"), 1):  # JSON may hold other ends of lines
            if not line.strip():
                continue
            where = f"{name}:{number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            text = row.get("text") if isinstance(row, dict) else None
            label = row.get("label") if isinstance(row, dict) else None
            if not isinstance(text, str) or not isinstance(label, str | int | None) or label == "":
                self.bad.append((where, 'is no {"text": ..., "label": ...}'))
                continue
            yield from self._kept(where, text, None if label is None else str(label))

    def _kept(self, name: str, text: str, label: str | None) -> Iterator[tuple[str, str | None]]:
        if text.strip():
            yield text, label
        else:
            self.bad.append((name, "is empty"))

    def refuse(self, on_bad: OnBadImage) -> None:
        """Stops where something could not be read and that is not to be skipped.

        Raises:
            DataError: names the first, and counts the others.
        """
        if self.bad and on_bad == "fail":
            name, why = self.bad[0]
            more = len(self.bad) - 1
            others = f" (and {more:,} more documents like it)" if more else ""
            raise DataError(
                f"dataset text: {readable(name)} {why}{others}; --on-bad-image skip leaves such "
                "out and counts them"
            )

    def remarks(self) -> tuple[Remark, ...]:
        """What was left out."""
        said = []
        if self.bad:
            names = tuple(f"{readable(name)} {why}" for name, why in self.bad)
            text = f"{len(names):,} documents are empty or cannot be read, and were left out"
            said.append(Remark("unreadable", len(names), text, examples=names))
        if count := len(self.beside):
            text = f"{count:,} files or folders beside train and test were left out"
            said.append(Remark("beside the splits", count, text, examples=tuple(self.beside)))
        if count := self.unread.total():
            kinds = some_of([f"{n:,} {suffix}" for suffix, n in sorted(self.unread.items())])
            text = f"{count:,} files that are no {' or '.join(SUFFIXES)} were left out ({kinds})"
            said.append(Remark("other files", count, text))
        return tuple(said)


def _files(folder: Path) -> list[Path]:
    """The files of a class, those of folders below it too."""
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
