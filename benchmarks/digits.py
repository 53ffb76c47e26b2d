"""What the default run shows over seeds, and how long it takes.

    python benchmarks/digits.py results/benchmark-digits 5

Runs `maebench run --masking random --ratio 0.75` with seeds 0 to N - 1 into a folder, skips what is
done, and prints per seed: the wall time, and the paired differences to the untrained encoder.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import maebench
from maebench.report.differences import differences


def main(folder: str, seeds: str) -> None:
    """Runs and prints."""
    for seed in range(int(seeds)):
        began = time.perf_counter()
        command = [sys.executable, "-m", "maebench", "run", "--masking", "random"]
        command += ["--ratio", "0.75", "--seed", str(seed), "--results", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s")
    rows = maebench.load_records(Path(folder))
    for run in rows[rows["model_kind"] == "run"]["model"].unique():
        print(run)
        for name, found, _ in differences(rows, run, f"untrained:{run}"):
            print(f"  {name}: {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
    edges = [r for r in rows.to_dict("records") if r["where"].get("edge")]
    print(f"winners on the edge of a grid: {len(edges)}")
    for row in edges:
        print(f"  {row['model']} {row['evaluation']} {row['where']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
