"""Which images lie below a folder: each once, whatever links lead to it."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import AfterValidator, BeforeValidator

from maebench.data.own_results import is_results
from maebench.errors import DataError
from maebench.files import with_home

# Taken without being opened: a split may have a million files.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# What a file of another suffix, or of none, may be by its content.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
# TIFF by their first bytes, but what PIL would read is a preview: raw photographs, whole slides.
NOT_TIFF = tuple(".dng .nef .nrw .cr2 .arw .srw .orf .rw2 .pef .3fr .svs .ndpi .scn .bif".split())
# What macOS, Windows, Synology, QNAP and ext4 put beside a user's files, in lower case.
SYSTEM_FOLDERS = {"__macosx", "$recycle.bin", "system volume information", "lost+found"}
SYSTEM_FOLDERS |= {"@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}
SYSTEM_FOLDERS |= {"__pycache__"}
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


@dataclass
class Tree:
    """What lies below some folders, each list in an order that the file system has no part in.

    Args:
        starts: the folders.
        folders: those directly below `starts`.
        images: files with an image's suffix or content.
        by_content: those of them known by their content alone.
        others: files that are no images.
        system_files: hidden files and those of an operating system.
        system_folders: the same of folders, which nobody looked into.
        results: folders with results of ours, which nobody looked into.
        broken: links that cannot be followed and have no image's suffix.
        cycles: links to a folder that they lie in, and that folder.
        again_folders: folders that were reached before, and where.
        again_images: the same of images.
    """

    starts: tuple[Path, ...]
    folders: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    by_content: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    system_files: list[Path] = field(default_factory=list)
    system_folders: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    cycles: list[tuple[Path, Path]] = field(default_factory=list)
    again_folders: list[tuple[Path, Path]] = field(default_factory=list)
    again_images: list[tuple[Path, Path]] = field(default_factory=list)


def walk(starts: Sequence[Path], without: Path | None = None) -> Tree:
    """Everything below some folders; each real folder and each real image once.

    A folder or image is taken where it really lies if that is below `starts`, else where the
    first link to it lies. `without` is a folder that is not looked into.

    Raises:
        DataError: a folder cannot be listed.
    """
    tree = Tree(tuple(starts))
    reached: dict[str, Path] = {}  # real path of a folder: where it was taken
    away = None if without is None else os.path.realpath(without)
    links: list[Path] = []
    pending = list(starts)
    while pending:  # real folders first, then those that links lead to, then links found there
        found = [link for folder in pending for link in _take(folder, tree, reached, links, away)]
        pending = sorted(found, key=order)
    _take_links(tree, reached, links)
    for some in (tree.folders, tree.images, tree.by_content, tree.others, tree.broken):
        some.sort(key=order)
    for some in (tree.system_files, tree.system_folders, tree.results):
        some.sort(key=order)
    return tree


def below(start: Path, paths: Iterable[Path]) -> Iterator[tuple[Path, list[str]]]:
    """The paths that lie below a folder, and their parts from there on."""
    prefix = (start / "x").as_posix()[:-1]  # as text: a million of them take seconds
    for path in paths:
        text = path.as_posix()
        if text.startswith(prefix):
            yield path, text[len(prefix) :].split("/")


def holds_image(folder: Path) -> bool:
    """Whether there is an image below a folder; looks no further than the first.

    Raises:
        DataError: a folder cannot be listed.
    """
    stack, seen = [folder], set[str]()
    while stack:
        place = stack.pop()
        real = os.path.realpath(place)
        if real in seen or (place.is_symlink() and leads_back(place)):
            continue
        seen.add(real)
        entries = listed(place)
        if _is_results(place, entries):
            continue
        kinds = [(entry.name, kind_of(entry)) for entry in entries]
        kinds = [(name, kind) for name, kind in kinds if not is_system(name)]
        if any(kind == "file" and is_image(place / name) for name, kind in kinds):
            return True
        stack += [place / name for name, kind in kinds if kind == "folder"]
    return False


def leads_back(link: Path) -> bool:
    """Whether a link leads to a folder that it lies in, by its own path or by links above it."""
    real = os.path.realpath(link)
    return any(holds(real, os.path.realpath(part)) for part in link.parents)


def _take(
    start: Path,
    tree: Tree,
    reached: dict[str, Path],
    file_links: list[Path],
    away: str | None,
) -> Iterator[Path]:
    """Takes a folder and the real folders below it; gives the links to folders found there."""
    real = os.path.realpath(start)
    if start not in tree.starts and leads_back(start):
        tree.cycles.append((start, Path(real)))
        return
    stack = [(start, real)]
    while stack:
        place, real = stack.pop()
        if real == away:
            continue
        if real in reached:
            tree.again_folders.append((place, reached[real]))
            continue
        reached[real] = place
        entries = listed(place)
        if place not in tree.starts and _is_results(place, entries):
            tree.results.append(place)
            continue
        if place.parent in tree.starts:
            tree.folders.append(place)
        for entry in entries:
            path = place / entry.name
            if is_system(entry.name):
                _system(entry, path, tree)
                continue
            kind = kind_of(entry)
            if kind == "folder" and entry.is_symlink():
                yield path
            elif kind == "folder":
                stack.append((path, f"{real.rstrip(os.sep)}{os.sep}{entry.name}"))
            elif kind == "broken" and not has_suffix(entry.name):
                tree.broken.append(path)
            elif kind == "other" or not is_image(path):
                tree.others.append(path)
            elif entry.is_symlink():
                file_links.append(path)
            else:
                tree.images.append(path)
                if not has_suffix(entry.name):
                    tree.by_content.append(path)


def _take_links(tree: Tree, reached: dict[str, Path], links: list[Path]) -> None:
    """Takes the images that only links lead to, each at the first of them."""
    real_images = set(tree.images) if links else set()
    linked: dict[str, Path] = {}
    for link in sorted(links, key=order):
        real = os.path.realpath(link)
        folder, name = os.path.split(real)
        place = reached[folder] / name if folder in reached else None
        first = place if place in real_images else linked.setdefault(real, link)
        if first is not None and first != link:
            tree.again_images.append((link, first))
            continue
        tree.images.append(link)
        if not has_suffix(link.name):
            tree.by_content.append(link)


def _is_results(place: Path, entries: Sequence[os.DirEntry[str]]) -> bool:
    return is_results(place, [entry.name for entry in entries if not is_system(entry.name)])


def _system(entry: os.DirEntry[str], path: Path, tree: Tree) -> None:
    (tree.system_folders if kind_of(entry) == "folder" else tree.system_files).append(path)


def holds(outer: str, inner: str) -> bool:
    """Whether a path is another one's folder, near or far, or the same."""
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: (composed(entry.name), entry.name))
    except OSError as error:
        where = readable(str(folder))
        raise DataError(f"cannot list folder {where}: {error.strerror}") from error


