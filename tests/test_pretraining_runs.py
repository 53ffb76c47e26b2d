"""A run's folder: its name, what it holds, and finding it again."""

from __future__ import annotations

import json
import re
from datetime import datetime

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maebench import files
from maebench.config.run import RunConfig
from maebench.errors import ConfigError, RunError
from maebench.files import SAFE_NAME
from maebench.plugins import installed
from maebench.pretraining import runs
from maebench.pretraining.hardware import environment
from maebench.pretraining.plan import config_of, prepare

FACTS = {
    **{"steps": 3, "grid": [4, 4], "channels": 1, "num_classes": 10, "realised_ratio": 0.75},
    **{"mean": [0.5], "std": [0.2]},
}


@pytest.fixture(scope="module")
def names():
    return installed()


@pytest.fixture
def start(tmp_path, names):
    """Opens the run of some settings."""

    def make(**settings):
        config = RunConfig(names, **settings)
        identity = config.identity("f", "fp32")
        if run := runs.existing(tmp_path, config, identity):
            return run
        run = runs.new_run(tmp_path, config, identity, FACTS)
        assert not run.folder.exists(), "nothing is written yet"
        runs.write_run(run, environment(), {})
        return run

    return make


def test_a_new_run_has_its_folder_config_and_environment(start, tmp_path, names):
    run = start(masking="block", ratio=0.6, seed=3)
    assert run.folder.parent == tmp_path / "runs"
    assert re.fullmatch(r"digits-vit-nano-mae-block-0\.6-s3-[0-9a-f]{10}", run.name)
    assert run.facts == FACTS
    assert config_of(run, names) == RunConfig(names, masking="block", ratio=0.6, seed=3)
    assert datetime.fromisoformat(run.content["created"]).utcoffset().total_seconds() == 0
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["packages"]["torch"] and environment["python"]


def test_the_environment_holds_no_environment_variables(start, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "a-secret-of-the-user")
    run = start()
    for file in run.folder.iterdir():
        assert "a-secret-of-the-user" not in file.read_text()


def test_the_same_settings_are_the_same_run_and_its_facts_stay(start):
    first = start(seed=1)
    created = (first.folder / "config.json").read_bytes()
    again = start(seed=1, device="cpu", evals=["knn"])
    assert again == first and (first.folder / "config.json").read_bytes() == created
    assert start(seed=2).folder != first.folder


@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.integers(0, 2**64))
def test_every_run_has_a_safe_name_of_its_own(ratio, seed):
    config = RunConfig(NAMES, ratio=ratio, seed=seed)
    name = runs.run_name(config, config.identity("f", "fp32"))
    assert SAFE_NAME.fullmatch(name)
    other = RunConfig(NAMES, ratio=ratio, seed=seed + 1)
    assert runs.run_name(other, other.identity("f", "fp32")) != name


NAMES = installed()


def test_a_folder_with_another_runs_identity_is_refused(start):
    run = start()
    content = {**run.content, "identity": {"other": 1}}
    files.write_sealed(run.folder / "config.json", content, run.name)
    with pytest.raises(RunError, match="holds a run with other settings"):
        start()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_config_that_is_cut_off_is_refused_by_name(start, share):
    run = start()
    path = run.folder / "config.json"
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    for use in (start, lambda: runs.read_run(run.folder)):
        with pytest.raises(RunError, match=re.escape(str(path))):
            use()


def without(part, name):
    """What makes a content that lacks a name in a part of it."""
    return lambda content: {
        **content,
        part: {k: v for k, v in content[part].items() if k != name},
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [],
        lambda content: {k: v for k, v in content.items() if k != "facts"},
        lambda content: {k: v for k, v in content.items() if k != "created"},
        lambda content: {**content, "format": "1"},
        lambda content: {**content, "config": []},
        without("config", "encoder"),
        without("facts", "steps"),
        lambda content: {**content, "facts": {**content["facts"], "mean": 0.5}},
    ],
)
def test_what_is_no_runs_config_is_refused_by_name_and_stops_no_other_run(start, tmp_path, change):
    whole, run = start(seed=1), start()
    (run.folder / "config.json").write_text(json.dumps(change(run.content)))
    says = re.escape(str(run.folder / "config.json"))
    for use in (lambda: runs.read_run(run.folder), lambda: runs.find_run(tmp_path, run.name)):
        with pytest.raises(RunError, match=says):
            use()
    assert runs.find_run(tmp_path, whole.name) == whole
    with pytest.warns(UserWarning, match=f"left out: {says}"):
        assert runs.find_run(tmp_path, "") == whole
    with pytest.warns(UserWarning, match=f"left out: {says}"):
        assert runs.all_runs(tmp_path) == [whole]


def test_of_many_damaged_runs_the_first_are_named_and_the_others_counted(start, tmp_path):
    for seed in range(6):
        (start(seed=seed).folder / "config.json").write_text("")
    with pytest.warns(UserWarning) as said:
        assert runs.all_runs(tmp_path) == []
    texts = [str(one.message) for one in said]
    assert len(texts) == 4 and texts[-1] == "left out: 3 more damaged files"
    assert all("it is empty" in text for text in texts[:3])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"encoder": 1}'])
def test_damaged_hashes_are_refused_by_name(start, text):
    run = start()
    (run.folder / runs.HASHES).write_text(text)
    with pytest.raises(RunError, match=re.escape(str(run.folder / runs.HASHES))):
        runs.read_hashes(run)


def test_a_run_of_a_newer_version_is_refused(start):
    run = start()
    newer = {**run.content, "format": runs.FORMAT + 1}
    files.write_sealed(run.folder / "config.json", newer, run.name)
    with pytest.raises(RunError, match="written by a newer maebench"):
        runs.read_run(run.folder)


