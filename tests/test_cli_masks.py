"""`maebench masks`: a picture, a table, and what is refused."""

from __future__ import annotations

import pandas as pd
import pytest
import tiny
import torch
from matplotlib.image import imread

import maebench
from maebench import Block, RunConfig
from maebench.cli import main
from maebench.masking import BUILT_IN, GreenNoise, Hard
from maebench.report.masks import HIDDEN, MaskSampler, _masked, gallery


def masks(capsys, tmp_path, *arguments):
    """Exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as end:
        main(["masks", "--results", str(tmp_path), "--device", "cpu", *arguments])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def table_of(folder):
    (file,) = folder.glob("masks/*.csv")
    return pd.read_csv(file, keep_default_na=False)


@pytest.mark.slow
def test_every_installed_strategy_is_shown_at_every_ratio(capsys, tmp_path):
    code, out, err = masks(capsys, tmp_path, "--ratio", "0.5,0.75", "--limit", "60")
    assert (code, err.strip()) == (0, "")
    found = table_of(tmp_path)
    assert {cls.name for cls in BUILT_IN} <= set(found["masking"])
    assert len(found) == 2 * found["masking"].nunique()
    there = found[found["reason"] == ""]
    assert (there["realised_ratio"].astype(float) == there["ratio"]).all()
    refused = found[found["reason"] != ""]
    assert set(refused["masking"]) == {"label-map"}
    assert "label-map 0.75: not there: masking 'label-map' needs a file: give label-map:PATH" in out
    for name in there["masking"]:
        assert f" {name} " in out
    (picture,) = tmp_path.glob("masks/*.png")
    assert str(picture) in out
    pixels = imread(picture)
    assert min(pixels.shape[:2]) > 300
    gray = (abs(pixels[..., :3] - HIDDEN.numpy()).max(2) < 0.01).mean()
    assert 0.2 < gray < 0.8  # hidden patches are there to be seen


def test_options_reach_the_strategies_that_have_them(capsys, tmp_path):
    code, out, _ = masks(
        capsys,
        tmp_path,
        *("--masking", "block,random", "--ratio", "0.5", "-o", "masking.aspect=1"),
        *("-o", "encoder.patch=1", "--limit", "60"),
    )
    assert code == 0
    found = table_of(tmp_path)
    assert list(found["masking"]) == ["block(aspect=1.0)", "random"]
    assert set(found["grid"]) == {"8x8"}
    assert "8x8" in out


@pytest.mark.slow
def test_learned_strategies_ask_the_model_that_is_named(capsys, tmp_path):
    plan = tiny.plan(tmp_path, masking=Hard())
    arguments = ["--masking", "attention", "--ratio", "0.5", "--model", plan.run.name]
    code, _, err = masks(capsys, tmp_path, *arguments)
    assert code == 0, err
    first = table_of(tmp_path).iloc[0]
    untrained = maebench.mask_statistics(["attention"], [0.5], plan.config)
    model = tiny.load(tmp_path).module
    asked = maebench.mask_statistics(["attention"], [0.5], plan.config, model)
    assert float(first["rate_max"]) == pytest.approx(asked["rate_max"][0])
    assert asked["distance"][0] != untrained["distance"][0]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--masking", "blok"], 1, "unknown masking 'blok'. Did you mean 'block'?"),
        (
            ["--masking", "random", "-o", "masking.aspekt=1"],
            1,
            "unknown option 'aspekt' in the chosen",
        ),
        (
            ["--masking", "random,block", "-o", "masking.aspect=7"],
            1,
            "masking.aspect: Input should be",
        ),
        (["--masking", ","], 1, "'--masking': ',': write some, such as random,block"),
        (["--ratio", "0.5,x"], 1, "'--ratio': 'x' is not a valid float range"),
        (["--ratio", "1"], 1, "'--ratio': 1.0 is not in the range 0<x<1"),
        (["--progress", "1.5"], 1, "'--progress': 1.5 is not in the range 0<=x<=1"),
        (["--progress", "nan"], 1, "'--progress': 'nan' is not in the range 0<=x<=1"),
        (["--image", "-1"], 1, "'--image': -1 is not in the range x>=0"),
        (
            ["--image", "100000", "--masking", "random"],
            1,
            "--image 100000: train has images 0 to 1436",
        ),
        (["--dataset", "digitz"], 1, "unknown dataset 'digitz'. Did you mean 'digits'?"),
        (["--model", "nothing"], 1, "unknown run 'nothing'"),
        (["--model", "", "--seed", "1"], 1, "--model brings its own settings: leave out --seed"),
        (["--model", "pixels:digits"], 1, "pixels:digits has no encoder to ask"),
        (["-o", "masking=block"], 1, "strategies are chosen by --masking"),
        (["-o", "ratio=0.3"], 1, "-o ratio=...: ratios are chosen by --ratio"),
        (["-o", "schedule.ratio=0.9"], 1, "-o schedule: it changes no mask here"),
        (["-o", "budget=epochs=3"], 1, "-o budget: it changes no mask here"),
        (["--dataset", ""], 1, "unknown dataset ''"),
        (
            ["-o", "masking.file=x.npy"],
            1,
            "unknown option 'file' in the chosen maskings. Did you mean 'size'?",
        ),
        (["--model", "", "-o", "augment.flip=true"], 1, "leave out -o augment"),
        (["--out", "/dev/null/x"], 1, "Choose another one with --out"),
        (["--maskings", "random"], 2, "No such option"),
        (["--masking", "label-map:/no/such.npy"], 1, "not there"),
    ],
)
def test_a_mistake_gets_one_line(capsys, tmp_path, arguments, code, said):
    got, out, err = masks(capsys, tmp_path, *arguments)
    assert got == code
    assert said in (out if said == "not there" else err)
    if said != "not there":
        assert len(err.strip().splitlines()) == 1
        assert not list(tmp_path.glob("masks/*"))


def test_the_dataframe_has_a_reason_where_a_strategy_refuses():
    config = RunConfig(limit=60, device="cpu")
    found = maebench.mask_statistics([Block(aspect=0.5), "units"], [0.75, 0.9], config)
    assert list(found["masking"]) == ["block(aspect=0.5)"] * 2 + ["units"] * 2
    assert found["reason"][:3].tolist() == [""] * 3
    assert "would hide everything of 2x2" in found["reason"][3]
    assert pd.isna(found["distance"][3])


def test_the_picture_shows_the_real_image_where_it_is_seen():
    sampler = MaskSampler(RunConfig(limit=60, device="cpu"))
    shown = _masked(sampler, GreenNoise(), 0.75, 7, 1.0)
    image = sampler.images.pick([7])[0, 0] / 255
    hidden = (shown == HIDDEN).all(2)
    assert int(hidden.sum()) == 48
    torch.testing.assert_close(shown[..., 0][~hidden], image[~hidden], atol=1e-3, rtol=0)


def test_a_gallery_of_one_strategy_that_refuses_still_says_why(tmp_path):
    sampler = MaskSampler(RunConfig(limit=60, device="cpu"))
    gallery(sampler, sampler.maskings(["units"]), [0.9], tmp_path / "a.png")
    assert imread(tmp_path / "a.png").std() > 0.01  # a text, not a blank page
