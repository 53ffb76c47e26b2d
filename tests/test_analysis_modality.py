import math

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from maebench import ConfigError, Draws
from maebench.analysis.modality import CLAIM, RATIOS, Sides, apart
from maebench.cli import cli
from maebench.plugins import installed
from maebench.report import modality as report

SIDES = Sides(
    {"dataset": "pydoc", "encoder": "text-nano"}, {"dataset": "digits", "encoder": "vit-nano"}
)
SHARED = {"budget": "steps=4", "batch": 64, "limit": 400}


def test_both_sides_have_the_same_ratios_seeds_and_as_many_tokens_as_patches():
    designs = SIDES.designs(installed(), RATIOS, 3, SHARED)
    assert set(designs) == {"text", "images"}
    text, images = designs["text"], designs["images"]
    assert text.names == images.names == [f"{ratio:g}" for ratio in RATIOS]
    assert text.baseline == images.baseline == f"{CLAIM:g}" and text.seeds == images.seeds
    one, other = text.arms[0].config, images.arms[0].config
    assert one.dataset.length == (8 // 2) ** 2
    sizes = ("width", "depth", "heads", "mlp_ratio")
    assert [getattr(one.encoder, s) for s in sizes] == [getattr(other.encoder, s) for s in sizes]
    assert (one.objective.name, other.objective.name) == ("bert", "mae")
    assert other.objective.target == "pixels"
    assert [e.name for e in one.evals] == ["linear-probe", "reconstruction"]
    assert one.evals[1].ratio == other.evals[1].ratio == "own"


def test_the_command_tries_the_ratios_that_are_known():
    from maebench.cli.modality import DEFAULT_RATIOS

    assert tuple(map(float, DEFAULT_RATIOS.split(","))) == RATIOS and CLAIM in RATIOS


def test_of_ratios_that_hide_as_many_patches_one_stays():
    assert apart(RATIOS, 49) == {}
    assert apart(RATIOS, 16) == {0.15: 0.1}
    assert apart((0.21, 0.2, 0.75), 16) == {0.21: CLAIM}
    assert apart((0.5, 0.51, 0.52, 0.2), 16) == {0.51: 0.5, 0.52: 0.5}
    with pytest.raises(ConfigError, match="would hide nothing of 16 patches"):
        apart((0.01, 0.2), 16)


def test_without_a_limit_small_data_sets_are_taken_whole():
    designs = SIDES.designs(installed(), (0.2, 0.5), 1, {**SHARED, "limit": None})
    for design in designs.values():
        config = design.arms[0].config
        assert config.limit == len(config.splits().load("train")) < 10_000


def test_a_data_set_of_the_other_kind_and_ratios_without_the_claims_are_refused():
    with pytest.raises(ConfigError, match="^--ratio: the claim speaks of 0.2, which is not among"):
        SIDES.designs(installed(), (0.1, 0.5), 3, SHARED)
    wrong = Sides({"dataset": "pydoc", "encoder": "text-nano"}, SIDES.text)
    with pytest.raises(ConfigError, match="^--images: dataset 'pydoc' yields text$"):
        wrong.designs(installed(), RATIOS, 3, SHARED)


def rows(gains, baselines):
    """Made-up rows of three ratios."""
    return [
        {
            **{"kind": kind, "arm": f"{ratio:g}", "ratio": ratio, "num_seeds": 3},
            **{"baseline": known, "model": 0.5, "model_low": 0.4, "model_high": 0.6},
            **{"probe": 50 + gain, "untrained": 50.0, "control": 60.0, "gain": gain},
            **{"gain_low": gain - 1, "gain_high": gain + 1, "p": p, "p_holm": p},
        }
        for kind in gains
        for ratio, gain, known, p in zip(
            (0.1, 0.2, 0.75), gains[kind], baselines[kind], (0.001, math.nan, 0.001), strict=True
        )
    ]


MADE = pd.DataFrame(
    rows(
        {"text": (8.0, 12.0, 3.0), "images": (2.0, 4.0, 9.0)},
        {"text": (0.3, 0.25, 0.1), "images": (0.8, 0.75, 0.3)},
    )
)


def test_the_answer_says_which_way_the_claim_falls():
    said = list(report.answers(MADE))
    assert said[0] == (
        "text, 20% of the tokens hidden: 25% of what is hidden is known without a model (bigram), "
        "and 50% by the trained model; its probe gains 12.0 [11.0, 13.0] points"
    )
    assert said[1] == (
        "text: the probe gains most at 20%, 12.0 [11.0, 13.0] points; told from 20% over seeds, "
        "better at none, worse at 10%, 75%"
    )
    assert said[3].endswith("told from 20% over seeds, better at 75%, worse at 10%")
    assert said[4].startswith("at 20%, 75% of what a hidden word says is not said by the words")
    assert said[4].endswith("and 25% of what a hidden patch shows not by the pixels around")


def test_table_and_picture_have_both_kinds(tmp_path):
    table = report.table(MADE)
    assert list(table["inputs"]) == ["text"] * 3 + ["images"] * 3
    assert table["gain (points)"][1] == "12.0 [11.0, 13.0]" and table["ratio"][5] == "0.750"
    report.write(MADE, {"text": "kjv", "images": "fashion-mnist"}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("modality.png", "rows.csv", "table.md")
    ]
    assert len(pd.read_csv(tmp_path / "rows.csv")) == 6
    figure = report.picture(MADE, {"text": "kjv", "images": "fashion-mnist"})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["words: kjv", "pictures: fashion-mnist", "", ""]
    for axes in figure.axes:
        assert CLAIM in [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]


@pytest.fixture
def text(tmp_path):
    """Two classes of made-up text, on which a probe takes no time."""
    for name, words in (("a", "one two three four"), ("b", "five six seven eight")):
        lines = [" ".join(f"{w} {100 + n}" for w in words.split() * 4) for n in range(60)]
        (tmp_path / "text" / name).mkdir(parents=True)
        (tmp_path / "text" / name / "all.txt").write_text("\n".join(lines), encoding="utf-8")
    return f"text:{tmp_path / 'text'}"


@pytest.mark.slow
def test_words_and_pictures_are_run_shown_and_not_run_again(text, tmp_path):
    how = ["--text", text, "--images", "digits", "--ratio", "0.2,0.5", "--seeds", "2"]
    how += ["--budget", "steps=4", "--limit", "80", "--workers", "1", "--results", str(tmp_path)]
    ran = CliRunner().invoke(cli, ["modality", *how])
    assert ran.exit_code == 0, (ran.output, ran.exception)
    assert "text: 7 of 7 cells are left" in ran.output
    assert "images: 7 of 7 cells are left" in ran.output
    (folder,) = (tmp_path / "modality").iterdir()
    assert folder.name.startswith("text-digits-") and f"written   {folder}" in ran.output
    found = pd.read_csv(folder / "rows.csv")
    assert list(found["kind"]) == ["text"] * 2 + ["images"] * 2
    assert (found["num_seeds"] == 2).all()
    assert found[["baseline", "model", "probe", "untrained", "gain"]].notna().all(axis=None)
    assert (found["gain"] - (found["probe"] - found["untrained"])).abs().max() < 1e-9
    again = CliRunner().invoke(cli, ["modality", *how])
    assert "text: 0 of 7 cells are left" in again.output and again.exit_code == 0
    how[how.index("steps=4")] = "steps=5"
    other = CliRunner().invoke(cli, ["modality", *how])
    assert other.exit_code == 0 and len(list((tmp_path / "modality").iterdir())) == 2


@pytest.mark.slow
def test_images_without_labels_have_no_probe_and_this_is_said(text, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for number in range(24):
            grey = Draws(number, split, torch.arange(8)).integers(256, 8).to(torch.uint8)
            Image.fromarray(grey.numpy()).save(tmp_path / "images" / split / f"{number}.png")
    how = ["--text", text, "--images", f"folder:{tmp_path / 'images'}", "--ratio", "0.2,0.5"]
    how += ["--seeds", "1", "--budget", "steps=2", "--batch", "8", "--workers", "1"]
    ran = CliRunner().invoke(cli, ["modality", *how, "--results", str(tmp_path / "results")])
    assert ran.exit_code == 0, (ran.output, ran.exception)
    assert "images: without labels there is no probe, and no gain of it" in ran.output
    (folder,) = (tmp_path / "results" / "modality").iterdir()
    found = pd.read_csv(folder / "rows.csv").set_index(["kind", "arm"])
    assert found.loc["images", "gain"].isna().all() and found.loc["text", "gain"].notna().all()
    assert found[["baseline", "model"]].notna().all(axis=None)


def test_wrong_values_are_refused_in_one_line(tmp_path):
    for how, message in (
        (["--text", "digits"], "--text: dataset 'digits' yields images"),
        (["--images", "pydoc"], "--images: dataset 'pydoc' yields text"),
        (["--text", "nowhere"], "nowhere"),
    ):
        ran = CliRunner().invoke(cli, ["modality", "--results", str(tmp_path), *how])
        assert ran.exit_code == 1 and message in str(ran.exception), ran.exception
