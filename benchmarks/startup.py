"""How long a user waits before anything happens: help, a mistake, the list and the table.

    python benchmarks/startup.py [RESULTS]

Prints the median of eleven runs each, in turn, beside a bare Python and what `import torch` takes.
The table is that of RESULTS, without which it is left out.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 11
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "maebench --help": ["-m", "maebench", "--help"],
    "maebench run --help": ["-m", "maebench", "run", "--help"],
    "maebench run --wrong": ["-m", "maebench", "run", "--wrong"],
    "maebench list": ["-m", "maebench", "list"],
}


def main() -> None:
    """Times the commands in turn, so that a slow moment hits all of them."""
    commands = dict(COMMANDS)
    if sys.argv[1:]:
        commands["maebench table"] = ["-m", "maebench", "table", "--results", sys.argv[1]]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, arguments in commands.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=False, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    for name, found in seconds.items():
        print(f"{name:22} median {statistics.median(found):.2f} s, worst {max(found):.2f} s")


if __name__ == "__main__":
    main()
