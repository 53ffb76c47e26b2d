"""What each masking strategy costs beside a step of pretraining.

    python benchmarks/masking.py [DEVICE]

The step is that of a vision transformer of width 192 with 6 blocks, patch 4, on 256 images of 32
pixels, ratio .75: forward, backward and update, as `maebench pretrain` does it. Steps and masks
take turns, so that a slow moment hits both. Prints the median share of a step, and for learned
strategies, which ask a model, the same with what they ask.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from maebench import Batch, Draws, Inputs, RunConfig
from maebench.data.augment import Crops
from maebench.encoders import ViTTiny
from maebench.masking import BUILT_IN, LabelMap
from maebench.pretraining.batches import make_mask
from maebench.pretraining.hardware import find_device, find_precision, mixed
from maebench.pretraining.optimiser import parameter_groups
from maebench.pretraining.plan import build

ROUNDS = 9
BATCH, SIDE = 256, 32
LIMIT = 0.05  # of a step, for strategies that depend on no data


def clock(device: str) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def main(device: str = "auto") -> None:
    """Measures and prints."""
    device = find_device(device)
    file = Path(tempfile.mkdtemp()) / "maps.npy"
    np.save(file, np.random.default_rng(0).integers(0, 6, (BATCH, SIDE, SIDE)).astype("uint8"))
    encoder = ViTTiny(depth=6, patch=4)
    config = RunConfig(encoder=encoder, image_size=SIDE, batch=BATCH, ratio=0.75, device=device)
    model = build(config, Inputs.of_images(3, (SIDE, SIDE))).to(device)
    groups, _ = parameter_groups(model, 0.05)
    adam = torch.optim.AdamW(groups, lr=1e-4, fused=True)
    precision = find_precision("auto", device, model.encoder.width)
    ids = torch.arange(BATCH)
    images, there = Draws(0, "images", ids).normal(3, SIDE, SIDE).to(device), ids.to(device)
    boxes = torch.tensor([[0.0, 0, SIDE, SIDE]]).expand(BATCH, 4)
    made = [cls(file=file) if cls is LabelMap else cls() for cls in BUILT_IN]
    configs = [config.model_copy(update={"masking": masking}) for masking in made]

    def mask(chosen: RunConfig, epoch: int) -> object:
        crop = Crops(
            images, ids, ids, torch.full_like(ids, epoch), boxes, ids % 2 == 0, boxes[:, 2:].long()
        )
        return make_mask(chosen, model, crop, images, 0.5, precision)

    def step(epoch: int) -> None:
        batch = Batch(images, there, Draws(0, "objective", there, epoch), mask(config, epoch))
        with mixed(device, precision):
            loss = model(batch)["loss"]
        loss.backward()
        adam.step()
        adam.zero_grad()

    steps: list[float] = []
    shares: dict[str, list[float]] = {masking.name: [] for masking in made}
    for number in range(ROUNDS + 1):
        began = clock(device)
        step(number)
        steps.append(clock(device) - began)
        for chosen in configs:
            began = clock(device)
            mask(chosen, number)
            shares[chosen.masking.name].append((clock(device) - began) / steps[-1])
    place = torch.cuda.get_device_name() if device.startswith("cuda") else device
    print(
        f"one step: median {1000 * statistics.median(steps[1:]):.0f} ms of {ROUNDS} on {place}, "
        f"{torch.get_num_threads()} threads, {precision}, torch {torch.__version__}"
    )
    for masking in made:
        found = shares[masking.name][1:]  # the first round loads and allocates
        share = statistics.median(found)
        learned = "asks a model" if masking.needs else "ok" if share < LIMIT else "OVER 5 %"
        print(f"{masking.name:14} {share:8.2%} of a step, worst {max(found):.2%}  {learned}")


if __name__ == "__main__":
    main(*sys.argv[1:])
