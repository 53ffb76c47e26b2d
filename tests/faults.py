"""Damages each kind of file that maebench reads, and says what became of the numbers.

`python tests/faults.py` prints how often each outcome came of each fault (three minutes).
"""

from __future__ import annotations

import random
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from maebench.errors import MaebenchError
from maebench.evaluating import records

PARTS = 64  # a file is cut at each of so many parts of it, and at each of so many last bytes
# A reader that computes for longer hangs, and so does one that waits for longer: a disk that others
# keep busy has taken more than twenty seconds to flush a file.
SECONDS, WAITED = 20.0, 120
# Valid JSON of the wrong shape; the last have the shape of what is read and other things in it.
SHAPES = (
    *("[]", "{}", "3", '"x"', "null", "NaN", "[[[{}]]]", '{"format": 1}', '{"format": "2"}'),
    '{"format": 2, "hash": "0", "of": "x", "rows": [3], "config": [], "facts": null}',
    '{"hash": null, "of": {}, "step": [], "looks": 3, "arms": [], "machine": "x", "cell": {}}',
)
# What may become of a damaged file, the better ones first.
SAME = "the same numbers"
SAID = "the same numbers, and a line"
LEFT = "left out in a line"
REFUSED = "refused in a line"
ANOTHER = "other data by another fingerprint"
ABSENT = "as if it had never been"
BROKEN = "none of these"
OUTCOMES = (SAME, SAID, LEFT, REFUSED, ANOTHER, ABSENT)


@dataclass(frozen=True)
class Kind:
    """A kind of file and what reads it.

    Args:
        name: of the kind and of its reader.
        path: the file that is damaged.
        read: gives numbers by names, from the files as they are.
        others: valid files of the kind that belong elsewhere.
        root: a folder that the reader writes to, which is put back after each fault.
        every: takes each so many-th cut and flip alone, because the reader is slow.
        own: a file of the user's: other content is other data, told by "fingerprint".
        absent: why nobody can tell that the file is gone; empty where that is said.
        nothing: contents that say the same as no file.
        named: what a line may name instead of the file.
    """

    name: str
    path: Path
    read: Callable[[], Mapping[str, Any]]
    others: Sequence[Path] = ()
    root: Path | None = None
    every: int = 1
    own: bool = False
    absent: str = ""
    nothing: Sequence[bytes | None] = (None,)
    named: Sequence[str] = ()


class Broken(AssertionError):
    """A fault that has led to what must not be."""


