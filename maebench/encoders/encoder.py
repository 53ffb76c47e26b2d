"""What an encoder is: images or others, and which patches are seen, to tokens.

B images, L = h * w patches, N patch tokens, P prefix tokens, D width. Of text an image is a window
of tokens, and each token a patch of a grid of 1 x L.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from maebench.component import Component
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.errors import ConfigError, MaebenchError
from maebench.masking.mask import Mask, hide


@dataclass(frozen=True)
class Tokens:
    """What an encoder gives for a batch; fields are only ever added.

    Args:
        prefix: class and register tokens, float (B, P, D); P may be 0.
        patches: patch tokens, float (B, N, D), in raster order of `grid` or of `seen`.
        grid: the grid that the patch tokens lie on; a hierarchical encoder ends coarser than the
            grid it is masked on.
        seen: int64 (B, N), where each token lies on the grid; None where all N = h * w are there.
        layers: the tokens after each block that was asked for, before the final norm.
    """

    prefix: Tensor
    patches: Tensor
    grid: tuple[int, int]
    seen: Tensor | None = None
    layers: Mapping[int, Tokens] = field(default_factory=dict)

    def on_grid(self, fill: Tensor) -> Tensor:
        """The patch tokens at their places and `fill` (broadcast to (B, L, D)) at all others."""
        if self.seen is None:
            return self.patches
        B, _, D = self.patches.shape
        length = self.grid[0] * self.grid[1]
        index_BND = self.seen[:, :, None].expand(-1, -1, D)
        full_BLD = fill.to(self.patches.dtype).expand(B, length, D)
        return full_BLD.scatter(1, index_BND, self.patches)


class EncoderModule(Protocol):
    """What `Encoder.build` returns: an `nn.Module` with these attributes and methods.

    `attention` is wanted only by strategies that need it, `set_drop_path` only by fine-tuning, and
    `keep_positions()` only by objectives that read hidden patches off the encoder's own tokens:
    from now on hidden patches are replaced by a learned token instead of dropped, so that
    `Tokens.seen` is None under a mask too. Without a mask it changes nothing.
    """

    grid: tuple[int, int]  # the grid that masks are drawn on
    out_grid: tuple[int, int]  # the grid that patch tokens end on; coarser if hierarchical
    inputs: Inputs  # what it was built for
    patch: tuple[int, int]  # pixels of a patch; 1 x 1 of text
    width: int
    prefix: int  # number of class and register tokens
    depth: int

    def __call__(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Tokens of the seen patches; `mask=None` sees everything and is the evaluation path."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """What is trained, as every `nn.Module` has it."""

    def layer_ids(self) -> dict[str, int]:
        """Each parameter's layer: 0 is the embedding, i + 1 is block i, depth + 1 is the rest."""

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone."""


class Encoder(Component):
    """Turns images into tokens, encoding only the patches that are seen.

    A module that drops hidden patches may have a method `keep_positions()`: from then on it
    replaces them by a learned token before anything mixes patches. One that cannot drop patches
    does so always and has no such method.

    `oblong` is False where images must be square; `takes` names the kinds of inputs that it can
    be built for. `leaky` is True of a control alone: hidden patches are grey, which it cannot tell
    from grey ones that are seen, and what lies around spills into them.
    """

    kind: ClassVar[str] = "encoder"
    oblong: ClassVar[bool] = True
    leaky: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = (IMAGES,)

    def build(self, inputs: Inputs) -> EncoderModule:
        """A fresh module for these inputs, such as images of `inputs.image_size`.

        It is called inside `rng.isolated`, so layers may initialise themselves.

        Raises:
            ConfigError: the size is not divided by the patch (or the total stride).
        """
        raise NotImplementedError(f"{type(self).__name__} has no build(inputs)")


def check_parameter_names(module: Any) -> None:
    """Whether `layer_ids` names every parameter, and neither it nor `no_weight_decay` others.

    A name with a slip would be decayed, or learn at another rate, without a word.

    Raises:
        MaebenchError: names the first that is wrong.
    """
    names = {name for name, _ in module.named_parameters()}
    spared, layers = set(module.no_weight_decay()), set(module.layer_ids())
    for method, wrong in (("no_weight_decay", spared - names), ("layer_ids", layers - names)):
        if wrong:
            raise MaebenchError(
                f"the encoder's {method}() names {min(wrong)!r}, which is no parameter of it"
            )
    if left := names - layers:
        raise MaebenchError(
            f"the encoder's layer_ids() leaves out the parameter {min(left)!r}: every one has a "
            "layer"
        )


def keep_positions(encoder: Any, objective: str) -> None:
    """Tells an encoder to put a learned token in place of hidden patches, and sees that it does.

    An objective calls it in `build` that reads hidden patches off the encoder's own tokens. One
    image of zeros with half of its patches hidden is encoded in evaluation mode; mode and buffers
    are left as they were.

    Args:
        encoder: the module, see `EncoderModule`; one without `keep_positions()` must do so anyhow.
        objective: its name, for the message.

    Raises:
        ConfigError: the encoder drops hidden patches.
    """
    if hasattr(encoder, "keep_positions"):
        encoder.keep_positions()
    h, w = encoder.grid
    device = next(encoder.parameters()).device
    mask = hide(torch.arange(float(h * w), device=device)[None], h * w // 2, (h, w))
    image = encoder.inputs.zeros(1, device)
    training, before = encoder.training, [x.clone() for x in encoder.buffers()]
    with torch.no_grad():
        dropped = encoder.eval()(image, mask).seen is not None
        for buffer, value in zip(encoder.buffers(), before, strict=True):
            buffer.copy_(value)
    encoder.train(training)
    if dropped:
        raise ConfigError(
            f"objective {objective!r} needs an encoder that gives hidden patches a token each: "
            f"this one ({type(encoder).__name__}) drops them and has no keep_positions()"
        )
