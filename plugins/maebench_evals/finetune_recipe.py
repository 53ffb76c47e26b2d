"""What fine-tuning takes for the settings that are left open, by protocol, encoder and data."""

from __future__ import annotations

from dataclasses import dataclass

OFF = "off"
# Fast: what is measured to do for small encoders and data in minutes.
FAST_BATCH, FAST_DECAY, FAST_DROP, FAST_WARMUP = 64, 0.75, 0.1, 0.1
MAE_LR, MAE_WIDTH = 5e-4, 768  # table 9 for ViT-B; narrower encoders take 1 / width (measured)
MAE_MIXUP, MAE_CUTMIX = 0.8, 1.0  # table 9, for 50 epochs and more
# Below, mixing underfits: digits, 20 epochs, pretrained / untrained: 96.7 / 48.3 with it and
# 98.1 / 78.1 without. A floor must not be lowered by the protocol.
MIX_EPOCHS = 50
IMAGES = 300_000  # to see where the number of epochs is left open, within EPOCHS
EPOCHS = (5, 20)
# The official code's settings: FINETUNE.md and main_finetune.py of facebookresearch/mae.
WARMUP_EPOCHS, MIN_LR = 5, 1e-6
RANDAUGMENT, ERASE = "rand-m9-mstd0.5-inc1", 0.25
LARGE, HUGE = 1024, 1280  # widths of ViT-L and ViT-H, the least that take their settings


@dataclass(frozen=True)
class Recipe:
    """The settings of one fine-tuning; fields are named as the options of `finetune`."""

    epochs: int
    batch: int
    lr: float
    layer_decay: float
    drop_path: float
    mixup: float
    cutmix: float
    warmup: float
    min_lr: float = 0.0
    randaugment: str = OFF
    erase: float = 0.0


def fast_recipe(width: int, num_images: int, epochs: int | None) -> Recipe:
    """The fast protocol's settings, which mix images only where there are epochs enough."""
    low, high = EPOCHS
    epochs = epochs or min(high, max(low, round(IMAGES / num_images)))
    long = epochs >= MIX_EPOCHS
    lr = MAE_LR if width >= MAE_WIDTH else 1 / width
    mixup, cutmix = MAE_MIXUP * long, MAE_CUTMIX * long
    return Recipe(epochs, FAST_BATCH, lr, FAST_DECAY, FAST_DROP, mixup, cutmix, FAST_WARMUP)


def mae_recipe(width: int) -> Recipe:
    """The official settings for the encoder's width: those of ViT-B, from 1024 L, from 1280 H."""
    epochs, lr, layer_decay, drop_path = 100, 5e-4, 0.65, 0.1
    if width >= LARGE:
        epochs, lr, layer_decay, drop_path = 50, 1e-3, 0.75, 0.3 if width >= HUGE else 0.2
    return Recipe(
        epochs,
        1024,
        lr,
        layer_decay,
        drop_path,
        MAE_MIXUP,
        MAE_CUTMIX,
        WARMUP_EPOCHS / epochs,  # the same share of a schedule of another length
        MIN_LR,
        RANDAUGMENT,
        ERASE,
    )
