"""A finished run asked for again: its table without torch, and never one that is out of date."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maebench import cli
from maebench.cli import again
from maebench.data import BUILT_IN
from maebench.data.dataset import Dataset, Request
from maebench.pretraining import plan

pytestmark = pytest.mark.slow  # each asks whole commands again

QUICK = ("--budget", "steps=1", "--batch", "8", "--encoder", "vit-nano", "--device", "cpu")


@pytest.fixture
def images(tmp_path):
    """Two classes of twenty gray images."""
    numbers = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = numbers.integers(0, 256, (16, 16), "uint8")
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def call(tmp_path, images, monkeypatch, capsys):
    """`maebench run` on the images: whether it went the whole way, and what it printed."""
    monkeypatch.chdir(tmp_path)
    # files of this very moment may change within a tick of the clock and are else not relied on
    monkeypatch.setattr(again, "TICK_NS", 0)
    # somebody may be at work on the code while its tests run
    monkeypatch.setattr(again, "_folders_of_code", lambda: [tmp_path / "code"])
    prepared = []
    prepare = plan.prepare
    monkeypatch.setattr(plan, "prepare", lambda *a, **k: prepared.append(a) or prepare(*a, **k))

    def call(*more, code=0):
        prepared.clear()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            evals = () if "--evals" in more else ("--evals", "knn")
            arguments = ["--dataset", f"folder:{images}", "--results", "results", *QUICK, *evals]
            cli.main(["run", *arguments, *map(str, more)])
        assert ended.value.code == code
        out = capsys.readouterr()
        return bool(prepared), out.out, out.err

    return call


def test_a_second_call_shows_the_same_and_looks_no_further(call):
    whole, out, err = call()
    assert whole and "pretrained" in out
    again_whole, again_out, again_err = call()
    assert (again_whole, again_out) == (False, out)
    assert again_err == err.splitlines()[0] + "\n"  # what a data set says of itself each time
    assert again_err.startswith("folder: 40 images")


def test_a_second_call_imports_neither_torch_nor_what_made_the_table(tmp_path):
    """In processes of their own; the digits lie in scikit-learn's folder for long."""
    code = """
import sys
from maebench.cli import main
try:
    main(sys.argv[1:])
finally:
    print("LOADED", *{name.split(".")[0] for name in sys.modules}, file=sys.stderr)
"""
    arguments = ["run", *QUICK, "--limit", "100", "--evals", "knn", "--results", str(tmp_path)]
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        for _ in range(2)
    )
    assert first.stdout == second.stdout and "pretrained" in first.stdout
    loaded = set(second.stderr.splitlines()[-1].split())
    heavy = {"torch", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "PIL", "maebench_evals"}
    assert loaded & heavy == set() and "rich" in loaded


def test_other_settings_are_another_question(call):
    call()
    assert call("--seed", "1")[0]
    assert not call("--seed", "1")[0]
    assert call("-o", "knn.k=3")[0]
    assert not call()[0]


def one_image(images):
    return images / "a" / "3.png"


def overwritten(images):
    """Other pixels, the same size, and the time of before: as `cp -p` or an archive gives."""
    path = one_image(images)
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


CHANGES = {
    "an image is gone": lambda images: one_image(images).unlink(),
    "an image is new": lambda images: shutil.copy(one_image(images), images / "b" / "new.png"),
    "an image has another name": lambda images: one_image(images).rename(images / "a" / "z.png"),
    "an image is in another class": lambda images: one_image(images).rename(images / "b" / "z.png"),
    "a file is new that is none": lambda images: (images / "a" / "notes.txt").write_text("x"),
    "an image has another time": lambda images: os.utime(one_image(images)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_images_that_changed_are_looked_at(call, images, change):
    call()
    CHANGES[change](images)
    assert call()[0]
    assert not call()[0]


def test_pixels_that_changed_make_another_run(call, images):
    call()
    path = one_image(images)
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    whole, out, _ = call()
    assert whole and len(list(Path("results/runs").iterdir())) == 2
    assert not call()[0]
    assert out == call()[1]


def test_an_image_that_was_overwritten_with_its_old_time_is_noticed(images):
    before = again.state_of(images)
    overwritten(images)
    assert again.state_of(images) != before


def test_images_that_were_written_just_now_are_not_relied_on(call, monkeypatch):
    monkeypatch.setattr(again, "TICK_NS", 10**12)
    call()
    assert call()[0]


def run_folder():
    (found,) = Path("results/runs").iterdir()
    return found


RESULTS = {
    "the settings of the run": lambda: run_folder() / "config.json",
    "the masks": lambda: run_folder() / "masks.json",
    "the curve": lambda: run_folder() / "pictures" / "loss.png",
    "a row of the run": lambda: next(run_folder().glob("records/*.json")),
    "values of the run": lambda: next(run_folder().glob("records/*.npz")),
    "a row of a control": lambda: next(Path("results/models").glob("pixels-*/records/*.json")),
    "weights": lambda: next(path for path in run_folder().rglob("checkpoint/**/*.safetensors")),
}


@pytest.mark.parametrize("what", RESULTS)
def test_results_that_changed_are_looked_at(call, what):
    call()
    path = RESULTS[what]()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert call()[0]


@pytest.mark.parametrize(
    "what", ["a row of the run", "the masks", "the curve", "a row of a control"]
)
def test_results_that_are_gone_are_made_again(call, what):
    out = call()[1]
    path = RESULTS[what]()
    path.unlink()
    assert call()[:2] == (True, out)
    assert path.exists()


def test_code_packages_machine_and_variables_count(call, tmp_path, monkeypatch):
    call()
    for name, value in (("_machine", ["another"]), ("_packages", [["new.dist-info", 1]])):
        with monkeypatch.context() as patch:
            patch.setattr(again, name, lambda value=value: value)
            assert call()[0], name
            assert not call()[0]
        assert call()[0], name  # and back again
    with monkeypatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "0")
        assert call()[0]
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "module.py").write_text("x = 1")
    assert call()[0]


