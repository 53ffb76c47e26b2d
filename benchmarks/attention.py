"""Fused against explicit attention on this CPU, forward and backward, by length and precision.

    python benchmarks/attention.py

The ratio fused / explicit differs from processor to processor, so that
maebench/encoders/attention.py measures it where it runs; above 1 the explicit one is faster. Both
run in turn; medians of the pairs.
"""

from __future__ import annotations

import statistics
import time

import torch

from maebench.encoders.blocks import Block

BATCH, HEAD_WIDTH, PAIRS = 64, 64, 9


def seconds(block: torch.nn.Module, x: torch.Tensor, fused: bool, bf16: bool) -> float:
    """One forward and backward pass of a block."""
    block.attn.fused_attn = fused
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        block(x).square().mean().backward()
    return time.perf_counter() - began


def main() -> None:
    """Prints one line per number of tokens."""
    print("tokens  heads  precision  fused / explicit")
    for heads in (3, 12):
        for tokens in (5, 17, 50, 65, 197):
            for bf16 in (False, True):
                block = Block(heads * HEAD_WIDTH, heads)
                x = torch.randn(BATCH, tokens, heads * HEAD_WIDTH)
                seconds(block, x, True, bf16), seconds(block, x, False, bf16)
                ratios = [
                    seconds(block, x, True, bf16) / seconds(block, x, False, bf16)
                    for _ in range(PAIRS)
                ]
                name = "bf16" if bf16 else "fp32"
                print(f"{tokens:6}  {heads:5}  {name:9}  {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