def faults(content: bytes, kind: Kind, few: bool = False) -> Iterator[tuple[str, bytes | None]]:
    """Each fault by its name, with what is in the file then; None where it is gone.

    Args:
        content: the whole file.
        kind: it.
        few: one of each alone.
    """
    size, chance = len(content), random.Random(kind.name)
    every = PARTS // 2 + 1 if few else kind.every
    cuts = sorted({size * part // PARTS for part in range(PARTS)} - {size})[::every]
    yield from (("cut", content[:cut]) for cut in cuts)
    if not few:
        ends = range(max(0, size - PARTS), size)[:: kind.every]
        yield from (("cut near its end", content[:cut]) for cut in ends)
    for part in range(0, PARTS, every):
        start, end = size * part // PARTS, max(size * (part + 1) // PARTS, 1)
        place = chance.randrange(min(start, end - 1), end)
        flipped = content[place] ^ (1 << chance.randrange(8))
        yield "a bit flipped", content[:place] + bytes([flipped]) + content[place + 1 :]
    yield "emptied", b""
    yield from (("another of its kind", other.read_bytes()) for other in kind.others)
    shapes = SHAPES[3::7] if few else SHAPES[:: 3 if kind.every > 4 else 1]
    yield from (("wrong shape", shape.encode()) for shape in shapes)
    yield "random bytes", chance.randbytes(200)
    yield "gone", None


def outcome(kind: Kind, fault: str, content: bytes | None, whole: Mapping[str, Any]) -> str:
    """What becomes of a fault; one of OUTCOMES.

    Raises:
        Broken: it is none of them.
    """
    kind.path.unlink(missing_ok=True)
    if content is not None:
        kind.path.write_bytes(content)
    lines: list[str] = []
    began = time.process_time()
    found: Mapping[str, Any] | None = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        signal.alarm(WAITED)
        try:
            found = kind.read()
        except MaebenchError as error:
            lines.append(str(error))
        finally:
            signal.alarm(0)
    lines += [str(one.message) for one in said]
    if time.process_time() - began > SECONDS:
        raise Broken(f"{kind.name}, {fault}: it hangs")
    if any("\n" in line or not line.strip() for line in lines):
        raise Broken(f"{kind.name}, {fault}: no single line in {lines}")
    names = (str(kind.path), *kind.named)
    names_it = any(name in line for line in lines for name in names)
    if found is None:
        if not names_it:
            raise Broken(f"{kind.name}, {fault}: no line names the file: {lines}")
        return REFUSED
    if kind.own and found["fingerprint"] != whole["fingerprint"]:
        return ANOTHER
    wrong = {k: (v, whole.get(k)) for k, v in found.items() if k not in whole or whole[k] != v}
    if wrong:
        raise Broken(f"{kind.name}, {fault}: other numbers (now, before) {wrong}; said {lines}")
    if len(found) == len(whole):
        return SAID if lines else SAME
    if names_it:
        return LEFT
    if content in kind.nothing and kind.absent:
        return ABSENT
    raise Broken(f"{kind.name}, {fault}: without a line {sorted(whole.keys() - found.keys())[:3]}")


class Root:
    """A folder that is put back as it was, of which only what has changed is written again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._content = {path: path.read_bytes() for path in self._files()}
        self._folders = {path for path in folder.rglob("*") if path.is_dir()}
        self._states = {path: _state(path) for path in self._content}

    def _files(self) -> list[Path]:
        return [path for path in self._folder.rglob("*") if path.is_file()]

    def put_back(self) -> None:
        """Puts it back."""
        for path in set(self._files()) - self._content.keys():
            path.unlink()
        for path in sorted(self._folder.rglob("*"), reverse=True):
            if path.is_dir() and path not in self._folders:
                path.rmdir()
        for path, content in self._content.items():
            if not path.exists() or _state(path) != self._states[path]:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                self._states[path] = _state(path)


def _state(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def _hangs(number: int, frame: Any) -> None:
    raise Broken("it hangs")


# what is damaged here has just been written, and a reader would wait for its rows
@mock.patch.object(records, "BETWEEN_SECONDS", 0.0)
def sweep(kind: Kind, few: bool = False) -> Counter[tuple[str, str]]:
    """How often each fault of a kind came to each outcome.

    Raises:
        Broken: names all that is broken, the first of each fault.
    """
    content = kind.path.read_bytes()
    tried = list(faults(content, kind, few))  # before others of its kind may go
    root = None if kind.root is None else Root(kind.root)

    def put_back() -> None:
        if root is None:
            kind.path.write_bytes(content)
        else:
            root.put_back()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = kind.read()
    counts: Counter[tuple[str, str]] = Counter()
    broken: dict[str, str] = {}
    before = signal.signal(signal.SIGALRM, _hangs)
    for fault, damaged in tried:
        put_back()
        if damaged == content:
            continue
        try:
            counts[fault, outcome(kind, fault, damaged, whole)] += 1
        except Exception as error:  # a traceback is what must not be
            text = f"{kind.name}, {fault}: {type(error).__name__}: {error}"
            text = str(error) if isinstance(error, Broken) else text
            broken.setdefault(fault, f"{text} (content {(damaged or b'')[:80]!r})")
            counts[fault, BROKEN] += 1
            last = error
    put_back()
    signal.signal(signal.SIGALRM, before)
    if broken:
        number = sum(count for (_, what), count in counts.items() if what == BROKEN)
        raise Broken(f"{number} broken:\n" + "\n".join(broken.values())) from last
    return counts


def table(counts: Mapping[str, Counter[tuple[str, str]]]) -> Iterable[str]:
    """A row for each kind, a column for each outcome, as Markdown; and a second one by faults."""
    yield f"| file, and its reader | faults | {' | '.join(OUTCOMES)} |"
    yield f"| --- | {' | '.join(['---'] * (len(OUTCOMES) + 1))} |"
    by_fault: Counter[tuple[str, str]] = Counter()
    for name, found in counts.items():
        by_fault += found
        by_outcome: Counter[str] = Counter()
        for (_, what), count in found.items():
            by_outcome[what] += count
        yield _row(name, [found.total(), *(by_outcome[what] for what in OUTCOMES)])
    yield ""
    yield f"| fault | faults | {' | '.join(OUTCOMES)} |"
    yield f"| --- | {' | '.join(['---'] * (len(OUTCOMES) + 1))} |"
    for fault in dict.fromkeys(fault for fault, _ in by_fault):
        cells = [by_fault[fault, what] for what in OUTCOMES]
        yield _row(fault, [sum(cells), *cells])


def _row(name: str, numbers: Sequence[int]) -> str:
    return f"| {name} | {' | '.join(f'{number:,}' if number else '' for number in numbers)} |"


def main() -> None:
    """Prints the table."""
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MAEBENCH_CACHE"] = f"{folder}/cache"
        import fault_commands
        import fault_kinds
        import fault_sources

        began, counts = time.monotonic(), {}
        modules = fault_kinds, fault_commands, fault_sources
        kinds = [kind for module in modules for kind in module.kinds(Path(folder))]
        for kind in kinds:
            started = time.monotonic()
            try:
                counts[kind.name] = sweep(kind)
            except Broken as error:
                print(error)  # noqa: T201
            print(f"{kind.name}: {time.monotonic() - started:.1f} s")  # noqa: T201
        print(*table(counts), sep="\n")  # noqa: T201
        print(f"{time.monotonic() - began:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()
