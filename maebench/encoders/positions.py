"""Does an encoder give a token for every patch, the hidden ones too?"""

from __future__ import annotations

from typing import Any

from maebench.errors import ConfigError


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
    import torch

    from maebench.masking.mask import hide

    if hasattr(encoder, "keep_positions"):
        encoder.keep_positions()
    (h, w), (p, q) = encoder.grid, encoder.patch
    device = next(encoder.parameters()).device
    mask = hide(torch.arange(float(h * w), device=device)[None], h * w // 2, (h, w))
    image = torch.zeros(1, encoder.channels, h * p, w * q, device=device)
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
