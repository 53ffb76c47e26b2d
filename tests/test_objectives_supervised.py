"""Learning from labels: the loss by hand, and what is refused without labels."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from maebench import Batch, ConfigError, Draws, Inputs
from maebench.encoders import ViTNano
from maebench.evaluating import records, suite
from maebench.objectives import Supervised
from maebench.pretraining.plan import prepare
from maebench.rng import isolated
from maebench.testing import ObjectiveContract
from maebench_evals.reconstruction import ReconstructionQuality

B, CLASSES = 6, 4


class TestSupervised(ObjectiveContract):
    component = Supervised


def module_of(**options):
    with isolated(0, "test"):
        encoder = ViTNano(width=32, depth=2, heads=4, patch=4).build(Inputs.of_images(3, (8, 8)))
        return Supervised(**options).build(encoder, Inputs.of_images(3, (8, 8), CLASSES)).eval()


def batch_of(labels=True):
    images = torch.randn(B, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(B)
    return Batch(images, ids, Draws(0, "objective", ids), labels=ids % CLASSES if labels else None)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@torch.no_grad()
def test_the_loss_is_the_cross_entropy_to_smoothed_labels(smoothing):
    module, batch = module_of(smoothing=smoothing), batch_of()
    logits = module.head(module.encoder(batch.images).patches.mean(1))
    by_hand = 0.0
    for row, label in zip(logits.log_softmax(1).tolist(), batch.labels.tolist(), strict=True):
        target = [smoothing / CLASSES + (1 - smoothing) * (c == label) for c in range(CLASSES)]
        by_hand -= sum(t * p for t, p in zip(target, row, strict=True)) / B
    found = module(batch)
    assert found["loss"].item() == pytest.approx(by_hand, rel=1e-5)
    right = (logits.argmax(1) == batch.labels).sum().item()
    assert found["accuracy"].item() == pytest.approx(right / B)


def test_labels_are_smoothed_as_in_the_papers_recipe_unless_told_otherwise():
    assert Supervised().smoothing == 0.1


def test_every_parameter_of_encoder_and_head_is_trained():
    module = module_of()
    module(batch_of())["loss"].backward()
    left = {n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()}
    assert left == {"encoder.pos_embed"}


def test_a_batch_without_labels_is_refused():
    with pytest.raises(ConfigError, match="'supervised' needs labels"):
        module_of()(batch_of(labels=False))


def test_images_without_labels_are_refused_before_a_run_begins(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for number in range(8):
            noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "flat" / split / f"{number}.png")
    config = tiny.config(
        dataset=f"folder:{tmp_path / 'flat'}", image_size=16, objective="supervised", limit=None
    )
    with pytest.raises(ConfigError) as caught:
        prepare(config, tmp_path / "results")
    told = "objective 'supervised' needs labels, dataset 'folder' has none"
    assert str(caught.value) == told
    assert list((tmp_path / "results").glob("runs/*")) == []


def test_its_reconstruction_is_not_applicable_with_the_reason(tmp_path):
    tiny.plan(tmp_path, objective="supervised")
    model = tiny.load(tmp_path)
    rows = records.read(suite.evaluate(model, ReconstructionQuality()))
    told = "objective 'supervised' does not reconstruct: it learns classes, not pixels"
    assert {(row["status"], row["reason"]) for row in rows} == {("not applicable", told)}
    assert not list(tmp_path.rglob("*.png"))
