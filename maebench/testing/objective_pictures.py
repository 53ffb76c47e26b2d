"""Does an objective give pictures of its own as they are drawn?"""

from __future__ import annotations

import torch
from torch import Tensor

from maebench.errors import ConfigError
from maebench.objectives.objective import ImageGrid
from maebench.rng import Draws
from maebench.testing.contract import Broken, NotChecked, expect
from maebench.testing.objective_loss import SETTINGS, LossChecks
from maebench.testing.probes import IMAGES, pictures


class PictureChecks(LossChecks):
    """The check of `pictures`, where a module has it."""

    def test_its_own_pictures_have_the_documented_shapes(self) -> None:
        """They are drawn as boards of images, whatever they show."""
        for setting, (size, channels) in SETTINGS.items():
            try:
                module = self.build(setting).eval()
            except ConfigError:
                continue
            if not hasattr(module, "pictures"):
                raise NotChecked("it has no pictures(images, draws)")
            ids = torch.arange(IMAGES)
            with torch.no_grad():
                made = module.pictures(pictures(size, channels), Draws(0, "pictures", ids))
            expect(isinstance(made, dict), f"pictures gives {type(made)}, not a dict of boards")
            expect(made, f"{setting}: pictures gives none; leave it out where there is nothing")
            for name, board in made.items():
                _is_board(f"{setting}: picture {name!r}", board, (channels, *size))


def _is_board(what: str, board: object, image: tuple[int, int, int]) -> None:
    if not isinstance(board, ImageGrid) or not isinstance(board.images, Tensor):
        raise Broken(f"{what} is {type(board)}, not an ImageGrid of a tensor")
    x = board.images
    expect(
        x.ndim == 5 and tuple(x.shape[2:]) == image and x.numel() > 0,
        f"{what} is {tuple(x.shape)}, must be (rows, columns, C, H, W) with (C, H, W) = {image}",
    )
    expect(x.dtype == torch.float32, f"{what} is {x.dtype}, not float32")
    expect(x.isfinite().all(), f"{what} is not finite")
    for side, texts in zip(x.shape, (board.rows, board.columns), strict=False):
        expect(len(texts) in (0, side), f"{what} has {len(texts)} texts for {side} rows or columns")
