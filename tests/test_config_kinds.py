"""What a data set yields, and whether what is chosen beside it takes that."""

import pytest

from maebench import ConfigError, RunConfig
from maebench.pretraining.plan import prepare

ONE_LINE = {
    "an encoder of images": (
        {"encoder": "vit-nano"},
        "encoder 'vit-nano' takes images, and dataset 'pydoc' yields text; what takes text: "
        "text-nano, text-micro, text-tiny, text-small, text-base",
    ),
    "an objective of images": (
        {"objective": "simmim"},
        "objective 'simmim' takes images, and dataset 'pydoc' yields text; what takes text: "
        "mae, supervised, bert",
    ),
    "an image size": (
        {"image_size": 8},
        "image_size: dataset 'pydoc' yields text; image_size and augment are read with images "
        "alone",
    ),
    "crops": (
        {"augment": {"flip": True}},
        "augment: dataset 'pydoc' yields text; image_size and augment are read with images alone",
    ),
}


@pytest.mark.parametrize("what", ONE_LINE)
def test_beside_text_is_refused(what):
    settings, message = ONE_LINE[what]
    with pytest.raises(ConfigError) as told:
        RunConfig(dataset="pydoc", **settings)
    assert str(told.value) == message


@pytest.mark.parametrize("settings", [{"encoder": "text-nano"}, {"objective": "bert"}])
def test_what_takes_text_alone_is_refused_beside_images(settings):
    with pytest.raises(ConfigError, match="takes text, and dataset 'digits' yields images; what"):
        RunConfig(dataset="digits", **settings)


PLANES = ("uniform", "units", "centred", "border", "multi-block", "parts")
LINES = (
    *("random", "block", "inverse-block", "grid", "attention", "hard"),
    *("red-noise", "green-noise", "blue-noise", "purple-noise"),
)
SMALL = {
    "dataset": {"name": "pydoc", "length": 16, "vocabulary": 600},
    "encoder": {"name": "text-nano", "width": 16, "depth": 1, "heads": 2},
    "limit": 100,
}


@pytest.mark.parametrize("masking", PLANES)
def test_a_masking_that_needs_a_plane_is_refused_on_a_line(masking, tmp_path):
    with pytest.raises(ConfigError) as told:
        prepare(RunConfig(**SMALL, masking=masking, ratio=0.5), tmp_path)
    assert str(told.value) == (
        f"masking {masking!r} needs rows and columns of patches, and dataset 'pydoc' yields text "
        "on a line of 16: take one such as random, block, inverse-block, grid or red-noise"
    )
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.slow
@pytest.mark.parametrize("masking", LINES)
@pytest.mark.parametrize("objective", ["bert", "mae"])
def test_a_masking_that_makes_sense_on_a_line_trains(masking, objective, tmp_path):
    from maebench.pretraining.loop import pretrain

    config = RunConfig(
        **SMALL, masking=masking, objective=objective, ratio=0.5, budget="steps=2", batch=16
    )
    plan = prepare(config, tmp_path)
    assert plan.run.facts["num_hidden"] == [8] and plan.run.facts["grid"] == [1, 16]
    assert all(step.loss > 0 for step in pretrain(plan))


def test_spans_are_hidden_in_one_piece_and_seen_in_one_piece():
    import torch

    from maebench import Block, Draws, InverseBlock
    from maebench.masking.mask import draw

    ids = torch.arange(200)
    for masking, most in ((Block(), 10), (InverseBlock(), 3)):
        mask = draw(masking, 0.5, (1, 32), (1, 1), ids=ids, draws=Draws(0, "test", ids))
        changes = (mask.hidden[:, 1:] != mask.hidden[:, :-1]).sum(1).float().mean().item()
        assert changes < most  # of random masking 15.5
        assert (mask.hidden.sum(1) == 16).all()


def test_a_text_run_keeps_neither_size_nor_crops_and_comes_back_from_what_it_kept(tmp_path):
    config = RunConfig(dataset="pydoc")
    assert config.image_size is None and config.objective.name == "bert" and config.ratio == 0.15
    kept = config.dump()
    assert not {"image_size", "augment"} & kept.keys()
    assert RunConfig(**kept) == config
    assert not {"image_size", "augment"} & config.identity("mark", "fp32").keys()


def test_what_is_given_wins_over_what_suits_text():
    config = RunConfig(dataset="pydoc", objective="mae", ratio=0.5)
    assert (config.objective.name, config.ratio, config.lr) == ("mae", 0.5, 3.2e-2)
    assert RunConfig(dataset="pydoc", objective={"masked": 1.0, "random": 0}).objective.masked == 1
