"""`timm-cnn:NAME`: a convolutional network of timm under masks, as far as its hidden cells stay 0.

Shape suffixes: B images, D width, h w the cells of a map.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.convnets import seen_tokens
from maebench.encoders.encoder import Encoder, EncoderModule, Tokens
from maebench.encoders.inputs import Inputs
from maebench.encoders.masked_conv import Seen, mask_layers
from maebench.errors import ConfigError, unknown
from maebench.masking.mask import Mask, hide
from maebench.masking.patches import hidden_pixels
from maebench.rng import Draws

WANTED = ("forward_features", "forward_intermediates")


class TimmCNN(Encoder):
    """A convolutional network of timm by masked convolutions, with fresh weights.

    `timm-cnn:NAME` hides patches of its total stride; tokens are the seen cells of its last map,
    layers its stages. Whether hidden cells stay 0 after each of its modules is tried when it is
    built, and a network in which they do not is refused. Squeeze-and-excitation takes its mean over
    all cells, hidden ones as 0. Source: Tian et al. 2023, arXiv 2301.03580.
    """

    name: ClassVar[str] = "timm-cnn"
    spec: ClassVar[str | None] = "network"
    example: ClassVar[dict[str, Any]] = {"network": "test_convnext2"}

    network: str = Field(
        description="its name in timm, such as resnet50 or convnextv2_atto",
        min_length=1,
        examples=["test_convnext"],
    )

    def build(self, inputs: Inputs) -> EncoderModule:
        """The torch module, freshly initialised as timm's.

        Raises:
            ConfigError: timm has no such network, it takes no images of this size, or its hidden
                cells do not stay 0.
        """
        import timm

        check_architecture(self.network, f"encoder.{self.spec}")
        network = timm.create_model(
            self.network, pretrained=False, num_classes=0, in_chans=inputs.channels
        )
        if not all(hasattr(network, method) for method in WANTED):
            raise self._refused("it gives no features by stages")
        try:
            made = TimmCNNModule(network, inputs)
            problem = made.leak()
        except ConfigError as error:
            raise self._refused(str(error)) from error
        # what timm's networks raise on images that they cannot take
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            sides = f"{inputs.image_size[0]}x{inputs.image_size[1]}"
            reason = " ".join(str(error).split())[:160]
            raise self._refused(
                f"images of {sides} are too small for its stages, or of a size that it does not "
                f"take: give others (--image-size). timm and torch say: {reason}"
            ) from error
        if problem:
            raise self._refused(problem)
        return made

    def _refused(self, why: str) -> ConfigError:
        return ConfigError(f"encoder {self.name}:{self.network}: {why}")


def check_architecture(name: str, where: str) -> None:
    """Refuses a name that timm does not have.

    Raises:
        ConfigError: names the nearest; all of them are over a thousand.
    """
    import timm

    known = timm.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=8, cutoff=0.3) or known[:8]
        raise ConfigError(unknown("model of timm", name, near, where))


class Spilled:
    """A forward hook that notes a module whose map is not 0 in hidden cells."""

    def __init__(self, name: str, seen: Seen, found: list[str]) -> None:
        self.name, self.seen, self.found = name or "the whole", seen, found

    def __call__(self, module: nn.Module, inputs: Any, made: Any) -> None:
        """Notes its name and kind."""
        if not isinstance(made, Tensor) or made.ndim != 4:
            return
        for last in (False, True):  # where channels come last, rows and columns are no grid else
            size = made.shape[1:3] if last else made.shape[2:]
            cells = self.seen.at((size[0], size[1]), last)
            if cells is not None and not bool((made * (1 - cells)).any()):
                return
        if self.seen.at((made.shape[2], made.shape[3])) is not None:
            self.found.append(f"{self.name} ({type(module).__name__})")


class TimmCNNModule(nn.Module):
    """A network of timm; see `maebench.encoders.encoder.EncoderModule`."""

    prefix = 0

    def __init__(self, network: Any, inputs: Inputs) -> None:
        super().__init__()
        self.network, self.inputs = network, inputs
        self.mask_patch: nn.Parameter | None
        self.register_parameter("mask_patch", None)  # until keep_positions()
        self.seen = Seen()
        network.eval()  # running statistics stay as they are
        maps, end = self._maps(inputs.zeros(2, "cpu"))
        (H, W), (h, w) = inputs.image_size, (end.shape[2], end.shape[3])
        self.grid = self.out_grid = (h, w)
        if h * w < 2:
            raise ConfigError(
                f"of images of {H}x{W} it leaves {h}x{w} cells and masks need two: give larger "
                "images (--image-size)"
            )
        sizes = [(H, W), *((x.shape[2], x.shape[3]) for x in maps)]
        if uneven := [(r, c) for r, c in sizes if r % h or c % w]:
            r, c = uneven[0]
            raise ConfigError(
                f"images of {H}x{W} become {r}x{c} and then {h}x{w} cells, which do not divide "
                "these: give images (--image-size) that its total stride divides"
            )
        self.patch = (H // h, W // w)
        self.width, self.depth = end.shape[1], len(maps)
        self._layers = self._first_users()
        network.train()
        mask_layers(network, self.seen)

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Encodes images (B, C, H, W), of which hidden patches are 0 in every layer."""
        self.inputs.check(tuple(images.shape[1:]), "the encoder")
        if mask is not None:
            pixels = hidden_pixels(mask, self.patch)
            fill = torch.zeros((), dtype=images.dtype, device=images.device)
            if self.mask_patch is not None:
                fill = self.mask_patch.to(images.dtype).repeat(1, *self.grid)
                mask = None
            images = torch.where(pixels, fill, images)
        with self.seen.of(mask):
            maps, end = self._maps(images, bool(layers))
        kept = {layer: seen_tokens(maps[layer - 1], mask) for layer in layers}
        return seen_tokens(end, mask, kept)

    def _maps(self, images: Tensor, stages: bool = True) -> tuple[list[Tensor], Tensor]:
        """The maps after each stage where they are asked for, and the last, (B, D, h, w).

        Raises:
            ConfigError: it does not end in a map.
        """
        if stages:
            end, maps = self.network.forward_intermediates(images, output_fmt="NCHW")
        else:
            end, maps = self.network.forward_features(images), []
        if not isinstance(end, Tensor) or end.ndim != 4:
            raise ConfigError("it does not end in a map of cells")
        if getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            end = end.permute(0, 3, 1, 2)
        return [*maps], end

    def _first_users(self) -> dict[str, int]:
        """The first stage that depends on each parameter, depth + 1 for what comes after them.

        What belongs to the classifier alone, and makes no token, is not trained.
        """
        named = dict(self.network.named_parameters())
        found = dict.fromkeys(named, self.depth + 1)
        with torch.enable_grad():
            maps, end = self._maps(self.inputs.zeros(2, "cpu"))
            for number, x_BDhw in reversed([*enumerate(maps, 1), (self.depth + 1, end)]):
                trained = {n: p for n, p in named.items() if p.requires_grad}
                slopes = torch.autograd.grad(
                    x_BDhw.sum(), [*trained.values()], retain_graph=True, allow_unused=True
                )
                for name, slope in zip(trained, slopes, strict=True):
                    found[name] = found[name] if slope is None else number
                    if number > self.depth:
                        named[name].requires_grad_(slope is not None)
        return found

    def leak(self) -> str:
        """What is wrong with the network under masks, in words; empty where nothing is.

        Cells that a mask hides must be 0 in the map that any of its modules gives, in training and
        in evaluation.
        """
        draws = Draws(0, "timm-cnn", torch.arange(2, device="cpu"))
        L = self.grid[0] * self.grid[1]
        mask = hide(draws.uniform(L), L // 2, self.grid)
        wrong: list[str] = []
        handles = [
            module.register_forward_hook(Spilled(name, self.seen, wrong))
            for name, module in self.network.named_modules()
        ]
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        training = self.network.training
        try:
            for mode in (True, False):
                self.network.train(mode)
                with torch.no_grad():
                    self(self.inputs.made_up(draws), mask, range(1, self.depth + 1))
        finally:
            self.network.load_state_dict(before)
            self.network.train(training)
            for handle in handles:
                handle.remove()
        if not wrong:
            return ""
        return f"hidden cells do not stay 0 after {wrong[0]}: what lies around spills into them"

    def keep_positions(self) -> None:
        """From now on a learned patch takes the place of hidden ones in the image."""
        device = next(self.parameters()).device
        patch = torch.empty(self.inputs.channels, *self.patch, device=device)
        self.mask_patch = nn.Parameter(nn.init.trunc_normal_(patch, std=0.02))

    def layer_ids(self) -> dict[str, int]:
        """The first stage that depends on each parameter; 0 for the patch of hidden ones."""
        found = {f"network.{name}": layer for name, layer in self._layers.items()}
        return found | ({"mask_patch": 0} if self.mask_patch is not None else {})

    def no_weight_decay(self) -> set[str]:
        """What timm's network names, and the patch of hidden ones."""
        own = {name for name, _ in self.network.named_parameters()}
        named: set[str] = getattr(self.network, "no_weight_decay", set)() & own
        found = {f"network.{name}" for name in named}
        return found | ({"mask_patch"} if self.mask_patch is not None else set())
