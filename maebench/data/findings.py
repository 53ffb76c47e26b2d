"""What a reader of the numbers must know of a folder's files: links, other files, lost classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from maebench.data.divide import Classes
from maebench.data.split_info import Remark
from maebench.data.tree import Tree, composed, readable

# Key, attribute of Tree, and what is said of one and of several.
LINKS = (
    (
        *("links in a circle", "cycles"),
        "link leads back to a folder that it lies in and was not followed",
        "links lead back to a folder that they lie in and were not followed",
    ),
    (
        *("repeated links", "again_folders"),
        "folder is reached again by a link and counted once",
        "folders are reached again by links and counted once",
    ),
    (
        *("repeated images", "again_images"),
        "image is reached again by a link and counted once",
        "images are reached again by links and counted once",
    ),
)
FILES = (
    (
        *("broken links", "broken"),
        "link cannot be followed and was left out",
        "links cannot be followed and were left out",
    ),
    (
        *("other files", "others"),
        "file is no image and was left out",
        "files are no images and were left out",
    ),
    (
        *("ignored files", "system_files"),
        "hidden or system file was left out",
        "hidden or system files were left out",
    ),
    (
        *("ignored folders", "system_folders"),
        "hidden or system folder was left out",
        "hidden or system folders were left out",
    ),
    (
        *("own results", "results"),
        "folder of maebench's results was left out",
        "folders of maebench's results were left out",
    ),
    (
        *("suffix", "by_content"),
        "image has no image's suffix and is known by its content",
        "images have no image's suffix and are known by their content",
    ),
)


def of_tree(root: Path, tree: Tree) -> list[Remark]:
    """What was found beside images, and what links lead to.

    Args:
        root: the folder that names are relative to.
        tree: what was found.
    """
    found = []
    for what, kind, one, several in LINKS:
        pairs = [
            f"{named(root, link)} -> {named(root, place)}" for link, place in getattr(tree, kind)
        ]
        found.append(on_names(what, pairs, one, several))
    for what, kind, one, several in FILES:
        found.append(on_names(what, [named(root, p) for p in getattr(tree, kind)], one, several))
    return [remark for remark in found if remark is not None]


def named(root: Path, path: Path) -> str:
    """A path as it lies below a folder, in a form that can be printed."""
    return readable((path.relative_to(root) if path.is_relative_to(root) else path).as_posix())


def of_classes(tree: Tree, train: Classes, test: Classes) -> list[Remark]:
    """Classes that are not in test, and those whose name is spelled in two ways."""
    missing = [readable(name) for name in train if not test.get(name)]
    # an empty folder of test that is no class of train loses nothing, but is strange
    empty = [composed(path.name) for path in tree.folders if path.parent == tree.starts[-1]]
    strange = [readable(name) for name in empty if name not in train]
    found = [
        on_names(
            "classes not in test",
            [] if "" in train else missing,
            "class has no image in test",
            "classes have no image in test",
        ),
        on_names(
            "empty folders",
            [] if "" in train else strange,
            "folder of test holds no image and is no class of train",
            "folders of test hold no image and are no classes of train",
        ),
        on_names(
            "class names",
            [readable(name) for name in _spelled_twice(tree)],
            "class has two folders, with its name composed and decomposed in Unicode, taken as one",
            "classes have two folders, with names composed and decomposed in Unicode, taken as one",
        ),
    ]
    return [remark for remark in found if remark is not None]


def _spelled_twice(tree: Tree) -> Iterator[str]:
    """Names of class folders of one split that are the same but for how they are composed."""
    seen: set[tuple[Path, str]] = set()
    for path in tree.folders:
        key = path.parent, composed(path.name)
        if key in seen:
            yield path.name
        seen.add(key)


def on_names(what: str, names: Sequence[str], one: str, several: str) -> Remark | None:
    """A remark on some names, the first of which it lists; None where there are none.

    Args:
        what: its key.
        names: what it is true of.
        one: what follows the number where there is one name.
        several: the same of more.
    """
    if not names:
        return None
    text = f"{len(names):,} {one if len(names) == 1 else several}"
    return Remark(what, len(names), text, examples=tuple(names))
