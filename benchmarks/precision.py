"""A pretraining step in fp32 against bf16 on this CPU, by width of the encoder.

    python benchmarks/precision.py

The ratio decides BF16_WIDTH in maebench/pretraining/hardware.py. Both run in turn; medians of the
pairs.
"""

from __future__ import annotations

import statistics
import time

import torch

from maebench import MAE, Batch, Draws, Inputs, Random
from maebench.encoders import ViTNano
from maebench.masking import draw

BATCH, SIZE, PAIRS = 128, (32, 32), 7


def main() -> None:
    """Prints one line per width."""
    print("width  fp32 ms  bf16 ms  fp32 / bf16")
    for width in (64, 128, 192, 384):
        encoder = ViTNano(width=width, depth=4, heads=width // 32, patch=4).build(
            Inputs.of_images(3, SIZE)
        )
        model = MAE().build(encoder, Inputs.of_images(3, SIZE))
        ids = torch.arange(BATCH)
        draws = Draws(0, "masking", ids)
        mask = draw(Random(), 0.75, encoder.grid, encoder.patch, ids=ids, draws=draws)
        batch = Batch(torch.randn(BATCH, 3, *SIZE), ids, Draws(0, "x", ids), mask)

        def step(bf16: bool, model: torch.nn.Module = model, batch: Batch = batch) -> float:
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                model(batch)["loss"].backward()
            return time.perf_counter() - began

        step(False), step(True)
        pairs = [(step(False), step(True)) for _ in range(PAIRS)]
        full, half = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{width:5}  {full:7.1f}  {half:7.1f}  {ratio:.2f}")


if __name__ == "__main__":
    main()
