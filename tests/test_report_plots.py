"""Pictures of a run are files that can be read."""

from __future__ import annotations

import tiny
from PIL import Image

from maebench.report import plots


def test_the_loss_curve_is_a_picture_that_can_be_read(tmp_path):
    plan = tiny.plan(tmp_path)
    plots.loss_curve(plan.run, tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        picture.load()
        assert (picture.format, picture.width > 400) == ("PNG", True)
        assert len(picture.convert("L").getcolors()) > 10


def test_a_run_of_one_step_has_a_loss_curve_too(tmp_path):
    plan = tiny.plan(tmp_path, budget="steps=1")
    plots.loss_curve(plan.run, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 1000
