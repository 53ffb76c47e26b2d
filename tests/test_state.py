"""A caller's settings and a plugin's: neither changes a number, and both are as they were."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

import maebench
from maebench import RunConfig, compare, evaluate, load_model, mask_statistics, run
from maebench.encoders import ViTNano
from maebench.masking.grids import Random
from maebench.pretraining import checkpoints
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare
from maebench.state import SHARED, _is_narrow, compared, steady


@contextlib.contextmanager
def default(dtype=torch.float32, device=None):
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


@contextlib.contextmanager
def filled_up():
    """As many scripts have it at their top; what is missing of an image is then gray."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


CALLERS = {
    "float64": lambda: default(torch.float64),
    "bfloat16": lambda: default(torch.bfloat16),
    "device meta": lambda: default(device="meta"),
    "in a block on meta": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "numpy raises": lambda: np.errstate(all="raise"),
    "truncated images": filled_up,
}
every_caller = pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)


OF_NUMBERS = [w for w in SHARED if "torch" in w or "numpy" in w or "truncated" in w]


def settings(kinds=OF_NUMBERS):
    """What a caller can see of the settings that numbers depend on."""
    depth = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    inside = (torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), depth)
    return {what: SHARED[what][0]() for what in kinds} | {"inside": inside}


def without_draws(found):
    return {what: value for what, value in found.items() if "random state" not in what}


DEFAULTS = without_draws(settings())


def small(**changes):
    """Four steps of a tiny encoder on sixty digits."""
    said = {
        "limit": 60,
        "batch": 16,
        "budget": "steps=4",
        "encoder": ViTNano(width=16, depth=2, heads=2),
    }
    return RunConfig(**{"device": "cpu", "evals": ("knn",), **said, **changes})


def numbers(table):
    """What a table says, without names of files and times."""
    columns = ["model_kind", "evaluation", "metric", "status", "value", "low", "high"]
    return table[columns].to_csv()


