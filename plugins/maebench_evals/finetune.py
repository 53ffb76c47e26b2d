"""Fine-tuning: how good does the whole encoder get with labels?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from maebench import Evaluation, MaebenchError, Metric, Model, Result

if TYPE_CHECKING:
    from torch import Tensor, nn

# Official MAE code, main_finetune.py: head trunc_normal(2e-5), AdamW's default betas.
HEAD_STD = 2e-5
EPS = 1e-6  # of fc_norm
LR_BATCH = 256  # lr = base * batch / 256
MAE_LR, MAE_WIDTH = 5e-4, 768  # table 9 for ViT-B; narrower encoders take 1 / width (measured)
MAE_MIXUP, MAE_CUTMIX = 0.8, 1.0  # table 9, for 50 epochs and more
# Below, mixing underfits: digits, 20 epochs, pretrained / untrained: 96.7 / 48.3 with it and
# 98.1 / 78.1 without. A floor must not be lowered by the protocol.
MIX_EPOCHS = 50
IMAGES = 300_000  # to see where the number of epochs is left open, within EPOCHS
EPOCHS = (5, 20)


class Finetune(Evaluation):
    """Top-1 after training the whole encoder with labels, in the manner of the masked autoencoder.

    Mean of the patch tokens after the last block, a norm and a linear head; AdamW with a learning
    rate that decays layer by layer, drop path, mixup, cutmix and label smoothing from timm. The
    data set's crops and flips; no RandAugment. Source: arXiv 2111.06377, table 9.
    """

    name: ClassVar[str] = "finetune"
    changes_encoder: ClassVar[bool] = True
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric("share of test images given their class", "%", True, 0, 1, True, True),
        "train_loss": Metric("mean loss of the last tenth of the steps", "", False, 0, None, False),
    }

    epochs: PositiveInt | None = Field(
        None,
        description="passes over train; none: 300,000 images, at least 5 and at most 20 passes",
    )
    batch: PositiveInt = Field(64, multiple_of=2, description="images per update, even for mixup")
    lr: PositiveFloat | None = Field(
        None,
        description="learning rate per 256 images; none: 5e-4 from width 768 up, else 1 / width",
    )
    weight_decay: float = Field(0.05, ge=0, description="AdamW's decay")
    layer_decay: float = Field(
        0.75, gt=0, le=1, description="learning rate of a layer over the next's"
    )
    drop_path: float = Field(
        0.1, ge=0, lt=1, description="rate of dropped branches in the last block"
    )
    mixup: float | None = Field(
        None, ge=0, description="mixup's alpha, 0 for off; none: 0.8 from 50 epochs up, else off"
    )
    cutmix: float | None = Field(
        None, ge=0, description="cutmix's alpha, 0 for off; none: 1 from 50 epochs up, else off"
    )
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps with a rising rate")

    def run(self, model: Model) -> Iterator[Result]:
        """Yields top-1 on test and the loss that training ended with."""
        encoder = model.encoder()
        labels, right = model.labels("train"), model.labels("test")
        import torch

        num_classes = len(model.class_names())
        classifier = make_classifier(encoder, num_classes, self.drop_path).to(model.device)
        groups = self.groups(classifier)
        adam = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        low, high = EPOCHS
        epochs = self.epochs or min(high, max(low, round(IMAGES / len(labels))))
        mix = self._mix(num_classes, epochs)
        lr = self.lr or (MAE_LR if encoder.width >= MAE_WIDTH else 1 / encoder.width)
        steps = math.ceil(epochs * len(labels) / self.batch)
        losses = []
        crops = model.crops("train", self.batch, steps)
        classifier.train()
        for number, crop in enumerate(model.progress(crops, steps, f"finetune of {model.kind}")):
            for group in adam.param_groups:
                group["lr"] = group["scale"] * self.rate(number, steps, lr)
            images, targets = mix(model.normalise(crop.images), labels[crop.index].to(model.device))
            logits = classifier(images)
            loss = -(targets * logits.log_softmax(1)).sum(1).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise MaebenchError(f"finetune: the loss is {losses[-1]}; try a smaller -o lr")
        given = predict(classifier.eval(), model)
        last = losses[-max(1, len(losses) // 10) :]
        yield Result("train_loss", sum(last) / len(last))
        yield Result("top1", (given == right).double())

    def rate(self, step: int, steps: int, lr: float) -> float:
        """The learning rate of an update: warm-up, then half a cosine to zero."""
        peak = lr * self.batch / LR_BATCH
        warmup = round(self.warmup * steps)
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def groups(self, classifier: Any) -> list[dict[str, Any]]:
        """AdamW's groups: one per layer and kind of decay, its rate scaled by layer_decay.

        Raises:
            MaebenchError: the layers do not get the different rates they should.
        """
        encoder = classifier.encoder
        spared, layers = encoder.no_weight_decay(), encoder.layer_ids()
        found: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in classifier.named_parameters():
            own = name.removeprefix("encoder.")
            layer = layers[own] if name.startswith("encoder.") else encoder.depth + 1
            plain = parameter.ndim <= 1 or own in spared
            group = found.setdefault(
                (layer, plain),
                {
                    "params": [],
                    "scale": self.layer_decay ** (encoder.depth + 1 - layer),
                    **({"weight_decay": 0.0} if plain else {}),
                },
            )
            group["params"].append(parameter)
        scales = {group["scale"] for group in found.values()}
        wanted = encoder.depth + 2 if self.layer_decay < 1 else 1
        if len(scales) != wanted:
            raise MaebenchError(
                f"finetune: layer decay gave {len(scales)} learning rates, {wanted} were wanted: "
                "the encoder's layer_ids() leave layers out"
            )
        return list(found.values())

    def _mix(self, num_classes: int, epochs: int) -> Any:
        """Images and labels to mixed images and soft targets."""
        from timm.data.mixup import Mixup, mixup_target

        long = epochs >= MIX_EPOCHS
        mixup = MAE_MIXUP * long if self.mixup is None else self.mixup
        cutmix = MAE_CUTMIX * long if self.cutmix is None else self.cutmix
        if mixup or cutmix:
            return Mixup(mixup, cutmix, label_smoothing=self.smoothing, num_classes=num_classes)
        return lambda images, labels: (
            images,
            mixup_target(labels, num_classes, 1.0, self.smoothing),
        )


def make_classifier(encoder: Any, num_classes: int, drop_path: float) -> nn.Module:
    """The encoder, the mean of its patch tokens before its own norm, a norm and a linear head.

    Raises:
        MaebenchError: drop path is asked for and no block drops anything.
    """
    import torch
    from timm.layers import DropPath
    from torch import nn

    if drop_path and hasattr(encoder, "set_drop_path"):
        encoder.set_drop_path(drop_path)
    acting = [m for m in encoder.modules() if isinstance(m, DropPath) and m.drop_prob > 0]
    if drop_path and not acting:
        raise MaebenchError("finetune: this encoder has no drop path; use -o drop_path=0")

    class Classifier(nn.Module):
        """Logits from images, (B, classes)."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.fc_norm = nn.LayerNorm(encoder.width, EPS)
            self.head = nn.Linear(encoder.width, num_classes)
            nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
            nn.init.zeros_(self.head.bias)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """The mean leaves the class token out, as MAE's global pooling does."""
            last = self.encoder(images, None, (encoder.depth,)).layers[encoder.depth]
            return self.head(self.fc_norm(last.patches.mean(1)))

    return Classifier()


def predict(classifier: nn.Module, model: Model) -> Tensor:
    """The class given to each test image, int64 (N,)."""
    import torch

    with torch.no_grad():
        parts = [
            classifier(model.normalise(part)).argmax(1).cpu()
            for part in model.images("test").whole(256)
        ]
    return torch.cat(parts)
