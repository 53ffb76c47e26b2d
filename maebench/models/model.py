"""What a model is: anything that can be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maebench.config.run import RunConfig
from maebench.data.dataset import Splits
from maebench.data.preprocess import AsItIs, Preprocess, Preprocessor
from maebench.errors import ConfigError, unknown
from maebench.evaluation import NotApplicable
from maebench.models.weights import Verdict
from maebench.objectives.objective import ImageGrid
from maebench.pretraining import runs
from maebench.pretraining.hardware import at_precision, evaluation_precision
from maebench.rng import Draws

# how a control is spoken of that lacks something
WITHOUT = {"pixels": "raw pixels have", "tf-idf": "TF-IDF has", "raw": "raw values have"}


@dataclass(frozen=True)
class LoadedModel:
    """Anything that can be evaluated.

    Args:
        name: as in tables: the run's name, `untrained:<run>`, `pixels:<dataset>`, `timm:<name>`.
        kind: "run", "untrained", "pixels", "tf-idf", "raw", "file", "timm" or "hf".
        folder: where features, records and pictures of this model go.
        module: the objective around the encoder, in eval mode; None for a control.
        config: the run's settings; of other kinds, what the data set's preset gives.
        splits: the data it was made on, or is tested on where it comes from elsewhere.
        preprocess: what images go through before the encoder.
        weights: a hash of the encoder's weights; of a control's settings.
        device: where it lies.
        run: the run it belongs to, or None.
        verdict: how weights from elsewhere fit; None for maebench's own.
        no_decoder: why it cannot reconstruct, where its weights say so.
        raw: of a control, what makes features of its inputs; None: they are all their numbers.
    """

    name: str
    kind: str
    folder: Path
    module: Any
    config: RunConfig
    splits: Splits
    preprocess: Preprocess | AsItIs
    weights: str
    device: str
    run: runs.Run | None = None
    verdict: Verdict | None = None
    no_decoder: str = ""
    raw: Callable[[Tensor], Tensor] | None = None

    @property
    def encoder(self) -> Any:
        """The encoder, or None for a control."""
        return None if self.module is None else self.module.encoder

    @property
    def normalise(self) -> Preprocessor:
        """Pixels in 0..255 to the encoder's input, as it was trained."""
        return self.preprocess.on(self.device)

    @property
    def precision(self) -> str:
        """What its features are computed in: "fp32", "tf32" or "bf16"."""
        if self.encoder is None:
            return "fp32"
        return evaluation_precision(self.config.machine.evaluation, self.device)

    def pools(self) -> tuple[str, ...]:
        """Which poolings there are, the one to prefer first."""
        if self.encoder is None:
            return ("flat",)
        return ("mean", "cls") if has_class_token(self.encoder) else ("mean",)

    @torch.no_grad()
    def encode(self, images: Tensor, layer: int | None = None, pool: str = "mean") -> Tensor:
        """Features of images, every patch seen, float32 (B, D) on the CPU.

        Args:
            images: uint8 or float pixels in 0..255, (B, C, H, W) as the encoder was built for.
            layer: block number from 1; None is after the last norm.
            pool: "mean" of the patch tokens, "cls", or "flat" for pixels.

        Raises:
            ConfigError: images of another size, or a layer or pooling this model has not.
        """
        found = self.encode_all(images, () if layer is None else (layer,))
        pool = pool_of(self, pool)
        if (layer, pool) not in found:  # its class token joins in later
            raise ConfigError(f"layer {layer} of {self.name} has no {pool}")
        return found[layer, pool]

    @torch.no_grad()
    def encode_all(
        self, images: Tensor, layers: Sequence[int] = ()
    ) -> dict[tuple[int | None, str], Tensor]:
        """Features of every pooling, after the last norm and after each asked-for block."""
        self.check_images(images)
        pixels = self.normalise(images)
        if self.encoder is None:
            flat = pixels.flatten(1) if self.raw is None else self.raw(pixels)
            return {(None, "flat"): flat.float().cpu()}
        wrong = [layer for layer in layers if not 1 <= layer <= self.encoder.depth]
        if wrong:
            raise ConfigError(f"layer {wrong[0]}: {self.name} has blocks 1 to {self.encoder.depth}")
        with at_precision(self.device, self.precision):
            tokens = self.encoder(pixels, None, tuple(layers))
        found = {}
        for layer, level in ((None, tokens), *tokens.layers.items()):
            found[layer, "mean"] = level.patches.float().mean(1)
            if has_class_token(self.encoder) and level.prefix.shape[1]:
                found[layer, "cls"] = level.prefix[:, 0].float()
        # weights fine-tuned on pooled tokens have their last norm after pooling
        for pool, norm in getattr(self.encoder, "pooled_norms", {}).items():
            found[None, pool] = norm(found[None, pool])
        if torch.device(self.device).type == "cpu":
            return {which: features.float() for which, features in found.items()}
        # one copy: a GPU is waited for once a batch
        together = torch.cat([features.float() for features in found.values()], 1).cpu()
        parts = together.split([features.shape[1] for features in found.values()], 1)
        return {which: part.contiguous() for which, part in zip(found, parts, strict=True)}

    @torch.no_grad()
    def patches(self, images: Tensor, layer: int | None = None) -> Tensor:
        """Patch tokens of images, float32 (B, N, D) on the CPU; `layer` as in `encode`."""
        self.check_images(images)
        with at_precision(self.device, self.precision):
            tokens = self.encoder(self.normalise(images), None, () if layer is None else (layer,))
        level = tokens if layer is None else tokens.layers[layer]
        return level.patches.float().cpu()

    def check_images(self, images: Tensor) -> None:
        """Refuses images of another size or channel count.

        Raises:
            ConfigError: names both.
        """
        self.preprocess.check(self.name, tuple(images.shape[1:]))

    def decoder(self) -> Any:
        """The whole module, where it can reconstruct.

        Raises:
            NotApplicable: there is no decoder.
        """
        if self.module is None:
            raise NotApplicable(f"{WITHOUT[self.kind]} no decoder")
        if self.no_decoder:
            raise NotApplicable(self.no_decoder)
        if not hasattr(self.module, "reconstruct"):
            objective = self.config.objective
            why = f": {objective.no_decoder}" if objective.no_decoder else ""
            raise NotApplicable(f"objective {objective.name!r} does not reconstruct{why}")
        return self.module

    @torch.no_grad()
    def pictures(self, images: Tensor, draws: Draws) -> Mapping[str, ImageGrid]:
        """The objective's own pictures by name (see Objective); empty where it has none."""
        if not hasattr(self.module, "pictures"):
            return {}
        made: Mapping[str, ImageGrid] = self.module.pictures(images, draws)
        return made


def has_class_token(encoder: Any) -> bool:
    """Whether the first prefix token is one; registers alone are none."""
    return bool(getattr(encoder, "class_token", encoder.prefix))


def pool_of(model: LoadedModel, pool: str) -> str:
    """The pooling to use: what is asked for, or "flat" where there are no tokens.

    Raises:
        ConfigError: the model has no such pooling.
    """
    if model.encoder is None:
        return "flat"
    if pool not in model.pools():
        raise ConfigError(unknown("pooling", pool, model.pools(), model.name))
    return pool