def test_a_run_whose_plugin_is_gone_says_so(start, names):
    run = start()
    content = {**run.content, "config": {**run.content["config"], "masking": {"name": "gone"}}}
    with pytest.raises(ConfigError, match="unknown masking 'gone'"):
        config_of(runs.Run(run.folder, content), names)


def test_runs_are_found_by_name_by_folder_and_the_newest_by_nothing(start, tmp_path):
    made = [start(seed=seed) for seed in (5, 1, 3)]
    assert runs.all_runs(tmp_path) == made, "the order of their making"
    assert runs.find_run(tmp_path, "") == made[-1]
    for run in made:
        assert runs.find_run(tmp_path, run.name) == run
        assert runs.find_run(tmp_path / "elsewhere", str(run.folder)) == run


def test_the_newest_run_is_told_by_its_date_and_not_by_its_name(start, tmp_path):
    old, new = start(seed=1), start(seed=0)
    assert runs.find_run(tmp_path, "") == new
    content = {**old.content, "created": runs.now()}
    files.write_sealed(old.folder / "config.json", content, old.name)
    assert runs.find_run(tmp_path, "").name == old.name


def test_a_run_that_is_not_there_is_answered_with_the_nearest(start, tmp_path):
    with pytest.raises(RunError, match=r"no run in .*: start one with `maebench run`"):
        runs.find_run(tmp_path, "")
    run = start()
    with pytest.raises(RunError, match=f"Did you mean '{run.name}'"):
        runs.find_run(tmp_path, run.name[:-2])
    for name in ("a" * 300, "..", "/", str(tmp_path)):
        with pytest.raises(RunError, match="unknown run"):
            runs.find_run(tmp_path, name)


def test_groups_given_to_a_run_or_taken_away_are_written_to_its_config(tmp_path):
    for number in range(16):
        split, kind = ("train", "test")[number % 2], "ab"[number // 2 % 2]
        path = tmp_path / "images" / split / kind / f"{split}{number // 8}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 16 * number, np.uint8)).save(path)

    def prepared(groups, **how):
        data = {"name": f"folder:{tmp_path / 'images'}", "groups": groups}
        return prepare(tiny.config(dataset=data, limit=None), tmp_path, **how).run

    def kept(run):
        return config_of(runs.read_run(run.folder), tiny.names()).dataset.groups

    run = prepared(None)
    before = run.content
    assert prepared("folder", write=False).folder == run.folder and kept(run) is None
    for groups, says in (("folder", r"now has dataset .*groups=folder"), (None, "before .*groups")):
        with pytest.warns(UserWarning, match=says):
            again = prepared(groups)
        assert again.folder == run.folder and kept(run) == groups
        assert again == prepared(groups), "nothing is said of what stays"
    assert runs.read_run(run.folder).content == before


def test_levels_that_change_test_images_alone_are_written_to_the_runs_config(tmp_path):
    """Else a later evaluation would read the test images in another way than the last run did."""
    for number in range(16):
        split, kind = ("train", "test")[number % 2], "ab"[number // 2 % 2]
        path = tmp_path / "images" / split / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        deep = np.uint8 if split == "train" else np.uint16
        Image.fromarray(np.full((8, 8), 16 * number, deep)).save(path)

    def prepared(**data):
        dataset = f"folder:{tmp_path / 'images'}"
        return prepare(tiny.config(dataset=dataset, limit=None, data=data), tmp_path).run

    run = prepared()
    with pytest.warns(UserWarning, match=r"now has data.levels=\[0.0, 65535.0\], before data.lev"):
        again = prepared(levels=(0, 65535))
    assert again.folder == run.folder
    kept = config_of(runs.read_run(run.folder), tiny.names())
    assert kept.data.levels == (0, 65535)
    assert again == prepared(levels=(0, 65535)), "nothing is said of what stays"


def test_results_go_where_one_says_then_where_the_environment_says(monkeypatch, tmp_path):
    assert str(runs.results_folder()) == "results"
    monkeypatch.setenv(runs.ENVIRONMENT, str(tmp_path))
    assert runs.results_folder() == tmp_path
    assert str(runs.results_folder("x")) == "x"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runs.results_folder("~/r") == tmp_path / "r"
    monkeypatch.setenv(runs.ENVIRONMENT, "~/e")
    assert runs.results_folder() == tmp_path / "e"


def test_times_sort_as_text():
    times = [runs.now() for _ in range(100)]
    assert times == sorted(times) and len({len(t) for t in times}) == 1


def test_hashes_are_added_to_those_that_are_kept(start):
    run = start()
    assert runs.read_hashes(run) == {}
    runs.note_hashes(run, encoder="a", module="b")
    runs.note_hashes(run, last_batch="c")
    assert runs.read_hashes(run) == {"encoder": "a", "module": "b", "last_batch": "c"}


@pytest.mark.slow
def test_what_a_run_has_kept_is_read_back_and_refused_where_it_is_missing_or_another(tmp_path):
    made = tiny.plan(tmp_path, **tiny.suited("bert")).run
    assert list(made.facts["kept"]) == ["python.txt", "tokenizer.json"]
    path = made.folder / "data" / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    assert runs.read_kept(made)["tokenizer.json"] == text
    path.write_text(text.replace("alpha", "beta") + " ", encoding="utf-8")
    with pytest.raises(RunError, match="is not as the run kept it: the weights are of other"):
        tiny.load(tmp_path, made.name)
    path.unlink()
    with pytest.raises(RunError, match="which belongs to the weights: No such file"):
        tiny.load(tmp_path, made.name)
    assert runs.read_kept(tiny.plan(tmp_path).run) == {}  # of images nothing is kept
