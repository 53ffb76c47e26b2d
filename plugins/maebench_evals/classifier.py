"""The encoder with a head, and which rate and decay each of its parameters gets."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from maebench import EncoderModule, MaebenchError, Model, check_parameter_names

# Official MAE code, main_finetune.py: head trunc_normal(2e-5).
HEAD_STD = 2e-5
EPS = 1e-6  # of fc_norm


class Classifier(nn.Module):
    """The encoder, the mean of its patch tokens before its own norm, a norm and a linear head."""

    encoder: EncoderModule

    def __init__(self, encoder: EncoderModule, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.fc_norm = nn.LayerNorm(encoder.width, EPS)
        self.head = nn.Linear(encoder.width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes); the mean is without the class token, as MAE's global pooling."""
        last = self.encoder(images, None, (self.encoder.depth,)).layers[self.encoder.depth]
        return self.head(self.fc_norm(last.patches.mean(1)))


def make_classifier(encoder: nn.Module, num_classes: int, drop_path: float) -> Classifier:
    """A classifier that drops residual branches of its encoder while it is trained.

    Raises:
        MaebenchError: the blocks do not drop at the rates that are asked for.
    """
    set_drop_path = getattr(encoder, "set_drop_path", None)
    if drop_path and set_drop_path:
        set_drop_path(drop_path)
    check_drop_path(encoder, drop_path)
    return Classifier(cast(EncoderModule, encoder), num_classes)


def check_drop_path(encoder: nn.Module, asked: float) -> None:
    """Whether branches are dropped at rates that rise to the one that is asked for.

    Raises:
        MaebenchError: none are, or at other rates.
    """
    rates = [cast(float, module.drop_prob) for module in drop_paths(encoder)]
    if asked and not rates:
        raise MaebenchError("finetune: this encoder has no drop path; use -o finetune.drop_path=0")
    end = rates[-1] if rates else 0.0
    if rates != sorted(rates) or not math.isclose(end, asked, abs_tol=1e-6):
        found = ", ".join(f"{rate:.3g}" for rate in rates)
        raise MaebenchError(
            f"finetune: drop path is to rise to {asked:g} in the last block, the encoder's "
            f"blocks have {found}"
        )


def drop_paths(module: nn.Module) -> list[nn.Module]:
    """The parts that drop residual branches, whoever wrote them: maebench, timm, transformers."""
    named = [part for part in module.modules() if type(part).__name__.endswith("DropPath")]
    return [part for part in named if part.drop_prob]


def layer_groups(
    classifier: Classifier, layer_decay: float, spared: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """AdamW's groups: one per layer and kind of decay, its rate scaled by layer_decay.

    Args:
        classifier: what `make_classifier` gives.
        layer_decay: the rate of a layer over the next one's.
        spared: parameters of the encoder that are not decayed, where it has them, beside vectors
            and those that it names itself.

    Raises:
        MaebenchError: names that are no parameters, parameters without a layer, or layers that do
            not get the different rates they should.
    """
    encoder = classifier.encoder
    check_parameter_names(encoder)
    plain_names, layers = {*encoder.no_weight_decay(), *spared}, encoder.layer_ids()
    found: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in classifier.named_parameters():
        own = name.removeprefix("encoder.")
        layer = layers[own] if name.startswith("encoder.") else encoder.depth + 1
        plain = parameter.ndim <= 1 or own in plain_names
        group = found.setdefault(
            (layer, plain),
            {
                "params": [],
                "scale": layer_decay ** (encoder.depth + 1 - layer),
                **({"weight_decay": 0.0} if plain else {}),
            },
        )
        group["params"].append(parameter)
    scales = {group["scale"] for group in found.values()}
    wanted = encoder.depth + 2 if layer_decay < 1 else 1
    if len(scales) != wanted:
        raise MaebenchError(
            f"finetune: layer decay gave {len(scales)} learning rates, {wanted} were wanted: "
            "the encoder's layer_ids() leave layers out; or use -o finetune.layer_decay=1"
        )
    return list(found.values())


def predict(classifier: Classifier, model: Model) -> Tensor:
    """The predicted class of each test image, int64 (N,)."""
    if any(part.training for part in classifier.modules()):
        raise MaebenchError("finetune: test images would be judged in training mode")
    with torch.no_grad():
        parts = [
            classifier(model.normalise(part)).argmax(1).cpu()
            for part in model.images("test").whole(256)
        ]
    return torch.cat(parts)