def kind_of(entry: os.DirEntry[str]) -> str:
    """What an entry is or links to: "folder", "file", "broken" or, such as a pipe, "other"."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return "broken" if entry.is_symlink() and not Path(entry.path).exists() else "other"
    except OSError:  # a link to itself, or into a folder that may not be entered
        return "broken"


def is_system(name: str) -> bool:
    """Whether a name is hidden or an operating system's; AppleDouble's ._name is hidden."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS | SYSTEM_FILES


def has_suffix(name: str) -> bool:
    """Whether a name ends as an image's does."""
    return name.lower().endswith(SUFFIXES)


def is_image(path: Path) -> bool:
    """Whether a file has an image's suffix, or its content: `.jfif`, `.dat`, no suffix at all."""
    if has_suffix(path.name):
        return True
    if path.name.lower().endswith(NOT_TIFF):
        return False
    try:
        stat = path.stat()
        return _has_content(path, stat.st_size, stat.st_mtime_ns)
    except OSError:  # gone since it was listed, or not to be read: no image that is known of
        return False


@lru_cache(maxsize=2**17)  # a run looks at its files several times, and opens them once
def _has_content(path: Path, size: int, changed: int) -> bool:
    Image.init()  # else a format that was not yet asked for is not in Image.OPEN
    formats = [name for name in FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a size that its decoder will judge
        try:
            with Image.open(path, formats=formats):
                return True
        except Image.DecompressionBombError:
            return True
        except (OSError, SyntaxError, ValueError):  # what decode._opened catches
            return False


def order(path: Path) -> tuple[str, str]:
    """What paths are sorted by: the same where a file system keeps names decomposed."""
    text = path.as_posix()
    return composed(text), text


def composed(name: str) -> str:
    """A name in the composed form of Unicode: a file system may keep é as e and an accent."""
    return unicodedata.normalize("NFC", name)


def readable(name: str) -> str:
    """A name that can be printed on one line: bytes that are not UTF-8 become backslash escapes."""
    text = composed(os.fsencode(name).decode(errors="backslashreplace"))
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in _UNPRINTABLE or c in _TURNING
        else c
        for c in text
    )


_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of pairs, line breaks
_TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # the rest of a line too


def _given(value: Any) -> Any:
    if value == "":
        raise ValueError("a path is wanted, given nothing")
    return value


def whole_path(path: str | Path) -> Path:
    """From the root: a run may be evaluated from another working directory.

    Records and tables keep it as text; names below it may be any bytes.

    Raises:
        ValueError: it is not UTF-8.
    """
    path = with_home(path).absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        named = readable(str(path))
        raise ValueError(f"{named} is not UTF-8: rename it, or give a link to it") from error
    return path


WholePath = Annotated[Path, BeforeValidator(_given), AfterValidator(whole_path)]