def weights(results):
    (folder,) = (results / "runs").iterdir()
    return checkpoints.newest(folder / "checkpoint")["sha256"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The numbers of a caller who has set nothing."""
    results = tmp_path_factory.mktemp("plain")
    table = run(small(), results)
    assert set(table[table["main"]]["status"]) == {"ok"}
    return numbers(table), weights(results), results


# --- what a caller may have set


@every_caller
def test_inside_it_is_as_if_the_caller_had_set_nothing(caller):
    with caller():
        before = settings()
        with steady():
            assert without_draws(settings()) == DEFAULTS
            assert torch.zeros(1).requires_grad_().sum().requires_grad
            assert torch.zeros(1).device.type == "cpu"
            with steady():
                assert without_draws(settings()) == DEFAULTS
            assert without_draws(settings()) == DEFAULTS
        assert settings() == before
        with pytest.raises(KeyError), steady():
            raise KeyError
        assert settings() == before
    assert without_draws(settings()) == DEFAULTS


def test_low_precision_copies_of_a_callers_autocast_are_not_kept():
    weight = torch.ones(2, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ weight)[0, 0] == 2  # and now autocast keeps a copy of it
        for value in (2.0, 3.0):
            with torch.no_grad():
                weight.fill_(value)
            with steady(), torch.autocast("cpu", torch.bfloat16):
                assert (torch.ones(2, 2) @ weight)[0, 0] == 2 * value


@every_caller
def test_a_run_gives_the_same_numbers_and_leaves_settings_as_it_found_them(caller, plain, tmp_path):
    table, trained, _ = plain
    with caller():
        before = settings()
        found = run(small(), tmp_path)
        assert settings() == before
    assert (numbers(found), weights(tmp_path)) == (table, trained)


@every_caller
def test_between_steps_a_caller_has_his_own_settings(caller, plain, tmp_path):
    with caller():
        before = settings()
        plan = prepare(small(), tmp_path)
        for number, step in enumerate(pretrain(plan)):
            assert settings() == before
            assert isinstance(step.loss, float)
            if number == 1:  # what he draws between is his own
                np.random.random(3)
                torch.empty(3, device="cpu").uniform_()
                before = settings()
        assert settings() == before
    assert weights(tmp_path) == plain[1]


@every_caller
def test_a_run_that_is_stopped_or_fails_leaves_settings_too(caller, tmp_path):
    with caller():
        before = settings()
        plan = prepare(small(), tmp_path)
        steps = pretrain(plan)
        next(steps)
        steps.close()
        assert settings() == before
        next(steps := pretrain(plan))  # its lock was freed
        steps.close()
        with pytest.raises(maebench.MaebenchError):
            load_model("no-such-run", tmp_path)
        with pytest.raises(maebench.MaebenchError, match="loss is"):
            run(small(lr=1e30, budget="steps=40"), tmp_path)
        assert settings() == before


@pytest.mark.slow
@every_caller
def test_what_is_called_alone_gives_the_same_numbers(caller, plain, tmp_path):
    _, _, results = plain
    statistics = mask_statistics(["random", "block"], (0.5,), small())
    with caller():
        before = settings()
        found = mask_statistics(["random", "block"], (0.5,), small())
        model = load_model("", results, "cpu")
        assert settings() == before
        path = evaluate(model, small(evals=("knn",)).evals[0], seed=3)
        assert settings() == before
    took = "ms_per_256"  # of the clock
    assert found.drop(columns=took).equals(statistics.drop(columns=took))
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert not any(p.is_inference() or p.device.type != "cpu" for p in model.module.parameters())
    done = path.read_text()
    path.unlink()
    assert evaluate(load_model("", results, "cpu"), small(evals=("knn",)).evals[0], 3) == path
    assert told(path.read_text()) == told(done)


def told(text):
    """A file of rows without times."""
    rows = json.loads(text)
    rows = rows["rows"] if isinstance(rows, dict) else rows
    return [{k: v for k, v in row.items() if k not in ("seconds", "created")} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("caller", ["float64", "device meta", "inference mode", "autocast"])
def test_every_default_evaluation_gives_the_same_numbers(caller, tmp_path):
    evals = ("linear-probe", "finetune", "knn", "reconstruction")
    asked = small(evals=evals)
    table = numbers(run(asked, tmp_path / "plain"))
    with CALLERS[caller]():
        assert numbers(run(asked, tmp_path / "other")) == table


@pytest.mark.slow
def test_a_comparison_leaves_settings_as_it_found_them(tmp_path):
    said = {"limit": 60, "batch": 16, "budget": "steps=2", "encoder": "vit-nano", "evals": "knn"}
    with CALLERS["float64"](), torch.no_grad():
        before = settings()
        found = compare(
            ratio=[0.5, 0.75], seeds=2, workers=1, results=tmp_path, device="cpu", **said
        )
        assert settings() == before
    assert {cell.state for cell in found.cells} == {"done"}


def test_an_image_that_is_cut_off_is_not_filled_up_with_gray(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.effect_noise((16, 16), 90).save(tmp_path / name / f"{i}.png")
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    asked = small(dataset=f"folder:{tmp_path}", limit=None, budget="steps=1")
    with filled_up(), pytest.raises(maebench.MaebenchError, match=r"1\.png: .*truncated"):
        run(asked, tmp_path / "results")


# --- what the import of a plugin changes


def silent(*args):
    """What a plugin puts in the place of a function."""


CHANGES = {
    "the working directory": lambda: os.chdir("/"),
    "environment variables": lambda: os.environ.update(MAEBENCH_TEST_KEY="secret", HOME="/"),
    "sys.path": lambda: sys.path.insert(0, "/nowhere"),
    "sys.argv": lambda: sys.argv.append("--fast"),
    "the recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
    "the collection of garbage": gc.disable,
    "the root logger": lambda: logging.basicConfig(level=logging.DEBUG, force=True),
    "handlers of signals": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "how processes start": lambda: multiprocessing.set_start_method("spawn", force=True),
    "numpy's floating-point errors": lambda: np.seterr(all="raise"),
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "whether torch makes gradients": lambda: torch.set_grad_enabled(False),
    "torch's number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "torch's float32 precision": lambda: torch.set_float32_matmul_precision("medium"),
    "torch's cuDNN settings": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "torch's search for anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "matplotlib's settings": lambda: matplotlib.rcParams.update({"font.size": 33}),
    "whether PIL fills up truncated images": lambda: setattr(
        ImageFile, "LOAD_TRUNCATED_IMAGES", True
    ),
    "PIL's largest image": lambda: setattr(Image, "MAX_IMAGE_PIXELS", None),
    "Python's random state": lambda: random.seed(0),
    "numpy's random state": lambda: np.random.seed(0),
    "torch's random state": lambda: torch.manual_seed(0),
    "torch.rand": lambda: setattr(torch, "rand", silent),
    "torch.Tensor.sum": lambda: setattr(torch.Tensor, "sum", silent),  # hides an inherited name
    "torch.Tensor.__add__": lambda: setattr(torch.Tensor, "__add__", silent),
    "torch.nn.functional.gelu": lambda: setattr(torch.nn.functional, "gelu", torch.relu),
    "numpy.random.rand": lambda: setattr(np.random, "rand", silent),
    "random.random": lambda: setattr(random, "random", silent),
    "time.time": lambda: setattr(time, "time", silent),
    "maebench.masking.grids.Random.scores": lambda: setattr(Random, "scores", silent),
    "maebench.masking.mask.draw": lambda: setattr(maebench.masking.mask, "draw", silent),
    "sys.stdout": lambda: setattr(sys, "stdout", io.StringIO()),
    "sys.stderr": lambda: setattr(sys, "stderr", io.StringIO()),
    "sys.excepthook": lambda: setattr(sys, "excepthook", silent),
    "warnings.showwarning": lambda: setattr(warnings, "showwarning", silent),
    "the filters of warnings": lambda: warnings.simplefilter("ignore"),
}


def shared():
    """All that is compared, and what some of the names mean."""
    names = (torch.rand, torch.Tensor.sum, torch.Tensor.__add__, torch.nn.functional.gelu)
    names += (np.random.rand, random.random, time.time, Random.scores, maebench.masking.mask.draw)
    streams = (sys.stdout, sys.stderr, sys.excepthook, warnings.showwarning)
    return settings(SHARED), names, streams, [f for f in warnings.filters if not _is_narrow(f)]


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("fails", [False, True], ids=["", "failing"])
def test_what_is_changed_is_put_back_and_named(what, fails):
    before = shared()
    with contextlib.suppress(ZeroDivisionError), compared() as changed:
        CHANGES[what]()
        1 / int(not fails)
    assert shared() == before
    (named,) = changed
    assert named.split(" (")[0].startswith(what) and "secret" not in named


def test_all_of_it_together_is_put_back_and_named():
    before = shared()
    with compared() as changed:
        for change in CHANGES.values():
            change()
    assert shared() == before
    assert len(changed) >= len(CHANGES)


def test_every_setting_that_is_compared_is_tried():
    locale_needs_one_installed = {"the locale"}
    assert SHARED.keys() - locale_needs_one_installed <= CHANGES.keys()


def test_code_that_changes_nothing_is_not_named():
    before, filters = shared(), len(warnings.filters)
    with compared() as changed:
        torch.rand  # noqa: B018 - to look at a name is no change
        warnings.filterwarnings("ignore", "some text")
        warnings.filterwarnings("ignore", module="some.module")
        random.getrandbits(24)  # as libraries do, for a name
    assert changed == []
    assert shared() == before
    assert len(warnings.filters) == filters + 2, "a library's own filters are left"


def test_a_filter_that_is_taken_away_is_put_back():
    before = list(warnings.filters)
    with compared() as changed:
        warnings.resetwarnings()
    assert changed == ["the filters of warnings"] and warnings.filters == before


def test_what_is_printed_goes_to_stderr(capsys):
    with compared():
        print("hello")  # noqa: T201
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "library", ["sklearn.linear_model", "torchvision.transforms", "timm", "matplotlib.pyplot"]
)
def test_a_library_that_a_plugin_imports_is_not_what_it_changes(library):
    code = f"""
from maebench.state import compared
with compared() as changed:
    import {library}
assert changed == [], changed
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def _float32(place, name):
    """A setting of float32's precision, or that torch refuses to tell it."""
    try:
        return getattr(place, name)
    except RuntimeError:
        return "refused"


def _float32_settings():
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    places = [torch.backends, cuda.matmul, cudnn, cudnn.conv, cudnn.rnn, mkldnn, mkldnn.matmul]
    return [
        *(_float32(place, "fp32_precision") for place in places),
        *(_float32(place, "allow_tf32") for place in (cuda.matmul, cudnn)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        'torch.set_float32_matmul_precision("high")',
        *(
            pytest.param(line, marks=pytest.mark.slow)
            for line in (
                "pass",
                "torch.backends.cudnn.allow_tf32 = False",
                'torch.backends.cuda.matmul.fp32_precision = "tf32"',
                'torch.backends.cudnn.conv.fp32_precision = "ieee"',
                'torch.backends.fp32_precision = "tf32"',
            )
        ),
    ],
)
@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9")
def test_what_is_called_fp32_is_no_tf32_inside_and_the_callers_setting_comes_back(line):
    code = f"""
import torch
from maebench.state import float32_products, steady
from test_state import _float32_settings
{line}
before = _float32_settings()
with steady():
    inside = _float32_settings()
    assert inside[1] == inside[3] == inside[4] == inside[6] == "ieee", inside
    assert inside[7:] == [False, False], inside
    with float32_products("tf32"):
        tf32 = _float32_settings()
        assert tf32[1] == tf32[3] == "tf32" and tf32[7:] == [True, True], tf32
    assert _float32_settings() == inside
assert _float32_settings() == before, (before, _float32_settings())
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
