"""Whether anything is lost where a run and a comparison are killed again and again.

    python benchmarks/soak.py --kills 200 --terms 50 --seed 0 FOLDER

A small `maebench run` and a small `maebench compare` are ended by kill -9 and by SIGTERM at moments
spread over start-up, pretraining, checkpointing, evaluation and comparison, and started again until
they are through; then all that they wrote is compared with what they write undisturbed. Prints how
many signals fell where and every difference, and ends with 1 where there is one. Folders with a
difference stay. Takes about ten seconds a signal on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from soaked import Soak

from maebench.pretraining.hardware import processor


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="for results; made anew")
    parser.add_argument("--kills", type=int, default=200, help="how many times kill -9")
    parser.add_argument("--terms", type=int, default=50, help="how many times SIGTERM")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--steps", type=int, default=600, help="of the run")
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} is there already")
    began = time.monotonic()
    soak = Soak(given.folder, given.kills, given.terms, given.seed, given.steps)
    soak.go()
    print(soak.table())
    seconds = time.monotonic() - began
    print(f"\n{seconds:.0f} s on {processor()}, torch {torch.__version__}")
    sys.exit(bool(soak.problems))


if __name__ == "__main__":
    main()
