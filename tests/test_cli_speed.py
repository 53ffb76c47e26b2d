"""`maebench speed`: its tables, its JSON, what it leaves alone, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest
from test_cli import call, refused

from maebench.cli.run import run_command
from maebench.cli.speed import speed_command
from maebench.pretraining import ahead, speed

TINY = ("--limit", "60", "--batch", "16", "--steps", "1", "--device", "cpu")
TINY += ("-o", "encoder.width=16", "-o", "encoder.depth=1", "-o", "encoder.heads=2")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """A few steps, and products so small that they take no time."""
    monkeypatch.setattr(speed, "SIDE", {"cpu": 32})
    monkeypatch.setattr(speed, "WARM_UP", 1)
    monkeypatch.setattr(ahead, "MOST_STEPS", 1)


def test_the_tables_say_how_fast_and_where_the_time_goes():
    ran = call("speed", *TINY, "--ratio", "0.5")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("digits, vit-nano, mae, random 0.5, batch 16; fp32 on cpu (")
    rows = dict(re.findall(r"│ ([^│]+?) +│ ([^│]+?) +│", ran.out))
    for name in ("images/s", "tokens/s", "GFLOP/s"):
        assert re.fullmatch(r"[\d,.]+", rows[name])
    assert re.fullmatch(r"[\d.]+ % of [\d,.]+ GFLOP/s", rows["of the peak"])
    assert re.fullmatch(r"[\d.,]+ ms \[[\d.,]+, [\d.,]+\]", rows["whole step"])
    assert re.fullmatch(r"[\d.]+ %", rows["end-to-end over pure"])
    assert re.fullmatch(r"[\d,]+ MiB", rows["peak memory"])
    assert re.fullmatch(r"[\d.]+ s|not available", rows["start-up"])
    own = ("data (crops)", "masking", "encoder", "decoder, loss", "backward", "optimiser", "log")
    assert [name for name in own if name not in rows] == []


def test_a_schedule_is_told_where_it_is_measured():
    ran = call("speed", *TINY, "--ratio", "0.5", "-o", "schedule.ratio=0.75")
    assert "The ratio is the first of the schedule, 0.5; it goes to 0.75." in ran.out


def test_json_is_one_object_and_nothing_else():
    ran = call("speed", *TINY, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found["config"]["batch"] == 16
    assert {"device", "precision", "processor", "threads", "torch"} <= found["environment"].keys()
    assert found["environment"]["threads"] == 1
    step = found["step_ms"]["median"]
    assert found["images_per_second"] == pytest.approx(16 / step * 1e3)
    assert found["tokens_per_second"] == found["tokens_per_image"] * found["images_per_second"]
    flops = sum(found["flops_per_image"].values()) * found["images_per_second"]
    assert found["gflops_per_second"] == pytest.approx(flops / 1e9)
    assert found["share_of_peak"] == pytest.approx(
        found["gflops_per_second"] / found["peak_gflops_per_second"]
    )


def test_results_are_left_alone_and_a_run_that_is_there_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("MAEBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    assert call("speed", *TINY).code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_and_a_recipe_give_settings(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("masking: {name: block}\nmachine: {precision: bf16}\nbudget: steps=7\n")
    ran = call("speed", *TINY, "--config", file)
    assert ran.out.startswith("digits, vit-nano, mae, block 0.75, batch 16; bf16 on cpu (")
    ran = call("speed", *TINY, "--recipe", "mae-digits", "--override")
    assert ran.code == 0 and "override: " in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "0"], "'--steps': 0 is not in the range"),
        (["--steps", "x"], "'--steps'"),
        (["--encoder", "vit-nona"], "vit-nano"),
        (["--objective", "mea"], "mae"),
        (["--masking", "randon"], "random"),
        (["--ratio", "1"], "--ratio"),
        (["--ratio", "0.99"], "ratio"),
        (["--batch", "0"], "--batch"),
        (["--device", "cuda:99"], "--device cuda:99: not here"),
        (["--device", "nowhere"], "--device nowhere: not here"),
        (["--dataset", "folder:/nowhere"], "/nowhere"),
        (["-o", "machine.precision=fp8"], "precision"),
        (["-o", "encoder.depht=1"], "depth"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_is_one_line(arguments, said):
    assert said in refused("speed", *arguments)


@pytest.mark.parametrize("name", ["--budget", "--lr", "--evals", "--results"])
def test_what_changes_no_speed_is_no_flag(name):
    assert name in refused("speed", name, "1", code=2)


def test_flags_are_those_of_a_run():
    run = {option.opts[0]: option for option in run_command.params}
    own = {option.opts[0]: option for option in speed_command.params}
    assert own.keys() - run.keys() == {"--steps", "--json"}
    assert run.keys() - own.keys() == {"--budget", "--lr", "--evals", "--results"}
    assert all(own[name].help == run[name].help for name in own.keys() & run.keys())
