"""How long a user waits before anything happens: `maebench --help` and `maebench list`.

    python benchmarks/startup.py

Prints the median of eleven runs each, in turn, beside a bare Python.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 11
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "maebench --help": ["-m", "maebench", "--help"],
    "maebench run --help": ["-m", "maebench", "run", "--help"],
    "maebench list": ["-m", "maebench", "list"],
}


def main() -> None:
    """Times the commands in turn, so that a slow moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    for name, found in seconds.items():
        print(f"{name:22} median {statistics.median(found):.2f} s, worst {max(found):.2f} s")


if __name__ == "__main__":
    main()
