"""What memory there is, by the system and by control groups of either version."""

from __future__ import annotations

import pytest

from maebench.data import memory
from maebench.data.dataset import Request
from maebench.data.digits import Digits
from maebench.errors import RunError


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A Linux of 8 GiB, 6 of them free, in folders of the test."""
    process, groups = tmp_path / "proc", tmp_path / "cgroup"
    (process / "self").mkdir(parents=True)
    (process / "meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\n")
    monkeypatch.setattr(memory, "PROCESS", process)
    monkeypatch.setattr(memory, "GROUPS", groups)
    return process / "self" / "cgroup", groups


def limit(folder, names, most, used, stat):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip((*names, "memory.stat"), (most, used, stat), strict=True):
        (folder / name).write_text(f"{value}\n")


TWO = ("memory.max", "memory.current")
ONE = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_the_system_says_what_is_available(system):
    assert memory.available() == 6 * 2**30


def test_a_group_around_the_process_has_the_smaller_limit(system):
    of_process, groups = system
    of_process.write_text("0::/job/step\n")
    limit(groups / "job" / "step", TWO, "max", 0, "inactive_file 0")
    limit(groups / "job", TWO, 2**30, 2**29, f"inactive_file {2**27}\nactive_file {2**27}\nanon 5")
    assert memory.available() == 2**29 + 2**28  # a cache of files is given back


def test_a_container_of_the_first_version_finds_its_limit_at_the_top(system):
    of_process, groups = system
    of_process.write_text("9:cpu:/\n4:memory:/docker/0a1b\n")
    limit(groups / "memory", ONE, 2**30, 2**28, "total_inactive_file 0")
    assert memory.available() == 2**30 - 2**28


def test_where_nothing_is_said_nothing_is_refused(system, monkeypatch):
    (system[0].parent.parent / "meminfo").unlink()
    monkeypatch.delattr("os.sysconf")
    assert memory.available() is None
    memory.check_fits("all", 2**60, "buy more")


def test_images_that_do_not_fit_are_refused_before_they_are_resized(system):
    message = (
        r"1,437 images of 1x16384x16384 \(channels x rows x columns\) take up to 718.5 GiB of "
        r"memory, and 6.0 GiB are free here: take a smaller --image-size"
    )
    with pytest.raises(RunError, match=message):
        Digits().load(Request("train", image_size=(16384, 16384)))
