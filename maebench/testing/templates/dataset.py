"""Images to learn from: discs, squares and crosses that are drawn and not stored."""

from typing import ClassVar

import torch
from pydantic import Field, PositiveInt

from maebench import Dataset, Draws, Images, Request, from_arrays, hookimpl

SHAPES = ("disc", "square", "cross")
SIDE = 16  # pixels


class Shapes(Dataset):
    """Discs, squares and crosses at places and in sizes drawn at random, on noise."""

    name: ClassVar[str] = "shapes"
    images: PositiveInt = Field(
        default=1200, ge=30, description="images of train; test has a quarter"
    )
    noise: float = Field(
        default=0.2, ge=0, le=1, description="share of the brightness that is noise"
    )

    def load(self, request: Request) -> Images:
        """One split; files would be looked for in request.data_dir, DataError if missing."""
        count = self.images if request.split == "train" else self.images // 4
        ids = torch.arange(count)
        draws = Draws(0, f"shapes {request.split}", ids)  # the same images whenever it is asked
        labels = ids % len(SHAPES)
        radius = 2 + 4 * draws.uniform(1, 1)
        centre = radius + (SIDE - 2 * radius) * draws.uniform(2, 1, 1).transpose(0, 1)
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        dy, dx = (y + 0.5 - centre[0]).abs(), (x + 0.5 - centre[1]).abs()
        inside = torch.stack(  # (shapes, images, rows, columns)
            [
                dy**2 + dx**2 <= radius**2,
                torch.maximum(dy, dx) <= 0.8 * radius,
                (torch.minimum(dy, dx) <= 1) & (torch.maximum(dy, dx) <= radius),
            ]
        )
        shape = inside.gather(0, labels.view(1, -1, 1, 1).expand(1, -1, SIDE, SIDE))[0]
        grey = (1 - self.noise) * shape + self.noise * draws.uniform(SIDE, SIDE)
        pixels = (255 * grey).to(torch.uint8).numpy()  # (N, H, W), or (N, 3, H, W) in colour
        # It resizes to --image-size, and makes the ids and the fingerprint of the content.
        return from_arrays(pixels, labels.numpy(), SHAPES, request.image_size)

    def preset(self) -> dict[str, object]:
        """What suits these images where no flag says otherwise."""
        return {
            "image_size": (SIDE, SIDE),
            "encoder": "vit-nano",
            "budget": "epochs=50",
            "batch": 64,
            "lr": 4e-3,
            "augment": {"scale": (0.8, 1.0)},
        }


@hookimpl
def register_datasets() -> list[type[Dataset]]:
    """What this package brings; maebench asks when it starts."""
    return [Shapes]