def test_the_code_that_counts_is_ours():
    names = [folder.name for folder in again._folders_of_code()]
    assert names == ["maebench", "maebench_evals"]


def test_a_changed_module_is_another_state_and_a_compiled_one_is_not(tmp_path):
    (tmp_path / "module.py").write_text("x = 1")
    before = again.state_of(tmp_path, ".py")
    (tmp_path / "__pycache__").mkdir()
    cached = again.state_of(tmp_path, ".py")
    (tmp_path / "__pycache__" / "module.pyc").write_text("compiled")
    assert again.state_of(tmp_path, ".py") == cached
    (tmp_path / "module.py").write_text("x = 2")
    assert again.state_of(tmp_path, ".py") not in (before, cached)


def test_a_file_of_settings_counts_by_its_content(call, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 0.001")
    call("--config", file)
    assert not call("--config", file)[0]
    file.write_text("lr: 0.002")
    assert call("--config", file)[0]


def test_a_file_that_a_masking_reads_counts(call, tmp_path):
    path = tmp_path / "labels.npy"
    np.save(path, np.zeros((40, 16, 16), "int64"))
    more = ("--masking", "label-map", "-o", f"masking.file={path}")
    if call(*more, code=0)[0]:
        assert not call(*more)[0]
    path.touch()
    assert call(*more)[0]


PLUGIN = """
from typing import ClassVar
import maebench
class Dots(maebench.Random):
    '''As random.'''
    name: ClassVar[str] = "dots"
@maebench.hookimpl
def register_maskings():
    return [Dots]
"""


def test_plugins_of_others_may_have_a_say(call, tmp_path, monkeypatch):
    place = tmp_path / "installed"
    (place / "dots-1.0.dist-info").mkdir(parents=True)
    (place / "dots-1.0.dist-info" / "METADATA").write_text("Name: dots\nVersion: 1.0\n")
    points = "[maebench]\ndots = dots_plugin\n"
    (place / "dots-1.0.dist-info" / "entry_points.txt").write_text(points)
    (place / "dots_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(place)
    for _ in range(2):
        assert call()[0]
    monkeypatch.setenv("MAEBENCH_PLUGINS", "")
    assert call()[0]
    assert not call()[0]


def test_what_failed_is_tried_again(call, monkeypatch):
    from maebench_evals.knn import KNN

    def fails(self, model):
        raise ValueError("no")
        yield

    monkeypatch.setattr(KNN, "run", fails)
    assert "failed" in call(code=1)[1]
    assert call(code=1)[0]


def test_what_is_warned_of_is_warned_of_again(call, monkeypatch):
    from maebench.objectives import MAE

    monkeypatch.setattr(MAE, "notes", lambda *_: ("mind the gap",))
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            whole, _, err = call()
        assert whole and "mind the gap" in err


def test_a_damaged_or_older_file_is_as_good_as_none(call):
    out = call()[1]
    (kept,) = Path("results").rglob(f"{again.FOLDER}/*.json")
    content = json.loads(kept.read_text())
    for bad in ("", "[]", "{", json.dumps({**content, "format": 0}), json.dumps({"format": 1})):
        kept.write_text(bad)
        assert call()[:2] == (True, out)
        assert not call()[0]


def test_a_folder_with_too_many_files_is_not_looked_at(call, monkeypatch):
    monkeypatch.setattr(again, "MOST_FILES", 10)
    monkeypatch.setattr(again, "_folders_of_code", list)
    call()
    assert call()[0]


def test_links_are_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "real" / "nowhere").symlink_to(tmp_path / "missing")
    before = again.state_of(tmp_path / "data")
    (tmp_path / "real" / "file").write_text("y")
    assert again.state_of(tmp_path / "data") != before


def test_what_is_not_there_is_a_state_too(tmp_path):
    before = again.state_of(tmp_path / "x")
    (tmp_path / "x").touch()
    assert before == again.state_of(tmp_path / "y") != again.state_of(tmp_path / "x")


@pytest.mark.parametrize("cls", BUILT_IN, ids=lambda cls: cls.name)
def test_every_built_in_data_set_says_what_it_is_read_from(cls, tmp_path):
    dataset = cls(**({"path": tmp_path} if cls.spec else {}))
    read = dataset.read_from(Request("train", data_dir=tmp_path))
    assert read and all(path.is_absolute() for path in read)


def test_where_nobody_says_what_is_read_the_command_goes_the_whole_way(call, monkeypatch):
    from maebench.data import Folder

    monkeypatch.setattr(Folder, "read_from", Dataset.read_from)
    call()
    assert call()[0]


def test_code_that_is_compiled_when_it_is_first_imported_is_the_same_code(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "code.py").write_text("x = 1")
    before = again.state_of(tmp_path, ".py")
    (tmp_path / "room" / "__pycache__").mkdir()
    (tmp_path / "room" / "__pycache__" / "code.cpython-311.pyc").write_bytes(b"1")
    assert again.state_of(tmp_path, ".py") == before
    (tmp_path / "room" / "more").mkdir()
    assert again.state_of(tmp_path, ".py") != before
