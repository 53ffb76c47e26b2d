"""What fine-tuning does to crops: RandAugment, erasing, mixing, and soft labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from maebench import MaebenchError, Model
from maebench_evals.finetune_recipe import OFF, Recipe

# images and labels to other images and soft targets
Distortion = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
TRANSLATE = 0.45  # of the shorter side at most, as timm.data.create_transform has it


def make_inputs(recipe: Recipe, model: Model, num_classes: int, smoothing: float) -> Distortion:
    """Crops (B, C, H, W) in 0..255 and labels (B,) to what the encoder takes and soft targets."""
    augment = None if recipe.randaugment == OFF else recipe.randaugment
    erase = make_erasing(recipe.erase, model.device) if recipe.erase else None
    mix = make_mix(recipe.mixup, recipe.cutmix, smoothing, num_classes)

    def inputs(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if augment:
            images = rand_augment(images, augment, mean_of(model, images.shape[1]))
        images = model.normalise(images)
        images = images if erase is None else erase(images)
        return mix(images, labels.to(model.device))

    return inputs


def make_erasing(share: float, device: str) -> Callable[[Tensor], Tensor]:
    """Timm's erasing of a rectangle by noise, in a share of the images."""
    from timm.data.random_erasing import RandomErasing

    return RandomErasing(share, mode="pixel", device=device)


def mean_of(model: Model, channels: int) -> tuple[float, ...]:
    """The pixel in 0..1 that normalising makes zero."""
    zero = torch.zeros(1, channels, 1, 1, device=model.device)
    return tuple(model.pixels(zero).flatten().tolist())


def rand_augment(images: Tensor, spec: str, mean: tuple[float, ...]) -> Tensor:
    """Timm's RandAugment of each image alone, float32 (B, C, H, W) in 0..255.

    Its operations want colour: a grey image becomes one and grey again.

    Raises:
        MaebenchError: images that are neither grey nor colour.
    """
    from timm.data.auto_augment import rand_augment_transform
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image

    channels, size = images.shape[1], images.shape[2:]
    if channels not in (1, 3):
        raise MaebenchError(
            f"finetune: RandAugment wants images of 1 or 3 channels, these have {channels}; "
            f"use -o finetune.randaugment={OFF}"
        )
    grey = channels == 1
    transform = rand_augment_transform(
        spec,
        {
            "translate_const": int(min(size) * TRANSLATE),
            "img_mean": tuple(round(255 * m) for m in (mean * 3 if grey else mean)),
            "interpolation": Image.Resampling.BICUBIC,
        },
    )
    for op in transform.ops:
        if op.name.startswith("Posterize"):
            op.aug_fn = black_for_no_bits(op.aug_fn)
    changed = []
    for image in images.round().clamp(0, 255).to(torch.uint8).cpu():
        turned = transform(to_pil_image(image).convert("RGB"))
        changed.append(pil_to_tensor(turned.convert("L") if grey else turned))
    return torch.stack(changed).to(images.device).float()


def black_for_no_bits(posterize: Callable[..., Image.Image]) -> Callable[..., Image.Image]:
    """Posterize that makes an image black where it is to keep no bit, which Pillow refuses.

    No bit kept is no light: the recipe asks for it at its highest magnitudes, and leaving such
    images whole would be another recipe.
    """

    def with_none(image: Image.Image, bits: int, **rest: object) -> Image.Image:
        return posterize(image, bits, **rest) if bits else Image.new(image.mode, image.size)

    return with_none


def make_mix(mixup: float, cutmix: float, smoothing: float, num_classes: int) -> Distortion:
    """Images and labels to mixed images and soft targets."""
    if not (mixup or cutmix):
        return lambda images, labels: (images, soft_targets(labels, num_classes, smoothing))
    from timm.data.mixup import Mixup

    return Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=num_classes)


def soft_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Labels (B,) with a share of each given to all classes alike, float32 (B, classes).

    As timm's mixup makes them where nothing is mixed, whose import takes seconds.
    """
    low = smoothing / num_classes
    high = 1.0 - smoothing + low
    targets = torch.full((len(labels), num_classes), low, device=labels.device)
    return targets.scatter_(1, labels.long()[:, None], high)
