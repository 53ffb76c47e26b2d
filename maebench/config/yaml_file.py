"""What a YAML file says, where no key may be given twice: the last one would win in silence."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from maebench.errors import ConfigError
from maebench.files import with_home


def load_yaml(
    file: str | Path, flag: str, same: Callable[[Hashable], Hashable] = lambda key: key
) -> Any:
    """The value of a YAML file, in which each key of a mapping is there once.

    Args:
        file: its path; ~ is the home folder.
        flag: how it was named, for messages.
        same: what two keys have in common that say the same, such as `image-size` and
            `image_size`.

    Raises:
        ConfigError: it is missing, no YAML, or a key is given twice; names both lines.
    """
    path = with_home(file)
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        for twice in _twice(loader, node, same):
            raise ConfigError(f"{flag} {path}: {twice}: keep one")
        return None if node is None else loader.construct_document(node)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path}: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{flag} {path} is no YAML: {' '.join(str(error).split())}") from error


def _twice(
    loader: yaml.SafeLoader, root: yaml.Node | None, same: Callable[[Hashable], Hashable]
) -> Iterator[str]:
    """Each key that is there twice, with both lines.

    Before anything is constructed: then merged keys (`<<`) stand among those of the mapping, which
    may well say otherwise.
    """
    left, seen = [root], set[int]()
    while left:
        node = left.pop()
        if node is None or id(node) in seen:  # an alias may even be of what it lies in
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[Hashable, tuple[Any, int]] = {}
        for key_node, value in node.value:
            left += [key_node, value]
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            merges = key_node.tag == "tag:yaml.org,2002:merge"
            key = "<<" if merges else loader.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if same(key) in lines:
                before, first = lines[same(key)]
                other = "" if key == before else f" as {key!r}"
                yield f"{before!r} is given twice, in line {first} and in line {line}{other}"
            lines[same(key)] = key, line
