"""A disk of a test's own, which is full again and again until it has grown enough.

    unshare --user --map-root-user --mount python tests/disks.py full FOLDER

It is a tmpfs in a name space of this process, so that no other one sees it and none has to be root.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attempts import Attempt, attempt
from same_folders import differences
from soaked import DATA

PAGE = 4096  # bytes by which a tmpfs counts
RUN = ("run", "--budget", "steps=12", "--evals", "linear-probe,knn", "--limit", "100", *DATA[2:])
EVAL = ("eval", "linear-probe", "-o", "iterations=50")
FULL = "No space left on device"


def mount(place: Path, options: str) -> None:
    """Makes a disk, or gives the one that is there other options."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "maebench", str(place)]
    subprocess.run(command, check=True)


class Disk:
    """Commands whose results lie on a disk.

    Args:
        folder: for all of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder.absolute(), folder.absolute() / "disk"
        self.results = self.place / "results"
        self.count = 0
        self.problems: list[str] = []

    def start(self, arguments: Sequence[str], results: Path | None = None) -> Attempt:
        self.count += 1
        wanted = [*arguments, "--results", str(results or self.results)]
        cache = {"MAEBENCH_CACHE": str(self.folder / "cache")}
        return attempt(wanted, self.folder / "said", f"attempt-{self.count}", environment=cache)

    def ends(
        self, arguments: Sequence[str], allowed: Sequence[int], reason: str = ""
    ) -> tuple[int, str]:
        """What a command ends with and says; anything but an allowed code in one line is noted."""
        made = self.start(arguments)
        code = made.wait()
        last = (made.said.strip().splitlines() or [""])[-1]
        if code not in allowed or "Traceback" in made.said:
            self.problems.append(f"{made.again} ended with {code}: {made.said[-1500:]}")
        if code == 1 and reason not in made.said:
            self.problems.append(f"{made.again}: {made.said[-500:]}")
        return code, last

    def undisturbed(self) -> Path:
        """The results of a disk that is large enough."""
        results = self.folder / "undisturbed"
        made = self.start(RUN, results)
        assert made.wait() == 0, made.said
        return results

    def full(self, step: int) -> dict[str, Any]:
        """A run on a disk that has grown by so many bytes each time it is started again.

        Returns:
            How often it was full, where by the last line without its folder, and what is wrong:
            tables that fail meanwhile, tracebacks, and all that differs in the end.
        """
        expected = self.undisturbed()
        size, full, said = PAGE, 0, Counter[str]()
        mount(self.place, f"size={size}")
        while True:
            code, last = self.ends(RUN, (0, 1), FULL)
            if code == 0 and FULL not in last:
                break
            full += 1
            said[self.kind(last)] += 1
            self.ends(("table",), (0, 1), "no results in")
            size += step
            mount(self.place, f"remount,size={size}")
        # what could not be kept was computed or printed, and is not missed
        found = differences(self.results, expected)
        lost = [line for line in found if re.search(r"^lost: .*/(features/|printed$)", line)]
        self.problems += [line for line in found if line not in lost]
        whole = {"full": full, "bytes": size, "said": said, "unkept": lost}
        return {**whole, "problems": self.problems}

    def kind(self, line: str) -> str:
        """A line without what is different each time: what could not be written."""
        name = line.partition("cannot write ")[2].partition(": ")[0].rsplit("/", 1)[-1]
        return "".join("N" if letter.isdigit() else letter for letter in name)[:60]

    def read_only(self) -> dict[str, Any]:
        """Commands where nothing can be written any more: what they end with and say."""
        found: dict[str, Any] = {}
        mount(self.place, "size=64m")
        self.ends(RUN, (0,))
        before = {path: path.read_bytes() for path in self.results.rglob("*") if path.is_file()}
        mount(self.place, "remount,ro")
        commands = {"table": ("table",), "run": RUN, "eval": EVAL}
        commands["other"] = (*RUN[:2], "steps=13", *RUN[3:])
        commands["compare"] = ("compare", "--masking", "random,block", "--seeds", "1", *RUN[1:])
        for name, arguments in commands.items():
            found[name] = self.ends(arguments, (0, 1), "ead-only")
        after = {path: path.read_bytes() for path in self.results.rglob("*") if path.is_file()}
        return {**found, "kept": before == after, "problems": self.problems}


def main() -> None:
    """Prints as JSON what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["full", "read-only"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--step", type=int, default=PAGE, help="bytes that the disk grows by")
    given = parser.parse_args()
    disk = Disk(given.folder)
    found = disk.full(given.step) if given.what == "full" else disk.read_only()
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
