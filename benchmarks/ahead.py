"""What crops and masks cost a step, by how many steps' are made together.

    python benchmarks/ahead.py

Milliseconds a step of one thread's own time, which other processes disturb least, on digits and on
images of Fashion-MNIST's size; `maebench/pretraining/ahead.py` takes its limits from here.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from maebench import RunConfig
from maebench.data.images import Images, from_arrays
from maebench.data.preprocess import Normaliser
from maebench.pretraining import ahead
from maebench.pretraining.plan import build, inputs_for

STEPS, ROUNDS = 64, 5


def milliseconds(config: RunConfig, images: Images, together: int) -> float:
    """The median over rounds of what a step waits for its crops and masks."""
    ahead.MOST_STEPS, ahead.MOST_BYTES = together, {"cpu": 2**40}
    module = build(config, inputs_for(config, images.info))
    normalise = Normaliser((0.5,), (0.5,), "cpu")
    found = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for parts in ahead.ready(config, module, images, normalise, "cpu", 0, STEPS):
            list(parts)
        found.append(1000 * (time.thread_time() - began) / STEPS)
    return statistics.median(found)


def main() -> None:
    """Prints one line per number of steps."""
    torch.set_num_threads(1)
    digits = RunConfig()
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
    larger = RunConfig(dataset="fashion-mnist", masking="block")
    of_size = from_arrays(pixels, None, (), None)
    print(f"steps together  digits, random  28 px, block, crops {larger.augment.scale}")
    for together in (1, 2, 4, 8, 16, 32, 64):
        ours = milliseconds(digits, digits.splits().load("train"), together)
        theirs = milliseconds(larger, of_size, together)
        print(f"{together:14}  {ours:14.3f}  {theirs:14.3f}")


if __name__ == "__main__":
    main()
