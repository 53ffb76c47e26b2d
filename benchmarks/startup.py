"""How long a user waits before anything happens: help, a mistake, the first step, a table.

    python benchmarks/startup.py [RESULTS] [--rounds N] [--threads N] [--write]

Each command is a process of its own; they take turns. `maebench run` is the default run, from the
start of the process until its first step is logged; the second one has been there before and only
prints. The table is that of RESULTS, without which it is left out. Prints Markdown; --write also
puts it into results/reference/speed-startup.md. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import timing
import torch

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "import torch": ["-c", "import torch"],
    "import maebench": ["-c", "import maebench"],
    "maebench --help": ["-m", "maebench", "--help"],
    "maebench run --help": ["-m", "maebench", "run", "--help"],
    "maebench run --wrong": ["-m", "maebench", "run", "--wrong"],
    "maebench list": ["-m", "maebench", "list"],
}
POLL = 0.005  # seconds between looks for the first step


def call(arguments: list[str]) -> None:
    """Runs a command to its end."""
    subprocess.run([sys.executable, *arguments], check=False, capture_output=True)


def first_step(folder: Path) -> None:
    """Starts a run and stops it when its first step is logged."""
    results = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "maebench", "run", "--results", str(results)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not any(log.stat().st_size for log in results.glob("runs/*/log.jsonl")):
            if process.poll() is not None:
                raise SystemExit(f"{shlex.join(command)} ended before its first step")
            time.sleep(POLL)
        process.kill()
    shutil.rmtree(results)


def main() -> None:
    """Times the commands in turn, so that a slow moment hits all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", help="results whose table is printed")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each, default 9")
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--write", action="store_true", help="write the table")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
        os.environ["OMP_NUM_THREADS"] = str(asked.threads)  # of the commands
    with tempfile.TemporaryDirectory() as folder:
        done = ["--results", f"{folder}/done", "--budget", "steps=2", "--evals", "knn"]
        again = ["-m", "maebench", "run", *done]
        subprocess.run([sys.executable, *again], check=True, capture_output=True)
        work = {name: partial(call, arguments) for name, arguments in COMMANDS.items()}
        work["maebench run, to the first step"] = partial(first_step, Path(folder))
        work["maebench run, a second time"] = partial(call, again)
        if asked.results:
            work["maebench table"] = partial(
                call, ["-m", "maebench", "table", "--results", asked.results]
            )
        samples = timing.in_turn(work, asked.rounds)
    lines = [
        {
            "command": name,
            "s": f"{timing.seconds(found):.2f}",
            "worst": f"{max(one.seconds for one in found):.2f}",
            "clean": timing.share(found),
        }
        for name, found in samples.items()
    ]
    command = shlex.join(["python", "benchmarks/startup.py", *sys.argv[1:]])
    text = f"{timing.machine(command)}\n\nFiles are in the cache.\n\n{timing.table(lines)}"
    title = "Start-up"
    timing.publish("speed-startup.md", title, {"Until anything happens": text}, asked.write)


if __name__ == "__main__":
    main()
