"""What a YAML file says, where no key may be given twice: the last one would win in silence."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from maebench.errors import ConfigError
from maebench.files import with_home

# The most that is read of a file: a comparison of hundreds of arms has some 100 KB, and reading
# takes a minute for each 10 MB.
MOST_BYTES = 2**20
# Values, those that an alias (*name) stands for counted each time, for a thousand bytes can stand
# for billions. So many take a second or two, and are ten thousand lines.
MOST_VALUES = 20_000
DEEPEST = 64  # values within each other: settings are 4 deep, and Python's own stack ends at 1,000
# Characters of one value: a path or an expression, never a document; numbers of base 60 take time
# by their square.
LONGEST = 2**15
# What constructing a value raises where its tag and its text do not fit, such as !!bool maybe.
WRONG = (
    *(yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError),
    ArithmeticError,
)


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
        ConfigError: it is missing, no YAML, stands for more than any file of settings, or a key is
            given twice; names both lines.
    """
    path = with_home(file)
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ConfigError(f"{flag} {path}: it has more than {MOST_BYTES:,} bytes, the most")
        loader = _Bounded(content.decode("utf-8"))
        node = loader.get_single_node()
        for twice in _twice(loader, node, same):
            raise ConfigError(f"{flag} {path}: {twice}: keep one")
        return None if node is None else loader.construct_document(node)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path}: {getattr(error, 'strerror', None) or error}") from error
    except _TooMuch as error:
        raise ConfigError(f"{flag} {path}: {error}") from error
    except WRONG as error:
        raise ConfigError(f"{flag} {path} is no YAML: {' '.join(str(error).split())}") from error


class _TooMuch(Exception):
    """A file stands for more than is read."""


class _Bounded(yaml.SafeLoader):
    """Reads YAML and counts what each value stands for, as soon as it is there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.level = 0
        self.sizes: dict[int, tuple[int, int]] = {}  # by node: how many values, how deep

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next value, or the one that an alias stands for.

        Raises:
            _TooMuch: it is too deep, stands for too many, is too long, or lies in itself.
        """
        line = self.peek_event().start_mark.line + 1
        alias = self.check_event(yaml.AliasEvent)
        self.level += 1
        self._check(self.level, DEEPEST, "values within each other", line)
        self._check(len(self.sizes), MOST_VALUES, "values", line)
        node = super().compose_node(parent, index)
        self.level -= 1
        if node is None:
            return None
        if alias and id(node) not in self.sizes:
            raise _TooMuch(f"line {line}: an alias stands for what it lies in")
        if id(node) not in self.sizes:
            self.sizes[id(node)] = self._size(node, line)
        return node

    def _size(self, node: yaml.Node, line: int) -> tuple[int, int]:
        """How many values it stands for, itself included, and how deep they lie in each other."""
        if isinstance(node, yaml.ScalarNode):
            self._check(len(node.value), LONGEST, "characters of a value", line)
            return 1, 1
        pairs = isinstance(node, yaml.MappingNode)
        inner = [each for pair in node.value for each in pair] if pairs else node.value
        sizes = [self.sizes[id(each)] for each in inner]
        number = 1 + sum(size for size, _ in sizes)
        deep = 1 + max((depth for _, depth in sizes), default=0)
        self._check(number, MOST_VALUES, "values, aliases (*name) counted each time", line)
        self._check(deep, DEEPEST, "values within each other", line)
        return number, deep

    def _check(self, number: int, most: int, what: str, line: int) -> None:
        if number > most:
            raise _TooMuch(f"line {line}: {number:,} {what}, and {most:,} are the most")


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
