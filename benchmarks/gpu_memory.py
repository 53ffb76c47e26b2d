"""What pretraining takes of a GPU's memory, by model and batch: computed, without a GPU.

    python benchmarks/gpu_memory.py

Weights, gradients and AdamW's two means are float32. What backward needs is counted in a step of
two and of four images (on a CPU in bf16: each storage that autograd saves, once, autocast's copies
of weights among them): every further image takes the difference. Beside it lie what a kernel needs
for itself, torch's rounding of blocks and CUDA's own
half GiB: SPARE of the card. Prints Markdown for docs/gpu.md.
"""

from __future__ import annotations

from typing import Any

import timing
import torch
from torch import Tensor

from maebench import MAE, Batch, Draws, Inputs, Random, RunConfig
from maebench.encoders import attention
from maebench.masking import draw
from maebench.plugins import installed
from maebench.pretraining.plan import build

MODELS = ("vit-small", "vit-base", "vit-large", "vit-huge")
SIZE, CHANNELS, RATIO = (224, 224), 3, 0.75
CARDS = (16, 24, 40, 80)  # GB of memory
SPARE = 0.1
COPIES = 16  # bytes of a trained weight: itself, its gradient and two means


def saved(module: Any, batch: Batch) -> int:
    """Bytes that autograd keeps for backward, beside weights and images."""
    given = {p.untyped_storage().data_ptr() for p in module.parameters()}
    given.add(batch.images.untyped_storage().data_ptr())
    kept: dict[int, Tensor] = {}  # held, so that no place is used twice

    def keep(x: Tensor) -> Tensor:
        place = x.untyped_storage().data_ptr()
        if place not in given:
            kept[place] = x
        return x

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
        torch.autocast("cpu", torch.bfloat16),
    ):
        module(batch)["loss"]
    return sum(x.untyped_storage().nbytes() for x in kept.values())


def batch_of(module: Any, number: int) -> Batch:
    """So many images of noise."""
    ids = torch.arange(number)
    draws = Draws(0, "masking", ids)
    encoder = module.encoder
    mask = draw(Random(), RATIO, encoder.grid, encoder.patch, ids=ids, draws=draws)
    return Batch(torch.randn(number, CHANNELS, *SIZE), ids, Draws(0, "x", ids), mask)


def main() -> None:
    """Prints a row per model."""
    rows = []
    for name in MODELS:
        config = RunConfig(installed(), encoder=name, image_size=SIZE, objective=MAE(), ratio=RATIO)
        module = build(config, Inputs.of_images(CHANNELS, SIZE)).train()
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        with attention.using(True):  # as on a GPU: scores are not kept
            two, four = (saved(module, batch_of(module, number)) for number in (2, 4))
        each = (four - two) // 2
        fixed = trained * COPIES + two - 2 * each
        fits = {
            f"{card} GB": f"{max(0, int(((1 - SPARE) * card * 1e9 - fixed) / each)):,}"
            for card in CARDS
        }
        rows.append(
            {
                "model": name,
                "trained weights": f"{trained / 1e6:.0f} M",
                "GB without images": f"{fixed / 1e9:.1f}",
                "MB an image": f"{each / 1e6:.1f}",
                **fits,
            }
        )
    print(timing.table(rows))


if __name__ == "__main__":
    main()
